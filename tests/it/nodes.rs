//! The live nodes, as the program tells them.

use serde_json::Value;

use crate::harness::fleet::copy_folder;
use crate::harness::{Backend, Superuser, TestApp, eventually, on_both_stores};

on_both_stores!(an_idle_node_is_shown_and_one_that_counts_says_so, the_route_takes_what_other_reads_take);

async fn nodes(app: &TestApp) -> Vec<Value> {
    let answer = app.get("/api/v1/nodes").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["status"], true, "{body}");
    body["response"].as_array().unwrap().clone()
}

async fn live(app: &TestApp, count: usize) -> Vec<Value> {
    eventually(&format!("{count} nodes to live"), async || nodes(app).await.len() == count).await;
    nodes(app).await
}

/// What a node says of another, by its address.
fn at<'a>(nodes: &'a [Value], app: &TestApp) -> &'a Value {
    nodes.iter().find(|node| node["address"] == app.address()).unwrap_or_else(|| panic!("{nodes:?}"))
}

async fn an_idle_node_is_shown_and_one_that_counts_says_so(backend: Backend) {
    let mut app = TestApp::with(backend).config("flush.interval_ms", 3_600_000).start().await;
    let seen = live(&app, 1).await;
    let node = at(&seen, &app);
    assert_eq!((&node["this"], &node["copied"], &node["lag_ms"]), (&true.into(), &false.into(), &0.into()), "{node}");
    assert_eq!((&node["last_commit"], &node["version"]), (&Value::Null, &env!("CARGO_PKG_VERSION").into()));
    assert_eq!(node["node"].as_str().unwrap().len(), 32);
    assert!(node["reported_ms"].as_u64().unwrap() < 60_000 && !node["host"].as_str().unwrap().is_empty(), "{node}");
    let started: chrono::DateTime<chrono::Utc> = node["started"].as_str().unwrap().parse().unwrap();
    assert!((chrono::Utc::now() - started).abs() < chrono::TimeDelta::minutes(5), "{node}");
    // A waiting count grows old.
    app.count("login", 1).await;
    eventually("a count to wait", async || at(&nodes(&app).await, &app)["lag_ms"].as_u64().unwrap() > 2_000).await;
    assert_eq!(app.post("/api/events/login?ack=store").await.status, 201);
    eventually("the commit to show", async || {
        let seen = nodes(&app).await;
        let node = at(&seen, &app);
        node["lag_ms"] == 0 && node["last_commit"].is_string()
    })
    .await;
    app.stop().await;
}

async fn the_route_takes_what_other_reads_take(backend: Backend) {
    let app = TestApp::start(backend).await;
    live(&app, 1).await;
    let (get, slash) = (app.get("/api/v1/nodes").await, app.get("/api/v1/nodes/").await);
    assert_eq!((get.status, slash.status), (200, 200));
    assert_eq!((get.header("content-type"), get.header("cache-control")), ("application/json", "no-store"));
    let head = app.raw("HEAD", "/api/v1/nodes").await;
    assert_eq!((head.status, head.body.len(), head.header("content-type")), (200, 0, "application/json"));
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = app.raw(method, "/api/v1/nodes").await;
        answer.fails(405);
        assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS", "{method}");
    }
    for target in ["/api/v1", "/api/v1/", "/api/v1/node", "/api/v1/nodes/x", "/api/nodes", "/api/v1//nodes"] {
        app.raw("GET", target).await.fails(404);
    }
    assert!(app.get("/").await.text().contains("GET /api/v1/nodes"));
}

