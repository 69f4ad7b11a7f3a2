//! Who has what: which batches the store has confirmed, what is kept of those, and what it lacks.
//!
//! A batch leaves this node's care only when the store is known to hold exactly it. When the store
//! turns out to have lost what it had confirmed, the kept segments become batches that wait again;
//! what is not kept any more is put down as missing, to the unit.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::kept::KeptSegments;
use super::mark::{Confirmed, Mark};
use super::{Batches, SealedBatch};
use crate::counts::Counts;
use crate::domain::{BatchId, BatchSeq, HourlyCount, WriterId};
use crate::journal::files::{Files, remove_if_there};
use crate::journal::replay;
use crate::journal::segment::{Kind, file_name};
use crate::journal::{DataDir, SealedSegment};

/// What is known of the batches that left this node, and of those of its earlier starts.
pub(super) struct Custody {
    files: Arc<dyn Files>,
    mark: Mutex<Mark>,
    /// The file lacks something that it should say.
    mark_is_due: AtomicBool,
    kept: Mutex<KeptSegments>,
    /// The sum of all batches of a recovered writer before its first one that waits, where known.
    bases: Mutex<BTreeMap<WriterId, (BatchSeq, i128)>>,
}

/// A store that went back, brought forward as far as this node can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rewound {
    /// Counts that are going to be delivered again.
    pub delivered_again: i128,
    /// Counts that nobody has any more; `None`: not known how many.
    pub missing: Option<i128>,
}

impl Custody {
    pub(super) fn new(dir: &DataDir, mark: Mark) -> Self {
        let (kept, bases) = (Mutex::default(), Mutex::default());
        let mark_is_due = AtomicBool::new(false);
        Self { files: Arc::clone(&dir.root), mark: Mutex::new(mark), mark_is_due, kept, bases }
    }

    /// Takes note of a segment that was found committed.
    pub(super) fn note_kept(&self, id: BatchId, bytes: u64) {
        self.kept.lock().push(id, bytes);
    }

    pub(super) fn note_base(&self, id: BatchId, base: i128) {
        self.bases.lock().entry(id.writer).or_insert((id.seq, base));
    }

    /// Gives the version that was known before.
    pub(super) fn note_catalog(&self, version: u64) -> Option<u64> {
        self.mark.lock().catalog.replace(version)
    }

    pub(super) fn base(&self, id: BatchId) -> Option<i128> {
        self.bases.lock().get(&id.writer).filter(|(seq, _)| *seq == id.seq).map(|(_, base)| *base)
    }

    pub(super) fn confirm_found(&self, writer: WriterId, seq: BatchSeq, total: Option<i128>) {
        let mut mark = self.mark.lock();
        if mark.confirmed.get(&writer).is_none_or(|known| known.seq < seq) {
            mark.confirm(writer, seq, total);
        }
    }
}

impl Batches {
    /// What the store is known to have confirmed, by writer. Take it *before* asking the store: then no
    /// answer may be lower.
    #[must_use]
    pub fn confirmed(&self) -> BTreeMap<WriterId, Confirmed> {
        self.custody.mark.lock().confirmed.clone()
    }

    /// The batch that the store's ledger must stand at before `batch`.
    #[must_use]
    pub fn confirmed_before(&self, batch: &SealedBatch) -> BatchSeq {
        let mark = self.custody.mark.lock();
        let previous = BatchSeq(batch.id.seq.0.saturating_sub(1));
        // Never the batch itself: the ledger would take it once more.
        mark.confirmed.get(&batch.id.writer).map_or(previous, |confirmed| confirmed.seq.min(previous))
    }

    /// The sum of all batches of the writer through `batch`, if it is known.
    #[must_use]
    pub fn total_through(&self, batch: &SealedBatch) -> Option<i128> {
        let writer = batch.id.writer;
        let (first, base) = self.custody.bases.lock().get(&writer).copied().or_else(|| {
            let mark = self.custody.mark.lock();
            let confirmed = mark.confirmed.get(&writer)?;
            Some((confirmed.seq.next(), confirmed.total?))
        })?;
        let through = self.sealed_through(writer, batch.id.seq);
        let is_contiguous = through.first().is_some_and(|oldest| oldest.id.seq == first)
            && through.len() as u64 == batch.id.seq.0 + 1 - first.0;
        is_contiguous.then(|| base + through.iter().map(|batch| batch.total()).sum::<i128>())
    }

    /// Whose ledger positions decide about the pending batches, and about all that this node has
    /// delivered.
    #[must_use]
    pub fn writers(&self) -> Vec<WriterId> {
        let mut writers: Vec<_> = self.custody.mark.lock().confirmed.keys().copied().collect();
        writers.extend(self.waiting.lock().sealed.iter().map(|batch| batch.id.writer));
        writers.push(self.writer);
        writers.sort_unstable();
        writers.dedup();
        writers
    }

