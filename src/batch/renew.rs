//! Which version of the catalog a batch is opened with: of events that were purged later, it holds counts
//! of before the purge.

use std::io;
use std::sync::atomic::Ordering;

use super::Batches;
use crate::domain::BatchId;

/// The catalog's version of a node that has never met its store. What it counts may be of any time, so
/// no purge takes it away.
pub(super) const UNKNOWN: u64 = u64::MAX;

impl Batches {
    /// From now on batches are opened with this version of the catalog, whose last purge is that of
    /// version `last_purge`. An open batch that is still empty takes it over at once, if that purge
    /// concerns it: nobody flushes it, so a purged event that is counted again would wait for it. Touches
    /// the disk then.
    ///
    /// # Errors
    /// The disk's; then only the next batch has it.
    pub fn note_catalog(&self, version: u64, last_purge: u64) -> io::Result<()> {
        self.catalog.store(version, Ordering::Release);
        let is_old = |known: u64| known < last_purge || known > version;
        if self.custody.note_catalog(version).is_none_or(is_old) {
            // For the batch that the next start begins with.
            self.write_mark()?;
        }
        if is_old(self.open_catalog()) && self.journal.takes_records() {
            self.renew_if_empty(version)?;
        }
        Ok(())
    }

    /// No batch is opened with an older version than this one, nor was the open one, until the next
    /// [`Batches::note_catalog`].
    #[must_use]
    pub fn least_catalog(&self) -> u64 {
        self.open_catalog().min(self.catalog.load(Ordering::Acquire))
    }

    fn renew_if_empty(&self, catalog: u64) -> io::Result<()> {
        let _tidying = self.tidying.lock();
        // The sum of the earlier batches stands still while nothing is sealed.
        let base = self.sealing.lock();
        let mut open = self.open.write();
        if open.catalog == catalog || !open.counts.is_empty() {
            return Ok(());
        }
        self.journal.write_all().map_err(io::Error::other)?;
        let id = BatchId { writer: self.writer, seq: open.seq };
        let (segment, length) = self.snapshot(id, &open.counts, catalog, Some(*base), false)?;
        self.journal.replace_active(segment, length);
        open.catalog = catalog;
        Ok(())
    }
}
