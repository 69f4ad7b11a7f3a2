//! The one idea: one batch = one journal segment = one store commit.
//!
//! A batch is *open* (takes increments), then *sealed* (immutable for ever, also across restarts),
//! then *committed*: its counts and its ledger entry are in the store, in one transaction. Its segment
//! is kept for a while, should the store lose the commit, and then deleted. Exactly-once flushing,
//! crash recovery and exact reads all follow from it.

mod ahead;
mod commits;
mod custody;
mod inventory;
mod kept;
mod mark;
mod pending;
mod recover;
mod renew;
mod rewind;
mod tidy;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use parking_lot::{Mutex, RwLock};

pub use custody::{Rest, Settled};
pub use inventory::Inventory;
pub use mark::{Confirmed, Mark};
pub use pending::{Pending, PendingBatch, RecentCommits};
pub use recover::{RecoverError, Recovered};
pub use rewind::Rewound;

use crate::counts::Counts;
use crate::domain::{
    Ack, BatchId, BatchSeq, Digest, EventName, Hour, HourRange, HourlyCount, Partitions, TOTAL_MAX, WriterId,
};
use crate::journal::reserve::is_full;
use crate::journal::{self, Health, Journal, Position, Rotated, SealedSegment};
use crate::names::{Names, Refused};
use ahead::Ahead;
use commits::Commits;

mod many;

pub use many::RecordedMany;

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
    catalog: u64,
}

/// A batch that no longer changes and waits for its commit.
pub struct SealedBatch {
    pub id: BatchId,
    /// The version of the catalog that was known before the first of its counts.
    pub catalog: u64,
    counts: Arc<Counts>,
    total: OnceLock<i128>,
    digest: OnceLock<Digest>,
    segment: SealedSegment,
    /// The last byte of the segment, where this process has written it and the file has it.
    end: Option<Position>,
    /// Whether the segment is not known to hold all of it, on disk, since the journal could not be written.
    incomplete: AtomicBool,
    /// How many of its counts the segment lacks.
    unwritten: AtomicU64,
    /// Whether its segment has the name of another kind: then it is not to be written any more.
    retired: AtomicBool,
    /// Whether the store is known to hold exactly this batch, although its segment could not be retired.
    stored: AtomicBool,
}

impl SealedBatch {
    /// Stands for `rows`, which must be the batch's: [`Batches::sealed_rows`].
    #[must_use]
    pub fn digest_of(&self, rows: &[HourlyCount]) -> Digest {
        *self.digest.get_or_init(|| Digest::of(rows))
    }

    /// The sum of its counts.
    #[must_use]
    pub fn total(&self) -> i128 {
        *self.total.get_or_init(|| self.counts.sum())
    }
}

/// Guarded together, so that no batch is in neither or in both.
struct Waiting {
    sealed: VecDeque<Arc<SealedBatch>>,
    commits: Arc<RecentCommits>,
    /// Batches of this process's writer that the store has not taken as they are.
    set_aside: BTreeSet<BatchSeq>,
}

pub struct Batches {
    writer: WriterId,
    journal: Journal,
    names: Arc<Names>,
    /// Of the store.
    partitions: Partitions,
    /// Held shared while recording, exclusively for the instant of a cut: so the cut is atomic over
    /// all shards of the counts and over the journal.
    open: RwLock<OpenBatch>,
    waiting: Mutex<Waiting>,
    /// Held while sealing, since a flush that is cut off leaves its seal behind, running. The sum of all
    /// batches before the open one.
    sealing: Mutex<i128>,
    /// Locked after `sealing`.
    ahead: Mutex<Ahead>,
    commits: Commits,
    custody: custody::Custody,
    /// The version of the catalog that this node knows, [`renew::UNKNOWN`] before it has met a store.
    catalog: AtomicU64,
    /// Held while segments are rewritten, retired or deleted.
    tidying: Mutex<()>,
    /// Increased after every recorded increment: while it stands still, so do the counts.
    changes: AtomicU64,
}

impl Batches {
    /// For a store that is cut into so many.
    #[must_use]
    pub fn with_partitions(self, partitions: Partitions) -> Self {
        Self { partitions, ..self }
    }

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
        let (name, first_seen) = self.names.admit_into(event, count, open.catalog)?;
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
            Ack::Store => self.wait_committed(batch, batch).await,
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

    /// Waits until every batch from that of `first` through that of `last` is in the store, without a limit while
    /// the store is down.
    ///
    /// # Errors
    /// When the store has not taken one of them as it is.
    pub async fn wait_stored(&self, first: Ticket, last: Ticket) -> Result<(), AckError> {
        self.wait_committed(first.batch, last.batch).await
    }

    async fn wait_committed(&self, first: BatchSeq, last: BatchSeq) -> Result<(), AckError> {
        self.journal.write_behind();
        self.commits.wait(last).await;
        let is_aside = self.waiting.lock().set_aside.range(first..=last).next().is_some();
        if is_aside { Err(AckError) } else { Ok(()) }
    }

    /// Has the next flush begin at once.
    pub fn request_flush(&self) {
        self.commits.request();
    }

    /// Returns when somebody waits for a commit.
    pub async fn flush_requested(&self) {
        self.commits.requested().await;
    }

    /// Returns when as many wait for a commit as the last one has released: mostly those that come again.
    pub async fn group_waits(&self) {
        self.commits.group_waits().await;
    }

