//! Around one connection: hyper's HTTP/1.1, its time-outs, its age, and the word to stop.
//!
//! A connection is polled for every request, so what is rarely due must cost nothing then. hyper's own
//! head time-out is armed anew for each request, on the heap, and a tokio timer takes the lock of
//! the timer wheel twice. Here the connection only notes its deadlines, once for each poll, and a
//! [`watch`](super::watch), a future beside the connection that is polled only when something wakes it,
//! looks at the notes when they are due. Whether the client is still there is watched only while a handler
//! takes its time, which no count does.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::context::ConnectionContext;
use super::gate::{Gate, Unconfirmed};
use super::watch::{Aside, Ended, Signals, watch};
use super::wire::{Outlet, Sent, Wire, wire};
use super::{Answer, date};
use crate::batch::Batches;
use crate::web::pace::PROGRESS_BYTES;

/// What holds for every connection.
pub(super) struct Rules {
    /// How long we wait for a whole request head, and for the client to take some of an answer.
    pub(super) patience: Duration,
    /// How long a new connection may be silent.
    pub(super) first_byte_patience: Duration,
    pub(super) head_bytes_max: usize,
    /// `None`: any.
    pub(super) age_max: Option<Duration>,
    /// Whose journal and commits answers wait for, and how long for a commit.
    pub(super) batches: &'static Batches,
    pub(super) store_patience: Duration,
    /// The whole answers when the journal fails at the gate, and when a commit takes too long.
    pub(super) unconfirmed: Vec<u8>,
    pub(super) store_late: Vec<u8>,
    /// The whole answers in the place of those that hyper gives by itself, and to a head that is late.
    pub(super) malformed: Vec<u8>,
    pub(super) fragment: Vec<u8>,
    pub(super) head_too_large: Vec<u8>,
    pub(super) target_too_long: Vec<u8>,
    pub(super) head_late: Vec<u8>,
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

    /// What to say where hyper has refused a request with `status`.
    fn refusal(&self, status: u16, outlet: &Outlet) -> &[u8] {
        match status {
            414 => &self.target_too_long,
            431 => &self.head_too_large,
            _ if outlet.has_fragment() => &self.fragment,
            _ => &self.malformed,
        }
    }
}

/// Serves the connection until it is closed, by either side.
pub(super) async fn serve<F>(
    stream: TcpStream,
    peer: IpAddr,
    rules: &'static Rules,
    signals: Arc<Signals>,
    answer: impl Fn(Request<Incoming>, &ConnectionContext) -> F,
) where
    F: Future<Output = Answer>,
{
    let (wire, outlet) = wire(stream);
    if let Ended::Done = answer_all(wire, &outlet, peer, rules, &signals, answer).await {
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
    signals: &Arc<Signals>,
    answer: impl Fn(Request<Incoming>, &ConnectionContext) -> F,
) -> Ended
where
    F: Future<Output = Answer>,
{
    let context = ConnectionContext::new(peer);
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
    let mut watch = Aside::new(watch(rules, Arc::clone(signals)));
    let mut gate = Gate::new(rules.batches, rules.store_patience);
    let (mut told, mut done) = (false, false);
    // While a handler takes its time: ends when the client has left.
    let mut gone: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
    // Whether the first bytes have come, and how many the client had taken when it last got more time.
    let (mut is_new, mut taken) = (true, 0);
    std::future::poll_fn(|cx| {
        match watch.poll(cx) {
            Poll::Pending => {}
            Poll::Ready(Ended::HeadLate) if outlet.has_heard() => {
                outlet.gather(&rules.head_late);
                return Poll::Ready(Ended::Done);
            }
            Poll::Ready(Ended::HeadLate) => return Poll::Ready(Ended::Cut),
            Poll::Ready(ended) => return Poll::Ready(ended),
        }
        if gone.as_mut().is_some_and(|gone| gone.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ended::Cut);
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
                let polled = connection.as_mut().poll(cx);
                done = polled.is_ready();
                if matches!(&polled, Poll::Ready(Err(error)) if error.is_parse())
                    && let Some(status) = outlet.bare_status()
                {
                    outlet.replace_bare(rules.refusal(status, outlet));
                }
                context.take_owed().into_iter().for_each(|owed| gate.owe(owed));
                let turned = requests.take_turned();
                // A head that is begun has to be completed in time; a new one gets a new deadline.
                if turned || !outlet.lacks_bytes() || requests.in_flight() || is_new && outlet.has_heard() {
                    signals.head_deadline.clear();
                    is_new &= !outlet.has_heard();
                }
                if turned {
                    outlet.forget_heard();
                }
                if !requests.in_flight() {
                    gone = None;
                } else if gone.is_none() {
                    let mut waits: Pin<Box<dyn Future<Output = ()> + Send>> =
                        Box::pin(outlet.gone(HALF_CLOSED_PATIENCE.min(rules.patience)));
                    if waits.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Ended::Cut);
                    }
                    gone = Some(waits);
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
            let sent = outlet.send(cx);
            // Not before all is sent: a client that waits for its answers, or takes them slowly, need not send.
            if matches!(sent, Ok(Sent::All))
                && outlet.lacks_bytes()
                && !requests.in_flight()
                && signals.head_deadline.get().is_none()
            {
                let patience = if is_new { rules.first_byte_patience.min(rules.patience) } else { rules.patience };
                signals.head_deadline.set(Instant::now() + patience);
            }
            match sent {
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
                    // Not anew each time: the client has to take some in time, and not just a few bytes.
                    let now_taken = outlet.taken();
                    if signals.write_deadline.get().is_none() || now_taken >= taken + PROGRESS_BYTES {
                        taken = now_taken;
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

/// How long a client may still wait for an answer after it has closed its sending side. One that has closed all of
/// its connection looks the same.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(2);
