//! The fold: what the log has gathered is added to the counts.

use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::types::Type;

use super::careful;
use super::change;
use super::client::{Client, Param};
use super::error::is_about_rows;
use super::rows::column;
use super::session::Session;
use crate::domain::{BatchId, BatchSeq, HourlyCount};
use crate::store::aside::{self, Failure};
use crate::store::columns::{
    EventDelta, event_deltas, event_name, exact_sum, hour, stored_count, stored_hour, unsigned, writer_id,
};
use crate::store::{Folded, StoreError};

mod apart;

/// What was folded, and how many rows were set aside for it.
pub(super) type Done = (Folded, usize);

/// Counters that one statement folds: some seconds, well below any statement time-out.
const COUNTERS_MAX: i64 = 500_000;

/// Rows in one statement of a careful fold.
const CHUNK_ROWS: usize = 10_000;

/// More memory than usual: a fold sorts what many nodes have counted for a while. Its rows are looked up by
/// index, and updated where they are, however many or few the planner expects: it can't know. A table that was
/// vacuumed while it was empty seems so for long, and would be read whole for each row.
const MEMORY: &str = "set local work_mem = '64MB'; set local enable_hashjoin = off; set local enable_mergejoin = off; \
    set local enable_seqscan = off; set local jit = off";

/// Folds what is in the log of a partition, the oldest part where that is long, in a transaction of its own. `None`: somebody
/// else is at it, or was less than `rest` ago. `trim`: deletes entries that are folded and older than this. Any
/// error leaves the transaction open or broken: the caller must drop the session.
pub(super) async fn fold(
    session: &Session,
    begin: &str,
    partition: u16,
    rest: Duration,
    trim: Option<Duration>,
) -> Result<Option<Done>, StoreError> {
    let client = &session.client;
    session.begin_in(&format!("{begin}; {MEMORY}"), partition).await?;
    let rest_s = rest.as_secs_f64();
    let sql = include_str!("fold_begin.sql");
    let Some(row) = client.query_typed_opt(sql, &[(&rest_s, Type::FLOAT8)]).await? else {
        client.batch_execute("rollback").await?;
        return Ok(None);
    };
    match some(session, column(&row, 0)?).await {
        Ok(folded) => {
            if let Some(keep) = trim {
                self::trim(client, keep).await?;
            }
            client.commit().await?;
            Ok(Some((folded, 0)))
        }
        Err(Failure::Row(_)) => {
            client.batch_execute("rollback").await?;
            carefully(session, begin, partition).await.map(Some)
        }
        Err(Failure::Other(error)) => Err(error),
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let is_row = error.code().is_some_and(is_about_rows);
        match StoreError::from(error) {
            StoreError::Rejected(reason) if is_row => Self::Row(reason),
            error => Self::Other(error),
        }
    }
}

/// Waits for a fold that is under way, and keeps others away until the end of the transaction. Says whether
/// there are marks of purges, which only change with this lock held.
pub(super) async fn lock(client: &Client) -> Result<bool, StoreError> {
    let sql = "select exists (select from purge_marks) from fold_lock for update";
    column(&client.query_typed_one(sql, &[]).await?, 0)
}

/// Folds all that is in the log, as [`some`] does.
pub(super) async fn all(session: &Session, has_purges: bool) -> Result<(), Failure> {
    while some(session, has_purges).await?.batches > 0 {}
    Ok(())
}

