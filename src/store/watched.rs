//! A store whose every use is noted, so that nobody who uses it has to think of that.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use super::admin::{AccountChange, AdminKey, AdminStore, Catalog, Change, Changed, LoggedChange, Session, Superuser};
use super::health::Use;
use super::{
    Books, Commit, CommitRequest, Folded, HourlyQuery, LedgerPosition, NodeReport, NodeSeen, Since, Snapshot, Store,
    StoreError, StoreHealth,
};
use crate::domain::{BatchId, Delta, EventName, EventTotal, HourRange, HourlyCount, Partitions, Sum, SumBy, WriterId};

/// Passes everything on. Commits and looks tell how the store is; what else is asked of it may be
/// slow or refused without that saying anything about the store.
pub struct Watched {
    store: Arc<dyn Store>,
    health: Arc<StoreHealth>,
}

impl Watched {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, health: Arc<StoreHealth>) -> Self {
        Self { store, health }
    }

    fn note<T>(&self, used: Use, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.health.note(used, &result);
        result
    }

    /// Of any other use only this is noted: that no session could be made for it.
    fn pass<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err()
            && let Some(error) = self.store.session_failure()
        {
            self.health.note::<()>(Use::Look, &Err(error));
        }
        result
    }
}

#[async_trait]
impl Store for Watched {
    async fn commit(&self, request: CommitRequest) -> Result<Commit, StoreError> {
        let committed = self.note(Use::Commit, self.store.commit(request).await);
        self.health.note_set_aside(self.store.set_aside());
        committed
    }

    async fn fold(&self) -> Result<Option<Folded>, StoreError> {
        let folded = self.pass(self.store.fold().await);
        self.health.note_set_aside(self.store.set_aside());
        folded
    }

    async fn fold_after(&self, rest: Duration) -> Result<Option<Folded>, StoreError> {
        let folded = self.pass(self.store.fold_after(rest).await);
        self.health.note_set_aside(self.store.set_aside());
        folded
    }

    fn expect(&self, identity: Option<String>) {
        self.store.expect(identity);
    }

    async fn hourly(
        &self,
        query: HourlyQuery,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<HourlyCount>>, StoreError> {
        self.pass(self.store.hourly(query, writers).await)
    }

    async fn totals(&self, writers: Vec<WriterId>) -> Result<Snapshot<Vec<EventTotal>>, StoreError> {
        self.pass(self.store.totals(writers).await)
    }

    async fn each_total(
        &self,
        writers: Vec<WriterId>,
        on_total: &mut (dyn FnMut(EventTotal) + Send),
    ) -> Result<LedgerPosition, StoreError> {
        self.pass(self.store.each_total(writers, on_total).await)
    }

    async fn sums(
        &self,
        range: HourRange,
        by: SumBy,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<Sum>>, StoreError> {
        self.pass(self.store.sums(range, by, writers).await)
    }

    async fn position(&self, writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError> {
        self.note(Use::Look, self.store.position(writers).await)
    }

    async fn since(&self, known: LedgerPosition, writers: Vec<WriterId>) -> Result<Since, StoreError> {
        self.note(Use::Look, self.store.since(known, writers).await)
    }

    async fn delta(&self, id: BatchId) -> Result<Option<Delta>, StoreError> {
        self.pass(self.store.delta(id).await)
    }

    async fn audit(&self) -> Result<Books, StoreError> {
        self.pass(self.store.audit().await)
    }

    async fn identity(&self) -> Result<String, StoreError> {
        self.note(Use::Look, self.store.identity().await)
    }

    async fn close(&self) {
        self.store.close().await;
    }

    async fn note_node(&self, report: NodeReport) -> Result<(), StoreError> {
        self.pass(self.store.note_node(report).await)
    }

    async fn forget_node(&self, writer: WriterId) -> Result<(), StoreError> {
        self.pass(self.store.forget_node(writer).await)
    }

    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        self.pass(self.store.nodes().await)
    }

    fn set_aside(&self) -> u64 {
        self.store.set_aside()
    }

    fn session_failure(&self) -> Option<StoreError> {
        self.store.session_failure()
    }

    fn partitions(&self) -> Partitions {
        self.store.partitions()
    }

    fn read_connections(&self) -> usize {
        self.store.read_connections()
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn label(&self) -> String {
        self.store.label()
    }
}

#[async_trait]
impl AdminStore for Watched {
    async fn catalog(&self) -> Result<Catalog, StoreError> {
        self.note(Use::Look, self.store.catalog().await)
    }

    async fn change(&self, change: Change, who: &str, at: DateTime<Utc>) -> Result<Changed, StoreError> {
        self.pass(self.store.change(change, who, at).await)
    }

    async fn due_purges(&self, grace: TimeDelta) -> Result<Vec<EventName>, StoreError> {
        self.pass(self.store.due_purges(grace).await)
    }

    async fn changes(
        &self,
        events: Vec<EventName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<LoggedChange>, StoreError> {
        self.pass(self.store.changes(events, before, limit).await)
    }

    async fn superusers(&self) -> Result<Vec<Superuser>, StoreError> {
        self.pass(self.store.superusers().await)
    }

    async fn change_account(&self, change: AccountChange, who: &str, at: DateTime<Utc>) -> Result<bool, StoreError> {
        self.pass(self.store.change_account(change, who, at).await)
    }

    async fn add_session(&self, session: Session, password_hash: &str, sessions_max: u32) -> Result<bool, StoreError> {
        self.pass(self.store.add_session(session, password_hash, sessions_max).await)
    }

    async fn session(
        &self,
        id_hash: [u8; 32],
        now: DateTime<Utc>,
        idle_since: DateTime<Utc>,
    ) -> Result<Option<Session>, StoreError> {
        self.pass(self.store.session(id_hash, now, idle_since).await)
    }

    async fn touch_session(&self, id_hash: [u8; 32], now: DateTime<Utc>) -> Result<(), StoreError> {
        self.pass(self.store.touch_session(id_hash, now).await)
    }

    async fn end_session(&self, id_hash: [u8; 32]) -> Result<(), StoreError> {
        self.pass(self.store.end_session(id_hash).await)
    }

    async fn admin_keys(&self) -> Result<Vec<AdminKey>, StoreError> {
        self.pass(self.store.admin_keys().await)
    }

    async fn use_admin_key(&self, secret_hash: [u8; 32], now: DateTime<Utc>) -> Result<Option<AdminKey>, StoreError> {
        self.pass(self.store.use_admin_key(secret_hash, now).await)
    }
}
