//! The log's facts: kept as they are. Sentences of earlier versions are shown and never read.

use super::*;

on_both_stores!(
    facts_are_read_back_as_they_were_written,
    a_line_of_an_earlier_version_has_sentences_and_no_facts,
    undo_reads_no_sentence_whatever_it_undoes,
    the_undo_of_a_correction_tells_the_counts_of_its_own_time,
);

fn description(text: &str) -> Fact {
    Fact::Description { text: text.into() }
}

fn in_hour(number: u32, count: u64) -> Fact {
    Fact::HourlyCount { hour: hour(number), count }
}

fn reason() -> Fact {
    Fact::Reason { text: "miscounted".into() }
}

fn undo(change: i64) -> Change {
    Change::Undo { change }
}

async fn facts_are_read_back_as_they_were_written(bench: Bench) {
    let store = bench.store().await;
    let (words, most) = ("2024050112: 7\n\"“b”\\ 🦀", event_tracker::domain::TOTAL_MAX);
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b\"🦀", 5, 20)]))).await.unwrap();
    let (one, b) = (counted("a", 1, 1, 1), counted("b\"🦀", 20, 5, 5));
    let expected = [
        (describe("a", words), vec![description("")], vec![description(words)]),
        (set_active("a", false), vec![Fact::Active], vec![Fact::Inactive]),
        (set_active("a", true), vec![Fact::Inactive], vec![Fact::Active]),
        (correct("a", 1, 1, most), vec![in_hour(1, 1)], vec![in_hour(1, most), reason()]),
        (
            relocate("a", "n"),
            vec![counted("a", most, 1, 1), uncounted("n")],
            vec![alias_of("n"), counted("n", most, 1, 1)],
        ),
        (
            undo(5),
            vec![alias_of("n"), counted("n", most, 1, 1)],
            vec![counted("a", most, 1, 1), uncounted("n"), undid(5, "rename")],
        ),
        (undo(4), vec![in_hour(1, most), reason()], vec![in_hour(1, 1), undid(4, "correct")]),
        (relocate("a", "b\"🦀"), vec![one.clone(), b.clone()], vec![alias_of("b\"🦀"), counted("b\"🦀", 21, 1, 5)]),
        (undo(8), vec![alias_of("b\"🦀"), counted("b\"🦀", 21, 1, 5)], vec![one.clone(), b, undid(8, "merge")]),
        (undo(1), vec![description(words)], vec![description(""), undid(1, "describe")]),
        (delete("a"), vec![one.clone()], vec![Fact::Deleted]),
        (undo(11), vec![Fact::Deleted], vec![one.clone(), undid(11, "delete")]),
        (delete("a"), vec![one.clone()], vec![Fact::Deleted]),
        (purge("a"), vec![one], vec![Fact::Purged]),
    ];
    for (change, ..) in &expected {
        done(&store, change.clone()).await;
    }
    store.close().await;
    let log = bench.store().await.changes(vec![], None, 100).await.unwrap();
    assert_eq!(log.len(), expected.len());
    for (line, (change, before, after)) in log.iter().rev().zip(&expected) {
        assert_eq!(told(line), (before.as_slice(), after.as_slice()), "{change:?}");
    }
}

async fn a_line_of_an_earlier_version_has_sentences_and_no_facts(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    done(&store, describe("a", "x")).await;
    bench.execute("update admin_changes set facts = null, before = '', after = '2024050112: 7'").await;
    done(&store, describe("a", "y")).await;
    let log = store.changes(vec![], None, 100).await.unwrap();
    assert_eq!(log[1].told, Told::Sentences { before: String::new(), after: "2024050112: 7".into() });
    assert_eq!(told(&log[0]), (&[description("x")][..], &[description("y")][..]));
}

async fn undo_reads_no_sentence_whatever_it_undoes(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 10), ("b", 2, 20), ("off", 3, 3)]))).await.unwrap();
    done(&store, set_active("off", false)).await;
    let (a, b) = (counted("a", 10, 1, 1), counted("b", 20, 2, 2));
    let cases = [
        (describe("a", "x"), vec![description("x")], vec![description("")]),
        (set_active("a", false), vec![Fact::Inactive], vec![Fact::Active]),
        (set_active("off", true), vec![Fact::Active], vec![Fact::Inactive]),
        (relocate("a", "n"), vec![alias_of("n"), counted("n", 10, 1, 1)], vec![a.clone(), uncounted("n")]),
        (relocate("a", "b"), vec![alias_of("b"), counted("b", 30, 1, 2)], vec![a.clone(), b]),
        (correct("a", 1, 10, 4), vec![in_hour(1, 4)], vec![in_hour(1, 10)]),
        (delete("a"), vec![Fact::Deleted], vec![a]),
    ];
    for with_facts in [true, false] {
        for (change, before, after) in &cases {
            let contents_before = contents(&store).await;
            let number = done(&store, change.clone()).await;
            let nonsense = "before = 'nothing', after = '2024050112: 7 (undid change 1, describe)'";
            let facts = if with_facts { "" } else { ", facts = null" };
            bench.execute(&format!("update admin_changes set {nonsense}{facts}")).await;
            done(&store, undo(number)).await;
            assert_eq!(contents(&store).await, contents_before, "{change:?}");
            let line = &store.changes(vec![], None, 1).await.unwrap()[0];
            let (told_before, told_after) = told(line);
            // The reason of a correction is nowhere else.
            let reasons = usize::from(with_facts && matches!(change, Change::Correct { .. }));
            assert_eq!(told_before, [before.as_slice(), &vec![reason(); reasons]].concat(), "{change:?}");
            assert_eq!(told_after[..after.len()], **after, "{change:?}");
            assert!(matches!(told_after[after.len()], Fact::Undid { change, .. } if change == number), "{line:?}");
        }
    }
}

async fn the_undo_of_a_correction_tells_the_counts_of_its_own_time(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 10)]))).await.unwrap();
    let correction = done(&store, correct("a", 1, 10, 15)).await;
    store.commit(request(batch(1, 2), rows([("a", 1, 100)]))).await.unwrap();
    done(&store, undo(correction)).await;
    let line = &store.changes(vec![], None, 1).await.unwrap()[0];
    let after = [in_hour(1, 110), undid(correction, "correct")];
    assert_eq!(told(line), (&[in_hour(1, 115), reason()][..], &after[..]));
}
