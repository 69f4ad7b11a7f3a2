//! PostgreSQL: sessions for commits, for folds, for small looks, for administrators and for reads, each made
//! at its first use, so that none of them waits for another.
//!
//! Session settings are set inside each transaction (`set local`), statements are unnamed, and each
//! transaction asks the database who it is, so the store works through a transaction pooler as well. No statement depends on the session's time zone.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{try_join, try_join3};

use super::trimming::Trimming;
use super::{
    Books, Commit, CommitRequest, Folded, HourlyQuery, LedgerPosition, NodeReport, NodeSeen, Options, Since, Snapshot,
    Store, StoreError, StoreUrlError,
};
use crate::domain::{BatchId, Delta, EventTotal, HourRange, HourlyCount, Sum, SumBy, WriterId};
use client::Client;
use connector::Connector;
use session::{Pool, Session};

mod accounts;
mod admin;
mod careful;
mod change;
mod client;
mod commit;
mod connector;
mod error;
mod fold;
mod hosts;
mod log;
mod nodes;
mod rows;
mod schema;
mod session;
mod tls;
mod url;

pub struct PostgresStore {
    connector: Connector,
    commits: Pool,
    folds: Pool,
    looks: Pool,
    administrators: Pool,
    reads: Pool,
    begin_commit: String,
    begin_read: String,
    label: String,
    set_aside: AtomicU64,
    trimming: Trimming,
}

impl PostgresStore {
    /// Reads the URL, the options and the trusted certificates; connects to nothing.
    ///
    /// # Errors
    /// When one of them can't be understood or read.
    pub fn new(url: &str, options: &Options) -> Result<Self, StoreUrlError> {
        Self::with(url, options, false)
    }

    /// The same for an audit: it makes no schema and changes none.
    ///
    /// # Errors
    /// As [`PostgresStore::new`].
    pub fn for_audit(url: &str, options: &Options) -> Result<Self, StoreUrlError> {
        Self::with(url, options, true)
    }

    fn with(url: &str, options: &Options, for_audit: bool) -> Result<Self, StoreUrlError> {
        let target = url::Target::parse(url, options)?;
        let Options { statement_timeout_ms, lock_timeout_ms, .. } = options;
        let time_outs = format!(
            "set local statement_timeout = {statement_timeout_ms}; \
             set local lock_timeout = {lock_timeout_ms}; \
             set local idle_in_transaction_session_timeout = {statement_timeout_ms}"
        );
        let begin_read = format!("begin isolation level repeatable read read only; {time_outs}");
        let begin_commit =
            format!("begin isolation level read committed; set local synchronous_commit = on; {time_outs}");
        Ok(Self {
            connector: Connector::new(&target, options, for_audit)?,
            commits: Pool::new(1),
            folds: Pool::new(1),
            looks: Pool::new(1),
            administrators: Pool::new(2),
            reads: Pool::new(options.read_connections),
            // Where nothing may be changed, the database sees to it.
            begin_commit: if for_audit { begin_read.clone() } else { begin_commit },
            begin_read,
            label: target.label,
            set_aside: AtomicU64::new(0),
            trimming: Trimming::new(Duration::from_millis(options.log_keep_ms)),
        })
    }

    fn pools(&self) -> [&Pool; 5] {
        [&self.commits, &self.folds, &self.looks, &self.administrators, &self.reads]
    }

