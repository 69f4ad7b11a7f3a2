//! Nodes behind PgBouncer in transaction pooling: kills, poolers that go away, connections that are dropped
//! in the middle of a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use event_tracker::store::{self, Commit, Options, StoreError};

use crate::exactly_once::{settle, survive_kills};
use crate::harness::app::Setup;
use crate::harness::pgbouncer::PgBouncer;
use crate::harness::postgres::Cluster;
use crate::harness::{Backend, Tally, TestApp, Traffic, eventually};
use crate::store_contract::{balanced_books, batch, open_url, request, rows, totals};

/// A pooler of one's own in front of the shared cluster.
async fn pooler() -> PgBouncer {
    tokio::task::spawn_blocking(|| PgBouncer::before(Cluster::shared())).await.unwrap()
}

/// A program that notices soon, and tries again soon.
fn setup(pooler: &PgBouncer, database: &str) -> Setup {
    TestApp::with(Backend::Postgres)
        .database_url(&pooler.url(database))
        .config("flush.interval_ms", 10)
        .config("flush.retry_backoff_max_ms", 100)
        .config("store.connect_timeout_ms", 1_000)
        .config("store.statement_timeout_ms", 2_000)
}

#[tokio::test]
async fn kills_behind_a_pooler_lose_and_double_nothing() {
    let database = Cluster::shared().create_database().await;
    let url = PgBouncer::shared().url(&database);
    let setup = TestApp::with(Backend::Postgres).database_url(&url).config("flush.interval_ms", 10);
    survive_kills(setup.start().await).await;
}

#[tokio::test]
async fn two_nodes_behind_a_pooler_add_up() {
    let database = Cluster::shared().create_database().await;
    let mut first = setup(PgBouncer::shared(), &database).start().await;
    let mut second = first.another_node().await;
    second.restart().await;
    let tally = Arc::new(Tally::default());
    let traffic = [Traffic::start(&first, &tally, 4, ""), Traffic::start(&second, &tally, 4, "?ack=store")];
    traffic[1].answered(200).await;
    for traffic in traffic {
        traffic.stop().await;
    }
    for node in [&first, &second] {
        eventually("both nodes to agree", async || first.totals().await == second.totals().await).await;
        assert_eq!(node.get("/api/v1/nodes").await.json()["response"].as_array().unwrap().len(), 2);
    }
    second.stop().await;
    settle(&mut first, &tally).await;
}

#[tokio::test]
async fn a_pooler_that_is_killed_and_started_again_loses_and_doubles_nothing() {
    let pooler = pooler().await;
    let database = Cluster::shared().create_database().await;
    let mut app = setup(&pooler, &database).start().await;
    let tally = Arc::new(Tally::default());
    let traffic = Traffic::start(&app, &tally, 4, "");
    for round in 1..=6 {
        traffic.answered(200 * round - 100).await;
        pooler.kill();
        // Counting goes on.
        traffic.answered(200 * round).await;
        pooler.start();
        eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
    }
    traffic.stop().await;
    settle(&mut app, &tally).await;
}

#[tokio::test]
async fn connections_that_the_pooler_drops_lose_and_double_nothing() {
    let pooler = pooler().await;
    let database = Cluster::shared().create_database().await;
    let mut app = setup(&pooler, &database).start().await;
    let tally = Arc::new(Tally::default());
    let traffic = Traffic::start(&app, &tally, 4, "");
    for round in 1..=6 {
        traffic.answered(100 * round).await;
        match round % 2 {
            // As soon as no transaction is on them.
            0 => drop(pooler.tell("RECONNECT").await),
            // In the middle of one.
            _ => {
                pooler.tell(&format!("KILL {database}")).await;
                pooler.tell(&format!("RESUME {database}")).await;
            }
        }
        eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
    }
    traffic.stop().await;
    settle(&mut app, &tally).await;
}

