//! Work of which only some is done at the same time, and for which only some may wait.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::web::problem::Problem;

/// More than this would wait longer than anybody does.
const WAITING_MAX: usize = 64;

pub(super) struct Turns {
    free: Semaphore,
    places: Semaphore,
}

impl Turns {
    /// For so many at a time, and at least one.
    pub(super) fn new(at_once: usize) -> Self {
        Self { free: Semaphore::new(at_once.max(1)), places: Semaphore::new(WAITING_MAX) }
    }

    /// Waits for a turn, which lasts until what is given is dropped. A client that leaves gives up its place.
    ///
    /// # Errors
    /// When too many wait already.
    pub(super) async fn take(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let _place = self.places.try_acquire().map_err(|_| Problem::TooManyWait)?;
        self.free.acquire().await.map_err(|_| Problem::TooManyWait)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn so_many_wait_and_no_more_and_who_leaves_makes_room() {
        let turns = Turns::new(1);
        let first = turns.take().await.unwrap();
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(turns.take())).collect();
        waiting.iter_mut().for_each(|waits| assert!(waits.as_mut().now_or_never().is_none()));
        assert!(matches!(turns.take().await, Err(Problem::TooManyWait)));
        waiting.pop();
        let mut last = Box::pin(turns.take());
        assert!(last.as_mut().now_or_never().is_none());
        drop(first);
        assert!(waiting[0].as_mut().now_or_never().unwrap().is_ok());
    }
}
