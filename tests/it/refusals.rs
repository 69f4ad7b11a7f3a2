//! A refusal says in a field of its own whether anything was counted, and bounds have stable codes.

use crate::harness::{Backend, TestApp};

#[tokio::test]
async fn whether_a_refused_post_is_counted_is_a_field_that_nothing_sent_can_imitate() {
    let app = TestApp::start(Backend::Sqlite).await;
    for target in [
        "/api/events/login?counted%3A%20yes=1&counted%3A%20yes=2",
        "/api/events/login?counted%3A%20unknown=1&counted%3A%20unknown=2",
        "/api/events/login/0",
        "/api/events/%00",
        "/api/events/a/b/c",
        "/api/events/login?ack=counted%3A%20unknown",
        "/readyz",
        "/nowhere",
    ] {
        let answer = app.post(target).await;
        let status = answer.status;
        let (internal, _) = answer.fails(status);
        assert_eq!(answer.counted().as_deref(), Some("no"), "{target}");
        assert!(internal.ends_with("; counted: no"), "{target}: {internal}");
    }
    for target in ["/api/events", "/nowhere"] {
        assert_eq!(app.get(target).await.counted(), None, "{target}: a read counts nothing");
    }
    assert!(app.totals().await.is_empty());
}

#[tokio::test]
async fn what_may_have_been_counted_is_told_as_unknown() {
    let setup = TestApp::with(Backend::Sqlite).config("flush.interval_ms", 3_600_000);
    let mut app = setup.config("http.store_ack_timeout_ms", 50).start().await;
    app.count("login", 1).await;
    app.stop().await;
    app.restart().await;
    // No commit comes while somebody else writes.
    let database = rusqlite::Connection::open(app.data_dir().join("events.sqlite")).unwrap();
    database.execute_batch("begin immediate").unwrap();
    let answer = app.post("/api/events/login?ack=store").await;
    let (internal, _) = answer.fails(503);
    assert!(internal.starts_with("store_ack_timeout: ") && internal.ends_with("; counted: unknown"), "{internal}");
    assert_eq!(answer.counted().as_deref(), Some("unknown"));
}

#[tokio::test]
async fn a_query_or_a_form_of_more_than_thirty_two_parameters_is_refused_everywhere() {
    let app = TestApp::start(Backend::Sqlite).await;
    let parameters = |number: usize| (0..number).map(|n| format!("&p{n}=x")).collect::<String>();
    let dates = "start_date=2020091112&end_date=2020091112";
    assert_eq!(app.get(&format!("/api/events?{dates}{}", parameters(30))).await.status, 200);
    let (internal, _) = app.get(&format!("/api/events?{dates}{}", parameters(31))).await.fails(400);
    assert!(internal.starts_with("too_many_parameters: "), "{internal}");
    for (target, body) in [("/api/events/login", ""), ("/api/events/login/5", ""), ("/api/events", "[\"login\"]")] {
        let answer = app.send("POST", &format!("{target}?ack=memory{}", parameters(1_200)), &[], body).await;
        let (internal, _) = answer.fails(400);
        assert!(internal.starts_with("too_many_parameters: "), "{target}: {internal}");
    }
    let (internal, _) = app.get(&format!("/api/v1/admin/events?q=x{}", parameters(32))).await.fails(400);
    assert!(internal.starts_with("too_many_parameters: "), "{internal}");
    assert_eq!(app.get(&format!("/admin/login?next=x{}", parameters(32))).await.status, 400);
    let form = format!("user=ann{}", parameters(5_000));
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];
    assert_eq!(app.send("POST", "/admin/login", &headers, form).await.status, 400);
    assert!(app.totals().await.is_empty());
}