/// Folds one part, within a transaction that holds the lock. It is of no use any more when a row is refused.
/// `has_purges`: counts of purged events may be among the rest.
async fn some(session: &Session, has_purges: bool) -> Result<Folded, Failure> {
    let client = &session.client;
    // A constraint may be checked only at the end: then it is to be known now.
    let immediate = "set constraints all immediate";
    client.answered(client.driver().batch_execute(immediate)).await.map_err(Failure::Other)??;
    if session.home.is_distributed {
        return apart::some(client, COUNTERS_MAX, has_purges).await;
    }
    let overtaken = if has_purges { format!("), overtaken as ({}", overtaken("entries")) } else { String::new() };
    let sql = include_str!("fold.sql").replace("/* overtaken */", &overtaken);
    let params: [Param<'_>; 1] = [(&COUNTERS_MAX, Type::INT8)];
    let fold = client.driver().query_typed_one(&sql, &params);
    let row = client.answered(fold).await.map_err(Failure::Other)??;
    expect_unchanged(column(&row, 2).map_err(Failure::Other)?)?;
    let number = |index| column::<i64>(&row, index).and_then(unsigned);
    Ok(Folded { batches: number(0).map_err(Failure::Other)?, counters: number(1).map_err(Failure::Other)? })
}

/// Whether every row was where it was when it was looked up.
fn expect_unchanged(is_unchanged: bool) -> Result<(), Failure> {
    if is_unchanged {
        return Ok(());
    }
    let why = "another program has changed counts while they were folded";
    Err(Failure::Other(StoreError::Unavailable(why.into())))
}

/// The statement that books what purges have overtaken among these entries as removed.
fn overtaken(entries: &str) -> String {
    include_str!("fold_overtaken.sql").replace("/* entries */", entries)
}

/// Gives the space of old entries back, and sums up the writers that have none left.
async fn trim(client: &Client, keep: Duration) -> Result<(), StoreError> {
    let keep_s = keep.as_secs_f64();
    let keep: [Param<'_>; 1] = [(&keep_s, Type::FLOAT8)];
    client.execute_typed(include_str!("log_trim.sql"), &keep).await?;
    client.execute_typed(include_str!("ledger_retire.sql"), &keep).await?;
    Ok(())
}

/// Folds entry by entry, when the database refuses a row: everything else goes in.
pub(super) async fn carefully(session: &Session, begin: &str, partition: u16) -> Result<Done, StoreError> {
    let client = &session.client;
    session.begin(&format!("{begin}; {MEMORY}; set constraints all immediate")).await?;
    // In the order in which a change of an administrator locks them.
    client.query_typed("select version from catalog_version for update", &[]).await?;
    session.enter(partition).await?;
    lock(client).await?;
    let (mut folded, mut set_aside) = (Folded::default(), 0);
    for id in unfolded(client).await? {
        let writer = id.writer.0.as_slice();
        let seq = i64::try_from(id.seq.0).unwrap_or(i64::MAX);
        let entry: [Param<'_>; 2] = [(&writer, Type::BYTEA), (&seq, Type::INT8)];
        let sql = overtaken("(select * from unfolded_entries where writer = $1 and seq = $2) as entries");
        client.execute_typed(&sql, &entry).await?;
        let rows = rows_of(client, &entry).await?;
        let search = careful::write(client, &rows).await?;
        if !search.refused.is_empty() {
            careful::set_aside(client, id, &search.refused).await?;
        }
        client.execute_typed("update folded set seq = $2 where writer = $1", &entry).await?;
        aside::tell(id, &search.refused);
        set_aside += search.refused.len();
        folded.batches += 1;
        folded.counters += rows.len() as u64;
    }
    if set_aside > 0 {
        // Lists that were brought forward by these rows are read anew.
        change::raise_version(session).await?;
    }
    client.commit().await?;
    Ok((folded, set_aside))
}

async fn unfolded(client: &Client) -> Result<Vec<BatchId>, StoreError> {
    let sql = "select deltas.writer, deltas.seq from deltas join folded on folded.writer = deltas.writer
         where deltas.seq > folded.seq order by deltas.writer, deltas.seq";
    let rows = client.query_typed(sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let seq = BatchSeq(unsigned(column(row, 1)?)?);
            Ok(BatchId { writer: writer_id(column(row, 0)?)?, seq })
        })
        .collect()
}

async fn rows_of(client: &Client, entry: &[Param<'_>]) -> Result<Vec<HourlyCount>, StoreError> {
    let sql = "select event, hour, cast(sum(count) as text) from unfolded_entries
         where writer = $1 and seq = $2 and not is_overtaken group by event, hour order by event, hour";
    let rows = client.in_time(client.driver().query_typed_raw(sql, entry.iter().cloned())).await?;
    let rows = rows.map_err(StoreError::from).and_then(|row| async move {
        let count = u64::try_from(exact_sum(column(&row, 2)?)?).unwrap_or(u64::MAX);
        Ok(HourlyCount { event: event_name(column(&row, 0)?)?, hour: hour(column(&row, 1)?)?, count })
    });
    client.in_time(rows.try_collect()).await
}

/// Adds some rows of a careful fold to all tables.
pub(super) async fn add(client: &tokio_postgres::Client, rows: &[HourlyCount]) -> Result<(), Failure> {
    for rows in rows.chunks(CHUNK_ROWS) {
        let events: Vec<&str> = rows.iter().map(|row| row.event.as_str()).collect();
        let hours: Vec<i32> = rows.iter().map(|row| stored_hour(row.hour)).collect();
        let counts = rows.iter().map(|row| stored_count(row.count)).collect::<Result<Vec<i64>, _>>();
        let counts = counts.map_err(Failure::of_value)?;
        let params: [Param<'_>; 3] =
            [(&events, Type::TEXT_ARRAY), (&hours, Type::INT4_ARRAY), (&counts, Type::INT8_ARRAY)];
        client.execute_typed(include_str!("hourly_upsert.sql"), &params).await?;
        let params: [Param<'_>; 2] = [(&hours, Type::INT4_ARRAY), (&counts, Type::INT8_ARRAY)];
        client.execute_typed(include_str!("hour_totals_add.sql"), &params).await?;
    }
    let deltas: Vec<EventDelta<'_>> = event_deltas(rows).map_err(Failure::of_value)?;
    for deltas in deltas.chunks(CHUNK_ROWS) {
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
    Ok(())
}
