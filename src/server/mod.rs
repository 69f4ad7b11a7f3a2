//! The transport under both sides of HTTP: accepts, bounds the number of connections, drains.
//!
//! Reading order: this file, `seats` (who gets in), `connection`, `watch` and `wire` (around one connection), `target`
//! (what hyper would hide), `context` (what a connection knows), `gate` (when answers may leave), `date`.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use hyper::Request;
use hyper::body::Incoming;
use warp::reply::Response;

use crate::batch::Batches;
use crate::web::options::Options;
use crate::web::pace::PROGRESS_BYTES;
use crate::web::problem::{Problem, Unread};

mod connection;
mod context;
mod date;
mod gate;
mod seats;
mod target;
mod watch;
mod wire;

pub use context::ConnectionContext;
pub use date::learn_date;
pub use gate::Debt;
use seats::{Full, Seats};

/// An answer, and what must have happened before it may leave.
pub struct Answer {
    pub response: Response,
    pub debt: Option<Debt>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, debt: None }
    }
}

/// What is served: it answers every request, whatever happens.
pub trait Serve: Sync + 'static {
    /// Answers one request.
    fn answer(
        &'static self,
        request: Request<Incoming>,
        context: &ConnectionContext,
    ) -> impl Future<Output = Answer> + Send + use<Self>;

    /// The lines of the head, each with its end, that every answer has which is given without reading the request.
    fn unread(&self) -> String;

    fn options(&self) -> &Options;

    /// Whose journal and commits answers wait for.
    fn batches(&self) -> &Batches;

    /// From now on nothing new is accepted.
    fn begin_draining(&self);
}

/// Connections that the kernel completes while we are busy.
const BACKLOG: i32 = 4096;

/// How long accepting pauses when the system has no more file descriptors or memory: a failed accept
/// leaves the connection in the queue, so without a pause it would fail again at once, for ever.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds `address` (`host:port`); must be called within a tokio runtime.
///
/// # Errors
/// When the address is none, or taken, or not ours.
pub fn listen(address: &str) -> io::Result<TcpListener> {
    let mut error = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in address.to_socket_addrs()? {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the former process to fade.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves until `drain` is cancelled; then stops accepting, lets the requests in flight finish within
/// `drain_timeout_ms`, cuts what is left, and returns.
///
/// Spawn it as a task: accepting is quicker on a worker than on the thread that blocks in `main`.
pub async fn serve(listener: TcpListener, site: &'static impl Serve, drain: CancellationToken) {
    let options = site.options();
    let milliseconds = Duration::from_millis;
    let cut = CancellationToken::new();
    let unread = site.unread();
    let last_answer = |problem: Problem| problem.on_the_wire(&unread);
    let refusal = |why: Unread| last_answer(Problem::Unread(why));
    let rules: &'static connection::Rules = Box::leak(Box::new(connection::Rules {
        patience: milliseconds(options.header_timeout_ms),
        first_byte_patience: milliseconds(options.first_byte_timeout_ms),
        head_bytes_max: options.header_bytes_max,
        age_max: (options.connection_age_max_ms > 0).then(|| milliseconds(options.connection_age_max_ms)),
        batches: site.batches(),
        store_patience: milliseconds(options.store_ack_timeout_ms),
        unconfirmed: last_answer(Problem::NotConfirmed),
        store_late: last_answer(Problem::StoreAckTimeout),
        malformed: refusal(Unread::Malformed),
        fragment: refusal(Unread::Fragment),
        head_too_large: refusal(Unread::HeadTooLarge),
        target_too_long: refusal(Unread::TargetTooLong),
        head_late: refusal(Unread::HeadTimeout),
        drain: drain.clone(),
        cut: cut.clone(),
    }));
    let seats = Seats::new(options.connections_max, options.connections_per_client_max);
    let connections = TaskTracker::new();

    while let Some((stream, peer)) = accept(&listener, &drain).await {
        if !date::is_writable() {
            turn_away(&stream, &refusal(Unread::Clock));
            continue;
        }
        let seat = match seats.take(peer).await {
            Ok(seat) => seat,
            Err(full) => {
                let why = match full {
                    Full::All => Unread::TooManyConnections,
                    Full::Client => Unread::TooManyOfClient,
                };
                turn_away(&stream, &refusal(why));
                continue;
            }
        };
        // Without it, answers to pipelined requests wait for the client's delayed ACK.
        let _ = stream.set_nodelay(true);
        hold_back(&stream);
        connections.spawn(async move {
            let signals = seat.signals.clone();
            connection::serve(stream, peer, rules, signals, |request, context: &ConnectionContext| {
                site.answer(request, context)
            })
            .await;
            drop(seat);
        });
    }
    site.begin_draining();
    drop(listener);
    connections.close();
    if tokio::time::timeout(milliseconds(options.drain_timeout_ms), connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests did not finish in time and are cut off");
        cut.cancel();
        connections.wait().await;
    }
}

/// The kernel takes no more for a slow client than this, besides what is on its way: so what thousands of them do not
/// take is no burden. It says that there is room when half of it is sent, which is how progress is seen.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 2 * PROGRESS_BYTES as u32;

#[cfg(target_os = "linux")]
fn hold_back(stream: &TcpStream) {
    // Where the kernel refuses, slow clients are only measured less often.
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
}

#[cfg(not(target_os = "linux"))]
fn hold_back(_: &TcpStream) {}

/// The next connection; `None` when it is time to drain.
async fn accept(listener: &TcpListener, drain: &CancellationToken) -> Option<(TcpStream, IpAddr)> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => return Some((stream, peer.ip())),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::select! {
                    () = drain.cancelled() => return None,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

/// A client that left before we got to it.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Says 503 without waiting for anything: the accept loop must go on. What the client has sent is
/// read away where it is there already, since closing over unread bytes resets the connection and
/// may take the answer with it.
fn turn_away(stream: &TcpStream, answer: &[u8]) {
    let _ = stream.try_write(answer);
    let _ = stream.try_read(&mut [0; 4096]);
}
