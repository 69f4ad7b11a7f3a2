//! The log into the counts that are stored row by row, again and again. Every node tries; the store lets
//! one of them do it. No answer depends on it: reads add what is not folded yet.

use std::sync::Arc;
use std::time::Duration;

use crate::store::{Folded, Store, StoreError};

/// How soon a fold is tried again while another node is at it.
const BUSY_RETRY: Duration = Duration::from_millis(20);

/// How much of the interval must have passed since the last fold of any node. Less than all of it, so that a
/// node that is alone never waits for two intervals.
const REST: f64 = 0.9;

/// How many intervals a node waits at most before it tries again, when it finds each time that others fold. Each try
/// costs the database a transaction, and none of them is lost: should the node that folds end, reads add what the log
/// holds until another one folds.
const TRIES_APART_MAX: u32 = 4;

/// A part that holds more may have left something behind.
const PART_COUNTERS: u64 = 100_000;

pub struct Folder {
    store: Arc<dyn Store>,
    interval: Duration,
}

impl Folder {
    /// `interval`: from one fold to the next, whichever node does them.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, interval: Duration) -> Self {
        Self { store, interval }
    }

    /// Folds at every interval, and tries less often while others do. Drop it to stop: a fold that is cut off has
    /// changed nothing.
    pub async fn run(&self) {
        let mut failing = false;
        let mut apart = 1;
        loop {
            tokio::time::sleep(self.interval * apart).await;
            let folded = self.fold_if_free().await;
            apart = if matches!(folded, Ok(None)) { TRIES_APART_MAX.min(apart + 1) } else { 1 };
            match folded {
                Ok(folded) => {
                    failing = false;
                    let Folded { batches, counters } = folded.unwrap_or_default();
                    if batches > 0 {
                        tracing::debug!(batches, counters, "Folded the log");
                    }
                }
                // The store's health tells of outages.
                Err(error) if error.is_outage() => {}
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "The log can't be folded: it grows, and reads become slow");
                    }
                }
            }
        }
    }

    /// Folds until a part is a short one. `None`: another node is at it, or was a moment ago.
    async fn fold_if_free(&self) -> Result<Option<Folded>, StoreError> {
        let mut folded = self.store.fold_after(self.interval.mul_f64(REST)).await?;
        let mut sum = folded;
        while let Some(part) = folded {
            if part.counters < PART_COUNTERS {
                break;
            }
            folded = self.store.fold().await?;
            sum = sum.map(|sum| sum.plus(folded.unwrap_or_default()));
        }
        Ok(sum)
    }

    /// Folds all that is in the log now. Waits for another node that is at it.
    ///
    /// # Errors
    /// When the store can't be reached, or refuses it.
    pub async fn fold(&self) -> Result<Folded, StoreError> {
        let mut sum = Folded::default();
        loop {
            match self.store.fold().await? {
                Some(Folded { batches: 0, .. }) => return Ok(sum),
                Some(folded) => sum = sum.plus(folded),
                None => tokio::time::sleep(BUSY_RETRY).await,
            }
        }
    }
}
