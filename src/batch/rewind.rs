//! A store that has gone back, or moved in a way that this node did not make: what is kept becomes
//! batches that wait again, and what is not is put down as missing.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::mark::Confirmed;
use super::{Batches, SealedBatch};
use crate::counts::Counts;
use crate::domain::{BatchId, BatchSeq, WriterId};
use crate::journal::SealedSegment;
use crate::journal::replay;
use crate::journal::segment::{Kind, file_name};

/// A store that went back, brought forward as far as this node can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rewound {
    /// Counts that are going to be delivered again.
    pub delivered_again: i128,
    /// Counts that nobody has any more; `None`: not known how many.
    pub missing: Option<i128>,
}

impl Confirmed {
    /// Whether a ledger that stands at `found` lacks something of this.
    #[must_use]
    pub fn is_lost_at(&self, found: (BatchSeq, i128)) -> bool {
        found.0 < self.seq || (found.0 == self.seq && self.total.is_some_and(|total| found.1 < total))
    }

    /// Whether a ledger that stands at `found` has something that was given up: a newer state of the
    /// database has come back.
    #[must_use]
    pub fn is_less_than(&self, found: (BatchSeq, i128)) -> bool {
        found.0 == self.seq && self.total.is_some_and(|total| found.1 > total)
    }
}

impl Batches {
    /// The store says that it stands at `found` for this writer, which is less than what it had
    /// confirmed: what is kept of the difference waits for its commit again, the rest is missing. `None`:
    /// it is not less, or it has confirmed a batch that was sent since: the next look tells. `known`: what it had
    /// confirmed before it was asked. `rests`: what other writers have delivered of its batches. Touches the disk.
    pub fn rewind(&self, writer: WriterId, known: Confirmed, found: (BatchSeq, i128), rests: i128) -> Option<Rewound> {
        let _tidying = self.tidying.lock();
        let is_of_now = |confirmed: &Confirmed| confirmed.seq == known.seq && confirmed.is_lost_at(found);
        self.confirmed_of(writer).filter(is_of_now)?;
        let lost = self.custody.kept.lock().take(|id| id.writer == writer && id.seq > found.0);
        // The newest first, so that those that wait are contiguous wherever this ends.
        let again: Vec<_> = lost.iter().rev().filter_map(|id| self.take_back(*id)).collect();
        // An error poisons the journal, which is all that can be done about it.
        let _ = self.journal.sync_folder();
        // In one moment for readers: they see the old confirmation, and so that the store is lower, or
        // these batches among those that wait.
        let mut mark = self.custody.mark.lock();
        let confirmed = *mark.confirmed.get(&writer)?;
        self.wait_again(again);
        let delivered_again = self.waiting_within(writer, found.0, confirmed.seq);
        let change = confirmed.total.map(|total| total - found.1 - delivered_again);
        mark.confirm(writer, found.0, Some(found.1));
        let missing = change.map(|change| change - change.clamp(0, rests));
        mark.add_missing(writer, missing.unwrap_or(0));
        self.void_locked(&mark);
        drop(mark);
        self.lower_base(writer, change.unwrap_or(0));
        self.write_mark_or_log();
        Some(Rewound { delivered_again, missing: missing.map(|missing| missing.max(0)) })
    }

    /// The batch that the store's ledger must stand at before `batch`. `None`: an earlier one of its writer
    /// waits, as it may from one moment to the next when the store has gone back. Committed before that one, the
    /// batch would take its place.
    #[must_use]
    pub fn confirmed_before(&self, batch: &SealedBatch) -> Option<BatchSeq> {
        let BatchId { writer, seq } = batch.id;
        // With the lock that a rewind holds while it changes both.
        let mark = self.custody.mark.lock();
        let is_earlier = |waits: &Arc<SealedBatch>| waits.id.writer == writer && waits.id.seq < seq;
        if self.waiting.lock().sealed.iter().any(is_earlier) {
            return None;
        }
        let previous = BatchSeq(seq.0.saturating_sub(1));
        // A copied folder can hold a batch that a copied mark says was confirmed long ago.
        Some(mark.confirmed.get(&writer).map_or(previous, |confirmed| confirmed.seq.min(previous)))
    }

