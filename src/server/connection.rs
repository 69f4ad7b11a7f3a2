//! Around one connection: hyper's HTTP/1.1, its time-outs, its age, and the word to stop.
//!
//! A connection is polled for every request, so what is rarely due must cost nothing then. hyper's own
//! head time-out is armed anew for each request, on the heap, and a tokio timer takes the lock of
//! the timer wheel twice. Here the connection only notes its deadlines, once for each poll, and a
//! *watch*, a future beside the connection that is polled only when something wakes it, looks at the
//! notes when they are due.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::context::ConnectionContext;
use super::gate::{Gate, Unconfirmed};
use super::wire::{Outlet, Sent, Wire, wire};
use super::{Answer, date};
use crate::batch::Batches;

/// What holds for every connection.
pub(super) struct Rules {
    /// How long we wait for a whole request head, and for the client to take an answer.
    pub(super) patience: Duration,
    pub(super) head_bytes_max: usize,
    /// `None`: any.
    pub(super) age_max: Option<Duration>,
    /// Whose journal and commits answers wait for, and how long for a commit.
    pub(super) batches: &'static Batches,
    pub(super) store_patience: Duration,
    /// The whole answers when the journal fails at the gate, and when a commit takes too long.
    pub(super) unconfirmed: Vec<u8>,
    pub(super) store_late: Vec<u8>,
    /// Finish the request in flight, then close.
    pub(super) drain: CancellationToken,
    /// Close at once.
    pub(super) cut: CancellationToken,
}

impl Rules {
    fn instead(&self, why: Unconfirmed) -> &[u8] {
        match why {
            Unconfirmed::Failed => &self.unconfirmed,
            Unconfirmed::StoreLate => &self.store_late,
        }
    }
}

/// Serves the connection until it is closed, by either side.
pub(super) async fn serve<F>(
    stream: TcpStream,
    peer: IpAddr,
    rules: &'static Rules,
    answer: impl Fn(Request<Incoming>, &ConnectionContext) -> F,
) where
    F: Future<Output = Answer>,
{
    let (wire, outlet) = wire(stream);
    if let Ended::Done = answer_all(wire, &outlet, peer, rules, answer).await {
        let closed = tokio::time::timeout(rules.patience.min(CLOSE_PATIENCE), outlet.close());
        tokio::select! {
            () = rules.cut.cancelled() => {}
            _ = closed => {}
        }
    }
}

