//! Which part of a store an event's counts are in.

use super::{BatchId, BatchSeq, Delta, EventName, HourlyCount};

/// How many partitions a store is cut into: 1 to [`Partitions::MAX`], fixed when it is made. Each holds all
/// counts of its events, by the names that they were counted with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partitions(u16);

impl Partitions {
    pub const ONE: Self = Self(1);

    /// Each has a connection for commits.
    pub const MAX: u16 = 64;

    /// `None`: there can't be so many.
    #[must_use]
    pub fn new(count: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&count).then_some(Self(count))
    }

    #[must_use]
    pub fn count(self) -> u16 {
        self.0
    }

    /// The numbers of all of them.
    #[must_use]
    pub fn all(self) -> std::ops::Range<u16> {
        0..self.0
    }

    /// The partition of what is counted under this name: the CRC-32 (ISO-HDLC) of its bytes modulo the number
    /// of partitions. It must never change, since it says where the counts of a store are.
    #[must_use]
    pub fn of(self, name: &EventName) -> u16 {
        if self.0 == 1 {
            return 0;
        }
        let hash = crc32fast::hash(name.as_str().as_bytes());
        u16::try_from(hash % u32::from(self.0)).unwrap_or(0)
    }

    /// The items of each partition, in their order; `name` gives the name that an item belongs to.
    #[must_use]
    pub fn split<T: Clone>(self, items: &[T], name: impl Fn(&T) -> &EventName) -> Vec<Vec<T>> {
        let mut parts = vec![Vec::new(); usize::from(self.0)];
        items.iter().for_each(|item| parts[usize::from(self.of(name(item)))].push(item.clone()));
        parts
    }

    /// A committed batch as the logs of the partitions have it: each has an entry, be it without rows.
    #[must_use]
    pub fn split_delta(self, delta: Delta) -> Vec<Delta> {
        if self == Self::ONE {
            return vec![delta];
        }
        let parts = self.split(&delta.rows, |row| &row.event).into_iter().zip(self.all());
        let part = |(rows, partition): (Vec<HourlyCount>, u16)| {
            let total = rows.iter().map(|row| i128::from(row.count)).sum();
            Delta { partition, total, rows: rows.into(), ..delta }
        };
        parts.map(part).collect()
    }
}

/// One batch again, from what the logs of all partitions have of it. `None`: one of them has nothing.
#[must_use]
pub fn join_deltas(id: BatchId, parts: Vec<Option<Delta>>) -> Option<Delta> {
    let parts = parts.into_iter().collect::<Option<Vec<Delta>>>()?;
    let mut rows: Vec<HourlyCount> = parts.iter().flat_map(|part| part.rows.iter().cloned()).collect();
    rows.sort_unstable();
    let (after, catalog) = (parts.iter().map(|part| part.after).min(), parts.iter().map(|part| part.catalog).min());
    Some(Delta {
        id,
        partition: 0,
        after: after.unwrap_or(BatchSeq(0)),
        catalog: catalog.unwrap_or(0),
        total: parts.iter().map(|part| part.total).sum(),
        rows: rows.into(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    #[test]
    fn the_partition_of_a_name_never_changes() {
        let partitions = Partitions::new(8).unwrap();
        let of = |name: &str| partitions.of(&EventName::parse(name).unwrap());
        // CRC-32 of "123456789" is 0xcbf43926.
        assert_eq!((of("123456789"), of("signup"), of("Übersicht"), of("a")), (6, of("signup"), of("Übersicht"), 3));
        assert_eq!(Partitions::ONE.of(&EventName::parse("123456789").unwrap()), 0);
        assert_eq!(Partitions::new(0), None);
        assert_eq!(Partitions::new(Partitions::MAX + 1), None);
    }
}
