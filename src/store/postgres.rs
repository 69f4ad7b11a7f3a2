//! PostgreSQL: sessions for commits, for folds, for small looks, for administrators and for reads, each made
//! at its first use, so that none of them waits for another.
//!
//! Session settings are set inside each transaction (`set local`), statements are unnamed, and each
//! transaction asks the database who it is, so the store works through a transaction pooler as well. No statement depends on the session's time zone.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, try_join, try_join3};

use super::trimming::Trimming;
use super::{
    Books, Commit, CommitRequest, Folded, HourlyQuery, LedgerPosition, NodeReport, NodeSeen, Options, Since, Snapshot,
    Store, StoreError, StoreUrlError,
};
use crate::domain::{
    BatchId, Delta, EventTotal, HourRange, HourlyCount, Partitions, Sum, SumBy, WriterId, join_deltas,
};
use crate::rows::{Row, merge};
use client::Client;
use connector::Connector;
use parts::Statement;
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
mod parts;
mod rows;
mod schema;
mod session;
mod tls;
mod url;

/// Partitions that a node folds at a time.
const FOLDS_MAX: usize = 4;

/// How often, and how soon, a read is repeated that came while an administrator's change had reached some machines
/// of a cluster and not yet the others.
const AGREEING_MAX: u32 = 100;
const AGREEING_PAUSE: Duration = Duration::from_millis(10);

async fn agreeing<T, F>(read: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    for _ in 1..AGREEING_MAX {
        match read().await {
            Err(StoreError::CatalogChanging) => tokio::time::sleep(AGREEING_PAUSE).await,
            done => return done,
        }
    }
    read().await
}

