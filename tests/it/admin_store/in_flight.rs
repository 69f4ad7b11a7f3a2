//! Counts that are in flight while their event is purged: they do not bring it back, and no count of after
//! the purge is taken away.

use std::path::Path;

use event_tracker::batch::RecordError;
use event_tracker::domain::{Ack, Day, HourRange};
use event_tracker::node::Node;
use event_tracker::store::{Commit, CommitRequest};

use super::*;
use crate::harness::eventually;
use crate::harness::node::{node, options, record};
use crate::store_contract::stands;

on_both_stores!(
    counts_in_flight_of_a_purged_event_do_not_bring_it_back,
    aliases_that_went_with_a_purged_event_do_not_bring_it_back,
    a_name_that_another_event_took_after_a_purge_gets_that_events_counts_in_flight,
    counts_in_flight_stay_when_the_deletion_is_undone,
    counts_of_a_journal_of_the_first_version_count_as_new,
    another_nodes_counts_in_flight_do_not_bring_a_purged_event_back,
    an_idle_node_counts_a_purged_event_anew_at_once,
    a_recovered_journal_of_a_node_that_was_away_does_not_bring_a_purged_event_back,
    a_sealed_batch_of_the_same_node_does_not_bring_a_purged_event_back,
    a_restarted_node_keeps_what_it_counts_of_an_event_that_was_purged_before,
    what_a_node_counts_before_it_has_ever_met_its_store_is_never_taken_away,
    moved_names_and_purges_are_read_exactly_while_they_are_pending,
);
on_partitions!(
    counts_in_flight_of_a_purged_event_do_not_bring_it_back,
    aliases_that_went_with_a_purged_event_do_not_bring_it_back,
    a_name_that_another_event_took_after_a_purge_gets_that_events_counts_in_flight,
    counts_in_flight_stay_when_the_deletion_is_undone,
    another_nodes_counts_in_flight_do_not_bring_a_purged_event_back,
    an_idle_node_counts_a_purged_event_anew_at_once,
    a_recovered_journal_of_a_node_that_was_away_does_not_bring_a_purged_event_back,
    a_sealed_batch_of_the_same_node_does_not_bring_a_purged_event_back,
    a_restarted_node_keeps_what_it_counts_of_an_event_that_was_purged_before,
    what_a_node_counts_before_it_has_ever_met_its_store_is_never_taken_away,
    moved_names_and_purges_are_read_exactly_while_they_are_pending,
);

/// Deletes and purges the event; gives the catalog's version then.
async fn gone(store: &Arc<dyn Store>, event: &str) -> u64 {
    done(store, delete(event)).await;
    u64::try_from(done(store, purge(event)).await).unwrap()
}

async fn counts_in_flight_of_a_purged_event_do_not_bring_it_back(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 5), ("b", 1, 1)]))).await.unwrap();
    let purged = gone(&store, "a").await;
    let sent = rows([("a", 1, 1), ("a", 2, 2), ("b", 1, 10)]);
    for (seq, known) in [(1, 0), (2, purged - 1)] {
        let in_flight = CommitRequest { catalog: known, ..request(batch(2, seq), sent.clone()) };
        assert_eq!(store.commit(in_flight).await, Ok(Commit::Applied));
    }
    assert_eq!(stored(&store).await, *rows([("b", 1, 21)]));
    assert_eq!(totals(&store).await, [("b".into(), 21)]);
    let books = balanced_books(&store).await;
    assert_eq!((books.rows, books.removed, books.ledger), (21, 5 + 3 + 3, 6 + 13 + 13));
    // It is as applied as any other.
    let again = CommitRequest { catalog: purged - 1, ..request(batch(2, 2), sent.clone()) };
    assert_eq!(store.commit(again).await, Ok(stands(2, 26, &sent)));

    let anew = CommitRequest { catalog: purged, ..request(batch(3, 1), rows([("a", 1, 7)])) };
    assert_eq!(store.commit(anew).await, Ok(Commit::Applied));
    assert_eq!(totals(&store).await, [("a".into(), 7), ("b".into(), 21)]);
    balanced_books(&store).await;
}

