//! What is happening: live numbers, the list of events, the page of one.

use chrono::{Duration, Utc};
use serde_json::{Value, json};
use thirtyfour::Key;

use super::hours_ago;
use crate::harness::{Backend, Superuser, TestApp, eventually, in_browser};

#[tokio::test]
async fn the_overview_goes_live_when_events_are_posted_until_the_program_drains() {
    // A stream that did not end would be waited for longer than the test has patience.
    let setup = TestApp::with(Backend::Sqlite).config("flush.interval_ms", 100);
    let mut app = setup.config("http.drain_timeout_ms", 600_000).start().await;
    let admin = Superuser::of(&app).await;
    let pid = app.pid();
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open("/admin").await;
        browser.shows("#empty", "Nothing has been counted yet").await;
        app.count("login", 12_345).await;
        browser.open("/admin").await;
        browser.see("#connection[data-state=live]").await;
        browser.shows("#figure-total .value", "12.3k").await;
        app.count("login", 1_000_000).await;
        app.count("logout", 600).await;
        browser.shows("#figure-total .value", "1.01M").await;
        browser.shows("#figure-today .value", "1.01M").await;
        eventually("a rate", async || {
            let rate = browser.text("#figure-rate .value").await;
            rate.starts_with(|first: char| first.is_ascii_digit()) && rate != "0"
        })
        .await;
        browser.shows("[data-light=books] .text", "balance").await;

        browser.open("/admin/events/login").await;
        browser.shows("[data-live-value=event-total]", "1,012,345").await;
        app.count("login", 5).await;
        browser.shows("[data-live-value=event-total]", "1,012,350").await;

        // Streams end at drain, or the program would wait for them to its deadline.
        for expected in ["ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE"] {
            browser.allow(expected);
        }
        crate::harness::signal(pid, "TERM");
        browser.see("#connection[data-state=offline]").await;
    })
    .await;
    let (status, log) = app.ended().await;
    assert!(status.success() && !log.contains("cut off"), "{status}: {log}");
}

#[tokio::test]
async fn the_live_stream_is_not_cut_by_the_time_out_for_request_heads() {
    let app = TestApp::with(Backend::Sqlite).config("http.header_timeout_ms", 100).start().await;
    let admin = Superuser::of(&app).await;
    let mut stream = app.client().get(app.url("/admin/live")).bearer_auth(&admin.key).send().await.unwrap();
    let mut said = String::new();
    // One a second at most.
    while said.matches("\n\n").count() < 4 {
        app.count("login", 1).await;
        said += std::str::from_utf8(&stream.chunk().await.unwrap().expect("the stream goes on")).unwrap();
    }
}

#[tokio::test]
async fn what_is_renamed_has_no_rate_since_it_has_not_just_been_counted() {
    let app = TestApp::with(Backend::Sqlite).config("flush.interval_ms", 50).start().await;
    let admin = Superuser::of(&app).await;
    app.post("/api/events/login/1000?ack=store").await;
    let mut stream = app.client().get(app.url("/admin/live")).bearer_auth(&admin.key).send().await.unwrap();
    let mut said = String::new();
    let mut next = async || {
        while !said.contains("\n\n") {
            said += std::str::from_utf8(&stream.chunk().await.unwrap().expect("the stream goes on")).unwrap();
        }
        let (event, rest) = said.split_once("\n\n").unwrap();
        let data = event.split_once("data: ").and_then(|(_, data)| serde_json::from_str::<Value>(data).ok());
        said = rest.to_owned();
        data
    };
    // The first look has nothing to compare with.
    while next().await.is_none_or(|snapshot| snapshot["rate"].is_null()) {}
    admin.change(&app, "login", "move", &json!({ "into": "sign-in" })).await;
    loop {
        app.count("marker", 1).await;
        let Some(snapshot) = next().await else { continue };
        let events: Vec<_> =
            snapshot["events"].as_array().unwrap().iter().map(|event| event["event"].clone()).collect();
        assert!(!events.contains(&"sign-in".into()), "{snapshot}");
        if events.contains(&"marker".into()) {
            return;
        }
    }
}

