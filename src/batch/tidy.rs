//! What has to be seen to now and then: long segments, missing ones, expired ones.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Batches, SealedBatch};
use crate::counts::Counts;
use crate::domain::BatchId;
use crate::journal::segment::{Contents, Kind, Segment, file_name};

/// A snapshot is worth its stall only when the segment is this much larger than what it would hold.
const SNAPSHOT_GAIN: u64 = 4;
/// A counter's share of a snapshot, at most: its record, a name of 255 bytes and a count.
const SNAPSHOT_COUNTER_BYTES: u64 = 264;

impl Batches {
    /// A segment grows with every increment although its counters do not: when one has gone far,
    /// replaces it by a snapshot. POSTs wait while it is the open batch's. Says whether anything was
    /// replaced.
    ///
    /// # Errors
    /// When the disk refuses the snapshot; the segment stays as it was.
    pub fn shorten_segments(&self) -> io::Result<bool> {
        if self.journal.bytes() <= self.journal.options().segment_bytes_max {
            return Ok(false);
        }
        let _tidying = self.tidying.lock();
        let mut shortened = false;
        let sealed: Vec<_> = self.waiting.lock().sealed.iter().cloned().collect();
        for batch in sealed {
            if !batch.retired.load(Ordering::Acquire) && self.is_too_long(batch.segment.bytes(), &batch.counts) {
                let base = self.total_before(batch.id);
                let (_, length) = self.snapshot(batch.id, &batch.counts, batch.catalog, base, true)?;
                self.journal.note_length(&batch.segment, length);
                shortened = true;
            }
        }
        if self.is_too_long(self.journal.active_bytes(), &self.open.read().counts) {
            // The sum of the earlier batches stands still while nothing is sealed.
            let base = self.sealing.lock();
            let open = self.open.write();
            self.journal.write_all().map_err(io::Error::other)?;
            let id = BatchId { writer: self.writer, seq: open.seq };
            let (segment, length) = self.snapshot(id, &open.counts, open.catalog, Some(*base), false)?;
            self.journal.replace_active(segment, length);
            shortened = true;
        }
        Ok(shortened)
    }

    fn is_too_long(&self, bytes: u64, counts: &Counts) -> bool {
        let snapshot_bytes = counts.len() as u64 * SNAPSHOT_COUNTER_BYTES;
        bytes > self.journal.options().segment_bytes_max && bytes > snapshot_bytes.saturating_mul(SNAPSHOT_GAIN)
    }

    pub(super) fn snapshot(
        &self,
        id: BatchId,
        counts: &Counts,
        catalog: u64,
        base: Option<i128>,
        ended: bool,
    ) -> io::Result<(Segment, u64)> {
        let mut rows = self.rows(counts);
        rows.sort_unstable_by_key(|row| row.hour);
        let rows: Vec<_> = rows.iter().map(|row| (row.event.as_str(), row.hour, row.count)).collect();
        let files = self.journal.files();
        let written = Segment::rewrite(files, id, &Contents { catalog, base, counts: &rows, ended })?;
        self.journal.sync_folder()?;
        Ok(written)
    }

    /// What has to be seen to now and then: a folder that is gone, a segment that the disk refused or lost,
    /// counts that are in no segment, committed segments that were kept long enough, a reserve that was
    /// used. Touches the disk. What fails does not keep the rest from being done.
    ///
    /// # Errors
    /// The disk's first.
    pub fn tidy(&self) -> io::Result<()> {
        self.journal.check_in_place();
        let mended = self.mend_active().and(self.mend_sealed());
        let options = *self.journal.options();
        // A full disk needs the room more.
        let bytes_max = if self.journal.takes_records() { options.keep_committed_bytes_max } else { 0 };
        let expired = self.expire_kept(Duration::from_millis(options.keep_committed_ms), bytes_max);
        self.journal.reserve().restore();
        mended.and(expired).and(self.write_due_mark())
    }

    /// Gives the open batch a segment where it has none: the disk refused it, or its file was deleted. In
    /// the second case all that is counted goes into a new one.
    fn mend_active(&self) -> io::Result<()> {
        if self.is_poisoned() {
            return Ok(());
        }
        if self.journal.lacks_segment() {
            let base = self.sealing.lock();
            let (seq, catalog) = {
                let open = self.open.read();
                (open.seq, open.catalog)
            };
            if self.journal.lacks_segment() && !self.is_poisoned() {
                let segment = self.prepare(BatchId { writer: self.writer, seq }, catalog)?;
                self.journal.resume(segment);
                self.journal.append_base(*base);
            }
        } else if !self.journal.is_active_linked()? {
            let _tidying = self.tidying.lock();
            let base = self.sealing.lock();
            let open = self.open.write();
            self.journal.files().check_in_place()?;
            let id = BatchId { writer: self.writer, seq: open.seq };
            let (segment, length) = self.snapshot(id, &open.counts, open.catalog, Some(*base), false)?;
            self.journal.restart_active(segment, length);
            tracing::warn!("The open segment's file was gone: what is counted is in a new one");
        }
        Ok(())
    }

    /// Writes the segments of batches that were sealed while the journal could not be written.
    fn mend_sealed(&self) -> io::Result<()> {
        let incomplete = |batch: &&Arc<SealedBatch>| batch.incomplete.load(Ordering::Acquire);
        let sealed: Vec<_> = self.waiting.lock().sealed.iter().filter(incomplete).cloned().collect();
        if sealed.is_empty() || self.is_poisoned() {
            return Ok(());
        }
        self.journal.files().check_in_place()?;
        let _tidying = self.tidying.lock();
        for batch in sealed {
            if !batch.retired.load(Ordering::Acquire) {
                let base = self.total_before(batch.id);
                let (_, length) = self.snapshot(batch.id, &batch.counts, batch.catalog, base, true)?;
                self.journal.note_length(&batch.segment, length);
                batch.unwritten.store(0, Ordering::Release);
                batch.incomplete.store(false, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Counts that are not known to be in the store.
    #[must_use]
    pub fn unstored(&self) -> i128 {
        let open = self.open.read();
        let waiting = self.waiting.lock();
        let sealed = waiting.sealed.iter().filter(|batch| !batch.stored.load(Ordering::Acquire));
        sealed.map(|batch| batch.total()).sum::<i128>() + open.counts.sum()
    }

    /// Counts that are neither known to be in the store nor where the next start would find them. Touches
    /// the disk.
    #[must_use]
    pub fn at_risk(&self) -> i128 {
        let files = self.journal.files();
        if files.check_in_place().is_err() {
            return self.unstored();
        }
        let is_gone = |id| {
            let opened = files.open(&file_name(id, Kind::Pending));
            opened.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let open = self.open.read();
        let id = BatchId { writer: self.writer, seq: open.seq };
        let in_open = if is_gone(id) { open.counts.sum() } else { self.journal.unwritten().into() };
        let waiting = self.waiting.lock();
        let sealed = waiting.sealed.iter().filter(|batch| !batch.stored.load(Ordering::Acquire));
        let in_sealed =
            sealed.map(
                |batch| {
                    if is_gone(batch.id) { batch.total() } else { batch.unwritten.load(Ordering::Acquire).into() }
                },
            );
        in_open + in_sealed.sum::<i128>()
    }
}
