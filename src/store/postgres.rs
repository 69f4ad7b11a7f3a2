//! PostgreSQL: one connection for commits, a few for reads, each made at its first use.
//!
//! Session settings are set inside each transaction (`set local`) and statements are unnamed, so the
//! store works through a transaction pooler as well. No statement depends on the session's time zone.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{try_join, try_join3};
use tokio_postgres::Client;

use super::{
    Books, Commit, CommitRequest, HourlyQuery, LedgerPosition, Options, Snapshot, Store, StoreError, StoreUrlError,
};
use crate::domain::{EventTotal, HourRange, HourlyCount, Sum, SumBy, WriterId};
use session::{Connector, Pool};

mod accounts;
mod admin;
mod change;
mod commit;
mod error;
mod rows;
mod schema;
mod session;
mod tls;
mod url;

pub struct PostgresStore {
    connector: Connector,
    commits: Pool,
    reads: Pool,
    /// Longest time for one operation, connecting included.
    deadline: Duration,
    begin_commit: String,
    begin_read: String,
    label: String,
}

impl PostgresStore {
    /// Reads the URL, the options and the trusted certificates; connects to nothing.
    ///
    /// # Errors
    /// When one of them can't be understood or read.
    pub fn new(url: &str, options: &Options) -> Result<Self, StoreUrlError> {
        let target = url::Target::parse(url, options)?;
        let Options { statement_timeout_ms, lock_timeout_ms, .. } = options;
        let time_outs = format!(
            "set local statement_timeout = {statement_timeout_ms}; \
             set local lock_timeout = {lock_timeout_ms}; \
             set local idle_in_transaction_session_timeout = {statement_timeout_ms}"
        );
        Ok(Self {
            connector: Connector::new(&target, options)?,
            commits: Pool::new(1),
            reads: Pool::new(options.read_connections),
            deadline: options.deadline(),
            begin_commit: format!(
                "begin isolation level read committed; set local synchronous_commit = on; {time_outs}"
            ),
            begin_read: format!("begin isolation level repeatable read read only; {time_outs}"),
            label: target.label,
        })
    }

    async fn within_deadline<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.deadline, operation).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.reads.forget_idle();
                self.commits.forget_idle();
                let waited_ms = self.deadline.as_millis();
                Err(StoreError::Unavailable(format!("the database gave no answer within {waited_ms} ms")))
            }
        }
    }

    /// Runs `statements` in one snapshot and under the server's time-outs; BEGIN, they and COMMIT go out
    /// together and cost one round trip.
    async fn read<T>(
        &self,
        client: &Client,
        statements: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let ((), value, ()) =
            try_join3(rows::execute(client, &self.begin_read), statements, rows::execute(client, "commit")).await?;
        Ok(value)
    }

    /// What `statement` reads, with the ledger position of the same snapshot.
    async fn read_with_position<T>(
        &self,
        client: &Client,
        writers: &[WriterId],
        statement: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<Snapshot<T>, StoreError> {
        let both = try_join(rows::position(client, writers), statement);
        let (position, value) = self.read(client, both).await?;
        Ok(Snapshot { value, position })
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn commit(&self, request: CommitRequest) -> Result<Commit, StoreError> {
        self.within_deadline(async {
            let lease = self.commits.lease(&self.connector).await?;
            let outcome = commit::commit(&lease.session.client, &self.begin_commit, &request).await?;
            lease.give_back();
            Ok(outcome)
        })
        .await
    }

    fn expect(&self, identity: Option<String>) {
        self.connector.expect(identity);
    }

    async fn hourly(
        &self,
        query: HourlyQuery,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<HourlyCount>>, StoreError> {
        self.within_deadline(async {
            let lease = self.reads.lease(&self.connector).await?;
            let client = &lease.session.client;
            let snapshot = self.read_with_position(client, &writers, rows::hourly(client, &query)).await?;
            lease.give_back();
            if snapshot.value.len() > query.rows_max {
                return Err(StoreError::TooManyRows { rows_max: query.rows_max });
            }
            Ok(snapshot)
        })
        .await
    }

    async fn totals(&self, writers: Vec<WriterId>) -> Result<Snapshot<Vec<EventTotal>>, StoreError> {
        self.within_deadline(async {
            let lease = self.reads.lease(&self.connector).await?;
            let client = &lease.session.client;
            let snapshot = self.read_with_position(client, &writers, rows::totals(client)).await?;
            lease.give_back();
            Ok(snapshot)
        })
        .await
    }

    async fn each_total(
        &self,
        writers: Vec<WriterId>,
        on_total: &mut (dyn FnMut(EventTotal) + Send),
    ) -> Result<LedgerPosition, StoreError> {
        let lease = self.within_deadline(self.reads.lease(&self.connector)).await?;
        let client = &lease.session.client;
        // The server ends no statement here: each row has its deadline instead.
        let begin = format!("{}; set local statement_timeout = 0", self.begin_read);
        let position = self.within_deadline(async {
            rows::execute(client, &begin).await?;
            rows::position(client, &writers).await
        });
        let position = position.await?;
        rows::each_total(client, self.deadline, on_total).await?;
        self.within_deadline(rows::execute(client, "commit")).await?;
        lease.give_back();
        Ok(position)
    }

    async fn sums(
        &self,
        range: HourRange,
        by: SumBy,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<Sum>>, StoreError> {
        self.within_deadline(async {
            let lease = self.reads.lease(&self.connector).await?;
            let client = &lease.session.client;
            let snapshot = self.read_with_position(client, &writers, rows::sums(client, range, by)).await?;
            lease.give_back();
            Ok(snapshot)
        })
        .await
    }

    async fn position(&self, writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError> {
        self.within_deadline(async {
            let lease = self.reads.lease(&self.connector).await?;
            let client = &lease.session.client;
            let position = self.read(client, rows::position(client, &writers)).await?;
            lease.give_back();
            Ok(position)
        })
        .await
    }

    async fn audit(&self) -> Result<Books, StoreError> {
        self.within_deadline(async {
            let lease = self.reads.lease(&self.connector).await?;
            let client = &lease.session.client;
            let books = self.read(client, rows::books(client)).await?;
            lease.give_back();
            Ok(books)
        })
        .await
    }

    async fn active_writers(&self) -> Result<u64, StoreError> {
        self.within_deadline(async {
            let lease = self.reads.lease(&self.connector).await?;
            let client = &lease.session.client;
            let writers = self.read(client, rows::active_writers(client)).await?;
            lease.give_back();
            Ok(writers)
        })
        .await
    }

    async fn identity(&self) -> Result<String, StoreError> {
        self.within_deadline(async {
            let lease = self.reads.lease(&self.connector).await?;
            let client = &lease.session.client;
            let identity = self.read(client, schema::identity(client)).await?;
            lease.give_back();
            Ok(identity)
        })
        .await
    }

    async fn close(&self) {
        let closed = async {
            self.commits.close().await;
            self.reads.close().await;
            Ok(())
        };
        // Past the deadline the sessions close when the process ends; the database rolls them back.
        let _ = self.within_deadline(closed).await;
    }

    fn session_failure(&self) -> Option<StoreError> {
        self.connector.failure()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn label(&self) -> String {
        self.label.clone()
    }
}
