//! A start with a large store: what it knows is known before the first answer.

use crate::harness::postgres::Cluster;
use crate::harness::proxy::{Fault, Proxy};
use crate::harness::{Backend, TestApp};

const EVENTS: u64 = 400_000;

/// As many events as a debug build takes seconds to read, put in behind the store's back.
async fn database_with_many_events() -> String {
    let cluster = Cluster::shared();
    let database = cluster.create_database().await;
    let mut app = TestApp::with(Backend::Postgres).database_url(&cluster.url(&database)).start().await;
    app.stop().await;
    let sql = format!(
        "insert into hourly_counts (event, hour, count) select 'event-' || n, 450000, 1 from generate_series(1, {EVENTS}) n;
         insert into event_totals (event, total, first_hour, last_hour)
             select 'event-' || n, 1, 450000, 450000 from generate_series(1, {EVENTS}) n;
         insert into ledger (writer, last_seq, total) values (decode('00', 'hex'), 1, {EVENTS})"
    );
    cluster.connect(&database).await.batch_execute(&sql).await.unwrap();
    cluster.url(&database)
}

#[tokio::test]
async fn a_node_that_starts_with_many_events_knows_them_all_at_the_first_request() {
    let url = database_with_many_events().await;
    let proxy = Proxy::start(url::Url::parse(&url).unwrap().port().unwrap()).await;
    // Several times as long as a silent store would be waited for, and as one statement may take.
    proxy.set(Fault::Trickle(EVENTS / 30));
    let setup = TestApp::with(Backend::Postgres).database_url(&proxy.url(&url)).config("limits.events_max", EVENTS);
    let mut app = setup.config("store.statement_timeout_ms", 1_000).start().await;
    proxy.set(Fault::None);
    let known = app.post(&format!("/api/events/event-{EVENTS}/5")).await;
    assert_eq!((known.status, known.json()["response"].as_u64()), (200, Some(204)), "a known event passes for new");
    let (internal, _) = app.post("/api/events/one-too-many").await.fails(403);
    assert!(internal.starts_with("too_many_events: "), "{internal}");
    let log = app.stop().await;
    assert!(!log.contains("unavailable"), "the first contact was cut off: {log}");
}
