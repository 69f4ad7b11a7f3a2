//! Whether the store still has what it has confirmed.
//!
//! A database can go back: a restored backup, a failover to a standby that lagged behind, a server that
//! said "committed" too early. Every ledger position that is read anywhere is compared with what was
//! confirmed before the read began. When it is lower, everything that was kept of the store is void, what
//! this node still has is delivered again, and what nobody has is said in numbers until an administrator
//! has confirmed it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::batch::{Batches, Confirmed, Rewound};
use crate::domain::{BatchSeq, WriterId};
use crate::store::{LedgerPosition, StoreHealth};

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
    /// Counts how often the store was found to have gone back: what is kept from an earlier one is void.
    epoch: AtomicU64,
    /// The highest version of the store that was read in this epoch.
    version: AtomicU64,
    /// One at a time.
    rewinding: Mutex<()>,
}

impl Reconciler {
    #[must_use]
    pub fn new(batches: Arc<Batches>, health: Arc<StoreHealth>) -> Self {
        health.note_missing(batches.mark().missing());
        Self { batches, health, epoch: AtomicU64::new(0), version: AtomicU64::new(0), rewinding: Mutex::new(()) }
    }

    /// Changes when the store has gone back.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Take it *before* asking the store.
    #[must_use]
    pub fn baseline(&self) -> Baseline {
        let epoch = self.epoch();
        Baseline { epoch, version: self.version.load(Ordering::Acquire), confirmed: self.batches.confirmed() }
    }

    /// Whether `position` stands for the store as it is. `false`: the store went back, or did so since the
    /// baseline was taken; whatever was read is void, and what this node can deliver again is pending.
    pub async fn check(&self, baseline: &Baseline, position: &LedgerPosition) -> bool {
        let lower = baseline.confirmed.iter().filter_map(|(writer, confirmed)| {
            let found = position.applied.get(writer).map_or((BatchSeq(0), 0), |entry| (entry.last_seq, entry.total));
            (found.0 < confirmed.seq).then_some((*writer, found))
        });
        let lower: Vec<_> = lower.collect();
        if lower.is_empty() && position.version >= baseline.version {
            self.version.fetch_max(position.version, Ordering::AcqRel);
            for (writer, entry) in &position.applied {
                self.batches.note_ledger(*writer, (entry.last_seq, entry.total));
            }
            return self.epoch() == baseline.epoch;
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
        }
        self.version.store(position.version, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.health.note_missing(self.batches.mark().missing());
        self.batches.request_flush();
        false
    }

    /// The same for one writer, whose ledger a commit has found to stand lower than confirmed.
    pub async fn check_writer(&self, writer: WriterId, found: (BatchSeq, i128)) {
        let _rewinding = self.rewinding.lock().await;
        let confirmed = self.batches.confirmed();
        if confirmed.get(&writer).is_some_and(|confirmed| found.0 < confirmed.seq) {
            self.rewind(writer, found).await;
            self.version.store(0, Ordering::Release);
            self.epoch.fetch_add(1, Ordering::AcqRel);
            self.health.note_missing(self.batches.mark().missing());
        }
    }

    async fn rewind(&self, writer: WriterId, found: (BatchSeq, i128)) {
        let batches = Arc::clone(&self.batches);
        let rewound = tokio::task::spawn_blocking(move || batches.rewind(writer, found)).await;
        match rewound {
            Ok(Rewound { delivered_again, missing }) => tracing::error!(
                batch.writer = %writer,
                ledger.last_seq = found.0.0,
                %delivered_again,
                missing = %missing.map_or_else(|| "not known".to_owned(), |missing| missing.to_string()),
                "The database has lost commits that it had confirmed: what this node has is delivered again"
            ),
            Err(error) => tracing::error!(%error, "The database has lost commits, and delivering them again failed"),
        }
    }
}
