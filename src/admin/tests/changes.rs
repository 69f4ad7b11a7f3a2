//! The log of changes, as pages and programs are told it.

use chrono::TimeDelta;

use super::harness::{Browser, Dashboard};

/// Two changes of `login`: a description that looks like a line of the log, and a correction.
async fn changed() -> (Dashboard, Browser, Browser) {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    let mut browser = dashboard.signed_in("ann").await;
    browser.post("/admin/preferences", &[("zone", "Europe/Berlin")]).await;
    dashboard.count("login", 4_200).await;
    dashboard.pass(TimeDelta::hours(2));
    browser.post("/admin/events/login/describe", &[("description", "2024051510: 1200")]).await;
    let fields = [("hour", "2024051510"), ("expected", "4200"), ("count", "40"), ("reason", "2024051510: 1200")];
    browser.post("/admin/events/login/correct", &fields).await;
    let (_, secret) = dashboard.add_key(None).await;
    let mut program = dashboard.browser().without_origin();
    program.headers.push(("authorization", format!("Bearer {secret}")));
    (dashboard, browser, program)
}

#[tokio::test]
async fn programs_get_the_facts_of_a_change_and_sentences_made_of_them() {
    let (_dashboard, mut browser, mut program) = changed().await;
    let log = program.get("/api/v1/admin/changes?event=login").await.json();
    let correction = &log["response"][0];
    assert_eq!(correction["before"], "2024051510: 4200");
    assert_eq!(correction["after"], "2024051510: 40 (2024051510: 1200)");
    let facts = serde_json::json!({
        "before": [{ "fact": "hourly_count", "hour": "2024051510", "count": 4200 }],
        "after": [
            { "fact": "hourly_count", "hour": "2024051510", "count": 40 },
            { "fact": "reason", "text": "2024051510: 1200" },
        ],
    });
    assert_eq!(correction["facts"], facts);
    let page = browser.get("/admin/changes").await.body;
    assert!(page.contains("15 May 2024, 12:00: 4,200<"), "{page}");
    assert!(page.contains("15 May 2024, 12:00: 40 (2024051510: 1200)"), "{page}");
}

#[tokio::test]
async fn an_undone_description_stays_in_the_words_of_its_author() {
    let (_dashboard, mut browser, mut program) = changed().await;
    let log = program.get("/api/v1/admin/changes?event=login").await.json();
    let number = log["response"][1]["change"].to_string();
    browser.post(&format!("/admin/changes/{number}/undo"), &[]).await;
    let log = program.get("/api/v1/admin/changes?event=login&limit=1").await.json();
    assert_eq!(log["response"][0]["before"], "2024051510: 1200");
    assert_eq!(log["response"][0]["after"], format!("(undid change {number}, describe)"));
    let page = browser.get("/admin/changes").await.body;
    assert!(page.contains("<bdi>2024051510: 1200</bdi>"), "{page}");
}

#[tokio::test]
async fn a_line_of_an_earlier_version_is_shown_as_it_was_written() {
    let (dashboard, mut browser, mut program) = changed().await;
    let (before, after) = ("“login” with 4200 from 2024051510 to 2024051510", "2024051510: 40 (twice)");
    dashboard.execute(&format!("update admin_changes set facts = null, before = '{before}', after = '{after}'"));
    let log = program.get("/api/v1/admin/changes").await.json();
    for line in log["response"].as_array().unwrap() {
        assert_eq!((&line["before"], &line["after"]), (&before.into(), &after.into()));
        assert!(line["facts"].is_null(), "{line}");
    }
    for page in ["/admin/changes", "/admin/events/login"] {
        let page = browser.get(page).await.body;
        assert!(page.contains(before) && page.contains(after), "{page}");
    }
}
