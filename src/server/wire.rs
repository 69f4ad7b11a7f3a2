//! The bytes of one connection: what hyper writes is gathered and leaves in one system call each
//! time the connection goes to sleep.
//!
//! So the answers to pipelined requests share one write. hyper's own `pipeline_flush` does the same
//! while its read buffer is not empty, but then it also withholds answers that nothing follows:
//! before a half-received request, before a refusal (400, 431), and when the connection closes.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use memchr::memmem;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::target::Line;

/// Beyond this, hyper has to wait until the client has taken some.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// Of which sizes an empty buffer is kept: a smaller one, of a single answer, is made anew as quickly, and
/// idle connections are to be small.
const KEPT_BYTES: RangeInclusive<usize> = 512..=4 * 1024;
/// Ready when the client's side is closed.
#[cfg(target_os = "linux")]
const CLOSES: Interest = Interest::PRIORITY.add(Interest::ERROR);
#[cfg(not(target_os = "linux"))]
const CLOSES: Interest = Interest::ERROR;
/// What is read at one go.
const READ_BYTES_MAX: usize = 16 * 1024;

#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// hyper was told to wait.
    refused: bool,
    /// What is gathered begins in the middle of an answer.
    partly_sent: bool,
    /// Counts how often hyper got its turn to write again; see [`Loan`].
    turn: u64,
    /// Bytes that the client's side of the network has taken in all.
    taken: u64,
}

/// What both sides see, and who sends for this connection among others. The lock is hardly ever
/// contended.
struct Shared {
    write: OwnedWriteHalf,
    gathered: Mutex<Gathered>,
    /// hyper has asked for bytes and got none.
    lacks_bytes: AtomicBool,
    /// The client has sent something since [`Outlet::forget_heard`].
    heard: AtomicBool,
    /// The target of a request had a `#`.
    has_fragment: AtomicBool,
}

/// hyper's side.
pub(super) struct Wire {
    read: OwnedReadHalf,
    line: Line,
    shared: Arc<Shared>,
}

/// The side that sends.
pub(super) struct Outlet {
    shared: Arc<Shared>,
}

/// The right to send what was gathered when it was lent, for who sends for several connections. It
/// ends when the connection takes it back: what is gathered later is not meant.
pub(super) struct Loan {
    shared: Arc<Shared>,
    turn: u64,
}

