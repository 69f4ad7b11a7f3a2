//! Descriptions, on and off, renames, merges, deletion, undo, and the log of it all.

use event_tracker::store::CommitRequest;

use super::*;

on_both_stores!(
    a_rename_takes_history_and_later_counts_along,
    a_rename_keeps_what_was_said_about_the_event,
    undoing_a_rename_leaves_every_count_under_the_name_it_was_counted_with,
    a_rename_is_undone_whatever_became_of_the_new_name,
    a_renamed_event_can_be_renamed_back,
    a_merge_adds_up_hour_by_hour_and_undo_takes_it_apart_exactly,
    aliases_of_a_moved_event_follow_it_and_come_back,
    a_move_that_makes_no_sense_is_refused,
    a_correction_of_a_merged_event_takes_from_its_own_name_first_and_is_undone_name_by_name,
    a_merge_of_an_earlier_version_gives_back_what_it_moved,
    a_rename_of_an_earlier_version_gives_back_all_that_was_counted_since,
    an_event_is_described_and_switched_off_and_on,
    undo_touches_only_what_the_change_touched,
    a_deleted_event_keeps_its_counts_until_it_is_purged,
    a_purged_event_takes_its_aliases_with_it_and_nothing_brings_it_back,
    the_log_tells_who_did_what_newest_first,
    every_change_moves_the_versions_by_one,
    a_sum_that_would_overflow_is_refused,
    the_catalog_keeps_any_text_as_it_is,
    a_store_of_version_1_is_brought_up_to_date_with_its_counts,
    a_store_of_version_2_is_brought_up_to_date_with_its_log,
);
on_partitions_and_in_memory!(
    a_rename_takes_history_and_later_counts_along,
    a_rename_keeps_what_was_said_about_the_event,
    undoing_a_rename_leaves_every_count_under_the_name_it_was_counted_with,
    a_rename_is_undone_whatever_became_of_the_new_name,
    a_renamed_event_can_be_renamed_back,
    a_merge_adds_up_hour_by_hour_and_undo_takes_it_apart_exactly,
    aliases_of_a_moved_event_follow_it_and_come_back,
    a_move_that_makes_no_sense_is_refused,
    a_correction_of_a_merged_event_takes_from_its_own_name_first_and_is_undone_name_by_name,
    an_event_is_described_and_switched_off_and_on,
    undo_touches_only_what_the_change_touched,
    a_deleted_event_keeps_its_counts_until_it_is_purged,
    a_purged_event_takes_its_aliases_with_it_and_nothing_brings_it_back,
    the_log_tells_who_did_what_newest_first,
    a_sum_that_would_overflow_is_refused,
    the_catalog_keeps_any_text_as_it_is,
);

async fn a_rename_takes_history_and_later_counts_along(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("login", 10, 3), ("login", 12, 4), ("other", 1, 1)]))).await.unwrap();
    let before = contents(&store).await;
    let rename = done(&store, relocate("login", "sign-in")).await;
    assert_eq!(totals(&store).await, [("other".into(), 1), ("sign-in".into(), 7)]);
    assert_eq!(spans(&store).await[1], ("sign-in".into(), hour(10), hour(12)));
    assert_eq!(entry(&store, "login").await.alias_of, Some(name("sign-in")));
    done(&store, Change::Undo { change: rename }).await;
    assert_eq!(contents(&store).await, before);

    done(&store, relocate("login", "sign-in")).await;
    // A batch from before the rename, and one that holds both names in the same hour.
    store.commit(request(batch(1, 2), rows([("login", 10, 5), ("login", 9, 1)]))).await.unwrap();
    store
        .commit(request(batch(1, 3), rows([("a", 1, 1), ("login", 10, 10), ("sign-in", 10, 20), ("z", 1, 1)])))
        .await
        .unwrap();
    assert_eq!(spans(&store).await[2], ("sign-in".into(), hour(9), hour(12)));
    let expected =
        rows([("a", 1, 1), ("other", 1, 1), ("sign-in", 9, 1), ("sign-in", 10, 38), ("sign-in", 12, 4), ("z", 1, 1)]);
    assert_eq!(stored(&store).await, *expected);
    assert_eq!(balanced_books(&store).await.ledger, 46);
}

