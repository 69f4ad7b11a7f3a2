//! A TCP proxy between one node and PostgreSQL that knows a commit when it sees one: it loses the answer or the
//! request, delivers it after the retry, cuts at any byte, and kills the node at the worst moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::figures::{Fact, Figures};
use super::process::Victim;

/// How long at most a request is held that comes after its retry.
const LATE_MAX: Duration = Duration::from_millis(400);
/// Longer than a server takes that has not been frozen for good.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The largest message; there are none like it.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What becomes of all traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    Open,
    /// Nothing comes through any more, in either direction; connections stay open.
    Silent,
    /// Connections are closed at once.
    Closed,
}

/// When the node is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KillAt {
    /// The node has sent COMMIT, and the database does not get it.
    Commit,
    /// The database has committed, and the node does not hear of it.
    Committed,
}

/// What becomes of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Pass,
    /// It is done, and the connection is cut instead of answering.
    LoseAnswer,
    LoseRequest,
    /// The client's connection is cut, and the request is done some time later.
    Late(Duration),
    /// Of the request, so many bytes arrive.
    CutRequest(usize),
    /// Of the answer, so many bytes arrive.
    CutAnswer(usize),
    Kill(KillAt),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Request {
    /// Appends a batch to the log.
    Append,
    /// Folds some of the log.
    Fold,
    /// COMMIT of a transaction that has done one of these.
    Commit(Work),
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    Append,
    Fold,
}

/// What all proxies of a world have in common.
pub struct Weather {
    /// Whether anything goes wrong.
    pub is_rough: AtomicBool,
    /// Requests that are held back.
    pub late: AtomicUsize,
    pub figures: Arc<Figures>,
}

