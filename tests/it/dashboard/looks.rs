//! Every page by day, by night and on a phone: into `target/screenshots`, without barriers, and never
//! wider than the screen.

use serde_json::json;

use super::hours_ago;
use crate::harness::superuser::{PASSWORD, USER};
use crate::harness::{Backend, Browser, Superuser, TestApp, eventually, in_browser};

const PHONE: (u32, u32) = (390, 844);

/// What is wider than its place.
const CUT: &str = "return [...document.querySelectorAll('.scroll, nav, main .card')] \
    .filter((element) => element.checkVisibility() && element.scrollWidth > element.clientWidth + 1) \
    .map((element) => `${element.className} ${element.scrollWidth} > ${element.clientWidth} ${element.textContent.slice(0, 60)}`)";

/// Three looks at the page that is open.
async fn look(browser: &Browser, name: &str) {
    browser.prefer("light").await;
    browser.screenshot(&format!("{name}-light")).await;
    browser.is_accessible(&format!("{name}, light")).await;
    browser.prefer("dark").await;
    browser.screenshot(&format!("{name}-dark")).await;
    browser.is_accessible(&format!("{name}, dark")).await;
    browser.prefer("light").await;
    browser.resize(PHONE.0, PHONE.1).await;
    browser.screenshot(&format!("{name}-phone")).await;
    let width = browser.run("return document.documentElement.scrollWidth", vec![]).await;
    assert!(width.as_u64().unwrap() <= PHONE.0.into(), "{name} is {width} pixels wide on a phone");
    let cut = browser.run(CUT, vec![]).await;
    assert_eq!(cut, json!([]), "{name} has to be moved sideways on a phone");
    browser.is_accessible(&format!("{name}, phone")).await;
    browser.resize(0, 0).await;
}

/// Ninety days of a platform's traffic: more by day than by night, less on weekends, growing.
fn history() -> Vec<(String, &'static str, u64)> {
    let events = [
        ("page-view", 900.0),
        ("login", 140.0),
        ("search", 260.0),
        ("checkout/completed", 31.0),
        ("api/v2/orders", 420.0),
        ("newsletter-signup", 6.0),
        ("error-404", 17.0),
        ("password-reset-requested-by-support-on-behalf-of-a-customer", 2.0),
    ];
    let mut rows = Vec::new();
    for hours in 1..90 * 24 {
        let at = chrono::Utc::now() - chrono::Duration::hours(hours);
        let hour: f64 = at.format("%H").to_string().parse().unwrap();
        let weekend = if at.format("%u").to_string().parse::<u32>().unwrap() > 5 { 0.55 } else { 1.0 };
        let daily = 0.25 + 0.75 * (std::f64::consts::PI * (hour - 4.0) / 24.0).sin().max(0.0);
        for (index, (event, mean)) in events.iter().enumerate() {
            let noise = 0.8 + f64::from((hours as u32 * 7919 + index as u32 * 104_729) % 41) / 100.0;
            let growth = 1.3 - hours as f64 / (90.0 * 24.0) * 0.6;
            let count = (mean * weekend * daily * noise * growth) as u64;
            if count > 0 {
                rows.push((hours_ago(hours), *event, count));
            }
        }
    }
    rows
}

