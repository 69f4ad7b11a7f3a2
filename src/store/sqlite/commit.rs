//! The commit: ledger, rows, totals, in one transaction.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{change, log, statements};
use crate::domain::{BatchSeq, HourlyCount};
use crate::store::aside::{self, Failure, Search, removal_reason};
use crate::store::columns::{batch_total, event_deltas, stored_count, stored_hour, stored_seq};
use crate::store::migration::random_identity;
use crate::store::{Commit, CommitRequest, StoreError};

/// What became of a commit, and how many rows were set aside for it.
pub(super) type Committed = (Commit, usize);

pub(super) fn commit(connection: &mut Connection, request: &CommitRequest) -> Result<Committed, StoreError> {
    let CommitRequest { id, after, digest, catalog, rows } = request;
    let seq = stored_seq(id.seq)?;
    // Dropped without a commit, the transaction rolls back: so does every `?` below.
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let entry = statements::entry(&transaction, id.writer)?;
    if entry.map_or(BatchSeq(0), |entry| entry.last_seq) != *after {
        // As durable as any commit: the file has no standby.
        return Ok((Commit::Stands(entry), 0));
    }
    transaction.prepare_cached(include_str!("ledger_write.sql"))?.execute(params![
        id.writer.0,
        seq,
        (entry.map_or(0, |entry| entry.total) + batch_total(rows)).to_string(),
        digest.0,
    ])?;
    log::append(&transaction, request)?;
    let landing = change::landing(&transaction, *catalog)?;
    let (rows, overtaken) = landing.of(rows);
    change::book_overtaken(&transaction, &overtaken, *id)?;
    // One part at first: only when a row is refused its neighbours are looked at one by one.
    let mut search = Search::of(&rows, rows.len().max(1));
    while let Some(part) = search.next_part() {
        let savepoint = transaction.savepoint()?;
        match write(&savepoint, part) {
            Ok(()) => savepoint.commit()?,
            Err(Failure::Row(reason)) => {
                savepoint.finish()?;
                search.note_refused(part, reason)?;
            }
            Err(Failure::Other(error)) => return Err(error),
        }
    }
    if !search.refused.is_empty() {
        set_aside(&transaction, request, &search)?;
    }
    transaction.commit()?;
    aside::tell(*id, &search.refused);
    Ok((Commit::Applied, search.refused.len()))
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
        let is_row = matches!(error.sqlite_error_code(), Some(ConstraintViolation | TooBig | TypeMismatch));
        match StoreError::from(error) {
            StoreError::Rejected(reason) if is_row => Self::Row(reason),
            error => Self::Other(error),
        }
    }
}

fn write(connection: &Connection, rows: &[HourlyCount]) -> Result<(), Failure> {
    let deltas = event_deltas(rows).map_err(Failure::of_value)?;
    let mut upsert = connection.prepare_cached(include_str!("hourly_upsert.sql"))?;
    for row in rows {
        let count = stored_count(row.count).map_err(Failure::of_value)?;
        upsert.execute(params![row.event.as_str(), stored_hour(row.hour), count])?;
    }
    let mut upsert = connection.prepare_cached(include_str!("totals_upsert.sql"))?;
    for delta in &deltas {
        upsert.execute(params![delta.event, delta.count, delta.first_hour, delta.last_hour])?;
    }
    Ok(())
}

fn set_aside(transaction: &Transaction<'_>, request: &CommitRequest, search: &Search<'_>) -> Result<(), StoreError> {
    let id = request.id;
    let mut insert = transaction.prepare_cached(
        "insert into set_aside (writer, seq, event, hour, count, reason) values (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for aside::Refused { row, reason } in &search.refused {
        let (hour, count) = (stored_hour(row.hour), row.count.to_string());
        insert.execute(params![id.writer.0, stored_seq(id.seq)?, row.event.as_str(), hour, count, reason])?;
    }
    let mut book = transaction.prepare_cached("insert into removals (id, amount, reason) values (?1, ?2, ?3)")?;
    let mut amount = aside::amount(&search.refused);
    while amount > 0 {
        // The column has 63 bits, a count may have 64.
        let part = i64::try_from(amount).unwrap_or(i64::MAX);
        book.execute(params![random_identity()?, part, removal_reason(id, search.refused.len())])?;
        amount -= i128::from(part);
    }
    Ok(())
}
