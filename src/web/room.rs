//! What all request bodies together may hold.

use tokio::sync::{Semaphore, SemaphorePermit};

/// The first bytes of each body, which a small one does not go beyond.
pub(crate) const SMALL_BYTES: usize = 64 * 1024;

/// Bytes that bodies being read may still take.
pub(crate) struct Bodies {
    all: Semaphore,
    /// Of these, what lies beyond the first bytes of each may take: a quarter less, so that small batches do not
    /// suffer for large ones.
    beyond_small: Semaphore,
}

impl Bodies {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { all: Semaphore::new(bytes_max), beyond_small: Semaphore::new(bytes_max - bytes_max / 4) }
    }

    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.all.available_permits()
    }
}

/// A body's share, however few of its bytes are kept: of different names, what they come to is larger than the body.
pub(crate) struct Room {
    of: &'static Bodies,
    small_left: usize,
    /// Of all, and of what is beyond small.
    taken: [Option<SemaphorePermit<'static>>; 2],
}

impl Room {
    pub(crate) fn new(of: &'static Bodies) -> Self {
        Self { of, small_left: SMALL_BYTES, taken: [None, None] }
    }

    /// Whether there is room for so many bytes more. A body does not wait for it: others might wait for
    /// what it holds.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let beyond = bytes.saturating_sub(self.small_left);
        self.small_left -= bytes - beyond;
        let [all, beyond_small] = &mut self.taken;
        add(all, &self.of.all, bytes) && add(beyond_small, &self.of.beyond_small, beyond)
    }

    pub(crate) fn give_back(&mut self) {
        self.taken = [None, None];
    }
}

fn add(taken: &mut Option<SemaphorePermit<'static>>, left: &'static Semaphore, bytes: usize) -> bool {
    let Ok(more) = left.try_acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX)) else { return false };
    match taken {
        Some(taken) => taken.merge(more),
        None => *taken = Some(more),
    }
    true
}
