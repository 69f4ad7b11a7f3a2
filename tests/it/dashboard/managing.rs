//! What superusers change by the pages, while clients post.

use std::sync::Arc;

use super::hours_ago;
use crate::harness::{Backend, Superuser, Tally, TestApp, Traffic, eventually, in_browser, on_both_stores};

on_both_stores!(events_are_renamed_and_merged_while_clients_post_and_every_total_stays_exact);

async fn events_are_renamed_and_merged_while_clients_post_and_every_total_stays_exact(backend: Backend) {
    let mut app = TestApp::with(backend).config("flush.interval_ms", 50).start().await;
    let admin = Superuser::of(&app).await;
    let tally = Arc::new(Tally::default());
    let traffic = Traffic::start(&app, &tally, 3, "");
    traffic.answered(20).await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open("/admin/events/shared").await;
        browser.fill("#move [name=into]", "together").await;
        browser.submit("#move button").await;
        browser.shows("h1", "together").await;
        browser.shows("main", "Also counts shared").await;
        for client in ["client-0", "client-1"] {
            browser.open(&format!("/admin/events/{client}")).await;
            browser.fill("#move [name=into]", "together").await;
            browser.submit("#move button").await;
            browser.shows("h1", "together").await;
        }
        traffic.answered(60).await;
    })
    .await;
    traffic.stop().await;
    let sent = tally.acknowledged();
    let together = sent["shared"] + sent["client-0"] + sent["client-1"];
    assert_eq!(app.totals().await, [("client-2".into(), sent["client-2"]), ("together".into(), together)].into());
    app.stop().await;
    assert_eq!(app.audit().await, together + sent["client-2"]);
}

#[tokio::test]
async fn an_event_is_switched_off_deleted_and_restored() {
    let app = TestApp::start(Backend::Sqlite).await;
    let admin = Superuser::of(&app).await;
    app.count("login", 5).await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open("/admin/events/login").await;
        browser.submit("#deactivate button").await;
        browser.shows("h1", "inactive").await;
        // Done, and offered to be undone, once: not after a reload, and not after going there and back.
        browser.see("#undo").await;
        assert_eq!(browser.path().await, "/admin/events/login");
        let stays = browser.run("return document.querySelector('[name=back]').value", vec![]).await;
        assert_eq!(stays, "/admin/events/login");
        let (internal, external) = app.post("/api/events/login").await.fails(403);
        assert!(internal.ends_with("counted: no") && external.contains("not counted"), "{internal} {external}");
        browser.submit("#activate button").await;
        browser.see("#deactivate").await;
        app.count("login", 10).await;

        browser.click("#delete [type=checkbox]").await;
        browser.submit("#delete button").await;
        browser.shows("#notice", "Done.").await;
        app.post("/api/events/login").await.fails(403);
        assert!(app.totals().await.is_empty());
        browser.submit("#undo").await;
        browser.shows("#notice", "Undone.").await;
        browser.shows("#events", "login").await;
        assert_eq!(app.total("login").await, 15);
        app.count("login", 100).await;
        assert_eq!(app.total("login").await, 115);
    })
    .await;
}

#[tokio::test]
async fn a_past_hour_is_corrected_with_a_reason_and_everything_is_in_the_log() {
    let hour = hours_ago(24);
    let mut app = TestApp::with(Backend::Postgres).stored(&[(&hour, "login", 1_200)]).start().await;
    let admin = Superuser::of(&app).await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open("/admin/events/login").await;
        browser.submit("#day [rel=prev]").await;
        let chosen = format!("#correct option[value$='={}']", 1_200);
        browser.see("#correct").await;
        let value = browser.run("return document.querySelector(arguments[0]).value", vec![chosen.into()]).await;
        browser.pick("#correct [name=hour]", value.as_str().unwrap()).await;
        browser.fill("#correct [name=count]", "1,000").await;
        browser.fill("#correct [name=reason]", "counted by a broken client").await;
        browser.submit("#correct button").await;
        browser.shows("[data-live-value=event-total]", "1,000").await;
        assert_eq!(app.total("login").await, 1_000);

        browser.open("/admin/changes").await;
        let line = browser.text(".log tbody tr").await;
        for part in ["ada", "correct", "login", "1200", "1000", "counted by a broken client"] {
            assert!(line.replace(',', "").contains(part), "{part}: {line}");
        }
        browser.submit(".log tbody tr:first-child button").await;
        browser.shows("#notice", "Undone.").await;
        eventually("the change to be marked", async || browser.count(".log tr.undone").await == 1).await;
        assert_eq!(app.total("login").await, 1_200);
    })
    .await;
    app.stop().await;
    assert_eq!(app.audit().await, 1_200);
}
