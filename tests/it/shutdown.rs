//! Stopping in order: nothing acknowledged is lost, requests under way finish, nobody waits in vain.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use event_tracker::domain::HourRange;

use crate::harness::{Backend, Tally, TestApp, Traffic, answer, eventually, on_both_stores};
use crate::hours::Service;

on_both_stores!(
    stopping_under_load_loses_nothing_at_any_ack_level,
    what_was_only_counted_in_memory_is_in_the_store_after_a_stop,
);

async fn stopping_under_load_loses_nothing_at_any_ack_level(backend: Backend) {
    let mut app = TestApp::start(backend).await;
    let tally = Arc::new(Tally::default());
    let levels = ["?ack=memory", "?ack=journal", "?ack=disk", "?ack=store"];
    for (signal, query) in ["TERM", "INT"].into_iter().cycle().zip(levels.into_iter().chain(levels.into_iter().rev())) {
        let traffic = Traffic::start(&app, &tally, 8, query);
        traffic.answered(100).await;
        app.signal(signal);
        let (status, log) = app.ended().await;
        assert!(status.success(), "{query}: {status}: {log}");
        traffic.cut_off().await;
        let in_store = app.audit().await;
        app.restart().await;
        let totals = app.totals().await;
        tally.settle(&totals);
        assert_eq!(in_store, totals.values().sum::<u64>(), "{query}: all of it was flushed");
    }
}

async fn what_was_only_counted_in_memory_is_in_the_store_after_a_stop(backend: Backend) {
    let setup = TestApp::with(backend).config("flush.interval_ms", 3_600_000).config("journal.ack", "memory");
    let mut app = setup.start().await;
    app.count("login", 12).await;
    app.stop().await;
    assert_eq!(app.audit().await, 12);
}

#[tokio::test]
async fn a_flush_that_is_cut_off_leaves_nothing_behind_for_the_next() {
    let service = Service::start().await;
    for round in 0..200 {
        service.post("/api/events/login").await;
        let mut cut_off = Box::pin(service.node.flusher.flush());
        // As far as it gets: the seal is under way then, on a thread of its own.
        while futures_util::poll!(&mut cut_off).is_pending() && service.node.batches.oldest_sealed(&[]).is_none() {
            if round % 2 == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(cut_off);
        service.node.flusher.flush().await.unwrap();
        assert_eq!(service.node.batches.pending().within(HourRange::ALL), [], "round {round}");
    }
}

/// A batch of one item of which half is still to come: it keeps the drain waiting.
async fn begin_post(app: &TestApp) -> TcpStream {
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = "POST /api/events HTTP/1.1\r\nhost: test\r\ncontent-length: 7\r\n\r\n\"lo";
    stream.write_all(head.as_bytes()).await.unwrap();
    // The answer to a request on another connection says that this one has been read, or soon will.
    app.get("/livez").await;
    stream
}

async fn finish(mut stream: TcpStream, rest: &str) -> String {
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn nobody_listens(address: &str) {
    eventually("the listener to be closed", async || TcpStream::connect(address).await.is_err()).await;
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_counted() {
    let mut app = TestApp::start(Backend::Sqlite).await;
    let request = begin_post(&app).await;
    let address = app.address().to_owned();
    app.signal("TERM");
    nobody_listens(&address).await;
    let answer = finish(request, "gin\"").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (status, log) = app.ended().await;
    assert!(status.success(), "{status}: {log}");
    assert_eq!(app.audit().await, 1);
}

#[tokio::test]
async fn a_node_that_drains_is_not_ready() {
    let mut app = TestApp::start(Backend::Sqlite).await;
    let mut probe = TcpStream::connect(app.address()).await.unwrap();
    probe.write_all(b"GET /readyz HTTP/1.1\r\nhost: test\r\n").await.unwrap();
    let request = begin_post(&app).await;
    let address = app.address().to_owned();
    app.signal("TERM");
    nobody_listens(&address).await;
    let answer = finish(probe, "\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("draining"), "{answer}");
    finish(request, "gin\"").await;
    assert!(app.ended().await.0.success());
}

#[tokio::test]
async fn a_node_that_drains_serves_until_its_delay_is_over_and_a_second_signal_ends_that() {
    let setup = TestApp::with(Backend::Sqlite).config("http.drain_delay_ms", 600_000);
    let mut app = setup.config("flush.interval_ms", 3_600_000).start().await;
    app.signal("TERM");
    eventually("the node to say that it is not ready", async || app.get("/readyz").await.status == 503).await;
    let (internal, _) = app.get("/readyz").await.fails(503);
    assert!(internal.starts_with("unready: draining"), "{internal}");
    assert_ne!(app.get("/readyz").await.header("retry-after"), "");
    // On a connection of its own: the listener is open.
    assert_eq!(answer::raw(app.address(), "POST", b"/api/events/login/7", &[]).await.status, 201);
    assert_eq!(answer::raw(app.address(), "GET", b"/livez", &[]).await.status, 200);
    app.signal("TERM");
    let (status, log) = app.ended().await;
    assert!(status.code() == Some(1) && log.contains("at once"), "{status}: {log}");
    app.restart().await;
    assert_eq!(app.total("login").await, 7);
}

#[tokio::test]
async fn after_the_delay_the_node_stops_and_everything_counted_meanwhile_is_in_the_store() {
    let setup = TestApp::with(Backend::Sqlite).config("flush.interval_ms", 3_600_000);
    let mut app = setup.config("http.drain_delay_ms", 4_000).start().await;
    app.signal("TERM");
    eventually("the node to say that it is not ready", async || app.get("/readyz").await.status == 503).await;
    assert_eq!(answer::raw(app.address(), "POST", b"/api/events/login/7", &[]).await.status, 201);
    let (status, log) = app.ended().await;
    assert!(status.success(), "{status}: {log}");
    assert_eq!(app.audit().await, 7);
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let setup = TestApp::with(Backend::Sqlite).config("http.drain_timeout_ms", 600_000);
        let mut app = setup.config("flush.interval_ms", 3_600_000).start().await;
        app.count("login", 7).await;
        let _request = begin_post(&app).await;
        let address = app.address().to_owned();
        app.signal(first);
        nobody_listens(&address).await;
        app.signal(second);
        let (status, log) = app.ended().await;
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("at once"), "{log}");
        app.restart().await;
        assert_eq!(app.total("login").await, 7);
    }
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    // If they did, it would take ten minutes.
    let mut app = TestApp::with(Backend::Sqlite).config("http.drain_timeout_ms", 600_000).start().await;
    app.count("login", 7).await;
    let mut used = TcpStream::connect(app.address()).await.unwrap();
    used.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    assert!(used.read(&mut [0; 1024]).await.unwrap() > 0);
    let _never_used = TcpStream::connect(app.address()).await.unwrap();
    app.get("/livez").await;
    app.stop().await;
    assert_eq!(app.audit().await, 7);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_at_the_deadline() {
    let mut app = TestApp::with(Backend::Sqlite).config("http.drain_timeout_ms", 200).start().await;
    app.count("login", 7).await;
    let _request = begin_post(&app).await;
    app.stop().await;
    assert_eq!(app.audit().await, 7);
}
