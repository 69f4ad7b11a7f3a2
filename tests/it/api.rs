//! The contract's routes table and its rules of input, line by line, on both stores.

use crate::harness::app::items;
use crate::harness::{Backend, TestApp, eventually, on_both_stores};

on_both_stores!(
    one_post_counts_one,
    a_number_counts_so_many_and_tells_new_events_from_known_ones,
    an_event_known_before_a_restart_is_known_after_it,
    names_are_kept_byte_for_byte,
    names_that_can_not_be_counted_are_refused_and_leave_nothing_behind,
    num_is_ascii_digits_from_one_to_a_billion,
    routing_words_are_names_too,
    a_trailing_slash_is_accepted_everywhere,
    every_ack_level_is_accepted_and_others_are_refused,
    unknown_paths_are_404_and_wrong_methods_405_with_allow,
    head_works_wherever_get_does,
    the_status_routes_answer,
    counters_that_would_overflow_are_refused_and_labelled,
);

const CREATED: &str = r#"{"status":true,"response":201}"#;
const KNOWN: &str = r#"{"status":true,"response":204}"#;

async fn one_post_counts_one(backend: Backend) {
    let app = TestApp::start(backend).await;
    app.post("/api/events/login").await.is(201, CREATED);
    app.post("/api/events/login").await.is(201, CREATED);
    assert_eq!(app.total("login").await, 2);
}

async fn a_number_counts_so_many_and_tells_new_events_from_known_ones(backend: Backend) {
    let app = TestApp::start(backend).await;
    app.post("/api/events/login/5").await.is(201, CREATED);
    app.post("/api/events/login/7").await.is(200, KNOWN);
    app.post("/api/events/single").await.is(201, CREATED);
    app.post("/api/events/single/3").await.is(200, KNOWN);
    assert_eq!(app.totals().await, [("login".into(), 12), ("single".into(), 4)].into());
}

async fn an_event_known_before_a_restart_is_known_after_it(backend: Backend) {
    let mut app = TestApp::with(backend).stored(&[("2020091112", "old", 3)]).start().await;
    app.post("/api/events/old/1").await.is(200, KNOWN);
    app.post("/api/events/new/1").await.is(201, CREATED);
    app.kill().await;
    app.restart().await;
    app.post("/api/events/new/1").await.is(200, KNOWN);
    app.stop().await;
    app.restart().await;
    app.post("/api/events/new/1").await.is(200, KNOWN);
}

