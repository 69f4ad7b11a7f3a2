//! Whether the store still has what it has confirmed.
//!
//! A database can go back: a restored backup, a failover to a standby that lagged behind, a server that
//! said "committed" too early. Every ledger position that is read anywhere is compared with what was
//! confirmed before the read began. When it is lower, everything that was kept of the store is void, what
//! this node still has is delivered again, and what nobody has is said in numbers until an administrator
//! has confirmed it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::batch::{Batches, Confirmed, Rest, Rewound, SealedBatch, Settled};
use crate::blocking::run_blocking;
use crate::domain::{BatchId, BatchSeq, Digest, HourlyCount, WriterId};
use crate::store::{Commit, CommitRequest, LedgerEntry, LedgerPosition, Store, StoreError, StoreHealth};

/// How many batches of a writer are looked at for rests. Copies of a folder differ in the last few.
const RESTS_MAX: u64 = 1_000;

/// What no position may be lower than that is read after this was taken.
pub struct Baseline {
    epoch: u64,
    version: u64,
    confirmed: BTreeMap<WriterId, Confirmed>,
}

impl Baseline {
    /// As in [`Reconciler::epoch`].
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

pub struct Reconciler {
    batches: Arc<Batches>,
    store: Arc<dyn Store>,
    health: Arc<StoreHealth>,
    /// The highest version of the store that was read, and the epoch in which that was.
    version: parking_lot::Mutex<(u64, u64)>,
    /// One at a time.
    rewinding: Mutex<()>,
}

impl Reconciler {
    #[must_use]
    pub fn new(batches: Arc<Batches>, store: Arc<dyn Store>, health: Arc<StoreHealth>) -> Self {
        health.note_missing(batches.mark().missing());
        Self { batches, store, health, version: parking_lot::Mutex::default(), rewinding: Mutex::new(()) }
    }

    /// Changes when the store has gone back: what is kept from an earlier one is void.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.batches.epoch()
    }

    /// Take it *before* what is pending, and before asking the store.
    #[must_use]
    pub fn baseline(&self) -> Baseline {
        let (epoch, confirmed) = self.batches.confirmed();
        let (of_epoch, version) = *self.version.lock();
        Baseline { epoch, version: if of_epoch == epoch { version } else { 0 }, confirmed }
    }

    fn note_version(&self, epoch: u64, version: u64) {
        let mut highest = self.version.lock();
        if highest.0 < epoch {
            *highest = (epoch, version);
        } else if highest.0 == epoch {
            highest.1 = highest.1.max(version);
        }
    }

    /// Whether `position` stands for the store as it is. `false`: the store went back, or did so since the
    /// baseline was taken; whatever was read is void, and what this node can deliver again is pending.
    pub async fn check(&self, baseline: &Baseline, position: &LedgerPosition) -> bool {
        let lower = baseline.confirmed.iter().filter_map(|(writer, confirmed)| {
            let found = position.applied.get(writer).map_or((BatchSeq(0), 0), |entry| (entry.last_seq, entry.total));
            confirmed.is_lost_at(found).then_some((*writer, *confirmed, found))
        });
        let lower: Vec<_> = lower.collect();
        if lower.is_empty() && position.version >= baseline.version {
            for (writer, entry) in &position.applied {
                let found = (entry.last_seq, entry.total);
                self.batches.note_ledger(*writer, found);
                if self.batches.is_preempted(*writer, entry.last_seq, entry.digest)
                    && !self.settle_preempted(*writer, entry, baseline.epoch).await
                {
                    return false;
                }
                if self.batches.confirmed_of(*writer).is_some_and(|confirmed| confirmed.is_less_than(found))
                    && self.go_on_at(*writer, found, baseline.epoch).await.is_err()
                {
                    return false;
                }
                if self.batches.leave_to_others(*writer, entry.last_seq) {
                    tracing::info!(batch.writer = %writer, "Another node goes on with a writer of this data folder");
                }
            }
            let is_current = self.epoch() == baseline.epoch;
            if is_current {
                self.note_version(baseline.epoch, position.version);
            }
            return is_current;
        }
        let _rewinding = self.rewinding.lock().await;
        if self.epoch() != baseline.epoch {
            return false;
        }
        for (writer, known, found) in &lower {
            self.rewind(*writer, *known, *found).await;
        }
        if lower.is_empty() {
            tracing::error!("The database has lost commits of other nodes that it had confirmed");
            self.batches.void();
        }
        self.health.note_missing(self.batches.mark().missing());
        self.batches.request_flush();
        false
    }

