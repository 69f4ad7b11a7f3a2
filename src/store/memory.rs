//! A store in the memory of the process, for simulations: as on PostgreSQL, commits append to a log that is
//! folded apart. It passes the contract of the real ones, can be copied and set back, and keeps no accounts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;

use super::admin::{AccountChange, AdminKey, AdminStore, Catalog, Change, Changed, LoggedChange, Session, Superuser};
use super::{
    Books, Commit, CommitRequest, Folded, HourlyQuery, LedgerPosition, NodeReport, NodeSeen, Options, Since, Snapshot,
    Store, StoreError,
};
use crate::domain::{BatchId, Delta, EventName, EventTotal, HourRange, HourlyCount, Sum, SumBy, WriterId};
use contents::Contents;

mod change;
mod contents;

/// Tells the time of the store.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What stores share that are opened on it, as several nodes share one database.
#[derive(Clone)]
pub struct MemoryDatabase {
    contents: Arc<Mutex<Contents>>,
    clock: Clock,
    log_kept: TimeDelta,
}

/// Everything that a database held at one moment.
pub struct Saved(Contents);

impl MemoryDatabase {
    /// An empty one.
    #[must_use]
    pub fn new(identity: [u8; 16], clock: Clock) -> Self {
        let log_kept = Duration::from_millis(Options::default().log_keep_ms);
        Self {
            contents: Arc::new(Mutex::new(Contents::new(identity))),
            clock,
            log_kept: TimeDelta::from_std(log_kept).unwrap_or_default(),
        }
    }

    #[must_use]
    pub fn open(&self) -> MemoryStore {
        MemoryStore { database: self.clone(), expected: Mutex::default() }
    }

    #[must_use]
    pub fn save(&self) -> Saved {
        Saved(self.contents.lock().clone())
    }

    /// As when a backup is restored.
    pub fn set_back(&self, saved: &Saved) {
        self.contents.lock().clone_from(&saved.0);
    }

    fn now(&self) -> DateTime<Utc> {
        DateTime::from((self.clock)())
    }
}

pub struct MemoryStore {
    database: MemoryDatabase,
    expected: Mutex<Option<String>>,
}

impl MemoryStore {
    /// One statement, or one transaction of them: nobody sees a part of it. As a database, it lets others go on
    /// meanwhile.
    async fn run<T>(&self, work: impl FnOnce(&mut Contents) -> T) -> Result<T, StoreError> {
        tokio::task::yield_now().await;
        let mut contents = self.database.contents.lock();
        if let Some(expected) = &*self.expected.lock()
            && *expected != contents.identity()
        {
            return Err(StoreError::AnotherDatabase("this one has another identity".into()));
        }
        Ok(work(&mut contents))
    }

    async fn read<T>(&self, work: impl FnOnce(&Contents) -> T) -> Result<Snapshot<T>, StoreError> {
        self.run(|contents| Snapshot { value: work(contents), position: contents.position() }).await
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, request: CommitRequest) -> Result<Commit, StoreError> {
        self.run(|contents| contents.commit(&request, self.database.now())).await
    }

    async fn fold(&self) -> Result<Option<Folded>, StoreError> {
        let now = self.database.now();
        self.run(|contents| {
            let folded = contents.fold(now);
            contents.trim(now - self.database.log_kept);
            Some(folded)
        })
        .await
    }

    async fn fold_after(&self, rest: Duration) -> Result<Option<Folded>, StoreError> {
        let rest = TimeDelta::from_std(rest).unwrap_or_default();
        if self.run(|contents| contents.has_folded_since(self.database.now() - rest)).await? {
            return Ok(None);
        }
        self.fold().await
    }

    fn expect(&self, identity: Option<String>) {
        *self.expected.lock() = identity;
    }

