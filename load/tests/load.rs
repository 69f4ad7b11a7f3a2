//! The load tool against a service that can misbehave on purpose.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fake;
mod parts;
mod service;

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use chrono::Utc;
use event_load::cpu::Processes;
use event_load::plan::Phase;
use event_load::report::{PhaseReport, Report};
use event_load::run::{Options, run};
use event_load::scenario::{AckLevel, SHIPPED, Scenario};
use event_load::tally::Tally;
use event_load::target::Target;
use event_load::yardsticks::{Server, Yardstick};
use fake::{Fake, Faults};
use service::{event_load, file, service, text};

const PREFIX: &str = "test-";

const ALL_OPERATIONS: &str = r#"[
    { op = "single", weight = 50 },
    { op = "num", weight = 20, num = 7 },
    { op = "batch", weight = 5, rows = 20 },
    { op = "batch", weight = 5, rows = 20, format = "ndjson", count = 3 },
    { op = "unique", weight = 5 },
    { op = "range", weight = 5, hours = 24 },
    { op = "poll", weight = 5 },
    { op = "histogram", weight = 5 },
]"#;

const SINGLE: &str = r#"[{ op = "single", weight = 1 }]"#;

fn scenario(keys: &str, mix: &str) -> String {
    let names = "[names]\ndistribution = \"zipf\"\ncount = 30\nstyle = \"path\"\n";
    format!("description = \"test\"\n{names}[[phase]]\nname = \"phase\"\n{keys}\nmix = {mix}\n")
}

fn options(target: Target) -> Options {
    let stop = Arc::new(AtomicBool::new(false));
    let prefix = Some(PREFIX.to_owned());
    Options { target, threads: 2, verify: true, prefix, list_events: false, server_pid: None, progress: false, stop }
}

fn run_scenario(fake: &Fake, keys: &str, mix: &str) -> Report {
    let scenario = Scenario::parse(&scenario(keys, mix)).unwrap();
    let options = options(fake.target());
    let phases = Phase::from_scenario(&scenario, &options.target.host, PREFIX).unwrap();
    run("test", &phases, &options).unwrap()
}

#[test]
fn an_exact_service_is_verified_with_every_operation_and_answers_in_chunks() {
    for chunked in [false, true] {
        let fake = Fake::start(Faults { chunked, ..Faults::default() });
        let report = run_scenario(&fake, "duration_s = 1\nrate_per_s = 400", ALL_OPERATIONS);
        let verification = report.verification.as_ref().unwrap();
        assert!(report.passed(0), "{}", report.summary());
        assert_eq!(report.phases[0].ok, 400);
        assert_eq!(verification.acknowledged, fake.counts().values().sum::<u64>());
        assert!(report.phases[0].operations.iter().all(|operation| operation.ok > 0), "{}", report.summary());
        assert_eq!(report.phases[0].not_modified > 0, !chunked, "only the unchunked answers carry an ETag");
    }
}

#[test]
fn one_lost_count_fails_the_run_and_is_named() {
    let fake = Fake::start(Faults { lose: Some(77), ..Faults::default() });
    let file = file(&scenario("duration_s = 1\nrate_per_s = 200", SINGLE));
    let output = event_load(&["run", file.path().to_str().unwrap(), "--target", &fake.url(), "--prefix", PREFIX]);
    assert_eq!(output.status.code(), Some(1));
    let summary = text(&output.stdout);
    assert!(summary.contains("NOT VERIFIED: 200 acknowledged, 199 counted"), "{summary}");
    assert!(summary.contains("1 lost"), "{summary}");
    assert!(summary.contains("\"test-/shop/an item/"), "the event is named: {summary}");
}

#[test]
fn one_doubled_count_fails_the_run() {
    let fake = Fake::start(Faults { double: Some(77), ..Faults::default() });
    let report = run_scenario(&fake, "duration_s = 1\nrate_per_s = 200", SINGLE);
    let verification = report.verification.as_ref().unwrap();
    assert!(!report.passed(u64::MAX));
    assert_eq!((verification.differences, verification.counted), (1, 201));
    assert!(report.summary().contains("1 too many"), "{}", report.summary());
}

#[test]
fn answers_to_pipelined_requests_are_matched_in_order() {
    // Were an answer matched with its neighbour's request, a refused name would be credited.
    let fake = Fake::start(Faults { refuse_every: Some(7), ..Faults::default() });
    let report = run_scenario(&fake, "duration_s = 0.5\nconnections = 3\npipeline = 16", ALL_OPERATIONS);
    let verification = report.verification.as_ref().unwrap();
    assert!(verification.exact, "{}", report.summary());
    assert_eq!(verification.unknown, 0);
    assert_eq!(report.phases[0].errors.keys().collect::<Vec<_>>(), ["HTTP 503"]);
    assert!(report.passed(u64::MAX) && !report.passed(0));
}

