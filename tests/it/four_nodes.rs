//! Four nodes on one database that count the same events: nobody waits for another, and whatever dies, every
//! acknowledged count is in once.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::{Backend, Tally, TestApp, Traffic, eventually};

const NODES: usize = 4;

async fn four_nodes() -> Vec<TestApp> {
    let setup = TestApp::with(Backend::Postgres)
        .config("flush.interval_ms", 10)
        .config("store.fold_interval_ms", 10)
        .config("flush.retry_backoff_max_ms", 100);
    let mut nodes = vec![setup.start().await];
    while nodes.len() < NODES {
        let mut node = nodes[0].another_node().await;
        node.restart().await;
        nodes.push(node);
    }
    nodes
}

/// Eight, or as many as the environment asks for.
fn kills() -> u64 {
    std::env::var("EVENT_TRACKER_KILLS").map_or(8, |kills| kills.parse().expect("EVENT_TRACKER_KILLS is a number"))
}

/// What all nodes show, once they show the same: then each has flushed what it had.
async fn agreed(nodes: &[TestApp]) -> BTreeMap<String, u64> {
    eventually("all nodes to agree", async || {
        let first = nodes[0].totals().await;
        for node in &nodes[1..] {
            if node.totals().await != first {
                return false;
            }
        }
        true
    })
    .await;
    nodes[0].totals().await
}

#[tokio::test(flavor = "multi_thread")]
async fn four_nodes_that_are_killed_at_random_lose_and_double_nothing() {
    let mut nodes = four_nodes().await;
    let mut random = StdRng::seed_from_u64(4);
    let tally = Arc::new(Tally::default());
    for (_, query) in (1..=kills()).zip(["", "?ack=store", "?ack=disk"].into_iter().cycle()) {
        let mut traffics: Vec<_> = nodes.iter().map(|node| Traffic::start(node, &tally, 2, query)).collect();
        let victim = random.random_range(0..NODES);
        traffics[victim].answered(random.random_range(10..100)).await;
        nodes[victim].kill().await;
        traffics.swap_remove(victim).cut_off().await;
        for traffic in traffics {
            traffic.stop().await;
        }
        nodes[victim].restart().await;
        tally.settle(&agreed(&nodes).await);
    }
    for node in &mut nodes {
        node.stop().await;
    }
    let in_store = nodes[0].audit().await;
    assert_eq!(in_store, tally.acknowledged().values().sum::<u64>());
    eprintln!("{} kills, {} posts answered, {in_store} in the store", kills(), tally.answers());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_all_sessions_at_once_costs_four_nodes_nothing() {
    let mut nodes = four_nodes().await;
    let tally = Arc::new(Tally::default());
    let owner = crate::harness::postgres::Cluster::shared().connect(&nodes[0].database()).await;
    for _ in 0..5 {
        let traffics: Vec<_> = nodes.iter().map(|node| Traffic::start(node, &tally, 1, "?ack=store")).collect();
        for traffic in &traffics {
            traffic.answered(5).await;
        }
        let sql = "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()";
        owner.execute(sql, &[]).await.unwrap();
        for traffic in traffics {
            traffic.stop().await;
        }
    }
    let acknowledged = tally.acknowledged();
    assert_eq!(agreed(&nodes).await, acknowledged);
    for node in &mut nodes {
        node.stop().await;
    }
    assert_eq!(nodes[0].audit().await, acknowledged.values().sum::<u64>());
    let sql = "select cast(deadlocks as bigint) from pg_stat_database where datname = current_database()";
    assert_eq!(owner.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
}
