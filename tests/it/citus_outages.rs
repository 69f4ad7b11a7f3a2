//! Two nodes on a Citus cluster whose workers die and hang: counting goes on, every answer is within bounds, and in
//! the end everything acknowledged is in once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::app::totals;
use crate::harness::citus::Machines;
use crate::harness::{Answer, Backend, PARTITIONS, Tally, TestApp, Traffic, eventually};
use crate::store_contract::open_in;

/// Six, or as many as the environment asks for: a worker is killed and one frozen in turns.
fn outages() -> usize {
    std::env::var("EVENT_TRACKER_OUTAGES").map_or(6, |n| n.parse().expect("EVENT_TRACKER_OUTAGES is a number"))
}

mod citus {
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs Citus: load/citus.sh"]
    async fn workers_that_are_killed_and_frozen_under_traffic_lose_and_double_nothing() {
        super::survive_outages_of_workers().await;
    }
}

/// Two nodes and what each of them has acknowledged.
type Nodes = [(TestApp, Arc<Tally>); 2];

async fn survive_outages_of_workers() {
    let machines = Arc::new(Machines::start().await);
    let mut nodes = two_nodes(&machines).await;
    let stop = Arc::new(AtomicBool::new(false));
    let readers = [0, 1].map(|number| tokio::spawn(read_until(&nodes, number, &stop)));
    for (number, query) in (0..outages()).zip(["", "?ack=disk"].into_iter().cycle()) {
        let traffics = [0, 1].map(|node| Traffic::start(&nodes[node].0, &nodes[node].1, 3, query));
        answered(&traffics, 50).await;
        let of = number / 2 % 2;
        if number % 2 == 0 {
            blocking(&machines, move |machines| machines.workers[of].kill()).await;
        } else {
            blocking(&machines, move |machines| machines.workers[of].freeze()).await;
        }
        answered(&traffics, 200).await;
        reads_fail(&nodes).await;
        if number % 2 == 0 {
            blocking(&machines, move |machines| machines.workers[of].start()).await;
        } else {
            blocking(&machines, move |machines| machines.workers[of].thaw()).await;
        }
        for traffic in traffics {
            traffic.answered(300).await;
            traffic.stop().await;
        }
        settle(&nodes).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut exact, mut refused) = (0, 0);
    for reader in readers {
        let (exact_here, refused_here) = reader.await.unwrap();
        (exact, refused) = (exact + exact_here, refused + refused_here);
    }
    let acknowledged = acknowledged(&nodes);
    for (node, _) in &mut nodes {
        node.stop().await;
    }
    assert_eq!(nodes[0].0.audit().await, acknowledged.values().sum::<u64>());
    let answers: u64 = nodes.iter().map(|(_, tally)| tally.answers()).sum();
    eprintln!("{} outages, {answers} posts answered, {exact} reads exact, {refused} refused", outages());
}

/// Quick to notice an outage, quick to try again.
async fn two_nodes(machines: &Machines) -> Nodes {
    let url = machines.coordinator.url("postgres");
    // Made with more patience than the nodes have.
    let store = open_in(&url, PARTITIONS).await;
    store.identity().await.unwrap();
    store.close().await;
    let first = TestApp::with(Backend::Partitioned)
        .database_url(&url)
        .config("flush.interval_ms", 20)
        .config("store.fold_interval_ms", 50)
        .config("flush.retry_backoff_max_ms", 100)
        .config("store.connect_timeout_ms", 2_000)
        .config("store.statement_timeout_ms", 2_000)
        .config("store.lock_timeout_ms", 500)
        .start()
        .await;
    let mut second = first.another_node().await;
    second.restart().await;
    let nodes = [(first, Arc::default()), (second, Arc::default())];
    for (node, _) in &nodes {
        eventually("the store to be reached", async || node.get("/api/events/unique").await.status == 200).await;
    }
    nodes
}

async fn blocking(machines: &Arc<Machines>, work: impl FnOnce(&Machines) + Send + 'static) {
    let machines = Arc::clone(machines);
    tokio::task::spawn_blocking(move || work(&machines)).await.unwrap();
}

async fn answered(traffics: &[Traffic], posts: u64) {
    for traffic in traffics {
        traffic.answered(posts).await;
    }
}

/// Until nobody can read what the worker has.
async fn reads_fail(nodes: &Nodes) {
    for (node, _) in nodes {
        eventually("reads to be refused", async || node.get("/api/events/unique").await.status == 503).await;
    }
}

fn acknowledged(nodes: &Nodes) -> BTreeMap<String, u64> {
    sum(nodes.iter().map(|(_, tally)| tally.acknowledged()))
}

fn sum(counts: impl Iterator<Item = BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (event, count) in counts.flatten() {
        *sums.entry(event).or_default() += count;
    }
    sums
}

/// No node died, so every post was answered: both nodes must come to show exactly what both have acknowledged.
async fn settle(nodes: &Nodes) {
    let expected = acknowledged(nodes);
    assert_eq!(sum(nodes.iter().map(|(_, tally)| tally.sent())), expected, "a post was not answered");
    for (node, _) in nodes {
        eventually(&format!("a node to show {expected:?}"), async || {
            let answer = node.get("/api/events/unique").await;
            answer.status == 200 && totals(&answer) == expected
        })
        .await;
    }
}

/// Reads all totals at one node again and again. Each answer has at least what this node had acknowledged before,
/// at most what both had been sent, and no less than the answer before. Gives the numbers of answers and refusals.
fn read_until(nodes: &Nodes, number: usize, stop: &Arc<AtomicBool>) -> impl Future<Output = (u64, u64)> + Send + use<> {
    let (http, url) = (nodes[number].0.client(), nodes[number].0.url("/api/events/unique"));
    let (own, stop) = (Arc::clone(&nodes[number].1), Arc::clone(stop));
    let tallies = [0, 1].map(|node| Arc::clone(&nodes[node].1));
    async move {
        let (mut exact, mut refused) = (0, 0);
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        while !stop.load(Ordering::Relaxed) {
            let acknowledged = own.acknowledged();
            let answer = Answer::of(http.get(&url).send().await.unwrap()).await.unwrap();
            let sent = sum(tallies.iter().map(|tally| tally.sent()));
            if answer.status != 200 {
                assert_eq!(answer.status, 503, "{}", answer.text());
                refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let read = totals(&answer);
            for (event, sent) in &sent {
                let of = |counts: &BTreeMap<String, u64>| counts.get(event).copied().unwrap_or_default();
                let (found, least) = (of(&read), of(&acknowledged).max(of(&last)));
                assert!((least..=*sent).contains(&found), "{event}: {found} is not within {least} and {sent}");
            }
            assert!(read.keys().all(|event| sent.contains_key(event)), "nobody sent all of {read:?}");
            last = read;
            exact += 1;
        }
        (exact, refused)
    }
}