async fn a_rename_keeps_what_was_said_about_the_event(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("c", 1, 1)]))).await.unwrap();
    done(&store, describe("a", "first")).await;
    done(&store, set_active("a", false)).await;
    done(&store, relocate("a", "b")).await;
    let kept = entry(&store, "b").await;
    assert_eq!((kept.description.as_str(), kept.inactive), ("first", true));
    // A merge leaves alone what was said about the target.
    done(&store, describe("c", "third")).await;
    done(&store, relocate("b", "c")).await;
    let kept = entry(&store, "c").await;
    assert_eq!((kept.description.as_str(), kept.inactive), ("third", false));
}

async fn undoing_a_rename_leaves_every_count_under_the_name_it_was_counted_with(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("other", 1, 1)]))).await.unwrap();
    let rename = done(&store, relocate("a", "b")).await;
    // Old clients and new ones, and a correction.
    store.commit(request(batch(1, 2), rows([("a", 1, 10), ("a", 2, 20), ("b", 2, 200)]))).await.unwrap();
    done(&store, correct("b", 1, 11, 5)).await;
    let undo = done(&store, Change::Undo { change: rename }).await;
    assert_eq!(stored(&store).await, *rows([("a", 1, 5), ("a", 2, 20), ("b", 2, 200), ("other", 1, 1)]));
    assert_eq!(spans(&store).await[0], ("a".into(), hour(1), hour(2)));
    assert_eq!(totals(&store).await, [("a".into(), 25), ("b".into(), 200), ("other".into(), 1)]);
    assert!(store.catalog().await.unwrap().entries.is_empty());
    let line = &store.changes(vec![], None, 1).await.unwrap()[0];
    let (before, after) = told(line);
    assert_eq!(before, [alias_of("b"), counted("b", 225, 1, 2)]);
    assert_eq!(after, [counted("a", 25, 1, 2), counted("b", 200, 2, 2), undid(1, "rename")]);
    refused(&store, Change::Undo { change: undo }, "can't be undone").await;

    // One that had no counts yet, only a description.
    store.commit(request(batch(1, 3), rows([("c", 1, 1)]))).await.unwrap();
    done(&store, describe("c", "third")).await;
    done(&store, correct("c", 1, 1, 0)).await;
    let rename = done(&store, relocate("c", "d")).await;
    store.commit(request(batch(1, 4), rows([("c", 7, 7)]))).await.unwrap();
    done(&store, Change::Undo { change: rename }).await;
    let expected = [("a".into(), 25), ("b".into(), 200), ("c".into(), 7), ("other".into(), 1)];
    assert_eq!(totals(&store).await, expected);
    assert_eq!(
        (entry(&store, "c").await.description.as_str(), entry(&store, "d").await),
        ("third", CatalogEntry::default())
    );
}

async fn a_rename_is_undone_whatever_became_of_the_new_name(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("c", 1, 100)]))).await.unwrap();
    let rename = done(&store, relocate("a", "b")).await;
    let merge = done(&store, relocate("c", "b")).await;
    assert_eq!(totals(&store).await, [("b".into(), 101)]);
    done(&store, Change::Undo { change: rename }).await;
    assert_eq!(totals(&store).await, [("a".into(), 1), ("b".into(), 100)]);
    let rename = done(&store, relocate("a", "b")).await;
    done(&store, Change::Undo { change: merge }).await;
    assert_eq!(totals(&store).await, [("b".into(), 1), ("c".into(), 100)]);
    done(&store, describe("b", "x")).await;
    done(&store, Change::Undo { change: rename }).await;
    assert_eq!(totals(&store).await, [("a".into(), 1), ("c".into(), 100)]);
    assert_eq!(entry(&store, "b").await.description, "x");
}

async fn a_renamed_event_can_be_renamed_back(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("x", 1, 10)]))).await.unwrap();
    done(&store, relocate("x", "a")).await;
    let rename = done(&store, relocate("a", "b")).await;
    done(&store, describe("b", "said meanwhile")).await;
    let before = contents(&store).await;
    let back = done(&store, relocate("b", "a")).await;
    assert_eq!(totals(&store).await, [("a".into(), 11)]);
    assert_eq!(entry(&store, "a").await, CatalogEntry { description: "said meanwhile".into(), ..Default::default() });
    // Both other names count for it, and none points at an alias.
    for alias in ["b", "x"] {
        assert_eq!(entry(&store, alias).await.alias_of, Some(name("a")));
    }
    refused(&store, Change::Undo { change: rename }, "undo the later change first").await;
    done(&store, Change::Undo { change: back }).await;
    assert_eq!(contents(&store).await, before);
    done(&store, relocate("b", "a")).await;
    store.commit(request(batch(1, 2), rows([("a", 1, 1), ("b", 1, 20), ("x", 2, 300)]))).await.unwrap();
    assert_eq!(stored(&store).await, *rows([("a", 1, 32), ("a", 2, 300)]));
    done(&store, relocate("a", "b")).await;
    assert_eq!(totals(&store).await, [("b".into(), 332)]);
    // An alias of another event is still none to take.
    store.commit(request(batch(1, 3), rows([("c", 1, 1)]))).await.unwrap();
    refused(&store, relocate("c", "a"), "“a” is an alias of “b”: that is the name to use").await;
}

