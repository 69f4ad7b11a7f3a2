//! Kept lists are brought forward by what was committed since, whoever did it.

use std::sync::Arc;

use event_tracker::domain::{Ack, EventName, Hour, HourRange};
use event_tracker::node::Node;

use crate::harness::eventually;
use crate::harness::node::{node, options};
use crate::harness::postgres::Cluster;

/// A database that only catching up can read: all that is stored row by row is out of reach.
struct Bench {
    database: String,
    nodes: Vec<(Arc<Node>, tempfile::TempDir)>,
}

impl Bench {
    async fn of(nodes: usize) -> Self {
        let database = Cluster::shared().create_database().await;
        let mut bench = Self { database, nodes: Vec::new() };
        for _ in 0..nodes {
            let folder = tempfile::tempdir().unwrap();
            let store = crate::store_contract::open_url(&Cluster::shared().url(&bench.database)).await;
            let node = Arc::new(node(folder.path(), store, options()));
            node.meet_store().await.unwrap();
            bench.nodes.push((node, folder));
        }
        bench
    }

    fn node(&self, number: usize) -> &Node {
        &self.nodes[number].0
    }

    async fn execute(&self, sql: &str) {
        Cluster::shared().connect(&self.database).await.batch_execute(sql).await.unwrap();
    }

    async fn hide_rows(&self) {
        self.execute(
            "alter table hourly_counts rename to away_1; alter table event_totals rename to away_2;
             alter table hour_totals rename to away_3",
        )
        .await;
    }

    async fn show_rows(&self) {
        self.execute(
            "alter table away_1 rename to hourly_counts; alter table away_2 rename to event_totals;
             alter table away_3 rename to hour_totals",
        )
        .await;
    }
}

async fn count(node: &Node, event: &str, hour: u32, count: u64) {
    let recorded = node.batches.record(&EventName::parse(event).unwrap(), hour_of(hour), count).unwrap();
    node.batches.wait_durable(recorded.ticket, Ack::Journal).await.unwrap();
    node.flusher.flush().await.unwrap();
}

fn hour_of(number: u32) -> Hour {
    Hour::from_number(number).unwrap()
}

/// All kinds of lists, as text. Hours 1 to 9.
async fn lists(node: &Node) -> Result<String, event_tracker::store::StoreError> {
    let range = HourRange { first: hour_of(1), last: hour_of(9) };
    let totals: Vec<_> = node.query.totals().await?.iter().map(|t| format!("{} {}", t.event, t.count)).collect();
    let rows = node.query.hourly(range, 1_000).await?;
    let rows: Vec<_> = rows.iter().map(|row| format!("{} {} {}", row.event, row.hour.number(), row.count)).collect();
    let hours: Vec<_> = node.query.hour_sums(range).await?.iter().map(|(h, n)| format!("{} {n}", h.number())).collect();
    let events: Vec<_> = node.query.event_sums(range).await?.iter().map(|(e, n)| format!("{e} {n}")).collect();
    Ok([totals, rows, hours, events].map(|list| list.join(", ")).join("; "))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_nodes_count_is_added_to_every_kept_list_without_reading_it_anew() {
    let bench = Bench::of(3).await;
    count(bench.node(0), "login", 1, 10).await;
    assert_eq!(lists(bench.node(0)).await.unwrap(), "login 10; login 1 10; 1 10; login 10");
    bench.hide_rows().await;
    count(bench.node(1), "login", 1, 5).await;
    count(bench.node(2), "login", 2, 7).await;
    count(bench.node(1), "a", 12, 1).await;
    count(bench.node(2), "z", 9, 2).await;
    let expected = "a 1, login 22, z 2; login 1 15, login 2 7, z 9 2; 1 15, 2 7, 9 2; login 22, z 2";
    eventually("the others' counts", async || lists(bench.node(0)).await.unwrap() == expected).await;
    bench.show_rows().await;
    assert_eq!(bench.node(0).folder.fold().await.unwrap().batches, 5);
    assert_eq!(lists(bench.node(0)).await.unwrap(), expected);
    assert_eq!(lists(bench.node(1)).await.unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_own_commits_between_two_reads_leaves_kept_lists_warm() {
    let bench = Bench::of(1).await;
    count(bench.node(0), "login", 1, 1).await;
    lists(bench.node(0)).await.unwrap();
    bench.hide_rows().await;
    for _ in 0..100 {
        count(bench.node(0), "login", 1, 1).await;
    }
    assert_eq!(lists(bench.node(0)).await.unwrap(), "login 101; login 1 101; 1 101; login 101");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_log_has_every_list_read_anew() {
    let bench = Bench::of(2).await;
    count(bench.node(0), "login", 1, 10).await;
    lists(bench.node(0)).await.unwrap();
    for _ in 0..3 {
        count(bench.node(1), "login", 1, 1).await;
    }
    bench.node(1).folder.fold().await.unwrap();
    bench.execute("delete from deltas where seq = 2").await;
    let expected = "login 13; login 1 13; 1 13; login 13";
    eventually("the others' counts", async || lists(bench.node(0)).await.unwrap() == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_fold_sets_aside_leave_every_kept_list() {
    let bench = Bench::of(2).await;
    count(bench.node(0), "login", 1, 10).await;
    lists(bench.node(0)).await.unwrap();
    bench.execute("alter table hourly_counts add constraint no_bad check (event <> 'bad')").await;
    for (event, counted) in [("bad", 7), ("login", 5)] {
        count(bench.node(1), event, 1, counted).await;
    }
    let before = "bad 7, login 15; bad 1 7, login 1 15; 1 22; bad 7, login 15";
    eventually("what is not folded yet", async || lists(bench.node(0)).await.unwrap() == before).await;
    assert_eq!(bench.node(1).folder.fold().await.unwrap().batches, 3);
    let after = "login 15; login 1 15; 1 15; login 15";
    eventually("what is stored", async || lists(bench.node(0)).await.unwrap() == after).await;
    assert!(bench.node(0).store.audit().await.unwrap().balance());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_catalog_has_every_list_read_anew() {
    let bench = Bench::of(2).await;
    count(bench.node(0), "login", 1, 10).await;
    lists(bench.node(0)).await.unwrap();
    let into = EventName::parse("signin").unwrap();
    let change = event_tracker::store::admin::Change::Move { from: EventName::parse("login").unwrap(), into };
    bench.node(1).catalog.change(change, "ada", chrono::Utc::now()).await.unwrap();
    count(bench.node(1), "login", 1, 1).await;
    let expected = "signin 11; signin 1 11; 1 11; signin 11";
    eventually("the other's change", async || lists(bench.node(0)).await.unwrap() == expected).await;
}
