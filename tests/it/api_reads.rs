//! What the reading routes of the contract answer: ranges, totals and pictures, on both stores.

use crate::harness::app::{items, rows};
use crate::harness::{Answer, Backend, TestApp, on_both_stores};

on_both_stores!(
    the_contracts_examples_are_answered_byte_for_byte,
    ranges_include_both_ends_and_take_8_or_10_digits,
    rows_are_ordered_by_event_bytes_then_date,
    stored_and_pending_counts_are_one_sum,
    missing_malformed_impossible_and_reversed_dates_are_400,
    a_range_beyond_the_limit_is_400_and_names_it,
    a_histogram_comes_in_every_form,
    a_histogram_has_the_size_asked_for_within_limits,
    unknown_events_are_404_and_known_ones_without_counts_have_zero_bars,
    an_unchanged_picture_is_304_and_a_changed_one_is_not,
);

/// An empty read is a list without elements.
const NOTHING: &str = r#"{"status":true,"response":[]}"#;

async fn the_contracts_examples_are_answered_byte_for_byte(backend: Backend) {
    let stored = [("2020091112", "login", 12), ("2020091113", "login", 2000), ("2020091000", "login", 5500)];
    let app = TestApp::with(backend).stored(&stored).start().await;
    app.get("/api/events?start_date=2020091112&end_date=20200911").await.is(
        200,
        r#"{"status":true,"response":[[{"date":"2020091112","event":"login","count":12}],[{"date":"2020091113","event":"login","count":2000}]]}"#,
    );
    app.post("/api/events/resource%2F209/237").await.is(201, r#"{"status":true,"response":201}"#);
    app.get("/api/events/unique").await.is(
        200,
        r#"{"status":true,"response":[[{"event":"login","count":7512}],[{"event":"resource/209","count":237}]]}"#,
    );
    app.get("/api/events?start_date=20190101&end_date=20190102").await.is(200, NOTHING);
}

async fn ranges_include_both_ends_and_take_8_or_10_digits(backend: Backend) {
    let dates = ["2020022823", "2020022900", "2020022912", "2020022923", "2020030100"];
    let stored: Vec<_> = dates.iter().map(|date| (*date, "login", 1)).collect();
    let app = TestApp::with(backend).stored(&stored).start().await;
    for (start, end, expected) in [
        ("20200229", "20200229", &dates[1..4]),
        ("2020022900", "2020022923", &dates[1..4]),
        ("2020022901", "20200229", &dates[2..4]),
        ("20200229", "2020022900", &dates[1..2]),
        ("2020022912", "2020022912", &dates[2..3]),
        ("20200228", "20200301", &dates[..]),
        ("2020022823", "2020030100", &dates[..]),
        ("20200302", "20200401", &[]),
        ("19700101", "99991231", &dates[..]),
    ] {
        let found: Vec<_> = app.range(start, end).await.into_iter().map(|(date, ..)| date).collect();
        assert_eq!(found, expected, "{start} to {end}");
    }
}

async fn rows_are_ordered_by_event_bytes_then_date(backend: Backend) {
    let names = ["B", "Z", "a", "a b", "a/b", "ab", "b", "z", "Ä", "é", "日", "\u{fffd}", "📏"];
    let dates = ["2020091112", "2020091200", "2021010100"];
    let mut stored = Vec::new();
    for name in names {
        stored.extend(dates.iter().map(|date| (*date, name, 7)));
    }
    let app = TestApp::with(backend).stored(&stored).start().await;
    let expected: Vec<_> = stored.iter().map(|(date, name, _)| ((*date).to_owned(), (*name).to_owned(), 7)).collect();
    assert_eq!(app.range("20200911", "20210101").await, expected);
    let totals = items(&app.get("/api/events/unique").await);
    assert_eq!(totals.iter().map(|item| item["event"].as_str().unwrap()).collect::<Vec<_>>(), names);

    // Names that are pending only are sorted in among the stored ones.
    app.count("aa", 1).await;
    app.count("0", 1).await;
    let listed: Vec<_> =
        app.range("20200911", "99991231").await.into_iter().map(|(date, name, _)| (name, date)).collect();
    assert_eq!(listed.len(), stored.len() + 2);
    assert!(listed.is_sorted(), "{listed:?}");
}

async fn stored_and_pending_counts_are_one_sum(backend: Backend) {
    let app = TestApp::with(backend).config("flush.interval_ms", 3_600_000).start().await;
    app.count("login", 40).await;
    app.post("/api/events/login/2?ack=store").await;
    app.count("login", 100).await;
    assert_eq!(app.audit().await, 42, "the rest is pending");
    assert_eq!(app.total("login").await, 142);
    // The hour may change in between, so that there may be two rows, but not three.
    let rows = app.range("20200101", "99991231").await;
    assert!(rows.len() <= 2, "{rows:?}");
    assert_eq!(rows.iter().map(|(_, _, count)| count).sum::<u64>(), 142);
}

async fn missing_malformed_impossible_and_reversed_dates_are_400(backend: Backend) {
    let app = TestApp::start(backend).await;
    for query in [
        "",
        "?",
        "?start_date=20200911",
        "?end_date=20200911",
        "?start_date=&end_date=",
        "?start_date=20200911&end_date=",
        "?start_date=2020091&end_date=20200911",
        "?start_date=202009111&end_date=20200911",
        "?start_date=20200911120&end_date=20200911",
        "?start_date=2020-09-11&end_date=20200912",
        "?start_date=20230230&end_date=20230301",
        "?start_date=20200911&end_date=20210229",
        "?start_date=20201301&end_date=20210101",
        "?start_date=20200011&end_date=20210101",
        "?start_date=20200900&end_date=20210101",
        "?start_date=2020091124&end_date=20210101",
        "?start_date=20200911&end_date=2020091199",
        "?start_date=%2B2020091&end_date=20210101",
        "?start_date=%D9%A2%D9%A0%D9%A2%D9%A0%D9%A0%D9%A9%D9%A1%D9%A1&end_date=20210101",
        "?start_date=20200912&end_date=20200911",
        "?start_date=2020091113&end_date=2020091112",
        "?start_date=20200911&start_date=20200912&end_date=20200913",
        "?START_DATE=20200911&end_date=20200912",
        "?start_date=10000101&end_date=20200911",
        "?start_date=20200911&end_date=100000101",
    ] {
        let (internal, external) = app.get(&format!("/api/events{query}")).await.fails(400);
        let says_what_is_expected = external.contains("YYYYMMDD") || external.contains("once");
        assert!(says_what_is_expected && !internal.contains("counted"), "{query}: {internal} {external}");
    }
    app.count("login", 1).await;
    for day in ["2020091", "2020091112", "20230230", "20201301", "today", "%20200911", "-2020091"] {
        let (_, external) = app.get(&format!("/api/events/histogram/login/{day}")).await.fails(400);
        assert!(external.contains("YYYYMMDD"), "{day}: {external}");
    }
}

async fn a_range_beyond_the_limit_is_400_and_names_it(backend: Backend) {
    let dates: Vec<String> = (0..24).map(|hour| format!("20200911{hour:02}")).collect();
    let stored: Vec<_> = dates.iter().map(|date| (date.as_str(), "login", 1)).collect();
    let app = TestApp::with(backend).config("http.range_rows_max", 24).stored(&stored).start().await;
    assert_eq!(app.range("20200911", "20200911").await.len(), 24);
    app.count("login", 1).await;
    let (internal, external) = app.get("/api/events?start_date=20200911&end_date=99991231").await.fails(400);
    assert!(internal.contains("24 rows") && external.contains("24 rows"), "{internal} {external}");
}

/// The form that the first bytes of a picture tell, and its width and height where they tell that.
fn picture(answer: &Answer) -> (&'static str, Option<(u32, u32)>) {
    let body = &answer.body;
    if body.starts_with(b"\x89PNG\r\n\x1a\n") {
        let side = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        return ("image/png", Some((side(16), side(20))));
    }
    if body.starts_with(b"\xff\xd8\xff") {
        return ("image/jpeg", None);
    }
    if body.starts_with(b"<svg") || body.starts_with(b"<?xml") {
        return ("image/svg+xml", None);
    }
    assert_eq!(answer.json()["status"], true);
    ("application/json", None)
}

async fn a_histogram_comes_in_every_form(backend: Backend) {
    let app = TestApp::with(backend).stored(&[("2020091112", "resource/209", 12)]).start().await;
    let target = "/api/events/histogram/resource%2F209/20200911";
    for (query, accept, expected) in [
        ("", "", "image/png"),
        ("", "*/*", "image/png"),
        ("", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "image/png"),
        ("", "image/jpeg", "image/jpeg"),
        ("", "image/svg+xml", "image/svg+xml"),
        ("", "application/json", "application/json"),
        ("", "image/png;q=0.1, image/svg+xml;q=0.2", "image/svg+xml"),
        ("?format=png", "application/json", "image/png"),
        ("?format=jpg", "", "image/jpeg"),
        ("?format=svg", "", "image/svg+xml"),
        ("?format=json", "image/png", "application/json"),
    ] {
        let answer = app.get_with(&format!("{target}{query}"), &[("accept", accept)]).await;
        assert_eq!(answer.status, 200, "{query} {accept}");
        assert_eq!((picture(&answer).0, answer.header("content-type")), (expected, expected), "{query} {accept}");
        assert!(answer.header("vary").to_lowercase().contains("accept"), "{query} {accept}");
    }
    app.get(&format!("{target}?format=gif")).await.fails(400);

    let svg = app.get(&format!("{target}?format=svg")).await;
    assert!(svg.text().contains("resource/209") && svg.text().contains("2020"), "title and day");
    let day = app.get(&format!("{target}?format=json")).await.json()["response"].clone();
    assert_eq!((&day["event"], &day["date"], &day["total"]), (&"resource/209".into(), &"20200911".into(), &12.into()));
    let hours = day["hours"].as_array().unwrap();
    assert_eq!(hours.len(), 24);
    for (number, hour) in hours.iter().enumerate() {
        assert_eq!(hour["date"], format!("20200911{number:02}"));
        assert_eq!(hour["count"], if number == 12 { 12 } else { 0 });
    }
}

async fn a_histogram_has_the_size_asked_for_within_limits(backend: Backend) {
    let app = TestApp::with(backend).stored(&[("2020091112", "login", 12)]).start().await;
    let target = "/api/events/histogram/login/20200911";
    for (width, height) in [(160, 120), (641, 401), (2400, 1600)] {
        let answer = app.get(&format!("{target}?width={width}&height={height}")).await;
        assert_eq!(picture(&answer), ("image/png", Some((width, height))));
    }
    for query in [
        "width=0",
        "height=0",
        "width=159",
        "width=2401",
        "height=1601",
        "width=-1",
        "width=1e3",
        "width=",
        "height=99999999999999999999",
        "width=400&width=500",
    ] {
        app.get(&format!("{target}?{query}")).await.fails(400);
    }
}

async fn unknown_events_are_404_and_known_ones_without_counts_have_zero_bars(backend: Backend) {
    let app = TestApp::with(backend).stored(&[("2020091112", "stored", 12)]).start().await;
    app.count("pending", 3).await;
    for format in ["png", "jpg", "svg", "json"] {
        let (internal, _) = app.get(&format!("/api/events/histogram/nobody/20200911?format={format}")).await.fails(404);
        assert!(internal.starts_with("unknown_event: "), "{internal}");
        for event in ["stored", "pending"] {
            let answer = app.get(&format!("/api/events/histogram/{event}/20190101?format={format}")).await;
            assert_eq!(answer.status, 200, "{event} {format}");
        }
    }
    let day = app.get("/api/events/histogram/stored/20190101?format=json").await.json();
    assert_eq!(day["response"]["total"], 0);
    for name in ["%ff", ".", "%00"] {
        app.raw("GET", format!("/api/events/histogram/{name}/20200911")).await.fails(404);
    }
}

async fn an_unchanged_picture_is_304_and_a_changed_one_is_not(backend: Backend) {
    let app = TestApp::with(backend).stored(&[("2020091112", "login", 12)]).start().await;
    app.count("login", 5).await;
    let today = rows(&app.get("/api/events?start_date=20210101&end_date=99991231").await)[0].0[..8].to_owned();
    for format in ["png", "jpg", "svg", "json"] {
        let target = format!("/api/events/histogram/login/{today}?format={format}");
        let first = app.get(&target).await;
        let tag = first.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 10, "a strong tag: {tag}");
        for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let answer = app.get_with(&target, &[("if-none-match", &known)]).await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{known}");
            assert_eq!(answer.header("etag"), tag);
        }
        let other = app.get_with(&target, &[("if-none-match", "\"x\"")]).await;
        assert_eq!((other.status, other.body), (200, first.body), "the same picture again");
        app.count("login", 1).await;
        let changed = app.get_with(&target, &[("if-none-match", &tag)]).await;
        assert_eq!(changed.status, 200, "{format}");
        assert_ne!(changed.header("etag"), tag);
    }
}
