//! Counting and reading on a node while administrators change the catalog, here or elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_tracker::batch::RecordError;
use event_tracker::domain::{Day, HourRange};
use event_tracker::node;

use super::*;

on_both_stores!(
    pending_counts_of_an_alias_show_under_its_event,
    an_alias_shows_the_day_of_its_event,
    a_change_by_another_node_is_seen_at_once_by_reads_of_new_rows,
    what_was_read_before_a_change_here_is_not_served_after_it,
    switched_off_and_deleted_events_are_not_counted,
    another_node_stops_counting_after_a_flush_interval,
    a_deleted_event_is_hidden_with_its_pending_counts,
    what_is_pending_keeps_its_own_name_when_a_move_is_undone,
    reads_are_exact_while_names_move_under_load,
);
on_partitions!(
    pending_counts_of_an_alias_show_under_its_event,
    an_alias_shows_the_day_of_its_event,
    a_change_by_another_node_is_seen_at_once_by_reads_of_new_rows,
    what_was_read_before_a_change_here_is_not_served_after_it,
    switched_off_and_deleted_events_are_not_counted,
    another_node_stops_counting_after_a_flush_interval,
    a_deleted_event_is_hidden_with_its_pending_counts,
    what_is_pending_keeps_its_own_name_when_a_move_is_undone,
    reads_are_exact_while_names_move_under_load,
);

/// A node without HTTP.
struct Node {
    node: node::Node,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for Node {
    type Target = node::Node;
    fn deref(&self) -> &node::Node {
        &self.node
    }
}

impl Node {
    async fn start(bench: &Bench) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = crate::harness::node::options();
        Self { node: crate::harness::node::node(folder.path(), bench.store().await, options), _folder: folder }
    }

    fn record(&self, event: &str, number: u32, count: u64) {
        self.batches.record(&name(event), hour(number), count).unwrap();
    }

    fn refuses(&self, event: &str) -> Option<RecordError> {
        self.batches.record(&name(event), hour(1), 1).err()
    }

    async fn change(&self, change: Change) -> i64 {
        match self.query.catalog().change(change, "ada", now()).await.unwrap() {
            Changed::Done { change } => change,
            Changed::Refused { reason } => panic!("{reason}"),
        }
    }

    /// What `unique` shows; a range of everything must say the same.
    async fn totals(&self) -> Vec<(String, u64)> {
        let totals = self.query.totals().await.unwrap();
        totals.into_iter().map(|total| (total.event.to_string(), total.count)).collect()
    }

    async fn range(&self) -> Arc<[event_tracker::domain::HourlyCount]> {
        self.query.hourly(HourRange::ALL, 1_000).await.unwrap().into()
    }

    /// The counts of the first hours of 1970.
    async fn day(&self, event: &str) -> Option<(String, u64)> {
        let series = self.query.day(&name(event), Day::parse("19700101").unwrap()).await.unwrap()?;
        Some((series.event.to_string(), series.counts.iter().sum()))
    }
}

fn told<const N: usize>(totals: [(&str, u64); N]) -> Vec<(String, u64)> {
    totals.map(|(event, count)| (event.to_owned(), count)).to_vec()
}

async fn pending_counts_of_an_alias_show_under_its_event(bench: Bench) {
    let node = Node::start(&bench).await;
    node.record("a", 1, 1);
    node.record("b", 1, 10);
    node.flusher.flush().await.unwrap();
    node.record("a", 1, 2);
    node.record("a", 3, 4);
    node.change(relocate("a", "b")).await;
    node.record("a", 1, 100);
    for _ in 0..2 {
        assert_eq!(node.totals().await, told([("b", 117)]));
        assert_eq!(node.range().await, rows([("b", 1, 113), ("b", 3, 4)]));
        let total = &node.query.totals().await.unwrap()[0];
        assert_eq!((total.first_hour, total.last_hour), (hour(1), hour(3)));
        node.flusher.flush().await.unwrap();
    }
    balanced_books(&node.store).await;
}

async fn an_alias_shows_the_day_of_its_event(bench: Bench) {
    let node = Node::start(&bench).await;
    node.record("a", 1, 1);
    node.record("b", 2, 10);
    node.flusher.flush().await.unwrap();
    assert_eq!(node.day("a").await, Some(("a".into(), 1)));
    node.change(relocate("a", "b")).await;
    node.record("a", 5, 100);
    assert_eq!(node.day("a").await, Some(("b".into(), 111)));
    assert_eq!(node.day("b").await, Some(("b".into(), 111)));
    assert_eq!(node.day("c").await, None);
}

async fn a_change_by_another_node_is_seen_at_once_by_reads_of_new_rows(bench: Bench) {
    let node = Node::start(&bench).await;
    node.record("a", 1, 1);
    node.flusher.flush().await.unwrap();
    node.record("a", 1, 10);
    // Straight to the store, as another node does it; this one has read nothing yet.
    done(&node.store, relocate("a", "b")).await;
    assert_eq!(node.totals().await, told([("b", 11)]));
    assert_eq!(node.range().await, rows([("b", 1, 11)]));
}

async fn what_was_read_before_a_change_here_is_not_served_after_it(bench: Bench) {
    let node = Node::start(&bench).await;
    node.record("a", 1, 5);
    node.flusher.flush().await.unwrap();
    let mut count = 5;
    for _ in 0..5 {
        assert_eq!(node.totals().await, told([("a", count)]));
        let version = node.query.version().await.unwrap();
        node.change(correct("a", 1, count, count + 1)).await;
        count += 1;
        assert_ne!(node.query.version().await.unwrap(), version);
        assert_eq!(node.totals().await, told([("a", count)]));
        assert_eq!(node.range().await, rows([("a", 1, count)]));
        assert_eq!(node.day("a").await, Some(("a".into(), count)));
    }
}

