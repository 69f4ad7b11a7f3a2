//! Which hour a count belongs to: the service in this process, with a clock that the test sets.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use event_tracker::domain::Ack;
use event_tracker::journal::DataDir;
use event_tracker::node::{Clock, Node};
use event_tracker::site::Site;
use event_tracker::{admin, server, web};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::harness::{Answer, eventually, node};

/// The service without a flusher: what is pending stays so until [`Service::flush`].
pub struct Service {
    url: String,
    now: Arc<Mutex<DateTime<Utc>>>,
    pub node: Arc<Node>,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Service {
    pub async fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let now = Arc::new(Mutex::new(DateTime::UNIX_EPOCH));
        let clock = Arc::clone(&now);
        let clock: Clock = Arc::new(move || (*clock.lock()).into());
        let (dir, store) = (DataDir::lock(temporary.path()).unwrap(), node::sqlite(temporary.path()).await);
        let (node, _) = Node::recover(dir, store, node::options(), clock).unwrap();
        let node = Arc::new(node);
        let admin = Box::leak(Box::new(admin::State::new(&node, admin::Options::default())));
        let site = Box::leak(Box::new(Site::new(&node, admin, Ack::Journal, web::Options::default())));
        let listener = server::listen("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(server::serve(listener, site, CancellationToken::new()));
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { url, now, node, client, _folder: temporary }
    }

    fn set_clock(&self, now: &str) {
        *self.now.lock() = now.parse().unwrap();
    }

    pub async fn post(&self, target: &str) {
        let answer = self.client.post(format!("{}{target}", self.url)).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    async fn get(&self, target: &str) -> Answer {
        Answer::of(self.client.get(format!("{}{target}", self.url)).send().await.unwrap()).await.unwrap()
    }

    async fn range(&self, start_date: &str, end_date: &str) -> Vec<(String, String, u64)> {
        crate::harness::app::rows(&self.get(&format!("/api/events?start_date={start_date}&end_date={end_date}")).await)
    }
}

fn row(date: &str, count: u64) -> (String, String, u64) {
    (date.to_owned(), "login".to_owned(), count)
}

#[tokio::test]
async fn the_contracts_example_happens_as_it_is_written() {
    let service = Service::start().await;
    service.set_clock("2020-09-11T12:34:56Z");
    service.post("/api/events/login/12").await;
    service.set_clock("2020-09-11T13:00:00Z");
    service.post("/api/events/login/2000").await;
    service.get("/api/events?start_date=2020091112&end_date=20200911").await.is(
        200,
        r#"{"status":true,"response":[[{"date":"2020091112","event":"login","count":12}],[{"date":"2020091113","event":"login","count":2000}]]}"#,
    );
}

#[tokio::test]
async fn the_last_moment_of_an_hour_belongs_to_it_pending_or_stored() {
    let service = Service::start().await;
    for (now, num) in [
        ("2020-02-28T22:59:59.999Z", 1),
        ("2020-02-28T23:00:00Z", 2),
        ("2020-02-28T23:59:59.999999999Z", 4),
        ("2020-02-29T00:00:00Z", 8),
        // In UTC, whatever zone is meant.
        ("2020-02-29T01:30:00+01:00", 16),
        // Clocks are set back now and then.
        ("2020-02-28T22:00:00Z", 32),
    ] {
        service.set_clock(now);
        service.post(&format!("/api/events/login/{num}")).await;
    }
    let expected = [row("2020022822", 33), row("2020022823", 6), row("2020022900", 24)];
    for flushed in [false, true] {
        assert_eq!(service.range("20200101", "20201231").await, expected, "flushed: {flushed}");
        assert_eq!(service.range("2020022823", "20200228").await, expected[1..2], "flushed: {flushed}");
        assert_eq!(service.range("20200229", "20200229").await, expected[2..], "flushed: {flushed}");
        let day = service.get("/api/events/histogram/login/20200228?format=json").await.json();
        assert_eq!((&day["response"]["total"], &day["response"]["hours"][23]["count"]), (&39.into(), &6.into()));
        service.node.flusher.flush().await.unwrap();
    }
}

#[tokio::test]
async fn the_hour_is_fixed_when_a_count_is_admitted_however_late_it_is_committed() {
    let service = Service::start().await;
    service.set_clock("2020-09-11T12:59:59Z");
    let waiting = service.client.post(format!("{}/api/events/login/5?ack=store", service.url)).send();
    let waiting = tokio::spawn(waiting);
    let login = event_tracker::domain::EventName::parse("login").unwrap();
    eventually("the count to be admitted", async || service.node.batches.names().find(&login).is_some()).await;
    service.set_clock("2020-09-12T08:00:00Z");
    service.node.flusher.flush().await.unwrap();
    assert!(waiting.await.unwrap().unwrap().status().is_success());
    assert_eq!(service.range("20200101", "20201231").await, [row("2020091112", 5)]);
}
