//! The read path: committed counts and pending batches, merged exactly.
//!
//! The order is the proof. What is pending is taken *first*, with its identities; *then* rows are
//! got with the ledger position of the one snapshot they come from; then each pending batch is
//! added unless that very position includes it. A batch committed in between is neither lost nor
//! counted twice, and a commit whose answer was lost needs no special case.

use std::fmt;
use std::sync::Arc;

use crate::batch::{Batches, Pending};
use crate::committed::{Committed, Rows, merge, totals_of};
use crate::domain::{Day, EventName, EventTotal, HourRange, HourlyCount, WriterId};
use crate::histogram::Series;
pub use crate::store::StoreError;
use crate::store::{HourlyQuery, Store, StoreHealth, StoreStatus};

pub struct Query {
    batches: &'static Batches,
    committed: Committed,
    health: Arc<StoreHealth>,
}

/// Stands for the state of all counts: while it is the same, so is every answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataVersion {
    writer: WriterId,
    changes: u64,
    foreign: u64,
}

/// Short enough for an `ETag`.
impl fmt::Display for DataVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writer, changes, foreign } = self;
        let process = u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| writer.0[i]));
        write!(f, "{process:x}-{changes:x}-{foreign:x}")
    }
}

impl Query {
    #[must_use]
    pub fn new(batches: &'static Batches, store: Arc<dyn Store>, health: Arc<StoreHealth>) -> Self {
        Self { batches, committed: Committed::new(batches, store, Arc::clone(&health)), health }
    }

    /// What is known of the store from its last uses.
    #[must_use]
    pub fn store_status(&self) -> StoreStatus {
        self.health.status()
    }

    /// Take it *before* reading what it is to stand for.
    ///
    /// # Errors
    /// The store's: whether another node has changed it can't be known then.
    pub async fn version(&self) -> Result<DataVersion, StoreError> {
        let changes = self.batches.changes();
        let foreign = self.committed.foreign_version().await?;
        Ok(DataVersion { writer: self.batches.writer(), changes, foreign })
    }

    /// Every hourly count within `range`, ordered by event bytes, then hour.
    ///
    /// # Errors
    /// [`StoreError::TooManyRows`] beyond `rows_max`; otherwise the store's.
    pub async fn hourly(&self, range: HourRange, rows_max: usize) -> Result<Vec<HourlyCount>, StoreError> {
        let pending = self.batches.pending();
        let query = HourlyQuery { range, event: None, rows_max };
        let committed = self.committed.hourly(query, &pending.commits).await?;
        let merged = merge(&committed.value, not_in(pending, &committed).within(range));
        if merged.len() > rows_max { Err(StoreError::TooManyRows { rows_max }) } else { Ok(merged) }
    }

    /// The all-time total of every event, ordered by event bytes.
    ///
    /// # Errors
    /// The store's.
    pub async fn totals(&self) -> Result<Vec<EventTotal>, StoreError> {
        let pending = self.batches.pending();
        let committed = self.committed.totals(&pending.commits).await?;
        Ok(merge(&committed.value, totals_of(&not_in(pending, &committed).within(HourRange::ALL))))
    }

    /// One event's day; `None` when nobody has ever counted the event.
    ///
    /// # Errors
    /// The store's.
    pub async fn day(&self, event: &EventName, day: Day) -> Result<Option<Series>, StoreError> {
        let pending = self.batches.pending();
        let range = day.range();
        let query = HourlyQuery { range, event: Some(event.clone()), rows_max: 24 };
        let committed = self.committed.hourly(query, &pending.commits).await?;
        let mut counts = [0; 24];
        for row in &*committed.value {
            counts[row.hour.of_day() as usize] = row.count;
        }
        let pending = not_in(pending, &committed);
        for (hour, count) in (0..).map(|hour| range.first.plus(hour)).zip(&mut counts) {
            *count += pending.count(event, hour);
        }
        let known = counts.iter().any(|count| *count > 0) || self.is_known(event).await?;
        Ok(known.then(|| Series { event: event.clone(), day, counts }))
    }

    async fn is_known(&self, event: &EventName) -> Result<bool, StoreError> {
        if self.batches.names().find(event).is_some() {
            return Ok(true);
        }
        // Another node may have been the first to count the event.
        let totals = self.committed.totals(&self.batches.pending().commits).await?;
        Ok(totals.value.binary_search_by(|total| total.event.cmp(event)).is_ok())
    }
}

fn not_in<T>(mut pending: Pending, committed: &Rows<T>) -> Pending {
    pending.drop_committed(|batch| committed.position.includes(batch));
    pending
}