async fn a_merge_adds_up_hour_by_hour_and_undo_takes_it_apart_exactly(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("a", 2, 2), ("b", 2, 20), ("b", 3, 30)]))).await.unwrap();
    let merge = done(&store, relocate("a", "b")).await;
    assert_eq!(stored(&store).await, *rows([("b", 1, 1), ("b", 2, 22), ("b", 3, 30)]));
    // Counts that come meanwhile show there, too.
    store.commit(request(batch(1, 2), rows([("a", 2, 100), ("a", 5, 5)]))).await.unwrap();
    done(&store, Change::Undo { change: merge }).await;
    assert_eq!(stored(&store).await, *rows([("a", 1, 1), ("a", 2, 102), ("a", 5, 5), ("b", 2, 20), ("b", 3, 30)]));
    assert_eq!(spans(&store).await[1], ("b".into(), hour(2), hour(3)));
    store.commit(request(batch(1, 3), rows([("a", 1, 1)]))).await.unwrap();
    assert_eq!(totals(&store).await, [("a".into(), 109), ("b".into(), 50)]);
    refused(&store, Change::Undo { change: merge }, "undone already, by change 2").await;
}

async fn aliases_of_a_moved_event_follow_it_and_come_back(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 1, 10), ("c", 1, 100)]))).await.unwrap();
    let first = done(&store, relocate("a", "b")).await;
    let second = done(&store, relocate("b", "c")).await;
    assert_eq!(entry(&store, "a").await.alias_of, Some(name("c")));
    store.commit(request(batch(1, 2), rows([("a", 1, 1), ("b", 1, 1)]))).await.unwrap();
    assert_eq!(totals(&store).await, [("c".into(), 113)]);
    refused(&store, Change::Undo { change: first }, "undo the later change first").await;
    done(&store, Change::Undo { change: second }).await;
    assert_eq!(entry(&store, "a").await.alias_of, Some(name("b")));
    done(&store, Change::Undo { change: first }).await;
    assert_eq!(totals(&store).await, [("a".into(), 2), ("b".into(), 11), ("c".into(), 100)]);
    assert!(store.catalog().await.unwrap().entries.is_empty());
}

async fn a_move_that_makes_no_sense_is_refused(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 1, 1), ("c", 1, 1), ("gone", 1, 1)]))).await.unwrap();
    done(&store, relocate("a", "b")).await;
    done(&store, delete("gone")).await;
    refused(&store, relocate("b", "b"), "called so already").await;
    refused(&store, relocate("never", "b"), "no event “never”").await;
    refused(&store, relocate("a", "c"), "is an alias of “b”").await;
    refused(&store, relocate("c", "a"), "is an alias of “b”").await;
    refused(&store, relocate("c", "gone"), "is deleted").await;
    refused(&store, relocate("gone", "c"), "is deleted").await;
    refused(&store, Change::Undo { change: 99 }, "no change 99").await;
}

async fn a_correction_of_a_merged_event_takes_from_its_own_name_first_and_is_undone_name_by_name(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 5), ("b", 1, 10)]))).await.unwrap();
    let merge = done(&store, relocate("a", "b")).await;
    let correction = done(&store, correct("b", 1, 15, 4)).await;
    assert_eq!(totals(&store).await, [("b".into(), 4)]);
    done(&store, Change::Undo { change: merge }).await;
    assert_eq!(totals(&store).await, [("a".into(), 4)]);
    done(&store, Change::Undo { change: correction }).await;
    assert_eq!(totals(&store).await, [("a".into(), 5), ("b".into(), 10)]);
}