#[tokio::test]
async fn every_page_looks_right_by_day_by_night_and_on_a_phone_and_has_no_barriers() {
    let rows = history();
    let rows: Vec<_> = rows.iter().map(|(hour, event, count)| (&**hour, *event, *count)).collect();
    let app = TestApp::with(Backend::Sqlite).config("flush.interval_ms", 100).stored(&rows).start().await;
    let empty = TestApp::start(Backend::Sqlite).await;
    in_browser(&app, async |browser| {
        browser.open_url(&app.setup_link().await).await;
        look(browser, "setup").await;
        for refused in ["/admin/setup", "/admin/login", "/admin/nothing-here"] {
            browser.allow(refused);
        }
        let admin = Superuser::of(&app).await;
        browser.open_url(&app.url("/admin/setup?token=used")).await;
        look(browser, "setup-used").await;
        browser.open("/admin/login").await;
        look(browser, "login").await;
        browser.fill("#login [name=user]", USER).await;
        browser.fill("#login [name=password]", "wrong").await;
        browser.submit("#login button").await;
        browser.see("#error").await;
        look(browser, "login-wrong").await;
        browser.fill("#login [name=password]", PASSWORD).await;
        browser.submit("#login button").await;
        browser.see("#logout").await;

        app.count("page-view", 80).await;
        app.count("first-seen-today", 8).await;
        browser.open("/admin").await;
        browser.see("#connection[data-state=live]").await;
        look(browser, "overview").await;
        browser.open("/admin?period=90d&compare=1").await;
        look(browser, "overview-90-days").await;
        browser.open("/admin/events").await;
        look(browser, "events").await;
        browser.open("/admin/events?q=nothing+like+this").await;
        look(browser, "events-none").await;

        let description = json!({ "description": "A page of the shop was shown. Counted by the front end." });
        admin.change(&app, "page-view", "describe", &description).await;
        admin.change(&app, "login", "move", &json!({ "into": "sign-in" })).await;
        admin.change(&app, "error-404", "deactivate", &json!({})).await;
        let undone = admin.change(&app, "search", "delete", &json!({})).await;
        admin.post(&app, &format!("changes/{undone}/undo"), &json!({})).await.unwrap();
        admin.change(&app, "newsletter-signup", "delete", &json!({})).await;
        for (path, name) in [
            ("page-view", "event"),
            ("sign-in?compare=1", "event-alias"),
            ("error-404", "event-inactive"),
            ("newsletter-signup", "event-deleted"),
            ("password-reset-requested-by-support-on-behalf-of-a-customer", "event-long-name"),
        ] {
            browser.open(&format!("/admin/events/{path}")).await;
            browser.see("h1").await;
            look(browser, name).await;
        }
        browser.open("/admin/changes").await;
        look(browser, "changes").await;
        browser.open("/admin/keys").await;
        browser.fill("#create-key [name=label]", "nightly report").await;
        browser.fill("#create-key [name=current]", PASSWORD).await;
        browser.submit("#create-key button").await;
        browser.see("#secret").await;
        look(browser, "keys").await;
        browser.open("/admin/users").await;
        look(browser, "users").await;
        browser.click("#users summary").await;
        look(browser, "users-open").await;
        browser.open("/admin/preferences").await;
        look(browser, "preferences").await;
        browser.open("/admin/nothing-here").await;
        look(browser, "failure").await;

        // Cookies know no ports, so this session takes the place of the other.
        Superuser::of(&empty).await.enter(browser).await;
        browser.open_url(&empty.url("/admin")).await;
        look(browser, "overview-empty").await;
        browser.open_url(&empty.url("/admin/events")).await;
        look(browser, "events-empty").await;
    })
    .await;
}

#[tokio::test]
async fn the_live_nodes_look_right_and_have_no_barriers() {
    let rows = history();
    let rows: Vec<_> = rows.iter().map(|(hour, event, count)| (&**hour, *event, *count)).collect();
    let app = TestApp::with(Backend::Postgres).stored(&rows).start().await;
    let mut copy = app.another_node().await;
    eventually("the first node to live", async || app.data_dir().join("NODE").exists()).await;
    std::fs::create_dir_all(copy.data_dir()).unwrap();
    std::fs::copy(app.data_dir().join("NODE"), copy.data_dir().join("NODE")).unwrap();
    copy.restart().await;
    in_browser(&app, async |browser| {
        let admin = Superuser::of(&app).await;
        eventually("both nodes to live", async || admin.page(&app, "/admin").await.contains("copied data folder</"))
            .await;
        admin.enter(browser).await;
        browser.open("/admin").await;
        browser.see("#nodes").await;
        look(browser, "nodes").await;
    })
    .await;
}
