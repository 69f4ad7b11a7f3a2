//! Every acknowledged count is in once, whatever dies or disconnects in between.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::fleet::copy_folder;
use crate::harness::postgres::Cluster;
use crate::harness::proxy::{Fault, Proxy};
use crate::harness::{Backend, Tally, TestApp, Traffic, eventually, on_both_stores, on_partitions};

on_both_stores!(
    kills_lose_and_double_nothing,
    stopping_and_starting_changes_nothing,
    a_second_process_on_the_same_folder_is_refused_at_once,
);
on_partitions!(kills_lose_and_double_nothing, stopping_and_starting_changes_nothing);

/// Twelve, or as many as the environment asks for.
fn kills() -> u64 {
    std::env::var("EVENT_TRACKER_KILLS")
        .ok()
        .map_or(12, |kills| kills.parse().expect("EVENT_TRACKER_KILLS is a number"))
}

async fn kills_lose_and_double_nothing(backend: Backend) {
    // Often enough that kills fall into every stage of a flush.
    survive_kills(TestApp::with(backend).config("flush.interval_ms", 10).start().await).await;
}

/// Kills it under traffic again and again; everything acknowledged is in once.
pub async fn survive_kills(mut app: TestApp) {
    let tally = Arc::new(Tally::default());
    let mut random = StdRng::seed_from_u64(12);
    for (round, query) in (1..=kills()).zip(["", "?ack=disk", "?ack=store"].into_iter().cycle()) {
        let traffic = Traffic::start(&app, &tally, 8, query);
        traffic.answered(random.random_range(20..200)).await;
        app.kill().await;
        traffic.cut_off().await;
        app.restart().await;
        let totals = app.totals().await;
        tally.settle(&totals);
        let in_store = app.audit().await;
        assert!(in_store <= totals.values().sum(), "round {round}: more in the store than was counted");
    }
    let totals = app.totals().await;
    app.stop().await;
    assert_eq!(app.audit().await, totals.values().sum::<u64>());
    eprintln!("{} kills, {} posts answered, {totals:?}", kills(), tally.answers());
}

async fn stopping_and_starting_changes_nothing(backend: Backend) {
    let mut app = TestApp::start(backend).await;
    app.count("login", 7).await;
    app.count("resource%2F209", 1_000_000_000).await;
    let (totals, rows) = (app.totals().await, app.range("20200101", "99991231").await);
    for start in 1..=3 {
        if start == 2 {
            app.kill().await
        } else {
            drop(app.stop().await)
        }
        app.restart().await;
        assert_eq!((app.totals().await, app.range("20200101", "99991231").await), (totals.clone(), rows.clone()));
    }
    assert_eq!(app.audit().await, 1_000_000_007);
}

async fn a_second_process_on_the_same_folder_is_refused_at_once(backend: Backend) {
    let mut app = TestApp::start(backend).await;
    app.count("login", 3).await;
    let second = app.run(&["serve"]).await;
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    assert!(second.stdout.is_empty(), "it must not say that it serves");
    app.count("login", 4).await;
    app.kill().await;
    app.restart().await;
    assert_eq!(app.total("login").await, 7);
}

/// The shared cluster behind a proxy.
async fn app_behind_proxy(settings: &[(&str, &str)]) -> (Proxy, TestApp) {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    let proxy = Proxy::start(url::Url::parse(&url).unwrap().port().unwrap()).await;
    let mut setup = TestApp::with(Backend::Postgres)
        .database_url(&proxy.url(&url))
        .config("flush.interval_ms", 10)
        .config("flush.retry_backoff_max_ms", 100)
        .config("store.connect_timeout_ms", 1000)
        .config("store.statement_timeout_ms", 1000);
    for (key, value) in settings {
        setup = setup.config(key, value);
    }
    let app = setup.start().await;
    eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
    (proxy, app)
}

