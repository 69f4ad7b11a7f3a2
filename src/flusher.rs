//! Sealed batches into the store: seal, commit, discard; the same batch again until it is in.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batches, SealedBatch};
use crate::catalog::LiveCatalog;
use crate::domain::{BatchSeq, Digest, HourlyCount, WriterId};
use crate::store::{Commit, CommitRequest, Store, StoreError, StoreHealth};

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Time from one flush to the next: how old other nodes' view may be. 1 to 3,600,000.
    pub interval_ms: u64,
    /// How long the last flush may take when the service stops; what is left stays in the journal.
    pub shutdown_timeout_ms: u64,
    /// The longest pause between attempts while the store is down. At least 1.
    pub retry_backoff_max_ms: u64,
}

pub struct Flusher {
    batches: &'static Batches,
    store: Arc<dyn Store>,
    catalog: Arc<LiveCatalog>,
    options: Options,
    health: Arc<StoreHealth>,
}

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const SEGMENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl Flusher {
    #[must_use]
    pub fn new(
        batches: &'static Batches,
        store: Arc<dyn Store>,
        catalog: Arc<LiveCatalog>,
        health: Arc<StoreHealth>,
        options: Options,
    ) -> Self {
        Self { batches, store, catalog, health, options }
    }

    /// Flushes at every interval, and at once when somebody waits for a commit, until `stop`. Keeps
    /// the catalog current at the same pace. Not for a thread that serves requests: what a large batch
    /// takes to be sorted and written for the store would hold them up.
    pub async fn run(&self, stop: CancellationToken) {
        let interval = Duration::from_millis(self.options.interval_ms);
        let mut backoff = FIRST_BACKOFF;
        let mut failing = false;
        let mut due = Instant::now() + interval;
        let mut catalog_checked = Instant::now();
        loop {
            let look = due.min(Instant::now() + SEGMENT_CHECK_INTERVAL);
            let requested = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(look.into()) => false,
                // While the store is down, waiting for a commit does not make it come back.
                () = self.batches.flush_requested(), if !failing => true,
            };
            self.shorten_segments().await;
            if !requested && Instant::now() < due {
                continue;
            }
            let flushed = tokio::select! {
                // A commit that is cut off here is repeated by the last flush; the ledger knows it.
                () = stop.cancelled() => return,
                flushed = self.flush() => flushed,
            };
            if flushed.is_ok() && catalog_checked.elapsed() >= interval {
                catalog_checked = Instant::now();
                tokio::select! {
                    () = stop.cancelled() => return,
                    // The store's health tells of failures; the next round tries again.
                    _ = self.catalog.keep_current() => {}
                }
            }
            failing = flushed.is_err();
            if failing {
                due = Instant::now() + jittered(backoff);
                backoff = (backoff * 2).min(Duration::from_millis(self.options.retry_backoff_max_ms));
            } else {
                due = Instant::now() + interval;
                backoff = FIRST_BACKOFF;
            }
        }
    }

    /// Flushes until nothing is pending, or the time for it is up; says whether nothing is left.
    pub async fn flush_all(&self) -> bool {
        let everything = async {
            let mut backoff = FIRST_BACKOFF;
            loop {
                match self.flush().await {
                    Ok(()) => return,
                    Err(_) => tokio::time::sleep(jittered(backoff)).await,
                }
                backoff *= 2;
            }
        };
        let timeout = Duration::from_millis(self.options.shutdown_timeout_ms);
        let in_time = tokio::time::timeout(timeout, everything).await.is_ok();
        in_time && self.health.status().refused_writers == 0
    }

    /// Commits what is sealed, oldest first; then seals the open batch and commits it.
    ///
    /// # Errors
    /// When the store or the journal is unavailable: the rest is left as it is, for the next time.
    pub async fn flush(&self) -> Result<(), StoreError> {
        // Batches of one writer go in order; one that is refused holds up its own writer only.
        let mut refused: Vec<WriterId> = Vec::new();
        self.commit_sealed(&mut refused).await?;
        let batches = self.batches;
        match tokio::task::spawn_blocking(|| batches.seal()).await {
            // Also when nothing was sealed just now: a flush that was cut off may have done it meanwhile.
            Ok(Ok(_)) => self.commit_sealed(&mut refused).await?,
            Ok(Err(error)) => {
                tracing::warn!(%error, "Can't seal the open batch: the journal can't be rotated");
                return Err(StoreError::Unavailable("the journal can't be rotated".into()));
            }
            Err(error) => return Err(StoreError::Unavailable(error.to_string())),
        }
        self.health.note_refused(refused.len());
        Ok(())
    }

    async fn commit_sealed(&self, refused: &mut Vec<WriterId>) -> Result<(), StoreError> {
        while let Some(batch) = self.batches.oldest_sealed(refused) {
            match self.commit(&batch).await {
                Ok(rows) => self.discard(&batch, rows).await?,
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => {
                    tracing::error!(
                        %error,
                        batch.writer = %batch.id.writer,
                        batch.seq = batch.id.seq.0,
                        "The store refuses a batch; it stays in the journal and is tried again"
                    );
                    refused.push(batch.id.writer);
                }
            }
        }
        Ok(())
    }

    async fn commit(&self, batch: &Arc<SealedBatch>) -> Result<Arc<[HourlyCount]>, StoreError> {
        let begun = Instant::now();
        self.batches.sync(batch).await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let rows: Arc<[_]> = self.batches.sealed_rows(batch).into();
        let row_count = rows.len();
        let digest = Digest::of(&rows);
        let request = CommitRequest {
            id: batch.id,
            after: BatchSeq(batch.id.seq.0.saturating_sub(1)),
            digest,
            catalog: self.catalog.view().catalog().version,
            rows: Arc::clone(&rows),
        };
        let seq = batch.id.seq;
        match self.store.commit(request).await? {
            Commit::Applied => {
                let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(batch.seq = seq.0, rows = row_count, duration_ms, "Committed a batch");
            }
            Commit::Stands(Some(entry)) if entry.last_seq == seq && entry.digest == Some(digest) => {
                tracing::info!(batch.writer = %batch.id.writer, batch.seq = seq.0, "A batch was in the store already");
            }
            Commit::Stands(entry) => {
                let stands_at = entry.map_or(0, |entry| entry.last_seq.0);
                return Err(StoreError::Rejected(format!("the ledger stands at batch {stands_at} of its writer")));
            }
        }
        Ok(rows)
    }

    /// Deleting a long file takes its time, which those who count do not have.
    async fn discard(&self, batch: &Arc<SealedBatch>, rows: Arc<[HourlyCount]>) -> Result<(), StoreError> {
        let (batches, sealed) = (self.batches, Arc::clone(batch));
        let discarded = tokio::task::spawn_blocking(move || batches.discard(&sealed, rows)).await;
        discarded.map_err(io::Error::other).flatten().map_err(|error| {
            tracing::error!(%error, batch.seq = batch.id.seq.0, "Can't delete a committed segment");
            StoreError::Unavailable("a committed segment can't be deleted".into())
        })
    }

    async fn shorten_segments(&self) {
        let batches = self.batches;
        let shortened: Result<io::Result<bool>, _> = tokio::task::spawn_blocking(|| batches.shorten_segments()).await;
        match shortened {
            Ok(Ok(true)) => tracing::info!(journal.bytes = batches.journal().bytes(), "Rewrote a long segment"),
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(error)) => tracing::warn!(%error, "Can't rewrite a long segment"),
        }
    }
}

/// Half to all of `backoff`, so that nodes do not come back all at once.
fn jittered(backoff: Duration) -> Duration {
    backoff.mul_f64(rand::rng().random_range(0.5..=1.0))
}
