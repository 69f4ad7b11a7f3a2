//! Segments that have ended.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Position;
use crate::domain::BatchId;

/// A segment that takes no more records.
#[derive(Debug)]
pub struct SealedSegment {
    pub(super) id: BatchId,
    pub(super) bytes: AtomicU64,
}

/// The active segment that [`super::Journal::rotate`] has ended.
#[derive(Debug)]
pub struct Rotated {
    pub segment: SealedSegment,
    /// Where it ends, if the file has all of it.
    pub end: Option<Position>,
    /// The sum of the counts that the file lacks.
    pub unwritten: u64,
}

impl SealedSegment {
    #[must_use]
    pub fn new(id: BatchId, bytes: u64) -> Self {
        Self { id, bytes: AtomicU64::new(bytes) }
    }

    #[must_use]
    pub fn id(&self) -> BatchId {
        self.id
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
