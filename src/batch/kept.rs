//! Committed segments that are kept for a while, to be delivered again should the store lose them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::domain::BatchId;

/// More files than this would make the folder slow.
const SEGMENTS_MAX: usize = 4_000;

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
}

impl KeptSegments {
    pub(super) fn push(&mut self, id: BatchId, bytes: u64) {
        self.bytes += bytes;
        self.segments.push_back(KeptSegment { id, bytes, since: Instant::now() });
    }

    /// Takes out what is older than `age_max`, or more than `bytes_max` in all; of too many, half.
    pub(super) fn take_expired(&mut self, age_max: Duration, bytes_max: u64) -> VecDeque<KeptSegment> {
        let is_crowded = self.segments.len() > SEGMENTS_MAX;
        let mut expired = VecDeque::new();
        while let Some(first) = self.segments.front() {
            let is_expired = first.since.elapsed() >= age_max
                || self.bytes > bytes_max
                || (is_crowded && self.segments.len() > SEGMENTS_MAX / 2);
            if !is_expired {
                break;
            }
            expired.extend(self.take_first());
        }
        expired
    }

    fn take_first(&mut self) -> Option<KeptSegment> {
        let first = self.segments.pop_front()?;
        self.bytes -= first.bytes;
        Some(first)
    }

    /// Takes back what [`KeptSegments::take_expired`] gave and could not be removed.
    pub(super) fn put_back(&mut self, mut segments: VecDeque<KeptSegment>) {
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
    fn the_oldest_go_first_when_there_are_too_many_bytes_or_files() {
        let mut kept = KeptSegments::default();
        (1..=10).for_each(|seq| kept.push(id(seq), 10));
        let expired = kept.take_expired(Duration::MAX, 75);
        assert_eq!(ids(&expired), [id(1), id(2), id(3)]);
        assert_eq!(ids(&kept.take_expired(Duration::MAX, 75)), []);
        kept.put_back(expired);
        assert_eq!(ids(&kept.take_expired(Duration::MAX, 75)), [id(1), id(2), id(3)]);
        assert_eq!(kept.take_expired(Duration::ZERO, 75).len(), 7);
        (1..=SEGMENTS_MAX as u64 + 1).for_each(|seq| kept.push(id(seq), 0));
        assert_eq!(kept.take_expired(Duration::MAX, 75).len(), SEGMENTS_MAX / 2 + 1);
    }

    #[test]
    fn lost_ones_are_taken_in_order() {
        let mut kept = KeptSegments::default();
        [3, 1, 2].into_iter().for_each(|seq| kept.push(id(seq), 1));
        assert_eq!(kept.take(|id| id.seq > BatchSeq(1)), [id(2), id(3)]);
        assert_eq!(kept.take(|_| true), [id(1)]);
    }
}
