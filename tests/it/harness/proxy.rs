//! A TCP proxy in front of PostgreSQL that can lose the answer to a COMMIT, fall silent or refuse, and
//! do harm to any one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// The answer to the next COMMIT of a transaction that wrote is swallowed and the connection cut.
    LoseCommit,
    /// What a transaction has read arrives [`SLOW`] after its snapshot was taken; commits are quick.
    SlowReads,
    /// After so many rows that were read there is a pause of [`PAUSE`]: a long list comes slowly, but it
    /// comes.
    Trickle(u64),
    /// Nothing comes through any more, in either direction; connections stay open.
    Silent,
    /// Connections are closed at once.
    Closed,
    /// What becomes of the nth request from now on, whichever connection it is on; 1 is the next.
    Request(u64, Mishap),
}

/// A request is a whole one: a simple query, or everything up to a Sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mishap {
    /// It is not passed on and answered with an error, as by a pooler that is full. The session lives.
    Refuse,
    /// It is not passed on and the connection is cut.
    Cut,
    /// It is done, but the connection is cut instead of answering.
    LoseAnswer,
    /// It is done, but its answer comes later than anybody waits.
    Delay,
}

/// Long enough for some flushes.
const SLOW: Duration = Duration::from_millis(100);
/// Shorter than anybody's patience with a list.
const PAUSE: Duration = Duration::from_millis(200);

