//! The log into the counts that are stored row by row, again and again. Every node tries; the store lets
//! one of them do it. No answer depends on it: reads add what is not folded yet.

use std::sync::Arc;
use std::time::Duration;

use crate::store::{Folded, Store, StoreError};

/// How soon a fold is tried again while another node is at it.
const BUSY_RETRY: Duration = Duration::from_millis(20);

pub struct Folder {
    store: Arc<dyn Store>,
    interval: Duration,
}

impl Folder {
    /// `interval`: from the end of one fold to the beginning of the next.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, interval: Duration) -> Self {
        Self { store, interval }
    }

    /// Folds at every interval. Drop it to stop: a fold that is cut off has changed nothing.
    pub async fn run(&self) {
        let mut failing = false;
        loop {
            tokio::time::sleep(self.interval).await;
            match self.store.fold().await {
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

    /// Folds all that is in the log now. Waits for another node that is at it.
    ///
    /// # Errors
    /// When the store can't be reached, or refuses it.
    pub async fn fold(&self) -> Result<Folded, StoreError> {
        loop {
            if let Some(folded) = self.store.fold().await? {
                return Ok(folded);
            }
            tokio::time::sleep(BUSY_RETRY).await;
        }
    }
}
