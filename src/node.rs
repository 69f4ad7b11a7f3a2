//! One node: what counts, what it is flushed into, and what reads both, as one value.
//!
//! The service, the commands and every test build this one, in one way: [`Node::recover`]. It serves at
//! once; [`Node::run`] meets the store as soon as it is there, flushes, and keeps the folder tidy.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batches, RecoverError, Recovered};
use crate::blocking::run_blocking;
use crate::catalog::LiveCatalog;
use crate::flusher::{self, Flusher};
use crate::folder::Folder;
use crate::journal::files::remove_if_there;
use crate::journal::{self, DataDir, Health};
use crate::names::{Limits, Names};
use crate::presence::Presence;
use crate::query::Query;
use crate::reconcile::Reconciler;
use crate::store::{Store, StoreError, StoreHealth, Watched};

/// The wall clock, injected so that hours can be tested.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How often a store that was never reached is asked again.
const MEETING_RETRY: Duration = Duration::from_millis(500);
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
/// How often at least the node looks whether the store has changed.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// A file of this name in the data folder, whatever it holds, says that an administrator accepts the
/// store as it is.
pub const ACCEPT: &str = "ACCEPT";

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub journal: journal::Options,
    pub flush: flusher::Options,
    /// Time from one fold of the store's log to the next.
    pub fold_interval_ms: u64,
    pub limits: Limits,
}

pub struct Node {
    pub dir: DataDir,
    pub batches: Arc<Batches>,
    /// Notes the health of every use.
    pub store: Arc<dyn Store>,
    pub health: Arc<StoreHealth>,
    pub catalog: Arc<LiveCatalog>,
    pub query: Arc<Query>,
    pub flusher: Flusher,
    pub folder: Folder,
    pub presence: Arc<Presence>,
    pub clock: Clock,
    reconciler: Arc<Reconciler>,
    met: watch::Sender<bool>,
    meeting: Mutex<()>,
}

/// What became of the counts of a node that stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Drained {
    /// Everything is in the store.
    Stored,
    /// The journal keeps what is not; the next start delivers it.
    Kept,
    /// Neither has so many of them.
    Lost { counts: u64, why: String },
}

impl Node {
    /// Takes over what the folder's journal holds and is ready to count. The store may be down.
    ///
    /// # Errors
    /// When the journal can't be read or written.
    pub fn recover(
        dir: DataDir,
        store: Arc<dyn Store>,
        options: Options,
        clock: Clock,
    ) -> Result<(Self, Recovered), RecoverError> {
        let names = Arc::new(Names::new(options.limits));
        let (batches, recovered) = Batches::recover(&dir, options.journal, names)?;
        let batches = Arc::new(batches.with_partitions(store.partitions()));
        let health = Arc::new(StoreHealth::default());
        let store: Arc<dyn Store> = Arc::new(Watched::new(store, Arc::clone(&health)));
        // A store that was met once is not made anew in silence.
        store.expect(batches.mark().identity);
        let catalog = Arc::new(LiveCatalog::new(Arc::clone(&batches), Arc::clone(&store)));
        let reconciler = Arc::new(Reconciler::new(Arc::clone(&batches), Arc::clone(&store), Arc::clone(&health)));
        let query = Arc::new(Query::new(
            Arc::clone(&batches),
            Arc::clone(&store),
            Arc::clone(&catalog),
            Arc::clone(&reconciler),
            Arc::clone(&health),
        ));
        let flusher = Flusher::new(
            Arc::clone(&batches),
            Arc::clone(&store),
            Arc::clone(&reconciler),
            Arc::clone(&health),
            options.flush,
        );
        let folder = Folder::new(Arc::clone(&store), Duration::from_millis(options.fold_interval_ms));
        let presence =
            Presence::new(Arc::clone(&dir.root), Arc::clone(&batches), Arc::clone(&store), Arc::clone(&health));
        let presence = Arc::new(presence);
        let (met, meeting) = (watch::Sender::new(false), Mutex::new(()));
        let node = Self {
            dir,
            batches,
            store,
            health,
            catalog,
            query,
            flusher,
            folder,
            presence,
            clock,
            reconciler,
            met,
            meeting,
        };
        Ok((node, recovered))
    }

    /// Makes sure that the store is the one that the journal belongs to, that it still has what it
    /// confirmed, and learns the names it knows. Once is enough.
    ///
    /// # Errors
    /// The store's. [`StoreError::AnotherDatabase`] while the journal holds counts for another one.
    pub async fn meet_store(&self) -> Result<(), StoreError> {
        let _meeting = self.meeting.lock().await;
        if *self.met.borrow() {
            return Ok(());
        }
        let identity = match self.store.identity().await {
            // With nothing to deliver, a start may change to another database, but not in silence.
            Err(StoreError::AnotherDatabase(why)) if !self.batches.has_sealed() => {
                tracing::error!(why, "Another database answers than before: it is used from now on");
                self.store.expect(None);
                let identity = self.store.identity().await?;
                self.batches.forget_confirmed();
                identity
            }
            identity => identity?,
        };
        self.batches.adopt(&identity);
        self.store.expect(Some(identity));
        let baseline = self.reconciler.baseline();
        let position = self.catalog.meet(self.batches.writers()).await?;
        // Whatever it finds: what can be delivered again waits by now, the rest is reported.
        self.reconciler.check(&baseline, &position).await;
        self.health.note_missing(self.batches.mark().missing());
        self.met.send_replace(true);
        Ok(())
    }

    /// Returns when the store has been met, or has neither been nor told a new name for `patience`.
    pub async fn first_contact(&self, patience: Duration) {
        let mut met = self.met.subscribe();
        loop {
            let known = self.batches.names().len();
            let waited = tokio::time::timeout(patience, met.wait_for(|met| *met)).await;
            if waited.is_ok() || self.batches.names().len() == known {
                return;
            }
        }
    }

