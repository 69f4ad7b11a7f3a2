//! Which nodes live, by the store's clock.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use event_tracker::store::{NodeId, NodeReport, NodeSeen};

use super::*;

on_both_stores!(
    a_node_that_reports_is_seen_with_times_of_the_stores_clock,
    the_last_report_of_a_node_counts_and_its_start_stays,
    a_node_that_ends_is_forgotten_at_once,
);

mod postgresql {
    use super::*;
    on_postgres!(
        two_nodes_are_two_for_each_of_them,
        a_node_that_was_started_again_is_one_and_copies_of_its_folder_are_as_many_as_go_on,
        who_has_not_reported_for_its_time_is_not_shown_and_soon_deleted,
        a_report_waits_for_no_other_node_that_it_takes_for_dead,
        nodes_that_all_come_back_after_a_long_silence_do_not_wait_for_each_other,
    );
}

fn report(node: u8, writer_number: u8) -> NodeReport {
    NodeReport {
        node: NodeId([node; 16]),
        writer: writer(writer_number),
        host: "machine".into(),
        address: format!("10.0.0.{node}:8000"),
        version: "1.2.3".into(),
        started: Duration::from_secs(3_600),
        last_commit: None,
        waiting: None,
    }
}

/// One that has just been started.
fn fresh(node: u8, writer_number: u8) -> NodeReport {
    NodeReport { started: Duration::ZERO, ..report(node, writer_number) }
}

async fn writers(store: &Arc<dyn Store>) -> Vec<u8> {
    store.nodes().await.unwrap().iter().map(|seen| seen.writer.0[0]).collect()
}

/// Of the machine, which every store of the tests asks.
fn is_about(time: DateTime<Utc>, secs_ago: i64) -> bool {
    let off = Utc::now() - TimeDelta::seconds(secs_ago) - time;
    off.abs() < TimeDelta::seconds(30)
}

async fn a_node_that_reports_is_seen_with_times_of_the_stores_clock(bench: Bench) {
    let store = bench.store().await;
    assert_eq!(store.nodes().await, Ok(vec![]));
    let said = NodeReport {
        last_commit: Some(Duration::from_secs(120)),
        waiting: Some(Duration::from_millis(7_500)),
        ..report(1, 11)
    };
    store.note_node(said.clone()).await.unwrap();
    let seen = store.nodes().await.unwrap();
    let [seen] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((seen.node, seen.writer), (said.node, said.writer));
    assert_eq!((&seen.host, &seen.address, &seen.version), (&said.host, &said.address, &said.version));
    assert!(is_about(seen.started, 3_600) && is_about(seen.last_commit.unwrap(), 120), "{seen:?}");
    assert!(seen.reported < Duration::from_secs(15), "{seen:?}");
    // A waiting batch goes on waiting.
    let off = seen.lag.abs_diff(Duration::from_millis(7_500) + seen.reported);
    assert!(off < Duration::from_millis(2), "{seen:?}");
    assert!(!seen.is_copied(std::slice::from_ref(seen)));
}

async fn the_last_report_of_a_node_counts_and_its_start_stays(bench: Bench) {
    let store = bench.store().await;
    store.note_node(NodeReport { waiting: Some(Duration::from_secs(5)), ..report(1, 11) }).await.unwrap();
    let first = store.nodes().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let started = Duration::from_millis(3_600_020);
    store.note_node(NodeReport { started, last_commit: Some(Duration::ZERO), ..report(1, 11) }).await.unwrap();
    let seen = store.nodes().await.unwrap();
    let [seen] = seen.as_slice() else { panic!("{seen:?}") };
    assert!((seen.started - first[0].started).abs() < TimeDelta::seconds(1), "{first:?}, {seen:?}");
    assert_eq!((seen.lag, first[0].last_commit), (Duration::ZERO, None));
    assert!(is_about(seen.last_commit.unwrap(), 0));
}

async fn a_node_that_ends_is_forgotten_at_once(bench: Bench) {
    let store = bench.store().await;
    store.note_node(report(1, 11)).await.unwrap();
    store.forget_node(writer(12)).await.unwrap();
    assert_eq!(writers(&store).await, [11]);
    store.forget_node(writer(11)).await.unwrap();
    assert!(writers(&store).await.is_empty());
    store.note_node(report(1, 11)).await.unwrap();
    assert_eq!(writers(&store).await, [11]);
}

async fn two_nodes_are_two_for_each_of_them(bench: Bench) {
    let store = bench.store().await;
    let other = bench.store().await;
    store.note_node(report(2, 12)).await.unwrap();
    other.note_node(report(1, 11)).await.unwrap();
    for store in [&store, &other] {
        assert_eq!(writers(store).await, [11, 12], "ordered by address");
        let seen = store.nodes().await.unwrap();
        assert!(!seen.iter().any(|node| node.is_copied(&seen)));
    }
}

