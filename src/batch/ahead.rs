//! The segment of the next batch, made before it is needed: while nobody waits for it, and of a file that
//! is there already.

use std::io;
use std::sync::atomic::Ordering;

use super::Batches;
use crate::domain::BatchId;
use crate::journal::Health;
use crate::journal::segment::{Kind, Segment, file_name};

/// A segment without a batch so far, and the version of the catalog that its header tells.
pub(super) type Ahead = Option<(Segment, u64)>;

impl Batches {
    /// Makes the segment that the next seal is going to need, if that is soon: somebody has waited for the last
    /// commit. When it fails, the seal tries again. Touches the disk.
    pub fn prepare_ahead(&self) {
        if !self.commits.is_waited_for() {
            return;
        }
        let _base = self.sealing.lock();
        let mut ahead = self.ahead.lock();
        if ahead.is_none() && self.journal.health() == Health::Healthy {
            let (id, catalog) = self.next_batch();
            *ahead = self.prepare(id, catalog).ok().map(|segment| (segment, catalog));
        }
    }

    /// To be called with `sealing` locked.
    pub(super) fn next_segment(&self) -> io::Result<(Segment, u64)> {
        let (id, catalog) = self.next_batch();
        match self.ahead.lock().take() {
            Some((segment, known)) if segment.id == id && known == catalog && self.journal.is_ready(&segment) => {
                Ok((segment, catalog))
            }
            _ => Ok((self.prepare(id, catalog)?, catalog)),
        }
    }

    fn next_batch(&self) -> (BatchId, u64) {
        let seq = self.open.read().seq.next();
        (BatchId { writer: self.writer, seq }, self.catalog.load(Ordering::Acquire))
    }

    pub(super) fn prepare(&self, id: BatchId, catalog: u64) -> io::Result<Segment> {
        let spare = self.custody.kept.lock().take_spare().map(|id| file_name(id, Kind::Committed));
        self.journal.prepare(id, catalog, spare.as_deref())
    }
}
