//! Data folders and databases of the first version are taken over: every count is delivered once, and
//! today's answers are those of the old program.

use std::path::{Path, PathBuf};

use crate::harness::fleet::copy_folder;
use crate::harness::postgres::Cluster;
use crate::harness::{Backend, TestApp, eventually};

/// In `fixtures/v1/README.md` it is said what they hold.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/v1").join(name)
}

/// The old answers, by their targets.
fn answers(name: &str) -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(&std::fs::read_to_string(fixture(&format!("{name}.json"))).unwrap()).unwrap()
}

async fn says_the_same(app: &TestApp, name: &str) {
    eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
    for (target, expected) in answers(name) {
        let answer = app.get(&target).await.json()["response"].clone();
        if target.contains("histogram") {
            assert_eq!(answer["total"], expected["total"], "{target}");
        } else {
            assert_eq!(answer, expected, "{target}");
        }
    }
}

async fn is_taken_over(mut app: TestApp, name: &str) {
    copy_folder(&fixture(name), &app.data_dir());
    let in_all: u64 = answers(name)["/api/events/unique"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item[0]["count"].as_u64().unwrap())
        .sum();
    // Three starts: delivered, delivered again if that were possible, and after a kill.
    for start in 1..=3 {
        app.restart().await;
        says_the_same(&app, name).await;
        if start == 2 {
            app.kill().await
        } else {
            drop(app.stop().await)
        }
        // `junk` is hidden, and still in the books.
        assert_eq!(app.audit().await, in_all + 9, "start {start}");
    }
    app.restart().await;
    app.count("sign-in", 1_000).await;
    let before = answers(name)["/api/events/unique"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|item| (item[0]["event"] == "login").then(|| item[0]["count"].as_u64().unwrap()));
    assert_eq!(app.total("login").await, before.unwrap() + 1_000, "the alias of the old program still holds");
    let users = app.run(&["users", "list"]).await;
    assert!(String::from_utf8_lossy(&users.stdout).contains("ada"), "{users:?}");
    app.stop().await;
    assert_eq!(app.audit().await, in_all + 9 + 1_000);
}

#[tokio::test]
async fn a_folder_of_the_first_version_with_its_sqlite_database_is_taken_over() {
    is_taken_over(TestApp::with(Backend::Sqlite).build().await, "sqlite").await;
}

#[tokio::test]
async fn a_folder_of_the_first_version_and_its_postgresql_database_are_taken_over() {
    let app = TestApp::with(Backend::Postgres).build().await;
    let store = Cluster::shared().connect(&app.database()).await;
    store.batch_execute(&std::fs::read_to_string(fixture("postgres.sql")).unwrap()).await.unwrap();
    is_taken_over(app, "postgres").await;
}