#[test]
fn lost_connections_leave_unknown_outcomes_that_widen_what_is_allowed() {
    let fake = Fake::start(Faults { reset_every: Some(25), ..Faults::default() });
    let report = run_scenario(&fake, "duration_s = 1\nrate_per_s = 400\nconnections = 4", SINGLE);
    let verification = report.verification.as_ref().unwrap();
    assert!(verification.exact, "{}", report.summary());
    assert_eq!(report.phases[0].unknown, 16, "{}", report.summary());
    assert_eq!(verification.unknown, 16);
    assert_eq!(report.phases[0].ok, 384);
    assert_eq!(verification.counted, 384 + 8, "every other one was counted before the connection ended");
    assert_eq!(fake.requests(), 400, "nothing is sent a second time");
}

#[test]
fn a_stall_of_the_server_shows_in_every_request_that_should_have_started_meanwhile() {
    let fake = Fake::start(Faults { freeze: Some((300, Duration::from_millis(200))), ..Faults::default() });
    let report = run_scenario(&fake, "duration_s = 1\nrate_per_s = 1000\nconnections = 4", SINGLE);
    let phase = &report.phases[0];
    assert_eq!((phase.intended, phase.ok), (Some(1000), 1000), "{}", report.summary());
    // A loop that waits for answers would have seen four slow ones: one a connection.
    let slow = phase.tally.operations[0].latencies.count_between(50_000_000, u64::MAX);
    assert!(slow >= 140, "{slow} requests were meant to start in the first 150 ms of the stall");
}

#[test]
fn what_can_not_be_sent_in_time_is_an_error_and_not_a_gap() {
    let fake = Fake::start(Faults { freeze: Some((50, Duration::from_secs(3))), ..Faults::default() });
    let scenario = scenario("duration_s = 1\nrate_per_s = 500\nconnections = 2\ntimeout_ms = 300", SINGLE);
    let options = Options { verify: false, ..options(fake.target()) };
    let phases = Phase::from_scenario(&Scenario::parse(&scenario).unwrap(), &options.target.host, PREFIX).unwrap();
    let report = run("test", &phases, &options).unwrap();
    let phase = &report.phases[0];
    assert_eq!(phase.ok + phase.error_sum, 500, "{}", report.summary());
    assert!(phase.errors["not sent in time"] > 100, "{}", report.summary());
    assert!(phase.errors["timeout"] > 0, "{}", report.summary());
    // Clients waited for them, so they are in the percentiles and in the picture.
    assert!(phase.latency.p99_us >= 300_000.0, "{}", report.summary());
    assert_eq!(phase.tally.slices.iter().map(|slice| slice.errors).sum::<u64>(), phase.error_sum);
    assert!(report.summary().contains("requests that were given up"), "{}", report.summary());
}

#[test]
fn without_keep_alive_every_request_has_a_connection_of_its_own() {
    let fake = Fake::start(Faults::default());
    let report = run_scenario(&fake, "duration_s = 0.5\nrate_per_s = 200\nkeep_alive = false", SINGLE);
    assert!(report.passed(0), "{}", report.summary());
    assert_eq!((report.phases[0].ok, report.phases[0].connects), (100, 100));
}

#[test]
fn a_thinking_client_pauses_between_its_requests() {
    let fake = Fake::start(Faults::default());
    let report = run_scenario(&fake, "duration_s = 1\nconnections = 2\nthink_ms = 300", SINGLE);
    assert!(report.passed(0), "{}", report.summary());
    assert!((2..=8).contains(&report.phases[0].ok), "{}", report.summary());
}

