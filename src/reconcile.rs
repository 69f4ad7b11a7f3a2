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

use crate::batch::{Batches, Confirmed, Rewound, SealedBatch, Settled};
use crate::domain::{BatchSeq, Digest, WriterId};
use crate::store::{LedgerEntry, LedgerPosition, StoreHealth};

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
    health: Arc<StoreHealth>,
    /// The highest version of the store that was read, and the epoch in which that was.
    version: parking_lot::Mutex<(u64, u64)>,
    /// One at a time.
    rewinding: Mutex<()>,
}

impl Reconciler {
    #[must_use]
    pub fn new(batches: Arc<Batches>, health: Arc<StoreHealth>) -> Self {
        health.note_missing(batches.mark().missing());
        Self { batches, health, version: parking_lot::Mutex::default(), rewinding: Mutex::new(()) }
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
            confirmed.is_lost_at(found).then_some((*writer, found))
        });
        let lower: Vec<_> = lower.collect();
        if lower.is_empty() && position.version >= baseline.version {
            for (writer, entry) in &position.applied {
                let found = (entry.last_seq, entry.total);
                self.batches.note_ledger(*writer, found);
                if self.batches.is_preempted(*writer, entry.last_seq, entry.digest) {
                    self.settle_preempted(*writer, entry, baseline.epoch).await;
                }
                if self.batches.confirmed_of(*writer).is_some_and(|confirmed| confirmed.is_less_than(found)) {
                    self.batches.go_on_at(*writer, found, baseline.epoch);
                    self.health.note_missing(self.batches.mark().missing());
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
        for (writer, found) in &lower {
            self.rewind(*writer, *found).await;
        }
        if lower.is_empty() {
            tracing::error!("The database has lost commits of other nodes that it had confirmed");
            self.batches.void();
        }
        self.health.note_missing(self.batches.mark().missing());
        self.batches.request_flush();
        false
    }

    /// The ledger stands at `found`, at or past `batch`, with this digest. `epoch`: that from before it was
    /// asked.
    ///
    /// # Errors
    /// The disk's.
    pub async fn settle(
        &self,
        batch: &Arc<SealedBatch>,
        found: (BatchSeq, i128),
        digest: Option<Digest>,
        epoch: u64,
    ) -> io::Result<()> {
        let (batches, sealed) = (Arc::clone(&self.batches), Arc::clone(batch));
        let settled = tokio::task::spawn_blocking(move || {
            if found.0 > sealed.id.seq && sealed.id.writer == batches.writer() {
                // The sums can be compared once ours reach as far as the ledger's.
                batches.seal_behind()?;
            }
            batches.settle(&sealed, found, digest, epoch)
        });
        match settled.await.map_err(io::Error::other).flatten()? {
            Settled::Stored => tracing::info!(
                batch.writer = %batch.id.writer,
                batch.seq = batch.id.seq.0,
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

    /// A copy of the data folder was quicker. Settled at once, since until then reads would show neither
    /// what it delivered nor what this node has.
    async fn settle_preempted(&self, writer: WriterId, entry: &LedgerEntry, epoch: u64) {
        let batches = Arc::clone(&self.batches);
        let sealed = tokio::task::spawn_blocking(move || {
            let found = |batches: &Batches| batches.sealed_through(writer, BatchSeq(u64::MAX)).into_iter().next();
            if writer == batches.writer() && found(&batches).is_none() {
                batches.seal_behind()?;
            }
            Ok(found(&batches))
        });
        let settled = match sealed.await.map_err(io::Error::other).flatten() {
            Ok(Some(batch)) => self.settle(&batch, (entry.last_seq, entry.total), entry.digest, epoch).await,
            other => other.map(|_| ()),
        };
        if let Err(error) = settled {
            tracing::warn!(%error, "A batch that a copy of this data folder has delivered can't be set aside yet");
        }
    }

    /// The same for one writer, whose ledger a commit has found to stand lower than confirmed; `epoch`:
    /// that from before the commit was sent.
    pub async fn check_writer(&self, writer: WriterId, found: (BatchSeq, i128), epoch: u64) {
        let _rewinding = self.rewinding.lock().await;
        if self.epoch() == epoch {
            self.rewind(writer, found).await;
            self.health.note_missing(self.batches.mark().missing());
        }
    }

    async fn rewind(&self, writer: WriterId, found: (BatchSeq, i128)) {
        let batches = Arc::clone(&self.batches);
        let rewound = tokio::task::spawn_blocking(move || batches.rewind(writer, found)).await;
        match rewound {
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
