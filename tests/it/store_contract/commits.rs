//! Exactly once, all or nothing, exact sums.

use super::*;

on_every_store!(
    a_batch_is_applied_once_however_often_it_is_sent,
    another_batch_of_an_applied_number_is_told_by_its_digest,
    a_ledger_that_stands_elsewhere_is_reported_and_nothing_is_counted,
    an_older_batch_finds_the_ledger_past_it,
    a_batch_without_rows_moves_the_ledger,
    a_batch_of_many_chunks_is_applied_whole,
    counts_add_up_over_batches_and_writers,
    sums_beyond_64_bits_stay_exact_in_the_books,
    a_row_that_would_overflow_is_set_aside_and_the_others_are_counted,
    a_total_that_would_overflow_sets_aside_only_the_row_that_is_too_much,
    rows_that_a_trigger_refuses_are_set_aside_among_many_that_are_counted,
    a_store_that_refuses_every_row_is_told_and_nothing_is_set_aside,
    writers_of_the_same_rows_wait_for_each_other_and_never_deadlock,
    the_same_batch_sent_by_two_at_once_is_applied_once,
    a_closed_store_refuses_and_keeps_what_it_has,
);
in_memory!(
    a_batch_is_applied_once_however_often_it_is_sent,
    another_batch_of_an_applied_number_is_told_by_its_digest,
    a_ledger_that_stands_elsewhere_is_reported_and_nothing_is_counted,
    an_older_batch_finds_the_ledger_past_it,
    a_batch_without_rows_moves_the_ledger,
    a_batch_of_many_chunks_is_applied_whole,
    counts_add_up_over_batches_and_writers,
    sums_beyond_64_bits_stay_exact_in_the_books,
    writers_of_the_same_rows_wait_for_each_other_and_never_deadlock,
    the_same_batch_sent_by_two_at_once_is_applied_once,
);
on_partitions!(
    a_batch_is_applied_once_however_often_it_is_sent,
    another_batch_of_an_applied_number_is_told_by_its_digest,
    a_ledger_that_stands_elsewhere_is_reported_and_nothing_is_counted,
    an_older_batch_finds_the_ledger_past_it,
    a_batch_without_rows_moves_the_ledger,
    a_batch_of_many_chunks_is_applied_whole,
    counts_add_up_over_batches_and_writers,
    sums_beyond_64_bits_stay_exact_in_the_books,
    a_row_that_would_overflow_is_set_aside_and_the_others_are_counted,
    writers_of_the_same_rows_wait_for_each_other_and_never_deadlock,
    the_same_batch_sent_by_two_at_once_is_applied_once,
    a_closed_store_refuses_and_keeps_what_it_has,
);

async fn a_batch_is_applied_once_however_often_it_is_sent(bench: Bench) {
    let store = bench.store().await;
    let sent = rows([("login", 10, 3), ("login", 11, 4), ("backup", 10, 5)]);
    assert_eq!(store.commit(request(batch(1, 1), sent.clone())).await, Ok(Commit::Applied));
    for _ in 0..2 {
        assert_eq!(store.commit(request(batch(1, 1), sent.clone())).await, Ok(stands(1, 12, &sent)));
    }
    assert_eq!(stored(&store).await, *sent);
    assert_eq!(totals(&store).await, [("backup".into(), 5), ("login".into(), 7)]);
    assert_eq!(balanced_books(&store).await.ledger, 12);
}

async fn another_batch_of_an_applied_number_is_told_by_its_digest(bench: Bench) {
    let store = bench.store().await;
    let sent = rows([("login", 10, 3)]);
    store.commit(request(batch(1, 1), sent.clone())).await.unwrap();
    for other in [rows([("login", 10, 4)]), rows([("login", 11, 3)]), rows([("logins", 10, 3)])] {
        assert_eq!(store.commit(request(batch(1, 1), other.clone())).await, Ok(stands(1, 3, &sent)));
        assert_ne!(Digest::of(&other), Digest::of(&sent));
    }
    assert_eq!(stored(&store).await, *sent);
}