    /// Lets go of a batch that the store holds exactly; `total`: what the ledger says of its writer, if
    /// that is known.
    ///
    /// # Errors
    /// When its segment keeps its name. The batch stays then: a segment that outlives its successors
    /// would look like a hole in the journal to the next start.
    pub fn discard(&self, batch: &SealedBatch, rows: Arc<[HourlyCount]>, total: Option<i128>) -> io::Result<()> {
        let through = self.total_through(batch).or(total);
        let bytes = batch.segment.bytes();
        self.note_stored(batch);
        self.retire(batch, Kind::Committed)?;
        self.custody.kept.lock().push(batch.id, bytes);
        self.settle(batch, through, Some(rows));
        Ok(())
    }

    /// Sets a batch aside because the store holds another one under its identity, which is told from it
    /// by its digest: its segment stays in the folder. `missing`: how many of its counts the store lacks;
    /// `found`: where the ledger stands.
    ///
    /// # Errors
    /// When its segment keeps its name; the batch goes on waiting.
    pub fn set_aside(&self, batch: &SealedBatch, missing: i128, found: (BatchSeq, i128)) -> io::Result<()> {
        self.retire(batch, Kind::Differing)?;
        if batch.id.writer == self.writer {
            self.waiting.lock().set_aside.insert(batch.id.seq);
        }
        if missing > 0 {
            *self.custody.mark.lock().missing.entry(batch.id.writer).or_default() += missing;
        }
        self.lower_base(batch.id.writer, missing);
        self.settle(batch, None, None);
        if found.0 == batch.id.seq {
            self.custody.mark.lock().confirm(batch.id.writer, found.0, Some(found.1));
        }
        self.write_mark_or_log();
        Ok(())
    }

    fn settle(&self, batch: &SealedBatch, total: Option<i128>, rows: Option<Arc<[HourlyCount]>>) {
        let BatchId { writer, seq } = batch.id;
        {
            let mut waiting = self.waiting.lock();
            let before = waiting.sealed.len();
            waiting.sealed.retain(|sealed| sealed.id != batch.id);
            // A flush that was cut off may have done it.
            if waiting.sealed.len() < before
                && let Some(rows) = rows
            {
                waiting.commits.push(batch.id, batch.catalog, rows);
            }
        }
        self.custody.bases.lock().remove(&writer);
        self.custody.mark.lock().confirm(writer, seq, total);
        if let Some(total) = total {
            self.custody.note_base(BatchId { writer, seq: seq.next() }, total);
        }
        self.note_committed(batch.id);
    }

    fn retire(&self, batch: &SealedBatch, kind: Kind) -> io::Result<()> {
        let _tidying = self.tidying.lock();
        self.journal.retire(&batch.segment, kind)?;
        batch.retired.store(true, Ordering::Release);
        Ok(())
    }

    /// Its segment may keep its name for a while; nobody has to wait for that.
    fn note_stored(&self, batch: &SealedBatch) {
        batch.stored.store(true, Ordering::Release);
        self.note_committed(batch.id);
    }

    fn note_committed(&self, BatchId { writer, seq }: BatchId) {
        if writer == self.writer {
            self.committed.send_if_modified(|through| {
                let further = *through < seq;
                *through = seq.max(*through);
                further
            });
        }
    }

    /// The store says that it stands at `found` for this writer, which is less than what it had
    /// confirmed: what is kept of the difference waits for its commit again, the rest is missing. Touches
    /// the disk.
    pub fn rewind(&self, writer: WriterId, found: (BatchSeq, i128)) -> Rewound {
        let _tidying = self.tidying.lock();
        let Some(confirmed) = self.custody.mark.lock().confirmed.get(&writer).copied() else {
            return Rewound { delivered_again: 0, missing: None };
        };
        let lost = self.custody.kept.lock().take(|id| id.writer == writer && id.seq > found.0);
        // The newest first, so that those that wait are contiguous wherever this ends.
        let again: Vec<_> = lost.iter().rev().filter_map(|id| self.take_back(*id)).collect();
        // An error poisons the journal, which is all that can be done about it.
        let _ = self.journal.sync_folder();
        let delivered_again = again.iter().map(|batch| batch.total()).sum::<i128>();
        let missing = confirmed.total.map(|total| (total - found.1 - delivered_again).max(0));
        {
            let mut mark = self.custody.mark.lock();
            mark.confirm(writer, found.0, Some(found.1));
            if let Some(missing) = missing.filter(|missing| *missing > 0) {
                *mark.missing.entry(writer).or_default() += missing;
            }
        }
        self.lower_base(writer, missing.unwrap_or(0));
        self.custody.bases.lock().remove(&writer);
        self.wait_again(again);
        self.write_mark_or_log();
        Rewound { delivered_again, missing }
    }

    /// What is missing in the store is in none of its sums: from now on, neither in ours.
    fn lower_base(&self, writer: WriterId, missing: i128) {
        if writer == self.writer && missing != 0 {
            let mut base = self.sealing.lock();
            *base -= missing;
            self.journal.append_base(*base);
        }
    }

