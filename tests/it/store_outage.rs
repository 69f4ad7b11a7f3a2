//! PostgreSQL is down: at start, in the middle, at stop. Counting goes on and nothing is lost.

use std::sync::Arc;

use event_tracker::domain::{Ack, EventName, Hour};
use event_tracker::store::Store;
use event_tracker::store::admin::Change;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::harness::app::Setup;
use crate::harness::node::{node, options, record};
use crate::harness::postgres::Cluster;
use crate::harness::unsteady::{Unsteady, folder};
use crate::harness::{Backend, PATIENCE, Tally, TestApp, Traffic, eventually};

/// A cluster that the test may stop, and a program to run on it: quick to notice, quick to retry.
async fn cluster_and_setup() -> (Cluster, Setup) {
    let cluster = tokio::task::spawn_blocking(Cluster::private).await.unwrap();
    let url = cluster.url(&cluster.create_database().await);
    let setup = TestApp::with(Backend::Postgres)
        .database_url(&url)
        .config("flush.interval_ms", 20)
        .config("flush.retry_backoff_max_ms", 100)
        .config("flush.shutdown_timeout_ms", 500)
        .config("store.connect_timeout_ms", 500)
        .config("store.statement_timeout_ms", 500);
    (cluster, setup)
}

async fn store_is(app: &TestApp, expected: &str) {
    eventually(&format!("/readyz to say {expected}"), async || {
        let answer = app.get("/readyz").await;
        // A node whose store is down still counts, so it wants traffic.
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["response"]["store"].as_str().is_some_and(|said| said.starts_with(expected))
    })
    .await;
}

async fn reads_are_refused(app: &TestApp) {
    for target in [
        "/api/events/unique",
        "/api/events?start_date=20200101&end_date=99991231",
        "/api/events/histogram/shared/20200911",
        "/api/v1/nodes",
    ] {
        let answer = app.get(target).await;
        let (internal, external) = answer.fails(503);
        assert!(internal.starts_with("store_unavailable: "), "{target}: {internal}");
        assert!(external.contains("database") && external.contains("counting goes on"), "{target}: {external}");
        assert!(!answer.header("retry-after").is_empty(), "{target}");
    }
}

async fn reads_work(app: &TestApp) {
    eventually("reads to work", async || app.get("/api/events/unique").await.status == 200).await;
    store_is(app, "reachable").await;
}

#[tokio::test]
async fn counting_begins_while_the_database_is_down() {
    let (cluster, setup) = cluster_and_setup().await;
    cluster.stop("fast");
    let mut app = setup.start().await;
    app.count("login", 41).await;
    reads_are_refused(&app).await;
    store_is(&app, "unreachable: ").await;
    app.kill().await;
    app.restart().await;
    app.count("login", 1).await;
    cluster.start();
    reads_work(&app).await;
    assert_eq!(app.total("login").await, 42);
    app.stop().await;
    assert_eq!(app.audit().await, 42);
}

#[tokio::test]
async fn counting_goes_on_while_the_database_is_gone() {
    let (cluster, setup) = cluster_and_setup().await;
    let mut app = setup.start().await;
    let tally = Arc::new(Tally::default());
    let traffic = Traffic::start(&app, &tally, 4, "");
    traffic.answered(100).await;
    cluster.kill();
    traffic.answered(300).await;
    reads_are_refused(&app).await;
    store_is(&app, "unreachable: ").await;
    cluster.start();
    reads_work(&app).await;
    traffic.stop().await;
    let totals = app.totals().await;
    tally.settle(&totals);
    let log = app.stop().await;
    assert!(log.contains("counting goes on") && log.contains("available again"), "{log}");
    assert_eq!(app.audit().await, totals.values().sum::<u64>());
}

#[tokio::test]
async fn a_database_that_hangs_holds_up_reads_no_longer_than_their_time_out_and_posts_not_at_all() {
    let (cluster, setup) = cluster_and_setup().await;
    let mut app = setup.start().await;
    let tally = Arc::new(Tally::default());
    let traffic = Traffic::start(&app, &tally, 4, "");
    traffic.answered(100).await;
    cluster.freeze();
    traffic.answered(300).await;
    reads_are_refused(&app).await;
    store_is(&app, "unreachable: ").await;
    traffic.answered(500).await;
    cluster.thaw();
    reads_work(&app).await;
    traffic.stop().await;
    let totals = app.totals().await;
    tally.settle(&totals);
    app.stop().await;
    assert_eq!(app.audit().await, totals.values().sum::<u64>());
}

#[tokio::test]
async fn what_can_not_be_flushed_at_stop_stays_in_the_journal() {
    let (cluster, setup) = cluster_and_setup().await;
    let mut app = setup.config("flush.interval_ms", 3_600_000).start().await;
    reads_work(&app).await;
    for (number, stop) in (1..=3).zip(["fast", "immediate", "frozen"]) {
        app.count("login", 10 + number).await;
        match stop {
            "frozen" => cluster.freeze(),
            mode => cluster.stop(mode),
        }
        let log = app.stop().await;
        assert!(log.contains("the journal keeps what is not in the store"), "{log}");
        if stop == "frozen" {
            cluster.thaw();
        }
        if number == 1 {
            // A life that ends before the database is back adds nothing and loses nothing.
            app.restart().await;
            app.stop().await;
        }
        if stop != "frozen" {
            cluster.start();
        }
        app.restart().await;
        reads_work(&app).await;
        assert_eq!(app.total("login").await, (1..=number).map(|number| 10 + number).sum::<u64>());
    }
    app.stop().await;
    assert_eq!(app.audit().await, 36);
}