    async fn hourly(
        &self,
        query: HourlyQuery,
        _writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<HourlyCount>>, StoreError> {
        let snapshot = self.read(|contents| contents.hourly(query.range, &query.names)).await?;
        if snapshot.value.len() > query.rows_max {
            return Err(StoreError::TooManyRows { rows_max: query.rows_max });
        }
        Ok(snapshot)
    }

    async fn totals(&self, _writers: Vec<WriterId>) -> Result<Snapshot<Vec<EventTotal>>, StoreError> {
        self.read(Contents::totals).await
    }

    async fn each_total(
        &self,
        _writers: Vec<WriterId>,
        on_total: &mut (dyn FnMut(EventTotal) + Send),
    ) -> Result<LedgerPosition, StoreError> {
        let Snapshot { value, position } = self.read(Contents::totals).await?;
        value.into_iter().for_each(on_total);
        Ok(position)
    }

    async fn sums(
        &self,
        range: HourRange,
        by: SumBy,
        _writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<Sum>>, StoreError> {
        self.read(|contents| contents.sums(range, by)).await
    }

    async fn position(&self, _writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError> {
        self.run(|contents| contents.position()).await
    }

    async fn since(&self, known: LedgerPosition, _writers: Vec<WriterId>) -> Result<Since, StoreError> {
        let Snapshot { value, position } = self.read(|contents| contents.behind(&known)).await?;
        let deltas = known.leads_to(&position, value);
        Ok(Since { position, deltas })
    }

    async fn delta(&self, id: BatchId) -> Result<Option<Delta>, StoreError> {
        self.run(|contents| contents.delta(id)).await
    }

    async fn audit(&self) -> Result<Books, StoreError> {
        self.run(|contents| contents.books()).await
    }

    async fn identity(&self) -> Result<String, StoreError> {
        self.run(|contents| contents.identity()).await
    }

    async fn close(&self) {}

    async fn note_node(&self, _report: NodeReport) -> Result<(), StoreError> {
        self.run(|_| ()).await
    }

    async fn forget_node(&self, _writer: WriterId) -> Result<(), StoreError> {
        self.run(|_| ()).await
    }

    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        self.run(|_| Vec::new()).await
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn label(&self) -> String {
        "a store in memory".into()
    }
}

fn no_accounts<T>() -> Result<T, StoreError> {
    Err(StoreError::Rejected("a store in memory keeps no accounts".into()))
}

#[async_trait]
impl AdminStore for MemoryStore {
    async fn catalog(&self) -> Result<Catalog, StoreError> {
        self.run(|contents| contents.catalog()).await
    }

    async fn change(&self, change: Change, who: &str, at: DateTime<Utc>) -> Result<Changed, StoreError> {
        self.run(|contents| contents.change(&change, who, at, self.database.now())).await
    }

    async fn due_purges(&self, grace: TimeDelta) -> Result<Vec<EventName>, StoreError> {
        self.run(|contents| contents.due_purges(grace, self.database.now())).await
    }

    async fn changes(
        &self,
        events: Vec<EventName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<LoggedChange>, StoreError> {
        self.run(|contents| contents.changes(&events, before, limit)).await
    }

    async fn superusers(&self) -> Result<Vec<Superuser>, StoreError> {
        self.run(|_| Vec::new()).await
    }

    async fn change_account(&self, _: AccountChange, _: &str, _: DateTime<Utc>) -> Result<bool, StoreError> {
        no_accounts()
    }

    async fn add_session(&self, _: Session, _: &str, _: u32) -> Result<bool, StoreError> {
        no_accounts()
    }

    async fn session(&self, _: [u8; 32], _: DateTime<Utc>, _: DateTime<Utc>) -> Result<Option<Session>, StoreError> {
        no_accounts()
    }

    async fn touch_session(&self, _: [u8; 32], _: DateTime<Utc>) -> Result<(), StoreError> {
        no_accounts()
    }

    async fn end_session(&self, _: [u8; 32]) -> Result<(), StoreError> {
        no_accounts()
    }

    async fn admin_keys(&self) -> Result<Vec<AdminKey>, StoreError> {
        no_accounts()
    }

    async fn use_admin_key(&self, _: [u8; 32], _: DateTime<Utc>) -> Result<Option<AdminKey>, StoreError> {
        no_accounts()
    }
}