    /// The ledger stands at `found`, which is further than this node knew and before all of the writer's
    /// batches that wait: another node has delivered again what was given up here. Unless a batch was committed
    /// since: then it stands further by now. `rests`: as in [`Batches::rewind`]. `epoch`: as in
    /// [`Batches::discard`].
    pub fn go_on_at(&self, writer: WriterId, found: (BatchSeq, i128), rests: i128, epoch: u64) {
        let mut mark = self.custody.mark.lock();
        let is_overtaken = mark.confirmed.get(&writer).is_some_and(|confirmed| confirmed.seq > found.0);
        if self.epoch() != epoch || is_overtaken {
            return;
        }
        let (_, total) = self.standing(&mark, writer);
        let change = total.map_or(0, |total| total - found.1);
        mark.add_missing(writer, change - change.clamp(0, rests));
        mark.confirm(writer, found.0, Some(found.1));
        self.void_locked(&mark);
        drop(mark);
        self.lower_base(writer, change);
        self.write_mark_or_log();
    }

    /// Another process delivers this writer's batches, and has gone on past all that this one has of them:
    /// from now on it is a stranger's. Says whether that is so.
    pub fn leave_to_others(&self, writer: WriterId, found: BatchSeq) -> bool {
        if writer == self.writer {
            return false;
        }
        let mut mark = self.custody.mark.lock();
        let waits = self.waiting.lock().sealed.iter().any(|batch| batch.id.writer == writer);
        if waits || mark.confirmed.get(&writer).is_none_or(|confirmed| confirmed.seq >= found) {
            return false;
        }
        mark.confirmed.remove(&writer);
        self.void_locked(&mark);
        true
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
            digest: OnceLock::new(),
            segment,
            end: None,
            unwritten: AtomicU64::new(0),
            incomplete: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            stored: AtomicBool::new(false),
        }))
    }

    /// Each behind the earlier ones of its writer: a power cut may have left one waiting.
    fn wait_again(&self, batches: Vec<Arc<SealedBatch>>) {
        let mut waiting = self.waiting.lock();
        for batch in batches {
            let BatchId { writer, seq } = batch.id;
            if waiting.sealed.iter().all(|waits| waits.id != batch.id) {
                let is_earlier = |waits: &Arc<SealedBatch>| waits.id.writer == writer && waits.id.seq < seq;
                let at = waiting.sealed.iter().rposition(is_earlier).map_or(0, |earlier| earlier + 1);
                waiting.sealed.insert(at, batch);
            }
        }
        // Those that wait for their segments to be retired may have been lost, too.
        waiting.sealed.iter().for_each(|batch| batch.stored.store(false, Ordering::Release));
    }

    /// Another database takes the place of the one that confirmed what is confirmed: all of it is missing
    /// there. What is kept of it belongs to the old one: it is set aside, not delivered.
    pub fn forget_confirmed(&self) {
        let _tidying = self.tidying.lock();
        let kept = self.custody.kept.lock().take(|_| true);
        for id in kept {
            let renamed = self.journal.files().rename(&file_name(id, Kind::Committed), &file_name(id, Kind::Differing));
            if let Err(error) = renamed {
                tracing::warn!(%error, "A kept segment can't be renamed");
            }
        }
        let mut mark = self.custody.mark.lock();
        let confirmed = std::mem::take(&mut mark.confirmed);
        mark.catalog = None;
        for (writer, Confirmed { total, .. }) in &confirmed {
            mark.add_missing(*writer, total.unwrap_or(0));
        }
        self.void_locked(&mark);
        drop(mark);
        let own = confirmed.get(&self.writer).and_then(|own| own.total);
        self.lower_base(self.writer, own.unwrap_or(0));
    }
}
