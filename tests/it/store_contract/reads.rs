//! Bytewise names, inclusive ranges, one snapshot.

use event_tracker::domain::{SumBy, SumOf, TOTAL_MAX};
use event_tracker::store::admin::Change;

use super::*;

on_every_store!(
    names_are_equal_and_ordered_bytewise,
    a_range_includes_both_of_its_ends,
    an_event_filter_gives_that_event_and_no_other,
    more_rows_than_the_limit_are_an_error,
    sums_are_those_of_the_rows_without_deleted_events,
    a_sum_beyond_63_bits_is_that_limit,
    an_empty_store_answers_with_nothing,
    the_position_moves_with_every_commit_of_any_writer,
    totals_come_one_by_one_with_the_position_of_their_snapshot,
    reads_during_commits_see_a_batch_and_its_ledger_entry_or_neither,
);
in_memory!(
    names_are_equal_and_ordered_bytewise,
    a_range_includes_both_of_its_ends,
    an_event_filter_gives_that_event_and_no_other,
    more_rows_than_the_limit_are_an_error,
    sums_are_those_of_the_rows_without_deleted_events,
    an_empty_store_answers_with_nothing,
    the_position_moves_with_every_commit_of_any_writer,
    totals_come_one_by_one_with_the_position_of_their_snapshot,
    reads_during_commits_see_a_batch_and_its_ledger_entry_or_neither,
);
on_partitions!(
    names_are_equal_and_ordered_bytewise,
    a_range_includes_both_of_its_ends,
    an_event_filter_gives_that_event_and_no_other,
    more_rows_than_the_limit_are_an_error,
    sums_are_those_of_the_rows_without_deleted_events,
    a_sum_beyond_63_bits_is_that_limit,
    an_empty_store_answers_with_nothing,
);

/// Names that some collation, normalisation or blank-trimming would take for equal or sort otherwise.
pub fn awkward_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "a",
        "A",
        "ä",
        "a\u{308}",
        "b",
        "B",
        "a ",
        " a",
        "a b",
        "a-b",
        "ab",
        "aB",
        "ß",
        "ss",
        "i",
        "ı",
        "İ",
        "Z",
        "_",
        "10",
        "9",
        "🙂",
        "\u{ffff}",
        "\u{1f469}\u{200d}\u{1f680}",
        "resource/209",
        "%",
        "'\"\\",
        "unique",
    ]
    .map(String::from)
    .into();
    names.push("x".repeat(255));
    names.push("é".repeat(127));
    names
}

pub async fn expect_bytewise_names(store: &Arc<dyn Store>) {
    let mut names = awkward_names();
    for seq in 1..=2 {
        let sent = rows(names.iter().map(|name| (name.as_str(), 1, 1)));
        assert_eq!(store.commit(request(batch(1, seq), sent)).await, Ok(Commit::Applied));
    }
    names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let expected: Vec<(String, u64)> = names.iter().map(|name| (name.clone(), 2)).collect();
    assert_eq!(totals(store).await, expected);
    let hourly: Vec<String> = stored(store).await.into_iter().map(|row| row.event.as_str().to_owned()).collect();
    assert_eq!(hourly, names);
    for name in &names {
        let query = HourlyQuery { names: vec![EventName::parse(name).unwrap()], ..everything() };
        assert_eq!(store.hourly(query, vec![]).await.unwrap().value, *rows([(name.as_str(), 1, 2)]));
    }
}

async fn names_are_equal_and_ordered_bytewise(bench: Bench) {
    expect_bytewise_names(&bench.store().await).await;
}

async fn a_range_includes_both_of_its_ends(bench: Bench) {
    let store = bench.store().await;
    let last = Hour::MAX.number();
    store
        .commit(request(batch(1, 1), rows([0, 9, 10, 11, 12, 13, last].map(|number| ("a", number, 1)))))
        .await
        .unwrap();
    store.commit(request(batch(1, 2), rows([("b", 12, 2), ("c", 9, 3), ("c", 14, 4)]))).await.unwrap();
    for (first, last, expected) in [
        (10, 12, rows([("a", 10, 1), ("a", 11, 1), ("a", 12, 1), ("b", 12, 2)])),
        (12, 12, rows([("a", 12, 1), ("b", 12, 2)])),
        (0, 0, rows([("a", 0, 1)])),
        (last, last, rows([("a", last, 1)])),
        (14, 14, rows([("c", 14, 4)])),
        (1, 8, rows([])),
    ] {
        let query = HourlyQuery { range: HourRange { first: hour(first), last: hour(last) }, ..everything() };
        assert_eq!(store.hourly(query, vec![]).await.unwrap().value, *expected, "{first} to {last}");
    }
}