async fn an_event_is_described_and_switched_off_and_on(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    let described = done(&store, describe("a", "who logs in")).await;
    assert_eq!(entry(&store, "a").await.description, "who logs in");
    refused(&store, describe("a", "who logs in"), "already").await;
    refused(&store, describe("a", &"x".repeat(1_001)), "longer than 1000 characters").await;
    refused(&store, describe("a", "a\0b"), "control character").await;
    refused(&store, describe("b", "x"), "no event").await;
    done(&store, describe("a", &"ü".repeat(1_000))).await;
    refused(&store, Change::Undo { change: described }, "changed again").await;
    refused(&store, set_active("a", true), "active already").await;
    let off = done(&store, set_active("a", false)).await;
    assert!(entry(&store, "a").await.inactive);
    done(&store, Change::Undo { change: off }).await;
    assert!(!entry(&store, "a").await.inactive);
    done(&store, describe("a", "")).await;
    assert!(store.catalog().await.unwrap().entries.is_empty());
}

async fn undo_touches_only_what_the_change_touched(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    let off = done(&store, set_active("a", false)).await;
    done(&store, describe("a", "later")).await;
    done(&store, Change::Undo { change: off }).await;
    let entry = entry(&store, "a").await;
    assert_eq!((entry.description.as_str(), entry.inactive), ("later", false));
}

async fn a_deleted_event_keeps_its_counts_until_it_is_purged(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 1, 10)]))).await.unwrap();
    refused(&store, purge("a"), "not deleted").await;
    refused(&store, delete("never"), "no event").await;
    let deletion = done(&store, delete("a")).await;
    assert!(entry(&store, "a").await.deleted_at.is_some());
    for change in [delete("a"), describe("a", "x"), set_active("a", false), correct("a", 1, 1, 2)] {
        refused(&store, change, "is deleted; restore it first").await;
    }
    // Counts that were acknowledged before are not lost, and show when it is restored.
    store.commit(request(batch(1, 2), rows([("a", 2, 2)]))).await.unwrap();
    done(&store, Change::Undo { change: deletion }).await;
    assert_eq!(totals(&store).await, [("a".into(), 3), ("b".into(), 10)]);

    done(&store, delete("a")).await;
    refused(&store, Change::Undo { change: deletion }, "undone already").await;
    done(&store, purge("a")).await;
    assert_eq!(stored(&store).await, *rows([("b", 1, 10)]));
    let books = balanced_books(&store).await;
    assert_eq!((books.rows, books.removed, books.ledger), (10, 3, 13));
}

async fn a_purged_event_takes_its_aliases_with_it_and_nothing_brings_it_back(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 1, 10)]))).await.unwrap();
    let correction = done(&store, correct("a", 1, 1, 0)).await;
    store.commit(request(batch(1, 2), rows([("a", 1, 1)]))).await.unwrap();
    let merge = done(&store, relocate("a", "b")).await;
    let deletion = done(&store, delete("b")).await;
    let purged = done(&store, purge("b")).await;
    assert!(store.catalog().await.unwrap().entries.is_empty());
    for change in [correction, merge, deletion, purged] {
        refused(&store, Change::Undo { change }, "can't be undone").await;
    }
    // The names are free again.
    let known = store.catalog().await.unwrap().version;
    let anew = CommitRequest { catalog: known, ..request(batch(1, 3), rows([("a", 1, 7), ("b", 1, 8)])) };
    store.commit(anew).await.unwrap();
    assert_eq!(totals(&store).await, [("a".into(), 7), ("b".into(), 8)]);
    balanced_books(&store).await;
}