pub(super) fn wire(stream: TcpStream) -> (Wire, Outlet) {
    let (read, write) = stream.into_split();
    let no = || AtomicBool::new(false);
    let shared = Shared { write, gathered: Mutex::default(), lacks_bytes: no(), heard: no(), has_fragment: no() };
    let shared = Arc::new(shared);
    (Wire { read, line: Line::default(), shared: Arc::clone(&shared) }, Outlet { shared })
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        // Not into hyper's buffer, where nobody may look at the bytes.
        let mut room = [MaybeUninit::uninit(); READ_BYTES_MAX];
        let wanted = into.remaining().min(READ_BYTES_MAX);
        let mut room = ReadBuf::uninit(&mut room[..wanted]);
        let read = Pin::new(&mut self.read).poll_read(cx, &mut room);
        self.shared.lacks_bytes.store(read.is_pending(), Ordering::Relaxed);
        if !room.filled().is_empty() {
            self.shared.heard.store(true, Ordering::Relaxed);
            if self.line.refuse_fragment(room.filled_mut()) {
                self.shared.has_fragment.store(true, Ordering::Relaxed);
            }
            into.put_slice(room.filled());
        }
        read
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut gathered = self.shared.gathered.lock();
        if gathered.bytes.len() >= GATHERED_BYTES_MAX {
            gathered.refused = true;
            return Poll::Pending;
        }
        gathered.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What became of sending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sent {
    All,
    /// The same, and hyper waits to write more: poll it again.
    AllAndMoreWaits,
    /// The client does not take more now; the task will be woken.
    Some,
}

impl Shared {
    fn send(&self, gathered: &mut Gathered) -> io::Result<Sent> {
        let mut sent = 0;
        while sent < gathered.bytes.len() {
            match self.write.try_write(&gathered.bytes[sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    sent += bytes;
                    gathered.taken += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    gathered.bytes.drain(..sent);
                    gathered.partly_sent |= sent > 0;
                    return Ok(Sent::Some);
                }
                Err(error) => return Err(error),
            }
        }
        gathered.partly_sent = false;
        if KEPT_BYTES.contains(&gathered.bytes.capacity()) {
            gathered.bytes.clear();
        } else {
            gathered.bytes = Vec::new();
        }
        Ok(if std::mem::take(&mut gathered.refused) { Sent::AllAndMoreWaits } else { Sent::All })
    }
}

impl Loan {
    /// Sends all; `false` if the connection has to look after it itself.
    pub(super) fn send(&self) -> bool {
        let mut gathered = self.shared.gathered.lock();
        gathered.turn != self.turn || matches!(self.shared.send(&mut gathered), Ok(Sent::All))
    }
}

impl Outlet {
    /// Whether hyper waits for the client to send something.
    pub(super) fn lacks_bytes(&self) -> bool {
        self.shared.lacks_bytes.load(Ordering::Relaxed)
    }

    /// Whether the client has sent something that is no request yet, as far as can be told.
    pub(super) fn has_heard(&self) -> bool {
        self.shared.heard.load(Ordering::Relaxed)
    }

    /// What the client has sent so far belongs to requests.
    pub(super) fn forget_heard(&self) {
        self.shared.heard.store(false, Ordering::Relaxed);
    }

    /// Whether the target of a request had a `#`: then hyper has refused it.
    pub(super) fn has_fragment(&self) -> bool {
        self.shared.has_fragment.load(Ordering::Relaxed)
    }

    /// How much the client has taken since the connection began, in bytes.
    pub(super) fn taken(&self) -> u64 {
        self.shared.gathered.lock().taken
    }

    /// Ends when the client has left: at once when its side is gone, some time after it has only said that it
    /// sends no more, which a client may do that still waits for its answer.
    pub(super) fn gone(&self, half_closed_patience: Duration) -> impl Future<Output = ()> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            // What the client sends meanwhile does not end the wait, unlike with `READABLE`.
            let closes = shared.write.ready(CLOSES).await;
            if closes.is_ok_and(|ready| !ready.is_error()) {
                let _ = tokio::time::timeout(half_closed_patience, shared.write.ready(Interest::ERROR)).await;
            }
        }
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.shared.gathered.lock().bytes.is_empty()
    }

    /// Puts `answer` in the place of all that is gathered; `false` when some of that is sent already.
    pub(super) fn answer_instead(&self, answer: &[u8]) -> bool {
        let mut gathered = self.shared.gathered.lock();
        // A long body comes in pieces: only a status line is the beginning of an answer.
        let replaceable = !gathered.partly_sent && gathered.bytes.starts_with(b"HTTP/1.1 ");
        if replaceable {
            gathered.bytes.clear();
            gathered.bytes.extend_from_slice(answer);
        }
        replaceable
    }

    /// The status of the answer that hyper has given by itself and that is gathered last. hyper ends the
    /// connection after it. Its answers have no body, ours all have.
    pub(super) fn bare_status(&self) -> Option<u16> {
        let gathered = self.shared.gathered.lock();
        let bare = &gathered.bytes[memmem::rfind(&gathered.bytes, b"HTTP/1.")?..];
        let is_bare = memmem::find(bare, b"\r\ncontent-length: 0\r\n").is_some() && bare.ends_with(b"\r\n\r\n");
        let status = std::str::from_utf8(bare.get(9..12)?).ok()?.parse().ok()?;
        (is_bare && [400, 414, 431].contains(&status)).then_some(status)
    }

    /// Puts `answer` in the place of that one.
    pub(super) fn replace_bare(&self, answer: &[u8]) {
        let mut gathered = self.shared.gathered.lock();
        let begin = memmem::rfind(&gathered.bytes, b"HTTP/1.").unwrap_or(gathered.bytes.len());
        gathered.bytes.truncate(begin);
        gathered.bytes.extend_from_slice(answer);
    }

    /// An answer of ours after all that is gathered.
    pub(super) fn gather(&self, answer: &[u8]) {
        self.shared.gathered.lock().bytes.extend_from_slice(answer);
    }

    /// Lets somebody else send what is gathered. To be taken back before hyper writes again.
    pub(super) fn lend(&self) -> Loan {
        Loan { shared: Arc::clone(&self.shared), turn: self.shared.gathered.lock().turn }
    }

    pub(super) fn take_back(&self) {
        self.shared.gathered.lock().turn += 1;
    }

    /// Sends what is gathered, as far as the client takes it; after [`Sent::Some`] the task is woken
    /// when it takes more.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn send(&self, cx: &mut Context<'_>) -> io::Result<Sent> {
        let stream: &TcpStream = self.shared.write.as_ref();
        loop {
            match self.shared.send(&mut self.shared.gathered.lock())? {
                Sent::Some => match stream.poll_write_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => return Ok(Sent::Some),
                },
                all => return Ok(all),
            }
        }
    }

    /// Sends the rest and closes our side, then waits for the client to close its own. Without that
    /// wait, bytes that nobody reads would reset the connection, and the reset may overtake the
    /// answer.
    pub(super) async fn close(self) {
        let sent = std::future::poll_fn(|cx| match self.send(cx) {
            Ok(Sent::Some) => Poll::Pending,
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        });
        let stream: &TcpStream = self.shared.write.as_ref();
        if sent.await.is_err() || SockRef::from(stream).shutdown(Shutdown::Write).is_err() {
            return;
        }
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut [0; 4096]) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}
