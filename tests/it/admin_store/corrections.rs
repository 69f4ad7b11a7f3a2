//! Counts of past hours, corrected.

use super::*;

on_both_stores!(
    a_correction_is_booked_and_undone,
    a_correction_of_what_changed_meanwhile_is_refused,
    the_first_and_last_hours_follow_corrections,
    an_event_corrected_to_nothing_is_gone_and_comes_back_with_undo,
    a_correction_is_taken_back_as_a_difference,
    a_correction_is_undone_also_under_another_name,
    only_hours_that_are_over_are_corrected,
);
on_partitions_and_in_memory!(
    a_correction_is_booked_and_undone,
    a_correction_of_what_changed_meanwhile_is_refused,
    the_first_and_last_hours_follow_corrections,
    an_event_corrected_to_nothing_is_gone_and_comes_back_with_undo,
    a_correction_is_taken_back_as_a_difference,
    a_correction_is_undone_also_under_another_name,
    only_hours_that_are_over_are_corrected,
);

async fn a_correction_is_booked_and_undone(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 10), ("a", 2, 20)]))).await.unwrap();
    let less = done(&store, correct("a", 1, 10, 4)).await;
    assert_eq!(stored(&store).await, *rows([("a", 1, 4), ("a", 2, 20)]));
    let books = balanced_books(&store).await;
    assert_eq!((books.rows, books.removed, books.ledger), (24, 6, 30));
    done(&store, correct("a", 2, 20, 120)).await;
    assert_eq!(balanced_books(&store).await.removed, -94);
    done(&store, Change::Undo { change: less }).await;
    assert_eq!(totals(&store).await, [("a".into(), 130)]);
    assert_eq!(balanced_books(&store).await.removed, -100);
}

async fn a_correction_of_what_changed_meanwhile_is_refused(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 10)]))).await.unwrap();
    refused(&store, correct("a", 1, 9, 4), "is 10 by now, not 9").await;
    refused(&store, correct("a", 1, 10, 10), "is 10 already").await;
    refused(&store, correct("b", 1, 0, 1), "no event").await;
    let without_reason =
        Change::Correct { event: name("a"), hour: hour(1), expected: 10, count: 1, reason: " ".into() };
    refused(&store, without_reason, "needs a reason").await;
    done(&store, relocate("a", "b")).await;
    refused(&store, correct("a", 1, 0, 1), "alias of “b”").await;
}

async fn the_first_and_last_hours_follow_corrections(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 5, 1), ("a", 7, 1)]))).await.unwrap();
    done(&store, correct("a", 3, 0, 2)).await;
    assert_eq!(spans(&store).await, [("a".into(), hour(3), hour(7))]);
    done(&store, correct("a", 7, 1, 0)).await;
    done(&store, correct("a", 3, 2, 0)).await;
    assert_eq!(spans(&store).await, [("a".into(), hour(5), hour(5))]);
    assert_eq!(stored(&store).await, *rows([("a", 5, 1)]));
}

async fn an_event_corrected_to_nothing_is_gone_and_comes_back_with_undo(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 5, 9)]))).await.unwrap();
    let correction = done(&store, correct("a", 5, 9, 0)).await;
    assert!(totals(&store).await.is_empty());
    refused(&store, describe("a", "x"), "no event").await;
    done(&store, Change::Undo { change: correction }).await;
    assert_eq!(totals(&store).await, [("a".into(), 9)]);
    assert_eq!(balanced_books(&store).await.removed, 0);
}

async fn a_correction_is_taken_back_as_a_difference(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 10)]))).await.unwrap();
    let more = done(&store, correct("a", 1, 10, 15)).await;
    store.commit(request(batch(1, 2), rows([("a", 1, 100)]))).await.unwrap();
    done(&store, Change::Undo { change: more }).await;
    assert_eq!(totals(&store).await, [("a".into(), 110)]);
    let more = done(&store, correct("a", 1, 110, 120)).await;
    done(&store, correct("a", 1, 120, 9)).await;
    refused(&store, Change::Undo { change: more }, "has 9 in").await;
}

async fn a_correction_is_undone_also_under_another_name(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 10)]))).await.unwrap();
    let less = done(&store, correct("a", 1, 10, 5)).await;
    let rename = done(&store, relocate("a", "b")).await;
    done(&store, Change::Undo { change: less }).await;
    assert_eq!(totals(&store).await, [("b".into(), 10)]);
    done(&store, Change::Undo { change: rename }).await;
    assert_eq!(totals(&store).await, [("a".into(), 10)]);
}

async fn only_hours_that_are_over_are_corrected(bench: Bench) {
    let store = bench.store().await;
    let current = Hour::containing(now()).number();
    store.commit(request(batch(1, 1), rows([("a", current, 1), ("a", current - 1, 1)]))).await.unwrap();
    refused(&store, correct("a", current, 1, 2), "hours that are over").await;
    refused(&store, correct("a", current + 1, 0, 2), "hours that are over").await;
    done(&store, correct("a", current - 1, 1, 2)).await;
}
