//! That what pages show is right: at every moment, in every time zone, and while the store is away.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use hyper::StatusCode;

use super::harness::{Browser, Dashboard};
use crate::domain::{EventName, Hour, HourRange, Sum, SumBy, SumOf};
use crate::rows::sums_of;
use crate::store::admin::Change;

async fn opened_at(now: &str) -> (Dashboard, Browser) {
    let dashboard = Dashboard::open().await;
    *dashboard.now.lock() = now.parse().unwrap();
    dashboard.add_user("ann").await;
    let browser = dashboard.signed_in("ann").await;
    (dashboard, browser)
}

impl Dashboard {
    fn record(&self, event: &str, at: &str, count: u64) {
        let hour = Hour::containing(at.parse::<DateTime<Utc>>().unwrap());
        self.batches.record(&EventName::parse(event).unwrap(), hour, count).unwrap();
    }
}

/// The text between two others.
fn between<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = page.split_once(from).unwrap_or_else(|| panic!("no {from} in {page}"));
    rest.split_once(to).unwrap().0
}

/// The value and the trend of a key figure.
fn figure<'a>(page: &'a str, id: &str) -> (&'a str, &'a str) {
    let card = between(page, &format!("id=\"figure-{id}\""), "</div>");
    let trend =
        if card.contains("class=\"trend") { between(between(card, "class=\"trend", "/span>"), ">", "<") } else { "" };
    (between(between(card, "class=\"value\"", "/p>"), ">", "<"), trend)
}

/// 23 whole hours and the first half of one: counted with 600 an hour yesterday, and 766 in the hour of
/// which half counts; today with `over` in the hours that are over and `running` in the running one.
async fn trends(over: u64, running: u64) -> [(String, String); 2] {
    let (dashboard, mut browser) = opened_at("2024-05-15T10:30:00Z").await;
    let now = *dashboard.now.lock();
    let record = |hours_ago: i64, count: u64| {
        dashboard.record("login", &(now - TimeDelta::hours(hours_ago)).to_rfc3339(), count);
    };
    for hours_ago in 25..48 {
        record(hours_ago, 600);
    }
    record(24, 766);
    record(5, over);
    record(0, running);
    dashboard.node.flusher.flush().await.unwrap();
    let page = browser.get("/admin").await.body;
    let badge = |text: &str| between(between(text, "class=\"trend ", "/span>"), ">", "<").to_owned();
    let traffic = between(&page, "id=\"traffic-title\"", "</div>");
    let top = between(&page, "/admin/events/login", "</tr>");
    let number = |text: &str| between(text, "<strong>", "<").to_owned();
    [(number(traffic), badge(traffic)), (between(top, "class=\"n\">", "<").to_owned(), badge(top))]
}

#[tokio::test]
async fn a_trend_belongs_to_the_number_beside_it_the_running_hour_included() {
    for (over, running, number, trend) in [
        (10_240, 9_333, "19,573", "+38.0 %"),
        // Whole hours would say −24.7 % of a spike.
        (10_391, 62_040, "72,431", "+410.7 %"),
        (14_183, 0, "14,183", "±0 %"),
        (0, 7_091, "7,091", "−50.0 %"),
    ] {
        let [traffic, top] = trends(over, running).await;
        let expected = (number.to_owned(), trend.to_owned());
        assert_eq!((&traffic, &top), (&expected, &expected));
    }
}

#[tokio::test]
async fn hours_between_a_period_and_the_one_before_it_belong_to_neither() {
    let (dashboard, mut browser) = opened_at("2024-05-15T10:30:00Z").await;
    dashboard.record("login", "2024-05-15T09:00:00Z", 70);
    // Seven days begin at midnight of the 9th and end at ten; those before end on the 8th at ten.
    dashboard.record("login", "2024-05-08T13:00:00Z", 1_000);
    dashboard.record("login", "2024-05-08T09:00:00Z", 100);
    dashboard.node.flusher.flush().await.unwrap();
    let page = browser.get("/admin?period=7d").await.body;
    let top = between(&page, "/admin/events/login", "</tr>");
    assert_eq!(between(top, "class=\"n\">", "<"), "70");
    assert_eq!(between(between(top, "class=\"trend ", "/span>"), ">", "<"), "−30.0 %");
}