    fn note_set_aside(&self, rows: usize) {
        self.set_aside.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Runs `work` on a session of its own, which is used again only if that succeeds.
    async fn on_session<T>(
        &self,
        pool: &Pool,
        work: impl AsyncFnOnce(&Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let lease = pool.lease(&self.connector, self.connector.patience).await?;
        let outcome = work(&lease.session).await;
        if outcome.is_ok() {
            lease.give_back();
        } else if lease.session.client.gave_up() {
            self.pools().into_iter().for_each(Pool::forget_idle);
        }
        outcome
    }

    /// Runs `work` in one transaction that `begin` opens.
    async fn transaction<T>(
        &self,
        pool: &Pool,
        begin: &str,
        work: impl AsyncFnOnce(&Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.on_session(pool, async |session| {
            session.begin(begin).await?;
            let value = work(&session.client).await?;
            session.client.commit().await?;
            Ok(value)
        })
        .await
    }

    /// What `statement` reads, with the ledger position of the same snapshot.
    async fn read_with_position<T>(
        &self,
        writers: &[WriterId],
        statement: impl AsyncFnOnce(&Client) -> Result<T, StoreError>,
    ) -> Result<Snapshot<T>, StoreError> {
        self.on_session(&self.reads, async |session| {
            let client = &session.client;
            let both = try_join(rows::position(client, writers), statement(client));
            let (position, value) = self.read(session, both).await?;
            Ok(Snapshot { value, position })
        })
        .await
    }

    /// Runs statements that only read in one snapshot and under the server's time-outs; BEGIN, they and
    /// COMMIT go out together and cost one round trip.
    async fn read<T>(
        &self,
        session: &Session,
        statements: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (begin, end) = (session.begin(&self.begin_read), session.client.batch_execute("commit"));
        let ((), value, ()) = try_join3(begin, statements, end).await?;
        Ok(value)
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn commit(&self, request: CommitRequest) -> Result<Commit, StoreError> {
        let begin = &self.begin_commit;
        let commit = self.on_session(&self.commits, async |session| commit::commit(session, begin, &request).await);
        let (outcome, set_aside) = commit.await?;
        self.note_set_aside(set_aside);
        Ok(outcome)
    }

    async fn fold(&self) -> Result<Option<Folded>, StoreError> {
        self.fold_after(Duration::ZERO).await
    }

    async fn fold_after(&self, rest: Duration) -> Result<Option<Folded>, StoreError> {
        let begin = &self.begin_commit;
        let trim = self.trimming.is_due().then_some(self.trimming.keep);
        let fold = self.on_session(&self.folds, async |session| fold::fold(session, begin, rest, trim).await);
        let Some((folded, set_aside)) = fold.await? else { return Ok(None) };
        self.note_set_aside(set_aside);
        Ok(Some(folded))
    }

    fn expect(&self, identity: Option<String>) {
        self.connector.expect(identity);
    }

    async fn hourly(
        &self,
        query: HourlyQuery,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<HourlyCount>>, StoreError> {
        let snapshot = self.read_with_position(&writers, async |client| rows::hourly(client, &query).await).await?;
        if snapshot.value.len() > query.rows_max {
            return Err(StoreError::TooManyRows { rows_max: query.rows_max });
        }
        Ok(snapshot)
    }

    async fn totals(&self, writers: Vec<WriterId>) -> Result<Snapshot<Vec<EventTotal>>, StoreError> {
        self.read_with_position(&writers, async |client| rows::totals(client).await).await
    }

    async fn each_total(
        &self,
        writers: Vec<WriterId>,
        on_total: &mut (dyn FnMut(EventTotal) + Send),
    ) -> Result<LedgerPosition, StoreError> {
        // The server ends no statement here: each row has its deadline instead.
        let begin = format!("{}; set local statement_timeout = 0", self.begin_read);
        // Not among the public reads, since a start waits for it.
        self.transaction(&self.administrators, &begin, async |client| {
            let position = rows::position(client, &writers).await?;
            rows::each_total(client, on_total).await?;
            Ok(position)
        })
        .await
    }

    async fn sums(
        &self,
        range: HourRange,
        by: SumBy,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<Sum>>, StoreError> {
        self.read_with_position(&writers, async |client| rows::sums(client, range, by).await).await
    }

    async fn position(&self, writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError> {
        self.on_session(&self.looks, async |session| {
            self.read(session, rows::position(&session.client, &writers)).await
        })
        .await
    }

    async fn since(&self, known: LedgerPosition, writers: Vec<WriterId>) -> Result<Since, StoreError> {
        self.on_session(&self.looks, async |session| {
            let client = &session.client;
            let both = try_join(rows::position(client, &writers), log::since(client, &known));
            let (position, deltas) = self.read(session, both).await?;
            let deltas = known.leads_to(&position, deltas);
            Ok(Since { position, deltas })
        })
        .await
    }

    async fn delta(&self, id: BatchId) -> Result<Option<Delta>, StoreError> {
        self.on_session(&self.looks, async |session| self.read(session, log::delta(&session.client, id)).await).await
    }

    async fn audit(&self) -> Result<Books, StoreError> {
        self.on_session(&self.reads, async |session| self.read(session, rows::books(&session.client)).await).await
    }

    async fn note_node(&self, report: NodeReport) -> Result<(), StoreError> {
        let begin = format!("{}; {}", self.begin_commit, nodes::UNSAFE);
        self.transaction(&self.administrators, &begin, async |client| nodes::note(client, &report).await).await
    }

    async fn forget_node(&self, writer: WriterId) -> Result<(), StoreError> {
        let begin = format!("{}; {}", self.begin_commit, nodes::UNSAFE);
        self.transaction(&self.administrators, &begin, async |client| nodes::forget(client, writer).await).await
    }

    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        self.on_session(&self.administrators, async |session| self.read(session, nodes::live(&session.client)).await)
            .await
    }

    async fn identity(&self) -> Result<String, StoreError> {
        self.on_session(&self.looks, async |session| self.read(session, rows::identity(&session.client)).await).await
    }

    async fn close(&self) {
        let closed = async {
            for pool in self.pools() {
                pool.close().await;
            }
        };
        // Past the deadline the sessions close when the process ends; the database rolls them back.
        let _ = tokio::time::timeout(self.connector.patience, closed).await;
    }

    fn set_aside(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }

    fn session_failure(&self) -> Option<StoreError> {
        let closed = self.looks.is_closed().then(|| StoreError::Unavailable("the store is closed".into()));
        closed.or_else(|| self.connector.failure())
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn label(&self) -> String {
        self.label.clone()
    }
}
