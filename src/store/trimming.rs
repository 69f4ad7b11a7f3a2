//! When old entries of a store's log are deleted.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Options;

const INTERVAL: Duration = Duration::from_secs(10);

pub(super) struct Trimming {
    /// How long entries are kept.
    pub(super) keep: Duration,
    last: Mutex<Option<Instant>>,
}

impl Trimming {
    pub(super) fn new(keep: Duration) -> Self {
        Self { keep, last: Mutex::new(None) }
    }

    /// Whether it is time to delete those that are older; then it is not for a while.
    pub(super) fn is_due(&self) -> bool {
        let mut last = self.last.lock();
        let is_due = last.is_none_or(|last| last.elapsed() >= INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

impl Default for Trimming {
    fn default() -> Self {
        Self::new(Duration::from_millis(Options::default().log_keep_ms))
    }
}