async fn the_log_tells_who_did_what_newest_first(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 5, 2)]))).await.unwrap();
    store.change(set_active("a", false), "key ci", now()).await.unwrap();
    let merge = done(&store, relocate("a", "b")).await;
    let undo = done(&store, Change::Undo { change: merge }).await;
    done(&store, correct("b", 5, 2, 3)).await;
    let log = store.changes(vec![], None, 10).await.unwrap();
    let lines: Vec<_> =
        log.iter().map(|line| (line.what.as_str(), line.event.as_ref().unwrap().as_str(), line.can_undo)).collect();
    assert_eq!(lines, [("correct", "b", true), ("undo", "a", false), ("merge", "a", false), ("deactivate", "a", true)]);
    assert_eq!((log[3].who.as_str(), told(&log[3])), ("key ci", (&[Fact::Active][..], &[Fact::Inactive][..])));
    assert_eq!(log[3].at.timestamp_micros(), now().timestamp_micros());
    assert_eq!(log[2].undone_by, Some(undo));
    assert_eq!(told(&log[2]).0, [counted("a", 1, 1, 1), counted("b", 2, 5, 5)]);
    assert_eq!(told(&log[2]).1, [alias_of("b"), counted("b", 3, 1, 5)]);
    assert_eq!(told(&log[1]).1[2..], [undid(merge, "merge")]);
    assert_eq!(told(&log[0]).1[1], Fact::Reason { text: "miscounted".into() });
    refused(&store, Change::Undo { change: undo }, "can't be undone").await;

    assert_eq!(store.changes(vec![name("b")], None, 10).await.unwrap(), log[..1]);
    assert_eq!(store.changes(vec![name("a"), name("b"), name("c")], None, 10).await.unwrap(), log);
    assert_eq!(store.changes(vec![name("a"), name("b")], Some(4), 1).await.unwrap(), log[1..2]);
    assert_eq!(store.changes(vec![], Some(merge), 10).await.unwrap(), log[3..]);
    assert_eq!(store.changes(vec![], None, 2).await.unwrap(), log[..2]);
}

async fn every_change_moves_the_versions_by_one(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    for version in 1..=3 {
        let before = store.position(vec![]).await.unwrap();
        let change = done(&store, describe("a", &version.to_string())).await;
        let after = store.position(vec![]).await.unwrap();
        assert_eq!((after.catalog, after.version), (version, before.version + 1));
        assert_eq!((change, store.catalog().await.unwrap().version), (i64::try_from(version).unwrap(), version));
        assert_eq!(store.totals(vec![]).await.unwrap().position, after);
    }
}

async fn a_sum_that_would_overflow_is_refused(bench: Bench) {
    let store = bench.store().await;
    let most = event_tracker::domain::TOTAL_MAX;
    store.commit(request(batch(1, 1), rows([("a", 1, most), ("b", 1, most), ("c", 2, 1)]))).await.unwrap();
    refused(&store, relocate("a", "b"), "would pass").await;
    refused(&store, relocate("c", "b"), "would pass").await;
    refused(&store, correct("c", 2, 1, u64::MAX), "would pass").await;
    refused(&store, correct("a", 2, 0, 1), "would pass").await;
    done(&store, correct("c", 2, 1, most)).await;
}

async fn the_catalog_keeps_any_text_as_it_is(bench: Bench) {
    let store = bench.store().await;
    let names = ["a/b c", "'; drop table catalog; --", "Ünïcödé 🦀", "A", "a"];
    store.commit(request(batch(1, 1), rows(names.map(|name| (name, 1, 1))))).await.unwrap();
    for text in names {
        done(&store, describe(text, text)).await;
    }
    for text in names {
        assert_eq!(bench.store().await.catalog().await.unwrap().entries[&name(text)].description, text);
    }
    done(&store, relocate("A", "Ünïcödé 🦀")).await;
    assert_eq!(entry(&store, "a").await.alias_of, None);
}

/// What a move of `from` did in earlier versions besides: its counts went to `into`.
async fn move_counts(bench: &Bench, change: i64, from: &str, into: &str, count: u64) {
    let sql = format!(
        "delete from hourly_counts where event = '{from}'; delete from event_totals where event = '{from}';
         insert into hourly_counts (event, hour, count) values ('{into}', 1, {count})
             on conflict (event, hour) do update set count = hourly_counts.count + {count};
         insert into event_totals (event, total, first_hour, last_hour) values ('{into}', {count}, 1, 1)
             on conflict (event) do update set total = event_totals.total + {count};
         insert into changed_counts (change, event, hour, delta)
             values ({change}, '{from}', 1, -{count}), ({change}, '{into}', 1, {count})"
    );
    bench.execute(&sql).await;
}

async fn a_merge_of_an_earlier_version_gives_back_what_it_moved(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 5), ("b", 1, 1)]))).await.unwrap();
    let merge = done(&store, relocate("a", "b")).await;
    move_counts(&bench, merge, "a", "b", 5).await;
    store.commit(request(batch(1, 2), rows([("a", 1, 10), ("b", 1, 100)]))).await.unwrap();
    assert_eq!(totals(&store).await, [("b".into(), 116)]);
    done(&store, Change::Undo { change: merge }).await;
    assert_eq!(totals(&store).await, [("a".into(), 15), ("b".into(), 101)]);
}

