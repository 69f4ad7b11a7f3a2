//! What all lists together may take while they are read and sent: ranges, totals, the dashboard's list, its files.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::rows::Row;
use crate::store::StoreError;

/// Bytes taken, and how many may be.
#[derive(Debug)]
pub struct Lists {
    taken: AtomicUsize,
    max: AtomicUsize,
}

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reader {
    Anybody,
    /// Has a quarter of the bytes for itself.
    Administrator,
}

/// Bytes of one list, until it is dropped.
#[derive(Debug)]
pub struct Held {
    lists: Arc<Lists>,
    bytes: usize,
}

impl Default for Lists {
    fn default() -> Self {
        Self { taken: AtomicUsize::new(0), max: AtomicUsize::new(usize::MAX) }
    }
}

impl Lists {
    /// All lists together may take so many bytes.
    pub fn limit(&self, bytes_max: usize) {
        self.max.store(bytes_max, Ordering::Relaxed);
    }

    /// How many bytes lists of this reader may take, with those that others hold.
    #[must_use]
    pub fn max(&self, reader: Reader) -> usize {
        let max = self.max.load(Ordering::Relaxed);
        match reader {
            Reader::Anybody => max - max / 4,
            Reader::Administrator => max,
        }
    }

    /// Takes so many bytes. Nobody waits for them: others might wait for what a waiting list holds.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when other lists hold too much.
    pub fn hold(self: &Arc<Self>, reader: Reader, bytes: usize) -> Result<Held, StoreError> {
        let max = self.max(reader);
        let more = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= max);
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Held { lists: Arc::clone(self), bytes }),
            Err(_) => Err(StoreError::Busy),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.lists.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the rows of a list take in memory, about.
#[must_use]
pub fn bytes_of<T: Row>(rows: &[T]) -> usize {
    rows.iter().map(Row::bytes).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists_together_take_what_they_may_and_administrators_some_more() {
        let lists = Arc::new(Lists::default());
        lists.limit(1_000);
        let first = lists.hold(Reader::Anybody, 700).unwrap();
        assert_eq!(lists.hold(Reader::Anybody, 100).unwrap_err(), StoreError::Busy);
        let second = lists.hold(Reader::Administrator, 300).unwrap();
        assert_eq!(lists.hold(Reader::Administrator, 1).unwrap_err(), StoreError::Busy);
        drop((first, second));
        assert!(lists.hold(Reader::Anybody, 750).is_ok());
    }
}
