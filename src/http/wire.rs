//! The bytes of one connection: what hyper writes is gathered and leaves in one system call each
//! time the connection goes to sleep.
//!
//! So the answers to pipelined requests share one write. hyper's own `pipeline_flush` does the same
//! while its read buffer is not empty, but then it also withholds answers that nothing follows:
//! before a half-received request, before a refusal (400, 431), and when the connection closes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Beyond this, hyper has to wait until the client has taken some.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// A buffer that grew beyond this is given back when it is empty, so that idle connections are small.
const KEPT_BYTES_MAX: usize = 4 * 1024;

#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// hyper was told to wait.
    refused: bool,
}

/// What both sides see. They live in one task, so the lock is never contended.
#[derive(Default)]
struct Shared {
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
    write: OwnedWriteHalf,
    shared: Arc<Shared>,
    /// What is gathered begins in the middle of an answer.
    partly_sent: bool,
}

pub(super) fn wire(stream: TcpStream) -> (Wire, Outlet) {
    let (read, write) = stream.into_split();
    let shared = Arc::<Shared>::default();
    (Wire { read: TokioIo::new(read), shared: Arc::clone(&shared) }, Outlet { write, shared, partly_sent: false })
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

impl Outlet {
    /// Whether hyper waits for the client to send something.
    pub(super) fn lacks_bytes(&self) -> bool {
        self.shared.lacks_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.shared.gathered.lock().bytes.is_empty()
    }

    /// Puts `answer` in the place of all that is gathered; `false` when some of that is sent already.
    pub(super) fn answer_instead(&mut self, answer: &[u8]) -> bool {
        let mut gathered = self.shared.gathered.lock();
        // A long body comes in pieces: only a status line is the beginning of an answer.
        let replaceable = !self.partly_sent && gathered.bytes.starts_with(b"HTTP/1.1 ");
        if replaceable {
            gathered.bytes.clear();
            gathered.bytes.extend_from_slice(answer);
        }
        replaceable
    }

    /// Sends what is gathered, as far as the client takes it.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> io::Result<Sent> {
        let mut gathered = self.shared.gathered.lock();
        let mut sent = 0;
        while sent < gathered.bytes.len() {
            match Pin::new(&mut self.write).poll_write(cx, &gathered.bytes[sent..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => sent += bytes,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    gathered.bytes.drain(..sent);
                    self.partly_sent = true;
                    return Ok(Sent::Some);
                }
            }
        }
        self.partly_sent = false;
        if gathered.bytes.capacity() > KEPT_BYTES_MAX {
            gathered.bytes = Vec::new();
        } else {
            gathered.bytes.clear();
        }
        Ok(if std::mem::take(&mut gathered.refused) { Sent::AllAndMoreWaits } else { Sent::All })
    }

    /// Sends the rest and closes our side, then waits for the client to close its own. Without that
    /// wait, bytes that nobody reads would reset the connection, and the reset may overtake the
    /// answer.
    pub(super) async fn close(mut self) {
        let sent = std::future::poll_fn(|cx| match self.send(cx) {
            Ok(Sent::Some) => Poll::Pending,
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        });
        if sent.await.is_err() || self.write.shutdown().await.is_err() {
            return;
        }
        let stream: &TcpStream = self.write.as_ref();
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut [0; 4096]) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}