async fn an_event_filter_gives_that_event_and_no_other(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("a", 2, 2), ("a ", 1, 3), ("b", 1, 4)]))).await.unwrap();
    let of = |event: &str| HourlyQuery { names: vec![EventName::parse(event).unwrap()], ..everything() };
    assert_eq!(store.hourly(of("a"), vec![]).await.unwrap().value, *rows([("a", 1, 1), ("a", 2, 2)]));
    assert_eq!(store.hourly(of("never"), vec![]).await.unwrap().value, *rows([]));
    let range = HourRange { first: hour(2), last: hour(3) };
    let query = HourlyQuery { range, ..of("a") };
    assert_eq!(store.hourly(query, vec![]).await.unwrap().value, *rows([("a", 2, 2)]));
}

async fn more_rows_than_the_limit_are_an_error(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([1, 2, 3].map(|number| ("a", number, 1))))).await.unwrap();
    for names in [vec![], vec![EventName::parse("a").unwrap()]] {
        let query = |rows_max| HourlyQuery { names: names.clone(), rows_max, ..everything() };
        assert_eq!(store.hourly(query(3), vec![]).await.unwrap().value.len(), 3);
        let refused = store.hourly(query(2), vec![]).await;
        assert_eq!(refused, Err(StoreError::TooManyRows { rows_max: 2 }));
    }
}

async fn sums(store: &Arc<dyn Store>, first: u32, last: u32) -> (Vec<(u32, u64)>, Vec<(String, u64)>) {
    let (mut hours, mut events) = (Vec::new(), Vec::new());
    let range = HourRange { first: hour(first), last: hour(last) };
    for by in [SumBy::Hour, SumBy::Event] {
        for sum in store.sums(range, by, vec![]).await.unwrap().value {
            match (by, sum.of) {
                (SumBy::Hour, SumOf::Hour(hour)) => hours.push((hour.number(), sum.count)),
                (SumBy::Event, SumOf::Event(event)) => events.push((event.as_str().to_owned(), sum.count)),
                (by, of) => panic!("asked by {by:?}, got {of:?}"),
            }
        }
    }
    (hours, events)
}

async fn sums_are_those_of_the_rows_without_deleted_events(bench: Bench) {
    let store = bench.store().await;
    let name = |name: &str| name.to_owned();
    assert_eq!(sums(&store, 0, 99).await, (vec![], vec![]));
    store
        .commit(request(batch(1, 1), rows([("a", 9, 1), ("a", 10, 2), ("a", 12, 3), ("a", 13, 4), ("B", 12, 5)])))
        .await
        .unwrap();
    store.commit(request(batch(1, 2), rows([("a", 10, 6), ("ä", 11, 7), ("c", 14, 8)]))).await.unwrap();
    let expected = (vec![(10, 8), (11, 7), (12, 8)], vec![(name("B"), 5), (name("a"), 11), (name("ä"), 7)]);
    assert_eq!(sums(&store, 10, 12).await, expected);
    assert_eq!(sums(&store, 14, 14).await, (vec![(14, 8)], vec![(name("c"), 8)]));
    let change = Change::Delete { event: EventName::parse("a").unwrap() };
    store.change(change, "ann", chrono::Utc::now()).await.unwrap();
    let expected = (vec![(11, 7), (12, 5)], vec![(name("B"), 5), (name("ä"), 7)]);
    assert_eq!(sums(&store, 10, 12).await, expected);
}

async fn a_sum_beyond_63_bits_is_that_limit(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, TOTAL_MAX)]))).await.unwrap();
    store.commit(request(batch(1, 2), rows([("b", 1, TOTAL_MAX), ("b", 2, 1)]))).await.unwrap();
    let (hours, events) = sums(&store, 1, 2).await;
    assert_eq!(hours, [(1, i64::MAX.unsigned_abs()), (2, 1)]);
    assert_eq!(events, [("a".to_owned(), TOTAL_MAX), ("b".to_owned(), TOTAL_MAX + 1)]);
}

async fn an_empty_store_answers_with_nothing(bench: Bench) {
    let store = bench.store().await;
    assert_eq!(stored(&store).await, []);
    assert_eq!(totals(&store).await, []);
    let position = store.position(vec![writer(1)]).await.unwrap();
    assert_eq!((position.version, position.total, position.applied.len()), (0, 0, 0));
    let nothing = Books { rows: 0, totals: 0, hours: 0, removed: 0, ledger: 0 };
    assert_eq!(balanced_books(&store).await, nothing);
}

