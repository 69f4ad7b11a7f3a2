//! The HTTP transport, byte for byte: limits, framing, keep-alive, drain. The server runs in this
//! process, on a real SQLite store and a real journal, without a flusher: `ack=store` therefore waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use chrono::Utc;
use event_tracker::admin;
use event_tracker::domain::{Ack, EventName, TOTAL_MAX};
use event_tracker::journal::DataDir;
use event_tracker::node::{Clock, Node};
use event_tracker::server;
use event_tracker::site::Site;
use event_tracker::store::Store;
use event_tracker::web::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::node;

mod at_the_store;
mod hang_ups;
mod places;
mod refused;
mod slow;
mod streams;
mod together;

const CREATED: &str = r#"{"status":true,"response":201}"#;

struct Served {
    address: SocketAddr,
    node: Arc<Node>,
    /// The injected clock panics while this is set.
    clock_panics: Arc<AtomicBool>,
    drain: CancellationToken,
    server: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn defaults() -> Options {
    Options {
        listen: "127.0.0.1:0".into(),
        connections_max: 100,
        connections_per_client_max: 0,
        first_byte_timeout_ms: 60_000,
        header_timeout_ms: 60_000,
        header_bytes_max: 16_384,
        body_bytes_max: 100_000,
        bodies_bytes_max: 1_000_000,
        cors_origins: vec!["*".into()],
        connection_age_max_ms: 0,
        drain_delay_ms: 0,
        drain_timeout_ms: 60_000,
        store_ack_timeout_ms: 60_000,
        range_rows_max: 1_000,
        lists_bytes_max: 100_000_000,
        renders_max: 1,
        workers: 0,
    }
}

async fn serve(options: Options) -> Served {
    serve_on(server::listen(&options.listen).unwrap(), options).await
}

async fn serve_on(listener: tokio::net::TcpListener, options: Options) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let store = node::sqlite(dir.path()).await;
    serve_with(listener, options, dir, store).await
}

async fn serve_with(
    listener: tokio::net::TcpListener,
    options: Options,
    dir: tempfile::TempDir,
    store: Arc<dyn Store>,
) -> Served {
    let clock_panics = Arc::new(AtomicBool::new(false));
    let panics = Arc::clone(&clock_panics);
    let clock: Clock = Arc::new(move || {
        assert!(!panics.load(Ordering::Relaxed), "the clock was told to panic");
        SystemTime::now()
    });
    let address = listener.local_addr().unwrap();
    let folder = DataDir::lock(dir.path()).unwrap();
    let (node, _) = Node::recover(folder, store, node::options(), clock).unwrap();
    let node = Arc::new(node);
    let admin = Box::leak(Box::new(admin::State::new(&node, admin::Options::default())));
    let site = Box::leak(Box::new(Site::new(&node, admin, Ack::Journal, options)));
    let drain = CancellationToken::new();
    let server = tokio::spawn(server::serve(listener, site, drain.clone()));
    Served { address, node, clock_panics, drain, server, _dir: dir }
}

impl Served {
    async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), received: Vec::new() }
    }

    /// One request on a connection of its own.
    async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn internal(&self) -> String {
        self.json()["error"]["internal"].as_str().unwrap().to_owned()
    }
}

/// Nothing here takes seconds; a limit that does not work shows as this.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("nothing happened for 20 s")
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads more; false at the end of the connection, be it orderly or reset.
    async fn more(&mut self) -> bool {
        soon(self.stream.read_buf(&mut self.received)).await.is_ok_and(|read| read > 0)
    }

    async fn head(&mut self) -> Answer {
        loop {
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head: Vec<u8> = self.received.drain(..end + 4).collect();
                let head = String::from_utf8(head).unwrap().trim_end().to_owned();
                let status = head[9..12].parse().unwrap();
                return Answer { status, head, body: String::new() };
            }
            assert!(self.more().await, "closed after {:?}", String::from_utf8_lossy(&self.received));
        }
    }

    async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.received.len() < length {
            assert!(self.more().await, "closed within a body");
        }
        answer.body = String::from_utf8_lossy(&self.received.drain(..length).collect::<Vec<u8>>()).into_owned();
        answer
    }

    /// All that still comes until the server closes.
    async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[tokio::test]