pub struct Proxy {
    port: u16,
    link: watch::Sender<Link>,
    armed: Arc<Mutex<Option<KillAt>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// # Errors
    /// When it can't listen.
    pub async fn start(server: u16, victim: Victim, weather: Arc<Weather>, seed: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (link, armed) = (watch::Sender::new(Link::Open), Arc::<Mutex<Option<KillAt>>>::default());
        let seeds = AtomicU64::new(seed);
        let shared = (link.clone(), Arc::clone(&armed));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (link, armed) = (shared.0.clone(), Arc::clone(&shared.1));
                if *link.borrow() == Link::Closed {
                    continue;
                }
                let random = StdRng::seed_from_u64(seeds.fetch_add(1, Ordering::Relaxed));
                let (victim, weather) = (victim.clone(), Arc::clone(&weather));
                let random = Mutex::new(random);
                let connection = Connection { link, armed, victim, weather, random };
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                        connection.run(client, server).await;
                    }
                });
            }
        });
        Ok(Self { port, link, armed, task })
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// Kills the node at the next such moment, or not any more.
    pub fn arm(&self, at: Option<KillAt>) {
        *self.armed.lock() = at;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Connection {
    link: watch::Sender<Link>,
    armed: Arc<Mutex<Option<KillAt>>>,
    victim: Victim,
    weather: Arc<Weather>,
    random: Mutex<StdRng>,
}

/// What the two directions of one connection tell each other.
struct Dialogue {
    /// How many times the server was ready for the next request, and whether it had committed just before.
    ready: watch::Sender<(u64, bool)>,
    /// How many bytes still go to the client, if not all.
    left: Mutex<Option<usize>>,
}

impl Dialogue {
    /// Until so many requests were answered, the first of them the log-in; whether the last was a COMMIT.
    async fn answered(&self, requests: u64) -> bool {
        let mut ready = self.ready.subscribe();
        let answered = timeout(ANSWER_MAX, ready.wait_for(|(times, _)| *times >= requests)).await;
        answered.is_ok_and(|answered| answered.is_ok_and(|ready| ready.1))
    }
}

/// How a connection ended, seen from the client.
enum End {
    Closed,
    /// This is still to be done.
    Late(Vec<u8>, Request, Duration),
}

impl Connection {
    async fn run(self, client: TcpStream, server: TcpStream) {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let dialogue = Dialogue { ready: watch::Sender::new((0, false)), left: Mutex::new(None) };
        let mut link = self.link.subscribe();
        // Whichever way ends first closes both.
        let end = tokio::select! {
            end = self.requests(from_client, &mut to_server, &dialogue) => end.unwrap_or(End::Closed),
            _ = self.answers(&mut from_server, to_client, &dialogue) => End::Closed,
            _ = link.wait_for(|link| *link == Link::Closed) => End::Closed,
        };
        if let End::Late(request, kind, wait) = end {
            self.weather.late.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(wait).await;
            let done = timeout(ANSWER_MAX, arrive_late(&request, kind, &mut from_server, &mut to_server)).await;
            match done {
                Ok(Some(true)) => self.weather.figures.note(Fact::Zombies),
                Ok(Some(false)) => self.weather.figures.note(Fact::ZombiesOfNothing),
                Ok(None) | Err(_) => {}
            }
            self.weather.late.fetch_sub(1, Ordering::SeqCst);
        }
    }

    async fn passing(&self) {
        let _ = self.link.subscribe().wait_for(|link| *link != Link::Silent).await;
    }

    /// The first message has no type byte; then they are as those of the server.
    async fn requests(&self, mut from: OwnedReadHalf, to: &mut OwnedWriteHalf, dialogue: &Dialogue) -> Option<End> {
        let mut request = Vec::new();
        let (mut passed, mut kind, mut done) = (0, None, None);
        loop {
            let length = from.read_u32().await.ok()? as usize;
            request.extend(kind);
            request.extend(u32::try_from(length).ok()?.to_be_bytes());
            let begun = request.len();
            if !(4..MESSAGE_BYTES_MAX).contains(&length) {
                return None;
            }
            request.resize(begun + length - 4, 0);
            from.read_exact(&mut request[begun..]).await.ok()?;
            self.passing().await;
            if kind == Some(b'X') {
                return None;
            }
            // A request is a whole one: the log-in, a simple query, or everything up to a Sync.
            if matches!(kind, None | Some(b'Q' | b'S')) {
                let asks = classify(&request, done);
                done = match asks {
                    Request::Append => Some(Work::Append),
                    Request::Fold => Some(Work::Fold),
                    Request::Commit(_) => None,
                    Request::Other => done,
                };
                passed += 1;
                let fate = if kind.is_some() { self.fate(asks, request.len()) } else { Fate::Pass };
                if let Some(end) = self.suffer(fate, asks, &mut request, to, dialogue, passed).await? {
                    return Some(end);
                }
                request.clear();
            }
            kind = Some(from.read_u8().await.ok()?);
        }
    }

    /// Lets the fate of a request come true; gives how the connection ends by it.
    async fn suffer(
        &self,
        fate: Fate,
        asks: Request,
        request: &mut Vec<u8>,
        to: &mut OwnedWriteHalf,
        dialogue: &Dialogue,
        passed: u64,
    ) -> Option<Option<End>> {
        let figures = &self.weather.figures;
        match fate {
            Fate::Pass => {
                to.write_all(request).await.ok()?;
                return Some(None);
            }
            Fate::LoseAnswer | Fate::Kill(KillAt::Committed) => {
                *dialogue.left.lock() = Some(0);
                to.write_all(request).await.ok()?;
                if dialogue.answered(passed).await && asks == Request::Commit(Work::Append) {
                    figures.note(Fact::AnswersLost);
                }
                if fate != Fate::LoseAnswer && self.victim.kill() {
                    figures.note(Fact::KillsAfterCommit);
                }
            }
            Fate::LoseRequest => figures.note(Fact::RequestsLost),
            Fate::Late(wait) => return Some(Some(End::Late(std::mem::take(request), asks, wait))),
            Fate::CutRequest(bytes) => {
                figures.note(Fact::Cuts);
                to.write_all(&request[..bytes.min(request.len())]).await.ok()?;
            }
            Fate::CutAnswer(bytes) => {
                figures.note(Fact::Cuts);
                *dialogue.left.lock() = Some(bytes);
                to.write_all(request).await.ok()?;
                dialogue.answered(passed).await;
            }
            Fate::Kill(KillAt::Commit) => {
                if self.victim.kill() {
                    figures.note(Fact::KillsAtCommit);
                }
            }
        }
        Some(Some(End::Closed))
    }

    fn fate(&self, asks: Request, bytes: usize) -> Fate {
        if asks == Request::Commit(Work::Append) {
            self.weather.figures.note(Fact::Commits);
            if let Some(at) = self.armed.lock().take() {
                return Fate::Kill(at);
            }
        }
        if !self.weather.is_rough.load(Ordering::Relaxed) {
            return Fate::Pass;
        }
        let mut random = self.random.lock();
        let late = Duration::from_millis(random.random_range(0..=u64::try_from(LATE_MAX.as_millis()).unwrap_or(0)));
        let share = random.random_range(0..1_000);
        let cut = random.random_range(0..bytes.max(1));
        let cut_answer = random.random_range(0..40);
        match asks {
            Request::Commit(Work::Fold) => match share {
                0..50 => Fate::LoseAnswer,
                50..60 => Fate::LoseRequest,
                60..80 => Fate::Late(late),
                80..90 => Fate::CutAnswer(cut_answer),
                _ => Fate::Pass,
            },
            Request::Commit(Work::Append) => match share {
                0..300 => Fate::LoseAnswer,
                300..330 => Fate::LoseRequest,
                330..430 => Fate::Late(late),
                430..440 => Fate::CutRequest(cut),
                440..460 => Fate::CutAnswer(cut_answer),
                _ => Fate::Pass,
            },
            Request::Append => match share {
                0..20 => Fate::LoseRequest,
                20..50 => Fate::Late(late),
                50..60 => Fate::CutRequest(cut),
                60..80 => Fate::CutAnswer(cut_answer),
                80..100 => Fate::LoseAnswer,
                _ => Fate::Pass,
            },
            Request::Fold | Request::Other => match share {
                0..2 => Fate::CutRequest(cut),
                2..6 => Fate::CutAnswer(cut_answer),
                6..8 => Fate::LoseRequest,
                _ => Fate::Pass,
            },
        }
    }

    /// Message by message: a type byte and a length that counts itself.
    async fn answers(&self, from: &mut OwnedReadHalf, mut to: OwnedWriteHalf, dialogue: &Dialogue) -> Option<()> {
        let mut has_committed = false;
        loop {
            let message = read_message(from).await?;
            self.passing().await;
            let kind = message[0];
            if kind == b'C' {
                has_committed = message[5..].starts_with(b"COMMIT");
            }
            let bytes = {
                let mut left = dialogue.left.lock();
                let bytes = left.map_or(message.len(), |left| left.min(message.len()));
                *left = left.map(|left| left - bytes);
                bytes
            };
            to.write_all(&message[..bytes]).await.ok()?;
            if kind == b'Z' {
                dialogue.ready.send_modify(|(times, committed)| {
                    *times += 1;
                    *committed = std::mem::take(&mut has_committed);
                });
            }
        }
    }
}

async fn read_message(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let kind = from.read_u8().await.ok()?;
    let length = from.read_u32().await.ok()?;
    let size = usize::try_from(length).ok().filter(|size| (4..MESSAGE_BYTES_MAX).contains(size))?;
    let mut message = vec![kind];
    message.extend(length.to_be_bytes());
    message.resize(size + 1, 0);
    from.read_exact(&mut message[5..]).await.ok()?;
    Some(message)
}

fn classify(request: &[u8], done: Option<Work>) -> Request {
    let has = |sql: &[u8]| memchr::memmem::find(request, sql).is_some();
    if has(b"insert into deltas") {
        return Request::Append;
    }
    if has(b"update folded set seq") {
        return Request::Fold;
    }
    let is_commit = request.first() == Some(&b'Q') && request.get(5..) == Some(b"commit\0");
    match done {
        Some(work) if is_commit => Request::Commit(work),
        // COMMIT of a read, too.
        _ => Request::Other,
    }
}

/// Does what a client has sent that has given up since. Where that was the batch, its COMMIT follows, as it would
/// have: only after the answer that there was something to append. `Some(true)`: it was committed.
async fn arrive_late(request: &[u8], kind: Request, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> Option<bool> {
    to.write_all(request).await.ok()?;
    let tag = tag(from).await?;
    if kind != Request::Append {
        return Some(kind == Request::Commit(Work::Append) && tag.starts_with(b"COMMIT"));
    }
    if !tag.starts_with(b"INSERT 0 1") {
        return Some(false);
    }
    to.write_all(b"Q\0\0\0\x0bcommit\0").await.ok()?;
    Some(self::tag(from).await?.starts_with(b"COMMIT"))
}

/// What the next answer says has been done.
async fn tag(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut tag = Vec::new();
    loop {
        let message = read_message(from).await?;
        match message[0] {
            b'C' => tag = message[5..].to_vec(),
            b'Z' => return Some(tag),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_and_appends_are_known_by_their_bytes() {
        let commit = b"Q\0\0\0\x0bcommit\0";
        assert_eq!(classify(commit, Some(Work::Append)), Request::Commit(Work::Append));
        assert_eq!(classify(commit, Some(Work::Fold)), Request::Commit(Work::Fold));
        assert_eq!(classify(commit, None), Request::Other);
        assert_eq!(classify(b"P\0\0\0\x30with advanced as () insert into deltas (writer)\0", None), Request::Append);
        assert_eq!(classify(b"P\0\0\0\x30update folded set seq = reached.seq\0", None), Request::Fold);
        assert_eq!(classify(b"Q\0\0\0\x0bselect\0", Some(Work::Fold)), Request::Other);
    }
}
