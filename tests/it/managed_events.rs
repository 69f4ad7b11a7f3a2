//! What clients see of events that administrators renamed, switched off or deleted.

use chrono::{TimeDelta, Utc};
use event_tracker::domain::EventName;
use event_tracker::store::admin::{Change, Changed};

use crate::harness::{Backend, TestApp, eventually, on_both_stores};

on_both_stores!(
    posts_of_an_event_switched_off_say_that_they_are_not_counted,
    a_deleted_event_is_neither_counted_nor_shown,
    a_purged_event_is_refused_until_its_counts_in_flight_are_gone_and_then_counts_from_zero,
    counts_in_flight_under_an_old_name_survive_a_kill_and_land_right,
);

fn name(text: &str) -> EventName {
    EventName::parse(text).unwrap()
}

/// As another node does it.
async fn change(app: &TestApp, change: Change) {
    let store = app.store().await;
    let changed = store.change(change, "ada", Utc::now()).await.unwrap();
    assert!(matches!(changed, Changed::Done { .. }), "{changed:?}");
    store.close().await;
}

async fn refused(app: &TestApp, event: &str, code: &str) {
    let target = format!("/api/events/{event}");
    eventually("the node knows of the change", || async { app.post(&target).await.status == 403 }).await;
    for target in [target.clone(), format!("{target}/5")] {
        let (internal, external) = app.post(&target).await.fails(403);
        assert!(internal.starts_with(code) && internal.ends_with("counted: no"), "{internal}");
        assert!(external.contains("not counted"), "{external}");
    }
}

async fn posts_of_an_event_switched_off_say_that_they_are_not_counted(backend: Backend) {
    let app = TestApp::with(backend).config("flush.interval_ms", 20).start().await;
    app.post("/api/events/login/5?ack=store").await;
    change(&app, Change::SetActive { event: name("login"), active: false }).await;
    refused(&app, "login", "event_inactive: ").await;
    let total = app.total("login").await;
    app.post("/api/events/login").await.fails(403);
    assert_eq!(app.total("login").await, total);
    change(&app, Change::SetActive { event: name("login"), active: true }).await;
    eventually("it counts again", || async { app.post("/api/events/login").await.status == 201 }).await;
    assert_eq!(app.total("login").await, total + 1);
}

async fn a_deleted_event_is_neither_counted_nor_shown(backend: Backend) {
    let app = TestApp::with(backend).config("flush.interval_ms", 20).start().await;
    app.post("/api/events/login/5?ack=store").await;
    app.post("/api/events/other?ack=store").await;
    change(&app, Change::Delete { event: name("login") }).await;
    refused(&app, "login", "event_deleted: ").await;
    assert_eq!(app.totals().await.into_keys().collect::<Vec<_>>(), ["other"]);
    let (internal, _) = app.get("/api/events/histogram/login/20200101").await.fails(404);
    assert!(internal.starts_with("unknown_event: "), "{internal}");
}

async fn counts_in_flight_under_an_old_name_survive_a_kill_and_land_right(backend: Backend) {
    let mut app = TestApp::with(backend).config("flush.interval_ms", 3_600_000).start().await;
    app.post("/api/events/login/5?ack=store").await;
    app.count("login", 10).await;
    change(&app, Change::Move { from: name("login"), into: name("sign-in") }).await;
    app.count("login", 100).await;
    app.kill().await;
    app.restart().await;
    app.count("login", 1_000).await;
    assert_eq!(app.totals().await, [("sign-in".into(), 1_115)].into());
    app.stop().await;
    assert_eq!(app.audit().await, 1_115);
}

async fn a_purged_event_is_refused_until_its_counts_in_flight_are_gone_and_then_counts_from_zero(backend: Backend) {
    let app = TestApp::with(backend).config("flush.interval_ms", 20).start().await;
    app.post("/api/events/login/5?ack=store").await;
    app.post("/api/events/other?ack=store").await;
    change(&app, Change::Delete { event: name("login") }).await;
    refused(&app, "login", "event_deleted: ").await;
    change(&app, Change::Purge { event: name("login"), grace: TimeDelta::zero() }).await;
    eventually("it counts again", || async {
        let answer = app.post("/api/events/login").await;
        assert!(answer.status == 201 || answer.fails(403).0.starts_with("event_deleted: "));
        answer.status == 201
    })
    .await;
    app.post("/api/events/login/2?ack=store").await;
    assert_eq!(app.totals().await, [("login".into(), 3), ("other".into(), 1)].into());
}