async fn counting_answers_with_nothing_but_the_needed_bytes() {
    let served = serve(defaults()).await;
    let answer = served.ask(&post("/api/events/login")).await;
    assert_eq!(answer.body, CREATED);
    let names: Vec<&str> = answer.head.lines().skip(1).filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(answer.head.lines().next(), Some("HTTP/1.1 201 Created"));
    assert_eq!(names, ["content-type", "content-length", "date"]);
    assert_eq!(served.ask(&post("/api/events/login/5")).await.body, r#"{"status":true,"response":204}"#);
    assert_eq!(served.ask(&post("/api/events/other/5")).await.body, CREATED);
    let totals = served.ask(&get("/api/events/unique")).await;
    let expected = r#"{"status":true,"response":[[{"event":"login","count":6}],[{"event":"other","count":5}]]}"#;
    assert_eq!(totals.body, expected);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let served = serve(defaults()).await;
    let mut client = served.connect().await;
    let mut requests = String::new();
    for number in 0..100 {
        requests += &post(&format!("/api/events/event-{number}"));
        requests += &get("/livez");
        requests += &post("/api/events/a/0");
    }
    client.send(&requests).await;
    for _ in 0..100 {
        assert_eq!(client.answer().await.status, 201);
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(client.answer().await.status, 404);
    }
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_rest_of_the_next_request() {
    let served = serve(defaults()).await;
    let mut client = served.connect().await;
    client.send(&(post("/api/events/a") + "POST /api/eve")).await;
    assert_eq!(client.answer().await.status, 201);
    client.send("nts/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 201);
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answers_is_closed() {
    let served = serve(Options { header_timeout_ms: 200, ..defaults() }).await;
    let mut client = served.connect().await;
    let requests = get("/").repeat(100);
    // Until the buffers of both sides are full and the server has had enough.
    let closed = soon(async { while client.stream.write_all(requests.as_bytes()).await.is_ok() {} });
    closed.await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_closed() {
    let served = serve(Options { header_timeout_ms: 100, ..defaults() }).await;
    let mut silent = served.connect().await;
    assert_eq!(silent.rest().await, "");
    let mut slow = served.connect().await;
    slow.send("POST /api/events/a HTTP/1.1\r\nHost:").await;
    let late = slow.answer().await;
    assert_eq!((late.status, late.header("connection")), (408, Some("close")));
    assert!(late.internal().starts_with("head_timeout: ") && late.internal().ends_with("; counted: no"));
    assert_eq!(slow.rest().await, "");
    // Also when the head comes after an answered request.
    let mut idle = served.connect().await;
    idle.send(&get("/livez")).await;
    assert_eq!(idle.answer().await.status, 200);
    idle.send("GET /").await;
    assert_eq!(idle.answer().await.status, 408);
    assert_eq!(idle.rest().await, "");
    // Which one that sends nothing does not hear: it might take it for the answer to its next request.
    let mut content = served.connect().await;
    content.send(&get("/livez")).await;
    assert_eq!(content.answer().await.status, 200);
    assert_eq!(content.rest().await, "");
}

#[tokio::test]
async fn the_head_timeout_does_not_run_while_a_request_is_answered() {
    let served = serve(Options { header_timeout_ms: 50, store_ack_timeout_ms: 500, ..defaults() }).await;
    let answer = served.ask(&post("/api/events/a?ack=store")).await;
    assert_eq!(answer.status, 503);
    assert!(answer.internal().starts_with("store_ack_timeout: "));
    assert!(answer.internal().ends_with("counted: unknown"));
    assert_eq!(answer.json()["counted"], "unknown");
    assert_eq!(answer.header("retry-after"), Some("5"));
}

#[tokio::test]
async fn an_old_connection_is_closed_once_it_is_idle() {
    let served = serve(Options { connection_age_max_ms: 100, ..defaults() }).await;
    let mut client = served.connect().await;
    client.send(&get("/livez")).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn drain_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let served = serve(defaults()).await;
    let mut idle = served.connect().await;
    idle.send(&get("/readyz")).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut busy = served.connect().await;
    busy.send("POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(busy.head().await.status, 100);
    served.drain.cancel();
    assert_eq!(idle.rest().await, "");
    busy.send("[\"a\"]").await;
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(busy.rest().await, "");
    soon(served.server).await.unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn drain_cuts_what_does_not_finish_in_time() {
    let served = serve(Options { drain_timeout_ms: 50, ..defaults() }).await;
    let mut client = served.connect().await;
    client.send("POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.head().await.status, 100);
    served.drain.cancel();
    soon(served.server).await.unwrap();
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let served = serve(defaults()).await;
    served.ask(&post("/api/events/login")).await;
    let today = Utc::now().format("%Y%m%d");
    for path in
        ["/", "/livez", "/readyz", "/api/events/unique", "/nowhere", &format!("/api/events/histogram/login/{today}")]
    {
        let mut client = served.connect().await;
        client.send(&format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n{}", get(path))).await;
        let head = client.head().await;
        let full = client.answer().await;
        let undated = |answer: &Answer| {
            let lines = answer.head.lines().filter(|line| !line.starts_with("date: "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(undated(&head), undated(&full), "{path}");
        assert!(!full.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_answered_405_with_allow() {
    let served = serve(defaults()).await;
    for (line, allow) in [
        ("GET /api/events/foo", "OPTIONS, POST"),
        ("POST /api/events/histogram/x/20200101", "GET, HEAD, OPTIONS"),
        ("DELETE /api/events/unique/", "GET, HEAD, OPTIONS, POST"),
    ] {
        let answer = served.ask(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{line}");
        assert_eq!(answer.json()["response"], 405, "{line}");
        assert_eq!(answer.internal().ends_with("; counted: no"), line.starts_with("POST"), "{line}");
    }
}

#[tokio::test]
async fn a_panic_becomes_one_500_and_the_connection_goes_on() {
    let served = serve(defaults()).await;
    let mut client = served.connect().await;
    served.clock_panics.store(true, Ordering::Relaxed);
    client.send(&post("/api/events/a")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.json()["response"].as_u64()), (500, Some(500)));
    assert!(answer.internal().ends_with("counted: unknown"));
    assert_eq!(answer.json()["counted"], "unknown");
    served.clock_panics.store(false, Ordering::Relaxed);
    client.send(&post("/api/events/a")).await;
    assert_eq!(client.answer().await.body, CREATED);
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_taken_in_so_that_the_connection_goes_on() {
    let served = serve(defaults()).await;
    let mut client = served.connect().await;
    client.send("POST /api/events/a HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n").await;
    client.send(&"x".repeat(50_000)).await;
    client.send(&"x".repeat(40_000)).await;
    assert_eq!(client.answer().await.status, 400);
    client.send("POST /api/events/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 400);
    client.send(&get("/livez")).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_answered_413_and_not_counted() {
    let served = serve(Options { body_bytes_max: 1_000, ..defaults() }).await;
    let announced = "POST /api/events/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n";
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    let chunked = format!("POST /api/events/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}");
    for request in [announced, &chunked] {
        let answer = served.ask(request).await;
        assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
        assert!(answer.internal().contains("1000 bytes") && answer.internal().ends_with("; counted: no"));
    }
    assert_eq!(served.ask(&get("/api/events/unique")).await.json()["response"], serde_json::json!([]));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_408() {
    let served = serve(Options { header_timeout_ms: 100, ..defaults() }).await;
    let answer = served.ask("POST /api/events/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_eq!(answer.status, 408);
    assert!(answer.internal().ends_with("; counted: no"));
}

#[tokio::test]
async fn a_client_that_shuts_down_its_sending_side_gets_its_answer() {
    let served = serve(defaults()).await;
    let mut client = served.connect().await;
    client.send(&post("/api/events/a?ack=disk")).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.answer().await.body, CREATED);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_sum_that_would_overflow_is_refused_and_said_to_be_not_counted() {
    let served = serve(defaults()).await;
    served.node.batches.names().learn(&EventName::parse("full").unwrap(), TOTAL_MAX - 1);
    assert_eq!(served.ask(&post("/api/events/full")).await.status, 201);
    let answer = served.ask(&post("/api/events/full")).await;
    assert_eq!(answer.status, 409);
    assert!(answer.internal().starts_with("total_overflow: ") && answer.internal().ends_with("; counted: no"));
}

#[tokio::test]
async fn an_unchanged_histogram_is_answered_304_and_a_changed_one_anew() {
    let served = serve(defaults()).await;
    served.ask(&post("/api/events/login")).await;
    let path = format!("/api/events/histogram/login/{}?format=svg", Utc::now().format("%Y%m%d"));
    let first = served.ask(&get(&path)).await;
    assert_eq!((first.status, first.header("content-type")), (200, Some("image/svg+xml")));
    assert_eq!(first.header("x-content-type-options"), Some("nosniff"));
    let tag = first.header("etag").unwrap();
    let conditional = format!("GET {path} HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n");
    let unchanged = served.ask(&conditional).await;
    assert_eq!((unchanged.status, unchanged.header("etag"), unchanged.body.as_str()), (304, Some(tag), ""));
    served.ask(&post("/api/events/login")).await;
    let changed = served.ask(&conditional).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), Some(tag));
}
