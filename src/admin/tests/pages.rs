//! What pages show, and what changing events does.

use chrono::TimeDelta;
use hyper::StatusCode;

use super::harness::{Browser, Dashboard};
use crate::admin::request::encoded;
use crate::domain::EventName;
use crate::store::admin::{Change, Changed};

const PAGES: [&str; 8] = [
    "/admin",
    "/admin?period=7d&compare=1",
    "/admin?period=90d",
    "/admin/events",
    "/admin/changes",
    "/admin/users",
    "/admin/keys",
    "/admin/preferences",
];

async fn opened() -> (Dashboard, Browser) {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    let browser = dashboard.signed_in("ann").await;
    (dashboard, browser)
}

#[tokio::test]
async fn an_empty_service_has_all_pages_and_says_how_to_begin() {
    let (_dashboard, mut browser) = opened().await;
    for page in PAGES {
        assert_eq!(browser.get(page).await.status, StatusCode::OK, "{page}");
    }
    assert!(browser.get("/admin").await.body.contains("Nothing has been counted yet"));
    assert!(browser.get("/admin/events").await.body.contains("Nothing has been counted yet"));
    assert_eq!(browser.get("/admin/events/nobody").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn names_are_text_and_never_markup_on_any_page() {
    let (dashboard, mut browser) = opened().await;
    let names =
        ["<script>x</script>", "\"><svg onload=x>", "' onmouseover='x", "</title><b>", "\u{202e}x", "{{x}}", "a/b?c#d"];
    for name in names {
        dashboard.count(name, 3).await;
        let path = format!("/admin/events/{}", encoded(name));
        let changed = browser.post(&format!("{path}/describe"), &[("description", name)]).await;
        assert_eq!(changed.status, StatusCode::SEE_OTHER, "{name} {}", changed.body);
        let page = browser.get(&path).await;
        assert_eq!(page.status, StatusCode::OK, "{name}");
        assert_harmless(&page.body);
    }
    for page in PAGES {
        assert_harmless(&browser.get(page).await.body);
    }
    let query = format!("/admin/events?q={}", encoded(names[1]));
    assert_harmless(&browser.get(&query).await.body);
}

/// No element or attribute that a name tries to make, and nothing that the policy would refuse.
fn assert_harmless(page: &str) {
    for markup in ["<script>", "<svg onload", "onmouseover='", "</title><b>", " style=\"", "javascript:"] {
        assert!(!page.contains(markup), "{markup} in {page}");
    }
}

#[tokio::test]
async fn pages_stay_below_100_kb_with_much_to_show() {
    let (dashboard, mut browser) = opened().await;
    for number in 0..60 {
        dashboard.batches.names().learn(&crate::domain::EventName::parse("x").unwrap(), 0);
        let name = format!("{number} {}", "name ".repeat(45));
        dashboard.count(&name, 1_000_000 + number).await;
        for description in ["described ", "<déscribed> "] {
            let fields = [("description", &*description.repeat(1_000 / description.chars().count()))];
            let path = format!("/admin/events/{}/describe", encoded(&name));
            assert_eq!(browser.post(&path, &fields).await.status, StatusCode::SEE_OTHER);
        }
    }
    let event = format!("/admin/events/{}?days=365&compare=1", encoded(&format!("1 {}", "name ".repeat(45))));
    for page in PAGES.into_iter().chain([&*event]) {
        let body = browser.get(page).await.body;
        assert!(body.len() < 100_000, "{page}: {} bytes", body.len());
    }
    // What the log cuts is a link away.
    let log = browser.get("/admin/changes").await.body;
    let (_, only) = log.split_once("href=\"/admin/changes?only=").unwrap();
    let number = only.split('"').next().unwrap();
    let whole = browser.get(&format!("/admin/changes?only={number}")).await.body;
    assert!(whole.contains("described ".repeat(100).trim_end()) && !log.contains(&"described ".repeat(17)), "{whole}");
    assert_eq!(whole.matches("<tr id=\"change-").count(), 1);
    assert!(whole.contains(&format!("id=\"change-{number}\"")));
}

#[tokio::test]
async fn the_list_is_paged_and_exported_as_it_is_shown() {
    let (dashboard, mut browser) = opened().await;
    for number in 0..120 {
        dashboard.count(&format!("=event {number:03}"), number + 1).await;
    }
    let first = browser.get("/admin/events?q=event&sort=name&order=asc").await.body;
    assert!(first.contains("1–50 of 120") && first.contains("=event 049") && !first.contains("=event 050"));
    let last = browser.get("/admin/events?q=event&sort=name&order=asc&page=3").await.body;
    assert!(last.contains("101–120 of 120"), "{last}");
    assert!(browser.get("/admin/events?page=99999").await.body.contains("101–120 of 120"));

    let csv = browser.get("/admin/export?format=csv&q=event+11&sort=name&order=asc").await;
    assert_eq!(csv.header("content-disposition"), "attachment; filename=\"events.csv\"");
    let lines: Vec<&str> = csv.body.split("\r\n").collect();
    assert_eq!(lines.len(), 1 + 10 + 1);
    assert_eq!(lines[1], "\"'=event 110\",111,111,111,2024051510,2024051510,\"\",true,false");
    let json = browser.get("/admin/export?format=json&q=event+11&sort=name&order=asc").await.json();
    assert_eq!(json[0]["event"], "=event 110");
}

#[tokio::test]
async fn an_event_is_described_disabled_renamed_deleted_and_all_of_it_undone() {
    let (dashboard, mut browser) = opened().await;
    dashboard.count("login", 42).await;
    let location =
        browser.post("/admin/events/login/describe", &[("description", "people")]).await.location().to_owned();
    assert!(location.starts_with("/admin/events/login?notice=changed&change="), "{location}");
    let page = browser.get(&location).await.body;
    assert!(page.contains("people") && page.contains("id=\"undo\""));

    browser.post("/admin/events/login/deactivate", &[]).await;
    assert!(browser.get("/admin/events?show=inactive").await.body.contains("1–1 of 1"));
    browser.post("/admin/events/login/activate", &[]).await;

    let moved = browser.post("/admin/events/login/move", &[("into", "sign/in")]).await;
    assert!(moved.location().starts_with("/admin/events/sign%2Fin?"), "{}", moved.location());
    assert_eq!(browser.get("/admin/events/login").await.location(), "/admin/events/sign%2Fin");
    let number = moved.location().rsplit('=').next().unwrap().to_owned();
    assert_eq!(
        browser.post(&format!("/admin/changes/{number}/undo"), &[]).await.location(),
        "/admin/changes?notice=undone"
    );

    let deleted = browser.post("/admin/events/login/delete", &[]).await.location().to_owned();
    assert!(!browser.get("/admin/events").await.body.contains("1–1 of 1"));
    assert!(browser.get("/admin/events?show=deleted").await.body.contains("42"));
    let page = browser.get("/admin/events/login").await.body;
    assert!(
        !page.contains("id=\"describe\"") && page.contains("/undo\""),
        "what is deleted can only be restored: {page}"
    );
    let number = deleted.rsplit('=').next().unwrap();
    browser.post(&format!("/admin/changes/{number}/undo"), &[]).await;
    let page = browser.get("/admin/events/login").await.body;
    assert!(page.contains("data-live-value=\"event-total\">42<"), "{page}");
    assert!(dashboard.store.audit().await.unwrap().balance());
}

#[tokio::test]
async fn what_was_counted_a_moment_ago_can_be_changed_at_once() {
    let (dashboard, mut browser) = opened().await;
    let hour = crate::domain::Hour::containing(*dashboard.now.lock());
    dashboard.batches.record(&crate::domain::EventName::parse("fresh").unwrap(), hour, 1).unwrap();
    let (answer, ()) = tokio::join!(browser.post("/admin/events/fresh/deactivate", &[]), async {
        dashboard.batches.flush_requested().await;
        dashboard.node.flusher.flush().await.unwrap();
    });
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
}

#[tokio::test]
async fn a_past_hour_is_corrected_with_a_reason() {
    let (dashboard, mut browser) = opened().await;
    dashboard.count("login", 42).await;
    dashboard.pass(TimeDelta::hours(2));
    let hour = crate::domain::Hour::containing(*dashboard.now.lock()).plus(-2).number();
    let page = browser.get("/admin/events/login").await.body;
    assert!(page.contains(&format!("value=\"{hour}=42\"")), "{page}");
    let value = format!("{hour}=42");
    let fields = [("hour", &*value), ("count", "40"), ("reason", "twice <sent>")];
    assert_eq!(browser.post("/admin/events/login/correct", &fields).await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.post("/admin/events/login/correct", &fields).await.status, StatusCode::CONFLICT, "it is 40 now");
    let log = browser.get("/admin/changes").await.body;
    assert!(log.contains("15 May 2024, 10:00: 40 (twice &#60;sent&#62;)"), "{log}");
    browser.post("/admin/events/login/describe", &[("description", "2024051510: 1200")]).await;
    assert!(browser.get("/admin/changes").await.body.contains("2024051510: 1200"), "somebody's own words");
    assert!(dashboard.store.audit().await.unwrap().balance());
}

#[tokio::test]
async fn a_refusal_tells_hours_and_counts_as_the_viewer_reads_them_and_as_they_are_kept_to_programs() {
    let (dashboard, mut browser) = opened().await;
    dashboard.count("login", 4_200).await;
    dashboard.pass(TimeDelta::hours(2));
    browser.post("/admin/preferences", &[("zone", "Europe/Berlin")]).await;
    let stale = [("hour", "2024051510"), ("expected", "1300"), ("count", "40"), ("reason", "sent twice")];
    let page = browser.post("/admin/events/login/correct", &stale).await;
    assert_eq!(page.status, StatusCode::CONFLICT);
    let sentence = "The count of “login” in 15 May 2024, 12:00 is 4,200 by now, not 1,300.";
    assert!(page.body.contains(sentence), "{}", page.body);
    let (_, secret) = dashboard.add_key(None).await;
    let mut program = dashboard.browser();
    program.headers.push(("authorization", format!("Bearer {secret}")));
    let answer = program.post("/api/v1/admin/events/login/correct", &stale).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let sentence = "The count of “login” in 2024051510 is 4200 by now, not 1300.";
    assert_eq!(answer.json()["error"]["external"], sentence);
}

#[tokio::test]
async fn a_deleted_events_counts_go_when_its_grace_is_over() {
    let (dashboard, mut browser) = opened().await;
    dashboard.count("login", 42).await;
    browser.post("/admin/events/login/delete", &[]).await;
    dashboard.pass(TimeDelta::hours(167));
    dashboard.state.purge_deleted().await.unwrap();
    assert_eq!(dashboard.store.audit().await.unwrap().rows, 42);
    dashboard.pass(TimeDelta::hours(1));
    dashboard.state.purge_deleted().await.unwrap();
    assert_eq!(dashboard.store.audit().await.unwrap().rows, 42);
    dashboard.count("other", 1).await;
    let event = EventName::parse("other").unwrap();
    let now = *dashboard.now.lock();
    let deletion = dashboard.state.query.catalog().change(Change::Delete { event }, "ann", now);
    let Changed::Done { change } = deletion.await.unwrap() else { panic!("it is not deleted") };
    dashboard.pass(TimeDelta::hours(168));
    // Another node has restored it, which this one has not heard of.
    let now = *dashboard.now.lock();
    dashboard.store.change(Change::Undo { change }, "ann", now).await.unwrap();
    dashboard.state.purge_deleted().await.unwrap();
    assert_eq!(dashboard.store.audit().await.unwrap().rows, 1);
    dashboard.state.purge_deleted().await.unwrap();
    assert_eq!(dashboard.store.changes(vec![], None, 1).await.unwrap()[0].who, "event-tracker");
}

#[tokio::test]
async fn theme_and_time_zone_are_kept_in_the_browser() {
    let (dashboard, mut browser) = opened().await;
    dashboard.count("login", 1).await;
    let fields = [("zone", "Asia/Kolkata"), ("theme", "dark"), ("back", "/admin/events")];
    assert_eq!(browser.post("/admin/preferences", &fields).await.location(), "/admin/events");
    let page = browser.get("/admin").await.body;
    assert!(page.contains("data-theme=\"dark\"") && page.contains("Asia/Kolkata") && page.contains("UTC+05:30"));
    assert!(page.contains("45 minutes off"), "half-hour zones are explained");
    let wrong = browser.post("/admin/preferences", &[("zone", "x; Path=/")]).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn live_streams_are_bounded_and_end_when_the_service_drains() {
    let options = crate::admin::Options { streams_max: 1, ..crate::admin::Options::default() };
    let dashboard = Dashboard::with(options).await;
    dashboard.add_user("ann").await;
    dashboard.count("login", 7).await;
    let mut browser = dashboard.signed_in("ann").await;
    let once = browser.get("/admin/live.json").await.json();
    assert_eq!(
        (&once["response"]["total"], &once["response"]["status"]["books"]["state"]),
        (&7.into(), &"good".into())
    );
    let stream = browser.listen().await;
    assert_eq!(browser.get("/admin/live").await.status, StatusCode::SERVICE_UNAVAILABLE, "one is open");
    drop(stream);
    let stream = browser.listen().await;
    dashboard.state.begin_draining();
    ended(stream).await;
    assert_eq!(browser.get("/admin/live").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

/// Reads a stream to its end.
async fn ended(stream: warp::reply::Response) {
    let all = http_body_util::BodyExt::collect(stream.into_body());
    tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("the stream ends").unwrap();
}

#[tokio::test]
async fn a_live_stream_ends_with_what_let_it_in() {
    let (dashboard, mut ann) = opened().await;
    dashboard.add_user("eve").await;
    let eve = || dashboard.signed_in("eve");
    for action in ["sign-out", "disable", "enable", "delete"] {
        if action == "enable" {
            ann.confirm("/admin/users/eve/enable", &[]).await;
            continue;
        }
        let stream = eve().await.listen().await;
        ann.confirm(&format!("/admin/users/eve/{action}"), &[]).await;
        ended(stream).await;
    }
    let (id, secret) = dashboard.add_key(None).await;
    let mut program = dashboard.browser().without_origin();
    program.headers.push(("authorization", format!("Bearer {secret}")));
    let stream = program.listen().await;
    ann.post(&format!("/admin/keys/{id}/revoke"), &[]).await;
    ended(stream).await;

    // Who is still let in listens on.
    let mut stream = ann.listen().await;
    ann.confirm("/admin/keys", &[("label", "x"), ("days", "30")]).await;
    for _ in 0..2 {
        let next = http_body_util::BodyExt::frame(stream.body_mut());
        assert!(next.await.is_some_and(|frame| frame.is_ok()));
    }
    ann.post("/admin/logout", &[]).await;
    ended(stream).await;
}

#[tokio::test]
async fn while_the_store_is_away_nothing_is_guessed_wrong_and_the_browser_can_be_signed_out() {
    let (dashboard, mut browser) = opened().await;
    dashboard.count("login", 1).await;
    browser.get("/admin/users").await;
    dashboard.store.close().await;
    let changed = browser.post("/admin/events/login/describe", &[("description", "x")]).await;
    assert_eq!(changed.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(changed.body.contains("Whether the change was made is unknown"), "{}", changed.body);
    let changed = browser.post("/admin/users/eve/disable", &[]).await;
    assert!(changed.body.contains("Whether the change was made is unknown"), "{}", changed.body);
    assert!(browser.get("/admin/users").await.body.contains("nothing is lost"));
    for _ in 0..30 {
        let fields = [("user", "ann"), ("password", super::harness::PASSWORD)];
        let answer = dashboard.browser().post("/admin/login", &fields).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "this is no guess");
    }
    let answer = browser.post("/admin/logout", &[]).await;
    assert_eq!(answer.location(), "/admin/login?notice=signed-off-here");
    assert!(browser.cookies.iter().all(|(name, _)| name != "session"));
    assert!(browser.get("/admin/login?notice=signed-off-here").await.body.contains("This browser is signed out"));
}

#[tokio::test]
async fn the_log_of_an_event_goes_along_with_its_name() {
    let (dashboard, mut browser) = opened().await;
    dashboard.count("login", 1).await;
    dashboard.count("enter", 1).await;
    browser.post("/admin/events/login/describe", &[("description", "who comes")]).await;
    browser.post("/admin/events/login/move", &[("into", "sign-in")]).await;
    browser.post("/admin/events/sign-in/move", &[("into", "enter")]).await;
    let (_, secret) = dashboard.add_key(None).await;
    let mut program = dashboard.browser().without_origin();
    program.headers.push(("authorization", format!("Bearer {secret}")));
    for name in ["enter", "login", "sign-in"] {
        let log = program.get(&format!("/api/v1/admin/changes?event={name}")).await.json();
        let told: Vec<_> = log["response"].as_array().unwrap().iter().map(|line| line["what"].clone()).collect();
        assert_eq!(told, ["merge", "rename", "describe"], "{name}");
        assert!(browser.get(&format!("/admin/changes?event={name}")).await.body.contains("who comes"), "{name}");
    }
    assert!(browser.get("/admin/events/enter").await.body.contains("who comes"));
    let all = browser.get("/admin/changes").await.body;
    assert!(
        all.contains("create key") && all.contains("key 1 (a test)") && all.contains("href=\"/admin/keys\""),
        "{all}"
    );
    assert!(all.contains("add user") && all.contains("href=\"/admin/users\""), "{all}");
}

#[tokio::test]
async fn a_correction_counts_what_is_pending_under_other_names() {
    let (dashboard, mut browser) = opened().await;
    dashboard.count("login", 42).await;
    browser.post("/admin/events/login/move", &[("into", "sign-in")]).await;
    let hour = crate::domain::Hour::containing(*dashboard.now.lock());
    dashboard.batches.record(&crate::domain::EventName::parse("login").unwrap(), hour, 8).unwrap();
    dashboard.pass(TimeDelta::hours(2));
    let value = format!("{}=50", hour.number());
    let fields = [("hour", &*value), ("count", "49"), ("reason", "one too many")];
    let (answer, ()) = tokio::join!(browser.post("/admin/events/sign-in/correct", &fields), async {
        dashboard.batches.flush_requested().await;
        dashboard.node.flusher.flush().await.unwrap();
    });
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert_eq!(dashboard.store.audit().await.unwrap().rows, 49);
}