async fn switched_off_and_deleted_events_are_not_counted(bench: Bench) {
    let node = Node::start(&bench).await;
    for event in ["a", "b", "c"] {
        node.record(event, 1, 1);
    }
    node.flusher.flush().await.unwrap();
    node.change(relocate("c", "a")).await;
    let off = node.change(set_active("a", false)).await;
    let deletion = node.change(delete("b")).await;
    assert_eq!(node.refuses("a"), Some(RecordError::Inactive));
    assert_eq!(node.refuses("c"), Some(RecordError::Inactive));
    assert_eq!(node.refuses("b"), Some(RecordError::Deleted));
    // One that starts anew knows it as well.
    let restarted = Node::start(&bench).await;
    restarted.query.catalog().refresh().await.unwrap();
    assert_eq!(restarted.refuses("a"), Some(RecordError::Inactive));
    node.change(Change::Undo { change: off }).await;
    node.change(Change::Undo { change: deletion }).await;
    for event in ["a", "b", "c"] {
        assert_eq!(node.refuses(event), None);
    }
    assert_eq!(node.totals().await, told([("a", 4), ("b", 2)]));
    assert!(!node.batches.record(&name("c"), hour(1), 1).unwrap().first_seen);
}

async fn another_node_stops_counting_after_a_flush_interval(bench: Bench) {
    let (node, other) = (Node::start(&bench).await, Node::start(&bench).await);
    node.record("a", 1, 1);
    node.flusher.flush().await.unwrap();
    node.change(set_active("a", false)).await;
    assert_eq!(other.refuses("a"), None);
    let stop = tokio_util::sync::CancellationToken::new();
    let refused = async {
        tokio::time::timeout(crate::harness::PATIENCE, async {
            while other.refuses("a").is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        stop.cancel();
    };
    tokio::join!(other.run(stop.clone()), refused);
    other.flusher.flush().await.unwrap();
    balanced_books(&node.store).await;
}

async fn a_deleted_event_is_hidden_with_its_pending_counts(bench: Bench) {
    let node = Node::start(&bench).await;
    node.record("a", 1, 1);
    node.record("b", 1, 1);
    node.flusher.flush().await.unwrap();
    node.record("a", 2, 2);
    let deletion = node.change(delete("a")).await;
    assert_eq!(node.totals().await, told([("b", 1)]));
    assert_eq!(node.range().await, rows([("b", 1, 1)]));
    assert_eq!(node.day("a").await, None);
    let (all, view) = node.query.all_totals().await.unwrap();
    assert_eq!((all[0].count, view.hides(&all[0].event)), (3, true));
    node.change(Change::Undo { change: deletion }).await;
    assert_eq!(node.totals().await, told([("a", 3), ("b", 1)]));
}

async fn what_is_pending_keeps_its_own_name_when_a_move_is_undone(bench: Bench) {
    let node = Node::start(&bench).await;
    node.record("a", 1, 1);
    node.flusher.flush().await.unwrap();
    let change = node.change(relocate("a", "b")).await;
    node.record("a", 1, 10);
    assert_eq!(node.totals().await, told([("b", 11)]));
    node.change(Change::Undo { change }).await;
    assert_eq!(node.totals().await, told([("a", 11)]));
    node.flusher.flush().await.unwrap();
    assert_eq!(node.totals().await, told([("a", 11)]));
}

/// Every read gives every count once, whatever moves meanwhile.
async fn reads_are_exact_while_names_move_under_load(bench: Bench) {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let node: &'static Node = Box::leak(Box::new(Node::start(&bench).await));
    for event in NAMES {
        node.record(event, 1, 1);
    }
    node.flusher.flush().await.unwrap();
    let counted: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(4)));
    let stop = tokio_util::sync::CancellationToken::new();
    let flushing = tokio::spawn(node.flusher.run(stop.clone()));
    let posting = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut round = 0;
            while !stop.is_cancelled() {
                round += 1;
                node.record(NAMES[round % 4], 1 + (round % 3) as u32, 1);
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        }
    });
    let other = bench.store().await;
    let moving = tokio::spawn(async move {
        for round in 0..30_usize {
            let change = relocate(NAMES[round % 4], NAMES[(round + 1 + round / 4 % 3) % 4]);
            // By this node and by another one in turn.
            let done = if round % 2 == 0 {
                node.query.catalog().change(change, "ada", now()).await
            } else {
                other.change(change, "eve", now()).await
            };
            if let Changed::Done { change } = done.unwrap() {
                node.query.catalog().change(Change::Undo { change }, "ada", now()).await.unwrap();
            }
        }
    });
    while !moving.is_finished() {
        let at_least = counted.load(Ordering::SeqCst);
        let totals: u64 = node.totals().await.iter().map(|(_, count)| count).sum();
        let range: u64 = node.range().await.iter().map(|row| row.count).sum();
        // One more may be recorded and not yet noted.
        let at_most = counted.load(Ordering::SeqCst) + 1;
        assert!((at_least..=at_most).contains(&totals), "{at_least} <= {totals} <= {at_most}");
        assert!((at_least..=at_most).contains(&range), "{at_least} <= {range} <= {at_most}");
    }
    moving.await.unwrap();
    stop.cancel();
    posting.await.unwrap();
    flushing.await.unwrap();
    assert!(node.flusher.flush_all().await);
    let expected = counted.load(Ordering::SeqCst);
    assert_eq!(totals(&node.store).await.iter().map(|(_, count)| count).sum::<u64>(), expected);
    assert_eq!(balanced_books(&node.store).await.ledger, i128::from(expected));
}
