//! An embedded store that several nodes of one process share, and that does what databases do on bad
//! days: it is away, loses answers, commits late, and goes back to an earlier state of its file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use event_tracker::domain::{BatchId, Delta, EventName, EventTotal, HourRange, HourlyCount, Sum, SumBy, WriterId};
use event_tracker::store::admin::{
    AccountChange, AdminKey, AdminStore, Catalog, Change, Changed, LoggedChange, Session, Superuser,
};
use event_tracker::store::sqlite::SqliteStore;
use event_tracker::store::{
    Books, Commit, CommitRequest, Folded, HourlyQuery, LedgerPosition, NodeReport, NodeSeen, Since, Snapshot, Store,
    StoreError,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

/// A folder for files that are synced often: in memory where that is possible.
pub fn folder() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("event-tracker-test");
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { builder.tempdir_in(memory).unwrap() } else { builder.tempdir().unwrap() }
}

/// What becomes of the next commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is done, and nobody hears of it.
    AnswerLost,
    /// It is not answered, and done when [`Unsteady::catch_up`] is called.
    Late,
}

pub struct Unsteady {
    path: Mutex<PathBuf>,
    /// How many files there were.
    states: AtomicU64,
    store: RwLock<Arc<dyn Store>>,
    expected: Mutex<Option<String>>,
    down: Mutex<bool>,
    next: Mutex<Option<Fate>>,
    late: Mutex<Vec<CommitRequest>>,
    /// The next list of hourly counts waits for this, before and after it is read.
    held: Mutex<Option<Arc<Held>>>,
    /// The next position waits for this, before it is read.
    held_position: Mutex<Option<Arc<Held>>>,
    holds_catalog: watch::Sender<bool>,
}

#[derive(Default)]
pub struct Held {
    pub is_asked: Notify,
    pub may_read: Notify,
    pub has_read: Notify,
    pub go_on: Notify,
}

impl Held {
    async fn wait(&self) {
        self.is_asked.notify_one();
        self.may_read.notified().await;
    }
}

impl Unsteady {
    pub fn open(path: &Path) -> Arc<Self> {
        // An existing file gets its schema now, so that every saved state is of this database.
        std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(path).unwrap());
        Arc::new(Self {
            path: Mutex::new(path.to_owned()),
            states: AtomicU64::new(0),
            store: RwLock::new(store),
            expected: Mutex::default(),
            down: Mutex::default(),
            next: Mutex::default(),
            late: Mutex::default(),
            held: Mutex::default(),
            held_position: Mutex::default(),
            holds_catalog: watch::Sender::new(false),
        })
    }

    pub fn set_down(&self, down: bool) {
        *self.down.lock() = down;
    }

    pub fn is_down(&self) -> bool {
        *self.down.lock()
    }

    pub fn set_next(&self, fate: Fate) {
        *self.next.lock() = Some(fate);
    }

    pub fn hold_next_read(&self) -> Arc<Held> {
        let held = Arc::new(Held::default());
        *self.held.lock() = Some(Arc::clone(&held));
        held
    }

    pub fn hold_next_position(&self) -> Arc<Held> {
        let held = Arc::new(Held::default());
        *self.held_position.lock() = Some(Arc::clone(&held));
        held
    }

    /// Whether the catalog is not answered.
    pub fn hold_catalog(&self, holds: bool) {
        self.holds_catalog.send_replace(holds);
    }

    /// Whether somebody waits for it.
    pub fn is_catalog_awaited(&self) -> bool {
        self.holds_catalog.receiver_count() > 0
    }

    /// From now on it does what it should.
    pub async fn recover(&self) {
        self.set_down(false);
        *self.next.lock() = None;
        self.catch_up().await;
    }

    /// Does the commits that are late.
    pub async fn catch_up(&self) {
        let late = std::mem::take(&mut *self.late.lock());
        let store = self.store.read().clone();
        for request in late {
            let _ = store.commit(request).await;
        }
    }

    /// Copies the file as it is.
    pub fn save(&self, to: &Path) {
        let connection = rusqlite::Connection::open(&*self.path.lock()).unwrap();
        connection.execute("vacuum into ?1", [to.to_str().unwrap()]).unwrap();
    }

    /// Goes back to an earlier copy of the file.
    pub async fn set_back(&self, from: &Path) {
        let states = self.states.fetch_add(1, Ordering::Relaxed);
        let path = self.path.lock().with_extension(format!("{states}.sqlite"));
        std::fs::copy(from, &path).unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
        let before = std::mem::replace(&mut *self.store.write(), store);
        *self.path.lock() = path;
        before.close().await;
    }

    /// The file's own store, for looking at what is in it.
    pub fn inner(&self) -> Arc<dyn Store> {
        self.store.read().clone()
    }

    /// The log does not tell any more what batches held.
    pub fn forget_log(&self) {
        let connection = rusqlite::Connection::open(&*self.path.lock()).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        connection.execute("delete from deltas", ()).unwrap();
    }

    async fn up(&self) -> Result<Arc<dyn Store>, StoreError> {
        if self.is_down() {
            return Err(StoreError::Unavailable("it is away".into()));
        }
        let store = self.inner();
        let expected = self.expected.lock().clone();
        if let Some(expected) = expected
            && store.identity().await? != expected
        {
            return Err(StoreError::AnotherDatabase("its identity is another one".into()));
        }
        Ok(store)
    }
}

