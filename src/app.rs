//! The wiring: the only file that knows everything. In the order it happens: recover, serve, drain,
//! flush.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::batch::{Inventory, Recovered};
use crate::config::Config;
use crate::descriptors;
use crate::domain::Increment;
use crate::journal::{DataDir, OpenError};
use crate::node::{self, Drained, Node};
use crate::private;
use crate::server;
use crate::signals::Signals;
use crate::site::Site;
use crate::statsd::{self, Statsd};
use crate::store;
use crate::telemetry;

/// How long serving waits for a store that hangs.
const FIRST_CONTACT: Duration = Duration::from_secs(2);
/// How often a store that is down at start is asked again for what it knows.
const GREETING_RETRY: Duration = Duration::from_millis(500);
/// How often deleted events are looked for whose grace period is over: several times in the hour for which a
/// purge must stay due.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);
/// What caches hold is idle for a minute before it is given back.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// Begins the name of a folder that a command makes for itself within the data folder.
const SCRATCH: &str = "import-";
/// How long a command waits for its counts to be in the store.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the service until a signal tells it to stop.
///
/// # Errors
/// When it can't start, when the journal is poisoned, or when counts could neither be flushed nor
/// kept in the journal.
pub fn run(mut config: Config) -> anyhow::Result<()> {
    let of_statsd = if config.ingest.statsd_tcp.is_empty() { 0 } else { statsd::CONNECTIONS_MAX };
    config.http.connections_max =
        descriptors::fit(config.http.connections_max, config.store.connections_max(), of_statsd);
    let runtime = runtime(config.http.workers)?;
    let result = runtime.block_on(async {
        let signals = Signals::listen().context("can't listen for signals")?;
        let folder = DataDir::lock(&config.data_dir)?;
        private::tighten(&config.data_dir);
        let app = App::recover(config, folder).await?;
        let address = &app.config.http.listen;
        let listener = server::listen(address).with_context(|| format!("can't listen on {address}"))?;
        let ingest = &app.config.ingest;
        let statsd = Statsd::bind(&app.node, &ingest.statsd_udp, &ingest.statsd_tcp).await?;
        app.run_until_stopped(listener, statsd, signals).await
    });
    // Whatever still runs was given its time.
    runtime.shutdown_background();
    result
}

/// What [`import`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The store's name for people, without secrets.
    pub store: String,
}

/// Takes increments through journal and batches into the configured store, and returns when they
/// are committed. `on_progress` hears how many occurrences are counted, now and then.
///
/// # Errors
/// When journal or store fail.
pub fn import(config: Config, increments: &[Increment], on_progress: &dyn Fn(u64)) -> anyhow::Result<Imported> {
    with_node(config, async |node| {
        let mut counted = 0;
        for increment in increments {
            node.batches.record(&increment.event, increment.hour, increment.count)?;
            counted += increment.count;
            on_progress(counted);
        }
        let flushed = tokio::time::timeout(IMPORT_TIMEOUT, node.flusher.flush()).await;
        let kept = node.dir.path().display();
        flushed.map_err(anyhow::Error::new).and_then(|flushed| Ok(flushed?)).with_context(|| {
            format!(
                "the counts are not in the store yet, they wait in {kept}; a service with that data_dir and this database delivers them"
            )
        })?;
        let _ = node.batches.write_mark();
        Ok(Imported { store: node.store.label() })
    })
}

/// Gives a command a node that has met its store and neither serves nor flushes by itself, also beside a
/// running service.
///
/// # Errors
/// When the folder or the store can't be used, and those of `work`.
pub fn with_node<T>(config: Config, work: impl AsyncFnOnce(&Node) -> anyhow::Result<T>) -> anyhow::Result<T> {
    runtime(config.http.workers)?.block_on(async {
        let (folder, scratch) = own_data_folder(&config.data_dir)?;
        let app = App::recover(config, folder).await?;
        let node = &app.node;
        let met = tokio::time::timeout(IMPORT_TIMEOUT, node.meet_store()).await;
        let done = match met.map_err(anyhow::Error::new).and_then(|met| Ok(met?)) {
            Ok(()) => work(node).await,
            Err(error) => Err(error),
        };
        node.store.close().await;
        // What waits in it is kept for a service to deliver.
        if let Some(scratch) = scratch.filter(|_| node.batches.unstored() == 0) {
            std::fs::remove_dir_all(&scratch).with_context(|| format!("can't remove {}", scratch.display()))?;
        }
        done
    })
}