#[tokio::test]
async fn a_hundred_thousand_events_are_searched_while_typing_sorted_and_turned_by_pages() {
    let names: Vec<String> = (0..100_000).map(|number| format!("event-{number:05}")).collect();
    let hour = hours_ago(30);
    let rows: Vec<_> = (1_u64..).zip(&names).map(|(count, name)| (&*hour, &**name, count)).collect();
    let app = TestApp::with(Backend::Sqlite).stored(&rows).start().await;
    let admin = Superuser::of(&app).await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open("/admin/events").await;
        browser.shows("#found", "1–50 of 100,000").await;
        let first = "#events tbody tr:first-child .name bdi";
        browser.shows(first, "event-99999").await;
        assert_eq!(browser.count("#events tbody tr").await, 50);
        browser.press(Key::Right).await;
        browser.shows("#found", "51–100 of 100,000").await;
        browser.shows(first, "event-99949").await;
        browser.shows(".pages", "of 2,000").await;
        browser.fill(".jump [name=page]", "1234").await;
        browser.press(Key::Enter).await;
        browser.shows("#found", "61,651–61,700 of 100,000").await;
        browser.shows(first, "event-38349").await;
        browser.open("/admin/events?page=2").await;
        browser.press(Key::Left).await;
        browser.shows("#found", "1–50 of 100,000").await;
        browser.submit("#events th:first-child a").await;
        browser.shows(first, "event-00000").await;
        assert_eq!(browser.text("th[aria-sort=ascending]").await, "Event");

        browser.press('/').await;
        for key in "T-1234".chars() {
            browser.press(key).await;
        }
        browser.shows("#found", "1–10 of 10").await;
        browser.shows("#said[role=status]", "1–10 of 10").await;
        assert_eq!(browser.texts("#events tbody .name bdi").await[0], "event-12340");
        assert!(browser.path().await.contains("q=T-1234"), "the address can be kept");
        browser.fill("#search [name=q]", "no such event").await;
        browser.shows("#results", "No event matches").await;
        let size = browser.run("return performance.getEntriesByType('navigation')[0].decodedBodySize", vec![]).await;
        assert!(size.as_u64().unwrap() < 100_000, "the page has {size} bytes");
    })
    .await;
}