#[async_trait]
impl Store for Unsteady {
    async fn commit(&self, request: CommitRequest) -> Result<Commit, StoreError> {
        let store = self.up().await?;
        let fate = self.next.lock().take();
        match fate {
            None => return store.commit(request).await,
            Some(Fate::AnswerLost) => drop(store.commit(request).await?),
            Some(Fate::Late) => self.late.lock().push(request),
        }
        Err(StoreError::Unavailable("the answer is lost".into()))
    }

    async fn fold(&self) -> Result<Option<Folded>, StoreError> {
        self.up().await?.fold().await
    }

    async fn fold_after(&self, _rest: std::time::Duration) -> Result<Option<Folded>, StoreError> {
        self.fold().await
    }

    fn expect(&self, identity: Option<String>) {
        *self.expected.lock() = identity;
    }

    async fn hourly(
        &self,
        query: HourlyQuery,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<HourlyCount>>, StoreError> {
        let held = self.held.lock().take();
        if let Some(held) = &held {
            held.wait().await;
        }
        let rows = self.up().await?.hourly(query, writers).await;
        if let Some(held) = held {
            held.has_read.notify_one();
            held.go_on.notified().await;
        }
        rows
    }

    async fn totals(&self, writers: Vec<WriterId>) -> Result<Snapshot<Vec<EventTotal>>, StoreError> {
        self.up().await?.totals(writers).await
    }

    async fn each_total(
        &self,
        writers: Vec<WriterId>,
        on_total: &mut (dyn FnMut(EventTotal) + Send),
    ) -> Result<LedgerPosition, StoreError> {
        self.up().await?.each_total(writers, on_total).await
    }

    async fn sums(
        &self,
        range: HourRange,
        by: SumBy,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<Sum>>, StoreError> {
        self.up().await?.sums(range, by, writers).await
    }

    async fn position(&self, writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError> {
        let held = self.held_position.lock().take();
        if let Some(held) = held {
            held.wait().await;
        }
        self.up().await?.position(writers).await
    }

    async fn since(&self, known: LedgerPosition, writers: Vec<WriterId>) -> Result<Since, StoreError> {
        self.up().await?.since(known, writers).await
    }

    async fn delta(&self, id: BatchId) -> Result<Option<Delta>, StoreError> {
        self.up().await?.delta(id).await
    }

    async fn audit(&self) -> Result<Books, StoreError> {
        self.up().await?.audit().await
    }

    async fn identity(&self) -> Result<String, StoreError> {
        self.up().await?.identity().await
    }

    /// The test closes it.
    async fn close(&self) {}

    async fn note_node(&self, report: NodeReport) -> Result<(), StoreError> {
        self.up().await?.note_node(report).await
    }

    async fn forget_node(&self, writer: WriterId) -> Result<(), StoreError> {
        self.up().await?.forget_node(writer).await
    }

    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        self.up().await?.nodes().await
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn label(&self) -> String {
        "an unsteady store".into()
    }
}

#[async_trait]
impl AdminStore for Unsteady {
    async fn catalog(&self) -> Result<Catalog, StoreError> {
        let _ = self.holds_catalog.subscribe().wait_for(|holds| !holds).await;
        self.up().await?.catalog().await
    }

    async fn change(&self, change: Change, who: &str, at: DateTime<Utc>) -> Result<Changed, StoreError> {
        self.up().await?.change(change, who, at).await
    }

    async fn due_purges(&self, grace: TimeDelta) -> Result<Vec<EventName>, StoreError> {
        self.up().await?.due_purges(grace).await
    }

    async fn changes(
        &self,
        events: Vec<EventName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<LoggedChange>, StoreError> {
        self.up().await?.changes(events, before, limit).await
    }

    async fn superusers(&self) -> Result<Vec<Superuser>, StoreError> {
        self.up().await?.superusers().await
    }

    async fn change_account(&self, change: AccountChange, who: &str, at: DateTime<Utc>) -> Result<bool, StoreError> {
        self.up().await?.change_account(change, who, at).await
    }

    async fn add_session(&self, session: Session, password_hash: &str, sessions_max: u32) -> Result<bool, StoreError> {
        self.up().await?.add_session(session, password_hash, sessions_max).await
    }

    async fn session(
        &self,
        id_hash: [u8; 32],
        now: DateTime<Utc>,
        idle_since: DateTime<Utc>,
    ) -> Result<Option<Session>, StoreError> {
        self.up().await?.session(id_hash, now, idle_since).await
    }

    async fn touch_session(&self, id_hash: [u8; 32], now: DateTime<Utc>) -> Result<(), StoreError> {
        self.up().await?.touch_session(id_hash, now).await
    }

    async fn end_session(&self, id_hash: [u8; 32]) -> Result<(), StoreError> {
        self.up().await?.end_session(id_hash).await
    }

    async fn admin_keys(&self) -> Result<Vec<AdminKey>, StoreError> {
        self.up().await?.admin_keys().await
    }

    async fn use_admin_key(&self, secret_hash: [u8; 32], now: DateTime<Utc>) -> Result<Option<AdminKey>, StoreError> {
        self.up().await?.use_admin_key(secret_hash, now).await
    }
}
