//! The waits for commits, and when it is worth to begin the next one.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::BatchSeq;

/// The commits of this process's batches, for those who wait for them.
#[derive(Default)]
pub(super) struct Commits {
    /// The last batch that is settled.
    through: AtomicU64,
    queue: Mutex<Queue>,
    requested: Notify,
    /// A full group may wait.
    full: Notify,
}

#[derive(Default)]
struct Queue {
    /// By batch, and a number of their own.
    waiting: BTreeMap<(BatchSeq, u64), Waker>,
    registered: u64,
    /// How many the last commit released.
    group: usize,
}

impl Commits {
    pub(super) async fn wait(&self, batch: BatchSeq) {
        Wait { commits: self, batch, number: None }.await;
    }

    fn is_settled(&self, batch: BatchSeq) -> bool {
        self.through.load(Ordering::Acquire) >= batch.0
    }

    /// Every batch through this one is settled.
    pub(super) fn release(&self, through: BatchSeq) {
        if self.through.fetch_max(through.0, Ordering::AcqRel) >= through.0 {
            return;
        }
        let released = {
            let mut queue = self.queue.lock();
            let left = queue.waiting.split_off(&(through.next(), 0));
            let released = std::mem::replace(&mut queue.waiting, left);
            queue.group = released.len();
            released
        };
        released.into_values().for_each(Waker::wake);
    }

    pub(super) fn request(&self) {
        self.requested.notify_one();
    }

    pub(super) async fn requested(&self) {
        self.requested.notified().await;
    }

    /// Whether the last commit has released somebody.
    pub(super) fn is_waited_for(&self) -> bool {
        self.queue.lock().group > 0
    }

    pub(super) async fn group_waits(&self) {
        while !self.queue.lock().is_full() {
            self.full.notified().await;
        }
    }
}

impl Queue {
    fn is_full(&self) -> bool {
        self.waiting.len() >= self.group
    }
}

/// One who waits. Dropped, it waits no more: during a long outage many come and leave.
struct Wait<'a> {
    commits: &'a Commits,
    batch: BatchSeq,
    number: Option<u64>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let commits = self.commits;
        if commits.is_settled(self.batch) {
            return Poll::Ready(());
        }
        let mut queue = commits.queue.lock();
        // Looked at with the lock that `release` takes afterwards, so that nobody is left behind.
        if commits.is_settled(self.batch) {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            queue.registered += 1;
            queue.registered
        });
        queue.waiting.insert((self.batch, number), cx.waker().clone());
        let is_full = queue.is_full();
        drop(queue);
        commits.requested.notify_one();
        if is_full {
            commits.full.notify_one();
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.commits.queue.lock().waiting.remove(&(self.batch, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_released_by_the_commit_of_its_batch_or_a_later_one() {
        let commits = Commits::default();
        let (mut first, mut third) = (Box::pin(commits.wait(BatchSeq(1))), Box::pin(commits.wait(BatchSeq(3))));
        assert!(futures_util::poll!(&mut first).is_pending() && futures_util::poll!(&mut third).is_pending());
        commits.requested().await;
        commits.release(BatchSeq(2));
        first.await;
        assert!(futures_util::poll!(&mut third).is_pending());
        commits.release(BatchSeq(3));
        third.await;
        commits.wait(BatchSeq(3)).await;
    }

    #[tokio::test]
    async fn who_leaves_is_forgotten() {
        let commits = Commits::default();
        for _ in 0..3 {
            assert!(commits.wait(BatchSeq(1)).now_or_never().is_none());
        }
        assert!(commits.queue.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn a_group_is_as_large_as_the_last_one() {
        let commits = Commits::default();
        assert!(commits.group_waits().now_or_never().is_some(), "nobody is known to come");
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(commits.wait(BatchSeq(1)))).collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        commits.release(BatchSeq(1));
        let mut one = Box::pin(commits.wait(BatchSeq(2)));
        assert!(futures_util::poll!(&mut one).is_pending());
        assert!(tokio::time::timeout(Duration::from_millis(10), commits.group_waits()).await.is_err());
        let mut other = Box::pin(commits.wait(BatchSeq(2)));
        assert!(futures_util::poll!(&mut other).is_pending());
        commits.group_waits().await;
    }
}
