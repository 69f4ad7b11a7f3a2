//! The one idea: one batch = one journal segment = one store commit.
//!
//! A batch is *open* (takes increments), then *sealed* (immutable for ever, also across restarts),
//! then *committed*: its counts and its ledger entry are in the store, in one transaction, and its
//! segment is discarded. Exactly-once flushing, crash recovery and exact reads all follow from it.

mod pending;
mod recover;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

pub use pending::{Pending, RecentCommits};
pub use recover::{RecoverError, Recovered};

use crate::counts::Counts;
use crate::domain::{Ack, BatchId, BatchSeq, EventName, Hour, HourRange, HourlyCount, TOTAL_MAX, WriterId};
use crate::journal::segment::Segment;
use crate::journal::{self, Health, Journal, Position, SealedSegment};
use crate::names::{Names, Refused};

mod many;

pub use many::RecordedMany;

/// A snapshot is worth its stall only when the segment is this much larger than what it would hold.
const SNAPSHOT_GAIN: u64 = 4;
/// A counter's share of a snapshot, at most: its record, a name of 255 bytes and a count.
const SNAPSHOT_COUNTER_BYTES: u64 = 264;

/// What to wait for, for one recorded increment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    position: Position,
    batch: BatchSeq,
}

/// An increment is counted in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recorded {
    pub ticket: Ticket,
    /// This node had not heard of the event before.
    pub first_seen: bool,
}

/// Nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the journal can't be written")]
    JournalUnavailable,
    #[error("the event's all-time total would pass {TOTAL_MAX}")]
    TotalOverflow,
    #[error("the limit on distinct event names is reached")]
    TooManyEvents,
    #[error("an administrator has switched the event off")]
    Inactive,
    #[error("an administrator has deleted the event")]
    Deleted,
}

impl From<Refused> for RecordError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TotalOverflow => Self::TotalOverflow,
            Refused::TooManyEvents => Self::TooManyEvents,
            Refused::Inactive => Self::Inactive,
            Refused::Deleted => Self::Deleted,
        }
    }
}

impl From<journal::Unavailable> for RecordError {
    fn from(_: journal::Unavailable) -> Self {
        Self::JournalUnavailable
    }
}

/// The increment is counted in memory, but what was asked for did not happen: whether it survives a
/// crash is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("counted in memory, but the journal failed before the increment was safe")]
pub struct AckError;

struct OpenBatch {
    seq: BatchSeq,
    counts: Arc<Counts>,
}

/// A batch that no longer changes and waits for its commit.
pub struct SealedBatch {
    pub id: BatchId,
    counts: Arc<Counts>,
    segment: SealedSegment,
    /// The last byte of the segment, where this process has written it.
    end: Option<Position>,
}

/// Guarded together, so that no batch is in neither or in both.
struct Waiting {
    sealed: VecDeque<Arc<SealedBatch>>,
    commits: RecentCommits,
}

pub struct Batches {
    writer: WriterId,
    journal: Journal,
    names: Arc<Names>,
    /// Held shared while recording, exclusively for the instant of a cut: so the cut is atomic over
    /// all shards of the counts and over the journal.
    open: RwLock<OpenBatch>,
    waiting: Mutex<Waiting>,
    /// Held by who seals: a flush that is cut off leaves its seal behind, running.
    sealing: Mutex<()>,
    committed: watch::Sender<BatchSeq>,
    /// This process's writer and those of the batches it recovered.
    writers: Vec<WriterId>,
    /// Increased after every recorded increment: while it stands still, so do the counts.
    changes: AtomicU64,
    flush_requested: Notify,
}

impl Batches {
    /// Counts `count` more of `event` in `hour`, in memory and in the journal's buffer. Short and
    /// synchronous: a client that disconnects can't leave the two apart.
    ///
    /// # Errors
    /// See [`RecordError`]; nothing was counted then.
    pub fn record(&self, event: &EventName, hour: Hour, count: u64) -> Result<Recorded, RecordError> {
        if !self.journal.takes_records() {
            // A name that can't be counted must not become a known one.
            return Err(RecordError::JournalUnavailable);
        }
        let open = self.open.read();
        let (name, first_seen) = self.names.admit(event, count)?;
        let position = self.journal.append(hour, [(event.as_str(), count)])?;
        open.counts.add(name, hour, count);
        self.changes.fetch_add(1, Ordering::Release);
        Ok(Recorded { ticket: Ticket { position, batch: open.seq }, first_seen })
    }

