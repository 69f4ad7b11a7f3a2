//! Who has what: which batches the store has confirmed, what is kept of those, and what it lacks.
//!
//! A batch leaves this node's care only when the store is known to hold exactly it, or when what the
//! store lacks of it is put down as missing, to the unit.
//!
//! One equation holds for every writer whose sums are known: what was acknowledged through the last
//! confirmed batch is what the ledger says there plus what is missing. So whatever the ledger says next,
//! what is missing changes by what should be there by then less what is.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::kept::KeptSegments;
use super::mark::{Confirmed, Mark};
use super::{Batches, SealedBatch};
use crate::domain::{BatchId, BatchSeq, Delta, Digest, HourlyCount, WriterId};
use crate::journal::DataDir;
use crate::journal::files::{Files, remove_if_there};
use crate::journal::segment::{Kind, file_name};

/// What is known of the batches that left this node, and of those of its earlier starts.
pub(super) struct Custody {
    files: Arc<dyn Files>,
    /// Locked before [`Batches::waiting`] where both are.
    pub(super) mark: Mutex<Mark>,
    pub(super) kept: Mutex<KeptSegments>,
    /// Held while the mark is written, so that an older one never replaces a newer one.
    writing: Mutex<()>,
    /// The file lacks something that it should say.
    mark_is_due: AtomicBool,
    /// See [`Batches::epoch`]. Changed only while `mark` is locked.
    pub(super) epoch: AtomicU64,
}

/// What the store lacked of a batch in whose place something else was committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rest {
    /// There was no need to compare.
    Unasked,
    /// The store can't tell any more what it holds there.
    Unknown,
    /// Its sum. It was committed by these writers, whose ledgers stand at their first batch with these totals;
    /// now the store has all of it. `earlier`: the sum of the rests of batches before it.
    Delivered { total: i128, writers: Vec<(WriterId, i128)>, earlier: i128 },
}

impl Rest {
    /// The sum of what was delivered.
    #[must_use]
    pub fn total(&self) -> i128 {
        match self {
            Self::Unasked | Self::Unknown => 0,
            Self::Delivered { total, .. } => *total,
        }
    }
}

/// What became of a batch in whose place the ledger stands already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// The store holds exactly it.
    Stored,
    /// The store holds something else there: its segment was set aside. `lacking`: how many of its counts
    /// the store does not have.
    Aside { batches: usize, lacking: i128 },
    /// Nothing: what the store has said is no longer true.
    Waits,
}

impl Custody {
    pub(super) fn new(dir: &DataDir, mark: Mark) -> Self {
        let (kept, writing, epoch) = (Mutex::default(), Mutex::default(), AtomicU64::new(0));
        let mark_is_due = AtomicBool::new(false);
        Self { files: Arc::clone(&dir.root), mark: Mutex::new(mark), kept, writing, mark_is_due, epoch }
    }

    /// Takes note of a segment that was found committed.
    pub(super) fn note_kept(&self, id: BatchId, bytes: u64) {
        self.kept.lock().push(id, bytes);
    }

    /// What the mark says of a writer.
    pub(super) fn known(&self, writer: WriterId) -> Option<Confirmed> {
        self.mark.lock().confirmed.get(&writer).copied()
    }

    /// `id` is the first batch of its writer that waits: all before it have been settled, and its segment
    /// says what the ledger stood at then. A mark that says something else was written later.
    pub(super) fn note_base(&self, id: BatchId, base: i128) {
        let is_known = self.known(id.writer).is_some_and(|known| known.total.is_some());
        if id.seq > BatchSeq::FIRST && !is_known {
            self.confirm_found(id.writer, BatchSeq(id.seq.0 - 1), Some(base));
        }
    }

    /// Gives the version of the catalog that was known before.
    pub(super) fn note_catalog(&self, version: u64) -> Option<u64> {
        self.mark.lock().catalog.replace(version)
    }

    /// Takes note of how far the store has confirmed a writer, where that is news.
    pub(super) fn confirm_found(&self, writer: WriterId, seq: BatchSeq, total: Option<i128>) {
        let mut mark = self.mark.lock();
        let is_news = mark
            .confirmed
            .get(&writer)
            .is_none_or(|known| known.seq < seq || (known.seq == seq && known.total.is_none()));
        if is_news {
            mark.confirm(writer, seq, total);
        }
    }

