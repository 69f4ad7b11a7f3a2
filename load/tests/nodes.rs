//! Several nodes of one database, and what is said when one of them miscounts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fake;
mod service;

// What the tests of the service start PostgreSQL with; here it only has to run.
#[allow(dead_code)]
#[path = "../../tests/it/harness/keeper.rs"]
mod keeper;
#[allow(dead_code)]
#[path = "../../tests/it/harness/packages.rs"]
mod packages;
#[allow(dead_code)]
#[path = "../../tests/it/harness/postgres.rs"]
mod postgres;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fake::{Fake, Faults};
use postgres::Cluster;
use serde_json::Value;
use service::{event_load, file, service, text};

const FLUSH_INTERVAL_MS: u64 = 300;

/// 200 requests of every kind over some names.
const SCENARIO: &str = r#"
description = "test"
[names]
distribution = "zipf"
count = 30
style = "path"
[[phase]]
name = "phase"
duration_s = 1
rate_per_s = 200
connections = 7
mix = [
    { op = "single", weight = 50 },
    { op = "num", weight = 20, num = 7 },
    { op = "batch", weight = 10, rows = 20 },
    { op = "unique", weight = 5 },
    { op = "range", weight = 5, hours = 24 },
    { op = "poll", weight = 5 },
    { op = "histogram", weight = 5 },
]
"#;

/// Every count is one request.
const SINGLES: &str = r#"
description = "test"
names = { distribution = "uniform", count = 4 }
[[phase]]
name = "phase"
duration_s = 1
rate_per_s = 200
connections = 4
mix = [{ op = "single", weight = 1 }]
"#;

