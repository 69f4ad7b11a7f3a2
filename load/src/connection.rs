//! One connection to the server: bytes out, bytes in, and the requests that wait for an answer.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::request::Written;

const INPUT_BYTES: usize = 16 * 1024;

/// Largest answer that is read; a larger one ends the connection.
const INPUT_BYTES_MAX: usize = 1 << 30;

/// A request under way.
#[derive(Debug)]
pub struct InFlight {
    pub written: Written,
    pub intended_ns: u64,
    /// When it was handed to this connection.
    pub queued_ns: u64,
    /// Offset of its first byte in everything this connection was ever given to send.
    starts_at: u64,
}

/// Why a connection can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    Refused,
    Reset,
    ClosedByServer,
    Timeout,
    Malformed,
    /// Nothing is wrong: the answer said that it was the last one.
    Finished,
}

impl Lost {
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Refused => "can't connect",
            Self::Reset => "connection reset",
            Self::ClosedByServer | Self::Finished => "connection closed by the server",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed answer",
        }
    }

    fn from_io(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::AddrNotAvailable | ErrorKind::NotConnected => Self::Refused,
            _ => Self::Reset,
        }
    }
}

#[derive(Debug, Default)]
pub struct Connection {
    stream: Option<TcpStream>,
    pub connecting: bool,
    output: Vec<u8>,
    written: usize,
    /// Bytes accepted by the kernel in the life of this connection.
    sent: u64,
    input: Vec<u8>,
    parsed: usize,
    filled: usize,
    pub in_flight: VecDeque<InFlight>,
    /// Whether it stands in the worker's queue of connections that may take a request.
    pub queued: bool,
    /// Whether the worker waits for it to become writable.
    pub wants_write: bool,
}

impl Connection {
    /// Not connected yet, and in the queue of those that may take a request.
    #[must_use]
    pub fn free() -> Self {
        Self { queued: true, ..Self::default() }
    }

    #[must_use]
    pub fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    /// Begins to connect, without waiting for it.
    ///
    /// # Errors
    /// If that is refused at once.
    pub fn open(&mut self, address: SocketAddr) -> Result<&TcpStream, Lost> {
        let open = || {
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            socket.set_tcp_nodelay(true)?;
            match socket.connect(&address.into()) {
                Ok(()) => Ok((socket, false)),
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                    Ok((socket, true))
                }
                Err(error) => Err(error),
            }
        };
        let (socket, connecting) = open().map_err(|error: std::io::Error| Lost::from_io(&error))?;
        self.connecting = connecting;
        Ok(self.stream.insert(socket.into()))
    }

    /// After the socket became writable for the first time.
    ///
    /// # Errors
    /// If it did because connecting failed.
    pub fn finish_connecting(&mut self) -> Result<(), Lost> {
        self.connecting = false;
        match self.stream.as_ref().map(TcpStream::take_error) {
            Some(Ok(None)) => Ok(()),
            _ => Err(Lost::Refused),
        }
    }

    /// Buffer for the bytes of the next request; follow with [`Self::push`].
    pub fn output(&mut self) -> (&mut Vec<u8>, usize) {
        let begins = self.output.len();
        (&mut self.output, begins)
    }

    /// Registers the request whose bytes begin at `begins` of the output.
    pub fn push(&mut self, written: Written, begins: usize, intended_ns: u64, queued_ns: u64) {
        let starts_at = self.sent + (begins - self.written) as u64;
        self.in_flight.push_back(InFlight { written, intended_ns, queued_ns, starts_at });
    }

    /// Sends what the kernel takes; `true` once nothing is left.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn flush(&mut self, bytes_sent: &mut u64) -> Result<bool, Lost> {
        if self.connecting {
            return Ok(false);
        }
        let Some(stream) = &mut self.stream else { return Ok(true) };
        while self.written < self.output.len() {
            match stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(Lost::Reset),
                Ok(written) => {
                    self.written += written;
                    self.sent += written as u64;
                    *bytes_sent += written as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Lost::from_io(&error)),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(true)
    }

    /// Reads once; the poll is level-triggered and reports what is left.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn fill(&mut self, bytes_received: &mut u64) -> Result<(), Lost> {
        if self.parsed == self.filled {
            self.parsed = 0;
            self.filled = 0;
        } else if self.filled == self.input.len() && self.parsed > 0 {
            self.input.copy_within(self.parsed..self.filled, 0);
            self.filled -= self.parsed;
            self.parsed = 0;
        }
        if self.filled == self.input.len() {
            if self.input.len() >= INPUT_BYTES_MAX {
                return Err(Lost::Malformed);
            }
            self.input.resize((self.input.len() * 2).max(INPUT_BYTES), 0);
        }
        let Some(stream) = &mut self.stream else { return Ok(()) };
        match stream.read(&mut self.input[self.filled..]) {
            Ok(0) => Err(Lost::ClosedByServer),
            Ok(read) => {
                self.filled += read;
                *bytes_received += read as u64;
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(Lost::from_io(&error)),
        }
    }

    /// Received bytes that have not been understood yet.
    #[must_use]
    pub fn unparsed(&self) -> &[u8] {
        &self.input[self.parsed..self.filled]
    }

    pub fn consume(&mut self, len: usize) {
        self.parsed = (self.parsed + len).min(self.filled);
    }

    /// Closes the connection. What was under way is returned; `true` with those of which the server
    /// may have seen something.
    pub fn close(&mut self) -> Vec<(InFlight, bool)> {
        let sent = self.sent;
        let in_flight = self.in_flight.drain(..).map(|request| (request.starts_at < sent, request));
        let in_flight = in_flight.map(|(seen, request)| (request, seen)).collect();
        // The buffers stay for the next connection in this place, but not the large ones.
        self.input.truncate(INPUT_BYTES);
        self.output.clear();
        *self = Self {
            input: std::mem::take(&mut self.input),
            output: std::mem::take(&mut self.output),
            queued: self.queued,
            ..Self::default()
        };
        in_flight
    }
}
