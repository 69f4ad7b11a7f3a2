//! What an administrator sees of a database that went back, and how it is accepted.

use serde_json::json;

use crate::harness::{Backend, Superuser, TestApp, eventually};

/// Keeps nothing that could be delivered again, so that the whole difference is missing.
async fn node_whose_database_lost_70_counts() -> (TestApp, Superuser) {
    let setup = TestApp::with(Backend::Sqlite).config("journal.keep_committed_ms", 0);
    let mut app = setup.config("flush.interval_ms", 20).start().await;
    let ada = Superuser::of(&app).await;
    app.count("login", 5).await;
    app.stop().await;
    let database = app.data_dir().join("events.sqlite");
    let older = std::fs::read(&database).unwrap();
    app.restart().await;
    app.post("/api/events/login/70?ack=store").await;
    let left = || std::fs::read_dir(app.data_dir().join("journal")).unwrap().flatten();
    eventually("nothing to be kept any more", async || {
        !left().any(|file| file.file_name().to_string_lossy().ends_with(".committed"))
    })
    .await;
    app.stop().await;
    std::fs::write(&database, older).unwrap();
    app.restart().await;
    (app, ada)
}

async fn store_is(app: &TestApp, expected: &str) {
    eventually(&format!("/readyz to say {expected}"), async || {
        let answer = app.get("/readyz").await;
        assert_eq!(answer.status, 200, "it can still count");
        answer.json()["response"]["store"].as_str().unwrap().starts_with(expected)
    })
    .await;
}

async fn audit(app: &TestApp) -> (bool, i64) {
    let output = app.run(&["audit", "--json"]).await;
    let sums: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sums["balanced"], true);
    (output.status.success(), sums["missing"].as_i64().unwrap())
}

#[tokio::test]
async fn missing_counts_are_reported_everywhere_until_the_dashboard_accepts_the_database() {
    let (mut app, ada) = node_whose_database_lost_70_counts().await;
    let (succeeded, missing) = audit(&app).await;
    assert!(!succeeded && missing >= 70, "{missing}");
    store_is(&app, &format!("behind: {missing} confirmed counts are missing")).await;
    assert_eq!(app.total("login").await, 5);
    let page = ada.page(&app, "/admin").await;
    assert!(page.contains(&format!("The database lacks {missing} counts")), "{page}");
    // It is known after another start, too, and counting goes on meanwhile.
    app.count("login", 3).await;
    app.kill().await;
    app.restart().await;
    store_is(&app, &format!("behind: {missing} ")).await;
    assert_eq!(app.total("login").await, 8);

    assert_eq!(ada.submit(&app, "/admin/store/accept", &[]).await.status, 303);
    store_is(&app, "reachable").await;
    assert!(!ada.page(&app, "/admin").await.contains("The database lacks"));
    assert_eq!(audit(&app).await, (true, 0));
    let log = app.stop().await;
    assert!(log.contains("accepted as it is"), "{log}");
    app.restart().await;
    store_is(&app, "reachable").await;
}

#[tokio::test]
async fn a_program_and_a_command_accept_the_database_as_well() {
    let (app, ada) = node_whose_database_lost_70_counts().await;
    let (_, missing) = audit(&app).await;
    app.send("POST", "/api/v1/admin/store/accept", &[], "").await.fails(401);
    let accepted = ada.post(&app, "store/accept", &json!({})).await.unwrap();
    assert_eq!((accepted.status, accepted.json()["response"]["accepted"].as_i64()), (200, Some(missing)));
    store_is(&app, "reachable").await;

    let (app, _) = node_whose_database_lost_70_counts().await;
    store_is(&app, "behind: ").await;
    let output = app.run(&["accept-store"]).await;
    assert!(output.status.success(), "{output:?}");
    store_is(&app, "reachable").await;
    assert_eq!(audit(&app).await, (true, 0));
}

#[tokio::test]
async fn accepting_the_store_of_a_folder_that_is_none_is_refused() {
    let app = TestApp::with(Backend::Sqlite).build().await;
    let output = app.run(&["accept-store"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("is not a data folder"), "{said}");
}