pub struct Proxy {
    port: u16,
    fault: watch::Sender<Fault>,
    lost_commits: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(target_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (fault, lost_commits) = (watch::Sender::new(Fault::None), Arc::new(AtomicU64::new(0)));
        let requests = Arc::new(AtomicU64::new(0));
        let connection = Connection {
            fault: fault.clone(),
            lost_commits: Arc::clone(&lost_commits),
            requests: Arc::clone(&requests),
        };
        let connections = Arc::new(AtomicU64::new(0));
        let taken = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                taken.fetch_add(1, Ordering::Relaxed);
                if *connection.fault.borrow() == Fault::Closed {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", target_port)).await else { continue };
                tokio::spawn(connection.clone().run(client, server));
            }
        });
        Self { port, fault, lost_commits, requests, connections, task }
    }

    /// The URL of the same database through the proxy. Without TLS, so that it can read along.
    pub fn url(&self, direct: &str) -> String {
        let mut url = url::Url::parse(direct).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.set_query(Some("sslmode=disable"));
        url.into()
    }

    pub fn set(&self, fault: Fault) {
        self.requests.store(0, Ordering::SeqCst);
        self.fault.send_replace(fault);
    }

    /// Whether the fault for one thing has happened.
    pub fn has_struck(&self) -> bool {
        *self.fault.borrow() == Fault::None
    }

    /// How many connections have been made through it.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many answers to a COMMIT have been lost so far.
    pub fn lost_commits(&self) -> u64 {
        self.lost_commits.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Connection {
    fault: watch::Sender<Fault>,
    lost_commits: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

/// What the two directions of one connection tell each other.
struct Dialogue {
    to_client: tokio::sync::Mutex<OwnedWriteHalf>,
    /// How many times the server was ready for the next request, and in which state it was then.
    ready: watch::Sender<(u64, u8)>,
    /// Nothing more goes to the client.
    mute: AtomicBool,
}

impl Dialogue {
    /// Until so many requests were answered, the first of them the log-in. The server's state then.
    async fn answered(&self, requests: u64) -> Option<u8> {
        let mut ready = self.ready.subscribe();
        ready.wait_for(|(times, _)| *times >= requests).await.ok().map(|ready| ready.1)
    }
}

/// "Too many connections", and ready for the next request.
fn refusal(state: u8) -> Vec<u8> {
    let fields = b"SERROR\0VERROR\0C53300\0Mno more connections allowed\0\0";
    let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
    [&b"E"[..], &length, fields, b"Z", &5_u32.to_be_bytes(), &[state]].concat()
}

impl Connection {
    async fn run(self, client: TcpStream, server: TcpStream) {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let mut fault = self.fault.subscribe();
        let dialogue = Dialogue {
            to_client: tokio::sync::Mutex::new(to_client),
            ready: watch::Sender::new((0, b'I')),
            mute: AtomicBool::new(false),
        };
        // Whichever way ends first closes both.
        tokio::select! {
            () = self.requests(from_client, to_server, &dialogue) => {}
            () = self.answers(from_server, &dialogue) => {}
            _ = fault.wait_for(|fault| *fault == Fault::Closed) => {}
        }
    }

    async fn passing(&self) {
        let mut fault = self.fault.subscribe();
        let _ = fault.wait_for(|fault| *fault != Fault::Silent).await;
    }

    /// The first message has no type byte; then they are as those of the server.
    async fn requests(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, dialogue: &Dialogue) {
        let mut request = Vec::new();
        let mut passed = 0;
        let mut kind = None;
        loop {
            let Ok(length) = from.read_u32().await else { return };
            request.extend(kind);
            request.extend(length.to_be_bytes());
            let begun = request.len();
            request.resize(begun + length as usize - 4, 0);
            if from.read_exact(&mut request[begun..]).await.is_err() {
                return;
            }
            self.passing().await;
            if matches!(kind, None | Some(b'Q' | b'S')) {
                let mishap = kind.and_then(|_| self.take_mishap());
                if mishap == Some(Mishap::Cut) {
                    return;
                }
                if mishap == Some(Mishap::Refuse) {
                    let Some(state) = dialogue.answered(passed).await else { return };
                    let answer = refusal(state);
                    if dialogue.to_client.lock().await.write_all(&answer).await.is_err() {
                        return;
                    }
                } else {
                    if mishap.is_some() {
                        dialogue.answered(passed).await;
                        dialogue.mute.store(true, Ordering::SeqCst);
                    }
                    if to.write_all(&request).await.is_err() {
                        return;
                    }
                    passed += 1;
                    if mishap == Some(Mishap::LoseAnswer) {
                        dialogue.answered(passed).await;
                        return;
                    }
                }
                request.clear();
            } else if kind == Some(b'X') {
                return;
            }
            let Ok(next) = from.read_u8().await else { return };
            kind = Some(next);
        }
    }

    fn take_mishap(&self) -> Option<Mishap> {
        let Fault::Request(nth, mishap) = *self.fault.borrow() else { return None };
        let struck = self.requests.fetch_add(1, Ordering::SeqCst) + 1 == nth;
        if struck {
            self.fault.send_replace(Fault::None);
        }
        struck.then_some(mishap)
    }

    /// Message by message: a type byte and a length that counts itself.
    async fn answers(&self, mut from: OwnedReadHalf, dialogue: &Dialogue) {
        let (mut has_written, mut rows) = (false, 0_u64);
        while let Ok(kind) = from.read_u8().await {
            let Ok(length) = from.read_u32().await else { return };
            let mut body = vec![0; length as usize - 4];
            if from.read_exact(&mut body).await.is_err() {
                return;
            }
            self.passing().await;
            if kind == b'D' {
                rows += 1;
                let fault = *self.fault.borrow();
                if matches!(fault, Fault::Trickle(many) if rows % many == 0) {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if kind == b'C' {
                if body == b"COMMIT\0" {
                    if has_written && self.take_commit_fault() {
                        return;
                    }
                    if !has_written && *self.fault.borrow() == Fault::SlowReads {
                        tokio::time::sleep(SLOW).await;
                    }
                    has_written = false;
                }
                has_written |= body.starts_with(b"INSERT") || body.starts_with(b"UPDATE");
            }
            let message = [&[kind][..], &length.to_be_bytes(), &body].concat();
            let is_mute = dialogue.mute.load(Ordering::SeqCst);
            if !is_mute && dialogue.to_client.lock().await.write_all(&message).await.is_err() {
                return;
            }
            if kind == b'Z' {
                dialogue.ready.send_modify(|(times, state)| {
                    *times += 1;
                    *state = body[0];
                });
            }
        }
    }

    fn take_commit_fault(&self) -> bool {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock();
        let armed = *self.fault.borrow() == Fault::LoseCommit;
        if armed {
            self.lost_commits.fetch_add(1, Ordering::Relaxed);
            self.fault.send_replace(Fault::None);
        }
        armed
    }
}
