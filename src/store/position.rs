//! How far a store has come: what a value that was read from it includes.

use std::collections::BTreeMap;

use super::LedgerEntry;
use crate::domain::{BatchId, BatchSeq, Delta, Digest, WriterId};

/// What no batch has: the partitions of a store do not agree on what the last one was.
const DISAGREEING: Digest = Digest([0; 16]);

/// Where the ledger stood in the very snapshot that a value was read from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LedgerPosition {
    /// Changes with every commit of any writer and every administrator's change (the sum of all
    /// `last_seq`, in each partition, and of `catalog`): equal versions mean equal contents.
    pub version: u64,
    /// How many changes administrators have made: equal numbers mean equal catalogs.
    pub catalog: u64,
    /// The sum of all counts that all writers ever applied. With the version it tells apart what a store
    /// that went back and on again holds.
    pub total: i128,
    /// What the ledger says of each writer that was asked for, and of others that have committed lately;
    /// absent: none of its batches. A batch counts here once all partitions have their part of it.
    pub applied: BTreeMap<WriterId, LedgerEntry>,
    /// The same for each partition. Empty where there is only one.
    pub(super) parts: Vec<BTreeMap<WriterId, LedgerEntry>>,
}

impl LedgerPosition {
    /// The position of a store whose partitions stand there, read one after another. What some partitions have
    /// of batches that others lack is in the totals of `applied` until [`LedgerPosition::deduct`] takes it out.
    /// `None`: not all of them have seen the last change of an administrator yet.
    pub(crate) fn join(mut parts: Vec<Self>) -> Option<Self> {
        if parts.len() == 1 {
            return parts.pop();
        }
        let catalog = parts.first()?.catalog;
        if parts.iter().any(|part| part.catalog != catalog) {
            return None;
        }
        let batches: u64 = parts.iter().map(|part| part.version.saturating_sub(catalog)).sum();
        let total = parts.iter().map(|part| part.total).sum();
        let parts: Vec<_> = parts.into_iter().map(|part| part.applied).collect();
        let applied = parts.first()?.keys().filter_map(|writer| Some((*writer, in_all(&parts, *writer)?))).collect();
        Some(Self { version: batches + catalog, catalog, total, applied, parts })
    }

    /// Which partitions have more of which writer than the others, and where those stand.
    pub(crate) fn ahead(&self) -> Vec<(u16, WriterId, BatchSeq)> {
        let of_writer = self.applied.iter().flat_map(|(writer, all)| {
            let parts = (0..).zip(&self.parts);
            parts.filter_map(move |(partition, part)| {
                (part.get(writer)?.last_seq > all.last_seq).then_some((partition, *writer, all.last_seq))
            })
        });
        of_writer.collect()
    }

    /// `beyond` is the sum of what a partition has of the writer after the batch that all have.
    pub(crate) fn deduct(&mut self, writer: WriterId, beyond: i128) {
        if let Some(entry) = self.applied.get_mut(&writer) {
            entry.total -= beyond;
        }
    }

    /// What the ledger of a partition says.
    pub(crate) fn applied_in(&self, partition: u16) -> &BTreeMap<WriterId, LedgerEntry> {
        self.parts.get(usize::from(partition)).unwrap_or(&self.applied)
    }

    /// The last batch of a writer that is part of the snapshot, whole.
    #[must_use]
    pub fn last_seq(&self, writer: WriterId) -> BatchSeq {
        seq_of(&self.applied, writer)
    }

    /// The last batch of a writer of which the partition has its part.
    #[must_use]
    pub fn last_seq_in(&self, partition: u16, writer: WriterId) -> BatchSeq {
        seq_of(self.applied_in(partition), writer)
    }

    /// Whether all of `batch` is part of the snapshot.
    #[must_use]
    pub fn includes(&self, batch: BatchId) -> bool {
        self.last_seq(batch.writer) >= batch.seq
    }

    /// Whether the snapshot has what `batch` holds for a partition.
    #[must_use]
    pub fn includes_part(&self, partition: u16, batch: BatchId) -> bool {
        self.last_seq_in(partition, batch.writer) >= batch.seq
    }

    /// The entries, if they are all that lies between this position and that one. What a writer did that is
    /// in neither of the two by itself is in their sums.
    pub(crate) fn leads_to(&self, now: &Self, deltas: Vec<Delta>) -> Option<Vec<Delta>> {
        if self.catalog != now.catalog {
            return None;
        }
        let moved = deltas.iter().try_fold((self.version, self.total), |(version, total), delta| {
            let batches = delta.id.seq.0.checked_sub(delta.after.0)?;
            Some((version.checked_add(batches)?, total.checked_add(delta.total)?))
        });
        (moved? == (now.version, now.total)).then_some(deltas)
    }

