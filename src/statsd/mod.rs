//! Counters over the StatsD protocol, by UDP and by TCP, off unless an address is configured.
//!
//! The protocol acknowledges nothing: what has arrived is counted as a request at level `memory` is, and what is
//! refused is known to this process only, which says so in its log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::batch::Batches;
use crate::domain::Hour;
use crate::node::{Clock, Node};
use lines::Lines;
pub use refusal::{Figures, Refusal};

#[cfg(test)]
mod fuzz;
mod lines;
mod parse;
mod refusal;

/// TCP connections; further ones are closed at once.
pub const CONNECTIONS_MAX: usize = 256;
/// How long a connection may be silent.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// More than a datagram can have.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Room for what arrives while this process has other things to do; the system may give less.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Datagrams that are taken before others get their turn.
const DATAGRAMS_AT_ONCE: usize = 64;
/// At a stop, sockets are read until nothing has come for so long, and no longer than this.
const LAST_PAUSE: Duration = Duration::from_millis(20);
const LAST_LOOK_MAX: Duration = Duration::from_secs(1);
const PIECE_BYTES: usize = 16 << 10;
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Sockets that wait for [`Statsd::run`].
pub struct Statsd {
    sink: Sink,
    udp: Option<UdpSocket>,
    tcp: Option<TcpListener>,
}

/// Where lines go.
#[derive(Clone)]
struct Sink {
    batches: Arc<Batches>,
    clock: Clock,
    figures: Arc<Figures>,
}

impl Statsd {
    /// Takes the addresses; an empty one is none.
    ///
    /// # Errors
    /// When an address can't be listened on.
    pub async fn bind(node: &Node, udp: &str, tcp: &str) -> anyhow::Result<Self> {
        let sink = Sink {
            batches: Arc::clone(&node.batches),
            clock: Arc::clone(&node.clock),
            figures: Arc::new(Figures::default()),
        };
        let failed = |address| move || format!("can't take StatsD counters at {address}");
        let udp = match udp {
            "" => None,
            address => {
                let socket = UdpSocket::bind(address).await.with_context(failed(address))?;
                // As much as the system grants.
                let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
                Some(socket)
            }
        };
        let tcp = match tcp {
            "" => None,
            address => Some(TcpListener::bind(address).await.with_context(failed(address))?),
        };
        Ok(Self { sink, udp, tcp })
    }

    /// What it listens on, for people: `udp 127.0.0.1:8125, tcp 127.0.0.1:8125`. Empty: nothing.
    #[must_use]
    pub fn addresses(&self) -> String {
        let udp = self.udp.iter().filter_map(|socket| Some(format!("udp {}", socket.local_addr().ok()?)));
        let tcp = self.tcp.iter().filter_map(|socket| Some(format!("tcp {}", socket.local_addr().ok()?)));
        udp.chain(tcp).collect::<Vec<_>>().join(", ")
    }

    /// What became of the lines.
    #[must_use]
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.sink.figures)
    }

    /// Counts until `stop`; then what the system has received already, and returns.
    pub async fn run(self, stop: CancellationToken) {
        let Self { sink, udp, tcp } = self;
        let datagrams = async {
            if let Some(socket) = &udp {
                take_datagrams(socket, &sink, &stop).await;
            }
        };
        let connections = async {
            if let Some(listener) = &tcp {
                take_connections(listener, &sink, &stop).await;
            }
        };
        let reports = async {
            let mut told = 0;
            while stop.run_until_cancelled(tokio::time::sleep(REPORT_INTERVAL)).await.is_some() {
                told = sink.report(told);
            }
            told
        };
        let ((), (), told) = tokio::join!(datagrams, connections, reports);
        sink.report(told);
    }
}

impl Sink {
    /// Lines of one piece that arrived together.
    fn count(&self, line: Result<&[u8], Refusal>, hour: Hour) {
        let line = match line {
            Ok(line) => line.trim_ascii_end(),
            Err(refusal) => return self.figures.note(refusal),
        };
        if line.is_empty() {
            return;
        }
        let recorded = parse::parse(line)
            .and_then(|(event, count)| self.batches.record(&event, hour, count).map_err(Refusal::from));
        match recorded {
            Ok(_) => self.figures.note_counted(),
            Err(refusal) => self.figures.note(refusal),
        }
    }