/// A running service; ended when dropped.
struct Node {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Node {
    fn start(database: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(service());
        command.args(["serve", "--listen", "127.0.0.1:0", "--database-url", database, "--data-dir"]);
        command.arg(folder.path()).env_remove("DATABASE_URL").env_remove("PORT");
        command.env("EVENT_TRACKER__FLUSH__INTERVAL_MS", FLUSH_INTERVAL_MS.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split(' ').find(|word| word.starts_with("http://")).unwrap();
        Self { child, url: url.trim_end_matches(',').to_owned(), _folder: folder }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster for the one test, and the addresses of as many databases in it.
fn databases(count: usize) -> (Cluster, Vec<String>) {
    let cluster = Cluster::private();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut urls = Vec::new();
    for _ in 0..count {
        urls.push(cluster.url(&runtime.block_on(cluster.create_database())));
    }
    (cluster, urls)
}

fn said(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn two_nodes_of_one_database_share_the_load_and_each_shows_the_sum() {
    let (_cluster, databases) = databases(1);
    let (one, other) = (Node::start(&databases[0]), Node::start(&databases[0]));
    let scenario = file(SCENARIO);
    let run = ["run", scenario.path().to_str().unwrap(), "--json", "--threads", "3"];
    let output = event_load(&[&run[..], &["--target", &one.url, "--target", &other.url]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(report["target"], format!("{}, {}", one.url, other.url));
    assert_eq!((&report["phases"][0]["ok"], &report["phases"][0]["error_sum"]), (&200.into(), &0.into()));
    assert!(report["phases"][0]["server_cpu_us_per_request"].is_number());
    let verification = &report["verification"];
    let settled_s = verification["settled_s"].as_f64().unwrap();
    assert!(settled_s > 0.0, "the reads at once can't have had all");
    let sum = verification["acknowledged"].as_u64().unwrap();
    let targets = verification["targets"].as_array().unwrap();
    let acknowledged: Vec<u64> = targets.iter().map(|target| target["acknowledged"].as_u64().unwrap()).collect();
    assert_eq!(acknowledged.iter().sum::<u64>(), sum);
    assert!(acknowledged.iter().all(|one| *one > sum / 5), "{acknowledged:?}");
    assert!(targets.iter().all(|target| target["counted"] == sum), "{verification}");

    // A second time the same names are there already.
    let line = r#"h - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 12"#;
    let log = file(&format!("{line}\n").repeat(100));
    let both = format!("{},{}", one.url, other.url);
    for _ in 0..2 {
        let output = event_load(&["replay", log.path().to_str().unwrap(), "--speed", "max", "--target", &both]);
        let summary = said(&output);
        assert_eq!(output.status.code(), Some(0), "{summary}");
        assert!(
            summary.contains("verified: 100 acknowledged, 100 counted, 1 events, the same at 2 targets"),
            "{summary}"
        );
        assert!(summary.contains(&format!("{}: acknowledged 50, unknown 0; shows 100 of all", one.url)), "{summary}");
    }
}

#[test]
fn a_target_of_another_database_fails_the_run() {
    let (_cluster, databases) = databases(2);
    let (one, other) = (Node::start(&databases[0]), Node::start(&databases[1]));
    let scenario = file(SINGLES);
    let both = format!("{},{}", one.url, other.url);
    let run = ["run", scenario.path().to_str().unwrap(), "--target", &both, "--settle-s", "2"];
    let output = event_load(&[&run[..], &["--prefix", "test-"]].concat());
    let summary = said(&output);
    assert_eq!(output.status.code(), Some(1), "{summary}");
    assert!(summary.contains("NOT VERIFIED: 200 acknowledged, 100 counted"), "{summary}");
    for read in ["unique", "range"] {
        assert!(summary.contains(&format!("{read} of {}: \"test-0\"", other.url)), "{summary}");
    }
    assert!(!summary.contains("at once"), "each shows its own: {summary}");
    assert!(summary.contains("do they share one database"), "{summary}");

    // Once they differ, a run that can't tell its own counts from earlier ones does not begin.
    let log = file(r#"h - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 12"#);
    let replay = ["replay", log.path().to_str().unwrap(), "--target"];
    assert_eq!(event_load(&[&replay[..], &[&one.url]].concat()).status.code(), Some(0));
    let output = event_load(&[&replay[..], &[&both, "--settle-s", "0.1"]].concat());
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("\"/a\" is 1 at {} and 0 at {}", one.url, other.url)), "{told}");
}

/// A run over one exact node and one with faults, of one store; gives its exit code and what it said.
fn run_beside(faults: Faults, more: &[&str]) -> (Option<i32>, String) {
    let one = Fake::start(Faults::default());
    let other = one.beside(faults);
    let scenario = file(SINGLES);
    let both = format!("{},{}", one.url(), other.url());
    let run = ["run", scenario.path().to_str().unwrap(), "--target", &both, "--settle-s", "0.2"];
    let output = event_load(&[&run[..], more].concat());
    assert_eq!(one.requests(), other.requests(), "the requests are spread evenly");
    (output.status.code(), said(&output))
}

#[test]
fn one_count_that_one_of_two_targets_loses_or_doubles_fails_the_run() {
    let (code, summary) = run_beside(Faults { lose: Some(33), ..Faults::default() }, &[]);
    assert_eq!(code, Some(1), "{summary}");
    assert!(summary.contains("NOT VERIFIED: 200 acknowledged, 199 counted") && summary.contains("1 lost"), "{summary}");
    let (code, summary) = run_beside(Faults { double: Some(33), ..Faults::default() }, &[]);
    assert_eq!(code, Some(1), "{summary}");
    assert!(summary.contains("NOT VERIFIED: 200 acknowledged, 201 counted"), "{summary}");
    assert!(summary.contains("1 too many"), "{summary}");
    assert!(run_beside(Faults::default(), &[]).0 == Some(0));
}

#[test]
fn lost_answers_of_one_target_widen_what_all_may_show() {
    let faults = Faults { reset_every: Some(25), ..Faults::default() };
    let (code, summary) = run_beside(faults, &["--max-errors", "4"]);
    assert_eq!(code, Some(0), "{summary}");
    assert!(summary.contains("196 acknowledged, up to 4 more of unknown outcome, 198 counted"), "{summary}");
    assert!(summary.contains("acknowledged 96, unknown 4; shows 198 of all"), "{summary}");
}

#[test]
fn a_target_that_stands_still_is_not_given_up_at_once() {
    let faults = Faults { freeze: Some((50, Duration::from_millis(300))), ..Faults::default() };
    let (code, summary) = run_beside(faults, &[]);
    assert_eq!(code, Some(0), "{summary}");
}

#[test]
fn a_fleet_says_what_it_costs_is_exact_and_leaves_nothing_behind() {
    let (cluster, databases) = databases(1);
    let small = ["fleet", "--nodes", "3", "--counters", "50", "--flush-interval-ms", "100", "--seconds", "2"];
    let folder = tempfile::tempdir().unwrap();
    let place = ["--database-url", &databases[0], "--folder", folder.path().to_str().unwrap()];
    for shared in ["true", "false"] {
        let more = ["--readers", "3", "--shared", shared, "--json"];
        let output = event_load(&[&small[..], &place, &more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
        let figure = |name: &str| figures[name].as_f64().unwrap_or_else(|| panic!("{name}: {figures}"));
        assert_eq!(figures["exact"], true, "{figures}");
        assert_eq!(figures["deadlocks"], 0, "{figures}");
        // The marker of each node is one counter more.
        assert_eq!(figures["sizes"]["rows"], if shared == "true" { 53 } else { 153 });
        assert!((50.0..=51.0).contains(&figure("counters_per_commit").round()), "{figures}");
        for positive in ["commits_per_s", "postgresql_us_per_counter", "wal_bytes_per_counter", "nodes_us_per_counter"]
        {
            assert!(figure(positive) > 0.0, "{positive}: {figures}");
        }
        let staleness = &figures["staleness"];
        assert!(staleness["samples"].as_u64().unwrap() > 100, "{figures}");
        assert!(staleness["p50_ms"].as_f64().unwrap() > 1.0, "{figures}");
    }
    let output = event_load(&[&small[..], &place].concat());
    assert!(text(&output.stdout).contains("exact: every node shows what all acknowledged"), "{}", said(&output));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let left = runtime.block_on(async {
        let client = cluster.connect("postgres").await;
        let sql = "select count(*) from pg_database where datname like 'event_load_fleet%'";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
    });
    assert_eq!(left, 0);

    for (arguments, code, expected) in [
        (&["--database-url", "sqlite:x"][..], 2, "expected postgres://USER:PASSWORD@HOST/DATABASE"),
        (&["--database-url", &databases[0], "--nodes", "0"], 2, "--nodes is 0; expected 1 to 1000"),
        (&["--database-url", &databases[0], "--nodes", "100"], 1, "this fleet needs 510"),
        (&["--database-url", "postgres://postgres@127.0.0.1:1/x"], 1, "can't connect to PostgreSQL"),
    ] {
        let output = event_load(&[&["fleet"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(text(&output.stderr).contains(expected), "{}", said(&output));
    }
}