    /// A number that changes whenever a count of this process does. Take it *before* reading what it
    /// is to stand for.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// What has not been seen committed. Take it *before* reading the store.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let open = self.open.read();
        let waiting = self.waiting.lock();
        let sealed = waiting.sealed.iter().map(|batch| PendingBatch {
            id: batch.id,
            catalog: batch.catalog,
            counts: Arc::clone(&batch.counts),
            overtaken: BTreeSet::new(),
            landed: Vec::new(),
        });
        let mut batches: Vec<_> = sealed.collect();
        let id = BatchId { writer: self.writer, seq: open.seq };
        let (counts, overtaken, landed) = (Arc::clone(&open.counts), BTreeSet::new(), Vec::new());
        batches.push(PendingBatch { id, catalog: open.catalog, counts, overtaken, landed });
        let (names, partitions, commits) = (Arc::clone(&self.names), self.partitions, Arc::clone(&waiting.commits));
        Pending { batches, names, partitions, commits }
    }

    /// What this process has committed lately.
    #[must_use]
    pub fn recent_commits(&self) -> Arc<RecentCommits> {
        Arc::clone(&self.waiting.lock().commits)
    }

    /// Whether nothing waits to be committed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.open.read().counts.is_empty() && self.waiting.lock().sealed.is_empty()
    }

    /// The version of the catalog that the open batch was opened with; [`u64::MAX`]: none was known.
    #[must_use]
    pub fn open_catalog(&self) -> u64 {
        self.open.read().catalog
    }

    /// The oldest batch that waits for its commit, of those `skip` does not name.
    #[must_use]
    pub fn oldest_sealed(&self, skip: &[WriterId]) -> Option<Arc<SealedBatch>> {
        self.waiting.lock().sealed.iter().find(|batch| !skip.contains(&batch.id.writer)).cloned()
    }

    /// Seals the open batch, unless it is empty or a sealed batch of this writer still waits: so
    /// that at most one grows old and the open one gathers the rest. Touches the disk.
    ///
    /// A journal that can't be written takes no records, but what is counted must reach the store all the
    /// more, also when nobody has counted since the disk became full: then the batch is sealed as it is in
    /// memory, and counting goes on when the disk gives a new segment.
    ///
    /// # Errors
    /// When the disk refuses a new segment, and not for lack of room, while the old one can still be
    /// written; then the batch stays open.
    pub fn seal(&self) -> io::Result<bool> {
        self.seal_if(|| !self.waiting.lock().sealed.iter().any(|batch| batch.id.writer == self.writer))
    }

    /// [`Batches::seal`], also when a sealed batch of this writer still waits.
    ///
    /// # Errors
    /// As [`Batches::seal`].
    pub fn seal_behind(&self) -> io::Result<bool> {
        self.seal_if(|| true)
    }

    fn seal_if(&self, is_due: impl Fn() -> bool) -> io::Result<bool> {
        let mut base = self.sealing.lock();
        let current = BatchId { writer: self.writer, seq: self.open.read().seq };
        if self.open.read().counts.is_empty() || !is_due() {
            return Ok(false);
        }
        let next = current.seq.next();
        let segment = match self.journal.health() {
            Health::Poisoned(_) => None,
            _ => match self.next_segment() {
                Ok(segment) => Some(segment),
                // A full disk takes nothing more into the old one, either, and to deliver it makes room.
                Err(error) if self.journal.health() == Health::Healthy && !is_full(&error) => return Err(error),
                Err(_) => None,
            },
        };
        let (segment, catalog) = segment.map_or_else(
            || (None, self.catalog.load(Ordering::Acquire)),
            |(segment, catalog)| (Some(segment), catalog),
        );
        // As much room as this batch took, made before POSTs have to wait.
        let counts = Arc::new(Counts::with_capacity(self.open.read().counts.len()));
        let mut open = self.open.write();
        let Rotated { segment, end, unwritten } = self.journal.rotate(segment);
        let OpenBatch { counts, catalog, .. } = std::mem::replace(&mut *open, OpenBatch { seq: next, counts, catalog });
        let sealed = Arc::new(SealedBatch {
            id: current,
            catalog,
            counts,
            total: OnceLock::new(),
            digest: OnceLock::new(),
            segment,
            end,
            unwritten: AtomicU64::new(unwritten),
            incomplete: AtomicBool::new(end.is_none()),
            retired: AtomicBool::new(false),
            stored: AtomicBool::new(false),
        });
        self.waiting.lock().sealed.push_back(Arc::clone(&sealed));
        drop(open);
        *base += sealed.total();
        self.journal.append_base(*base);
        Ok(true)
    }

    /// Makes sure that the batch's segment is on disk, so that a crash can't make this node forget what it
    /// sends. While the journal can't be written, a batch is sent all the same: it must be the store that
    /// keeps it then.
    ///
    /// # Errors
    /// When the journal fails at it.
    pub async fn sync(&self, batch: &SealedBatch) -> Result<(), AckError> {
        match batch.end {
            Some(end) if self.journal.is_working() => match self.journal.wait_synced(end).await {
                Err(_) if self.journal.is_working() => Err(AckError),
                _ => Ok(()),
            },
            // Recovery has synced it, or nothing can.
            _ => Ok(()),
        }
    }

    fn is_poisoned(&self) -> bool {
        matches!(self.journal.health(), Health::Poisoned(_))
    }

    /// The sealed batches of a writer through `seq`, in order.
    #[must_use]
    pub fn sealed_through(&self, writer: WriterId, seq: BatchSeq) -> Vec<Arc<SealedBatch>> {
        let waiting = self.waiting.lock();
        let sealed = waiting.sealed.iter().filter(|batch| batch.id.writer == writer && batch.id.seq <= seq);
        sealed.cloned().collect()
    }

    /// Whether sealed batches wait for their commits.
    #[must_use]
    pub fn has_sealed(&self) -> bool {
        !self.waiting.lock().sealed.is_empty()
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
