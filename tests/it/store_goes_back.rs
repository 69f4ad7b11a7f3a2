//! A store that loses what it had confirmed: what the nodes still have is delivered again, what nobody
//! has is reported to the unit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use event_tracker::domain::{Ack, EventName, Hour};
use event_tracker::node::{ACCEPT, Node};
use event_tracker::store::{OutageKind, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::harness::fleet::{Fleet, Seed, copy_folder, seeds};
use crate::harness::node::{node, options, record};
use crate::harness::postgres::Cluster;
use crate::harness::unsteady::{Unsteady, folder};
use crate::harness::{Backend, TestApp, eventually};

#[tokio::test]
async fn lost_answers_late_commits_and_stores_that_go_back_leave_the_sums_right() {
    let mut with_losses = 0;
    for seed in seeds(150) {
        let _seed = Seed(seed);
        let mut fleet = Fleet::new(seed);
        for _ in 0..60 {
            fleet.step(false).await;
            if rand::Rng::random_bool(&mut fleet.random, 0.25) {
                fleet.bad_day().await;
            }
        }
        with_losses += u32::from(fleet.settle().await > 0);
    }
    assert!(with_losses > 0, "the cases are too tame");
}

const HOUR: u32 = 440_000;

/// A store, and nodes beside it in one folder.
struct Bench {
    folder: tempfile::TempDir,
    store: Arc<Unsteady>,
}

impl Bench {
    fn new() -> Self {
        let folder = folder();
        let store = Unsteady::open(&folder.path().join("events.sqlite"));
        Self { folder, store }
    }

    async fn node(&self, name: &str) -> Node {
        let node = self.unmet(name);
        node.meet_store().await.unwrap();
        node
    }

    fn unmet(&self, name: &str) -> Node {
        node(&self.folder.path().join(name), self.store.clone() as Arc<dyn Store>, options())
    }

    fn save(&self) -> std::path::PathBuf {
        let to = self.folder.path().join("saved");
        self.store.save(&to);
        to
    }

    async fn ledger(&self) -> i128 {
        let books = self.store.inner().audit().await.unwrap();
        assert!(books.balance(), "{books:?}");
        books.ledger
    }

    /// An empty database of its own.
    fn another(&self) -> std::path::PathBuf {
        let (path, saved) = (self.folder.path().join("another.sqlite"), self.folder.path().join("another"));
        Unsteady::open(&path).save(&saved);
        saved
    }
}

async fn commit(node: &Node, count: u64) {
    record(node, "login", HOUR, count);
    node.flusher.flush().await.unwrap();
}

async fn sum(node: &Node) -> u64 {
    node.query.totals().await.unwrap().iter().map(|total| total.count).sum()
}

#[tokio::test]
async fn what_is_kept_is_delivered_again_and_the_rest_is_missing_until_it_is_accepted() {
    let bench = Bench::new();
    let (first, second) = (bench.node("first").await, bench.node("second").await);
    commit(&first, 1).await;
    commit(&second, 20).await;
    let saved = bench.save();
    commit(&first, 300).await;
    first.batches.expire_kept(Duration::ZERO, 0).unwrap();
    commit(&first, 4_000).await;
    commit(&second, 50_000).await;
    second.batches.expire_kept(Duration::ZERO, 0).unwrap();
    let version = first.query.version().await.unwrap();
    assert_eq!(sum(&first).await, 54_321);
    record(&first, "login", HOUR, 600_000);

    bench.store.set_back(&saved).await;
    // At its next look a node knows, and its reads have what it is going to deliver again.
    first.look().await.unwrap();
    assert_eq!((first.missing(), first.health.status().missing), (300, 300));
    assert_eq!(sum(&first).await, 604_021);
    assert_ne!(first.query.version().await.unwrap(), version);
    first.flusher.flush().await.unwrap();
    assert_eq!(bench.ledger().await, 604_021);
    second.look().await.unwrap();
    assert_eq!((second.missing(), second.health.status().missing), (50_000, 50_000));
    assert_eq!(sum(&second).await, 604_021);

    // It is known after a restart, until an administrator says that it is accepted.
    drop(first);
    let first = bench.node("first").await;
    assert_eq!((first.missing(), sum(&first).await), (300, 604_021));
    std::fs::write(bench.folder.path().join("first").join(ACCEPT), "").unwrap();
    let stop = CancellationToken::new();
    let accepted = async {
        eventually("the loss to be accepted", async || first.missing() == 0).await;
        eventually("the file to be removed", async || !bench.folder.path().join("first").join(ACCEPT).exists()).await;
        stop.cancel();
    };
    tokio::join!(first.run(stop.clone()), accepted);
    assert_eq!(first.health.status().missing, 0);
    assert_eq!(second.missing(), 50_000);
    second.accept_store().await.unwrap();
    assert_eq!((second.missing(), second.health.status().missing), (0, 0));
}

/// Counts, and waits until the journal's file has it.
async fn count(node: &Node, count: u64) {
    let hour = Hour::from_number(HOUR).unwrap();
    let recorded = node.batches.record(&EventName::parse("login").unwrap(), hour, count).unwrap();
    node.batches.wait_durable(recorded.ticket, Ack::Journal).await.unwrap();
}

/// The segments of a folder whose names end so.
fn segments(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder.join("journal")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort_unstable();
    files
}

/// The node meets the store and finds that sums differ. Before it has asked for what it needs to know of that, it
/// delivers what it has recovered, and then `meanwhile` happens.
async fn meet_while_a_batch_is_delivered(bench: &Bench, node: &Node, meanwhile: impl FnOnce()) {
    let held = bench.store.hold_next_position();
    let delivered = async {
        held.is_asked.notified().await;
        node.flusher.flush().await.unwrap();
        meanwhile();
        held.may_read.notify_one();
    };
    let (met, ()) = tokio::join!(node.meet_store(), delivered);
    met.unwrap();
}

#[tokio::test]
async fn more_than_was_known_is_no_loss_of_what_is_delivered_meanwhile() {
    let bench = Bench::new();
    let (first, folder) = (bench.node("first").await, bench.folder.path().join("first"));
    count(&first, 5).await;
    let short = std::fs::read(&segments(&folder, "journal")[0]).unwrap();
    count(&first, 10).await;
    first.flusher.flush().await.unwrap();
    count(&first, 700).await;
    drop(first);
    // The disk was full when the batch was sealed: the store has more of it than its segment.
    std::fs::write(&segments(&folder, "committed")[0], short).unwrap();

    let first = bench.unmet("first");
    meet_while_a_batch_is_delivered(&bench, &first, || ()).await;
    first.look().await.unwrap();
    assert_eq!((first.missing(), first.health.status().missing), (0, 0));
    assert_eq!((bench.ledger().await, sum(&first).await), (715, 715));
}

#[tokio::test]
async fn less_than_was_known_is_no_loss_of_what_is_delivered_meanwhile() {
    let bench = Bench::new();
    let (first, folder) = (bench.node("first").await, bench.folder.path().join("first"));
    count(&first, 5).await;
    copy_folder(&folder, &bench.folder.path().join("copy"));
    let copy = bench.node("copy").await;
    copy.flusher.flush().await.unwrap();
    // What the copy did not have of the batch is delivered by another writer.
    count(&first, 10).await;
    first.flusher.flush().await.unwrap();
    count(&first, 700).await;
    drop(first);

    let first = bench.unmet("first");
    // Nobody can open another file for a moment.
    let gone = || segments(&folder, "committed").iter().for_each(|path| std::fs::remove_file(path).unwrap());
    meet_while_a_batch_is_delivered(&bench, &first, gone).await;
    first.look().await.unwrap();
    assert_eq!((first.missing(), first.health.status().missing), (0, 0));
    assert_eq!((bench.ledger().await, sum(&first).await), (715, 715));
}

/// As the torture of the real program found it: the files of the newest process went first, where its writer's name
/// came first.
#[tokio::test]
async fn of_the_segments_of_earlier_processes_the_oldest_go_first() {
    const PROCESSES: u64 = 8;
    let bench = Bench::new();
    let mut saved = None;
    for process in 1..=PROCESSES {
        if process == PROCESSES {
            saved = Some(bench.save());
        }
        commit(&bench.node("node").await, 1).await;
        // The times of files are not exact.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let node = bench.node("node").await;
    let files = std::fs::read_dir(bench.folder.path().join("node/journal")).unwrap().flatten();
    let kept = files.filter(|file| file.file_name().to_string_lossy().ends_with(".committed"));
    let bytes: u64 = kept.map(|file| file.metadata().unwrap().len()).sum();
    node.batches.expire_kept(Duration::MAX, bytes / PROCESSES * 2).unwrap();
    bench.store.set_back(&saved.unwrap()).await;
    node.look().await.unwrap();
    assert_eq!(node.missing(), 0);
    node.flusher.flush().await.unwrap();
    assert_eq!(bench.ledger().await, i128::from(PROCESSES));
}

#[tokio::test]
async fn a_newer_state_that_comes_back_is_missing_no_more() {
    let bench = Bench::new();
    let node = bench.node("node").await;
    commit(&node, 1).await;
    let saved = bench.save();
    commit(&node, 20).await;
    let newer = bench.folder.path().join("newer");
    bench.store.save(&newer);
    node.batches.expire_kept(Duration::ZERO, 0).unwrap();
    bench.store.set_back(&saved).await;
    node.look().await.unwrap();
    assert_eq!(node.missing(), 20);
    commit(&node, 300).await;
    bench.store.set_back(&newer).await;
    node.look().await.unwrap();
    node.flusher.flush().await.unwrap();
    assert_eq!((node.missing(), bench.ledger().await, sum(&node).await), (0, 321, 321));
}

#[tokio::test]
async fn nothing_is_written_to_another_database_that_answers_meanwhile() {
    let bench = Bench::new();
    let node = bench.node("node").await;
    commit(&node, 1).await;
    let (ours, another) = (bench.save(), bench.another());
    bench.store.set_back(&another).await;
    record(&node, "login", HOUR, 20);
    assert!(node.flusher.flush().await.is_err());
    assert!(matches!(node.look().await, Err(StoreError::AnotherDatabase(_))));
    assert_eq!(node.health.status().outage.unwrap().kind, OutageKind::AnotherDatabase);
    record(&node, "login", HOUR, 300);
    assert_eq!(bench.ledger().await, 0);
    bench.store.set_back(&ours).await;
    node.flusher.flush().await.unwrap();
    node.flusher.flush().await.unwrap();
    assert_eq!((bench.ledger().await, sum(&node).await, node.missing()), (321, 321, 0));
    node.look().await.unwrap();
    assert!(node.health.status().reachable());
}

#[tokio::test]
async fn another_database_at_the_start_gets_no_batch_that_was_meant_for_the_old_one() {
    let bench = Bench::new();
    let node = bench.node("node").await;
    commit(&node, 1).await;
    let (ours, another) = (bench.save(), bench.another());
    record(&node, "login", HOUR, 20);
    node.batches.journal().write_all().unwrap();
    drop(node);
    bench.store.set_back(&another).await;
    let node = bench.unmet("node");
    assert!(matches!(node.meet_store().await, Err(StoreError::AnotherDatabase(_))));
    record(&node, "login", HOUR, 300);
    assert!(node.flusher.flush().await.is_err());
    assert_eq!(bench.ledger().await, 0);
    bench.store.set_back(&ours).await;
    node.meet_store().await.unwrap();
    node.flusher.flush().await.unwrap();
    assert_eq!((bench.ledger().await, sum(&node).await), (321, 321));

    // With nothing to deliver it is used from now on, and what the old one had confirmed is missing.
    drop(node);
    bench.store.set_back(&another).await;
    let node = bench.node("node").await;
    assert_eq!((node.missing(), node.health.status().missing, sum(&node).await), (321, 321, 0));
    commit(&node, 4_000).await;
    // Also after one more restart nothing of the old one is delivered.
    drop(node);
    let node = bench.node("node").await;
    node.flusher.flush().await.unwrap();
    assert_eq!((node.missing(), sum(&node).await, bench.ledger().await), (321, 4_000, 4_000));
    node.accept_store().await.unwrap();
    assert_eq!(node.missing(), 0);
}

#[tokio::test]
async fn a_running_node_goes_on_with_another_database_when_that_is_accepted() {
    let bench = Bench::new();
    let node = bench.node("node").await;
    commit(&node, 1).await;
    assert_eq!(sum(&node).await, 1);
    let version = node.query.version().await.unwrap();
    let another = bench.another();
    bench.store.set_back(&another).await;
    record(&node, "login", HOUR, 20);
    assert!(node.flusher.flush().await.is_err());
    node.accept_store().await.unwrap();
    node.flusher.flush().await.unwrap();
    commit(&node, 300).await;
    assert_eq!((bench.ledger().await, sum(&node).await, node.missing()), (320, 320, 0));
    assert_ne!(node.query.version().await.unwrap(), version);
}

/// Keeps a copy of the tables that commits change.
async fn save(database: &str) {
    let tables = ["hourly_counts", "event_totals", "hour_totals", "deltas", "folded", "retired_writers", "ledger"];
    let copies: String = tables.map(|table| format!("create table saved.{table} as table public.{table};")).concat();
    let sql = format!("drop schema if exists saved cascade; create schema saved; {copies}");
    Cluster::shared().connect(database).await.batch_execute(&sql).await.unwrap();
}

async fn set_back(database: &str) {
    let tables = ["hourly_counts", "event_totals", "hour_totals", "deltas", "folded", "retired_writers", "ledger"];
    let lines = tables.map(|table| format!("delete from {table}; insert into {table} select * from saved.{table};"));
    let sql = format!("begin; {} commit", lines.concat());
    Cluster::shared().connect(database).await.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_postgresql_database_that_is_restored_gets_again_what_the_node_has() {
    let mut app = TestApp::with(Backend::Postgres).config("flush.interval_ms", 30).start().await;
    app.post("/api/events/login/1?ack=store").await;
    save(&app.database()).await;
    app.post("/api/events/login/20?ack=store").await;
    assert_eq!(app.total("login").await, 21);
    let tag = app.get("/api/events/unique").await.header("etag").to_owned();
    set_back(&app.database()).await;
    let in_store = async |app: &TestApp| {
        let store = app.store().await;
        let books = store.audit().await.unwrap();
        store.close().await;
        assert!(books.balance(), "{books:?}");
        books.rows
    };
    eventually("the running node to deliver again", async || in_store(&app).await == 21).await;
    let answer = app.get("/api/events/unique").await;
    assert_ne!(answer.header("etag"), tag);
    assert_eq!(app.total("login").await, 21);
    let log = app.stop().await;
    assert!(log.contains("has lost commits that it had confirmed"), "{log}");

    set_back(&app.database()).await;
    app.restart().await;
    eventually("the restarted node to deliver again", async || in_store(&app).await == 21).await;
    assert_eq!(app.total("login").await, 21);
    app.stop().await;
    assert_eq!(app.audit().await, 21);
}

#[tokio::test]
async fn a_database_that_is_swapped_under_a_running_node_gets_nothing() {
    let app = TestApp::with(Backend::Postgres).config("flush.interval_ms", 30).start().await;
    app.post("/api/events/login/1?ack=store").await;
    let (database, server) = (app.database(), Cluster::shared().connect("postgres").await);
    let rename = async |from: &str, to: &str| {
        let end = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{from}'");
        let rename = format!("alter database {from} rename to {to}");
        eventually("the database to be renamed", async || {
            server.batch_execute(&end).await.unwrap();
            server.batch_execute(&rename).await.is_ok()
        })
        .await;
    };
    rename(&database, &format!("{database}_away")).await;
    server.batch_execute(&format!("create database {database} template template0")).await.unwrap();
    let status = async || app.get("/readyz").await.text().to_owned();
    eventually("the node to notice", async || status().await.contains("another database")).await;
    app.count("login", 20).await;
    let tables = "select count(*) from pg_tables where schemaname = 'public'";
    let found = Cluster::shared().connect(&database).await.query_one(tables, &[]).await.unwrap();
    assert_eq!(found.get::<_, i64>(0), 0);
    rename(&database, &format!("{database}_new")).await;
    rename(&format!("{database}_away"), &database).await;
    eventually("the node to go on", async || {
        let store = app.store().await;
        let books = store.audit().await;
        store.close().await;
        books.is_ok_and(|books| books.rows == 21)
    })
    .await;
    assert_eq!(app.total("login").await, 21);
}

#[tokio::test]
async fn an_older_sqlite_file_gets_again_what_the_node_has() {
    let mut app = TestApp::start(Backend::Sqlite).await;
    app.count("login", 1).await;
    app.stop().await;
    let (file, saved) = (app.data_dir().join("events.sqlite"), app.data_dir().join("saved"));
    std::fs::copy(&file, &saved).unwrap();
    app.restart().await;
    app.count("login", 20).await;
    app.stop().await;
    std::fs::copy(&saved, &file).unwrap();
    app.restart().await;
    assert_eq!(app.total("login").await, 21);
    let log = app.stop().await;
    assert!(log.contains("has lost commits that it had confirmed"), "{log}");
    assert_eq!(app.audit().await, 21);
}
