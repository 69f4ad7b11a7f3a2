//! What dashboards poll: entity tags that change exactly when counts do, and long answers in pieces.

use crate::harness::app::{items, rows};
use crate::harness::{Answer, Backend, TestApp, eventually, on_both_stores};

on_both_stores!(
    the_tag_changes_exactly_when_counts_change,
    what_the_client_knows_is_304_and_all_else_is_whole,
    a_long_range_comes_in_pieces_and_equals_the_sum,
);

const TOTALS: &str = "/api/events/unique";
const RANGE: &str = "/api/events?start_date=20200101&end_date=99991231";

/// Both answers and their tags.
async fn look(app: &TestApp) -> (String, Vec<Answer>) {
    let answers = vec![app.get(TOTALS).await, app.get(RANGE).await];
    for answer in &answers {
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-cache"));
        let tag = answer.header("etag");
        assert!(tag.len() > 4 && tag.starts_with("W/\"") && tag.ends_with('"'), "a weak tag: {tag}");
    }
    assert_eq!(answers[0].header("etag"), answers[1].header("etag"), "one version of all counts");
    (answers[0].header("etag").to_owned(), answers)
}

async fn the_tag_changes_exactly_when_counts_change(backend: Backend) {
    let app = TestApp::with(backend).config("flush.interval_ms", 1_000).start().await;
    let (empty, _) = look(&app).await;
    app.count("login", 3).await;
    let (counted, before) = look(&app).await;
    assert_ne!(counted, empty);

    // Nothing of this changes a count: reads, refusals, batches without a counted item.
    app.post("/api/events/%00").await.fails(403);
    app.send("POST", "/api/events", &[], "[]").await;
    app.send("POST", "/api/events", &[], "[5]").await;
    app.get("/api/events/histogram/login/20200911?format=svg").await;
    let (unchanged, after) = look(&app).await;
    assert_eq!(unchanged, counted);
    for (before, after) in before.iter().zip(after) {
        assert_eq!(before.text(), after.text());
    }

    app.send("POST", "/api/events", &[], "[\"login\",\"login\"]").await;
    let (batched, answers) = look(&app).await;
    assert_ne!(batched, counted);
    assert_eq!(items(&answers[0])[0]["count"], 5);

    // A flush moves counts from memory to the store and changes none. Right after one, the next is far.
    eventually("a flush", async || app.audit().await == 5).await;
    app.count("login", 1).await;
    let (recorded, answers) = look(&app).await;
    assert_ne!(recorded, batched);
    assert_eq!(items(&answers[0])[0]["count"], 6);
    eventually("the next flush", async || app.audit().await == 6).await;
    assert_eq!(look(&app).await.0, recorded);

    if backend == Backend::Postgres {
        let mut other = app.another_node().await;
        other.restart().await;
        other.post("/api/events/login/10?ack=store").await;
        // Not both answers: they may show between the two.
        eventually("the other node's counts to show", async || app.get(TOTALS).await.header("etag") != recorded).await;
        assert_eq!(app.total("login").await, 16);
    }
}

async fn what_the_client_knows_is_304_and_all_else_is_whole(backend: Backend) {
    let app = TestApp::with(backend).stored(&[("2020091112", "login", 12)]).start().await;
    for target in [TOTALS, RANGE] {
        let whole = app.get(target).await;
        let tag = whole.header("etag").to_owned();
        let strong = tag.strip_prefix("W/").unwrap().to_owned();
        for known in [tag.clone(), strong.clone(), format!("\"x\", {tag}"), "*".to_owned()] {
            let answer = app.get_with(target, &[("if-none-match", &known)]).await;
            assert_eq!((answer.status, answer.body.len(), answer.header("etag")), (304, 0, tag.as_str()), "{known}");
            assert_eq!(answer.header("cache-control"), "no-cache");
        }
        for other in ["\"x\"", "x", &strong[1..strong.len() - 1], ""] {
            let answer = app.get_with(target, &[("if-none-match", other)]).await;
            assert_eq!((answer.status, answer.text()), (200, whole.text()), "{other}");
        }
        let head = app.send("HEAD", target, &[("if-none-match", &tag)], "").await;
        assert_eq!(head.status, 304);
        app.count("login", 1).await;
        let changed = app.get_with(target, &[("if-none-match", &tag)]).await;
        assert_eq!(changed.status, 200);
        assert_ne!(changed.text(), whole.text());
    }
    // A tag does not make a wrong question right.
    app.get_with("/api/events?start_date=20200101", &[("if-none-match", "*")]).await.fails(400);
}

async fn a_long_range_comes_in_pieces_and_equals_the_sum(backend: Backend) {
    let names: Vec<String> = (0..1_000).map(|number| format!("event-number-{number:04}")).collect();
    let hours: Vec<String> = (0..48).map(|hour| format!("202009{}{:02}", 11 + hour / 24, hour % 24)).collect();
    let mut stored = Vec::new();
    for (number, name) in (1..).zip(&names) {
        stored.extend(hours.iter().map(|hour| (hour.as_str(), name.as_str(), number)));
    }
    let app = TestApp::with(backend).stored(&stored).start().await;
    let target = "/api/events?start_date=20200911&end_date=20200912";
    for _ in 0..2 {
        let answer = app.get(target).await;
        assert!(answer.body.len() > 2 << 20, "{}", answer.body.len());
        assert_eq!((answer.header("transfer-encoding"), answer.header("content-length")), ("chunked", ""));
        let rows = rows(&answer);
        assert!(rows.len() == 48_000 && rows.is_sorted_by_key(|(date, name, _)| (name.clone(), date.clone())));
        assert_eq!(rows.iter().map(|(_, _, count)| count).sum::<u64>(), 48 * 1_000 * 1_001 / 2);
        let again = app.get_with(target, &[("if-none-match", answer.header("etag"))]).await;
        assert_eq!(again.status, 304);
    }
    let short = app.get("/api/events?start_date=2020091100&end_date=2020091100").await;
    assert_eq!(short.header("content-length"), short.body.len().to_string());
}
