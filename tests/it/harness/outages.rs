//! A store that is away when a test says so, also between a commit and its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use event_tracker::domain::{BatchId, Delta, EventName, EventTotal, HourRange, HourlyCount, Sum, SumBy, WriterId};
use event_tracker::store::admin::{
    AccountChange, AdminKey, AdminStore, Catalog, Change, Changed, LoggedChange, Session, Superuser,
};
use event_tracker::store::{
    Books, Commit, CommitRequest, Folded, HourlyQuery, LedgerPosition, NodeReport, NodeSeen, Since, Snapshot, Store,
    StoreError,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Link {
    Up,
    /// Nothing gets through.
    Down,
    /// Commits happen, and nobody hears of it.
    AnswersLost,
    /// Lists are not answered until this changes, all else is.
    Silent,
}

pub struct Outages {
    store: Arc<dyn Store>,
    link: AtomicU8,
}

impl Outages {
    pub fn of(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, link: AtomicU8::new(Link::Up as u8) })
    }

    pub fn set(&self, link: Link) {
        self.link.store(link as u8, Ordering::Relaxed);
    }

    async fn reached(&self) -> Result<&dyn Store, StoreError> {
        while self.link.load(Ordering::Relaxed) == Link::Silent as u8 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        self.up()
    }

    fn up(&self) -> Result<&dyn Store, StoreError> {
        if [Link::Up as u8, Link::Silent as u8].contains(&self.link.load(Ordering::Relaxed)) {
            Ok(&*self.store)
        } else {
            Err(StoreError::Unavailable("an outage".into()))
        }
    }
}

#[async_trait]
impl Store for Outages {
    async fn commit(&self, request: CommitRequest) -> Result<Commit, StoreError> {
        if self.link.load(Ordering::Relaxed) == Link::AnswersLost as u8 {
            let _ = self.store.commit(request).await;
            return Err(StoreError::Unavailable("the answer was lost".into()));
        }
        self.up()?.commit(request).await
    }

    async fn fold(&self) -> Result<Option<Folded>, StoreError> {
        self.up()?.fold().await
    }

    async fn fold_after(&self, _rest: std::time::Duration) -> Result<Option<Folded>, StoreError> {
        self.fold().await
    }

    fn expect(&self, identity: Option<String>) {
        self.store.expect(identity);
    }

    async fn hourly(
        &self,
        query: HourlyQuery,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<HourlyCount>>, StoreError> {
        self.reached().await?.hourly(query, writers).await
    }

    async fn totals(&self, writers: Vec<WriterId>) -> Result<Snapshot<Vec<EventTotal>>, StoreError> {
        self.reached().await?.totals(writers).await
    }

    async fn each_total(
        &self,
        writers: Vec<WriterId>,
        on_total: &mut (dyn FnMut(EventTotal) + Send),
    ) -> Result<LedgerPosition, StoreError> {
        self.up()?.each_total(writers, on_total).await
    }

    async fn sums(
        &self,
        range: HourRange,
        by: SumBy,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<Sum>>, StoreError> {
        self.up()?.sums(range, by, writers).await
    }

    async fn position(&self, writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError> {
        self.up()?.position(writers).await
    }

    async fn since(&self, known: LedgerPosition, writers: Vec<WriterId>) -> Result<Since, StoreError> {
        self.up()?.since(known, writers).await
    }

    async fn delta(&self, id: BatchId) -> Result<Option<Delta>, StoreError> {
        self.up()?.delta(id).await
    }

    async fn audit(&self) -> Result<Books, StoreError> {
        self.up()?.audit().await
    }

    async fn identity(&self) -> Result<String, StoreError> {
        self.up()?.identity().await
    }

    async fn close(&self) {
        self.store.close().await;
    }

    async fn note_node(&self, report: NodeReport) -> Result<(), StoreError> {
        self.up()?.note_node(report).await
    }

    async fn forget_node(&self, writer: WriterId) -> Result<(), StoreError> {
        self.up()?.forget_node(writer).await
    }

    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        self.up()?.nodes().await
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn label(&self) -> String {
        self.store.label()
    }
}

#[async_trait]
impl AdminStore for Outages {
    async fn catalog(&self) -> Result<Catalog, StoreError> {
        self.up()?.catalog().await
    }

    async fn change(&self, change: Change, who: &str, at: DateTime<Utc>) -> Result<Changed, StoreError> {
        self.up()?.change(change, who, at).await
    }

    async fn due_purges(&self, grace: TimeDelta) -> Result<Vec<EventName>, StoreError> {
        self.up()?.due_purges(grace).await
    }

    async fn changes(
        &self,
        events: Vec<EventName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<LoggedChange>, StoreError> {
        self.up()?.changes(events, before, limit).await
    }

    async fn superusers(&self) -> Result<Vec<Superuser>, StoreError> {
        self.up()?.superusers().await
    }

    async fn change_account(&self, change: AccountChange, who: &str, at: DateTime<Utc>) -> Result<bool, StoreError> {
        self.up()?.change_account(change, who, at).await
    }

    async fn add_session(&self, session: Session, password_hash: &str, sessions_max: u32) -> Result<bool, StoreError> {
        self.up()?.add_session(session, password_hash, sessions_max).await
    }

    async fn session(
        &self,
        id_hash: [u8; 32],
        now: DateTime<Utc>,
        idle_since: DateTime<Utc>,
    ) -> Result<Option<Session>, StoreError> {
        self.up()?.session(id_hash, now, idle_since).await
    }

    async fn touch_session(&self, id_hash: [u8; 32], now: DateTime<Utc>) -> Result<(), StoreError> {
        self.up()?.touch_session(id_hash, now).await
    }

    async fn end_session(&self, id_hash: [u8; 32]) -> Result<(), StoreError> {
        self.up()?.end_session(id_hash).await
    }

    async fn admin_keys(&self) -> Result<Vec<AdminKey>, StoreError> {
        self.up()?.admin_keys().await
    }

    async fn use_admin_key(&self, secret_hash: [u8; 32], now: DateTime<Utc>) -> Result<Option<AdminKey>, StoreError> {
        self.up()?.use_admin_key(secret_hash, now).await
    }
}
