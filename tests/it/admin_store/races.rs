//! Changes while batches are committed, by several nodes at once.

use std::time::Duration;

use event_tracker::store::{Commit, Folded, StoreError};

use super::*;

on_both_stores!(
    commits_and_changes_of_many_nodes_keep_every_count,
    two_who_make_the_same_change_make_it_once,
    an_undo_by_two_at_once_happens_once,
);
on_partitions!(
    commits_and_changes_of_many_nodes_keep_every_count,
    two_who_make_the_same_change_make_it_once,
    an_undo_by_two_at_once_happens_once,
);

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

async fn commits_and_changes_of_many_nodes_keep_every_count(bench: Bench) {
    const BATCHES: u64 = 40;
    let store = bench.store().await;
    store.commit(request(batch(100, 1), rows(NAMES.map(|name| (name, 1, 1))))).await.unwrap();
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let store = bench.store().await;
        nodes.push(tokio::spawn(async move {
            for seq in 1..=BATCHES {
                let hours = |name| (1..=3).map(move |hour| (name, hour, 1));
                let sent = rows(NAMES.into_iter().flat_map(hours));
                assert_eq!(store.commit(request(batch(number, seq), sent)).await, Ok(Commit::Applied));
            }
        }));
    }
    let mut changing = Vec::new();
    for number in 0..3_usize {
        let store = bench.store().await;
        changing.push(tokio::spawn(async move {
            let mut moves = Vec::new();
            for round in 0..20 {
                // Towards the end of the alphabet, so that nothing gets a former name back, after which an
                // older change could be undone without the later one.
                let (one, other) = ((number + round) % 6, (number * 2 + round * 5 + 1) % 6);
                let (from, into) = (NAMES[one.min(other)], NAMES[one.max(other)]);
                // Many are refused: what is an alias by now can't be moved.
                if let Changed::Done { change } = store.change(relocate(from, into), "ada", now()).await.unwrap() {
                    moves.push(change);
                }
                if round % 3 == 2
                    && let Some(change) = moves.pop()
                {
                    store.change(Change::Undo { change }, "ada", now()).await.unwrap();
                }
            }
            moves.len()
        }));
    }
    for node in nodes {
        node.await.unwrap();
    }
    for changing in changing {
        changing.await.unwrap();
    }
    // Undone one after the other, the last first, everything is itself again.
    for line in store.changes(vec![], None, 1_000).await.unwrap() {
        if line.can_undo {
            done(&store, Change::Undo { change: line.change }).await;
        }
    }
    assert!(store.catalog().await.unwrap().entries.is_empty());
    let total: u64 = totals(&store).await.iter().map(|(_, count)| count).sum();
    assert_eq!(total, 6 + 3 * BATCHES * 18);
    let books = balanced_books(&store).await;
    assert_eq!((books.ledger, books.removed), (i128::from(total), 0));
    for (event, first, last) in spans(&store).await {
        let of_event: Vec<Hour> =
            stored(&store).await.iter().filter(|row| row.event == name(&event)).map(|row| row.hour).collect();
        assert_eq!((first, last), (of_event[0], *of_event.last().unwrap()), "{event}");
    }
}

async fn two_who_make_the_same_change_make_it_once(bench: Bench) {
    let (store, other) = (bench.store().await, bench.store().await);
    store.commit(request(batch(1, 1), rows([("a", 1, 5)]))).await.unwrap();
    let both =
        tokio::join!(store.change(relocate("a", "b"), "ada", now()), other.change(relocate("a", "b"), "eve", now()));
    let outcomes = [both.0.unwrap(), both.1.unwrap()];
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Changed::Done { .. })).count(), 1, "{outcomes:?}");
    assert_eq!(totals(&store).await, [("b".into(), 5)]);
}

async fn an_undo_by_two_at_once_happens_once(bench: Bench) {
    let (store, other) = (bench.store().await, bench.store().await);
    store.commit(request(batch(1, 1), rows([("a", 1, 5)]))).await.unwrap();
    let change = done(&store, correct("a", 1, 5, 1)).await;
    let undo = || Change::Undo { change };
    let both = tokio::join!(store.change(undo(), "ada", now()), other.change(undo(), "eve", now()));
    let outcomes = [both.0.unwrap(), both.1.unwrap()];
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Changed::Done { .. })).count(), 1, "{outcomes:?}");
    assert_eq!(totals(&store).await, [("a".into(), 5)]);
    balanced_books(&store).await;
}

/// The sessions that wait for a lock, seen from outside.
async fn waiting(database: &str) -> i64 {
    let client = crate::harness::postgres::Cluster::shared().connect(database).await;
    let sql = "select count(*) from pg_stat_activity where datname = $1 and wait_event_type = 'Lock'";
    client.query_one(sql, &[&database]).await.unwrap().get(0)
}

async fn until_waiting(database: &str) {
    let waits = async {
        while waiting(database).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waits).await.expect("nobody waits for the lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_never_waits_for_a_change_or_a_fold_and_lands_where_the_change_points() {
    let bench = Bench::postgres().await;
    let Bench::Postgres { database, .. } = &bench else { unreachable!() };
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 1, 10)]))).await.unwrap();
    // A change that has its locks and takes its time.
    let change = crate::harness::postgres::Cluster::shared().connect(database).await;
    change
        .batch_execute("begin; select version from catalog_version for update; select from fold_lock for update")
        .await
        .unwrap();
    assert_eq!(store.commit(request(batch(1, 2), rows([("a", 1, 100)]))).await, Ok(Commit::Applied));
    assert_eq!(store.fold().await, Ok(None));
    assert_eq!(totals(&store).await, [("a".into(), 101), ("b".into(), 10)]);
    change
        .batch_execute(
            "update catalog_version set version = version + 1;
             insert into catalog (event, description, inactive, alias_of) values ('a', '', false, 'b'); commit",
        )
        .await
        .unwrap();
    assert_eq!(totals(&store).await, [("b".into(), 111)]);
    assert_eq!(store.fold().await, Ok(Some(Folded { batches: 2, counters: 3 })));
    assert_eq!(totals(&store).await, [("b".into(), 111)]);
    balanced_books(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_meets_a_fold_waits_and_moves_all_that_is_committed() {
    let bench = Bench::postgres().await;
    let Bench::Postgres { database, .. } = &bench else { unreachable!() };
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 1, 10)]))).await.unwrap();
    // A fold that takes its time.
    let fold = crate::harness::postgres::Cluster::shared().connect(database).await;
    fold.batch_execute("begin; select from fold_lock for update").await.unwrap();
    let changing = tokio::spawn({
        let store = bench.store().await;
        async move { store.change(relocate("a", "b"), "ada", now()).await }
    });
    until_waiting(database).await;
    assert_eq!(store.commit(request(batch(1, 2), rows([("a", 1, 100)]))).await, Ok(Commit::Applied));
    fold.batch_execute("commit").await.unwrap();
    assert_eq!(changing.await.unwrap(), Ok(Changed::Done { change: 1 }));
    assert_eq!(totals(&store).await, [("b".into(), 111)]);
    balanced_books(&store).await;
}

#[tokio::test]
async fn a_sqlite_store_opened_for_reading_takes_no_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.sqlite");
    event_tracker::store::sqlite::SqliteStore::open(&path).unwrap().identity().await.unwrap();
    let store: Arc<dyn Store> = Arc::new(event_tracker::store::sqlite::SqliteStore::open_for_audit(&path).unwrap());
    let refused = store.change(delete("a"), "ada", now()).await;
    assert!(matches!(refused, Err(StoreError::Rejected(_))), "{refused:?}");
}
