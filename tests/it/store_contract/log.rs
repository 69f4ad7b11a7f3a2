//! PostgreSQL's log: what is not folded shows in every read, and a fold changes none.

use event_tracker::domain::{EventTotal, SumBy};
use event_tracker::store::Folded;
use event_tracker::store::admin::Change;

use super::*;

on_postgres!(
    a_fold_changes_no_answer,
    every_node_folds_at_once_and_nothing_is_folded_twice,
    many_nodes_fold_no_more_often_than_one,
    a_long_log_is_folded_in_parts_each_writer_in_its_order,
    old_entries_are_deleted_once_they_are_folded_and_their_writers_summed_up,
    an_entry_that_is_not_folded_is_never_deleted,
    people_with_sql_see_what_the_program_shows,
);
in_memory!(a_fold_changes_no_answer, every_node_folds_at_once_and_nothing_is_folded_twice,);
on_partitions!(
    a_fold_changes_no_answer,
    every_node_folds_at_once_and_nothing_is_folded_twice,
    people_with_sql_see_what_the_program_shows,
);

/// All that reads give.
async fn answers(store: &Arc<dyn Store>) -> String {
    let totals = store.totals(vec![]).await.unwrap();
    let mut one_by_one = Vec::new();
    store.each_total(vec![], &mut |total| one_by_one.push(total)).await.unwrap();
    one_by_one.sort_by(|a: &EventTotal, b| a.event.cmp(&b.event));
    assert_eq!(one_by_one, totals.value);
    let range = HourRange { first: hour(2), last: hour(8) };
    let by_hour = store.sums(range, SumBy::Hour, vec![]).await.unwrap().value;
    let by_event = store.sums(range, SumBy::Event, vec![]).await.unwrap().value;
    let of_b = HourlyQuery { names: vec![EventName::parse("b").unwrap()], ..everything() };
    let of_b = store.hourly(of_b, vec![]).await.unwrap().value;
    let books = balanced_books(store).await;
    format!("{:?}\n{totals:?}\n{by_hour:?}\n{by_event:?}\n{of_b:?}\n{books:?}", stored(store).await)
}

async fn a_fold_changes_no_answer(bench: Bench) {
    let sent = [
        rows([("a", 1, 1), ("b", 2, 20), ("b", 3, 30)]),
        rows([("a", 9, 5), ("b", 1, 10), ("c", 4, 4)]),
        rows([("Z", 2, 7), ("b", 2, 2), ("ü", 8, 8)]),
    ];
    for folded_before in 0..=sent.len() {
        let store = bench.another().await.store().await;
        for (rows, number) in sent.iter().zip(1..) {
            // Two writers, and one of them twice.
            let id = if number == 3 { batch(1, 2) } else { batch(number, 1) };
            store.commit(request(id, rows.clone())).await.unwrap();
            if usize::from(number) == folded_before {
                assert_eq!(store.fold().await.unwrap().unwrap().batches, u64::from(number) * bench.partitions());
            }
        }
        let before = answers(&store).await;
        let left = (sent.len() - folded_before) as u64 * bench.partitions();
        assert_eq!(store.fold().await.unwrap().unwrap().batches, left);
        assert_eq!(answers(&store).await, before, "{folded_before} folded before");
        assert_eq!(store.fold().await, Ok(Some(Folded::default())));
        assert_eq!(answers(&store).await, before);
    }
    assert_eq!(bench.store().await.fold().await, Ok(Some(Folded::default())));
}

