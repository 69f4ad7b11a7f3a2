//! The commit: ledger first, then the catalog's lock, then rows, then totals, in one transaction.

use futures_util::future::{BoxFuture, try_join};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::change::share_aliases;
use super::rows::{Param, column, execute};
use crate::domain::HourlyCount;
use crate::store::columns::{
    EventDelta, batch_total, event_deltas, ledger_entry, stored_count, stored_hour, stored_seq,
};
use crate::store::{Commit, CommitRequest, StoreError};

/// Rows in one statement: enough to make round trips cheap, few enough for any statement time-out.
const CHUNK_ROWS: usize = 10_000;
/// The database always has the next one at hand; more would only take memory.
const STATEMENTS_UNDER_WAY: usize = 3;

/// Any error leaves the transaction open or broken: the caller must drop the session.
pub(super) async fn commit(client: &Client, begin: &str, request: &CommitRequest) -> Result<Commit, StoreError> {
    let ledger = Ledger::new(client, request)?;
    // Both are sent at once; they are executed in this order.
    let ((), advanced) = try_join(execute(client, begin), ledger.advance()).await?;
    if !advanced && let Some(stands) = ledger.begin_or_stand().await? {
        return Ok(stands);
    }
    // Only now: a commit that holds the ledger's row may still have to wait for the catalog's lock.
    let rows = share_aliases(client).await?.apply(&request.rows);
    let deltas = event_deltas(&rows)?;
    let writes = rows.chunks(CHUNK_ROWS).map(Write::Rows).chain(deltas.chunks(CHUNK_ROWS).map(Write::Totals));
    // The next statements are under way while one is executed. Should one of them fail, COMMIT only ends
    // what has been rolled back, and the error comes before its answer.
    let statements: Vec<BoxFuture<'_, _>> =
        writes.chain([Write::Commit]).map(|write| write.run(client).boxed()).collect();
    stream::iter(statements).buffered(STATEMENTS_UNDER_WAY).try_collect::<()>().await?;
    Ok(Commit::Applied)
}

/// The ledger's row of one writer, about to go to one batch.
struct Ledger<'a> {
    client: &'a Client,
    writer: &'a [u8],
    seq: i64,
    after: i64,
    /// Decimal, since a sum of many 64-bit counts may exceed 64 bits.
    total: String,
    digest: &'a [u8],
}

impl<'a> Ledger<'a> {
    fn new(client: &'a Client, request: &'a CommitRequest) -> Result<Self, StoreError> {
        let CommitRequest { id, after, digest, rows, .. } = request;
        let (seq, after) = (stored_seq(id.seq)?, stored_seq(*after)?);
        let total = batch_total(rows).to_string();
        Ok(Self { client, writer: &id.writer.0, seq, after, total, digest: &digest.0 })
    }

    /// Whether the row stood where it should, and now stands at the batch.
    async fn advance(&self) -> Result<bool, StoreError> {
        let params: [Param<'_>; 5] = [
            (&self.writer, Type::BYTEA),
            (&self.seq, Type::INT8),
            (&self.total, Type::TEXT),
            (&self.digest, Type::BYTEA),
            (&self.after, Type::INT8),
        ];
        Ok(self.client.execute_typed(include_str!("ledger_advance.sql"), &params).await? == 1)
    }

    /// The row does not stand where it should. `None`: now it does stand at the batch. Else the
    /// transaction has ended.
    async fn begin_or_stand(&self) -> Result<Option<Commit>, StoreError> {
        if self.after == 0 && self.begin().await? {
            return Ok(None);
        }
        let sql = include_str!("ledger_lock.sql");
        let row = self.client.query_typed_opt(sql, &[(&self.writer, Type::BYTEA)]).await?;
        let entry = row.map(|row| ledger_entry(column(&row, 0)?, column(&row, 1)?, column(&row, 2)?)).transpose()?;
        let last_seq = entry.as_ref().map_or(Ok(0), |entry| stored_seq(entry.last_seq))?;
        // The batch before this one was committed by a zombie between our two looks; the row is locked now.
        if entry.is_some() && last_seq == self.after && self.advance().await? {
            return Ok(None);
        }
        let end = if last_seq >= self.seq { "commit" } else { "rollback" };
        if last_seq >= self.seq {
            // The caller may discard the batch on our word.
            let sql = include_str!("ledger_touch.sql");
            self.client.execute_typed(sql, &[(&self.writer, Type::BYTEA)]).await?;
        }
        execute(self.client, end).await?;
        Ok(Some(Commit::Stands(entry)))
    }

    async fn begin(&self) -> Result<bool, StoreError> {
        let params: [Param<'_>; 4] = [
            (&self.writer, Type::BYTEA),
            (&self.seq, Type::INT8),
            (&self.total, Type::TEXT),
            (&self.digest, Type::BYTEA),
        ];
        Ok(self.client.execute_typed(include_str!("ledger_begin.sql"), &params).await? == 1)
    }
}

/// One statement: a chunk of rows, or the end.
enum Write<'a> {
    Rows(&'a [HourlyCount]),
    Totals(&'a [EventDelta<'a>]),
    Commit,
}

impl Write<'_> {
    async fn run(self, client: &Client) -> Result<(), StoreError> {
        match self {
            Self::Rows(rows) => {
                let events: Vec<&str> = rows.iter().map(|row| row.event.as_str()).collect();
                let hours: Vec<i32> = rows.iter().map(|row| stored_hour(row.hour)).collect();
                let counts = rows.iter().map(|row| stored_count(row.count)).collect::<Result<Vec<i64>, _>>()?;
                let params: [Param<'_>; 3] =
                    [(&events, Type::TEXT_ARRAY), (&hours, Type::INT4_ARRAY), (&counts, Type::INT8_ARRAY)];
                client.execute_typed(include_str!("hourly_upsert.sql"), &params).await?;
            }
            Self::Totals(deltas) => {
                let events: Vec<&str> = deltas.iter().map(|delta| delta.event).collect();
                let counts: Vec<i64> = deltas.iter().map(|delta| delta.count).collect();
                let first_hours: Vec<i32> = deltas.iter().map(|delta| delta.first_hour).collect();
                let last_hours: Vec<i32> = deltas.iter().map(|delta| delta.last_hour).collect();
                let params: [Param<'_>; 4] = [
                    (&events, Type::TEXT_ARRAY),
                    (&counts, Type::INT8_ARRAY),
                    (&first_hours, Type::INT4_ARRAY),
                    (&last_hours, Type::INT4_ARRAY),
                ];
                client.execute_typed(include_str!("totals_upsert.sql"), &params).await?;
            }
            Self::Commit => execute(client, "commit").await?,
        }
        Ok(())
    }
}
