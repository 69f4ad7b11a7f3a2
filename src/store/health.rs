//! What is known of the store from the last attempts to use it.

use std::time::Instant;

use parking_lot::Mutex;

use super::StoreError;

/// Shared by all who use the store; said on status pages and in `/readyz`.
#[derive(Default)]
pub struct StoreHealth {
    status: Mutex<StoreStatus>,
}

#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// Since when it has been unavailable; `None`: the last attempt succeeded.
    pub failing_since: Option<Instant>,
    /// Why, as the store said it. For logs and administrators, not for clients.
    pub last_error: Option<String>,
    pub last_commit: Option<Instant>,
    /// Writers whose oldest batch the store refuses for good: a human has to look.
    pub refused_writers: usize,
}

impl StoreStatus {
    #[must_use]
    pub fn reachable(&self) -> bool {
        self.failing_since.is_none()
    }
}

impl StoreHealth {
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        self.status.lock().clone()
    }

    /// Takes note of how a use of the store ended, and passes the result on.
    ///
    /// # Errors
    /// The result's own.
    pub fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let mut status = self.status.lock();
        match &result {
            Err(StoreError::Unavailable(reason)) => {
                if status.failing_since.is_none() {
                    tracing::warn!(reason, "The store is unavailable: counting goes on, the journal keeps the counts");
                    status.failing_since = Some(Instant::now());
                }
                status.last_error = Some(reason.clone());
            }
            Err(StoreError::Rejected(reason)) => status.last_error = Some(reason.clone()),
            Err(StoreError::TooManyRows { .. }) | Ok(_) => {
                if let Some(since) = status.failing_since.take() {
                    let outage_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(outage_ms, "The store is available again");
                }
                status.last_error = None;
            }
        }
        result
    }

    pub fn note_commit(&self) {
        self.status.lock().last_commit = Some(Instant::now());
    }

    pub fn note_refused(&self, writers: usize) {
        self.status.lock().refused_writers = writers;
    }
}
