//! The data folder is taken away from under a running node, whose store is elsewhere.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::postgres::Cluster;
use crate::harness::proxy::{Fault, Proxy};
use crate::harness::{Answer, Backend, TestApp, eventually};

struct Place {
    _folder: tempfile::TempDir,
    data: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self { _folder: folder, data }
    }

    fn aside(&self) -> PathBuf {
        self.data.with_file_name("aside")
    }
}

/// A node that flushes only when it stops, and what stands between it and its database.
async fn start(data: &Path) -> (TestApp, Proxy) {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    let proxy = Proxy::start(url::Url::parse(&url).unwrap().port().unwrap()).await;
    let setup = TestApp::with(Backend::Postgres).database_url(&proxy.url(&url)).data_dir(data);
    let setup = setup.config("flush.interval_ms", 3_600_000).config("flush.shutdown_timeout_ms", 2_000);
    let app = setup.config("store.connect_timeout_ms", 500).start().await;
    eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
    (app, proxy)
}

/// Awaits that the node refuses counts and says so: within two seconds, and a little for a busy machine.
async fn turns_unready(app: &TestApp) {
    let began = Instant::now();
    eventually("the node to notice", async || app.get("/readyz").await.status == 503).await;
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    let refused = app.post("/api/events/login?ack=disk").await;
    counted_no(&refused);
}

fn counted_no(answer: &Answer) {
    let (internal, _) = answer.fails(503);
    assert!(internal.contains("counted: no"), "{internal}");
}

#[tokio::test]
async fn a_deleted_folder_is_noticed_and_what_is_in_memory_reaches_the_store() {
    let place = Place::new();
    let (mut app, _proxy) = start(&place.data).await;
    app.count("login", 7).await;
    std::fs::remove_dir_all(&place.data).unwrap();
    turns_unready(&app).await;
    assert_eq!(app.total("login").await, 7, "reads go on");
    app.stop().await;
    assert_eq!(app.audit().await, 7);
}

#[tokio::test]
async fn with_folder_and_store_gone_a_stop_fails_and_says_how_many_counts_are_lost() {
    let place = Place::new();
    let (mut app, proxy) = start(&place.data).await;
    app.count("login", 7).await;
    proxy.set(Fault::Closed);
    std::fs::remove_dir_all(&place.data).unwrap();
    turns_unready(&app).await;
    app.signal("TERM");
    let (status, log) = app.ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("7 counts are neither in the store nor safe in the journal"), "{log}");
}

#[tokio::test]
async fn a_folder_that_was_moved_away_is_used_again_when_it_is_back() {
    let place = Place::new();
    let (mut app, _proxy) = start(&place.data).await;
    app.count("login", 7).await;
    std::fs::rename(&place.data, place.aside()).unwrap();
    turns_unready(&app).await;
    std::fs::rename(place.aside(), &place.data).unwrap();
    eventually("counting to resume", async || app.post("/api/events/login/5?ack=disk").await.status < 300).await;
    assert_eq!(app.get("/readyz").await.status, 200);
    app.kill().await;
    app.restart().await;
    eventually("the store to be reached", async || app.total("login").await == 12).await;
    app.stop().await;
    assert_eq!(app.audit().await, 12);
}

#[tokio::test]
async fn a_folder_that_was_replaced_by_another_takes_no_counts_and_none_are_lost() {
    let place = Place::new();
    let (mut app, _proxy) = start(&place.data).await;
    app.count("login", 7).await;
    std::fs::rename(&place.data, place.aside()).unwrap();
    std::fs::create_dir_all(place.data.join("journal")).unwrap();
    turns_unready(&app).await;
    app.stop().await;
    assert_eq!(app.audit().await, 7);
    let written = std::fs::read_dir(place.data.join("journal")).unwrap().count();
    assert_eq!(written, 0, "the other folder is somebody else's");
}

#[tokio::test]
async fn a_deleted_segment_is_written_anew_from_memory() {
    let place = Place::new();
    let (mut app, proxy) = start(&place.data).await;
    app.count("login", 7).await;
    proxy.set(Fault::Closed);
    for entry in std::fs::read_dir(place.data.join("journal")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "journal") {
            std::fs::remove_file(path).unwrap();
        }
    }
    eventually("counting to resume", async || app.post("/api/events/login/5?ack=disk").await.status < 300).await;
    app.kill().await;
    proxy.set(Fault::None);
    app.restart().await;
    eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
    // A count that met the missing file was answered with "unknown".
    let total = app.total("login").await;
    assert!(total >= 12 && total % 5 == 2, "{total}");
    app.stop().await;
    assert_eq!(app.audit().await, total);
}

#[tokio::test]
async fn a_stop_with_the_store_away_and_nothing_to_flush_does_not_wait_for_it() {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    let proxy = Proxy::start(url::Url::parse(&url).unwrap().port().unwrap()).await;
    proxy.set(Fault::Closed);
    let setup = TestApp::with(Backend::Postgres).database_url(&proxy.url(&url));
    // If it waited, it would be for longer than the test has patience.
    let mut app = setup.config("flush.shutdown_timeout_ms", 600_000).start().await;
    app.stop().await;
}

#[tokio::test]
async fn while_the_store_is_down_from_the_start_the_journal_is_shortened_all_the_same() {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    let proxy = Proxy::start(url::Url::parse(&url).unwrap().port().unwrap()).await;
    proxy.set(Fault::Closed);
    let setup = TestApp::with(Backend::Postgres).database_url(&proxy.url(&url));
    let setup = setup.config("journal.segment_bytes_max", 65_536).config("journal.bytes_max", 131_072);
    let mut app = setup.config("flush.interval_ms", 50).start().await;
    let event = "x".repeat(200);
    let mut counted = 0;
    // Several times what the journal may hold.
    while counted < 3_000 {
        eventually("the journal to be shortened", async || {
            let answer = app.post(&format!("/api/events/{event}")).await;
            if answer.status == 503 {
                counted_no(&answer);
            }
            answer.status == 201
        })
        .await;
        counted += 1;
    }
    proxy.set(Fault::None);
    eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
    assert_eq!(app.total(&event).await, counted);
    app.stop().await;
    assert_eq!(app.audit().await, counted);
}