    /// Waits for what `ack` asks for. [`Ack::Store`] waits without a limit while the store is down.
    ///
    /// # Errors
    /// See [`AckError`].
    pub async fn wait_durable(&self, ticket: Ticket, ack: Ack) -> Result<(), AckError> {
        let Ticket { position, batch } = ticket;
        match ack {
            Ack::Memory => {
                self.journal.write_behind();
                Ok(())
            }
            Ack::Journal => self.journal.wait_written(position).await.map_err(|_| AckError),
            Ack::Disk => self.journal.wait_synced(position).await.map_err(|_| AckError),
            Ack::Store => {
                self.journal.write_behind();
                self.flush_requested.notify_one();
                let mut committed = self.committed.subscribe();
                committed.wait_for(|through| *through >= batch).await.map(|_| ()).map_err(|_| AckError)
            }
        }
    }

    /// For increments that nobody waits for: sees to it that the journal's file has them soon.
    pub fn write_behind(&self) {
        self.journal.write_behind();
    }

    /// Whether the journal's file holds the increment.
    #[must_use]
    pub fn is_written(&self, ticket: Ticket) -> bool {
        self.journal.is_written(ticket.position)
    }

    /// Writes the journal for all who wait, unless somebody else is at it: then `None`.
    pub fn try_write(&self, ticket: Ticket) -> Option<Result<(), AckError>> {
        Some(self.journal.try_write(ticket.position)?.map_err(|_| AckError))
    }

    /// [`Batches::wait_durable`] with [`Ack::Disk`], for who can't keep a future. `registered` is `None`
    /// at the first call, and the task must stay the same.
    pub fn poll_synced(
        &self,
        ticket: Ticket,
        registered: &mut Option<u64>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), AckError>> {
        self.journal.poll_synced(ticket.position, registered, cx).map_err(|_| AckError)
    }

    /// Has the next flush begin at once.
    pub fn request_flush(&self) {
        self.flush_requested.notify_one();
    }

    /// Returns when somebody waits for a commit.
    pub async fn flush_requested(&self) {
        self.flush_requested.notified().await;
    }

    /// A number that changes whenever a count of this process does. Take it *before* reading what it
    /// is to stand for.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whose ledger positions decide about the pending batches, and about all this process commits.
    #[must_use]
    pub fn writers(&self) -> &[WriterId] {
        &self.writers
    }

