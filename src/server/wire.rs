//! The bytes of one connection: what hyper writes is gathered and leaves in one system call each
//! time the connection goes to sleep.
//!
//! So the answers to pipelined requests share one write. hyper's own `pipeline_flush` does the same
//! while its read buffer is not empty, but then it also withholds answers that nothing follows:
//! before a half-received request, before a refusal (400, 431), and when the connection closes.

use std::io;
use std::net::Shutdown;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Beyond this, hyper has to wait until the client has taken some.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// Of which sizes an empty buffer is kept: a smaller one, of a single answer, is made anew as quickly, and
/// idle connections are to be small.
const KEPT_BYTES: RangeInclusive<usize> = 512..=4 * 1024;

#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// hyper was told to wait.
    refused: bool,
    /// What is gathered begins in the middle of an answer.
    partly_sent: bool,
    /// Counts how often hyper got its turn to write again; see [`Loan`].
    turn: u64,
}

/// What both sides see, and who sends for this connection among others. The lock is hardly ever
/// contended.
struct Shared {
    write: OwnedWriteHalf,
    gathered: Mutex<Gathered>,
    /// hyper has asked for bytes and got none.
    lacks_bytes: AtomicBool,
}

/// hyper's side.
pub(super) struct Wire {
    read: TokioIo<OwnedReadHalf>,
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
    let shared = Arc::new(Shared { write, gathered: Mutex::default(), lacks_bytes: AtomicBool::new(false) });
    (Wire { read: TokioIo::new(read), shared: Arc::clone(&shared) }, Outlet { shared })
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.read).poll_read(cx, into);
        self.shared.lacks_bytes.store(read.is_pending(), Ordering::Relaxed);
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
                Ok(bytes) => sent += bytes,
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
