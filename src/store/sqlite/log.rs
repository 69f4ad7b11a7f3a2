//! The log of what was committed lately: for reads that catch up, and for batches that are delivered twice.
//! The commit adds its rows to the counts at once, so nothing in here waits for a fold.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::domain::{BatchId, BatchSeq, Delta, EventName, Hour, HourlyCount, WriterId};
use crate::store::columns::{batch_total, exact_sum, stored_seq, unreadable, unsigned};
use crate::store::{CommitRequest, LedgerPosition, StoreError};

/// Entries that are kept of one writer, however young: where commits are many they are small.
const ENTRIES_MAX: i64 = 1_000;
/// More counters than this are read as slowly as everything.
const COUNTERS_MAX: usize = 400_000;

/// What a row is in JSON.
type Entry<'a> = (&'a str, u32, u64);

/// Within the transaction of the commit.
pub(super) fn append(transaction: &Transaction<'_>, request: &CommitRequest) -> Result<(), StoreError> {
    let CommitRequest { id, after, catalog, rows, .. } = request;
    let entries: Vec<Entry<'_>> = rows.iter().map(|row| (row.event.as_str(), row.hour.number(), row.count)).collect();
    let text = serde_json::to_string(&entries)
        .map_err(|error| StoreError::Rejected(format!("can't keep a batch: {error}")))?;
    let seq = stored_seq(id.seq)?;
    transaction
        .prepare_cached(
            "insert into deltas (writer, seq, after, catalog, total, entries, rows)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            id.writer.0,
            seq,
            stored_seq(*after)?,
            i64::try_from(*catalog).unwrap_or(i64::MAX),
            batch_total(rows).to_string(),
            i64::try_from(rows.len()).unwrap_or(i64::MAX),
            text,
        ])?;
    transaction
        .prepare_cached("delete from deltas where writer = ?1 and seq <= ?2")?
        .execute(params![id.writer.0, seq - ENTRIES_MAX])?;
    Ok(())
}

/// Deletes entries that are older than `keep`.
pub(super) fn trim(connection: &Connection, keep: Duration) -> Result<(), StoreError> {
    connection
        .prepare_cached("delete from deltas where at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?1)")?
        .execute([format!("-{} seconds", keep.as_secs())])?;
    Ok(())
}

pub(super) fn delta(connection: &Connection, id: BatchId) -> Result<Option<Delta>, StoreError> {
    let sql = "select writer, seq, after, catalog, total, rows from deltas where writer = ?1 and seq = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row(params![id.writer.0, stored_seq(id.seq)?], |row| Ok(read_back(row))).optional()?.transpose()
}

/// The entries behind `known`; `None`: they are too many.
pub(super) fn since(snapshot: &Transaction<'_>, known: &LedgerPosition) -> Result<Option<Vec<Delta>>, StoreError> {
    let mut behind = snapshot.prepare_cached("select writer, last_seq from ledger")?;
    let mut entries = snapshot.prepare_cached(
        "select writer, seq, after, catalog, total, rows from deltas where writer = ?1 and seq > ?2 order by seq",
    )?;
    let (mut deltas, mut counters) = (Vec::new(), 0);
    let mut rows = behind.query([])?;
    while let Some(row) = rows.next()? {
        let writer = WriterId(row.get(0)?);
        let known = stored_seq(known.last_seq(writer))?;
        if row.get::<_, i64>(1)? <= known {
            continue;
        }
        for delta in entries.query_and_then(params![writer.0, known], read_back)? {
            let delta = delta?;
            counters += delta.rows.len();
            if counters > COUNTERS_MAX {
                return Ok(None);
            }
            deltas.push(delta);
        }
    }
    Ok(Some(deltas))
}

fn read_back(row: &Row<'_>) -> Result<Delta, StoreError> {
    let text = row.get_ref(5)?.as_str().map_err(rusqlite::Error::from)?;
    let entries: Vec<(EventName, u32, u64)> = serde_json::from_str(text).map_err(|_| unreadable())?;
    let rows = entries.into_iter().map(|(event, hour, count)| {
        Ok(HourlyCount { event, hour: Hour::from_number(hour).ok_or_else(unreadable)?, count })
    });
    Ok(Delta {
        id: BatchId { writer: WriterId(row.get(0)?), seq: BatchSeq(unsigned(row.get(1)?)?) },
        partition: 0,
        after: BatchSeq(unsigned(row.get(2)?)?),
        catalog: unsigned(row.get(3)?)?,
        total: exact_sum(&row.get::<_, String>(4)?)?,
        rows: rows.collect::<Result<_, StoreError>>()?,
    })
}
