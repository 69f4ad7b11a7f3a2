//! The read path: committed counts and pending batches, merged exactly.
//!
//! The order is the proof. What is pending is taken *first*, with its identities; *then* rows and
//! ledger are read from one database snapshot; then each pending batch is added unless that very
//! ledger includes it. A batch committed in between is neither lost nor counted twice, and a commit
//! whose answer was lost needs no special case.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::{Batches, Pending};
use crate::domain::{Day, EventName, EventTotal, HourRange, HourlyCount};
use crate::histogram::Series;
use crate::store::{HourlyQuery, LedgerPosition, Store, StoreError, StoreHealth, StoreStatus};

pub struct Query {
    batches: &'static Batches,
    store: Arc<dyn Store>,
    health: Arc<StoreHealth>,
}

impl Query {
    #[must_use]
    pub fn new(batches: &'static Batches, store: Arc<dyn Store>, health: Arc<StoreHealth>) -> Self {
        Self { batches, store, health }
    }

    /// What is known of the store from its last uses.
    #[must_use]
    pub fn store_status(&self) -> StoreStatus {
        self.health.status()
    }

    /// Every hourly count within `range`, ordered by event bytes, then hour.
    ///
    /// # Errors
    /// [`StoreError::TooManyRows`] beyond `rows_max`; otherwise the store's.
    pub async fn hourly(&self, range: HourRange, rows_max: usize) -> Result<Vec<HourlyCount>, StoreError> {
        let pending = self.batches.pending();
        let query = HourlyQuery { range, event: None, rows_max };
        let committed = self.health.note(self.store.hourly(query, pending.writers()).await)?;
        let pending = not_in(pending, &committed.position).within(range);
        let pending = pending.into_iter().map(|((event, hour), count)| HourlyCount { event, hour, count });
        let merged = merge(
            committed.value,
            pending,
            |a, b| (&a.event, a.hour).cmp(&(&b.event, b.hour)),
            |row, more| row.count += more.count,
        );
        if merged.len() > rows_max { Err(StoreError::TooManyRows { rows_max }) } else { Ok(merged) }
    }

    /// The all-time total of every event, ordered by event bytes.
    ///
    /// # Errors
    /// The store's.
    pub async fn totals(&self) -> Result<Vec<EventTotal>, StoreError> {
        let pending = self.batches.pending();
        let committed = self.health.note(self.store.totals(pending.writers()).await)?;
        let mut sums: BTreeMap<EventName, u64> = BTreeMap::new();
        for ((event, _), count) in not_in(pending, &committed.position).within(HourRange::ALL) {
            *sums.entry(event).or_insert(0) += count;
        }
        let pending = sums.into_iter().map(|(event, count)| EventTotal { event, count });
        Ok(merge(committed.value, pending, |a, b| a.event.cmp(&b.event), |total, more| total.count += more.count))
    }

    /// One event's day; `None` when nobody has ever counted the event.
    ///
    /// # Errors
    /// The store's.
    pub async fn day(&self, event: &EventName, day: Day) -> Result<Option<Series>, StoreError> {
        let pending = self.batches.pending();
        let range = day.range();
        let query = HourlyQuery { range, event: Some(event.clone()), rows_max: 24 };
        let committed = self.health.note(self.store.hourly(query, pending.writers()).await)?;
        let pending = not_in(pending, &committed.position);
        let mut counts = [0; 24];
        for row in &committed.value {
            counts[row.hour.of_day() as usize] = row.count;
        }
        for (hour, count) in (0..).map(|hour| range.first.plus(hour)).zip(&mut counts) {
            *count += pending.count(event, hour);
        }
        let known = counts.iter().any(|count| *count > 0) || self.batches.names().find(event).is_some();
        // Another node may have been the first to count the event, on another day.
        let known = known
            || self.health.note(self.store.totals(Vec::new()).await)?.value.iter().any(|total| total.event == *event);
        Ok(known.then(|| Series { event: event.clone(), day, counts }))
    }
}

fn not_in(mut pending: Pending, position: &LedgerPosition) -> Pending {
    pending.drop_committed(|batch| position.includes(batch));
    pending
}

/// Merges two lists that are sorted by `order`; items that it calls equal become one.
fn merge<T>(
    committed: Vec<T>,
    pending: impl Iterator<Item = T>,
    order: impl Fn(&T, &T) -> Ordering,
    add: impl Fn(&mut T, &T),
) -> Vec<T> {
    let mut pending = pending.peekable();
    let mut merged = Vec::with_capacity(committed.len() + pending.size_hint().0);
    for mut row in committed {
        while let Some(earlier) = pending.next_if(|next| order(next, &row).is_lt()) {
            merged.push(earlier);
        }
        if let Some(same) = pending.next_if(|next| order(next, &row).is_eq()) {
            add(&mut row, &same);
        }
        merged.push(row);
    }
    merged.extend(pending);
    merged
}