/// Nodes share a store and nothing else: beside a running service, a command counts as a node with
/// a folder of its own. Returns that folder when it is one.
fn own_data_folder(data_dir: &Path) -> Result<(DataDir, Option<PathBuf>), OpenError> {
    match DataDir::lock(data_dir) {
        Err(OpenError::InUse { .. }) => {
            remove_leftovers(data_dir);
            let scratch = data_dir.join(format!("{SCRATCH}{}", std::process::id()));
            Ok((DataDir::lock(&scratch)?, Some(scratch)))
        }
        locked => {
            let folder = locked?;
            private::tighten(data_dir);
            Ok((folder, None))
        }
    }
}

/// A command that was killed leaves its folder behind. One that holds counts stays.
fn remove_leftovers(data_dir: &Path) {
    for entry in std::fs::read_dir(data_dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(SCRATCH) {
            continue;
        }
        let (path, locked) = (entry.path(), DataDir::lock(&entry.path()));
        // An open batch without counts is one, too.
        let is_empty = |found: Inventory| found.pending.iter().all(|(_, total)| *total == 0);
        let holds_nothing = || Inventory::read(&path).is_ok_and(|found| found.is_some_and(is_empty));
        if locked.is_ok() && holds_nothing() {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

fn runtime(workers: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder.on_thread_start(server::learn_date);
    builder.enable_all().build().context("can't start the worker threads")
}

struct App {
    config: Config,
    node: Arc<Node>,
}

impl App {
    /// Takes over what the folder's journal holds. The store may be down; an embedded one is in
    /// `data_dir`, wherever the journal is.
    async fn recover(config: Config, dir: DataDir) -> anyhow::Result<Self> {
        let store = store::open(&config.store, &config.data_dir).await?;
        let options = node::Options {
            journal: config.journal,
            flush: config.flush,
            fold_interval_ms: config.store.fold_interval_ms,
            limits: config.limits,
        };
        let (node, recovered) = Node::recover(dir, store, options, Arc::new(SystemTime::now))?;
        log_recovered(&recovered);
        Ok(Self { config, node: Arc::new(node) })
    }

    async fn run_until_stopped(
        self,
        listener: TcpListener,
        statsd: Statsd,
        mut signals: Signals,
    ) -> anyhow::Result<()> {
        // The one leak of the process: what a request borrows lives as long as it.
        let app: &'static Self = Box::leak(Box::new(self));
        let node = &app.node;
        let admin: &'static admin::State = Box::leak(Box::new(admin::State::new(node, app.config.admin.clone())));
        let (ack, options) = (app.config.journal.ack, app.config.http.clone());
        let site = Site::new(node, admin, ack, options).with_path_alias(app.config.ingest.path_alias.clone());
        let site: &'static Site = Box::leak(Box::new(site));

        let address = listener.local_addr().context("the listener has no address")?;
        node.presence.listens_at(address.to_string());

        // 1. Serve and flush until told to stop. Flushing goes on on this thread and not on the server's:
        // what a flush computes takes many milliseconds.
        let (stop_serving, stop_flushing) = (CancellationToken::new(), CancellationToken::new());
        let mut running = std::pin::pin!(node.run(stop_flushing.clone()));
        // An event that the store knows must not pass for new, so the store comes before the first
        // request, unless it takes its time.
        tokio::select! {
            () = node.first_contact(FIRST_CONTACT) => {}
            () = &mut running => bail!("flushing ended"),
        }
        app.announce(address)?;
        if !statsd.addresses().is_empty() {
            telemetry::print(&format!("StatsD counters are taken at {}", statsd.addresses()));
        }
        let server = tokio::spawn(server::serve(listener, site, stop_serving.clone()));
        let statsd = tokio::spawn(statsd.run(stop_serving.clone()));
        tokio::spawn(offer_setup(admin, address));
        tokio::spawn(keep_purging(node, admin));
        tokio::spawn(keep_forgetting(site));
        let journal = node.batches.journal();
        let poisoned = tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "Stopping: finishing the requests under way");
                None
            }
            reason = journal.poisoned() => Some(reason),
            () = &mut running => bail!("flushing ended"),
        };

        // 2. Not ready, but still taking requests for a while; then nothing new, and the requests under
        // way are finished.
        site.begin_draining();
        let drained = async {
            if poisoned.is_none() {
                tokio::time::sleep(Duration::from_millis(app.config.http.drain_delay_ms)).await;
            }
            stop_serving.cancel();
            tokio::try_join!(server, statsd)
        };
        tokio::select! {
            served = drained => drop(served.context("the server ended by a panic")?),
            () = &mut running => bail!("flushing ended"),
            name = signals.next() => bail!("stopped at once by a second {name}; the journal keeps what is not in the store"),
        }

        // 3. Flush what is there, within a deadline. What could not be flushed stays in the journal, on disk.
        stop_flushing.cancel();
        let deadline = Duration::from_millis(app.config.flush.shutdown_timeout_ms);
        let drained = async {
            running.await;
            node.drain(deadline).await
        };
        let drained = tokio::select! {
            drained = drained => drained,
            name = signals.next() => bail!("stopped at once by a second {name}; the journal keeps what is not in the store"),
        };
        node.presence.leave().await;
        node.store.close().await;
        if let Some(reason) = poisoned {
            match drained {
                Drained::Stored => bail!("the journal failed ({reason}); everything that was counted is in the store"),
                Drained::Kept => bail!("the journal failed, the next start recovers from it: {reason}"),
                Drained::Lost { counts, .. } => {
                    bail!("the journal failed ({reason}); {counts} counts are neither in it nor in the store")
                }
            }
        }
        match drained {
            Drained::Stored => tracing::info!("Stopped: everything is in the store"),
            Drained::Kept => {
                tracing::warn!("Stopped: the journal keeps what is not in the store; the next start delivers it");
            }
            Drained::Lost { counts, why } => {
                bail!("{counts} counts are neither in the store nor safe in the journal: {why}")
            }
        }
        Ok(())
    }

    fn announce(&self, address: SocketAddr) -> anyhow::Result<()> {
        let store = self.node.store.label();
        let ack = serde_json::to_string(&self.config.journal.ack)?;
        telemetry::print(&format!(
            "event-tracker {} listens on http://{address}, store: {store}, acknowledges after: {}, admin: {}",
            env!("CARGO_PKG_VERSION"),
            ack.trim_matches('"'),
            admin::home(address),
        ));
        Ok(())
    }
}