async fn every_node_folds_at_once_and_nothing_is_folded_twice(bench: Bench) {
    let store = bench.store().await;
    let (done, mut folders) = (Arc::new(AtomicBool::new(false)), Vec::new());
    for _ in 0..3 {
        let (store, done) = (bench.store().await, Arc::clone(&done));
        folders.push(tokio::spawn(async move {
            let mut folded = 0;
            while !done.load(Ordering::Relaxed) {
                folded += store.fold().await.unwrap().unwrap_or_default().batches;
            }
            folded
        }));
    }
    let mut writers = Vec::new();
    for number in 1..=3 {
        let store = bench.store().await;
        writers.push(tokio::spawn(async move {
            for seq in 1..=40 {
                let sent = rows([("mine", u32::from(number), 1), ("ours", 1, 1)]);
                assert_eq!(store.commit(request(batch(number, seq), sent)).await, Ok(Commit::Applied));
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let mut folded = 0;
    for folder in folders {
        folded += folder.await.unwrap();
    }
    folded += store.fold().await.unwrap().unwrap().batches;
    assert_eq!(folded, 120 * bench.partitions());
    assert_eq!(totals(&store).await, [("mine".into(), 120), ("ours".into(), 120)]);
    assert_eq!(balanced_books(&store).await.ledger, 240);
}

async fn many_nodes_fold_no_more_often_than_one(bench: Bench) {
    let (here, there) = (bench.store().await, bench.store().await);
    let hour = std::time::Duration::from_secs(3_600);
    here.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    assert_eq!(here.fold_after(hour).await.unwrap().unwrap().batches, bench.partitions());
    here.commit(request(batch(1, 2), rows([("a", 1, 1)]))).await.unwrap();
    assert_eq!(there.fold_after(hour).await, Ok(None));
    bench.execute_in_parts("update fold_lock set folded_at = folded_at - interval '1 hour'").await;
    assert_eq!(there.fold_after(hour).await.unwrap().unwrap().batches, bench.partitions());
    // A clock that was wrong does not stop the folding.
    here.commit(request(batch(1, 3), rows([("a", 1, 1)]))).await.unwrap();
    bench.execute_in_parts("update fold_lock set folded_at = now() + interval '1 year'").await;
    assert_eq!(here.fold_after(hour).await.unwrap().unwrap().batches, bench.partitions());
    assert_eq!(totals(&here).await, [("a".into(), 3)]);
}

async fn a_long_log_is_folded_in_parts_each_writer_in_its_order(bench: Bench) {
    let store = bench.store().await;
    let names: Vec<String> = (0..1_000).map(|number| format!("event/{number:04}")).collect();
    let sent = rows(names.iter().flat_map(|name| (0..200).map(move |hour| (name.as_str(), hour, 1))));
    for (writer, seq) in [(1, 1), (1, 2), (1, 3), (2, 1)] {
        store.commit(request(batch(writer, seq), sent.clone())).await.unwrap();
    }
    // Whatever the clock of the database does.
    bench.execute("update deltas set at = at - seq * interval '1 minute'").await;
    assert_eq!(store.fold().await, Ok(Some(Folded { batches: 3, counters: 600_000 })));
    let books = balanced_books(&store).await;
    assert_eq!(books.rows, 800_000);
    assert_eq!(store.fold().await, Ok(Some(Folded { batches: 1, counters: 200_000 })));
    assert_eq!(balanced_books(&store).await, books);
    assert_eq!(store.fold().await, Ok(Some(Folded::default())));
    let of_one = HourlyQuery { names: vec![EventName::parse("event/0007").unwrap()], ..everything() };
    assert!(store.hourly(of_one, vec![]).await.unwrap().value.iter().all(|row| row.count == 4));
    assert_eq!(totals(&store).await.len(), 1_000);
}

async fn old_entries_are_deleted_once_they_are_folded_and_their_writers_summed_up(bench: Bench) {
    let (store, client) = (bench.store().await, bench.client().await);
    let number = async |sql: &str| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    for writer in [1, 2] {
        store.commit(request(batch(writer, 1), rows([("a", 1, 1)]))).await.unwrap();
    }
    store.fold().await.unwrap();
    let position = store.position(vec![writer(2)]).await.unwrap();
    store.commit(request(batch(1, 2), rows([("a", 1, 1)]))).await.unwrap();
    // An hour passes.
    bench.execute("update deltas set at = at - interval '1 hour'").await;
    bench.execute("update ledger set updated_at = updated_at - interval '1 hour' where last_seq = 1").await;
    // Another process, which has not trimmed lately.
    bench.store().await.fold().await.unwrap();
    assert_eq!(number("select count(*) from deltas").await, 0);
    assert_eq!(number("select count(*) from folded").await, 1);
    assert_eq!(number("select count(*) from ledger where live").await, 1);
    let now = store.position(vec![writer(2)]).await.unwrap();
    assert_eq!((now.version, now.total), (position.version + 1, position.total + 1));
    assert_eq!(now.applied.get(&writer(2)), position.applied.get(&writer(2)));
    assert!(!store.position(vec![]).await.unwrap().applied.contains_key(&writer(2)));
    // A writer that was away for long goes on, and is told what it has.
    let again = request(batch(2, 1), rows([("a", 1, 1)]));
    assert_eq!(store.commit(again).await, Ok(stands(1, 1, &rows([("a", 1, 1)]))));
    assert_eq!(store.commit(request(batch(2, 2), rows([("b", 1, 5)]))).await, Ok(Commit::Applied));
    assert_eq!(store.position(vec![]).await.unwrap().version, position.version + 2);
    assert_eq!(number("select count(*) from ledger where live").await, 2);
    assert_eq!(totals(&store).await, [("a".into(), 3), ("b".into(), 5)]);
    balanced_books(&store).await;
    store.fold().await.unwrap();
    balanced_books(&store).await;
}

async fn an_entry_that_is_not_folded_is_never_deleted(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    bench.execute("update deltas set at = at - interval '1 hour'").await;
    // Nothing but the deletion is tried, as if the fold had been cut off before it.
    bench.execute(include_str!("../../../src/store/postgres/log_trim.sql").replace("$1", "600").as_str()).await;
    bench.execute(include_str!("../../../src/store/postgres/ledger_retire.sql").replace("$1", "0").as_str()).await;
    assert_eq!(totals(&store).await, [("a".into(), 1)]);
    balanced_books(&store).await;
}

async fn people_with_sql_see_what_the_program_shows(bench: Bench) {
    let (store, client) = (bench.store().await, bench.client().await);
    let seen = async || {
        let sql = "select event, cast(extract(epoch from hour) / 3600 as integer), count from counts order by 1, 2";
        let rows = client.query(sql, &[]).await.unwrap();
        let row = |row: &tokio_postgres::Row| (row.get::<_, String>(0), row.get::<_, i32>(1), row.get::<_, i64>(2));
        rows.iter()
            .map(row)
            .map(|(event, hour, count)| format!("{event} {hour} {count}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let name = |text: &str| EventName::parse(text).unwrap();
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 2, 20), ("c", 3, 3)]))).await.unwrap();
    assert_eq!(seen().await, "a 1 1, b 2 20, c 3 3");
    store.fold().await.unwrap();
    store.commit(request(batch(1, 2), rows([("a", 1, 4), ("b", 1, 5)]))).await.unwrap();
    assert_eq!(seen().await, "a 1 5, b 1 5, b 2 20, c 3 3");
    let change = Change::Move { from: name("a"), into: name("b") };
    store.change(change, "ada", chrono::Utc::now()).await.unwrap();
    assert_eq!(seen().await, "b 1 10, b 2 20, c 3 3");
    store.commit(request(batch(1, 3), rows([("a", 2, 100), ("c", 3, 1)]))).await.unwrap();
    assert_eq!(seen().await, "b 1 10, b 2 120, c 3 4");
    store.change(Change::Delete { event: name("b") }, "ada", chrono::Utc::now()).await.unwrap();
    assert_eq!(seen().await, "c 3 4");
    store.fold().await.unwrap();
    assert_eq!(seen().await, "c 3 4");
    // The queries of the README.
    let readme = include_str!("../../../README.md");
    let (_, queries) = readme.split_once("```sql\n").unwrap();
    let queries = queries.split_once("```").unwrap().0;
    assert_eq!(queries.matches("select ").count(), 3);
    client.batch_execute(queries).await.unwrap();
}
