//! A TCP proxy in front of PostgreSQL that can lose the answer to a COMMIT, fall silent or refuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Nothing comes through any more, in either direction; connections stay open.
    Silent,
    /// Connections are closed at once.
    Closed,
}

/// Long enough for some flushes.
const SLOW: Duration = Duration::from_millis(100);

pub struct Proxy {
    port: u16,
    fault: watch::Sender<Fault>,
    lost_commits: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(target_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (fault, lost_commits) = (watch::Sender::new(Fault::None), Arc::new(AtomicU64::new(0)));
        let connection = Connection { fault: fault.clone(), lost_commits: Arc::clone(&lost_commits) };
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *connection.fault.borrow() == Fault::Closed {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", target_port)).await else { continue };
                tokio::spawn(connection.clone().run(client, server));
            }
        });
        Self { port, fault, lost_commits, task }
    }

    /// The URL of the same database through the proxy. Without TLS, so that it can read along.
    pub fn url(&self, direct: &str) -> String {
        let mut url = url::Url::parse(direct).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.set_query(Some("sslmode=disable"));
        url.into()
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
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
}

impl Connection {
    async fn run(self, client: TcpStream, server: TcpStream) {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let mut fault = self.fault.subscribe();
        // Whichever way ends first closes both.
        tokio::select! {
            () = self.clone().requests(from_client, to_server) => {}
            () = self.answers(from_server, to_client) => {}
            _ = fault.wait_for(|fault| *fault == Fault::Closed) => {}
        }
    }

    async fn passing(&self) {
        let mut fault = self.fault.subscribe();
        let _ = fault.wait_for(|fault| *fault != Fault::Silent).await;
    }

    async fn requests(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            self.passing().await;
            if to.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    }

    /// Message by message: a type byte and a length that counts itself.
    async fn answers(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut has_written = false;
        while let Ok(kind) = from.read_u8().await {
            let Ok(length) = from.read_u32().await else { return };
            let mut body = vec![0; length as usize - 4];
            if from.read_exact(&mut body).await.is_err() {
                return;
            }
            self.passing().await;
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
            if to.write_all(&message).await.is_err() {
                return;
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