    /// The ledger stands at `found`, at or past `batch`, with this digest. What the store lacks of the
    /// batch is delivered, as far as that can be told. `epoch`: that from before it was asked.
    ///
    /// # Errors
    /// When the store can't be asked, or the disk refuses to retire a segment.
    pub async fn settle(
        &self,
        batch: &Arc<SealedBatch>,
        found: (BatchSeq, i128),
        digest: Option<Digest>,
        epoch: u64,
    ) -> Result<(), SettleError> {
        if found.0 > batch.id.seq && batch.id.writer == self.batches.writer() {
            // The sums can be compared once ours reach as far as the ledger's.
            let batches = Arc::clone(&self.batches);
            run_blocking(move || batches.seal_behind()).await?;
        }
        let rest = if self.batches.is_exactly(batch, found, digest) {
            Rest::Unasked
        } else {
            self.deliver_rest(batch.id.writer, found.0, digest).await?
        };
        let (batches, sealed) = (Arc::clone(&self.batches), Arc::clone(batch));
        let told = rest.clone();
        match run_blocking(move || batches.settle(&sealed, found, digest, &rest, epoch)).await? {
            Settled::Stored => tracing::info!(
                batch.writer = %batch.id.writer,
                batch.seq = batch.id.seq.0,
                delivered = told.total(),
                "A batch was in the store already"
            ),
            Settled::Aside { batches, lacking } => {
                tracing::error!(
                    batch.writer = %batch.id.writer,
                    batch.seq = batch.id.seq.0,
                    ledger.last_seq = found.0.0,
                    batches,
                    missing = %lacking,
                    "The store holds another batch under this one's identity: a copy of this data folder was delivered by another node; the segment stays in the journal's folder"
                );
                self.health.note_missing(self.batches.mark().missing());
            }
            Settled::Waits => {}
        }
        Ok(())
    }

    /// Compares the batches of a writer through `through` with what the store's log has in their place, and
    /// commits what that lacks under writers of their own, whose identities follow from the batches': however
    /// often it is delivered, and by whichever copy of the folder, it is counted once.
    async fn deliver_rest(
        &self,
        writer: WriterId,
        through: BatchSeq,
        digest: Option<Digest>,
    ) -> Result<Rest, StoreError> {
        let (mut total, mut writers) = (0, Vec::new());
        for batch in self.batches.sealed_through(writer, through) {
            if batch.id.seq == through && digest == Some(self.batches.digest(&batch)) {
                continue;
            }
            let (mut id, mut rows) = (batch.id, self.batches.sealed_rows(&batch));
            loop {
                let Some(stored) = self.store.delta(id).await? else { return Ok(Rest::Unknown) };
                rows = lacking(&rows, &stored.rows);
                if id == batch.id {
                    total += sum(&rows);
                }
                if rows.is_empty() {
                    break;
                }
                id = BatchId { writer: id.of_rest(), seq: BatchSeq::FIRST };
                let digest = Digest::of(&rows);
                let rest: Arc<[HourlyCount]> = rows.clone().into();
                let request =
                    CommitRequest { id, after: BatchSeq(0), digest, catalog: batch.catalog, rows: Arc::clone(&rest) };
                match self.store.commit(request).await? {
                    Commit::Applied => writers.push((id.writer, sum(&rest))),
                    Commit::Stands(Some(entry)) => {
                        writers.push((id.writer, entry.total));
                        if entry.digest != Some(digest) {
                            // Another copy has delivered more or less of it.
                            continue;
                        }
                    }
                    Commit::Stands(None) => return Ok(Rest::Unknown),
                }
                break;
            }
        }
        let first = self.batches.sealed_through(writer, through).first().map_or(through.next(), |first| first.id.seq);
        let earlier = self.rests_of(writer, BatchSeq(first.0.saturating_sub(1))).await?;
        Ok(Rest::Delivered { total, writers, earlier })
    }