#[tokio::test]
async fn a_page_that_can_not_wait_for_the_sums_of_each_event_has_those_of_all_together() {
    let (dashboard, _) = opened_at("2024-05-15T10:30:00Z").await;
    dashboard.record("login", "2024-05-15T09:00:00Z", 70);
    dashboard.node.flusher.flush().await.unwrap();
    let now = Hour::containing(*dashboard.now.lock());
    let range = HourRange { first: now.plus(-23), last: now };
    let (soon, is_complete) = dashboard.state.period_within(range, Duration::ZERO).await.unwrap();
    assert_eq!((soon.hours.iter().sum::<u64>(), soon.top.len(), is_complete), (70, 0, false));
    let (whole, is_complete) = dashboard.state.period_within(range, Duration::from_secs(60)).await.unwrap();
    assert_eq!((whole.hours.iter().sum::<u64>(), whole.top[0].count, is_complete), (70, 70, true));
}

#[tokio::test]
async fn sums_are_those_of_the_rows_at_every_moment() {
    let (dashboard, _) = opened_at("2024-05-15T10:30:00Z").await;
    let query = &dashboard.state.query;
    let range = HourRange { first: Hour::containing(*dashboard.now.lock()).plus(-1), last: Hour::MAX };
    let matches = async |what: &str, expected: u64| {
        let (hours, events) = (query.hour_sums(range).await.unwrap(), query.event_sums(range).await.unwrap());
        let rows = query.hourly(range, 1000).await.unwrap();
        let hours = hours.into_iter().map(|(hour, count)| Sum { of: SumOf::Hour(hour), count });
        let events = events.into_iter().map(|(event, count)| Sum { of: SumOf::Event(event), count });
        assert_eq!(hours.clone().collect::<Vec<_>>(), sums_of(rows.iter(), SumBy::Hour), "{what}");
        assert_eq!(events.collect::<Vec<_>>(), sums_of(rows.iter(), SumBy::Event), "{what}");
        assert_eq!(hours.map(|sum| sum.count).sum::<u64>(), expected, "{what}");
    };
    let name = |name: &str| EventName::parse(name).unwrap();
    let change = async |change| query.catalog().change(change, "ann", Utc::now()).await.unwrap();
    matches("nothing", 0).await;
    dashboard.record("a", "2024-05-15T09:10:00Z", 5);
    dashboard.record("b", "2024-05-15T09:10:00Z", 7);
    dashboard.record("b", "2024-05-15T08:10:00Z", 1000);
    matches("pending", 12).await;
    dashboard.node.flusher.flush().await.unwrap();
    matches("committed", 12).await;
    dashboard.record("a", "2024-05-15T10:10:00Z", 3);
    matches("both", 15).await;
    dashboard.node.flusher.flush().await.unwrap();
    change(Change::Move { from: name("a"), into: name("c") }).await;
    dashboard.record("a", "2024-05-15T10:10:00Z", 1);
    matches("under an old name", 16).await;
    dashboard.node.flusher.flush().await.unwrap();
    matches("under an old name, committed", 16).await;
    dashboard.record("b", "2024-05-15T10:10:00Z", 9);
    change(Change::Delete { event: name("b") }).await;
    matches("deleted with counts that wait", 9).await;
    dashboard.node.flusher.flush().await.unwrap();
    matches("deleted", 9).await;
}