#[tokio::test]
async fn two_nodes_are_two_a_restart_stays_one_and_a_stopped_node_is_gone_at_once() {
    let mut first = TestApp::with(Backend::Postgres).start().await;
    let mut second = first.another_node().await;
    second.restart().await;
    let (of_first, of_second) = (live(&first, 2).await, live(&second, 2).await);
    assert_eq!(at(&of_first, &first)["this"], true);
    assert_eq!(at(&of_first, &second)["this"], false);
    assert_eq!(at(&of_second, &second)["this"], true);
    let id = |nodes: &[Value], app: &TestApp| at(nodes, app)["node"].clone();
    assert_ne!(id(&of_first, &first), id(&of_first, &second));
    assert!(of_first.iter().all(|node| node["copied"] == false));
    let before = at(&of_first, &first).clone();

    first.kill().await;
    first.restart().await;
    eventually("the restart to show", async || {
        nodes(&second).await.iter().any(|node| node["address"] == first.address())
    })
    .await;
    let now = nodes(&second).await;
    assert_eq!(now.len(), 2, "{now:?}");
    assert_eq!(id(&now, &first), before["node"]);
    assert_ne!(at(&now, &first)["writer"], before["writer"]);
    assert!(now.iter().all(|node| node["copied"] == false));

    first.stop().await;
    // The answer may be the one that was given a moment ago.
    let left = std::time::Instant::now();
    live(&second, 1).await;
    assert!(left.elapsed() < std::time::Duration::from_secs(10), "it was forgotten only for its silence");
}

#[tokio::test]
async fn a_killed_node_disappears_after_its_time() {
    let mut first = TestApp::with(Backend::Postgres).start().await;
    let mut second = first.another_node().await;
    second.restart().await;
    live(&second, 2).await;
    first.kill().await;
    assert_eq!(nodes(&second).await.len(), 2, "it may only be late");
    assert_eq!(live(&second, 1).await[0]["this"], true);
}

#[tokio::test]
async fn a_copied_data_folder_beside_its_original_shows_as_such() {
    let mut app = TestApp::with(Backend::Postgres).start().await;
    live(&app, 1).await;
    let mut copy = app.another_node().await;
    copy_folder(&app.data_dir(), &copy.data_dir());
    copy.restart().await;
    let seen = live(&app, 2).await;
    assert!(seen.iter().all(|node| node["copied"] == true), "{seen:?}");
    assert_eq!(at(&seen, &app)["node"], at(&seen, &copy)["node"]);
    let superuser = Superuser::of(&app).await;
    eventually("the dashboard to warn", async || {
        superuser.page(&app, "/admin").await.contains("2 live, 2 of them on copied data folders")
    })
    .await;
    copy.stop().await;
    app.stop().await;
}

#[tokio::test]
async fn the_dashboard_shows_the_live_nodes() {
    let first = TestApp::with(Backend::Postgres).start().await;
    let mut second = first.another_node().await;
    second.restart().await;
    live(&first, 2).await;
    first.count("login", 1).await;
    let superuser = Superuser::of(&first).await;
    eventually("both nodes to show", async || superuser.page(&first, "/admin").await.contains("2 live")).await;
    let page = superuser.page(&first, "/admin").await;
    let (_, table) = page.split_once(r#"id="nodes">"#).expect("a table of nodes");
    let (table, _) = table.split_once("</table>").unwrap();
    for app in [&first, &second] {
        assert_eq!(table.matches(app.address()).count(), 1, "{table}");
    }
    assert_eq!(table.matches("this one").count(), 1, "{table}");
    assert_eq!(superuser.get(&first, "status").await["status"]["nodes"]["text"], "2 live");
}

#[tokio::test]
async fn a_report_that_fails_stops_nothing() {
    let mut app = TestApp::with(Backend::Postgres).start().await;
    live(&app, 1).await;
    let client = crate::harness::postgres::Cluster::shared().connect(&app.database()).await;
    client.batch_execute("alter table nodes rename to elsewhere").await.unwrap();
    eventually("the route to fail", async || app.get("/api/v1/nodes").await.status == 500).await;
    for _ in 0..20 {
        assert!(app.post("/api/events/login/2?ack=store").await.status < 300);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(app.total("login").await, 40);
    assert_eq!(app.get("/readyz").await.json()["response"]["store"], "reachable");
    app.stop().await;
    assert_eq!(app.audit().await, 40);
    app.restart().await;
    assert_eq!(app.total("login").await, 40);
    client.batch_execute("alter table elsewhere rename to nodes").await.unwrap();
    live(&app, 1).await;
}