async fn aliases_that_went_with_a_purged_event_do_not_bring_it_back(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 1, 10), ("c", 1, 1)]))).await.unwrap();
    done(&store, relocate("a", "b")).await;
    gone(&store, "b").await;
    store.commit(request(batch(2, 1), rows([("a", 1, 1), ("b", 1, 10), ("c", 1, 1)]))).await.unwrap();
    assert_eq!(totals(&store).await, [("c".into(), 2)]);
    assert_eq!(balanced_books(&store).await.removed, 22);
}

async fn a_name_that_another_event_took_after_a_purge_gets_that_events_counts_in_flight(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("x", 1, 10)]))).await.unwrap();
    gone(&store, "a").await;
    done(&store, relocate("x", "a")).await;
    store.commit(request(batch(2, 1), rows([("a", 1, 2), ("x", 1, 20)]))).await.unwrap();
    assert_eq!(totals(&store).await, [("a".into(), 30)]);
    assert_eq!(balanced_books(&store).await.removed, 3);
}

async fn counts_in_flight_stay_when_the_deletion_is_undone(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    let deletion = done(&store, delete("a")).await;
    store.commit(request(batch(2, 1), rows([("a", 1, 10)]))).await.unwrap();
    done(&store, Change::Undo { change: deletion }).await;
    store.commit(request(batch(2, 2), rows([("a", 1, 100)]))).await.unwrap();
    assert_eq!(totals(&store).await, [("a".into(), 111)]);
    assert_eq!(balanced_books(&store).await.removed, 0);
}

async fn counts_of_a_journal_of_the_first_version_count_as_new(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    gone(&store, "a").await;
    let unknown = CommitRequest { catalog: u64::MAX, ..request(batch(2, 1), rows([("a", 1, 10)])) };
    store.commit(unknown).await.unwrap();
    assert_eq!(totals(&store).await, [("a".into(), 10)]);
    balanced_books(&store).await;
}

