//! Mouse, finger, clipboard, and what is chosen: order, theme and time zone.

use chrono::{Duration, Timelike, Utc};

use super::hours_ago;
use crate::harness::superuser::PASSWORD;
use crate::harness::{Backend, Superuser, TestApp, eventually, in_browser};

#[tokio::test]
async fn mouse_and_finger_show_the_values_of_a_chart() {
    let hour = hours_ago(24 * 10);
    let app = TestApp::with(Backend::Sqlite).stored(&[(&hour, "login", 1_234)]).start().await;
    let admin = Superuser::of(&app).await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open("/admin/events/login?days=30&compare=1").await;
        let (plot, tip) = ("#chart-range .plot", "#chart-range .tip");
        let label = (Utc::now() - Duration::days(10)).format("%a %-d %b %Y").to_string();
        browser.see("#range .hint").await;
        browser.hover(plot, 19.5 / 30.0).await;
        browser.shows(tip, &label).await;
        browser.shows(tip, "1,234").await;
        browser.shows(tip, "before: 0").await;
        browser.hover("h1", 0.5).await;
        eventually("the value to go", async || browser.count(tip).await == 0).await;

        browser.resize(390, 844).await;
        browser.tap(plot, 19.5 / 30.0).await;
        browser.shows(tip, "1,234").await;
        browser.tap(plot, 18.5 / 30.0).await;
        eventually("another value", async || !browser.text(tip).await.contains("1,234")).await;
        browser.see(tip).await;
        let hint = browser.run("return document.querySelector('#range .hint').offsetHeight", vec![]).await;
        assert_eq!(hint, 0, "fingers can't drag over a chart");
    })
    .await;
}

#[tokio::test]
async fn links_to_pictures_and_the_secret_of_a_key_are_copied() {
    let app = TestApp::start(Backend::Sqlite).await;
    let admin = Superuser::of(&app).await;
    app.count("resource%2F209", 5).await;
    in_browser(&app, async |browser| {
        browser.permit_copying().await;
        admin.enter(browser).await;
        browser.open("/admin/events/resource%2F209").await;
        browser.click(".pictures .copy:nth-of-type(3) button").await;
        browser.shows(".pictures .copy:nth-of-type(3) button", "copied").await;
        let picture = format!("/api/events/histogram/resource%2F209/{}?format=svg", Utc::now().format("%Y%m%d"));
        assert_eq!(browser.copied().await, app.url(&picture));

        browser.open("/admin/keys").await;
        browser.fill("#create-key [name=label]", "nightly report").await;
        browser.fill("#create-key [name=current]", PASSWORD).await;
        browser.submit("#create-key button").await;
        browser.click(".secret button").await;
        browser.shows(".secret button", "copied").await;
        assert_eq!(browser.copied().await, browser.text("#secret").await);
    })
    .await;
}

#[tokio::test]
async fn a_search_that_fails_says_so_instead_of_showing_other_rows_as_found() {
    let app = TestApp::start(Backend::Sqlite).await;
    let admin = Superuser::of(&app).await;
    app.count("login", 5).await;
    app.count("logout", 5).await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open("/admin/events").await;
        browser.shows("#found", "1–2 of 2").await;
        browser.allow("ERR_INTERNET_DISCONNECTED");
        browser.connect(false).await;
        browser.fill("#search [name=q]", "logo").await;
        browser.shows("#found", "The search failed").await;
        browser.shows("#said[role=status]", "The search failed").await;
        browser.connect(true).await;
        browser.press('u').await;
        browser.shows("#found", "1–1 of 1").await;
        browser.shows("#said[role=status]", "1–1 of 1").await;
    })
    .await;
}

#[tokio::test]
async fn events_are_sorted_by_every_column_in_the_viewers_zone() {
    let [today, before, long_ago] = [3, 200, 300].map(hours_ago);
    let rows = [(&*today, "morning", 20), (&before, "again", 50), (&long_ago, "old", 1_000)];
    let app = TestApp::with(Backend::Sqlite).stored(&rows).start().await;
    let admin = Superuser::of(&app).await;
    app.count("again", 5).await;
    app.count("new", 7).await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        // Where it is about noon, three hours ago is today.
        let west = i64::from(Utc::now().hour()) - 12;
        browser.take_cookie(&format!("zone=Etc/GMT{west:+}")).await;
        for (column, descending, ascending) in [
            (2, ["old", "again", "morning", "new"], ["new", "morning", "again", "old"]),
            (3, ["morning", "new", "again", "old"], ["old", "again", "new", "morning"]),
            (4, ["new", "again", "morning", "old"], ["morning", "old", "again", "new"]),
            (5, ["again", "new", "morning", "old"], ["old", "morning", "again", "new"]),
            (6, ["new", "morning", "again", "old"], ["old", "again", "morning", "new"]),
        ] {
            browser.open("/admin/events?sort=name").await;
            let heading = format!("#events th:nth-child({column})");
            for (order, names) in [("descending", descending), ("ascending", ascending)] {
                browser.submit(&format!("{heading} a")).await;
                browser.see(&format!("{heading}[aria-sort={order}]")).await;
                assert_eq!(browser.texts("#events .name a bdi").await, names, "column {column}, {order}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn theme_and_time_zone_are_chosen_and_stay() {
    let hour = hours_ago(30);
    let app = TestApp::with(Backend::Sqlite).stored(&[(&hour, "login", 7)]).start().await;
    let admin = Superuser::of(&app).await;
    in_browser(&app, async |browser| {
        browser.travel("Asia/Tokyo").await;
        browser.prefer("light").await;
        admin.enter(browser).await;
        browser.open("/admin/events/login").await;
        let background = async || {
            let colour = browser.run("return getComputedStyle(document.body).backgroundColor", vec![]).await;
            colour.as_str().unwrap().to_owned()
        };
        let light = background().await;
        for (theme, is_light) in [("light", true), ("dark", false), ("auto", true)] {
            browser.submit("#theme").await;
            browser.see(&format!("html[data-theme={theme}]")).await;
            assert_eq!(background().await == light, is_light, "{theme}");
            assert_eq!(browser.path().await, "/admin/events/login", "it leads back");
        }

        browser.shows("#zone", "UTC").await;
        browser.submit("footer a").await;
        browser.click("#zone-suggested").await;
        browser.submit("#preferences .primary").await;
        browser.shows("#zone", "Asia/Tokyo").await;
        assert_eq!(browser.path().await, "/admin/events/login");
        let there = (Utc::now() - Duration::hours(30 - 9)).format("%-d %b %Y, %H:00").to_string();
        browser.shows("[aria-label='Key figures'] .value.small", &there).await;
        browser.open("/admin").await;
        browser.shows("#zone", "Asia/Tokyo").await;
    })
    .await;
}
