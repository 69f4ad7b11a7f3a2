//! Sealed batches into the store: seal, commit, discard; the same batch again until it is in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batches, SealedBatch};
use crate::blocking::run_blocking;
use crate::domain::{HourlyCount, WriterId};
use crate::reconcile::Reconciler;
use crate::store::{Commit, CommitRequest, Store, StoreError, StoreHealth};

mod differing;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Time from the start of one flush to that of the next: how old other nodes' view may be. 1 to 3,600,000.
    pub interval_ms: u64,
    /// How long the last flush may take when the service stops; what is left stays in the journal.
    pub shutdown_timeout_ms: u64,
    /// The longest pause between attempts while the store is down. At least 1.
    pub retry_backoff_max_ms: u64,
}

/// Why a flush ended before everything was in the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk: a batch can't be sealed, or its segment neither synced nor renamed.
    #[error("the journal: {0}")]
    Journal(String),
}

pub struct Flusher {
    batches: Arc<Batches>,
    store: Arc<dyn Store>,
    reconciler: Arc<Reconciler>,
    options: Options,
    health: Arc<StoreHealth>,
}

/// The longest time for which those who wait for a commit are gathered.
const GATHERING_MAX: Duration = Duration::from_millis(5);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

impl Flusher {
    #[must_use]
    pub fn new(
        batches: Arc<Batches>,
        store: Arc<dyn Store>,
        reconciler: Arc<Reconciler>,
        health: Arc<StoreHealth>,
        options: Options,
    ) -> Self {
        Self { batches, store, reconciler, options, health }
    }

    /// Time from one flush to the next.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.options.interval_ms)
    }

    /// Flushes at every interval, and at once when somebody waits for a commit, until `stop`. Not for a
    /// thread that serves requests: what a large batch takes to be sorted and written for the store would
    /// hold them up.
    pub async fn run(&self, stop: CancellationToken) {
        let mut backoff = FIRST_BACKOFF;
        let mut failing = false;
        let mut due = Instant::now() + self.interval();
        let mut lasted = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => {}
                // While the store is down, waiting for a commit does not make it come back.
                () = self.batches.flush_requested(), if !failing => {
                    // A client that the last commit has answered mostly comes again at once. A commit for each of them
                    // by itself would cost more than it takes to let them come together.
                    let _ = tokio::time::timeout(lasted.min(GATHERING_MAX), self.batches.group_waits()).await;
                }
            }
            let begun = Instant::now();
            let flushed = tokio::select! {
                biased;
                // A commit that is cut off here is repeated by the last flush; the ledger knows it.
                () = stop.cancelled() => return,
                flushed = self.flush() => flushed,
            };
            lasted = begun.elapsed();
            failing = flushed.is_err();
            if failing {
                due = Instant::now() + jittered(backoff, self.batches.writer());
                backoff = (backoff * 2).min(Duration::from_millis(self.options.retry_backoff_max_ms));
            } else {
                // From start to start: a flush that takes long makes no count older.
                due = begun + self.interval();
                backoff = FIRST_BACKOFF;
            }
        }
    }

    /// Flushes until the store has everything, or the time for it is up; says whether it has. A segment
    /// that can't be retired is nothing to wait for.
    pub async fn flush_all(&self) -> bool {
        let everything = async {
            let mut backoff = FIRST_BACKOFF;
            while self.batches.unstored() > 0 {
                match self.flush().await {
                    Ok(()) => return,
                    Err(_) => tokio::time::sleep(jittered(backoff, self.batches.writer())).await,
                }
                backoff *= 2;
            }
        };
        let timeout = Duration::from_millis(self.options.shutdown_timeout_ms);
        let in_time = tokio::time::timeout(timeout, everything).await.is_ok();
        in_time && self.batches.unstored() == 0
    }

    /// Commits what is sealed, oldest first; then seals the open batch and commits it.
    ///
    /// # Errors
    /// When the store or the journal is unavailable: the rest is left as it is, for the next time.
    pub async fn flush(&self) -> Result<(), FlushError> {
        // Batches of one writer go in order; one that is refused holds up its own writer only.
        let mut refused: Vec<WriterId> = Vec::new();
        self.commit_sealed(&mut refused).await?;
        let batches = Arc::clone(&self.batches);
        let sealed = run_blocking(move || batches.seal()).await.map_err(journal_error);
        sealed.inspect_err(|error| tracing::warn!(%error, "Can't seal the open batch"))?;
        // Also when nothing was sealed just now: a flush that was cut off may have done it meanwhile.
        self.commit_sealed(&mut refused).await?;
        self.health.note_refused(refused.len());
        Ok(())
    }

    async fn commit_sealed(&self, refused: &mut Vec<WriterId>) -> Result<(), FlushError> {
        while let Some(batch) = self.batches.oldest_sealed(refused) {
            match self.deliver(&batch).await {
                Ok(()) => {}
                Err(FlushError::Store(error)) if !error.is_outage() => {
                    tracing::error!(
                        %error,
                        batch.writer = %batch.id.writer,
                        batch.seq = batch.id.seq.0,
                        "The store refuses a batch; it stays in the journal and is tried again"
                    );
                    refused.push(batch.id.writer);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One attempt. `Ok`: the batch is settled, or there is something else to be done first.
    async fn deliver(&self, batch: &Arc<SealedBatch>) -> Result<(), FlushError> {
        let (begun, epoch) = (Instant::now(), self.batches.epoch());
        self.batches.sync(batch).await.map_err(|error| FlushError::Journal(error.to_string()))?;
        let rows: Arc<[HourlyCount]> = self.batches.sealed_rows(batch).into();
        let Some(after) = self.batches.confirmed_before(batch) else { return Ok(()) };
        let request = CommitRequest {
            id: batch.id,
            after,
            digest: batch.digest_of(&rows),
            catalog: batch.catalog,
            rows: Arc::clone(&rows),
        };
        match self.store.commit(request).await? {
            Commit::Applied => {
                let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(batch.seq = batch.id.seq.0, rows = rows.len(), duration_ms, "Committed a batch");
                self.discard(batch, rows, epoch).await
            }
            Commit::Stands(found) => self.settle_standing(batch, found, epoch).await,
        }
    }

    /// Retiring a long file takes its time, which those who count do not have.
    async fn discard(&self, batch: &Arc<SealedBatch>, rows: Arc<[HourlyCount]>, epoch: u64) -> Result<(), FlushError> {
        let (batches, sealed) = (Arc::clone(&self.batches), Arc::clone(batch));
        let discard = move || {
            batches.discard(&sealed, rows, epoch)?;
            batches.prepare_ahead();
            Ok(())
        };
        let discarded = run_blocking(discard).await.map_err(journal_error);
        discarded.inspect_err(|error| {
            tracing::error!(%error, batch.seq = batch.id.seq.0, "Can't rename a committed segment");
        })
    }
}

fn journal_error(error: io::Error) -> FlushError {
    FlushError::Journal(error.to_string())
}

/// Half to all of `backoff`, as the writer has it, so that nodes do not come back all at once.
fn jittered(backoff: Duration, writer: WriterId) -> Duration {
    backoff.mul_f64(0.5 + f64::from(writer.0[0]) / 512.0)
}
