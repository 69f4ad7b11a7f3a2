//! A dashboard that stays open: its numbers stay right, and it says honestly whether they are live.

use serde_json::json;

use super::hours_ago;
use crate::harness::postgres::Cluster;
use crate::harness::proxy::{Fault, Proxy};
use crate::harness::{Backend, Superuser, TestApp, eventually, in_browser, in_browser_at};

#[tokio::test]
async fn the_page_of_a_quiet_event_is_live_beside_many_lively_ones() {
    let app = TestApp::with(Backend::Sqlite).config("flush.interval_ms", 50).start().await;
    let admin = Superuser::of(&app).await;
    app.count("quiet", 1000).await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open("/admin/events/quiet").await;
        let counted = std::cell::Cell::new(1000);
        eventually("a rate", async || {
            for number in 0..60 {
                app.count(&format!("lively-{number}"), 100).await;
            }
            app.count("quiet", 1).await;
            counted.set(counted.get() + 1);
            browser.text("[data-live-value=event-rate]").await.starts_with(|c: char| c.is_ascii_digit() && c != '0')
        })
        .await;
        let grouped = format!("1,{:03}", counted.get() - 1000);
        browser.shows("[data-live-value=event-total]", &grouped).await;
        browser.shows("[data-live-value=today]", &grouped).await;
    })
    .await;
}

#[tokio::test]
async fn what_an_administrator_brings_back_was_not_counted_today() {
    let hour = hours_ago(24 * 20);
    let app = TestApp::with(Backend::Sqlite).config("flush.interval_ms", 50).stored(&[(&hour, "old", 1_000_000)]);
    let app = app.start().await;
    let admin = Superuser::of(&app).await;
    app.post("/api/events/new/5?ack=store").await;
    let deletion = admin.change(&app, "old", "delete", &json!({})).await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open("/admin").await;
        browser.see("#connection[data-state=live]").await;
        browser.shows("#figure-total .value", "5").await;
        // The page is as it was when the numbers come.
        browser.run("window.seen = []; new MutationObserver(() => window.seen.push(document.querySelector('#figure-today .value').textContent)).observe(document.querySelector('main'), { subtree: true, childList: true, characterData: true })", vec![]).await;
        let undone = admin.post(&app, &format!("changes/{deletion}/undo"), &json!({})).await.unwrap();
        assert_eq!(undone.status, 200, "{}", undone.text());
        browser.shows("#figure-total .value", "1M").await;
        eventually("the page to be drawn anew", async || browser.text("#fresh").await.contains("2 events")).await;
        let today: Vec<String> = serde_json::from_value(browser.run("return window.seen", vec![]).await).unwrap();
        assert!(!today.is_empty() && today.iter().all(|today| today == "5"), "{today:?}");
    })
    .await;
}

#[tokio::test]
async fn a_page_is_drawn_anew_under_the_keyboard_and_with_its_tables_open() {
    let app = TestApp::with(Backend::Sqlite).config("flush.interval_ms", 50).start().await;
    let admin = Superuser::of(&app).await;
    app.post("/api/events/login/5?ack=store").await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        for (path, chart, sum) in [("/admin", "traffic", "#top"), ("/admin/events/login", "day", "#day .sum")] {
            browser.open(path).await;
            browser.see("#connection[data-state=live]").await;
            browser.run("window.isOld = true", vec![]).await;
            browser.click(&format!("#chart-{chart} summary")).await;
            browser.run(&format!("document.querySelector('#chart-{chart} .plot').focus()"), vec![]).await;
            // As if it had been made in another hour.
            let total = app.total("login").await + 1000;
            browser.run("document.querySelector('#fresh').dataset.hour = '2020010100'", vec![]).await;
            app.post("/api/events/login/1000?ack=store").await;
            let grouped = format!("{},{:03}", total / 1000, total % 1000);
            browser.shows(sum, &grouped).await;
            assert_eq!(browser.run("return window.isOld", vec![]).await, json!(true), "{path}: not loaded anew");
            let is_open = format!("return document.querySelector('#chart-{chart} details').open");
            assert_eq!(browser.run(&is_open, vec![]).await, json!(true), "{path}");
            let has_focus = format!("return document.activeElement === document.querySelector('#chart-{chart} .plot')");
            assert_eq!(browser.run(&has_focus, vec![]).await, json!(true), "{path}");
            // What is new works like what was there.
            browser.press(thirtyfour::Key::Left).await;
            browser.see(&format!("#chart-{chart} .tip")).await;
        }
        assert!(browser.count("[data-copy]:not([hidden])").await > 0, "links can still be copied");
    })
    .await;
}