    /// To be called with `mark` locked. Whatever was read of the store before is void.
    pub(super) fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}

impl Batches {
    /// Changes whenever the store turns out to hold something else than this node believed. What was read
    /// or asked before that must not be used after it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.custody.epoch.load(Ordering::Acquire)
    }

    /// What the store is known to have confirmed, by writer, and the epoch. Take it *before* asking the
    /// store, and before what is pending: then no answer may be lower.
    #[must_use]
    pub fn confirmed(&self) -> (u64, BTreeMap<WriterId, Confirmed>) {
        let mark = self.custody.mark.lock();
        (self.epoch(), mark.confirmed.clone())
    }

    /// What the store is known to have confirmed of one writer.
    #[must_use]
    pub fn confirmed_of(&self, writer: WriterId) -> Option<Confirmed> {
        self.custody.known(writer)
    }

    /// Where the store is believed to stand with a writer: the last batch that is settled, and the
    /// ledger's total there, where that is known.
    pub(super) fn standing(&self, mark: &Mark, writer: WriterId) -> (BatchSeq, Option<i128>) {
        if let Some(confirmed) = mark.confirmed.get(&writer) {
            return (confirmed.seq, confirmed.total);
        }
        let first = self.waiting.lock().sealed.iter().filter(|batch| batch.id.writer == writer).map(|b| b.id.seq).min();
        match first {
            Some(BatchSeq::FIRST) | None => (BatchSeq(0), Some(0)),
            Some(first) => (BatchSeq(first.0 - 1), None),
        }
    }

    /// The sum of the batches of a writer that wait, after `after` and through `through`.
    pub(super) fn waiting_within(&self, writer: WriterId, after: BatchSeq, through: BatchSeq) -> i128 {
        let waiting = self.waiting.lock();
        let within = waiting
            .sealed
            .iter()
            .filter(|batch| batch.id.writer == writer && batch.id.seq > after && batch.id.seq <= through);
        within.map(|batch| batch.total()).sum()
    }

    /// What the ledger is going to say of the writer just before this batch is committed.
    pub(super) fn total_before(&self, id: BatchId) -> Option<i128> {
        let mark = self.custody.mark.lock();
        let (seq, total) = self.standing(&mark, id.writer);
        Some(total? + self.waiting_within(id.writer, seq, BatchSeq(id.seq.0.saturating_sub(1))))
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

    /// Lets go of a batch that was committed just now. `epoch`: as it was before the store was asked;
    /// when it has changed since, the batch goes on waiting.
    ///
    /// # Errors
    /// When its segment keeps its name. The batch stays then: a segment that outlives its successors
    /// would look like a hole in the journal to the next start.
    pub fn discard(&self, batch: &SealedBatch, rows: Arc<[HourlyCount]>, epoch: u64) -> io::Result<()> {
        let _tidying = self.tidying.lock();
        if self.epoch() != epoch {
            return Ok(());
        }
        self.note_stored(batch);
        self.retire(batch, Kind::Committed)?;
        {
            let mut mark = self.custody.mark.lock();
            let (seq, total) = self.standing(&mark, batch.id.writer);
            if batch.id.seq > seq {
                mark.confirm(batch.id.writer, batch.id.seq, total.map(|total| total + batch.total()));
            }
            self.leave(batch, Some(rows));
        }
        self.tell_committed(batch.id);
        Ok(())
    }

    /// Whether the ledger, which stands at `found` with this digest of its last batch, holds exactly what
    /// waits through there.
    #[must_use]
    pub fn is_exactly(&self, batch: &SealedBatch, found: (BatchSeq, i128), digest: Option<Digest>) -> bool {
        let through = self.sealed_through(batch.id.writer, found.0);
        let last = through.iter().find(|last| last.id.seq == found.0);
        let is_same = last.is_some_and(|last| digest.is_none_or(|found| found == self.digest(last)));
        let mark = self.custody.mark.lock();
        let (seq, total) = self.standing(&mark, batch.id.writer);
        let unsettled = self.waiting_within(batch.id.writer, seq, found.0);
        is_same && total.is_none_or(|total| total + unsettled <= found.1)
    }

    /// The ledger stands at `found`, at or past `batch`, with this digest of its last one. Lets go of the
    /// batch, and of those behind it through there, if the store holds all of them, with the `rest` that was
    /// delivered; else their segments are set aside. `epoch`: as in [`Batches::discard`].
    ///
    /// All versions of a batch are prefixes of one another, and a process that is past a batch has settled
    /// it. So sums tell what the store lacks.
    ///
    /// # Errors
    /// When a segment keeps its name; its batch goes on waiting.
    pub fn settle(
        &self,
        batch: &SealedBatch,
        found: (BatchSeq, i128),
        digest: Option<Digest>,
        rest: &Rest,
        epoch: u64,
    ) -> io::Result<Settled> {
        let writer = batch.id.writer;
        let _tidying = self.tidying.lock();
        if self.epoch() != epoch {
            return Ok(Settled::Waits);
        }
        let mut through = self.sealed_through(writer, found.0);
        through.sort_unstable_by_key(|batch| batch.id.seq);
        let last = through.last().filter(|last| last.id.seq == found.0);
        let is_same = last.is_some_and(|last| digest.is_none_or(|found| found == self.digest(last)));
        let mut mark = self.custody.mark.lock();
        let (seq, total) = self.standing(&mark, writer);
        let unsettled = self.waiting_within(writer, seq, found.0);
        let (is_whole, delivered) = (is_same || matches!(rest, Rest::Delivered { .. }), rest.total());
        let mut lacking = match (last, total) {
            (Some(_), Some(total)) => total + unsettled - found.1 - delivered,
            _ if is_whole => 0,
            // Another process has gone on past it, so it held the whole of it.
            (None, _) if writer != self.writer => 0,
            _ => unsettled,
        };
        let mut elsewhere = delivered;
        if let Rest::Delivered { earlier, .. } = rest {
            // A copy of the folder may not know that rests of earlier batches were delivered, too.
            let known = lacking.clamp(0, *earlier);
            (lacking, elsewhere) = (lacking - known, elsewhere + known);
        }
        if is_whole && lacking <= 0 {
            mark.add_missing(writer, lacking);
            if let Rest::Delivered { writers, .. } = rest {
                writers.iter().for_each(|(writer, total)| mark.confirm(*writer, BatchSeq::FIRST, Some(*total)));
            }
            drop(mark);
            for batch in &through {
                self.note_stored(batch);
                self.retire(batch, Kind::Committed)?;
            }
            let mut mark = self.custody.mark.lock();
            mark.confirm(writer, found.0, Some(found.1));
            for batch in &through {
                self.leave(batch, Some(self.sealed_rows(batch).into()));
            }
            if lacking < 0 || elsewhere > 0 || !is_same {
                // It holds something else than these batches, which kept rows do not have.
                self.void_locked(&mark);
            }
            drop(mark);
            self.lower_base(writer, lacking + elsewhere);
            through.iter().for_each(|batch| self.tell_committed(batch.id));
            return Ok(Settled::Stored);
        }
        // A version of the batch that is longer than ours gives back nothing that was missing.
        let lacking = lacking.max(0);
        mark.add_missing(writer, lacking);
        mark.confirm(writer, found.0, Some(found.1));
        drop(mark);
        self.lower_base(writer, lacking);
        // First: a batch that still waits at the next start is known to be settled then.
        self.write_mark_or_log();
        for batch in &through {
            self.retire(batch, Kind::Differing)?;
        }
        let mark = self.custody.mark.lock();
        for batch in &through {
            if writer == self.writer {
                self.waiting.lock().set_aside.insert(batch.id.seq);
            }
            self.leave(batch, None);
        }
        self.void_locked(&mark);
        drop(mark);
        through.iter().for_each(|batch| self.tell_committed(batch.id));
        Ok(Settled::Aside { batches: through.len(), lacking })
    }

    /// Stands for the batch's exact rows.
    #[must_use]
    pub fn digest(&self, batch: &SealedBatch) -> Digest {
        *batch.digest.get_or_init(|| Digest::of(&self.sealed_rows(batch)))
    }

    /// Whether the ledger stands within what this node has pending, and surely by somebody else: at a
    /// batch that is still open, or at one that waits and has another digest.
    #[must_use]
    pub fn is_preempted(&self, writer: WriterId, seq: BatchSeq, digest: Option<Digest>) -> bool {
        let open = self.open.read().seq;
        if writer == self.writer && seq >= open {
            return true;
        }
        let at = self.waiting.lock().sealed.iter().find(|batch| batch.id == BatchId { writer, seq }).cloned();
        at.zip(digest).is_some_and(|(batch, found)| self.digest(&batch) != found)
    }

    /// The file takes the name of another kind. A committed one is kept for a while.
    fn retire(&self, batch: &SealedBatch, kind: Kind) -> io::Result<()> {
        let bytes = batch.segment.bytes();
        self.journal.retire(&batch.segment, kind)?;
        batch.retired.store(true, Ordering::Release);
        if kind == Kind::Committed {
            self.custody.kept.lock().push(batch.id, bytes);
        }
        Ok(())
    }

    /// Its segment may keep its name for a while; nobody has to wait for that.
    fn note_stored(&self, batch: &SealedBatch) {
        batch.stored.store(true, Ordering::Release);
        self.tell_committed(batch.id);
    }

    /// The batch waits no longer.
    fn leave(&self, batch: &SealedBatch, rows: Option<Arc<[HourlyCount]>>) {
        let mut waiting = self.waiting.lock();
        let before = waiting.sealed.len();
        waiting.sealed.retain(|sealed| sealed.id != batch.id);
        // A flush that was cut off may have done it.
        if waiting.sealed.len() < before
            && let Some(rows) = rows
        {
            let (id, after) = (batch.id, BatchSeq(batch.id.seq.0.saturating_sub(1)));
            let delta = Delta { id, partition: 0, after, catalog: batch.catalog, total: batch.total(), rows };
            let commits = Arc::make_mut(&mut waiting.commits);
            self.partitions.split_delta(delta).into_iter().for_each(|part| commits.push(part));
        }
    }

    fn tell_committed(&self, id: BatchId) {
        if id.writer == self.writer {
            self.commits.release(id.seq);
        }
    }

    /// Whatever was read of the store so far can't be used any more.
    pub fn void(&self) {
        let mark = self.custody.mark.lock();
        self.void_locked(&mark);
    }

    /// `_locked`: that no reader gets a new epoch with old batches.
    pub(super) fn void_locked(&self, _locked: &Mark) {
        self.waiting.lock().commits = Arc::default();
        self.custody.begin_epoch();
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// What is missing in the store is in none of its sums: from now on, neither in ours.
    pub(super) fn lower_base(&self, writer: WriterId, missing: i128) {
        if writer == self.writer && missing != 0 {
            let mut base = self.sealing.lock();
            *base -= missing;
            self.journal.append_base(*base);
        }
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
        let _writing = self.custody.writing.lock();
        // Readers need the mark, so it is not locked while the disk takes its time.
        let written = self.mark().write(&*self.custody.files, self.journal.reserve());
        self.custody.mark_is_due.store(written.is_err(), Ordering::Release);
        written
    }

    /// [`Batches::write_mark`], if that failed before.
    pub(super) fn write_due_mark(&self) -> io::Result<()> {
        if self.custody.mark_is_due.load(Ordering::Acquire) { self.write_mark() } else { Ok(()) }
    }

    pub(super) fn write_mark_or_log(&self) {
        if let Err(error) = self.write_mark() {
            tracing::warn!(%error, "What the store has confirmed can't be noted; this is tried again");
        }
    }

    /// Deletes kept segments that are older than `age_max`, or more than `bytes_max` in all; of too many, the
    /// files of the oldest may be used anew. Touches the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn expire_kept(&self, age_max: Duration, bytes_max: u64) -> io::Result<()> {
        let _tidying = self.tidying.lock();
        let files_max = self.journal.options().keep_committed_files_max;
        let (mut expired, is_crowded) = {
            let mut kept = self.custody.kept.lock();
            (kept.take_expired(age_max, bytes_max), kept.is_crowded(files_max))
        };
        if expired.is_empty() && !is_crowded {
            return Ok(());
        }
        // First, since the segments would have told it otherwise.
        let files = self.journal.files();
        let mut removed = self.write_mark();
        if removed.is_ok() {
            self.custody.kept.lock().spare_crowd(files_max);
        }
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