/// Percent-encodes every byte.
fn encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn names_are_kept_byte_for_byte(backend: Backend) {
    let app = TestApp::start(backend).await;
    let longest = "n".repeat(255);
    let longest_in_two_bytes = "é".repeat(127);
    let names = [
        "login",
        "Login",
        "resource/209",
        "a/b/c",
        "/",
        "two words",
        " led and trailed ",
        "50%",
        "a%2Fb",
        "a+b",
        "a?b#c",
        "Größe",
        "Gro\u{308}ße",
        "日本語",
        "📏🎉",
        "\u{202e}rtl",
        "\u{feff}bom",
        "a\u{a0}b",
        "...",
        ".a",
        "'; drop table x --",
        "<script>alert(1)</script>",
        "\"quoted\"",
        "back\\slash",
        "{event}",
        "null",
        "%",
        &longest,
        &longest_in_two_bytes,
    ];
    for (count, name) in (1..).zip(names) {
        let answer = app.raw("POST", format!("/api/events/{}/{count}", encoded(name))).await;
        answer.is(201, CREATED);
    }
    let expected = (1..).zip(names).map(|(count, name)| (name.to_owned(), count)).collect();
    assert_eq!(app.totals().await, expected, "before the flush");
    app.post("/api/events/login?ack=store").await.is(201, CREATED);
    let mut expected = expected;
    *expected.get_mut("login").unwrap() += 1;
    assert_eq!(app.totals().await, expected, "from the store");

    // Ordered bytewise, as the names' bytes are.
    let listed: Vec<String> = items(&app.get("/api/events/unique").await)
        .iter()
        .map(|item| item["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, expected.into_keys().collect::<Vec<_>>());

    // Decoded once, whichever bytes are encoded.
    for same in ["%61", "a", "%61/1", "a/1"] {
        app.raw("POST", format!("/api/events/{same}")).await;
    }
    assert_eq!(app.total("a").await, 4);
    app.raw("POST", "/api/events/%2561").await.is(201, CREATED);
    assert_eq!((app.total("%61").await, app.total("a").await), (1, 4));
    // What browsers would encode may also come as it is.
    app.raw("POST", "/api/events/Größe").await.is(201, CREATED);
    assert_eq!(app.total("Größe").await, 13);
}

async fn names_that_can_not_be_counted_are_refused_and_leave_nothing_behind(backend: Backend) {
    let app = TestApp::start(backend).await;
    let too_long = "n".repeat(256);
    let too_long_in_two_bytes = encoded(&"é".repeat(128));
    for name in [
        ".",
        "..",
        "%2e",
        "%2E%2e",
        "",
        "%00",
        "a%00b",
        "%0A",
        "a%09b",
        "%1f",
        "%7F",
        "%C2%80",
        "%C2%9f",
        "%ff",
        "a%C3",
        "%ED%A0%80",
        "%C0%AF",
        "%F4%90%80%80",
        &too_long,
        &too_long_in_two_bytes,
    ] {
        let (internal, _) = app.raw("POST", format!("/api/events/{name}/")).await.fails(403);
        assert!(internal.starts_with("bad_name: ") && internal.contains("counted: no"), "{name}: {internal}");
        let (internal, _) = app.raw("POST", format!("/api/events/{name}/5")).await.fails(404);
        assert!(internal.starts_with("bad_name: ") && internal.contains("counted: no"), "{name}: {internal}");
    }
    app.get("/api/events/unique").await.is(200, r#"{"status":true,"response":[]}"#);
}

async fn num_is_ascii_digits_from_one_to_a_billion(backend: Backend) {
    let app = TestApp::start(backend).await;
    let arabic = encoded("٣");
    let huge = format!("1{}", "0".repeat(400));
    for num in [
        "0",
        "00",
        "-1",
        "+1",
        "%2B1",
        "1.0",
        "1e3",
        "0x10",
        &arabic,
        "1000000001",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551617",
        &huge,
        "%201",
        "1%20",
        "1_000",
        "one",
        "%00",
        "1%00",
        "1%FF",
    ] {
        let (internal, _) = app.raw("POST", format!("/api/events/login/{num}")).await.fails(404);
        assert!(internal.starts_with("bad_num: ") && internal.contains("counted: no"), "{num}: {internal}");
    }
    app.get("/api/events/unique").await.is(200, r#"{"status":true,"response":[]}"#);
    let mut total = 0;
    for (num, count) in [("1", 1), ("01", 1), ("0000000000000000000012", 12), ("1000000000", 1_000_000_000)] {
        assert!(app.post(&format!("/api/events/login/{num}")).await.status < 300, "{num}");
        total += count;
        assert_eq!(app.total("login").await, total, "{num}");
    }
}

async fn routing_words_are_names_too(backend: Backend) {
    let app = TestApp::start(backend).await;
    for name in ["unique", "histogram", "api", "events", "livez", "readyz", "admin"] {
        app.post(&format!("/api/events/{name}")).await.is(201, CREATED);
        app.post(&format!("/api/events/{name}/2")).await.is(200, KNOWN);
        assert_eq!(app.total(name).await, 3);
    }
    // Two segments after the prefix are an event and a number, whatever the words are.
    app.post("/api/events/resource/209").await.is(201, CREATED);
    assert_eq!((app.total("resource").await, app.total("resource/209").await), (209, 0));
    app.post("/api/events/histogram/20200911").await.is(200, KNOWN);
    assert_eq!(app.total("histogram").await, 3 + 20_200_911);
    app.post("/api/events/20200911").await.is(201, CREATED);
    assert_eq!(app.get("/api/events/histogram/histogram/20200911?format=json").await.status, 200);
}

async fn a_trailing_slash_is_accepted_everywhere(backend: Backend) {
    let app = TestApp::start(backend).await;
    app.post("/api/events/login/").await.is(201, CREATED);
    app.post("/api/events/login/5/").await.is(200, KNOWN);
    assert_eq!(app.total("login").await, 6);
    for target in [
        "/api/events/unique/",
        "/api/events/?start_date=20200101&end_date=20200102",
        "/api/events/histogram/login/20200911/",
        "/livez/",
        "/readyz/",
    ] {
        let (with, without) = (app.get(target).await, app.get(&target.replacen("/?", "?", 1)).await);
        assert_eq!((with.status, &with.body), (200, &without.body), "{target}");
    }
}

async fn every_ack_level_is_accepted_and_others_are_refused(backend: Backend) {
    let app = TestApp::with(backend).config("flush.interval_ms", 3_600_000).start().await;
    for ack in ["memory", "journal", "disk", "store"] {
        app.post(&format!("/api/events/one?ack={ack}")).await.is(201, CREATED);
        let many = app.post(&format!("/api/events/many/2?ack={ack}")).await;
        assert!(matches!(many.status, 200 | 201), "{ack}");
    }
    assert_eq!(app.totals().await, [("many".into(), 8), ("one".into(), 4)].into());
    assert_eq!(app.audit().await, 12, "ack=store waits until everything before it is in the store");
    for ack in ["", "Disk", "none", "disk%20", "disk&ack=memory"] {
        for target in ["/api/events/one", "/api/events/one/5"] {
            let (internal, _) = app.post(&format!("{target}?ack={ack}")).await.fails(400);
            assert!(internal.contains("counted: no"), "{ack}: {internal}");
        }
    }
    assert_eq!(app.total("one").await, 4);
}

async fn unknown_paths_are_404_and_wrong_methods_405_with_allow(backend: Backend) {
    let app = TestApp::start(backend).await;
    for (method, target) in [
        ("GET", "/nothing"),
        ("GET", "/api"),
        ("GET", "/api/"),
        ("POST", "/api"),
        ("GET", "/API/events/unique"),
        ("POST", "/api/events/a/1/2"),
        ("GET", "/api/events/histogram/login/20200911/x"),
        ("PUT", "/nothing"),
        ("GET", "/api/events/unique/x/y"),
        ("GET", "/%61pi/events/unique"),
        ("GET", "/livez/x"),
        ("DELETE", "/api/v9"),
    ] {
        let (internal, _) = app.raw(method, target).await.fails(404);
        assert!(internal.starts_with("not_found: "), "{method} {target}: {internal}");
    }
    for (method, target, allow) in [
        ("GET", "/api/events/login", "OPTIONS, POST"),
        ("GET", "/api/events/login/5", "OPTIONS, POST"),
        ("DELETE", "/api/events/login", "OPTIONS, POST"),
        ("PUT", "/api/events/unique", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/api/events/histogram/login/20200911", "GET, HEAD, OPTIONS"),
        ("PATCH", "/livez", "GET, HEAD, OPTIONS"),
        ("POST", "/readyz", "GET, HEAD, OPTIONS"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
    ] {
        let answer = app.raw(method, target).await;
        answer.fails(405);
        assert_eq!(answer.header("allow"), allow, "{method} {target}");
    }
    assert_eq!(app.totals().await.len(), 0);
}

async fn head_works_wherever_get_does(backend: Backend) {
    let app = TestApp::with(backend).stored(&[("2020091112", "login", 12)]).start().await;
    for target in [
        "/",
        "/livez",
        "/readyz",
        "/api/events/unique",
        "/api/events?start_date=20200911&end_date=20200911",
        "/api/events?start_date=x&end_date=20200911",
        "/api/events/histogram/login/20200911",
        "/api/events/histogram/login/20200911?format=svg",
        "/api/events/histogram/nobody/20200911",
        "/nothing",
    ] {
        let (get, head) = (app.raw("GET", target).await, app.raw("HEAD", target).await);
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{target}");
        for name in ["content-type", "content-length", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {target}");
        }
    }
}

async fn the_status_routes_answer(backend: Backend) {
    let app = TestApp::start(backend).await;
    assert_eq!(app.get("/livez").await.json()["status"], true);
    let ready = app.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["response"]["journal"]), (200, &"writable".into()));
    eventually("the store to be reported", async || {
        app.get("/readyz").await.json()["response"]["store"] == "reachable"
    })
    .await;
    let home = app.get("/").await;
    assert_eq!(home.status, 200);
    assert!(home.header("content-type").starts_with("text/html") && home.text().contains("event-tracker"));
    assert!(app.start_line().contains("127.0.0.1:") && app.start_line().contains("journal"), "{}", app.start_line());
}

async fn counters_that_would_overflow_are_refused_and_labelled(backend: Backend) {
    let nearly = event_tracker::domain::TOTAL_MAX - 10;
    let app = TestApp::with(backend).stored(&[("2020091112", "full", nearly)]).start().await;
    // Known as soon as the store has been read once.
    app.post("/api/events/other?ack=store").await.is(201, CREATED);
    app.post("/api/events/full/10").await.is(200, KNOWN);
    for target in ["/api/events/full", "/api/events/full/1000000000"] {
        let answer = app.post(target).await;
        assert!(answer.status == 409 || answer.status == 403, "{answer:?}");
        let (internal, _) = answer.fails(answer.status);
        assert!(internal.starts_with("total_overflow: ") && internal.contains("counted: no"), "{internal}");
    }
    assert_eq!(app.total("full").await, nearly + 10);
}