#[tokio::test]
async fn waiting_for_the_store_ends_with_unknown_and_the_count_arrives_once() {
    let (cluster, setup) = cluster_and_setup().await;
    let mut app = setup.config("http.store_ack_timeout_ms", 300).start().await;
    reads_work(&app).await;
    cluster.stop("immediate");
    let (internal, external) = app.post("/api/events/login/5?ack=store").await.fails(503);
    assert!(internal.starts_with("store_ack_timeout: ") && internal.contains("counted: unknown"), "{internal}");
    assert!(external.contains("database"), "{external}");
    cluster.start();
    reads_work(&app).await;
    assert_eq!(app.total("login").await, 5);
    assert!(app.post("/api/events/login/6?ack=store").await.status < 300);
    app.stop().await;
    assert_eq!(app.audit().await, 11);
}

#[tokio::test]
async fn a_long_outage_makes_the_journal_no_larger_than_its_counters() {
    let (cluster, setup) = cluster_and_setup().await;
    let mut app = setup.config("journal.segment_bytes_max", 65_536).start().await;
    reads_work(&app).await;
    cluster.stop("immediate");
    let tally = Arc::new(Tally::default());
    let journal_bytes = || -> u64 {
        let files = std::fs::read_dir(app.data_dir().join("journal")).unwrap();
        let waiting = files.flatten().filter(|file| file.file_name().to_string_lossy().ends_with(".journal"));
        waiting.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    };
    let long = "x".repeat(200);
    let mut written = 0;
    while written < 4 * 65_536 {
        tally.post(&app.client(), &app.url(""), &long, 7, "").await.unwrap();
        written += 200;
    }
    // A sealed segment and the open one, each within the limit.
    eventually("the journal to be shortened", async || journal_bytes() < 2 * 65_536).await;
    app.kill().await;
    app.restart().await;
    cluster.start();
    reads_work(&app).await;
    let totals = app.totals().await;
    tally.settle(&totals);
    app.stop().await;
    assert_eq!(app.audit().await, totals.values().sum::<u64>());
}

#[tokio::test]
async fn a_flush_does_not_wait_for_a_catalog_that_takes_long() {
    let folder = folder();
    let store = Unsteady::open(&folder.path().join("events.sqlite"));
    let node = node(&folder.path().join("node"), store.clone() as Arc<dyn Store>, options());
    node.meet_store().await.unwrap();
    record(&node, "login", 490_000, 1);
    node.flusher.flush().await.unwrap();
    let login = EventName::parse("login").unwrap();
    let change = Change::Describe { event: login.clone(), description: "x".into() };
    store.inner().change(change, "ada", chrono::Utc::now()).await.unwrap();
    store.hold_catalog(true);
    let stop = CancellationToken::new();
    let counted = async {
        eventually("the node to ask for the catalog", async || store.is_catalog_awaited()).await;
        let recorded = node.batches.record(&login, Hour::MAX, 7).unwrap();
        let stored = tokio::time::timeout(PATIENCE, node.batches.wait_durable(recorded.ticket, Ack::Store)).await;
        assert_eq!(stored.expect("it waits for the catalog"), Ok(()));
        assert!(store.is_catalog_awaited(), "the catalog was answered");
        stop.cancel();
    };
    tokio::join!(node.run(stop.clone()), counted);
    assert_eq!(store.inner().audit().await.unwrap().rows, 8);
}

#[tokio::test]
async fn a_stop_ends_in_time_although_requests_wait_for_a_database_that_is_away() {
    let (cluster, setup) = cluster_and_setup().await;
    let mut app = setup.config("http.drain_timeout_ms", 300).start().await;
    reads_work(&app).await;
    cluster.stop("immediate");
    let mut waits = tokio::net::TcpStream::connect(app.address()).await.unwrap();
    let request = "POST /api/events/login/5?ack=store HTTP/1.1\r\nhost: test\r\n\r\n";
    waits.write_all(request.repeat(8).as_bytes()).await.unwrap();
    let counted = || -> usize {
        let files = std::fs::read_dir(app.data_dir().join("journal")).unwrap();
        let contents = files.flatten().filter_map(|file| std::fs::read(file.path()).ok());
        contents.map(|bytes| bytes.windows(5).filter(|name| *name == b"login").count()).sum()
    };
    eventually("the requests to be counted", async || counted() == 8).await;
    app.stop().await;
    let mut heard = Vec::new();
    let _ = waits.read_to_end(&mut heard).await;
    assert_eq!(String::from_utf8_lossy(&heard), "", "nothing was acknowledged");
    cluster.start();
    app.restart().await;
    reads_work(&app).await;
    assert_eq!(app.total("login").await, 40);
}
