//! The commit: ledger first, then the catalog's lock, then rows, then totals, in one transaction.

use futures_util::future::{BoxFuture, try_join};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::change::share_aliases;
use super::rows::{Param, column, execute};
use crate::domain::{BatchId, BatchSeq, HourlyCount};
use crate::store::columns::{EventDelta, batch_total, event_deltas, stored_count, stored_hour, stored_seq, unsigned};
use crate::store::{Commit, StoreError};

/// Rows in one statement: enough to make round trips cheap, few enough for any statement time-out.
const CHUNK_ROWS: usize = 10_000;
/// The database always has the next one at hand; more would only take memory.
const STATEMENTS_UNDER_WAY: usize = 3;

/// Any error leaves the transaction open or broken: the caller must drop the session.
pub(super) async fn commit(
    client: &Client,
    begin: &str,
    id: BatchId,
    rows: &[HourlyCount],
) -> Result<Commit, StoreError> {
    let ledger = Ledger { client, writer: id.writer.0, seq: stored_seq(id.seq)?, total: batch_total(rows).to_string() };
    // Both are sent at once; they are executed in this order.
    let ((), advanced) = try_join(execute(client, begin), ledger.change(include_str!("ledger_advance.sql"))).await?;
    let outcome = if advanced == 1 { Commit::Applied } else { ledger.begin_or_jump().await? };
    if outcome == Commit::AlreadyApplied {
        execute(client, "rollback").await?;
        return Ok(outcome);
    }
    // Only now: who holds the ledger's row may still have to wait for the catalog's lock.
    let rows = share_aliases(client).await?.apply(rows);
    let deltas = event_deltas(&rows)?;
    let writes = rows.chunks(CHUNK_ROWS).map(Write::Rows).chain(deltas.chunks(CHUNK_ROWS).map(Write::Totals));
    // The next statements are under way while one is executed. Should one of them fail, COMMIT only ends
    // what has been rolled back, and the error comes before its answer.
    let statements: Vec<BoxFuture<'_, _>> =
        writes.chain([Write::Commit]).map(|write| write.run(client).boxed()).collect();
    stream::iter(statements).buffered(STATEMENTS_UNDER_WAY).try_collect::<()>().await?;
    Ok(outcome)
}

/// The ledger's row of one writer, at one batch.
struct Ledger<'a> {
    client: &'a Client,
    writer: [u8; 16],
    seq: i64,
    /// Decimal, since a sum of many 64-bit counts may exceed 64 bits.
    total: String,
}

impl Ledger<'_> {
    /// Gives the number of rows changed: 0 or 1.
    async fn change(&self, sql: &str) -> Result<u64, StoreError> {
        let writer = self.writer.as_slice();
        let params: [Param<'_>; 3] = [(&writer, Type::BYTEA), (&self.seq, Type::INT8), (&self.total, Type::TEXT)];
        Ok(self.client.execute_typed(sql, &params).await?)
    }

    /// The ledger does not stand at the batch before this one: find out why.
    async fn begin_or_jump(&self) -> Result<Commit, StoreError> {
        if self.change(include_str!("ledger_begin.sql")).await? == 1 {
            let expected = self.seq == 1;
            return Ok(if expected { Commit::Applied } else { Commit::AppliedAfterGap { found: BatchSeq(0) } });
        }
        let writer = self.writer.as_slice();
        let row = self.client.query_typed_opt(include_str!("ledger_lock.sql"), &[(&writer, Type::BYTEA)]).await?;
        let Some(row) = row else {
            return Err(StoreError::Unavailable("the ledger's row of this writer has just been deleted".into()));
        };
        let found: i64 = column(&row, 0)?;
        if found >= self.seq {
            return Ok(Commit::AlreadyApplied);
        }
        self.change(include_str!("ledger_jump.sql")).await?;
        if found == self.seq - 1 {
            // The batch before this one was committed by a zombie between our two looks.
            return Ok(Commit::Applied);
        }
        Ok(Commit::AppliedAfterGap { found: BatchSeq(unsigned(found)?) })
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