    /// Meets the store, flushes, folds, looks at the catalog, keeps the folder tidy and reports that it lives,
    /// until `stop`. For one caller at a time, on a thread that serves no requests.
    pub async fn run(&self, stop: CancellationToken) {
        let flushing = async {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.keep_meeting() => self.flusher.run(stop.clone()).await,
            }
        };
        let looking = async {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.keep_looking() => {}
            }
        };
        let tidying = async {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.keep_tidy() => {}
            }
        };
        let folding = async {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.keep_folding() => {}
            }
        };
        let reporting = async {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.keep_reporting() => {}
            }
        };
        tokio::join!(flushing, looking, tidying, folding, reporting);
    }

    async fn keep_meeting(&self) {
        while self.meet_store().await.is_err() {
            // The store's health tells why.
            tokio::time::sleep(MEETING_RETRY).await;
        }
    }

    async fn keep_folding(&self) {
        self.until_met().await;
        self.folder.run().await;
    }

    async fn keep_reporting(&self) {
        self.until_met().await;
        self.presence.run().await;
    }

    async fn until_met(&self) {
        // The sender is a part of this node.
        let _ = self.met.subscribe().wait_for(|met| *met).await;
    }

    /// Sees changes of the catalog, and a store that went back, also while nobody reads. A reader's look will do.
    async fn keep_looking(&self) {
        let interval = self.flusher.interval().min(LOOK_INTERVAL_MAX);
        let mut tried = Instant::now();
        loop {
            let age = self.query.look_age().map_or(tried.elapsed(), |age| age.min(tried.elapsed()));
            if age < interval {
                tokio::time::sleep(interval - age).await;
                continue;
            }
            tried = Instant::now();
            if *self.met.borrow() {
                // The store's health tells why not.
                let _ = self.query.keep_current().await;
            }
        }
    }

    /// Looks once whether the store still has what it confirmed, and whether the catalog has changed.
    ///
    /// # Errors
    /// The store's.
    pub async fn look(&self) -> Result<(), StoreError> {
        let baseline = self.reconciler.baseline();
        let position = self.store.position(self.batches.writers()).await?;
        if self.reconciler.check(&baseline, &position).await {
            self.catalog.keep_current_at(&position).await?;
        }
        Ok(())
    }

    async fn keep_tidy(&self) {
        let mut failing = false;
        loop {
            tokio::time::sleep(TIDY_INTERVAL).await;
            self.accept_if_asked().await;
            let batches = Arc::clone(&self.batches);
            let tidied = run_blocking(move || {
                // Both, whatever becomes of the first: a journal that is never shortened fills the disk.
                let (tidied, shortened) = (batches.tidy(), batches.shorten_segments());
                tidied.and(shortened)
            });
            match tidied.await {
                Ok(shortened) => {
                    failing = false;
                    if shortened {
                        tracing::info!(journal.bytes = self.batches.journal().bytes(), "Rewrote a long segment");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "The journal's folder can't be kept tidy");
                    }
                }
            }
        }
    }

    /// An administrator says so with a file, since the dashboard's own accounts may be what is missing.
    async fn accept_if_asked(&self) {
        if self.dir.root.open(ACCEPT).is_ok() {
            match self.accept_store().await {
                Ok(()) => {
                    if let Err(error) = remove_if_there(&*self.dir.root, ACCEPT) {
                        tracing::warn!(%error, "{ACCEPT} can't be removed from the data folder");
                    }
                }
                Err(error) => tracing::warn!(%error, "The store can't be accepted yet"),
            }
        }
    }

    /// Takes the store as it is for the right one: counts that it lacks and nobody can deliver are not
    /// reported any more, and where another database answers, it is used from now on.
    ///
    /// # Errors
    /// The store's: whether it is another one can't be known then.
    pub async fn accept_store(&self) -> Result<(), StoreError> {
        if matches!(self.store.identity().await, Err(StoreError::AnotherDatabase(_))) {
            self.store.expect(None);
            let identity = self.store.identity().await?;
            self.batches.forget_confirmed();
            self.batches.adopt(&identity);
            self.store.expect(Some(identity));
            self.met.send_replace(false);
        }
        self.batches.accept_missing();
        self.health.note_missing(0);
        tracing::warn!("An administrator has accepted the store as it is");
        self.meet_store().await
    }

    /// Counts that the store is known to lack and nobody can deliver.
    #[must_use]
    pub fn missing(&self) -> i128 {
        self.batches.mark().missing()
    }

    /// Puts what is pending into the store, within the flusher's deadline, after [`Node::run`] has ended
    /// and nobody counts any more. What can't be put there stays in the journal, on disk. `deadline`: how
    /// long a store that was never met is waited for.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        if self.batches.unstored() > 0 && tokio::time::timeout(deadline, self.keep_meeting()).await.is_ok() {
            self.flusher.flush_all().await;
        }
        let _ = self.batches.write_mark();
        if self.batches.unstored() == 0 {
            return Drained::Stored;
        }
        let journal = self.batches.journal();
        // What could not be written before may find its room by now.
        if let Err(error) = self.batches.tidy() {
            tracing::warn!(%error, "The journal's folder can't be kept tidy");
        }
        let _ = journal.write_all();
        let _ = journal.wait_synced(journal.end()).await;
        let counts = u64::try_from(self.batches.at_risk()).unwrap_or(0);
        let why = match journal.health() {
            _ if counts == 0 => return Drained::Kept,
            Health::Stalled(why) | Health::Poisoned(why) => why,
            Health::Healthy => "the journal lacks segments".into(),
        };
        Drained::Lost { counts, why }
    }
}
