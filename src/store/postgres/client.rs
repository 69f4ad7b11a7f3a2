//! The statements of one connection, each with a deadline of its own.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::store::StoreError;

/// A parameter with its type: that spares the round trip in which the database would tell it.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// The server ends a statement that runs too long; `patience` is for a server that does not answer at
/// all. How long a whole transaction takes does not matter while each of its statements goes on.
pub(super) struct Client {
    driver: tokio_postgres::Client,
    patience: Duration,
    gave_up: AtomicBool,
}

impl Client {
    pub(super) fn new(driver: tokio_postgres::Client, patience: Duration) -> Self {
        Self { driver, patience, gave_up: AtomicBool::new(false) }
    }

    /// For statements whose errors are looked at, or that are under way together; [`Client::in_time`]
    /// gives them their deadline.
    pub(super) fn driver(&self) -> &tokio_postgres::Client {
        &self.driver
    }

    /// Whether the database has left something unanswered.
    pub(super) fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// One answer.
    pub(super) async fn in_time<T, E>(&self, answer: impl Future<Output = Result<T, E>>) -> Result<T, StoreError>
    where
        StoreError: From<E>,
    {
        if let Ok(answer) = tokio::time::timeout(self.patience, answer).await {
            return Ok(answer?);
        }
        self.gave_up.store(true, Ordering::Relaxed);
        let waited_ms = self.patience.as_millis();
        Err(StoreError::Unavailable(format!("the database gave no answer within {waited_ms} ms")))
    }

    /// The same for an answer whose error is looked at.
    pub(super) async fn answered<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<Result<T, tokio_postgres::Error>, StoreError> {
        self.in_time(async { Ok::<_, StoreError>(answer.await) }).await
    }

    /// Statements without parameters and answers. An error in one of them leaves out those behind it.
    pub(super) async fn batch_execute(&self, sql: &str) -> Result<(), StoreError> {
        self.in_time(self.driver.batch_execute(sql)).await
    }

    /// Gives the number of rows changed.
    pub(super) async fn execute_typed(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        self.in_time(self.driver.execute_typed(sql, params)).await
    }

    pub(super) async fn query_typed(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        self.in_time(self.driver.query_typed(sql, params)).await
    }

    pub(super) async fn query_typed_one(&self, sql: &str, params: &[Param<'_>]) -> Result<Row, StoreError> {
        self.in_time(self.driver.query_typed_one(sql, params)).await
    }

    pub(super) async fn query_typed_opt(&self, sql: &str, params: &[Param<'_>]) -> Result<Option<Row>, StoreError> {
        self.in_time(self.driver.query_typed_opt(sql, params)).await
    }

    /// Hands over row by row; each must come within the time of the one before.
    pub(super) async fn each_row(
        &self,
        sql: &str,
        params: &[Param<'_>],
        mut on_row: impl FnMut(&Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let rows = self.in_time(self.driver.query_typed_raw(sql, params.iter().cloned())).await?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = self.in_time(rows.try_next()).await? {
            on_row(&row)?;
        }
        Ok(())
    }

    /// Ends a transaction of which every statement is known to have succeeded. COMMIT of a transaction that
    /// has failed is answered as quietly as any, although it is a ROLLBACK, and the driver does not tell
    /// the two apart. It can't be one here: a transaction fails only by a statement that is answered with an
    /// error, and then this is not reached. That is why no COMMIT is ever sent before all answers are there.
    pub(super) async fn commit(&self) -> Result<(), StoreError> {
        self.batch_execute("commit").await
    }

    /// Says goodbye before the socket closes.
    pub(super) fn close(self) {
        drop(self.driver);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.driver.is_closed()
    }
}