/// A node that has met its store.
async fn met(folder: &Path, bench: &Bench) -> Node {
    let node = node(folder, bench.store().await, options());
    node.meet_store().await.unwrap();
    node
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// By this node: it knows of both changes when this returns.
async fn purge_by(node: &Node, event: &str) {
    for change in [delete(event), purge(event)] {
        let changed = node.catalog.change(change, "ada", now()).await.unwrap();
        assert!(matches!(changed, Changed::Done { .. }), "{changed:?}");
    }
}

fn refusal(node: &Node, event: &str) -> Option<RecordError> {
    node.batches.record(&name(event), hour(1), 1).err()
}

/// What every read says of all events; `None`: they disagree, as they may about what another node has just
/// committed.
async fn agreed(node: &Node) -> Option<Vec<(String, u64)>> {
    let totals = node.query.totals().await.unwrap();
    let totals: Vec<_> = totals.into_iter().map(|total| (total.event.to_string(), total.count)).collect();
    let mut sums = std::collections::BTreeMap::new();
    for row in node.query.hourly(HourRange::ALL, 1_000).await.unwrap() {
        *sums.entry(row.event.to_string()).or_insert(0) += row.count;
    }
    let mut agree = sums.into_iter().collect::<Vec<_>>() == totals;
    for event in ["a", "b", "c"] {
        let day = node.query.day(&name(event), Day::parse("19700101").unwrap()).await.unwrap();
        let count = day.map(|day| (day.event.to_string(), day.counts.iter().sum::<u64>()));
        let event = count.as_ref().map_or(event, |(event, _)| event);
        agree &= count.as_ref() == totals.iter().find(|(name, _)| name == event);
    }
    agree.then_some(totals)
}

async fn shown(node: &Node) -> Vec<(String, u64)> {
    agreed(node).await.expect("reads disagree")
}

/// Another node has just committed.
async fn comes_to_show<const N: usize>(node: &Node, totals: [(&str, u64); N]) {
    let expected = Some(told(totals));
    eventually(&format!("{expected:?}"), async || agreed(node).await == expected).await;
}

fn told<const N: usize>(totals: [(&str, u64); N]) -> Vec<(String, u64)> {
    totals.map(|(event, count)| (event.to_owned(), count)).to_vec()
}

async fn another_nodes_counts_in_flight_do_not_bring_a_purged_event_back(bench: Bench) {
    let (here, there) = (folder(), folder());
    let (node, other) = (met(here.path(), &bench).await, met(there.path(), &bench).await);
    record(&node, "a", 1, 5);
    node.flusher.flush().await.unwrap();
    record(&other, "a", 1, 30);
    record(&other, "b", 1, 1);
    comes_to_show(&other, [("a", 35), ("b", 1)]).await;
    purge_by(&node, "a").await;
    // Nobody has told the other node, so its counts are of before.
    record(&other, "a", 2, 400);
    other.look().await.unwrap();
    assert_eq!(shown(&other).await, told([("b", 1)]));
    assert_eq!(refusal(&other, "a"), Some(RecordError::Deleted));
    other.flusher.flush().await.unwrap();
    assert_eq!(shown(&other).await, told([("b", 1)]));
    comes_to_show(&node, [("b", 1)]).await;
    assert_eq!(balanced_books(&node.store).await.removed, 435);

    for node in [&other, &node] {
        assert_eq!(refusal(node, "a"), None);
        node.flusher.flush().await.unwrap();
    }
    for node in [&other, &node] {
        comes_to_show(node, [("a", 2), ("b", 1)]).await;
    }
    balanced_books(&node.store).await;
}

async fn an_idle_node_counts_a_purged_event_anew_at_once(bench: Bench) {
    let folder = folder();
    let node = met(folder.path(), &bench).await;
    record(&node, "a", 1, 5);
    node.flusher.flush().await.unwrap();
    purge_by(&node, "a").await;
    assert_eq!(refusal(&node, "a"), None);
    assert_eq!(shown(&node).await, told([("a", 1)]));
    // Also when the journal is all that is left of it.
    let ticket = node.batches.record(&name("a"), hour(1), 2).unwrap().ticket;
    node.batches.wait_durable(ticket, Ack::Disk).await.unwrap();
    drop(node);
    let node = met(folder.path(), &bench).await;
    node.flusher.flush().await.unwrap();
    assert_eq!(shown(&node).await, told([("a", 3)]));
    assert_eq!(balanced_books(&node.store).await.removed, 5);
}

async fn a_recovered_journal_of_a_node_that_was_away_does_not_bring_a_purged_event_back(bench: Bench) {
    let (here, there) = (folder(), folder());
    let (away, node) = (met(there.path(), &bench).await, met(here.path(), &bench).await);
    record(&node, "a", 1, 5);
    node.flusher.flush().await.unwrap();
    record(&away, "b", 1, 1);
    let ticket = away.batches.record(&name("a"), hour(1), 30).unwrap().ticket;
    away.batches.wait_durable(ticket, Ack::Disk).await.unwrap();
    drop(away);
    purge_by(&node, "a").await;
    assert_eq!(refusal(&node, "a"), None);
    node.flusher.flush().await.unwrap();

    let back = met(there.path(), &bench).await;
    assert_eq!(shown(&back).await, told([("a", 1), ("b", 1)]));
    back.flusher.flush().await.unwrap();
    assert_eq!(refusal(&back, "a"), None);
    back.flusher.flush().await.unwrap();
    for node in [&node, &back] {
        comes_to_show(node, [("a", 2), ("b", 1)]).await;
    }
    assert_eq!(balanced_books(&node.store).await.removed, 35);
}

async fn a_sealed_batch_of_the_same_node_does_not_bring_a_purged_event_back(bench: Bench) {
    let folder = folder();
    let node = met(folder.path(), &bench).await;
    record(&node, "a", 1, 5);
    record(&node, "b", 1, 1);
    node.flusher.flush().await.unwrap();
    record(&node, "a", 1, 30);
    record(&node, "b", 1, 10);
    // As in an outage: it waits for its commit.
    assert!(node.batches.seal().unwrap());
    record(&node, "b", 1, 100);
    purge_by(&node, "a").await;
    assert_eq!(refusal(&node, "a"), Some(RecordError::Deleted));
    // What is read now is kept, and brought forward by the commits.
    assert_eq!(shown(&node).await, told([("b", 111)]));
    node.flusher.flush().await.unwrap();
    assert_eq!(shown(&node).await, told([("b", 111)]));
    assert_eq!(refusal(&node, "a"), None);
    assert_eq!(shown(&node).await, told([("a", 1), ("b", 111)]));
    node.flusher.flush().await.unwrap();
    assert_eq!(totals(&node.store).await, told([("a", 1), ("b", 111)]));
    assert_eq!(balanced_books(&node.store).await.removed, 35);
}

async fn a_restarted_node_keeps_what_it_counts_of_an_event_that_was_purged_before(bench: Bench) {
    let folder = folder();
    let node = met(folder.path(), &bench).await;
    record(&node, "a", 1, 5);
    node.flusher.flush().await.unwrap();
    purge_by(&node, "a").await;
    drop(node);
    let node = crate::harness::node::node(folder.path(), bench.store().await, options());
    // The store may be away for a while yet.
    record(&node, "a", 1, 1);
    node.meet_store().await.unwrap();
    assert_eq!(shown(&node).await, told([("a", 1)]));
    node.flusher.flush().await.unwrap();
    assert_eq!(shown(&node).await, told([("a", 1)]));

    // An event that is purged after it stopped is another matter.
    drop(node);
    gone(&bench.store().await, "a").await;
    let node = crate::harness::node::node(folder.path(), bench.store().await, options());
    record(&node, "a", 1, 20);
    node.meet_store().await.unwrap();
    assert_eq!(refusal(&node, "a"), Some(RecordError::Deleted));
    node.flusher.flush().await.unwrap();
    assert_eq!(shown(&node).await, []);
    assert_eq!(balanced_books(&node.store).await.removed, 26);
}

async fn what_a_node_counts_before_it_has_ever_met_its_store_is_never_taken_away(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 5)]))).await.unwrap();
    gone(&store, "a").await;
    let folder = folder();
    let node = node(folder.path(), store, options());
    record(&node, "a", 1, 1);
    node.meet_store().await.unwrap();
    record(&node, "a", 1, 2);
    assert_eq!(shown(&node).await, told([("a", 3)]));
    node.flusher.flush().await.unwrap();
    record(&node, "a", 1, 4);
    node.flusher.flush().await.unwrap();
    assert_eq!(shown(&node).await, told([("a", 7)]));
    assert_eq!(balanced_books(&node.store).await.removed, 5);
}

async fn moved_names_and_purges_are_read_exactly_while_they_are_pending(bench: Bench) {
    let folder = folder();
    let node = met(folder.path(), &bench).await;
    for (event, count) in [("a", 1), ("b", 2), ("c", 4)] {
        record(&node, event, 1, count);
    }
    node.flusher.flush().await.unwrap();
    for (event, count) in [("a", 10), ("b", 20), ("c", 40)] {
        record(&node, event, 2, count);
    }
    node.catalog.change(relocate("a", "b"), "ada", now()).await.unwrap();
    purge_by(&node, "b").await;
    node.catalog.change(relocate("c", "a"), "ada", now()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(shown(&node).await, told([("a", 44)]));
        node.flusher.flush().await.unwrap();
    }
    assert_eq!(balanced_books(&node.store).await.removed, 33);
}
