//! The wiring: the only file that knows everything. In the order it happens: recover, serve, drain,
//! flush.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::batch::{Batches, Recovered};
use crate::catalog::LiveCatalog;
use crate::config::Config;
use crate::descriptors;
use crate::domain::Increment;
use crate::flusher::Flusher;
use crate::http;
use crate::journal::{DataFolder, OpenError};
use crate::names::Names;
use crate::private;
use crate::query::Query;
use crate::signals::Signals;
use crate::store::{self, Store, StoreError, StoreHealth};
use crate::telemetry;

/// How long serving waits for a store that hangs.
const FIRST_CONTACT: Duration = Duration::from_secs(2);
/// How often a store that is down at start is asked again for what it knows.
const GREETING_RETRY: Duration = Duration::from_millis(500);
/// How often deleted events are looked for whose grace period is over.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);
/// What caches hold is idle for a minute before it is given back.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// How long a command waits for its counts to be in the store.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the service until a signal tells it to stop.
///
/// # Errors
/// When it can't start, when the journal is poisoned, or when counts could neither be flushed nor
/// kept in the journal.
pub fn run(mut config: Config) -> anyhow::Result<()> {
    config.http.connections_max = descriptors::fit(config.http.connections_max, config.store.read_connections + 1);
    let runtime = runtime(config.http.workers)?;
    let result = runtime.block_on(async {
        let signals = Signals::listen().context("can't listen for signals")?;
        let folder = DataFolder::lock(&config.data_dir)?;
        private::tighten(&config.data_dir);
        let app = App::recover(config, folder).await?;
        let address = &app.config.http.listen;
        let listener = http::listen(address).with_context(|| format!("can't listen on {address}"))?;
        app.run_until_stopped(listener, signals).await
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
    runtime(config.http.workers)?.block_on(async {
        let (folder, scratch) = own_data_folder(&config.data_dir)?;
        let app = App::recover(config, folder).await?;
        app.greet().await?;
        let mut counted = 0;
        for increment in increments {
            app.batches.record(&increment.event, increment.hour, increment.count)?;
            counted += increment.count;
            on_progress(counted);
        }
        let flushed = tokio::time::timeout(IMPORT_TIMEOUT, app.flusher.flush()).await;
        let kept = app.folder.path().display();
        flushed.map_err(anyhow::Error::new).and_then(|flushed| Ok(flushed?)).with_context(|| {
            format!(
                "the counts are not in the store yet, they wait in {kept}; a service with that data_dir and this database delivers them"
            )
        })?;
        app.store.close().await;
        if let Some(scratch) = scratch {
            std::fs::remove_dir_all(&scratch).with_context(|| format!("can't remove {}", scratch.display()))?;
        }
        Ok(Imported { store: app.store.label() })
    })
}

/// Nodes share a store and nothing else: beside a running service, a command counts as a node with
/// a folder of its own. Returns that folder when it is one.
fn own_data_folder(data_dir: &Path) -> Result<(DataFolder, Option<PathBuf>), OpenError> {
    match DataFolder::lock(data_dir) {
        Err(OpenError::InUse { .. }) => {
            let scratch = data_dir.join(format!("import-{}", std::process::id()));
            Ok((DataFolder::lock(&scratch)?, Some(scratch)))
        }
        locked => {
            let folder = locked?;
            private::tighten(data_dir);
            Ok((folder, None))
        }
    }
}

/// The flusher goes on until it is told to stop.
fn flusher_ended(ended: anyhow::Result<bool>) -> anyhow::Error {
    ended.err().unwrap_or_else(|| anyhow!("the flusher ended"))
}

fn runtime(workers: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder.on_thread_start(http::learn_date);
    builder.enable_all().build().context("can't start the worker threads")
}

struct App {
    config: Config,
    folder: DataFolder,
    batches: &'static Batches,
    store: Arc<dyn Store>,
    flusher: Flusher,
    catalog: Arc<LiveCatalog>,
    health: Arc<StoreHealth>,
}

impl App {
    /// Takes over what the folder's journal holds. The store may be down; an embedded one is in
    /// `data_dir`, wherever the journal is.
    async fn recover(config: Config, folder: DataFolder) -> anyhow::Result<Self> {
        let store = store::open(&config.store, &config.data_dir).await?;
        let names = Arc::new(Names::new(config.limits));
        let (batches, recovered) = Batches::recover(&folder, config.journal, names)?;
        log_recovered(&recovered);
        let batches: &'static Batches = Box::leak(Box::new(batches));
        let health = Arc::new(StoreHealth::default());
        let catalog = Arc::new(LiveCatalog::new(batches, Arc::clone(&store), Arc::clone(&health)));
        let flusher =
            Flusher::new(batches, Arc::clone(&store), Arc::clone(&catalog), Arc::clone(&health), config.flush);
        Ok(Self { config, folder, batches, store, flusher, catalog, health })
    }

    async fn run_until_stopped(self, listener: TcpListener, mut signals: Signals) -> anyhow::Result<()> {
        let app: &'static Self = Box::leak(Box::new(self));
        let query: &'static Query = Box::leak(Box::new(Query::new(
            app.batches,
            Arc::clone(&app.store),
            Arc::clone(&app.catalog),
            Arc::clone(&app.health),
        )));
        let (store, admin_options) = (Arc::clone(&app.store), app.config.admin.clone());
        let admin: &'static admin::State = Box::leak(Box::new(admin::State::new(
            query,
            app.batches,
            store,
            admin_options,
            Box::new(|| SystemTime::now().into()),
        )));
        let (ack, options) = (app.config.journal.ack, app.config.http.clone());
        let state: &'static http::State =
            Box::leak(Box::new(http::State::new(app.batches, query, admin, ack, options, Box::new(SystemTime::now))));
        // An event that the store knows must not pass for new, so the store comes before the first
        // request, unless it takes its time.
        let met = match tokio::time::timeout(FIRST_CONTACT, app.meet_store()).await {
            Ok(met) => met?.is_ok(),
            Err(_) => false,
        };
        let address = listener.local_addr().context("the listener has no address")?;
        app.announce(address)?;

        // 1. Serve and flush until told to stop.
        let (stop_serving, stop_flushing) = (CancellationToken::new(), CancellationToken::new());
        let server = tokio::spawn(http::serve(listener, state, stop_serving.clone()));
        tokio::spawn(offer_setup(admin, address));
        tokio::spawn(keep_purging(Arc::clone(&app.catalog), admin));
        tokio::spawn(keep_forgetting(state));
        // On this thread and not on the server's: what a flush computes takes many milliseconds.
        let mut flushing = std::pin::pin!(app.keep_flushing(met, stop_flushing.clone()));
        let journal = app.batches.journal();
        tokio::select! {
            name = signals.next() => tracing::info!(signal = name, "Stopping: finishing the requests under way"),
            reason = journal.poisoned() => bail!("the journal failed, the next start recovers from it: {reason}"),
            ended = &mut flushing => return Err(flusher_ended(ended)),
        }

        // 2. Not ready, but still taking requests for a while; then nothing new, and the requests under
        // way are finished.
        state.begin_draining();
        let drained = async {
            tokio::time::sleep(Duration::from_millis(app.config.http.drain_delay_ms)).await;
            stop_serving.cancel();
            server.await
        };
        tokio::select! {
            served = drained => served.context("the server ended by a panic")?,
            ended = &mut flushing => return Err(flusher_ended(ended)),
            reason = journal.poisoned() => bail!("the journal failed, the next start recovers from it: {reason}"),
            name = signals.next() => bail!("stopped at once by a second {name}; the journal keeps what is not in the store"),
        }

        // 3. Flush what is there, within a deadline.
        stop_flushing.cancel();
        let deadline = Duration::from_millis(app.config.flush.shutdown_timeout_ms);
        let last_flush = async {
            // A store that was never reached may be another one than the journal belongs to.
            let greeted = flushing.await? || tokio::time::timeout(deadline, app.greet()).await.is_ok_and(|g| g.is_ok());
            anyhow::Ok(greeted && app.flusher.flush_all().await)
        };
        let flushed = tokio::select! {
            flushed = last_flush => flushed?,
            name = signals.next() => bail!("stopped at once by a second {name}; the journal keeps what is not in the store"),
        };

        // 4. What could not be flushed stays in the journal, on disk.
        journal.wait_synced(journal.end()).await.context("the journal could not be synced")?;
        app.store.close().await;
        if flushed {
            tracing::info!("Stopped: everything is in the store");
        } else {
            tracing::warn!("Stopped: the journal keeps what is not in the store; the next start delivers it");
        }
        Ok(())
    }

    /// Returns whether the store has been reached at all; `met`: that it has been already.
    async fn keep_flushing(&self, met: bool, stop: CancellationToken) -> anyhow::Result<bool> {
        if !met {
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                greeted = self.greet() => greeted?,
            }
        }
        self.flusher.run(stop).await;
        Ok(true)
    }

    /// The first contact with the store, as soon as it is there: see [`App::meet_store`]. Until then,
    /// an event that only the store has seen passes for new.
    async fn greet(&self) -> anyhow::Result<()> {
        let mut refusal = None;
        while let Err(error) = self.meet_store().await? {
            if refusal.as_ref() != Some(&error) && !matches!(error, StoreError::Unavailable(_)) {
                tracing::error!(%error, "Counting goes on, the journal keeps the counts");
            }
            refusal = Some(error);
            tokio::time::sleep(GREETING_RETRY).await;
        }
        Ok(())
    }

    /// Makes sure that the store is the one that the journal belongs to, and learns the names it
    /// knows. The store's own errors leave it to be tried again.
    async fn meet_store(&self) -> anyhow::Result<Result<(), StoreError>> {
        let reading = async {
            let identity = self.store.identity().await?;
            let totals = self.store.totals(Vec::new()).await?.value;
            self.catalog.refresh().await?;
            Ok((identity, totals))
        };
        let (identity, totals) = match self.health.note(reading.await) {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        self.check_identity(&identity)?;
        for total in &totals {
            self.batches.names().learn(&total.event, total.count);
        }
        Ok(Ok(()))
    }

    /// One journal is never replayed into two stores: a commit whose answer was lost in the first
    /// would be counted again in the second.
    fn check_identity(&self, identity: &str) -> anyhow::Result<()> {
        let path = self.folder.path().join("STORE");
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        if known.trim() == identity {
            return Ok(());
        }
        if !known.is_empty() && self.batches.has_recovered() {
            bail!(
                "the journal in {} holds counts for another database than {}: start once with that one, so that they are delivered, or use another data_dir",
                self.folder.path().display(),
                self.store.label()
            );
        }
        write_synced(&path, identity).with_context(|| format!("can't write {}", path.display()))
    }

    fn announce(&self, address: SocketAddr) -> anyhow::Result<()> {
        let store = self.store.label();
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
async fn keep_purging(catalog: Arc<LiveCatalog>, admin: &'static admin::State) {
    loop {
        // At once, too: a node that is started anew every few minutes would never come to it.
        let purge = async {
            catalog.keep_current().await?;
            admin.purge_deleted().await
        };
        if let Err(error) = purge.await {
            tracing::warn!(%error, "Deleted events could not be removed; this is tried again");
        }
        tokio::time::sleep(PURGE_INTERVAL).await;
    }
}

/// Has caches give back what nobody asks for any more: by themselves they do so only while they are used.
async fn keep_forgetting(state: &'static http::State) {
    loop {
        tokio::time::sleep(FORGET_INTERVAL).await;
        state.forget_idle();
    }
}

fn write_synced(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn log_recovered(recovered: &Recovered) {
    let Recovered { batches, records, counts, torn_bytes, damaged_bytes } = *recovered;
    if damaged_bytes > 0 {
        tracing::error!(damaged_bytes, "Parts of the journal could not be read; the damaged files are kept beside it");
    }
    if batches > 0 || torn_bytes > 0 {
        tracing::info!(batches, records, counts = %counts, torn_bytes, "Recovered counts from the journal");
    }
}