#[tokio::test]
async fn without_streams_the_numbers_come_by_polls() {
    let app = TestApp::with(Backend::Sqlite).config("admin.streams_max", 0).start().await;
    let admin = Superuser::of(&app).await;
    app.count("login", 5).await;
    in_browser(&app, async |browser| {
        browser.allow("/admin/live");
        admin.enter(browser).await;
        browser.open("/admin/events/login").await;
        browser.see("#connection[data-state=live]").await;
        let total = std::cell::Cell::new(5);
        eventually("a rate", async || {
            app.count("login", 1).await;
            total.set(total.get() + 1);
            browser.text("[data-live-value=event-rate]").await.starts_with(|c: char| c.is_ascii_digit() && c != '0')
        })
        .await;
        browser.shows("[data-live-value=event-total]", &total.get().to_string()).await;
        browser.see("#connection[data-state=live]").await;
    })
    .await;
}

#[tokio::test]
async fn the_numbers_come_by_the_stream_again_when_there_is_room_for_one() {
    let app = TestApp::with(Backend::Sqlite).config("admin.streams_max", 1).start().await;
    let admin = Superuser::of(&app).await;
    app.count("login", 5).await;
    let listening = app.client().get(app.url("/admin/live")).bearer_auth(&admin.key).send().await.unwrap();
    assert_eq!(listening.status(), 200);
    in_browser(&app, async |browser| {
        browser.allow("/admin/live");
        browser.hurry().await;
        admin.enter(browser).await;
        browser.open("/admin").await;
        browser.see("#connection[data-state=live]").await;
        let polls =
            "return performance.getEntriesByType('resource').filter(({ name }) => name.includes('live.json')).length";
        assert_ne!(browser.run(polls, vec![]).await, json!(0), "it is live by polls");
        browser.block("*/admin/live.json*").await;
        drop(listening);
        app.count("login", 1).await;
        browser.shows("#figure-total .value", "6").await;
    })
    .await;
}

#[tokio::test]
async fn a_page_says_that_it_is_offline_when_the_program_is_gone_and_goes_on_when_it_is_back() {
    let mut app = TestApp::with(Backend::Sqlite).keep_address().start().await;
    let admin = Superuser::of(&app).await;
    app.count("login", 5).await;
    in_browser_at(app.url(""), async |browser| {
        browser.allow("/admin/live");
        browser.allow("ERR_CONNECTION_REFUSED");
        admin.enter(browser).await;
        browser.open("/admin").await;
        browser.see("#connection[data-state=live]").await;
        browser.run("window.isOld = true", vec![]).await;
        app.kill().await;
        browser.see("#connection[data-state=offline]").await;
        browser.shows("#connection", "offline").await;
        app.restart().await;
        browser.see("#connection[data-state=live]").await;
        app.count("login", 1).await;
        browser.shows("#figure-total .value", "6").await;
        assert_eq!(browser.run("return window.isOld", vec![]).await, json!(true), "not loaded anew");
    })
    .await;
}

#[tokio::test]
async fn when_the_database_comes_back_so_do_the_numbers() {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    let proxy = Proxy::start(url::Url::parse(&url).unwrap().port().unwrap()).await;
    let app = TestApp::with(Backend::Postgres).database_url(&proxy.url(&url)).start().await;
    let admin = Superuser::of(&app).await;
    app.post("/api/events/login/7?ack=store").await;
    in_browser(&app, async |browser| {
        browser.allow("status of 503");
        admin.enter(browser).await;
        browser.open("/admin").await;
        browser.shows("#figure-total .value", "7").await;
        proxy.set(Fault::Closed);
        // What was read a moment ago is still good.
        eventually("the outage to be noticed", async || {
            browser.open("/admin").await;
            browser.text("#outage").await.contains("The database cannot be reached")
        })
        .await;
        browser.see("[data-light=store] .dot.bad").await;
        assert_eq!(browser.count(".value").await, 0, "no number is known");
        app.count("login", 1).await;
        proxy.set(Fault::None);
        browser.shows("#figure-total .value", "8").await;
        browser.see("[data-light=store] .dot.good").await;
    })
    .await;
}
