//! A database that answers and turns the program away, until somebody mends what it says.

use std::time::{Duration, Instant};

use crate::harness::postgres::Cluster;
use crate::harness::{Backend, TestApp, eventually};

/// A database, and the URL of a role that may not log in.
async fn shut_out() -> (String, String) {
    let cluster = Cluster::shared();
    let database = cluster.create_database().await;
    let role = format!("refused_{database}");
    cluster.connect(&database).await.batch_execute(&format!("create role {role} nologin")).await.unwrap();
    let url = cluster.url(&database).replace("postgres://postgres@", &format!("postgres://{role}@"));
    (role, url)
}

#[tokio::test]
async fn a_database_that_turns_the_node_away_is_told_with_what_to_do_until_that_is_done() {
    let (role, url) = shut_out().await;
    let setup = TestApp::with(Backend::Postgres).database_url(&url);
    let mut app = setup.config("flush.interval_ms", 20).config("flush.retry_backoff_max_ms", 100).start().await;
    app.count("login", 7).await;
    let status = async || {
        let answer = app.get("/readyz").await;
        assert_eq!(answer.status, 200, "it can still count");
        answer.json()["response"]["store"].as_str().unwrap().to_owned()
    };
    eventually("/readyz to say so", async || status().await.starts_with("refused: ")).await;
    let said = status().await;
    assert!(said.contains("not permitted to log in") && said.contains("check the user"), "{said}");
    for _ in 0..20 {
        for target in ["/api/events/unique", "/api/events?start_date=20200101&end_date=99991231"] {
            let answer = app.get(target).await;
            let (internal, _) = answer.fails(503);
            assert!(internal.starts_with("store_refused: "), "{target}: {internal}");
        }
    }
    let mend = format!("alter role {role} login; grant create on schema public to {role}");
    Cluster::shared().connect(&app.database()).await.batch_execute(&mend).await.unwrap();
    eventually("the node to be let in", async || status().await == "reachable").await;
    assert_eq!(app.total("login").await, 7);
    let log = app.stop().await;
    assert_eq!(log.matches("turns this node away").count(), 1, "{log}");
    assert_eq!(app.audit().await, 7);
}

#[tokio::test]
async fn commands_on_a_database_that_turns_them_away_fail_in_seconds_and_say_what_to_do() {
    let (_, url) = shut_out().await;
    let app = TestApp::with(Backend::Postgres).database_url(&url).build().await;
    for arguments in [&["create-random-events", "--events", "10"][..], &["audit"], &["users", "list"]] {
        let began = Instant::now();
        let output = app.run(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("not permitted to log in") && said.contains("check the user"), "{arguments:?}: {said}");
        assert!(began.elapsed() < Duration::from_secs(20), "{arguments:?} took {:?}", began.elapsed());
    }
}