    /// What has not been seen committed. Take it *before* reading the store.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let open = self.open.read();
        let waiting = self.waiting.lock();
        let mut batches: Vec<_> = waiting.sealed.iter().map(|batch| (batch.id, Arc::clone(&batch.counts))).collect();
        batches.push((BatchId { writer: self.writer, seq: open.seq }, Arc::clone(&open.counts)));
        Pending { batches, names: Arc::clone(&self.names), commits: waiting.commits.clone() }
    }

    /// The oldest batch that waits for its commit, of those `skip` does not name.
    #[must_use]
    pub fn oldest_sealed(&self, skip: &[WriterId]) -> Option<Arc<SealedBatch>> {
        self.waiting.lock().sealed.iter().find(|batch| !skip.contains(&batch.id.writer)).cloned()
    }

    /// Seals the open batch, unless it is empty or a sealed batch of this writer still waits: so
    /// that at most one grows old and the open one gathers the rest. Touches the disk.
    ///
    /// # Errors
    /// When the journal can't be rotated; then the batch stays open.
    pub fn seal(&self) -> io::Result<bool> {
        let _sealing = self.sealing.lock();
        let current = BatchId { writer: self.writer, seq: self.open.read().seq };
        if self.open.read().counts.is_empty() || self.waiting.lock().sealed.iter().any(|b| b.id.writer == self.writer) {
            return Ok(false);
        }
        let next = BatchId { seq: current.seq.next(), ..current };
        let segment = self.journal.prepare(next)?;
        // As much room as this batch took, made before POSTs have to wait.
        let counts = Arc::new(Counts::with_capacity(self.open.read().counts.len()));
        let mut open = self.open.write();
        let (segment, end) = self.journal.rotate(segment).map_err(io::Error::other)?;
        let counts = std::mem::replace(&mut *open, OpenBatch { seq: next.seq, counts }).counts;
        self.waiting.lock().sealed.push_back(Arc::new(SealedBatch { id: current, counts, segment, end: Some(end) }));
        Ok(true)
    }

    /// Makes sure that the batch's segment is on disk: a batch is sent only when a crash can't make
    /// this node forget it.
    ///
    /// # Errors
    /// When the journal fails.
    pub async fn sync(&self, batch: &SealedBatch) -> Result<(), AckError> {
        match batch.end {
            Some(end) => self.journal.wait_synced(end).await.map_err(|_| AckError),
            // Recovery has synced it.
            None => Ok(()),
        }
    }

    /// Forgets a batch whose commit of `rows` the store has confirmed.
    ///
    /// # Errors
    /// When its segment can't be deleted. The batch stays then: a segment that outlives its
    /// successors would look like a hole in the journal to the next start.
    pub fn discard(&self, batch: &SealedBatch, rows: Arc<[HourlyCount]>) -> io::Result<()> {
        self.journal.discard(&batch.segment)?;
        {
            let mut waiting = self.waiting.lock();
            let before = waiting.sealed.len();
            waiting.sealed.retain(|sealed| sealed.id != batch.id);
            // A flush that was cut off may have done it.
            if waiting.sealed.len() < before {
                waiting.commits.push(batch.id, rows);
            }
        }
        if batch.id.writer == self.writer {
            self.committed.send_replace(batch.id.seq);
        }
        Ok(())
    }

    /// A segment grows with every increment although its counters do not: when one has gone far,
    /// replaces it by a snapshot. POSTs wait while it is the open batch's. Not to be called while a
    /// batch is discarded. Says whether anything was replaced.
    ///
    /// # Errors
    /// When the disk refuses the snapshot; the segment stays as it was.
    pub fn shorten_segments(&self) -> io::Result<bool> {
        if self.journal.bytes() <= self.journal.options().segment_bytes_max {
            return Ok(false);
        }
        let mut shortened = false;
        let sealed: Vec<_> = self.waiting.lock().sealed.iter().cloned().collect();
        for batch in sealed {
            if self.is_too_long(batch.segment.bytes(), &batch.counts) {
                let (_, length) = self.snapshot(batch.id, &batch.counts, true)?;
                self.journal.note_length(&batch.segment, length);
                shortened = true;
            }
        }
        if self.is_too_long(self.journal.active_bytes(), &self.open.read().counts) {
            let open = self.open.write();
            self.journal.write_all().map_err(io::Error::other)?;
            let (segment, length) =
                self.snapshot(BatchId { writer: self.writer, seq: open.seq }, &open.counts, false)?;
            self.journal.replace_active(segment, length);
            shortened = true;
        }
        Ok(shortened)
    }

    fn is_too_long(&self, bytes: u64, counts: &Counts) -> bool {
        let snapshot_bytes = counts.len() as u64 * SNAPSHOT_COUNTER_BYTES;
        bytes > self.journal.options().segment_bytes_max && bytes > snapshot_bytes.saturating_mul(SNAPSHOT_GAIN)
    }

    fn snapshot(&self, id: BatchId, counts: &Counts, ended: bool) -> io::Result<(Segment, u64)> {
        let mut rows = self.rows(counts);
        rows.sort_unstable_by_key(|row| row.hour);
        let rows: Vec<_> = rows.iter().map(|row| (row.event.as_str(), row.hour, row.count)).collect();
        Segment::rewrite(self.journal.dir(), id, &rows, ended)
    }

    /// Whether batches of an earlier process wait for their commits.
    #[must_use]
    pub fn has_recovered(&self) -> bool {
        self.waiting.lock().sealed.iter().any(|batch| batch.id.writer != self.writer)
    }

    /// The rows of a sealed batch, sorted by event bytes, then hour.
    #[must_use]
    pub fn sealed_rows(&self, batch: &SealedBatch) -> Vec<HourlyCount> {
        self.rows(&batch.counts)
    }

    fn rows(&self, counts: &Counts) -> Vec<HourlyCount> {
        let counters = counts.within(HourRange::ALL).into_iter();
        let mut rows: Vec<_> =
            counters.map(|(name, hour, count)| HourlyCount { event: self.names.name(name), hour, count }).collect();
        // Every node sorts the same way, by bytes, so no two can deadlock in the store.
        rows.sort_unstable();
        rows
    }

    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    #[must_use]
    pub fn writer(&self) -> WriterId {
        self.writer
    }

    /// # Errors
    /// Why the journal takes no records.
    pub fn journal_healthy(&self) -> Result<(), String> {
        match self.journal.health() {
            Health::Healthy => Ok(()),
            Health::Stalled(reason) | Health::Poisoned(reason) => Err(reason),
        }
    }
}