async fn a_ledger_that_stands_elsewhere_is_reported_and_nothing_is_counted(bench: Bench) {
    let store = bench.store().await;
    let one = rows([("login", 10, 1)]);
    assert_eq!(store.commit(request(batch(1, 2), one.clone())).await, Ok(Commit::Stands(None)));
    assert_eq!(store.commit(request(batch(1, 1), one.clone())).await, Ok(Commit::Applied));
    assert_eq!(store.commit(request(batch(1, 4), one.clone())).await, Ok(stands(1, 1, &one)));
    assert_eq!(totals(&store).await, [("login".into(), 1)]);
    // Over a gap when the caller says where the ledger stands.
    let jump = CommitRequest { after: BatchSeq(1), ..request(batch(1, 4), one.clone()) };
    assert_eq!(store.commit(jump.clone()).await, Ok(Commit::Applied));
    assert_eq!(store.commit(jump).await, Ok(stands(4, 2, &one)));
    let first = CommitRequest { after: BatchSeq(0), ..request(batch(2, 7), one.clone()) };
    assert_eq!(store.commit(first).await, Ok(Commit::Applied));
    assert_eq!(store.commit(request(batch(1, 5), one)).await, Ok(Commit::Applied));
    assert_eq!(totals(&store).await, [("login".into(), 4)]);
    assert_eq!(balanced_books(&store).await.ledger, 4);
}

async fn an_older_batch_finds_the_ledger_past_it(bench: Bench) {
    let store = bench.store().await;
    let one = rows([("login", 10, 1)]);
    for seq in 1..=3 {
        assert_eq!(store.commit(request(batch(1, seq), one.clone())).await, Ok(Commit::Applied));
    }
    assert_eq!(store.commit(request(batch(1, 2), one.clone())).await, Ok(stands(3, 3, &one)));
    assert_eq!(totals(&store).await, [("login".into(), 3)]);
}

async fn a_batch_without_rows_moves_the_ledger(bench: Bench) {
    let store = bench.store().await;
    assert_eq!(store.commit(request(batch(1, 1), rows([]))).await, Ok(Commit::Applied));
    assert!(store.position(vec![writer(1)]).await.unwrap().includes(batch(1, 1)));
    assert_eq!(balanced_books(&store).await.ledger, 0);
}

async fn a_batch_of_many_chunks_is_applied_whole(bench: Bench) {
    let store = bench.store().await;
    let names: Vec<String> = (0..12_345).map(|number| format!("event/{number}")).collect();
    let sent = rows(names.iter().flat_map(|name| [(name.as_str(), 1, 2), (name.as_str(), 2, 3)]));
    assert_eq!(store.commit(request(batch(1, 1), sent.clone())).await, Ok(Commit::Applied));
    assert_eq!(stored(&store).await, *sent);
    assert_eq!(totals(&store).await.len(), names.len());
    assert_eq!(balanced_books(&store).await.ledger, 12_345 * 5);
}

async fn counts_add_up_over_batches_and_writers(bench: Bench) {
    let (store, other) = (bench.store().await, bench.store().await);
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 1, 2)]))).await.unwrap();
    other.commit(request(batch(2, 1), rows([("b", 1, 10), ("c", 1, 20)]))).await.unwrap();
    store.commit(request(batch(1, 2), rows([("a", 2, 100), ("c", 1, 200)]))).await.unwrap();
    assert_eq!(stored(&other).await, *rows([("a", 1, 1), ("a", 2, 100), ("b", 1, 12), ("c", 1, 220)]));
    assert_eq!(totals(&store).await, [("a".into(), 101), ("b".into(), 12), ("c".into(), 220)]);
    assert_eq!(balanced_books(&store).await.ledger, 333);
}

