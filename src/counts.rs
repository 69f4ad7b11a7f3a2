//! The counters of one batch: a lock-sharded map from (event, hour) to a count. No clock, no IO.

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::domain::{Hour, HourRange};
use crate::names::NameId;

/// Eight bytes in place of a name and a date, so that a live counter takes 16 bytes and its share
/// of the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    name: NameId,
    hour: Hour,
}

/// No method hands out a guard: a guard held while the map is touched again can deadlock.
pub struct Counts {
    map: DashMap<Key, u64, RandomState>,
}

impl Counts {
    /// `expected`: how many counters to make room for.
    #[must_use]
    pub fn with_capacity(expected: usize) -> Self {
        Self { map: DashMap::with_capacity_and_hasher(expected, RandomState::default()) }
    }

    /// Adds to one counter. A sum can't overflow: [`crate::names`] admits no total near the limit.
    pub fn add(&self, name: NameId, hour: Hour, count: u64) {
        *self.map.entry(Key { name, hour }).or_insert(0) += count;
    }

    #[must_use]
    pub fn get(&self, name: NameId, hour: Hour) -> u64 {
        self.map.get(&Key { name, hour }).map_or(0, |count| *count)
    }

    /// Whether `name` has a counter in any hour.
    #[must_use]
    pub fn contains(&self, name: NameId) -> bool {
        self.map.iter().any(|entry| entry.key().name == name)
    }

    /// How many distinct counters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All counters together, as exact as [`Counts::within`].
    #[must_use]
    pub fn total(&self) -> u64 {
        self.map.iter().map(|entry| *entry.value()).fold(0, u64::saturating_add)
    }

    /// As [`Counts::total`], without a limit.
    #[must_use]
    pub fn sum(&self) -> i128 {
        self.map.iter().map(|entry| i128::from(*entry.value())).sum()
    }

    /// A copy of the counters within `range`, in no order. Each counter is exact; increments that
    /// happen meanwhile may or may not be in it.
    #[must_use]
    pub fn within(&self, range: HourRange) -> Vec<(NameId, Hour, u64)> {
        let counters = self.map.iter().map(|entry| (entry.key().name, entry.key().hour, *entry.value()));
        counters.filter(|(_, hour, _)| range.contains(*hour)).collect()
    }
}
