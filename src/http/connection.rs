//! Around one connection: hyper's HTTP/1.1, its time-outs, its age, and the word to stop.
//!
//! A connection is polled for every request, so what is rarely due must cost nothing then. hyper
//! arms its head time-out anew for each request; a tokio timer would take the lock of the timer
//! wheel twice each time. Here [`HeadTimer`] only notes the deadline, and a *watch*, a future beside
//! the connection that is polled only when something wakes it, looks at the note when it is due.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use warp::reply::Response;

/// What holds for every connection.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) head_timeout: Duration,
    pub(super) head_bytes_max: usize,
    /// `None`: any.
    pub(super) age_max: Option<Duration>,
    /// Finish the request in flight, then close.
    pub(super) drain: CancellationToken,
    /// Close at once.
    pub(super) cut: CancellationToken,
}

/// Serves the connection until it is closed, by either side.
pub(super) async fn serve<F>(stream: TcpStream, rules: &Rules, answer: impl Fn(Request<Incoming>) -> F)
where
    F: Future<Output = Result<Response, Infallible>>,
{
    let signals = Arc::new(Signals::default());
    let mut builder = Builder::new();
    builder
        .timer(HeadTimer(signals.clone()))
        .header_read_timeout(rules.head_timeout)
        // Not `max_headers`: hyper's own limit of 100 lives on the stack, any other on the heap.
        .max_header_size(rules.head_bytes_max)
        .max_buf_size(rules.head_bytes_max.max(BUFFER_BYTES_MIN))
        // A client that shuts down its sending side still gets its answer. It also spares hyper the
        // read that looks for the end of input while a handler waits.
        .half_close(true)
        // Answers to pipelined requests leave in one write.
        .pipeline_flush(true);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service_fn(answer)));
    let mut watch = Aside::new(watch(rules.clone(), signals.clone()));
    let mut told = false;
    std::future::poll_fn(|cx| {
        if watch.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !told && signals.closing.load(Ordering::Relaxed) {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        })
    })
    .await;
}

/// hyper panics below 8 KiB; this is its usual step.
const BUFFER_BYTES_MIN: usize = 64 * 1024;

/// What the watch and the connection tell each other. Both live in one task; the atomics are for
/// the type system.
struct Signals {
    /// When the request head that is being waited for must be complete, in milliseconds since
    /// `start`; [`NO_HEAD`] while none is.
    head_deadline_ms: AtomicU64,
    head_late: AtomicBool,
    closing: AtomicBool,
    start: Instant,
}

const NO_HEAD: u64 = u64::MAX;

impl Default for Signals {
    fn default() -> Self {
        Self {
            head_deadline_ms: AtomicU64::new(NO_HEAD),
            head_late: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            start: Instant::now(),
        }
    }
}

/// Ends when the connection must be cut.
async fn watch(rules: Rules, signals: Arc<Signals>) {
    let heads = async {
        loop {
            let noted = signals.head_deadline_ms.load(Ordering::Relaxed);
            let deadline = match noted {
                // A request is being answered: its successor will have a whole time-out at least.
                NO_HEAD => Instant::now() + rules.head_timeout,
                noted => signals.start + Duration::from_millis(noted),
            };
            if deadline <= Instant::now() {
                signals.head_late.store(true, Ordering::Relaxed);
                return std::future::pending::<()>().await;
            }
            tokio::time::sleep_until(deadline.into()).await;
        }
    };
    let close = async {
        let old = async {
            match rules.age_max {
                Some(age) => tokio::time::sleep(age).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = rules.drain.cancelled() => {}
            () = old => {}
        }
        signals.closing.store(true, Ordering::Relaxed);
        rules.cut.cancelled().await;
    };
    tokio::select! {
        () = heads => {}
        () = close => {}
    }
}

/// hyper's timer, of which it only uses the head time-out.
struct HeadTimer(Arc<Signals>);

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let deadline_ms = deadline.saturating_duration_since(self.0.start).as_millis();
        let deadline_ms = u64::try_from(deadline_ms).unwrap_or(NO_HEAD - 1);
        self.0.head_deadline_ms.store(deadline_ms, Ordering::Relaxed);
        Box::pin(HeadSleep(self.0.clone()))
    }
}

struct HeadSleep(Arc<Signals>);

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    /// Needs no waker: the watch runs in the same task and is woken by a real timer.
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.head_late.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        self.0.head_deadline_ms.store(NO_HEAD, Ordering::Relaxed);
    }
}

/// A future beside the main one of a task, polled only after something has woken it and not
/// whenever the task runs.
struct Aside {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
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
    fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future: Box::pin(future), waker: Waker::from(bell.clone()), bell }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // First the waker, then the bell: a ring in between is seen by the poll below or wakes anew.
        self.bell.task.register(cx.waker());
        self.bell.rung.store(false, Ordering::Release);
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}
