//! The life of a node whose database fails it once: each request of the life in turn is refused, cut
//! off, done without an answer, or answered too late.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use event_tracker::domain::{Ack, EventName, Hour, HourRange};
use event_tracker::node::{Drained, Node};
use event_tracker::store::admin::{Change, Changed};
use event_tracker::store::{self, Options, Store, StoreError};
use futures_util::{StreamExt as _, future::ready, stream};
use tokio::sync::OnceCell;

use crate::harness::keeper;
use crate::harness::node::{node, options};
use crate::harness::postgres::Cluster;
use crate::harness::proxy::{Fault, Mishap, Proxy};
use crate::harness::{PATIENCE, eventually};
use crate::store_contract::{balanced_books, open_in};

const HOUR: u32 = 480_000;
/// Lives side by side. Each waits for its database most of the time.
const LIVES_AT_ONCE: usize = 8;

/// A database of its own behind a proxy of its own, and what is known to be counted.
struct Life {
    part: Part,
    proxy: Proxy,
    database: String,
    dir: tempfile::TempDir,
    counted: AtomicU64,
}

/// Which part of a node's life is lived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// The first contact with an empty database, which the node fills with its tables.
    Birth,
    /// All that comes then.
    Years,
    /// The same in partitions.
    Partitioned,
}

impl Part {
    fn partitions(self) -> u16 {
        if self == Self::Partitioned { 2 } else { 1 }
    }
}

/// A database with our tables, to be copied: to make them costs as much as the rest of a life.
async fn with_tables(partitions: u16) -> &'static str {
    static MADE: [OnceCell<String>; 2] = [const { OnceCell::const_new() }; 2];
    let made = MADE[usize::from(partitions) - 1].get_or_init(async || {
        let cluster = Cluster::in_memory();
        let database = cluster.create_database().await;
        let store = open_in(&cluster.url(&database), partitions).await;
        store.identity().await.unwrap();
        store.close().await;
        database
    });
    made.await
}

impl Life {
    async fn new(part: Part) -> Self {
        let cluster = Cluster::in_memory();
        let database = match part {
            Part::Birth => cluster.create_database().await,
            _ => cluster.create_database_with(&format!("template {}", with_tables(part.partitions()).await)).await,
        };
        let proxy = Proxy::start(cluster.port()).await;
        let dir = keeper::folder_in_memory("event-tracker-test", None);
        Self { part, proxy, database, dir, counted: AtomicU64::new(0) }
    }

    fn url(&self) -> String {
        Cluster::in_memory().url(&self.database)
    }

    async fn begin(&self) -> Node {
        let options_of_store = Options {
            url: self.proxy.url(&self.url()),
            read_connections: 1,
            partitions: self.part.partitions(),
            connect_timeout_ms: 400,
            statement_timeout_ms: 400,
            lock_timeout_ms: 400,
            ..Options::default()
        };
        let store = store::open(&options_of_store, Path::new("unused")).await.unwrap();
        node(self.dir.path(), store, options())
    }

    async fn meet(&self, node: &Node) {
        eventually("the store to be met", async || node.meet_store().await.is_ok()).await;
    }

    /// Counts and waits for the level; in a healthy folder nothing is unknown.
    async fn count(&self, node: &Node, event: &str, hour: u32, count: u64, ack: Ack) {
        let hour = Hour::from_number(hour).unwrap();
        let recorded = node.batches.record(&EventName::parse(event).unwrap(), hour, count).unwrap();
        self.counted.fetch_add(count, Ordering::Relaxed);
        if ack != Ack::Store {
            node.batches.wait_durable(recorded.ticket, ack).await.unwrap();
        } else {
            let committed = node.batches.wait_durable(recorded.ticket, ack);
            let flushed = eventually("a flush", async || node.flusher.flush().await.is_ok());
            tokio::time::timeout(PATIENCE, async { tokio::join!(committed, flushed).0 }).await.unwrap().unwrap();
        }
    }

