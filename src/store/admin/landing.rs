//! Which rows of a batch count, by the purges of the very moment of its commit.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::domain::{BatchId, EventName, HourlyCount};

/// What purges say about the rows of one batch.
pub struct Landing {
    /// Names that were purged after the batch was opened: what it counted of them belongs to the event
    /// that is gone.
    pub purged: HashSet<EventName>,
}

/// The counts of one name that a purge has overtaken; they are booked as removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overtaken {
    pub event: EventName,
    pub count: i128,
}

impl Overtaken {
    /// For the books.
    pub fn reason(&self, batch: BatchId) -> String {
        format!("in flight when “{}” was purged: batch {} of {}", self.event, batch.seq.0, batch.writer)
    }
}

impl Landing {
    /// Takes rows that are distinct and sorted by event bytes, then hour; gives those that count.
    #[must_use]
    pub fn of<'r>(&self, rows: &'r [HourlyCount]) -> (Cow<'r, [HourlyCount]>, Vec<Overtaken>) {
        if self.purged.is_empty() {
            return (Cow::Borrowed(rows), Vec::new());
        }
        let (gone, kept): (Vec<_>, Vec<_>) = rows.iter().partition(|row| self.purged.contains(&row.event));
        let overtaken = gone.chunk_by(|a, b| a.event == b.event).map(|same| Overtaken {
            event: same[0].event.clone(),
            count: same.iter().map(|row| i128::from(row.count)).sum(),
        });
        (Cow::Owned(kept.into_iter().cloned().collect()), overtaken.collect())
    }
}