async fn the_position_moves_with_every_commit_of_any_writer(bench: Bench) {
    let store = bench.store().await;
    let mut last_version = store.position(vec![]).await.unwrap().version;
    for (number, seq) in [(1, 1), (1, 2), (2, 1), (1, 3)] {
        let id = batch(number, seq);
        assert!(!store.position(vec![id.writer]).await.unwrap().includes(id));
        store.commit(request(id, rows([("a", 1, 1)]))).await.unwrap();
        let position = store.position(vec![id.writer]).await.unwrap();
        assert!(position.includes(id));
        assert!(position.version > last_version);
        last_version = position.version;
    }
    let position = store.totals(vec![writer(1), writer(2), writer(9)]).await.unwrap().position;
    let digest = Some(Digest::of(&rows([("a", 1, 1)])));
    let entry = |seq, total| LedgerEntry { last_seq: BatchSeq(seq), total, digest };
    assert_eq!(position.applied, [(writer(1), entry(3, 3)), (writer(2), entry(1, 1))].into());
    let hourly = store.hourly(everything(), vec![writer(2)]).await.unwrap().position;
    assert_eq!(hourly.version, position.version);
    assert_eq!(hourly.applied.get(&writer(2)), Some(&entry(1, 1)));
}

async fn totals_come_one_by_one_with_the_position_of_their_snapshot(bench: Bench) {
    let store = bench.store().await;
    let names: Vec<String> = (0..3_000).map(|number| format!("event/{number:04}")).collect();
    store.commit(request(batch(1, 1), rows(names.iter().map(|name| (name.as_str(), 1, 2))))).await.unwrap();
    let mut seen = Vec::new();
    let position = store.each_total(vec![writer(1)], &mut |total| seen.push(total)).await.unwrap();
    assert_eq!(position, store.position(vec![writer(1)]).await.unwrap());
    assert_eq!(seen, store.totals(vec![]).await.unwrap().value);
    assert_eq!(seen.len(), 3_000);
}

async fn reads_during_commits_see_a_batch_and_its_ledger_entry_or_neither(bench: Bench) {
    const EVENTS: u64 = 50;
    let store = bench.store().await;
    let names: Vec<String> = (0..EVENTS).map(|number| format!("event/{number:02}")).collect();
    let sent = rows(names.iter().map(|name| (name.as_str(), 1, 1)));
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    let seen: Vec<_> = (0..3).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    for seen in &seen {
        let seen = Arc::clone(seen);
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        readers.push(tokio::spawn(async move {
            let mut distinct_versions = std::collections::BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                let hourly = store.hourly(everything(), vec![writer(1)]).await.unwrap();
                let applied = hourly.position.applied.get(&writer(1)).map_or(0, |entry| entry.last_seq.0);
                assert_eq!(hourly.position.version, applied);
                assert_eq!(hourly.value.iter().map(|row| row.count).sum::<u64>(), applied * EVENTS);
                assert!(hourly.value.iter().all(|row| row.count == applied));
                let totals = store.totals(vec![writer(1)]).await.unwrap();
                let applied = totals.position.applied.get(&writer(1)).map_or(0, |entry| entry.last_seq.0);
                assert!(totals.value.iter().all(|total| total.count == applied));
                for (by, events) in [(SumBy::Hour, EVENTS), (SumBy::Event, 1)] {
                    let sums = store.sums(HourRange::ALL, by, vec![writer(1)]).await.unwrap();
                    let applied = sums.position.applied.get(&writer(1)).map_or(0, |entry| entry.last_seq.0);
                    assert!(sums.value.iter().all(|sum| sum.count == applied * events));
                }
                assert!(store.audit().await.unwrap().balance());
                distinct_versions.insert(applied);
                seen.store(distinct_versions.len(), Ordering::Relaxed);
            }
        }));
    }
    // However busy the machine is: commits go on until every reader has seen some of them.
    let all_saw_some = || seen.iter().all(|seen| seen.load(Ordering::Relaxed) >= 5);
    for seq in 1.. {
        if all_saw_some() || readers.iter().any(tokio::task::JoinHandle::is_finished) {
            break;
        }
        store.commit(request(batch(1, seq), sent.clone())).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(all_saw_some());
}