    /// A kept segment as a batch that waits; `None` when nothing of it can be read.
    fn take_back(&self, id: BatchId) -> Option<Arc<SealedBatch>> {
        let files = self.journal.files();
        // What is damaged is lost in any case, and counted as missing.
        let replayed = replay::replay(files, id, Kind::Committed, true).inspect_err(|error| {
            tracing::error!(%error, "A kept segment can't be read");
        });
        let replayed = replayed.ok()?;
        if let Err(error) = files.rename(&file_name(id, Kind::Committed), &file_name(id, Kind::Pending)) {
            // It is delivered from memory; should that fail, the next start finds it as it is.
            tracing::warn!(%error, "A kept segment can't be renamed");
        }
        let counts = Counts::with_capacity(replayed.counts.len());
        for ((hour, event), count) in &replayed.counts {
            counts.add(self.names.learn(event, 0), *hour, *count);
        }
        let segment = SealedSegment::new(id, 0);
        self.journal.note_length(&segment, replayed.length);
        let catalog = replayed.catalog.unwrap_or(u64::MAX);
        Some(Arc::new(SealedBatch {
            id,
            catalog,
            counts: Arc::new(counts),
            total: OnceLock::new(),
            segment,
            end: None,
            unwritten: AtomicU64::new(0),
            incomplete: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            stored: AtomicBool::new(false),
        }))
    }

    /// `batches`: newest first.
    fn wait_again(&self, batches: Vec<Arc<SealedBatch>>) {
        let mut waiting = self.waiting.lock();
        for batch in batches {
            waiting.sealed.push_front(batch);
        }
        // Those that wait for their segments to be retired may have been lost, too.
        waiting.sealed.iter().for_each(|batch| batch.stored.store(false, Ordering::Release));
        // Rows that were read before are not what the store has now.
        waiting.commits.forget();
        drop(waiting);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Forgets that `missing` counts are missing: an administrator has confirmed that they are gone.
    pub fn accept_missing(&self) {
        self.custody.mark.lock().missing.clear();
        self.write_mark_or_log();
    }

    /// The mark as it is now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.custody.mark.lock().clone()
    }

    /// The store is `identity` from now on.
    pub fn adopt(&self, identity: &str) {
        {
            let mut mark = self.custody.mark.lock();
            if mark.identity.as_deref() == Some(identity) {
                return;
            }
            mark.identity = Some(identity.to_owned());
        }
        self.write_mark_or_log();
    }

    /// Another database takes the place of the one that confirmed what is confirmed: all of it is
    /// missing there.
    pub fn forget_confirmed(&self) {
        let mut mark = self.custody.mark.lock();
        let confirmed = std::mem::take(&mut mark.confirmed);
        mark.catalog = None;
        for (writer, Confirmed { total, .. }) in confirmed {
            if let Some(total) = total.filter(|total| *total > 0) {
                *mark.missing.entry(writer).or_default() += total;
            }
        }
        drop(mark);
        self.custody.bases.lock().clear();
    }

    /// Takes the ledger's word for where the store stands with this writer.
    pub fn confirm_found(&self, writer: WriterId, found: (BatchSeq, i128)) {
        self.custody.mark.lock().confirm(writer, found.0, Some(found.1));
    }

    /// Fills in the totals that the ledger tells and this node did not know.
    pub fn note_ledger(&self, writer: WriterId, found: (BatchSeq, i128)) {
        let mut mark = self.custody.mark.lock();
        if let Some(confirmed) = mark.confirmed.get_mut(&writer)
            && confirmed.seq == found.0
            && confirmed.total.is_none()
        {
            confirmed.total = Some(found.1);
        }
    }

    /// Writes the mark, so that the next start knows what the store has confirmed.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_mark(&self) -> io::Result<()> {
        let mark = self.custody.mark.lock();
        let written = mark.write(&*self.custody.files, self.journal.reserve());
        self.custody.mark_is_due.store(written.is_err(), Ordering::Release);
        written
    }

    /// [`Batches::write_mark`], if that failed before.
    pub(super) fn write_due_mark(&self) -> io::Result<()> {
        if self.custody.mark_is_due.load(Ordering::Acquire) { self.write_mark() } else { Ok(()) }
    }

    fn write_mark_or_log(&self) {
        if let Err(error) = self.write_mark() {
            tracing::warn!(%error, "What the store has confirmed can't be noted; this is tried again");
        }
    }

    /// Deletes kept segments that are older than `age_max`, or more than `bytes_max` in all. Touches the
    /// disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn expire_kept(&self, age_max: Duration, bytes_max: u64) -> io::Result<()> {
        let _tidying = self.tidying.lock();
        let mut expired = self.custody.kept.lock().take_expired(age_max, bytes_max);
        if expired.is_empty() {
            return Ok(());
        }
        // First, since the segments would have told it otherwise.
        let files = self.journal.files();
        let mut removed = self.write_mark();
        while let (Ok(()), Some(first)) = (&removed, expired.front()) {
            removed = remove_if_there(files, &file_name(first.id, Kind::Committed));
            if removed.is_ok() {
                expired.pop_front();
            }
        }
        self.custody.kept.lock().put_back(expired);
        removed
    }
}