#[tokio::test]
async fn days_are_picked_turned_by_keys_and_a_range_is_zoomed() {
    let rows: Vec<_> = (0..200).map(|hours| (hours_ago(hours), 1 + u64::try_from(hours).unwrap())).collect();
    let rows: Vec<_> = rows.iter().map(|(hour, count)| (&**hour, "login", *count)).collect();
    let app = TestApp::with(Backend::Postgres).stored(&rows).start().await;
    let admin = Superuser::of(&app).await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open("/admin/events/login").await;
        let day = |back: i64| (Utc::now() - Duration::days(back)).format("%Y-%m-%d").to_string();
        let title = |back: i64| (Utc::now() - Duration::days(back)).format("%A, %-d %B %Y").to_string();
        let sum = |back: i64| {
            let day = day(back).replace('-', "");
            let of_day = rows.iter().filter(|(hour, ..)| hour.starts_with(&day));
            of_day.map(|(_, _, count)| count).sum::<u64>()
        };
        browser.shows("#day-title", &title(0)).await;
        browser.pick("#day [name=day]", &day(3)).await;
        browser.shows("#day-title", &title(3)).await;
        assert_eq!(browser.text("#day .sum strong").await.replace(',', ""), sum(3).to_string());
        browser.press(Key::Left).await;
        browser.shows("#day-title", &title(4)).await;
        assert_eq!(browser.text("#day .sum strong").await.replace(',', ""), sum(4).to_string());
        browser.press(Key::Right).await;
        browser.shows("#day-title", &title(3)).await;
        assert_eq!(browser.count("#chart-day tbody tr").await, 24);

        // With the keyboard on the chart, values are read out one by one.
        browser.run("document.querySelector('#chart-day .plot').focus()", vec![]).await;
        browser.press(Key::Left).await;
        browser.shows("#chart-day .tip", "23:00").await;
        browser.press(Key::Escape).await;

        // Turning the days leaves the usual period as it is.
        browser.shows("#range .segments [aria-current]", "30 days").await;
        assert_eq!(browser.count("#chart-range tbody tr").await, 30);
        let field = async |name: &str| {
            let script = "return document.querySelector(`#range [name=${arguments[0]}]`)?.value ?? ''";
            browser.run(script, vec![name.into()]).await
        };
        let range = async |first: i64, last: i64, rows: usize| {
            let wanted = (json!(day(first)), json!(day(last)));
            let what = format!("{wanted:?} in {rows} columns");
            eventually(&what, async || {
                (field("from").await, field("to").await) == wanted
                    && browser.count("#chart-range tbody tr").await == rows
            })
            .await;
        };
        // Columns are days, then hours.
        browser.drag("#chart-range .plot", 22.5 / 30.0, 28.5 / 30.0).await;
        range(7, 1, 7 * 24).await;
        browser.drag("#chart-range .plot", 3.5 / 7.0, 3.5 / 7.0).await;
        range(4, 4, 24).await;
        assert_eq!(browser.text("#range .sum strong").await.replace(',', ""), sum(4).to_string());
        browser.submit("#range .segments a:nth-child(2)").await;
        range(29, 0, 30).await;
        browser.submit("#compare").await;
        browser.see("#compare[aria-current=true]").await;
        browser.shows("#chart-range thead", "Period before").await;
        browser.shows("#chart-range .key", "period before").await;
        browser.shows("#range .segments [aria-current]", "30 days").await;

        // The week's pattern holds all that was counted in it.
        let cells: Vec<u64> =
            browser.texts("#heat tbody td").await.iter().map(|text| text.replace(',', "").parse().unwrap()).collect();
        let all = rows.iter().filter(|(hour, ..)| *hour < hours_ago(0).as_str()).map(|(_, _, count)| count);
        assert_eq!((cells.len(), cells.iter().sum::<u64>()), (7 * 24, all.sum()));
    })
    .await;
}

#[tokio::test]
async fn without_script_the_pages_read_and_manage_all_the_same() {
    let hour = hours_ago(3);
    let app = TestApp::with(Backend::Sqlite).stored(&[(&hour, "login", 7), (&hour, "logout", 9)]).start().await;
    let admin = Superuser::of(&app).await;
    in_browser(&app, async |browser| {
        browser.disable_script().await;
        admin.enter(browser).await;
        browser.open("/admin").await;
        browser.shows("#top", "logout").await;
        browser.open("/admin/events").await;
        assert!(!browser.is_scripted().await, "the pages' script runs");
        browser.fill("#search [name=q]", "login").await;
        browser.submit("#search button").await;
        browser.shows("#found", "1–1 of 1").await;
        browser.submit("#events .name a").await;
        browser.shows("[data-live-value=event-total]", "7").await;
        browser.submit("#day [rel=prev]").await;
        browser.click("#chart-day summary").await;
        browser.see("#chart-day table").await;
        browser.fill("#describe textarea", "Who came in").await;
        browser.submit("#describe button").await;
        browser.shows("main .lead", "Who came in").await;
        browser.fill("#move [name=into]", "sign-in").await;
        browser.submit("#move button").await;
        browser.shows("h1", "sign-in").await;
        browser.submit("#undo").await;
        browser.shows("#notice", "Undone.").await;
    })
    .await;
    assert_eq!(app.totals().await, [("login".into(), 7), ("logout".into(), 9)].into());
}