    /// The sum of the rests of a writer's last batches through `through` that are in the store.
    async fn rests_of(&self, writer: WriterId, through: BatchSeq) -> Result<i128, StoreError> {
        let seqs = through.0.saturating_sub(RESTS_MAX) + 1..=through.0;
        let mut writers: Vec<_> = seqs.map(|seq| BatchId { writer, seq: BatchSeq(seq) }.of_rest()).collect();
        let mut sum = 0;
        while !writers.is_empty() {
            let position = self.store.position(writers.clone()).await?;
            writers.retain(|writer| position.applied.contains_key(writer));
            sum += writers.iter().map(|writer| position.applied[writer].total).sum::<i128>();
            // A rest may have had a rest itself.
            let of_rest = |writer: WriterId| BatchId { writer, seq: BatchSeq::FIRST }.of_rest();
            writers = writers.into_iter().map(of_rest).collect();
        }
        Ok(sum)
    }

    /// The ledger of a writer stands at `found`, before all of its batches that wait, and not where this node
    /// expected it. `epoch`: that from before it was asked.
    ///
    /// # Errors
    /// When the store can't be asked for more.
    pub async fn go_on_at(&self, writer: WriterId, found: (BatchSeq, i128), epoch: u64) -> Result<(), StoreError> {
        let rests = self.rests_of(writer, found.0).await?;
        self.batches.go_on_at(writer, found, rests, epoch);
        self.health.note_missing(self.batches.mark().missing());
        Ok(())
    }

    /// A copy of the data folder was quicker. Settled at once, since until then reads would show neither
    /// what it delivered nor what this node has. Says whether it is.
    async fn settle_preempted(&self, writer: WriterId, entry: &LedgerEntry, epoch: u64) -> bool {
        let batches = Arc::clone(&self.batches);
        let sealed = run_blocking(move || {
            let found = |batches: &Batches| batches.sealed_through(writer, BatchSeq(u64::MAX)).into_iter().next();
            if writer == batches.writer() && found(&batches).is_none() {
                batches.seal_behind()?;
            }
            Ok(found(&batches))
        });
        let settled = match sealed.await {
            Ok(Some(batch)) => self.settle(&batch, (entry.last_seq, entry.total), entry.digest, epoch).await,
            other => other.map(|_| ()).map_err(SettleError::from),
        };
        if let Err(error) = &settled {
            tracing::warn!(%error, "A batch that a copy of this data folder has delivered can't be settled yet");
        }
        settled.is_ok()
    }

    /// The same for one writer, whose ledger a commit has found to stand lower than the `known`, which is confirmed;
    /// `epoch`: that from before the commit was sent.
    pub async fn check_writer(&self, writer: WriterId, known: Confirmed, found: (BatchSeq, i128), epoch: u64) {
        let _rewinding = self.rewinding.lock().await;
        if self.epoch() == epoch {
            self.rewind(writer, known, found).await;
            self.health.note_missing(self.batches.mark().missing());
        }
    }

    async fn rewind(&self, writer: WriterId, known: Confirmed, found: (BatchSeq, i128)) {
        let rests = match self.rests_of(writer, found.0).await {
            Ok(rests) => rests,
            Err(error) => {
                tracing::warn!(%error, batch.writer = %writer, "What the database has lost can't be told yet");
                return;
            }
        };
        let batches = Arc::clone(&self.batches);
        let rewound = run_blocking(move || Ok(batches.rewind(writer, known, found, rests))).await;
        match rewound {
            // Other writers have delivered what this one lacks.
            Ok(Some(Rewound { delivered_again: 0, missing: Some(0) })) => {}
            Ok(Some(Rewound { delivered_again, missing })) => tracing::error!(
                batch.writer = %writer,
                ledger.last_seq = found.0.0,
                %delivered_again,
                missing = %missing.map_or_else(|| "not known".to_owned(), |missing| missing.to_string()),
                "The database has lost commits that it had confirmed: what this node has is delivered again"
            ),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "The database has lost commits, and delivering them again failed"),
        }
    }
}

/// Why a batch could not be settled: it goes on waiting.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk's.
    #[error("the journal: {0}")]
    Journal(#[from] io::Error),
}

fn sum(rows: &[HourlyCount]) -> i128 {
    rows.iter().map(|row| i128::from(row.count)).sum()
}

/// What of `ours` is not in `theirs`. Both are distinct and sorted.
fn lacking(ours: &[HourlyCount], theirs: &[HourlyCount]) -> Vec<HourlyCount> {
    let rest = ours.iter().filter_map(|row| {
        let found = theirs.binary_search_by(|other| (&other.event, other.hour).cmp(&(&row.event, row.hour)));
        let count = row.count.saturating_sub(found.map_or(0, |index| theirs[index].count));
        (count > 0).then(|| HourlyCount { count, ..row.clone() })
    });
    rest.collect()
}