#[tokio::test]
async fn half_an_hour_after_midnight_the_day_is_that_of_the_hour_that_is_counted_in() {
    // In Kolkata it is 00:15 on 16 May; the hour began at 23:30 on 15 May.
    let (dashboard, mut browser) = opened_at("2024-05-15T18:45:00Z").await;
    browser.cookies.push(("zone".into(), "Asia/Kolkata".into()));
    dashboard.record("login", "2024-05-15T18:45:00Z", 7);
    assert_eq!(figure(&browser.get("/admin").await.body, "today").0, "7");
    let event = browser.get("/admin/events/login").await.body;
    assert_eq!(between(&event, "data-live-value=\"today\" data-exact=\"7\">", "<"), "7");
    assert!(!event.contains("rel=\"next\""), "there is no day after it");
    dashboard.pass(TimeDelta::minutes(15));
    assert_eq!(figure(&browser.get("/admin").await.body, "today").0, "0");
}

#[tokio::test]
async fn an_hour_that_has_just_begun_makes_no_trend() {
    let (dashboard, mut browser) = opened_at("2024-05-15T10:00:30Z").await;
    for (at, count) in [("2024-05-14T09:00:00Z", 100), ("2024-05-14T10:00:00Z", 60), ("2024-05-15T09:00:00Z", 100)] {
        dashboard.record("login", at, count);
    }
    let trend = |page: &str| between(between(page, "class=\"trend", "/span>"), ">", "<").to_owned();
    let page = browser.get("/admin").await.body;
    let (_, rest) = page.split_once("id=\"traffic-title\"").unwrap();
    assert_eq!(trend(rest), "±0 %");
    let (_, rest) = page.split_once("id=\"top\"").unwrap();
    assert_eq!(trend(rest), "±0 %");
    let event = browser.get("/admin/events/login?days=1").await.body;
    let (_, rest) = event.split_once("id=\"range-title\"").unwrap();
    assert_eq!(trend(rest), "±0 %");
}

#[tokio::test]
async fn the_same_time_last_week_is_that_of_the_clock_when_clocks_have_changed_since() {
    // In Berlin it is 10:30, an hour later in UTC than a week ago.
    let (dashboard, mut browser) = opened_at("2024-11-01T09:30:00Z").await;
    browser.cookies.push(("zone".into(), "Europe/Berlin".into()));
    for (at, count) in [("2024-11-01T08:00:00Z", 40), ("2024-10-25T07:00:00Z", 40), ("2024-10-25T09:00:00Z", 1000)] {
        dashboard.record("login", at, count);
    }
    assert_eq!(figure(&browser.get("/admin").await.body, "today"), ("40", "±0 %"));
}

#[tokio::test]
async fn while_the_store_is_away_the_overview_says_so_and_shows_no_number() {
    let (dashboard, mut browser) = opened_at("2024-05-15T10:30:00Z").await;
    dashboard.count("login", 7).await;
    // The session is remembered since it was last seen.
    browser.get("/admin/preferences").await;
    dashboard.store.close().await;
    let page = browser.get("/admin").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    for shown in
        ["The database cannot be reached", "data-live", "data-refresh=\"5\"", "data-light=\"store\"", "dot bad"]
    {
        assert!(page.body.contains(shown), "{shown}: {}", page.body);
    }
    assert!(!page.body.contains("class=\"value\""), "{}", page.body);
}

#[tokio::test]
async fn an_event_can_be_watched_by_polls() {
    let (dashboard, mut browser) = opened_at("2024-05-15T10:30:00Z").await;
    dashboard.count("login", 7).await;
    dashboard.count("a & b", 8).await;
    let snapshot = browser.get("/admin/live.json?event=a+%26+b").await.json()["response"].clone();
    assert_eq!((&snapshot["total"], &snapshot["this_hour"]), (&15.into(), &15.into()));
    assert_eq!((&snapshot["events"][0]["event"], &snapshot["events"][0]["total"]), (&"a & b".into(), &8.into()));
    assert_eq!(snapshot["events"].as_array().unwrap().len(), 1);
    let unknown = browser.get("/admin/live.json?event=unknown").await.json();
    assert!(unknown["response"]["events"].as_array().unwrap().is_empty());
}
