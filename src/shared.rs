//! One answer for all who ask for the same thing at the same time.
//!
//! Whoever waits while an answer is made may not have that one: it may lack what was acknowledged to
//! them. But all who wait then share the next, also when it is a failure: one after another they would
//! wait for a store that hangs as often as they are many.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

pub struct Shared<T> {
    /// How many have ever asked.
    asked: AtomicU64,
    last: Mutex<Option<Made<T>>>,
}

struct Made<T> {
    answer: T,
    /// How many had asked when making it began.
    asked: u64,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { asked: AtomicU64::new(0), last: Mutex::new(None) }
    }
}

impl<T: Clone> Shared<T> {
    /// The last answer, if making it began after this call or if it still `holds`; otherwise what `make`
    /// gives, which must not have begun.
    pub async fn get(&self, holds: impl FnOnce(&T) -> bool, make: impl Future<Output = T>) -> T {
        // What happened before this addition happened before the load that sees it.
        let number = self.asked.fetch_add(1, Ordering::AcqRel);
        let mut last = self.last.lock().await;
        if let Some(made) = &*last
            && (number < made.asked || holds(&made.answer))
        {
            return made.answer.clone();
        }
        let asked = self.asked.load(Ordering::Acquire);
        let answer = make.await;
        *last = Some(Made { answer: answer.clone(), asked });
        answer
    }

    /// The last answer is given no more if it is `outdated`.
    pub async fn forget_if(&self, outdated: impl FnOnce(&T) -> bool) {
        let mut last = self.last.lock().await;
        if last.as_ref().is_some_and(|made| outdated(&made.answer)) {
            *last = None;
        }
    }

    /// Looks at the last answer, unless a new one is being made.
    pub fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.last.try_lock().ok()?.as_ref().map(|made| look(&made.answer))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use futures_util::future::join_all;
    use futures_util::{FutureExt, pin_mut};
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn who_waits_gets_an_answer_that_was_begun_later_and_all_of_them_the_same() {
        let (shared, begun, go) = (Shared::<u32>::default(), Cell::new(0), Notify::new());
        let get = || {
            shared.get(|_| false, async {
                begun.set(begun.get() + 1);
                let answer = begun.get();
                go.notified().await;
                answer
            })
        };
        let first = get();
        pin_mut!(first);
        assert!(first.as_mut().now_or_never().is_none());
        let waiting = join_all((0..10).map(|_| get()));
        pin_mut!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        go.notify_one();
        assert_eq!(first.await, 1);
        assert!(waiting.as_mut().now_or_never().is_none());
        go.notify_one();
        assert_eq!(waiting.await, vec![2; 10]);
        assert_eq!(begun.get(), 2);
    }

    #[tokio::test]
    async fn an_answer_that_holds_is_given_again() {
        let shared = Shared::<u32>::default();
        let get = async |answer, holds| shared.get(|_| holds, async { answer }).await;
        assert_eq!(get(1, true).await, 1);
        assert_eq!(get(2, true).await, 1);
        assert_eq!(get(3, false).await, 3);
    }

    #[tokio::test]
    async fn when_the_one_who_makes_an_answer_leaves_the_next_makes_it() {
        let shared = Shared::<u32>::default();
        let mut left = Box::pin(shared.get(|_| false, std::future::pending::<u32>()));
        assert!(left.as_mut().now_or_never().is_none());
        let mut next = Box::pin(shared.get(|_| false, async { 7 }));
        assert!(next.as_mut().now_or_never().is_none());
        drop(left);
        assert_eq!(next.await, 7);
    }
}