async fn sums_beyond_64_bits_stay_exact_in_the_books(bench: Bench) {
    let store = bench.store().await;
    let most = i64::MAX as u64;
    store.commit(request(batch(1, 1), rows([("a", 1, most), ("b", 1, most), ("c", 1, most)]))).await.unwrap();
    store.commit(request(batch(1, 2), rows([("d", 1, most), ("e", 1, 7)]))).await.unwrap();
    assert_eq!(balanced_books(&store).await.ledger, 4 * i128::from(most) + 7);
    assert_eq!(stored(&store).await[0].count, most);
}

async fn a_row_that_would_overflow_is_set_aside_and_the_others_are_counted(bench: Bench) {
    let store = bench.store().await;
    let most = i64::MAX as u64;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 1, most)]))).await.unwrap();
    for (seq, too_much) in [(2, 1), (3, most), (4, u64::MAX)] {
        let sent = rows([("a", 1, 1), ("b", 1, too_much), ("c", 1, 1)]);
        assert_eq!(store.commit(request(batch(1, seq), sent.clone())).await, Ok(Commit::Applied));
        store.fold().await.unwrap();
        assert_eq!(stored(&store).await, *rows([("a", 1, seq), ("b", 1, most), ("c", 1, seq - 1)]));
        let books = balanced_books(&store).await;
        let total = books.ledger;
        assert_eq!(store.commit(request(batch(1, seq), sent.clone())).await, Ok(stands(seq, total, &sent)));
        assert_eq!(store.set_aside(), seq - 1);
    }
    let removed = 1 + i128::from(most) + i128::from(u64::MAX);
    assert_eq!(balanced_books(&store).await.removed, removed);
}

async fn a_total_that_would_overflow_sets_aside_only_the_row_that_is_too_much(bench: Bench) {
    let store = bench.store().await;
    let most = i64::MAX as u64;
    store.commit(request(batch(1, 1), rows([("b", 1, most - 5)]))).await.unwrap();
    let sent = rows([("a", 1, 1), ("b", 2, 5), ("b", 3, 1), ("c", 9, 1)]);
    assert_eq!(store.commit(request(batch(1, 2), sent)).await, Ok(Commit::Applied));
    store.fold().await.unwrap();
    assert_eq!(stored(&store).await, *rows([("a", 1, 1), ("b", 1, most - 5), ("b", 2, 5), ("c", 9, 1)]));
    assert_eq!(balanced_books(&store).await.removed, 1);
}

async fn rows_that_a_trigger_refuses_are_set_aside_among_many_that_are_counted(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("first", 1, 1)]))).await.unwrap();
    bench
        .execute(match bench {
            Bench::Memory(_) => unreachable!("no SQL is meant for it"),
            Bench::Sqlite(_) => {
                "create trigger no_bad before insert on hourly_counts when new.event like '%/bad'
                 begin select raise(abort, 'no bad ones'); end"
            }
            Bench::Postgres { .. } => {
                "create function no_bad() returns trigger language plpgsql as
                 $$ begin if new.event like '%/bad' then raise 'no bad ones'; end if; return new; end $$;
                 create trigger no_bad before insert on hourly_counts for each row execute function no_bad()"
            }
        })
        .await;
    let names: Vec<String> =
        (0..12_000).map(|number| format!("{number:05}/{}", if number % 3_000 == 7 { "bad" } else { "good" })).collect();
    let sent = rows(names.iter().map(|name| (name.as_str(), 1, 2)));
    assert_eq!(store.commit(request(batch(1, 2), sent)).await, Ok(Commit::Applied));
    store.fold().await.unwrap();
    let books = balanced_books(&store).await;
    assert_eq!((books.rows, books.removed, store.set_aside()), (1 + 2 * 11_996, 8, 4));
}

