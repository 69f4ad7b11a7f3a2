//! What is pending, for readers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::counts::Counts;
use crate::domain::{BatchId, BatchSeq, Delta, EventName, Hour, HourRange, HourlyCount, Partitions, WriterId};
use crate::names::{NameId, Names};

/// For older ones the store is asked.
const RECENT_COMMITS_MAX: usize = 1_000;
/// About 10 MB.
const RECENT_ROWS_MAX: usize = 200_000;

/// What is not known to be in the store, with the identities that tell whether it is. Copies of
/// references: increments that happen later may still show in the open batch.
pub struct Pending {
    pub(super) batches: Vec<PendingBatch>,
    pub(super) names: Arc<Names>,
    pub(super) partitions: Partitions,
    /// What left the pending batches lately, for who knows older rows of the store.
    pub commits: Arc<RecentCommits>,
}

/// One batch that is not known to be in the store.
pub struct PendingBatch {
    pub id: BatchId,
    /// The version of the catalog that was known before the first of its counts.
    pub catalog: u64,
    pub(super) counts: Arc<Counts>,
    /// What a purge has overtaken: its counts belong to an event that is gone.
    pub(super) overtaken: BTreeSet<NameId>,
    /// The partitions of the store that have their part of it already, where others lack theirs.
    pub(super) landed: Vec<u16>,
}

/// The last batches of this process that were committed and discarded, so that rows which were read
/// before can be brought forward without asking the store again.
#[derive(Clone, Default)]
pub struct RecentCommits {
    /// The last batch of each writer that was ever discarded.
    pub through: BTreeMap<WriterId, BatchSeq>,
    pub batches: VecDeque<Arc<Delta>>,
    rows: usize,
}

impl RecentCommits {
    pub(super) fn push(&mut self, delta: Delta) {
        self.through.insert(delta.id.writer, delta.id.seq);
        self.rows += delta.rows.len();
        self.batches.push_back(Arc::new(delta));
        while self.batches.len() > RECENT_COMMITS_MAX || self.rows > RECENT_ROWS_MAX {
            let Some(first) = self.batches.pop_front() else { break };
            self.rows -= first.rows.len();
        }
    }
}

impl Pending {
    /// Drops what `landed` says is in the store, of each batch and for each partition.
    pub fn drop_landed(&mut self, landed: impl Fn(BatchId, u16) -> bool) {
        let partitions = self.partitions;
        self.batches.retain_mut(|batch| {
            batch.landed = partitions.all().filter(|partition| landed(batch.id, *partition)).collect();
            batch.landed.len() < usize::from(partitions.count())
        });
    }

    /// Whether the counts of a name in a batch are still to be added to those of the store.
    fn shows(&self, batch: &PendingBatch, name: NameId) -> bool {
        let landed = || batch.landed.contains(&self.partitions.of(&self.names.name(name)));
        !batch.overtaken.contains(&name) && (batch.landed.is_empty() || !landed())
    }

    /// From now on nothing shows of names that were purged after their batch was opened. `purges` gives
    /// those that a version of the catalog does not know of.
    pub fn hide_overtaken<'a, I: Iterator<Item = &'a EventName>>(&mut self, purges: impl Fn(u64) -> I) {
        for batch in &mut self.batches {
            batch.overtaken = purges(batch.catalog).filter_map(|event| self.names.find(event)).collect();
        }
    }

    /// Adds what `event` has pending to the counts of the hours from `first` on.
    pub fn add_to(&self, hours: &mut [u64], event: &EventName, first: Hour) {
        let Some(name) = self.names.find(event) else { return };
        for (hour, count) in (0..).map(|hour| first.plus(hour)).zip(hours) {
            let batches = self.batches.iter().filter(|batch| self.shows(batch, name));
            *count += batches.map(|batch| batch.counts.get(name, hour)).sum::<u64>();
        }
    }

    /// Whether `event` has anything pending.
    #[must_use]
    pub fn counts(&self, event: &EventName) -> bool {
        self.still_counts(self, event)
    }

    /// Whether `event` has anything in a batch that was pending in `earlier` already.
    #[must_use]
    pub fn still_counts(&self, earlier: &Self, event: &EventName) -> bool {
        let Some(name) = self.names.find(event) else { return false };
        let was_pending = |id: BatchId| earlier.batches.iter().any(|batch| batch.id == id);
        let mut batches = self.batches.iter().filter(|batch| was_pending(batch.id));
        batches.any(|batch| batch.counts.contains(name) && self.shows(batch, name))
    }

    /// The batches that have anything to commit.
    pub fn waiting(&self) -> impl Iterator<Item = BatchId> {
        self.batches.iter().filter(|batch| !batch.counts.is_empty()).map(|batch| batch.id)
    }

    /// How many counters are pending.
    #[must_use]
    pub fn counters(&self) -> usize {
        self.batches.iter().map(|batch| batch.counts.len()).sum()
    }

    /// All that is pending.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.batches.iter().map(|batch| batch.counts.total()).fold(0, u64::saturating_add)
    }

    /// Sums of all pending counters within `range`, ordered by event, then hour.
    #[must_use]
    pub fn within(&self, range: HourRange) -> Vec<HourlyCount> {
        let mut rows: Vec<HourlyCount> = Vec::new();
        for batch in &self.batches {
            let counters = batch.counts.within(range).into_iter();
            let counters = counters.filter(|(name, ..)| self.shows(batch, *name));
            rows.extend(counters.map(|(name, hour, count)| HourlyCount { event: self.names.name(name), hour, count }));
        }
        rows.sort_unstable();
        rows.dedup_by(|later, first| {
            let same = (&later.event, later.hour) == (&first.event, first.hour);
            if same {
                first.count += later.count;
            }
            same
        });
        rows
    }
}