    /// Takes note of one more entry of the log.
    pub fn advance(&mut self, delta: &Delta) {
        let BatchId { writer, seq } = delta.id;
        let part = self.parts.get_mut(usize::from(delta.partition)).unwrap_or(&mut self.applied);
        let none = LedgerEntry { last_seq: BatchSeq(0), total: 0, digest: None };
        let entry = part.entry(writer).or_insert(none);
        if seq <= entry.last_seq {
            return;
        }
        self.version += seq.0 - entry.last_seq.0;
        self.total += delta.total;
        *entry = LedgerEntry { last_seq: seq, total: entry.total + delta.total, digest: None };
        if let Some(all) = in_all(&self.parts, writer)
            && all.last_seq == seq
            && self.ahead_of(writer, seq).is_none()
        {
            self.applied.insert(writer, LedgerEntry { digest: None, ..all });
        }
    }

    /// A partition that has more of the writer than this batch.
    fn ahead_of(&self, writer: WriterId, seq: BatchSeq) -> Option<u16> {
        (0..).zip(&self.parts).find(|(_, part)| seq_of(part, writer) > seq).map(|(partition, _)| partition)
    }

    /// The part of the version and of the total that these writers have not moved: while it stands still,
    /// nobody else has changed the store.
    #[must_use]
    pub fn beside(&self, own: &[WriterId]) -> (u64, i128) {
        let parts = if self.parts.is_empty() { std::slice::from_ref(&self.applied) } else { &self.parts };
        let own = parts.iter().flat_map(|part| own.iter().filter_map(|writer| part.get(writer)));
        own.fold((self.version, self.total), |(version, total), entry| {
            (version.wrapping_sub(entry.last_seq.0), total - entry.total)
        })
    }
}

fn seq_of(applied: &BTreeMap<WriterId, LedgerEntry>, writer: WriterId) -> BatchSeq {
    applied.get(&writer).map_or(BatchSeq(0), |entry| entry.last_seq)
}

/// What all partitions together say of a writer; the total is what they have in all. `None`: one has nothing, or
/// there is only one partition.
fn in_all(parts: &[BTreeMap<WriterId, LedgerEntry>], writer: WriterId) -> Option<LedgerEntry> {
    let entries = parts.iter().map(|part| part.get(&writer)).collect::<Option<Vec<_>>>()?;
    let first = entries.first()?;
    let agree = entries.iter().all(|entry| (entry.last_seq, entry.digest) == (first.last_seq, first.digest));
    Some(LedgerEntry {
        last_seq: entries.iter().map(|entry| entry.last_seq).min()?,
        total: entries.iter().map(|entry| entry.total).sum(),
        digest: if agree { first.digest } else { Some(DISAGREEING) },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    const WRITER: WriterId = WriterId([1; 16]);

    fn entry(last_seq: u64, total: i128, digest: u8) -> LedgerEntry {
        LedgerEntry { last_seq: BatchSeq(last_seq), total, digest: Some(Digest([digest; 16])) }
    }

    fn part(entry: LedgerEntry) -> LedgerPosition {
        let (version, total) = (entry.last_seq.0 + 3, entry.total);
        LedgerPosition { version, catalog: 3, total, applied: [(WRITER, entry)].into(), parts: Vec::new() }
    }

    fn delta(partition: u16, seq: u64, total: i128) -> Delta {
        let id = BatchId { writer: WRITER, seq: BatchSeq(seq) };
        Delta { id, partition, after: BatchSeq(seq - 1), catalog: 3, total, rows: [].into() }
    }

    #[test]
    fn a_batch_is_in_when_all_partitions_have_their_part_of_it() {
        let mut position = LedgerPosition::join(vec![part(entry(2, 10, 2)), part(entry(3, 25, 3))]).unwrap();
        assert_eq!((position.version, position.total), (2 + 3 + 3, 35));
        assert_eq!(position.ahead(), [(1, WRITER, BatchSeq(2))]);
        position.deduct(WRITER, 5);
        assert_eq!(position.applied[&WRITER], LedgerEntry { digest: Some(DISAGREEING), ..entry(2, 30, 0) });
        let third = BatchId { writer: WRITER, seq: BatchSeq(3) };
        let parts = [position.includes_part(0, third), position.includes_part(1, third)];
        assert_eq!((position.includes(third), parts), (false, [false, true]));
        assert_eq!(position.beside(&[WRITER]), (3, 0));

        position.advance(&delta(0, 3, 7));
        assert!(position.includes(third));
        assert_eq!((position.last_seq(WRITER), position.applied[&WRITER].total), (BatchSeq(3), 42));
        assert_eq!((position.version, position.total), (9, 42));
    }

    #[test]
    fn partitions_that_have_not_all_seen_a_change_have_no_position() {
        let behind = LedgerPosition { catalog: 2, ..part(entry(2, 10, 2)) };
        assert_eq!(LedgerPosition::join(vec![part(entry(2, 10, 2)), behind]), None);
    }
}
