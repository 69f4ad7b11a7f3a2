//! How slow a client may be: it need not be quick, but it must go on.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::time::Instant;

use super::problem::Problem;

/// In each `http.header_timeout_ms` so many bytes have to come, or to be taken, unless fewer are left. By the
/// default that is some 200 bytes a second.
pub(crate) const PROGRESS_BYTES: u64 = 16 * 1024;

/// A body that has to go on coming.
pub(crate) struct Pace {
    patience: Duration,
    until: Instant,
    /// Still to come before `until`.
    lacking: u64,
}

impl Pace {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, until: Instant::now() + patience, lacking: PROGRESS_BYTES }
    }

    /// The next piece of a body, `None` at its end. Tell by [`Pace::came`] how long it is.
    ///
    /// # Errors
    /// When too little has come for too long.
    pub(crate) async fn next<S: Stream + Unpin>(&self, pieces: &mut S) -> Result<Option<S::Item>, Problem> {
        tokio::time::timeout_at(self.until, pieces.next()).await.map_err(|_| Problem::BodyTimeout)
    }

    /// So many bytes have come.
    pub(crate) fn came(&mut self, bytes: usize) {
        self.lacking = self.lacking.saturating_sub(bytes as u64);
        if self.lacking == 0 {
            *self = Self::new(self.patience);
        }
    }
}