#[test]
fn ctrl_c_ends_a_run_early_and_it_still_verifies() {
    let fake = Fake::start(Faults::default());
    let file = file(&scenario("duration_s = 600\nrate_per_s = 200", SINGLE));
    let mut command = Command::new(env!("CARGO_BIN_EXE_event-load"));
    command.arg("run").arg(file.path()).args(["--target", &fake.url()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    while fake.requests() < 20 {
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let summary = text(&output.stdout);
    assert!(summary.contains("interrupted") && summary.contains("\nverified: "), "{summary}");
    assert_eq!(output.status.code(), Some(0), "{summary}");
}

#[test]
fn a_log_is_replayed_line_by_line_and_left_out_lines_are_reported() {
    let line = |second: u32, path: &str| {
        format!(r#"10.0.0.1 - - [17/May/2015:10:05:{second:02} +0000] "GET {path} HTTP/1.1" 200 12 "-" "agent""#)
    };
    let long = format!("/{}", "x".repeat(300));
    let lines =
        [line(1, "/a"), line(1, "/b?x=1"), line(2, "/a"), "garbage".to_owned(), line(3, &long), line(4, "/a%20b")];
    let log = file(&lines.join("\n"));
    for speed in ["max", "60"] {
        let fake = Fake::start(Faults::default());
        let arguments = ["replay", log.path().to_str().unwrap(), "--speed", speed, "--target", &fake.url()];
        let output = event_load(&arguments);
        let summary = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{summary}");
        let counts: Vec<_> = fake.counts().into_iter().collect();
        let expected = [("/a", 2), ("/a%20b", 1), ("/b?x=1", 1)].map(|(event, count)| (event.to_owned(), count));
        assert_eq!(counts, expected);
        let garbage = "lines of the log left out: 1 (not in Common or Combined Log Format; the first is line 4)";
        assert!(summary.contains(garbage), "{summary}");
        assert!(summary.contains("name longer than 255 bytes; the first is line 5"), "{summary}");
    }
}

#[test]
fn reports_come_as_json_and_as_pictures() {
    let fake = Fake::start(Faults::default());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let factors = ["--duration-factor", "0.1", "--max-errors", "1000", "--no-verify"];
    let arguments = ["run", "hot-key", "--json", "--list-events", "--picture", path, "--target", &fake.url()];
    let output = event_load(&[&arguments[..], &factors[..]].concat());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(report["phases"][0]["intended"], 5000);
    assert!(report["phases"][0]["latency"]["p99_99_us"].as_f64().unwrap() > 0.0);
    assert!(report["phases"][0]["server_cpu_us_per_request"].is_number());
    assert!(report["verification"].is_null());
    let listed: HashMap<String, HashMap<String, u64>> = serde_json::from_value(report["events"].clone()).unwrap();
    let counted = listed.into_iter().map(|(event, known)| (event, known["acknowledged"]));
    assert_eq!(counted.collect::<HashMap<_, _>>(), fake.counts().into_iter().collect());
    assert!(std::fs::read(folder.path().join("hot-key.png")).unwrap().starts_with(b"\x89PNG"));
    let svg = std::fs::read_to_string(folder.path().join("hot-key.svg")).unwrap();
    assert!(svg.contains("latency from the intended start") && svg.contains("saturated"));
}

#[test]
fn wrong_usage_ends_with_2_and_one_clear_line() {
    let unknown_key = file(&scenario("duration_s = 1\nrate = 5", SINGLE));
    let unknown_key = unknown_key.path().to_str().unwrap();
    let narrow = file(&scenario("duration_s = 1\nconnections = 1", SINGLE));
    let narrow = narrow.path().to_str().unwrap();
    let cases: [(&[&str], &str); 9] = [
        (&["run", "smoke", "--target", "http://192.0.2.1:80"], "needs --allow-remote"),
        (&["run", "smoke", "--target", "ftp://127.0.0.1"], "expected e.g. http://127.0.0.1:8000"),
        (&["run", "smoke", "--target", "http://127.0.0.1:1,http://127.0.0.1:1/"], "expected each node once"),
        (&["run", "smoke", "--target", "http://127.0.0.1:1,"], "target \"\" is not understood"),
        (&["run", "smoke", "--settle-s", "5000"], "--settle-s is 5000; expected 0 to 4000"),
        (&["run", narrow, "--target", "http://127.0.0.1:1,http://127.0.0.1:2"], "has 1 connections for 2 targets"),
        (&["run", "no-such-scenario"], "frontend-day"),
        (&["run", unknown_key], "unknown field `rate`"),
        (&["replay", unknown_key, "--event", "{verb}"], "{method}"),
    ];
    for (arguments, expected) in cases {
        let output = event_load(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(expected), "{arguments:?}: {}", text(&output.stderr));
    }
    let nobody = event_load(&["run", "smoke", "--target", "http://127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("is the service running?"));
}

#[test]
fn shipped_scenarios_are_valid_and_bounded() {
    assert!(SHIPPED.len() >= 7);
    for (name, text) in SHIPPED {
        let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(Phase::from_scenario(&scenario, "127.0.0.1", "load-18f0a2b3c4d-1a2b3-").is_ok(), "{name}");
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        assert!(folder.join(format!("{name}.toml")).exists());
        let files = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(files, SHIPPED.len(), "every file of the folder is shipped");
    }
}

#[test]
fn impossible_scenarios_are_refused_with_the_reason() {
    for (keys, mix, expected) in [
        ("duration_s = 1\nconections = 5", SINGLE, "unknown field `conections`, expected one of"),
        ("duration_s = 1", r#"[{ op = "sinlge", weight = 1 }]"#, "unknown variant `sinlge`"),
        ("duration_s = 1", r#"[{ op = "single", weight = 1, num = 3 }]"#, "unknown field `num`"),
        ("duration_s = 0", SINGLE, "duration_s is 0"),
        ("duration_s = 1e9", SINGLE, "at most 86400"),
        ("duration_s = 1\nto_rate_per_s = 5", SINGLE, "needs rate_per_s"),
        ("duration_s = 1\nrate_per_s = 1\nthink_ms = 5", SINGLE, "closed loop"),
        ("duration_s = 1\npipeline = 2\nkeep_alive = false", SINGLE, "keep_alive"),
        ("duration_s = 1", "[]", "mix is empty"),
    ] {
        let error = format!("{:#}", Scenario::parse(&scenario(keys, mix)).unwrap_err());
        assert!(error.contains(expected), "{keys}: {error}");
    }
}

#[test]
fn a_generator_without_room_for_twice_the_rate_says_that_it_may_be_the_limit() {
    let scenario = Scenario::parse(&scenario("duration_s = 1", SINGLE)).unwrap();
    let phases = Phase::from_scenario(&scenario, "127.0.0.1", PREFIX).unwrap();
    for (cpu_ns, told) in [(490_000_000, false), (510_000_000, true)] {
        let phase = PhaseReport::new(&phases[0], Tally::new(1, 1), None, None, (cpu_ns, 1));
        let (name, target, notes) = ("test".to_owned(), String::new(), Vec::new());
        let report = Report {
            name,
            target,
            began: Utc::now(),
            interrupted: false,
            phases: vec![phase],
            verification: None,
            events: None,
            notes,
        };
        let summary = report.summary();
        assert_eq!(summary.contains("the generator may be the limit: it was busy for 51 %"), told, "{summary}");
    }
}

#[test]
fn a_listening_process_is_found_by_its_port() {
    let fake = Fake::start(Faults::default());
    assert_eq!(Processes::listening_on(fake.port), Processes::of(std::process::id()));
    assert!(Processes::listening_on(fake.port).cpu_ns().is_some());
    assert_eq!(Processes::listening_on(1).cpu_ns(), None);
}

#[test]
fn the_comparison_measures_what_is_installed_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = ["--rounds", "1", "--seconds", "0.2", "--folder", folder.path().to_str().unwrap()];
    let output = event_load(&[&["compare", "--only", "bare,nginx,Redis"][..], &bounds].concat());
    let (tables, progress) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{progress}");
    assert_eq!(tables.matches("| bare hyper, static answer |").count(), 2, "one by one and pipelined: {tables}");
    for yardstick in [Yardstick::NginxLua, Yardstick::Redis { always: false }, Yardstick::Redis { always: true }] {
        let installed = yardstick.version("".as_ref()).is_some();
        assert_eq!(tables.contains(&format!("| {} ", yardstick.name())), installed, "{tables}");
        assert_eq!(progress.contains(&format!("left out, not installed: {}\n", yardstick.name())), !installed);
    }
    let redis = Yardstick::Redis { always: false }.version("".as_ref()).is_some();
    assert_eq!(tables.matches(" generator busy |").count(), if redis { 3 } else { 2 }, "{tables}");
    assert!(tables.contains("busy for more than 50 % of the time"), "{tables}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "data of ended servers is removed");
}

#[test]
fn the_service_passes_the_smoke_test_synced_counts_and_the_comparison() {
    let (service, folder) = (service(), tempfile::tempdir().unwrap());
    let journal = Yardstick::Service(AckLevel::Journal);
    let server = Server::start(journal, &service, folder.path(), Duration::from_secs(300)).unwrap();
    let url = format!("http://{}", server.target.host);
    let synced = file(&scenario("duration_s = 1\nrate_per_s = 200\nack = \"disk\"", ALL_OPERATIONS));
    for scenario in ["smoke", synced.path().to_str().unwrap()] {
        let output = event_load(&["run", scenario, "--target", &url]);
        assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
        assert!(text(&output.stdout).contains("\nverified: "), "{}", text(&output.stdout));
    }
    drop(server);
    let bounds = ["--rounds", "1", "--seconds", "0.2", "--folder", folder.path().to_str().unwrap()];
    let service = ["--service", service.to_str().unwrap()];
    let output = event_load(&[&["compare", "--only", "memory,store"][..], &bounds, &service].concat());
    let (tables, progress) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{progress}");
    for level in ["memory", "store"] {
        let rows = tables.lines().filter(|line| line.starts_with(&format!("| event-tracker, {level} ")));
        assert_eq!(rows.count(), 4, "one by one, pipelined, two forms of batches: {tables}");
    }
}
