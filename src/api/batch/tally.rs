//! What a batch comes to: one sum for each distinct event, and what was wrong with the other items.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::item::Flaw;
use crate::batch::RecordError;
use crate::domain::EventName;
use crate::web::envelope::{BatchOutcome, ItemError};
use crate::web::problem::Problem;

/// How many rejected items an answer lists.
pub(super) const ERRORS_MAX: usize = 100;

/// For so many items it is kept which event they count, to list each of them should the event be
/// refused. Of a refused event that comes later, one item is listed.
const TRACED_MAX: usize = 1 << 16;
/// Stands for the event of an item that was rejected at once.
const REJECTED: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    event: EventName,
    count: u64,
    // A body has fewer items than these can count; of many names there are many entries.
    items: u32,
    first_index: u32,
}

#[derive(Default)]
pub(super) struct Tally {
    entries: Vec<Entry>,
    numbers: HashTable<u32>,
    // Keyed at random, since clients choose the names.
    hasher: RandomState,
    /// The entry of each of the first items.
    traced: Vec<u32>,
    items: u64,
    rejected: u64,
    errors: Vec<ItemError>,
}

impl Tally {
    /// Takes one item. `count` is valid; whether `event` is a name is seen to here, once for each
    /// distinct one.
    pub(super) fn add(&mut self, event: &str, count: u64) {
        let hash = self.hasher.hash_one(event);
        let number = match self.numbers.find(hash, |&n| self.entries[n as usize].event.as_str() == event) {
            Some(number) => *number,
            None => match EventName::parse(event) {
                Ok(event) => self.insert(hash, event),
                Err(error) => return self.reject(|| of_error(&Problem::NotCountable(error))),
            },
        };
        let entry = &mut self.entries[number as usize];
        // Far from overflow: a body has fewer than 2^30 items, each of at most a thousand million.
        entry.count += count;
        entry.items += 1;
        self.trace(number);
    }

    /// Takes one item that says nothing that could be counted.
    pub(super) fn reject_flawed(&mut self, flaw: &Flaw) {
        self.reject(|| (flaw.code(), flaw.reason()));
    }

    /// Takes one item that can't be counted, by `why`: a code and a reason.
    fn reject(&mut self, why: impl FnOnce() -> (&'static str, String)) {
        if self.errors.len() < ERRORS_MAX {
            let (code, reason) = why();
            self.errors.push(ItemError { index: self.items, code, reason });
        }
        self.rejected += 1;
        self.trace(REJECTED);
    }

    fn trace(&mut self, number: u32) {
        if self.traced.len() < TRACED_MAX {
            self.traced.push(number);
        }
        self.items += 1;
    }

    fn insert(&mut self, hash: u64, event: EventName) -> u32 {
        // A body has fewer bytes than this can count.
        let number = u32::try_from(self.entries.len()).unwrap_or(REJECTED);
        let Self { entries, numbers, hasher, .. } = self;
        let first_index = u32::try_from(self.items).unwrap_or(u32::MAX);
        entries.push(Entry { event, count: 0, items: 0, first_index });
        numbers.insert_unique(hash, number, |&other| hasher.hash_one(entries[other as usize].event.as_str()));
        number
    }

    /// One sum for each distinct event, in the order of their first items.
    pub(super) fn increments(&self) -> impl Iterator<Item = (&EventName, u64)> {
        self.entries.iter().map(|entry| (&entry.event, entry.count))
    }

    /// Rejects all items of the given increments.
    pub(super) fn refuse(&mut self, refused: &[(usize, RecordError)]) {
        if refused.is_empty() {
            return;
        }
        let mut reasons: Vec<Option<RecordError>> = vec![None; self.entries.len()];
        for (number, why) in refused {
            reasons[*number] = Some(*why);
            self.rejected += u64::from(self.entries[*number].items);
        }
        let reason_of = |number: u32| reasons.get(number as usize).copied().flatten();
        let traced = (0..).zip(&self.traced).filter_map(|(index, number)| Some((index, reason_of(*number)?)));
        let later = (0..).zip(&self.entries).filter(|(_, entry)| entry.first_index >= TRACED_MAX as u32);
        let later = later.filter_map(|(number, entry)| Some((u64::from(entry.first_index), reason_of(number)?)));
        let listed = traced.chain(later).take(ERRORS_MAX);
        let error = |(index, why)| {
            let (code, reason) = of_error(&Problem::Record(why));
            ItemError { index, code, reason }
        };
        self.errors.extend(listed.map(error));
        self.errors.sort_by_key(|error| error.index);
        self.errors.truncate(ERRORS_MAX);
    }

    pub(super) fn accepted(&self) -> u64 {
        self.items - self.rejected
    }

    /// What the client is told.
    pub(super) fn outcome(self) -> BatchOutcome {
        BatchOutcome { accepted: self.accepted(), duplicates: 0, rejected: self.rejected, errors: self.errors }
    }

    #[cfg(test)]
    pub(super) fn rejected(&self) -> u64 {
        self.rejected
    }

    /// The first of the rejected items.
    #[cfg(test)]
    pub(super) fn errors(&self) -> &[ItemError] {
        &self.errors
    }
}

fn of_error(error: &Problem) -> (&'static str, String) {
    (error.code(), error.internal())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_item_is_accepted_or_rejected_and_equal_names_are_one_increment() {
        let mut tally = Tally::default();
        for (event, count) in [("b", 1), ("a", 2), ("", 5), ("b", 3)] {
            tally.add(event, count);
        }
        tally.reject_flawed(&Flaw::NotAnItem);
        let increments: Vec<_> = tally.increments().map(|(event, count)| (event.as_str(), count)).collect();
        assert_eq!(increments, [("b", 4), ("a", 2)]);
        assert_eq!((tally.accepted(), tally.rejected()), (3, 2));
        assert_eq!(tally.errors().iter().map(|error| error.index).collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn a_refused_event_rejects_each_of_its_items_and_the_first_hundred_are_listed_in_order() {
        let mut tally = Tally::default();
        for number in 0..300 {
            tally.add(["kept", "refused", ""][number % 3], 1);
        }
        tally.refuse(&[(1, RecordError::TooManyEvents)]);
        assert_eq!((tally.accepted(), tally.rejected()), (100, 200));
        let expected: Vec<u64> = (0..150).filter(|index| index % 3 != 0).collect();
        assert_eq!(tally.errors().iter().map(|error| error.index).collect::<Vec<_>>(), expected);
        for (error, code) in tally.errors().iter().zip(["too_many_events", "bad_name"]) {
            assert!(error.code == code && error.reason.starts_with(&format!("{code}: ")), "{error:?}");
        }
    }

    #[test]
    fn of_an_event_that_comes_late_and_is_refused_the_first_item_is_listed() {
        let mut tally = Tally::default();
        for _ in 0..TRACED_MAX {
            tally.add("kept", 1);
        }
        tally.add("refused", 1);
        tally.add("refused", 1);
        tally.refuse(&[(1, RecordError::TotalOverflow)]);
        assert_eq!((tally.accepted(), tally.rejected()), (TRACED_MAX as u64, 2));
        assert_eq!(tally.errors().iter().map(|error| error.index).collect::<Vec<_>>(), [TRACED_MAX as u64]);
    }
}