async fn a_rename_of_an_earlier_version_gives_back_all_that_was_counted_since(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 5)]))).await.unwrap();
    let rename = done(&store, relocate("a", "b")).await;
    move_counts(&bench, rename, "a", "b", 5).await;
    store.commit(request(batch(1, 2), rows([("a", 1, 10), ("b", 1, 100)]))).await.unwrap();
    assert_eq!(totals(&store).await, [("b".into(), 115)]);
    let described = done(&store, describe("b", "x")).await;
    refused(&store, Change::Undo { change: rename }, "undo the later change first, or rename “b” to “a”").await;
    done(&store, Change::Undo { change: described }).await;
    done(&store, Change::Undo { change: rename }).await;
    assert_eq!(totals(&store).await, [("a".into(), 115)]);
}

/// As before version 7 of the schema.
async fn without_the_log(bench: &Bench) {
    if let Bench::Sqlite(_) = bench {
        bench.execute("drop table deltas").await;
    } else {
        bench.store().await.fold().await.unwrap();
        bench
            .execute(
                "drop view counts, unfolded_entries; drop table nodes, deltas, folded, fold_lock, hour_totals, retired_writers;
                 drop index ledger_live, hourly_counts_by_hour; alter table ledger drop column live;
                 alter table catalog_version rename to catalog_state;
                 alter table store_identity drop column partitions",
            )
            .await;
    }
}

async fn a_store_of_version_1_is_brought_up_to_date_with_its_counts(bench: Bench) {
    bench.store().await.commit(request(batch(1, 1), rows([("a", 1, 5)]))).await.unwrap();
    let added = [
        "purge_marks",
        "catalog_state",
        "catalog",
        "admin_changes",
        "changed_counts",
        "superusers",
        "sessions",
        "admin_keys",
    ];
    let dropped = added.map(|table| format!("drop table {table};")).concat();
    without_the_log(&bench).await;
    bench.execute("drop table set_aside; alter table ledger drop column digest").await;
    let version = match bench {
        Bench::Memory(_) => unreachable!("no SQL is meant for it"),
        Bench::Sqlite(_) => "pragma user_version = 1",
        Bench::Postgres { .. } => "delete from schema_version where version > 1",
    };
    bench.execute(&format!("{dropped} {version}")).await;
    let store = bench.store().await;
    done(&store, relocate("a", "b")).await;
    assert_eq!(totals(&store).await, [("b".into(), 5)]);
}

async fn a_store_of_version_2_is_brought_up_to_date_with_its_log(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 5), ("b", 1, 1)]))).await.unwrap();
    let merge = done(&store, relocate("a", "b")).await;
    done(&store, describe("b", "“both”")).await;
    let mut log = store.changes(vec![], None, 10).await.unwrap();
    store.close().await;
    for line in &mut log {
        line.told = Told::Sentences { before: "something".into(), after: "something else".into() };
    }
    bench.execute("update admin_changes set before = 'something', after = 'something else'").await;
    without_the_log(&bench).await;
    bench.execute("drop table set_aside; alter table ledger drop column digest").await;
    bench.execute("drop table purge_marks; alter table catalog drop column purge_due_since").await;
    bench
        .execute(match bench {
            Bench::Memory(_) => unreachable!("no SQL is meant for it"),
            Bench::Sqlite(_) => {
                "create table older as select change, at, who, what, event, before, after, entries, undoable, undone_by
                     from admin_changes;
                 drop table admin_changes;
                 create table admin_changes (
                     change integer primary key, at text not null, who text not null, what text not null,
                     event text not null, before text not null, after text not null, entries text not null,
                     undoable integer not null check (undoable in (0, 1)), undone_by integer
                 ) strict;
                 create index admin_changes_by_event on admin_changes (event, change);
                 insert into admin_changes select * from older;
                 drop table older;
                 pragma user_version = 2"
            }
            Bench::Postgres { .. } => {
                "alter table admin_changes drop constraint admin_changes_subject;
                 alter table admin_changes drop column account;
                 alter table admin_changes drop column facts;
                 alter table admin_changes alter column event set not null;
                 delete from schema_version where version > 2"
            }
        })
        .await;
    let store = bench.store().await;
    assert_eq!(store.changes(vec![], None, 10).await.unwrap(), log);
    done(&store, Change::Undo { change: merge }).await;
    assert_eq!(totals(&store).await, [("a".into(), 5), ("b".into(), 1)]);
}