#[tokio::test]
async fn servers_that_end_within_a_transaction_lose_and_double_nothing() {
    let pooler = pooler().await;
    let database = Cluster::shared().create_database().await;
    let mut app = setup(&pooler, &database).start().await;
    let tally = Arc::new(Tally::default());
    let traffic = Traffic::start(&app, &tally, 4, "");
    traffic.answered(50).await;
    // A commit is slow enough to be met.
    let direct = Cluster::shared().connect(&database).await;
    direct
        .batch_execute(
            "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.05); return null; end $$;
             create trigger slow after insert on deltas for each statement execute function slow()",
        )
        .await
        .unwrap();
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null \
               and query like '%deltas%'";
    let ended = AtomicI64::new(0);
    eventually("ten servers to be ended within a commit", async || {
        let now: i64 = direct.query_one(end, &[]).await.unwrap().get(0);
        ended.fetch_add(now, Ordering::Relaxed) + now >= 10
    })
    .await;
    traffic.stop().await;
    settle(&mut app, &tally).await;
}

#[tokio::test]
async fn what_other_clients_of_a_pooler_leave_behind_changes_nothing() {
    let pooler = pooler().await;
    let database = Cluster::shared().create_database().await;
    let store = open_url(&pooler.url(&database)).await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    for seq in 2..=20 {
        // On one of the connections that the store gets next.
        let (neighbour, connection) =
            tokio_postgres::connect(&pooler.url(&database), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let left = "create schema if not exists elsewhere; set search_path = elsewhere; set timezone = 'Asia/Kolkata'; \
                    set bytea_output = 'escape'; set datestyle = 'german'; set default_transaction_isolation = 'serializable'";
        neighbour.batch_execute(left).await.unwrap();
        assert_eq!(store.commit(request(batch(1, seq), rows([("a", 1, 1)]))).await, Ok(Commit::Applied));
        store.fold().await.unwrap();
        assert_eq!(totals(&store).await, [("a".into(), seq)]);
        store.catalog().await.unwrap();
    }
    assert_eq!(balanced_books(&store).await.ledger, 20);
    let newcomer = open_url(&pooler.url(&database)).await;
    assert_eq!(totals(&newcomer).await, [("a".into(), 20)]);
}

#[tokio::test]
async fn a_pooler_that_leads_to_another_database_is_noticed_and_nothing_is_written_there() {
    let (pooler, cluster) = (pooler().await, Cluster::shared());
    let (own, other, empty) =
        (cluster.create_database().await, cluster.create_database().await, cluster.create_database().await);
    // Another service's, which has the writer of the same number.
    let of_other = open_url(&cluster.url(&other)).await;
    of_other.commit(request(batch(1, 1), rows([("theirs", 1, 7)]))).await.unwrap();
    let lead_to = async |database: &str| {
        pooler.lead_to(cluster, "events", &format!("dbname={database}"));
        pooler.tell("RELOAD").await;
        pooler.tell("RECONNECT").await;
    };
    lead_to(&own).await;
    let options = Options { url: pooler.url("events"), connect_timeout_ms: 2_000, ..Options::default() };
    let store = store::open(&options, std::path::Path::new("unused")).await.unwrap();
    for seq in 1..=2 {
        store.commit(request(batch(1, seq), rows([("ours", 1, 1)]))).await.unwrap();
        // Its sessions are open, and stay so.
        totals(&store).await;
        store.catalog().await.unwrap();
        store.position(vec![]).await.unwrap();
        store.fold().await.unwrap();
        let wrong = if seq == 2 { &empty } else { &other };
        lead_to(wrong).await;
        let is_another = |error: StoreError| matches!(error, StoreError::AnotherDatabase(_));
        let next = store.commit(request(batch(1, seq + 1), rows([("ours", 1, 1)]))).await;
        assert!(next.clone().is_err_and(is_another), "{next:?}");
        assert!(store.totals(vec![]).await.is_err_and(is_another));
        assert!(store.position(vec![]).await.is_err_and(is_another));
        assert!(store.fold().await.is_err_and(is_another));
        assert!(store.catalog().await.is_err_and(is_another));
        lead_to(&own).await;
        eventually("the right one to be used again", async || store.identity().await.is_ok()).await;
    }
    assert_eq!(totals(&of_other).await, [("theirs".into(), 7)]);
    assert_eq!(totals(&open_url(&cluster.url(&own)).await).await, [("ours".into(), 2)]);
}
