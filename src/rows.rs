//! Sorted lists of counts: what they have in common, and how two become one.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::{EventName, EventTotal, HourlyCount, Sum, SumBy, SumOf};

/// Looking an item up costs as much as copying some.
const MERGE_GAIN: usize = 16;

/// An item of a list that has one for each key, sorted by them.
pub trait Row: Clone {
    fn compare(&self, other: &Self) -> Ordering;
    /// Adds the other item of the same key.
    fn absorb(&mut self, other: &Self);
    /// What it takes in memory, about.
    fn bytes(&self) -> usize;
}

/// Of a name that is too long to be in place.
fn beside(name: &EventName) -> usize {
    let bytes = name.as_str().len();
    if bytes > size_of::<EventName>() { bytes } else { 0 }
}

/// An item that tells of one event, and whose list is sorted by the event's name first.
pub trait Named: Row {
    fn name(&self) -> &EventName;
    fn rename(&mut self, event: EventName);
}

impl Named for HourlyCount {
    fn name(&self) -> &EventName {
        &self.event
    }

    fn rename(&mut self, event: EventName) {
        self.event = event;
    }
}

impl Named for EventTotal {
    fn name(&self) -> &EventName {
        &self.event
    }

    fn rename(&mut self, event: EventName) {
        self.event = event;
    }
}

impl Row for (EventName, u64) {
    fn compare(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }

    fn absorb(&mut self, other: &Self) {
        self.1 = self.1.saturating_add(other.1);
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + beside(&self.0)
    }
}

impl Named for (EventName, u64) {
    fn name(&self) -> &EventName {
        &self.0
    }

    fn rename(&mut self, event: EventName) {
        self.0 = event;
    }
}

impl Row for HourlyCount {
    fn compare(&self, other: &Self) -> Ordering {
        (&self.event, self.hour).cmp(&(&other.event, other.hour))
    }

    fn absorb(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + beside(&self.event)
    }
}

impl Row for EventTotal {
    fn compare(&self, other: &Self) -> Ordering {
        self.event.cmp(&other.event)
    }

    fn absorb(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.first_hour = self.first_hour.min(other.first_hour);
        self.last_hour = self.last_hour.max(other.last_hour);
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + beside(&self.event)
    }
}

impl Row for Sum {
    fn compare(&self, other: &Self) -> Ordering {
        self.of.cmp(&other.of)
    }

    fn absorb(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
    }

    fn bytes(&self) -> usize {
        let name = match &self.of {
            SumOf::Event(event) => beside(event),
            SumOf::Hour(_) => 0,
        };
        size_of::<Self>() + name
    }
}

/// Merges two sorted lists; items of the same key become one.
#[must_use]
pub fn merge<T: Row>(committed: &[T], more: Vec<T>) -> Vec<T> {
    let mut merged = Vec::with_capacity(committed.len() + more.len());
    let mut more = more.into_iter().peekable();
    for row in committed {
        while let Some(earlier) = more.next_if(|next| next.compare(row).is_lt()) {
            merged.push(earlier);
        }
        let mut row = row.clone();
        if let Some(same) = more.next_if(|next| next.compare(&row).is_eq()) {
            row.absorb(&same);
        }
        merged.push(row);
    }
    merged.extend(more);
    merged
}

/// Adds a sorted list to another one. Where few are added to many, and nobody else has the list, it costs
/// these few.
pub fn add<T: Row>(list: &mut Arc<Vec<T>>, more: Vec<T>) {
    let mut new = more;
    if let Some(list) = Arc::get_mut(list)
        && new.len() * MERGE_GAIN < list.len()
    {
        new.retain(|item| match list.binary_search_by(|own| own.compare(item)) {
            Ok(index) => {
                list[index].absorb(item);
                false
            }
            Err(_) => true,
        });
    }
    if !new.is_empty() {
        *list = Arc::new(merge(list, new));
    }
}

/// Sorts rows by event bytes, then hour, and makes one of those of the same counter.
pub fn sum_up(rows: &mut Vec<HourlyCount>) {
    rows.sort_unstable();
    rows.dedup_by(|later, first| {
        let same = (&later.event, later.hour) == (&first.event, first.hour);
        if same {
            first.absorb(later);
        }
        same
    });
}

/// The sums per event of sorted rows.
#[must_use]
pub fn totals_of(rows: &[HourlyCount]) -> Vec<EventTotal> {
    let of_event = |rows: &[HourlyCount]| EventTotal {
        event: rows[0].event.clone(),
        count: rows.iter().map(|row| row.count).sum(),
        first_hour: rows[0].hour,
        last_hour: rows[rows.len() - 1].hour,
    };
    rows.chunk_by(|a, b| a.event == b.event).map(of_event).collect()
}

/// The sums per hour or per event of sorted rows.
#[must_use]
pub fn sums_of<'a>(rows: impl Iterator<Item = &'a HourlyCount>, by: SumBy) -> Vec<Sum> {
    let mut sums: BTreeMap<SumOf, u64> = BTreeMap::new();
    for row in rows {
        let of = match by {
            SumBy::Hour => SumOf::Hour(row.hour),
            SumBy::Event => SumOf::Event(row.event.clone()),
        };
        let sum = sums.entry(of).or_default();
        *sum = sum.saturating_add(row.count);
    }
    sums.into_iter().map(|(of, count)| Sum { of, count }).collect()
}