/// Answers requests until none is to come, or the connection must end. Apart from [`serve`], so that what
/// it needs is gone when the connection is closed: every idle connection has room for the larger of
/// the two.
async fn answer_all<F>(
    wire: Wire,
    outlet: &Outlet,
    peer: IpAddr,
    rules: &'static Rules,
    answer: impl Fn(Request<Incoming>, &ConnectionContext) -> F,
) -> Ended
where
    F: Future<Output = Answer>,
{
    let context = ConnectionContext::new(peer);
    let signals = Arc::<Signals>::default();
    let mut builder = Builder::new();
    builder
        // Not `max_headers`: hyper's own limit of 100 lives on the stack, any other on the heap.
        .max_header_size(rules.head_bytes_max)
        .max_buf_size(rules.head_bytes_max.max(BUFFER_BYTES_MIN))
        // A client that shuts down its sending side still gets its answer. It also spares hyper the
        // read that looks for the end of input while a handler waits.
        .half_close(true);
    let (requests, context) = (&signals.requests, &context);
    let answer = |request| {
        requests.begin();
        answer(request, context).map(|Answer { response, debt }| {
            requests.end();
            debt.into_iter().for_each(|debt| context.owe(debt));
            Ok::<_, Infallible>(response)
        })
    };
    let mut connection = pin!(builder.serve_connection(wire, service_fn(answer)));
    let mut watch = Aside::new(watch(rules, Arc::clone(&signals)));
    let mut gate = Gate::new(rules.batches, rules.store_patience);
    let (mut told, mut done) = (false, false);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = watch.poll(cx) {
            return Poll::Ready(ended);
        }
        if !told && signals.closing.load(Ordering::Relaxed) {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            // What wakes a connection at the gate may be meant for hyper: it gets its turn afterwards.
            let at_gate = gate.is_waiting();
            if !done && !at_gate {
                if !date::is_known() {
                    return Poll::Ready(Ended::Cut);
                }
                context.begin_poll();
                done = connection.as_mut().poll(cx).is_ready();
                context.take_owed().into_iter().for_each(|owed| gate.owe(owed));
                // A head that is begun has to be completed in time; a new one gets a new deadline.
                if requests.take_begun() || !outlet.lacks_bytes() || requests.in_flight() {
                    signals.head_deadline.clear();
                }
            }
            if at_gate || outlet.has_bytes() {
                // Who has to end the connection after this answer can't leave it to others.
                match gate.poll(outlet, done, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => {}
                    // The first request hears that it may not be counted, the others hear nothing.
                    Poll::Ready(Err(why)) if outlet.answer_instead(rules.instead(why)) => {
                        done = true;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Ended::Cut),
                }
            }
            // Not before the gate is passed: a client that waits for its answers need not send.
            if outlet.lacks_bytes() && !requests.in_flight() && signals.head_deadline.get().is_none() {
                signals.head_deadline.set(Instant::now() + rules.patience);
            }
            match outlet.send(cx) {
                _ if done => return Poll::Ready(Ended::Done),
                Err(_) => return Poll::Ready(Ended::Cut),
                Ok(Sent::AllAndMoreWaits) => {}
                Ok(Sent::All) => {
                    signals.write_deadline.clear();
                    if !at_gate {
                        return Poll::Pending;
                    }
                }
                Ok(Sent::Some) => {
                    // Not anew each time: the client has to take all of it in time.
                    if signals.write_deadline.get().is_none() {
                        signals.write_deadline.set(Instant::now() + rules.patience);
                    }
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

/// hyper panics below 8 KiB; this is its usual step.
const BUFFER_BYTES_MIN: usize = 64 * 1024;

/// How long a client may take to close after we have said all.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

enum Ended {
    /// All is answered; what is gathered has to be sent.
    Done,
    /// Nobody is there to tell.
    Cut,
}

/// What the watch and the connection tell each other. Both live in one task; the atomics are for
/// the type system.
struct Signals {
    requests: Requests,
    /// When the request head that is being waited for must be complete.
    head_deadline: Deadline,
    /// When the client must have taken what was to be sent.
    write_deadline: Deadline,
    closing: AtomicBool,
}

impl Default for Signals {
    fn default() -> Self {
        let none = || Deadline { start: Instant::now(), ms: AtomicU64::new(Deadline::NONE) };
        Self {
            requests: Requests::default(),
            head_deadline: none(),
            write_deadline: none(),
            closing: AtomicBool::new(false),
        }
    }
}

/// Which requests have come through hyper.
#[derive(Default)]
struct Requests {
    in_flight: AtomicBool,
    begun: AtomicBool,
}

impl Requests {
    fn begin(&self) {
        self.in_flight.store(true, Ordering::Relaxed);
        self.begun.store(true, Ordering::Relaxed);
    }

    fn end(&self) {
        self.in_flight.store(false, Ordering::Relaxed);
    }

    /// Whether the last one is still without an answer.
    fn in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether one has begun since the last look.
    fn take_begun(&self) -> bool {
        let begun = self.begun.load(Ordering::Relaxed);
        self.begun.store(false, Ordering::Relaxed);
        begun
    }
}

struct Deadline {
    start: Instant,
    /// Since `start`.
    ms: AtomicU64,
}

impl Deadline {
    const NONE: u64 = u64::MAX;

    fn set(&self, at: Instant) {
        let ms = at.saturating_duration_since(self.start).as_millis();
        self.ms.store(u64::try_from(ms).unwrap_or(Self::NONE - 1), Ordering::Relaxed);
    }

    fn clear(&self) {
        self.ms.store(Self::NONE, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Instant> {
        let ms = self.ms.load(Ordering::Relaxed);
        (ms != Self::NONE).then(|| self.start + Duration::from_millis(ms))
    }

    fn has_passed(&self, now: Instant) -> bool {
        self.get().is_some_and(|at| at <= now)
    }
}

/// Ends when the connection must.
async fn watch(rules: &'static Rules, signals: Arc<Signals>) -> Ended {
    let begun = Instant::now();
    let deadlines = async {
        loop {
            let now = Instant::now();
            if signals.write_deadline.has_passed(now) {
                return Ended::Cut;
            }
            if signals.head_deadline.has_passed(now) {
                return Ended::Done;
            }
            let mut old_at = rules.age_max.map(|age| begun + age);
            if old_at.is_some_and(|at| at <= now) {
                signals.closing.store(true, Ordering::Relaxed);
                old_at = None;
            }
            // Whatever is set later is due later than this.
            let later = Some(now + rules.patience);
            let next = [signals.head_deadline.get(), signals.write_deadline.get(), old_at, later];
            tokio::time::sleep_until(next.into_iter().flatten().min().unwrap_or(now).into()).await;
        }
    };
    let close = async {
        rules.drain.cancelled().await;
        signals.closing.store(true, Ordering::Relaxed);
        rules.cut.cancelled().await;
    };
    tokio::select! {
        ended = deadlines => ended,
        () = close => Ended::Cut,
    }
}

/// A future beside the main one of a task, polled only after something has woken it and not
/// whenever the task runs.
struct Aside {
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
    fn new(future: impl Future<Output = Ended> + Send + 'static) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future: Box::pin(future), waker: Waker::from(bell.clone()), bell }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if !self.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // First the waker, then the bell: a ring in between is seen by the poll below or wakes anew.
        self.bell.task.register(cx.waker());
        self.bell.rung.store(false, Ordering::Release);
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}
