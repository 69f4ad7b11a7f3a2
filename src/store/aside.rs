//! Rows that a store refuses for good: found by halving, kept in a table of their own, booked as removed.

use super::StoreError;
use crate::domain::{BatchId, HourlyCount};

/// More in one batch are no rows gone wrong, but a store gone wrong.
const ROWS_MAX: usize = 1_000;

/// Why a part of the rows is not in.
pub(super) enum Failure {
    /// The store does not want a row of it.
    Row(String),
    Other(StoreError),
}

impl Failure {
    /// Of a value that the store has no room for.
    pub(super) fn of_value(error: StoreError) -> Self {
        match error {
            StoreError::Rejected(reason) => Self::Row(reason),
            error => Self::Other(error),
        }
    }
}

/// One of them, and what the store said.
pub(super) struct Refused<'a> {
    pub(super) row: &'a HourlyCount,
    pub(super) reason: String,
}

/// The search for them. Hand it what became of each part, in order, until there is no next one.
pub(super) struct Search<'a> {
    /// The last one comes first.
    parts: Vec<&'a [HourlyCount]>,
    pub(super) refused: Vec<Refused<'a>>,
}

impl<'a> Search<'a> {
    pub(super) fn of(rows: &'a [HourlyCount], part_rows: usize) -> Self {
        Self { parts: rows.chunks(part_rows).rev().collect(), refused: Vec::new() }
    }

    /// The next part to be written.
    pub(super) fn next_part(&mut self) -> Option<&'a [HourlyCount]> {
        self.parts.pop()
    }

    /// `part` was refused: its halves come next, or it is a row to be set aside.
    ///
    /// # Errors
    /// When they are too many.
    pub(super) fn note_refused(&mut self, part: &'a [HourlyCount], reason: String) -> Result<(), StoreError> {
        if let [row] = part {
            if self.refused.len() == ROWS_MAX {
                return Err(StoreError::Rejected(format!(
                    "more than {ROWS_MAX} rows of one batch, the last one: {reason}"
                )));
            }
            self.refused.push(Refused { row, reason });
        } else {
            let (first, second) = part.split_at(part.len() / 2);
            self.parts.extend([second, first]);
        }
        Ok(())
    }
}

/// What the books must say was removed.
pub(super) fn amount(refused: &[Refused<'_>]) -> i128 {
    refused.iter().map(|refused| i128::from(refused.row.count)).sum()
}

/// Why the books say that it was removed.
pub(super) fn removal_reason(id: BatchId, rows: usize) -> String {
    format!("{rows} rows of batch {} of writer {} were refused and are in set_aside", id.seq, id.writer)
}

/// The one line of the log.
pub(super) fn tell(id: BatchId, refused: &[Refused<'_>]) {
    let Some(Refused { row, reason }) = refused.first() else { return };
    tracing::error!(
        rows = refused.len(),
        batch.writer = %id.writer,
        batch.seq = id.seq.0,
        first.event = %row.event,
        first.hour = %row.hour,
        first.count = row.count,
        reason,
        "The store refuses rows: they are kept in its table set_aside and are in no sum"
    );
}