async fn a_node_that_was_started_again_is_one_and_copies_of_its_folder_are_as_many_as_go_on(bench: Bench) {
    let store = bench.store().await;
    store.note_node(report(1, 11)).await.unwrap();
    store.note_node(report(2, 21)).await.unwrap();
    // The first was killed a moment ago and is back.
    store.note_node(fresh(1, 12)).await.unwrap();
    assert_eq!(writers(&store).await, [12, 21]);
    // It was not: it goes on.
    store.note_node(report(1, 11)).await.unwrap();
    let seen = store.nodes().await.unwrap();
    let copied: Vec<_> = seen.iter().map(|node: &NodeSeen| (node.writer.0[0], node.is_copied(&seen))).collect();
    assert_eq!(copied, [(11, true), (12, true), (21, false)]);
    // Both are started again, one by one.
    store.note_node(fresh(1, 13)).await.unwrap();
    assert_eq!(writers(&store).await, [13, 21]);
    store.note_node(fresh(1, 14)).await.unwrap();
    store.note_node(report(1, 13)).await.unwrap();
    assert_eq!(writers(&store).await, [13, 14, 21]);
    // A node that was followed by another does not come back when that one ends.
    store.note_node(fresh(2, 22)).await.unwrap();
    store.forget_node(writer(22)).await.unwrap();
    assert_eq!(writers(&store).await, [13, 14]);
}

async fn who_has_not_reported_for_its_time_is_not_shown_and_soon_deleted(bench: Bench) {
    let (store, client) = (bench.store().await, bench.client().await);
    let kept = async || client.query_one("select count(*) from nodes", &[]).await.unwrap().get::<_, i64>(0);
    for number in [1, 2, 3] {
        store.note_node(report(number, number)).await.unwrap();
    }
    bench.execute("update nodes set seen_at = seen_at - interval '10 seconds' where writer = '\\x01010101010101010101010101010101'").await;
    bench.execute("update nodes set seen_at = seen_at - interval '1 minute' where writer = '\\x02020202020202020202020202020202'").await;
    // The clock of the database was set back, or another one has taken over.
    bench.execute("update nodes set seen_at = seen_at + interval '1 minute' where writer = '\\x03030303030303030303030303030303'").await;
    assert_eq!((writers(&store).await, kept().await), (vec![1], 3));
    store.note_node(report(4, 4)).await.unwrap();
    assert_eq!((writers(&store).await, kept().await), (vec![1, 4], 2));
    // They only seemed dead.
    store.note_node(report(2, 2)).await.unwrap();
    assert_eq!(writers(&store).await, [1, 2, 4]);
}

async fn nodes_that_all_come_back_after_a_long_silence_do_not_wait_for_each_other(bench: Bench) {
    let mut stores = Vec::new();
    for number in 1..=6 {
        let store = bench.store().await;
        store.note_node(report(number, number)).await.unwrap();
        stores.push((store, number));
    }
    for _ in 0..10 {
        bench.execute("update nodes set seen_at = seen_at - interval '1 minute'").await;
        let noted = stores.iter().map(|(store, number)| store.note_node(report(*number, *number)));
        for noted in futures_util::future::join_all(noted).await {
            assert_eq!(noted, Ok(()));
        }
        // One may have been taken for dead in the moment before it reported; its next report mends that.
        for (store, number) in &stores {
            store.note_node(report(*number, *number)).await.unwrap();
        }
        assert_eq!(writers(&stores[0].0).await, [1, 2, 3, 4, 5, 6]);
    }
}

async fn a_report_waits_for_no_other_node_that_it_takes_for_dead(bench: Bench) {
    let store = bench.store().await;
    for number in [1, 2] {
        store.note_node(report(number, number)).await.unwrap();
    }
    bench.execute("update nodes set seen_at = seen_at - interval '1 minute'").await;
    // The other one is reporting right now, and its database is slow.
    let other = bench.client().await;
    other
        .batch_execute("begin; update nodes set seen_at = now() where node = decode(repeat('02', 16), 'hex')")
        .await
        .unwrap();
    let noted = tokio::time::timeout(Duration::from_secs(5), store.note_node(report(1, 1))).await;
    assert_eq!(noted.expect("the report waits"), Ok(()));
    other.batch_execute("commit").await.unwrap();
    assert_eq!(writers(&store).await, [1, 2]);
}

#[tokio::test]
async fn a_report_waits_for_no_standby() {
    let cluster = tokio::task::spawn_blocking(Cluster::private).await.unwrap();
    let database = cluster.create_database().await;
    let options = Options {
        url: cluster.url(&database),
        connect_timeout_ms: 500,
        statement_timeout_ms: 500,
        ..Options::default()
    };
    let store = store::open(&options, std::path::Path::new("unused")).await.unwrap();
    store.identity().await.unwrap();
    let owner = cluster.connect(&database).await;
    owner.batch_execute("alter system set synchronous_standby_names = 'gone'").await.unwrap();
    owner.batch_execute("select pg_reload_conf()").await.unwrap();
    crate::harness::eventually("commits to wait for the standby", async || {
        store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.is_err()
    })
    .await;
    store.note_node(report(1, 1)).await.unwrap();
    assert_eq!(writers(&store).await, [1]);
    store.forget_node(writer(1)).await.unwrap();
}
