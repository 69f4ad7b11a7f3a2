//! Committed segments that are kept for a while, to be delivered again should the store lose them.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::BatchId;

pub(super) struct KeptSegment {
    pub(super) id: BatchId,
    bytes: u64,
    /// When the store confirmed it, or when it was found at start.
    since: Instant,
}

/// In the order in which they were confirmed.
#[derive(Default)]
pub(super) struct KeptSegments {
    segments: VecDeque<KeptSegment>,
    bytes: u64,
    /// How many of the first are there only until somebody needs their files.
    spare: usize,
}

impl KeptSegments {
    pub(super) fn push(&mut self, id: BatchId, bytes: u64) {
        self.bytes += bytes;
        self.segments.push_back(KeptSegment { id, bytes, since: Instant::now() });
    }

    /// Takes out what is older than `age_max`, or more than `bytes_max` in all.
    pub(super) fn take_expired(&mut self, age_max: Duration, bytes_max: u64) -> VecDeque<KeptSegment> {
        let mut expired = VecDeque::new();
        while self.segments.front().is_some_and(|first| first.since.elapsed() >= age_max || self.bytes > bytes_max) {
            expired.extend(self.take_first());
        }
        expired
    }

    fn take_first(&mut self) -> Option<KeptSegment> {
        let first = self.segments.pop_front()?;
        self.bytes -= first.bytes;
        self.spare = self.spare.saturating_sub(1);
        Some(first)
    }

    /// Whether there are more than `files_max`, besides those that are spare.
    pub(super) fn is_crowded(&self, files_max: usize) -> bool {
        self.segments.len() - self.spare > files_max
    }

    /// From now on the oldest are spare but for `files_max`. To be called when the mark says that all of them
    /// are committed.
    pub(super) fn spare_crowd(&mut self, files_max: usize) {
        self.spare = self.segments.len().saturating_sub(files_max);
    }

    /// A segment that is there only until somebody needs its file.
    pub(super) fn take_spare(&mut self) -> Option<BatchId> {
        if self.spare > 0 { self.take_first().map(|segment| segment.id) } else { None }
    }

    /// Takes back what [`KeptSegments::take_expired`] gave and could not be removed.
    pub(super) fn put_back(&mut self, mut segments: VecDeque<KeptSegment>) {
        if !segments.is_empty() {
            // Whether the mark was written is not known.
            self.spare = 0;
        }
        self.bytes += segments.iter().map(|segment| segment.bytes).sum::<u64>();
        segments.append(&mut self.segments);
        self.segments = segments;
    }

    /// Takes out the segments that `lost` names, by writer and sequence.
    pub(super) fn take(&mut self, lost: impl Fn(BatchId) -> bool) -> Vec<BatchId> {
        let taken: Vec<KeptSegment> = {
            let (taken, left) = self.segments.drain(..).partition(|segment| lost(segment.id));
            self.segments = left;
            Vec::from(taken as VecDeque<KeptSegment>)
        };
        self.bytes -= taken.iter().map(|segment| segment.bytes).sum::<u64>();
        self.spare = 0;
        let mut ids: Vec<_> = taken.into_iter().map(|segment| segment.id).collect();
        ids.sort_unstable();
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BatchSeq, WriterId};

    fn id(seq: u64) -> BatchId {
        BatchId { writer: WriterId([1; 16]), seq: BatchSeq(seq) }
    }

    fn ids(segments: &VecDeque<KeptSegment>) -> Vec<BatchId> {
        segments.iter().map(|segment| segment.id).collect()
    }

    #[test]
    fn the_oldest_go_first_when_there_are_too_many_bytes() {
        let mut kept = KeptSegments::default();
        (1..=10).for_each(|seq| kept.push(id(seq), 10));
        let expired = kept.take_expired(Duration::MAX, 75);
        assert_eq!(ids(&expired), [id(1), id(2), id(3)]);
        assert_eq!(ids(&kept.take_expired(Duration::MAX, 75)), []);
        kept.put_back(expired);
        assert_eq!(ids(&kept.take_expired(Duration::MAX, 75)), [id(1), id(2), id(3)]);
        assert_eq!(kept.take_expired(Duration::ZERO, 75).len(), 7);
    }

    #[test]
    fn the_oldest_of_too_many_are_spare_until_something_is_known_to_be_lost() {
        let mut kept = KeptSegments::default();
        (1..=8).for_each(|seq| kept.push(id(seq), 1));
        assert!(kept.is_crowded(5) && kept.take_spare().is_none());
        kept.spare_crowd(5);
        assert!(!kept.is_crowded(5));
        assert_eq!(kept.take_spare(), Some(id(1)));
        assert_eq!(ids(&kept.take_expired(Duration::MAX, 6)), [id(2)]);
        assert_eq!(kept.take(|id| id.seq == BatchSeq(4)), [id(4)]);
        assert_eq!(kept.take_spare(), None);
    }

    #[test]
    fn lost_ones_are_taken_in_order() {
        let mut kept = KeptSegments::default();
        [3, 1, 2].into_iter().for_each(|seq| kept.push(id(seq), 1));
        assert_eq!(kept.take(|id| id.seq > BatchSeq(1)), [id(2), id(3)]);
        assert_eq!(kept.take(|_| true), [id(1)]);
    }
}