async fn a_store_that_refuses_every_row_is_told_and_nothing_is_set_aside(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("first", 1, 1)]))).await.unwrap();
    bench
        .execute(match bench {
            Bench::Memory(_) => unreachable!("no SQL is meant for it"),
            Bench::Sqlite(_) => {
                "create trigger none before insert on hourly_counts begin select raise(abort, 'none'); end"
            }
            Bench::Postgres { .. } => "alter table hourly_counts add constraint none check (hour < 2) not valid",
        })
        .await;
    let names: Vec<String> = (0..1_001).map(|number| format!("event/{number}")).collect();
    let sent = rows(names.iter().map(|name| (name.as_str(), 2, 1)));
    // Where there is a log, it keeps them until the cause is gone.
    let committed = store.commit(request(batch(1, 2), sent)).await;
    let refused = if store.is_shared() { committed.and(store.fold().await.map(|_| ())) } else { committed.map(|_| ()) };
    assert!(matches!(refused, Err(StoreError::Rejected(_))), "{refused:?}");
    let (kept, next) = if store.is_shared() { (1_001, 3) } else { (0, 2) };
    assert_eq!((balanced_books(&store).await.ledger, store.set_aside()), (1 + kept, 0));
    if store.is_shared() {
        bench.execute("alter table hourly_counts drop constraint none").await;
        store.fold().await.unwrap();
        assert_eq!((balanced_books(&store).await.rows, store.set_aside()), (1_002, 0));
    }
    bench.execute("alter table hourly_counts rename to gone").await;
    let committed = store.commit(request(batch(1, next), rows([("a", 1, 1)]))).await;
    let refused = if store.is_shared() { committed.and(store.fold().await.map(|_| ())) } else { committed.map(|_| ()) };
    assert!(matches!(refused, Err(StoreError::Rejected(_))), "{refused:?}");
}

async fn writers_of_the_same_rows_wait_for_each_other_and_never_deadlock(bench: Bench) {
    const BATCHES: u64 = 8;
    let names: Vec<String> = (0..500).map(|number| format!("event/{number}")).collect();
    // Handed over in opposite orders; what makes them meet in one order is that a batch is sorted.
    let forwards = rows(names.iter().map(|name| (name.as_str(), 1, 1)));
    let backwards = rows(names.iter().rev().map(|name| (name.as_str(), 1, 1)));
    let mut tasks = Vec::new();
    for (number, sent) in [(1, forwards.clone()), (2, backwards.clone()), (3, forwards), (4, backwards)] {
        let store = bench.store().await;
        tasks.push(tokio::spawn(async move {
            for seq in 1..=BATCHES {
                assert_eq!(store.commit(request(batch(number, seq), sent.clone())).await, Ok(Commit::Applied));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let store = bench.store().await;
    assert!(totals(&store).await.iter().all(|(_, count)| *count == 4 * BATCHES));
    assert_eq!(balanced_books(&store).await.ledger, i128::from(4 * BATCHES) * 500);
}

async fn the_same_batch_sent_by_two_at_once_is_applied_once(bench: Bench) {
    let (store, other) = (bench.store().await, bench.store().await);
    for seq in 1..=20 {
        let sent = rows([("login", 1, 1)]);
        let both = tokio::join!(
            store.commit(request(batch(1, seq), sent.clone())),
            other.commit(request(batch(1, seq), sent))
        );
        let mut outcomes = [both.0.unwrap(), both.1.unwrap()];
        outcomes.sort_by_key(|outcome| *outcome != Commit::Applied);
        let stands = stands(seq, i128::from(seq), &rows([("login", 1, 1)]));
        // Each partition may take it from another one of the two.
        let both_stand = bench.partitions() > 1 && outcomes == [stands, stands];
        assert!(both_stand || outcomes == [Commit::Applied, stands], "{outcomes:?}");
    }
    assert_eq!(totals(&store).await, [("login".into(), 20)]);
}

async fn a_closed_store_refuses_and_keeps_what_it_has(bench: Bench) {
    let store = bench.store().await;
    let sent = rows([("login", 1, 1)]);
    store.commit(request(batch(1, 1), sent.clone())).await.unwrap();
    store.close().await;
    assert!(matches!(store.commit(request(batch(1, 2), sent.clone())).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.position(vec![]).await, Err(StoreError::Unavailable(_))));
    store.close().await;
    assert_eq!(stored(&bench.store().await).await, *sent);
}