/// While there is no superuser, prints the link that makes the first one. Waits for a store that is
/// down at start.
async fn offer_setup(admin: &'static admin::State, address: SocketAddr) {
    loop {
        match admin.setup_link(address).await {
            Ok(None) => return,
            Ok(Some(link)) => {
                telemetry::print(&format!("There is no superuser yet. Make the first one, once, at {link}"));
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "Whether there is a superuser is not known yet");
                tokio::time::sleep(GREETING_RETRY).await;
            }
        }
    }
}

/// Removes for good what was deleted long enough ago. Ends with the process.
async fn keep_purging(node: &'static Node, admin: &'static admin::State) {
    loop {
        // At once, too: a node that is started anew every few minutes would never come to it.
        let purge = async {
            node.catalog.keep_current().await?;
            admin.purge_deleted().await
        };
        if let Err(error) = purge.await {
            tracing::warn!(%error, "Deleted events could not be removed; this is tried again");
        }
        tokio::time::sleep(PURGE_INTERVAL).await;
    }
}

/// Has caches give back what nobody asks for any more: by themselves they do so only while they are used.
async fn keep_forgetting(site: &'static Site) {
    loop {
        tokio::time::sleep(FORGET_INTERVAL).await;
        site.forget_idle();
    }
}

fn log_recovered(recovered: &Recovered) {
    let Recovered { batches, records, counts, torn_bytes, damaged_bytes, .. } = *recovered;
    if damaged_bytes > 0 {
        tracing::error!(damaged_bytes, "Parts of the journal could not be read; the damaged files are kept beside it");
    }
    if batches > 0 || torn_bytes > 0 {
        tracing::info!(batches, records, counts = %counts, torn_bytes, "Recovered counts from the journal");
    }
}