    fn hour(&self) -> Hour {
        Hour::containing((self.clock)())
    }

    fn datagram(&self, bytes: &[u8]) {
        let hour = self.hour();
        bytes.split(|byte| *byte == b'\n').for_each(|line| self.count(Ok(line), hour));
        self.batches.write_behind();
    }

    fn piece(&self, lines: &mut Lines, bytes: &[u8]) {
        let hour = self.hour();
        lines.push(bytes, |line| self.count(line, hour));
        self.batches.write_behind();
    }

    /// Says what was refused, if that is more than `told`.
    fn report(&self, told: u64) -> u64 {
        let refused = self.figures.all_refused();
        if refused > told {
            let counted = self.figures.counted();
            tracing::warn!(counted, refused, reasons = %self.figures, "StatsD lines were refused since the start");
        }
        refused
    }
}

async fn take_datagrams(socket: &UdpSocket, sink: &Sink, stop: &CancellationToken) {
    let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
    while let Some(ready) = stop.run_until_cancelled(socket.readable()).await {
        if ready.is_err() || !take_some(socket, sink, &mut bytes) {
            // A broken socket must not take a whole core.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::task::yield_now().await;
    }
    // Nothing that was received is left behind.
    let last_look = async {
        while let Ok(Ok(())) = tokio::time::timeout(LAST_PAUSE, socket.readable()).await {
            if !take_some(socket, sink, &mut bytes) {
                break;
            }
        }
    };
    // Who goes on sending does not keep the process from its end.
    let _ = tokio::time::timeout(LAST_LOOK_MAX, last_look).await;
}

/// Whether the socket works.
fn take_some(socket: &UdpSocket, sink: &Sink, bytes: &mut [u8]) -> bool {
    for _ in 0..DATAGRAMS_AT_ONCE {
        match socket.try_recv_from(bytes) {
            Ok((length, _)) => sink.datagram(&bytes[..length]),
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

async fn take_connections(listener: &TcpListener, sink: &Sink, stop: &CancellationToken) {
    let (room, tasks) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), TaskTracker::new());
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            // Open files are used up, mostly: some will be closed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        match Arc::clone(&room).try_acquire_owned() {
            Ok(permit) => {
                tasks.spawn(take_stream(stream, sink.clone(), stop.clone(), permit));
            }
            Err(_) => sink.figures.note(Refusal::Connection),
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn take_stream(stream: TcpStream, sink: Sink, stop: CancellationToken, _permit: OwnedSemaphorePermit) {
    let (mut lines, mut bytes) = (Lines::default(), vec![0; PIECE_BYTES]);
    let taking = async {
        let mut is_whole = None;
        while is_whole.is_none() {
            // Silent for too long, or stopping and nothing on its way.
            let silent = if stop.is_cancelled() { LAST_PAUSE } else { IDLE_MAX };
            let ready = tokio::time::timeout(silent, stream.readable());
            let ready = if stop.is_cancelled() { Some(ready.await) } else { stop.run_until_cancelled(ready).await };
            is_whole = match ready {
                None => continue,
                Some(Err(_) | Ok(Err(_))) => Some(false),
                Some(Ok(Ok(()))) => match stream.try_read(&mut bytes) {
                    Ok(0) => Some(true),
                    Ok(length) => {
                        sink.piece(&mut lines, &bytes[..length]);
                        None
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                    Err(_) => Some(false),
                },
            };
        }
        is_whole == Some(true)
    };
    let deadline = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_LOOK_MAX).await;
    };
    let is_whole = tokio::select! {
        is_whole = taking => is_whole,
        () = deadline => false,
    };
    let hour = sink.hour();
    lines.finish(is_whole, |line| sink.count(line, hour));
    sink.batches.write_behind();
}