/// Everything that was acknowledged is in once, for reads and in the store.
pub async fn settle(app: &mut TestApp, tally: &Tally) {
    eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
    let totals = app.totals().await;
    tally.settle(&totals);
    app.stop().await;
    assert_eq!(app.audit().await, totals.values().sum::<u64>());
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_counted_once() {
    let (proxy, mut app) = app_behind_proxy(&[]).await;
    let tally = Arc::new(Tally::default());
    let traffic = Traffic::start(&app, &tally, 4, "");
    for lost in 1..=8 {
        proxy.set(Fault::LoseCommit);
        eventually("a commit to be lost", async || proxy.lost_commits() == lost).await;
    }
    traffic.stop().await;
    let totals = app.totals().await;
    tally.settle(&totals);
    let log = app.stop().await;
    assert!(log.contains("already"), "the ledger was not asked: {log}");
    assert_eq!(app.audit().await, totals.values().sum::<u64>());
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_before_a_kill_is_counted_once() {
    let (proxy, mut app) = app_behind_proxy(&[("flush.interval_ms", "3600000")]).await;
    app.count("login", 42).await;
    proxy.set(Fault::LoseCommit);
    let flush = tokio::spawn(app.client().post(app.url("/api/events/login/58?ack=store")).send());
    eventually("the commit to be lost", async || proxy.lost_commits() == 1).await;
    proxy.set(Fault::Closed);
    app.kill().await;
    assert!(flush.await.unwrap().is_err(), "it was never confirmed");
    proxy.set(Fault::None);
    app.restart().await;
    eventually("the store to be reached", async || app.get("/api/events/unique").await.status == 200).await;
    assert_eq!(app.total("login").await, 100);
    app.stop().await;
    assert_eq!(app.audit().await, 100);
}

#[tokio::test]
async fn a_database_that_falls_silent_within_a_commit_gets_it_once() {
    let (proxy, mut app) = app_behind_proxy(&[]).await;
    let tally = Arc::new(Tally::default());
    for _ in 0..3 {
        let traffic = Traffic::start(&app, &tally, 4, "");
        traffic.answered(50).await;
        proxy.set(Fault::Silent);
        traffic.answered(150).await;
        proxy.set(Fault::Closed);
        proxy.set(Fault::None);
        traffic.stop().await;
    }
    settle(&mut app, &tally).await;
}

#[tokio::test]
async fn two_nodes_on_one_database_add_up() {
    let mut first = TestApp::with(Backend::Postgres).config("flush.interval_ms", 10).start().await;
    let mut second = first.another_node().await;
    second.restart().await;
    let tally = Arc::new(Tally::default());
    let traffic = [Traffic::start(&first, &tally, 4, ""), Traffic::start(&second, &tally, 4, "")];
    traffic[1].answered(300).await;
    // One of them may die meanwhile.
    first.kill().await;
    let [of_first, of_second] = traffic;
    of_first.cut_off().await;
    first.restart().await;
    of_second.stop().await;
    // Each node's own counts are exact at once; those of the other are soon after it has flushed.
    for node in [&first, &second] {
        let answer = tally.post(&node.client(), &node.url(""), "last", 1, "?ack=store").await.unwrap();
        assert!(answer.status < 300);
    }
    eventually("both nodes to agree", async || first.totals().await == second.totals().await).await;
    let totals = first.totals().await;
    tally.settle(&totals);
    first.stop().await;
    assert_eq!(second.audit().await, totals.values().sum::<u64>());
}

#[tokio::test]
async fn a_cloned_data_folder_delivers_its_batches_once() {
    let (proxy, mut app) = app_behind_proxy(&[]).await;
    proxy.set(Fault::Closed);
    app.count("login", 41).await;
    app.kill().await;
    let mut clone = app.another_node().await;
    copy_folder(&app.data_dir(), &clone.data_dir());
    proxy.set(Fault::None);
    tokio::join!(app.restart(), clone.restart());
    app.count("login", 1).await;
    clone.count("login", 1).await;
    for node in [&mut app, &mut clone] {
        eventually("the store to be reached", async || node.get("/api/events/unique").await.status == 200).await;
        node.stop().await;
    }
    assert_eq!(app.audit().await, 43);
}