    /// Every read that succeeds is exact, whatever the database has just done.
    async fn look(&self, node: &Node) {
        let expected = self.counted.load(Ordering::Relaxed);
        match node.query.totals().await {
            Ok(totals) => assert_eq!(totals.iter().map(|total| total.count).sum::<u64>(), expected),
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
        match node.query.hourly(HourRange::ALL, 1_000).await {
            Ok(rows) => assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), expected),
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn correct(&self, node: &Node) {
        let event = EventName::parse("login").unwrap();
        eventually("a correction", async || {
            let (hour, reason) = (Hour::from_number(HOUR).unwrap(), "a test".to_owned());
            let change = Change::Correct { event: event.clone(), hour, expected: 3, count: 10, reason };
            match node.catalog.change(change, "ann", chrono::Utc::now()).await {
                // Refused: it had been made, and its answer was lost.
                Ok(Changed::Done { .. } | Changed::Refused { .. }) => true,
                Err(_) => false,
            }
        })
        .await;
        self.counted.fetch_add(7, Ordering::Relaxed);
    }

    async fn be_born(&self) {
        let first = self.begin().await;
        self.count(&first, "login", HOUR, 3, Ack::Journal).await;
        self.meet(&first).await;
        drop(first);
        let second = self.begin().await;
        self.meet(&second).await;
        assert_eq!(second.drain(PATIENCE).await, Drained::Stored);
        second.store.close().await;
    }

    async fn live(&self) {
        // Start, count at every level, flush, fold, read.
        let first = self.begin().await;
        self.count(&first, "login", HOUR, 3, Ack::Journal).await;
        self.meet(&first).await;
        self.look(&first).await;
        self.count(&first, "login", HOUR + 1, 5, Ack::Store).await;
        self.count(&first, "logout", HOUR + 1, 7, Ack::Disk).await;
        let _ = first.flusher.flush().await;
        let _ = first.look().await;
        self.look(&first).await;
        let _ = first.store.fold().await;
        self.correct(&first).await;
        self.look(&first).await;
        self.count(&first, "late", HOUR + 2, 11, Ack::Journal).await;
        let _ = first.flusher.flush().await;
        self.count(&first, "last", HOUR + 2, 13, Ack::Journal).await;
        // It ends without a word, perhaps in the middle of a commit; another one takes over.
        drop(first);
        let second = self.begin().await;
        self.meet(&second).await;
        self.look(&second).await;
        self.count(&second, "login", HOUR + 3, 17, Ack::Memory).await;
        assert_eq!(second.drain(PATIENCE).await, Drained::Stored);
        let _ = second.store.fold().await;
        self.look(&second).await;
        assert_eq!(second.missing(), 0);
        second.store.close().await;
    }

    /// Whatever happened, everything is in once.
    async fn audit(&self) {
        let direct: Arc<dyn Store> = open_in(&self.url(), self.part.partitions()).await;
        assert_eq!(balanced_books(&direct).await.rows, i128::from(self.counted.load(Ordering::Relaxed)));
        direct.close().await;
        Cluster::in_memory().drop_database(&self.database).await;
        let left: Vec<_> = std::fs::read_dir(self.dir.path().join("journal")).unwrap().flatten().collect();
        let differing = left.iter().filter(|file| file.file_name().to_string_lossy().ends_with(".differing"));
        assert_eq!(differing.count(), 0);
    }
}

/// Whether the life came to its nth request at all.
async fn one_life(part: Part, nth: u64, mishap: Mishap) -> bool {
    let life = Life::new(part).await;
    life.proxy.set(Fault::Request(nth, mishap));
    match part {
        Part::Birth => life.be_born().await,
        Part::Years | Part::Partitioned => life.live().await,
    }
    let has_struck = life.proxy.has_struck();
    life.proxy.set(Fault::None);
    life.audit().await;
    has_struck
}

async fn every_request_fails_once(mishap: Mishap) {
    lives(Part::Birth, mishap, 1, 30).await;
    lives(Part::Years, mishap, 1, 100).await;
}

/// Of lives in partitions, which have thrice as many requests, each kind of mishap strikes one in four.
async fn many_requests_fail_once(mishap: Mishap, first: u64) {
    lives(Part::Partitioned, mishap, first, 50).await;
}

async fn lives(part: Part, mishap: Mishap, first: u64, struck_min: usize) {
    let began = Instant::now();
    let step = if part == Part::Partitioned { 4 } else { 1 };
    let lives = stream::iter((first..).step_by(step)).map(|nth| {
        let life = tokio::spawn(one_life(part, nth, mishap));
        async move { life.await.unwrap_or_else(|error| panic!("{mishap:?} of request {nth}: {error}")) }
    });
    let struck = lives.buffered(LIVES_AT_ONCE).take_while(|has_struck| ready(*has_struck)).count().await;
    eprintln!("{struck} lives in {:.1} s: {part:?}, {mishap:?}", began.elapsed().as_secs_f64());
    assert!(struck >= struck_min, "only {struck} requests were tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_lives_on_exactly_whichever_request_is_refused() {
    every_request_fails_once(Mishap::Refuse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_lives_on_exactly_whichever_request_finds_the_connection_cut() {
    every_request_fails_once(Mishap::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_lives_on_exactly_whichever_answer_is_lost() {
    every_request_fails_once(Mishap::LoseAnswer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_lives_on_exactly_whichever_answer_comes_too_late() {
    every_request_fails_once(Mishap::Delay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_partitions_lives_on_exactly_whichever_request_fails_however() {
    many_requests_fail_once(Mishap::Refuse, 1).await;
    many_requests_fail_once(Mishap::Cut, 2).await;
    many_requests_fail_once(Mishap::LoseAnswer, 3).await;
    many_requests_fail_once(Mishap::Delay, 4).await;
}