pub struct PostgresStore {
    connector: Connector,
    commits: Pool,
    folds: Pool,
    looks: Pool,
    administrators: Pool,
    reads: Pool,
    partitions: Partitions,
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
        let partitions = options.partitions()?;
        Ok(Self {
            connector: Connector::new(&target, options, for_audit)?,
            commits: Pool::new(usize::from(partitions.count())),
            folds: Pool::new(usize::from(partitions.count()).min(FOLDS_MAX)),
            looks: Pool::new(1),
            administrators: Pool::new(2),
            reads: Pool::new(options.read_connections),
            partitions,
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

    /// What `statement` reads in each partition, with the ledger position of the same snapshot.
    async fn read_with_position<Q: Sync, T: Row + Send>(
        &self,
        writers: &[WriterId],
        statement: Statement<Q, Vec<T>>,
        query: &Q,
    ) -> Result<Snapshot<Vec<T>>, StoreError> {
        agreeing(|| self.read_with_position_once(writers, statement, query)).await
    }

    async fn read_with_position_once<Q: Sync, T: Row + Send>(
        &self,
        writers: &[WriterId],
        statement: Statement<Q, Vec<T>>,
        query: &Q,
    ) -> Result<Snapshot<Vec<T>>, StoreError> {
        self.on_session(&self.reads, async |session| {
            let client = &session.client;
            if self.partitions == Partitions::ONE {
                let both = try_join(rows::position(client, writers), statement(client, 0, query));
                let (position, value) = self.read(session, both).await?;
                return Ok(Snapshot { value, position });
            }
            session.begin(&self.begin_read).await?;
            let position = parts::position(session, writers).await?;
            let parts = parts::in_each(session, statement, query).await?;
            session.client.commit().await?;
            let value = parts.into_iter().reduce(|all, part| merge(&all, part)).unwrap_or_default();
            Ok(Snapshot { value, position })
        })
        .await
    }

    /// What `statement` reads in each partition, in one snapshot.
    async fn read_parts<Q: Sync, T: Send>(
        &self,
        pool: &Pool,
        statement: Statement<Q, T>,
        query: &Q,
    ) -> Result<Vec<T>, StoreError> {
        self.on_session(pool, async |session| {
            session.begin(&self.begin_read).await?;
            let parts = parts::in_each(session, statement, query).await?;
            session.client.commit().await?;
            Ok(parts)
        })
        .await
    }

    async fn position_once(&self, writers: &[WriterId]) -> Result<LedgerPosition, StoreError> {
        self.on_session(&self.looks, async |session| {
            if self.partitions == Partitions::ONE {
                return self.read(session, rows::position(&session.client, writers)).await;
            }
            session.begin(&self.begin_read).await?;
            let position = parts::position(session, writers).await?;
            session.client.commit().await?;
            Ok(position)
        })
        .await
    }

    async fn since_once(&self, known: &LedgerPosition, writers: &[WriterId]) -> Result<Since, StoreError> {
        self.on_session(&self.looks, async |session| {
            let client = &session.client;
            let (position, deltas) = if self.partitions == Partitions::ONE {
                let both = try_join(rows::position(client, writers), log::since(client, 0, known));
                self.read(session, both).await?
            } else {
                session.begin(&self.begin_read).await?;
                let position = parts::position(session, writers).await?;
                let since: Statement<_, _> = |client, partition, known| Box::pin(log::since(client, partition, known));
                let deltas = parts::in_each(session, since, known).await?;
                client.commit().await?;
                (position, deltas.into_iter().flatten().collect())
            };
            let deltas = known.leads_to(&position, deltas);
            Ok(Since { position, deltas })
        })
        .await
    }

    async fn each_total_once(
        &self,
        begin: &str,
        writers: &[WriterId],
        on_total: &mut (dyn FnMut(EventTotal) + Send),
    ) -> Result<LedgerPosition, StoreError> {
        self.on_session(&self.administrators, async |session| {
            session.begin(begin).await?;
            let position = parts::position(session, writers).await?;
            for partition in self.partitions.all() {
                session.enter(partition).await?;
                rows::each_total(&session.client, on_total).await?;
            }
            session.client.commit().await?;
            Ok(position)
        })
        .await
    }

    /// Commits what a batch holds for a partition.
    async fn commit_part(&self, partition: u16, request: &CommitRequest) -> Result<Commit, StoreError> {
        let work = async |session: &Session| commit::commit(session, &self.begin_commit, partition, request).await;
        let (outcome, set_aside) = self.on_session(&self.commits, work).await?;
        self.note_set_aside(set_aside);
        Ok(outcome)
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
        if self.partitions == Partitions::ONE {
            return self.commit_part(0, &request).await;
        }
        // Each partition gets its part, be it without rows, and the digest of the whole: a batch is in when all
        // have it. What is in already, and is of this batch, stays as it is.
        let parts = self.partitions.split(&request.rows, |row| &row.event).into_iter().zip(self.partitions.all());
        let commits = parts.map(|(rows, partition)| {
            let request = CommitRequest { rows: rows.into(), ..request.clone() };
            async move { self.commit_part(partition, &request).await }
        });
        let outcomes = join_all(commits).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        if outcomes.iter().all(|outcome| *outcome == Commit::Applied) {
            return Ok(Commit::Applied);
        }
        let writer = request.id.writer;
        Ok(Commit::Stands(self.position(vec![writer]).await?.applied.remove(&writer)))
    }

    async fn fold(&self) -> Result<Option<Folded>, StoreError> {
        self.fold_after(Duration::ZERO).await
    }

    async fn fold_after(&self, rest: Duration) -> Result<Option<Folded>, StoreError> {
        let begin = &self.begin_commit;
        let trim = self.trimming.is_due().then_some(self.trimming.keep);
        let folds = self.partitions.all().map(|partition| {
            self.on_session(&self.folds, async move |session| fold::fold(session, begin, partition, rest, trim).await)
        });
        let mut all: Option<Folded> = None;
        for fold in join_all(folds).await {
            if let Some((folded, set_aside)) = fold? {
                self.note_set_aside(set_aside);
                all = Some(all.unwrap_or_default().plus(folded));
            }
        }
        Ok(all)
    }

    fn expect(&self, identity: Option<String>) {
        self.connector.expect(identity);
    }

    async fn hourly(
        &self,
        query: HourlyQuery,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<HourlyCount>>, StoreError> {
        let rows: Statement<_, _> = |client, _, query| Box::pin(rows::hourly(client, query));
        let snapshot = self.read_with_position(&writers, rows, &query).await?;
        if snapshot.value.len() > query.rows_max {
            return Err(StoreError::TooManyRows { rows_max: query.rows_max });
        }
        Ok(snapshot)
    }

    async fn totals(&self, writers: Vec<WriterId>) -> Result<Snapshot<Vec<EventTotal>>, StoreError> {
        self.read_with_position(&writers, |client, _, ()| Box::pin(rows::totals(client)), &()).await
    }

    async fn each_total(
        &self,
        writers: Vec<WriterId>,
        on_total: &mut (dyn FnMut(EventTotal) + Send),
    ) -> Result<LedgerPosition, StoreError> {
        // The server ends no statement here: each row has its deadline instead.
        let begin = format!("{}; set local statement_timeout = 0", self.begin_read);
        // Not among the public reads, since a start waits for it. Nothing is handed over before the position is known.
        for _ in 1..AGREEING_MAX {
            match self.each_total_once(&begin, &writers, on_total).await {
                Err(StoreError::CatalogChanging) => tokio::time::sleep(AGREEING_PAUSE).await,
                done => return done,
            }
        }
        self.each_total_once(&begin, &writers, on_total).await
    }

    async fn sums(
        &self,
        range: HourRange,
        by: SumBy,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<Sum>>, StoreError> {
        let sums: Statement<_, _> = |client, _, (range, by)| Box::pin(rows::sums(client, *range, *by));
        let mut snapshot = self.read_with_position(&writers, sums, &(range, by)).await?;
        snapshot.value.iter_mut().for_each(|sum| sum.count = sum.count.min(i64::MAX.unsigned_abs()));
        Ok(snapshot)
    }

    async fn position(&self, writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError> {
        agreeing(|| self.position_once(&writers)).await
    }

    async fn since(&self, known: LedgerPosition, writers: Vec<WriterId>) -> Result<Since, StoreError> {
        agreeing(|| self.since_once(&known, &writers)).await
    }

    async fn delta(&self, id: BatchId) -> Result<Option<Delta>, StoreError> {
        let of_part: Statement<_, _> = |client, partition, id| Box::pin(log::delta(client, partition, *id));
        Ok(join_deltas(id, self.read_parts(&self.looks, of_part, &id).await?))
    }

    async fn audit(&self) -> Result<Books, StoreError> {
        let parts = self.read_parts(&self.reads, |client, _, ()| Box::pin(rows::books(client)), &()).await?;
        Ok(parts.into_iter().fold(Books::default(), Books::plus))
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

    fn partitions(&self) -> Partitions {
        self.partitions
    }

    fn read_connections(&self) -> usize {
        self.reads.size()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn label(&self) -> String {
        self.label.clone()
    }
}
