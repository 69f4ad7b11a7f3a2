//! What looks after one connection from beside: its deadlines, its age, and the words to stop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::connection::Rules;

pub(super) enum Ended {
    /// All is answered; what is gathered has to be sent.
    Done,
    /// The client began a request and did not finish its head in time.
    HeadLate,
    /// Nobody is there to tell.
    Cut,
}

/// What the watch and the connection tell each other. Both live in one task; the atomics are for
/// the type system, and for [`Seats`](super::seats::Seats), which see who waits for a client.
pub(super) struct Signals {
    pub(super) requests: Requests,
    /// When the request head that is being waited for must be complete.
    pub(super) head_deadline: Deadline,
    /// When the client must have taken what was to be sent.
    pub(super) write_deadline: Deadline,
    pub(super) closing: AtomicBool,
    /// Another client needs the place, and this connection has been waiting for its own the longest.
    pub(super) make_room: Notify,
}

impl Default for Signals {
    fn default() -> Self {
        let none = || Deadline { start: Instant::now(), ms: AtomicU64::new(Deadline::NONE) };
        Self {
            requests: Requests::default(),
            head_deadline: none(),
            write_deadline: none(),
            closing: AtomicBool::new(false),
            make_room: Notify::new(),
        }
    }
}

/// Which requests have come through hyper.
#[derive(Default)]
pub(super) struct Requests {
    in_flight: AtomicBool,
    turned: AtomicBool,
}

impl Requests {
    pub(super) fn begin(&self) {
        self.in_flight.store(true, Ordering::Relaxed);
        self.turned.store(true, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.store(false, Ordering::Relaxed);
        self.turned.store(true, Ordering::Relaxed);
    }

    /// Whether the last one is still without an answer.
    pub(super) fn in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether one has begun or ended since the last look.
    pub(super) fn take_turned(&self) -> bool {
        let turned = self.turned.load(Ordering::Relaxed);
        self.turned.store(false, Ordering::Relaxed);
        turned
    }
}

pub(super) struct Deadline {
    start: Instant,
    /// Since `start`.
    ms: AtomicU64,
}

impl Deadline {
    const NONE: u64 = u64::MAX;

    pub(super) fn set(&self, at: Instant) {
        let ms = at.saturating_duration_since(self.start).as_millis();
        self.ms.store(u64::try_from(ms).unwrap_or(Self::NONE - 1), Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.ms.store(Self::NONE, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<Instant> {
        let ms = self.ms.load(Ordering::Relaxed);
        (ms != Self::NONE).then(|| self.start + Duration::from_millis(ms))
    }

    fn has_passed(&self, now: Instant) -> bool {
        self.get().is_some_and(|at| at <= now)
    }
}

/// Ends when the connection must.
pub(super) async fn watch(rules: &'static Rules, signals: Arc<Signals>) -> Ended {
    let begun = Instant::now();
    // Whatever is set later is due later than this.
    let mut rest = rules.first_byte_patience.min(rules.patience);
    let deadlines = async {
        loop {
            let now = Instant::now();
            if signals.write_deadline.has_passed(now) {
                return Ended::Cut;
            }
            if signals.head_deadline.has_passed(now) {
                return Ended::HeadLate;
            }
            let mut old_at = rules.age_max.map(|age| begun + age);
            if old_at.is_some_and(|at| at <= now) {
                signals.closing.store(true, Ordering::Relaxed);
                old_at = None;
            }
            let later = Some(now + std::mem::replace(&mut rest, rules.patience));
            let next = [signals.head_deadline.get(), signals.write_deadline.get(), old_at, later];
            tokio::time::sleep_until(next.into_iter().flatten().min().unwrap_or(now).into()).await;
        }
    };
    let close = async {
        rules.drain.cancelled().await;
        signals.closing.store(true, Ordering::Relaxed);
        rules.cut.cancelled().await;
    };
    let make_room = async {
        loop {
            signals.make_room.notified().await;
            if signals.head_deadline.get().is_some() {
                return;
            }
            // A request has come meanwhile: it is the last.
            signals.closing.store(true, Ordering::Relaxed);
        }
    };
    tokio::select! {
        ended = deadlines => ended,
        () = close => Ended::Cut,
        () = make_room => Ended::Cut,
    }
}

/// A future beside the main one of a task, polled only after something has woken it and not
/// whenever the task runs.
pub(super) struct Aside {
    future: Pin<Box<dyn Future<Output = Ended> + Send>>,
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Aside {
    pub(super) fn new(future: impl Future<Output = Ended> + Send + 'static) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future: Box::pin(future), waker: Waker::from(bell.clone()), bell }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if !self.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // First the waker, then the bell: a ring in between is seen by the poll below or wakes anew.
        self.bell.task.register(cx.waker());
        self.bell.rung.store(false, Ordering::Release);
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}
