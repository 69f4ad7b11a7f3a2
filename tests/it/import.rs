//! Logs that are imported: each line counts once, whatever happens to the import, the log or the store.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use event_tracker::domain::EventName;
use event_tracker::store::admin::{Change, Changed};

use crate::harness::postgres::Cluster;
use crate::harness::proxy::{Fault, Proxy};
use crate::harness::{Backend, PARTITIONS, TestApp, eventually, on_both_stores};

mod files;

on_both_stores!(
    a_log_that_is_piped_again_after_each_kill_counts_once,
    an_import_that_is_killed_anywhere_goes_on_where_it_was,
    a_log_that_has_grown_counts_its_new_lines,
    a_copy_counts_nothing_and_another_log_that_begins_alike_counts,
    other_options_are_refused_unless_they_are_meant,
    a_service_shows_what_is_imported_beside_it,
    events_that_were_switched_off_are_skipped,
);

/// The names and what is counted of them.
type Counts = BTreeMap<String, u64>;

/// Lines of a log, one a minute.
fn log(lines: Range<u64>) -> String {
    let line = |number: u64| {
        let (day, hour, minute) = (1 + number / 1_440, number / 60 % 24, number % 60);
        let time = format!("{day:02}/Mar/2024:{hour:02}:{minute:02}:{:02} +0000", number % 50);
        let request = format!("GET /page/{}?n={number} HTTP/1.1", number % 7);
        format!("198.51.100.{} - - [{time}] \"{request}\" 200 512 \"-\" \"A {number}\"\n", number % 250)
    };
    lines.map(line).collect()
}

/// What these lines count.
fn counts(lines: impl Iterator<Item = u64>) -> Counts {
    let mut counts = Counts::new();
    for number in lines {
        *counts.entry(format!("/page/{}", number % 7)).or_default() += 1;
    }
    counts
}

/// What the store of an app holds, which need not run.
async fn stored(app: &TestApp) -> Counts {
    let store = app.store().await;
    let totals = store.totals(Vec::new()).await;
    store.close().await;
    let totals = totals.map(|totals| totals.value).unwrap_or_default();
    totals.into_iter().map(|total| (total.event.as_str().to_owned(), total.count)).collect()
}

async fn app(backend: Backend) -> TestApp {
    TestApp::with(backend).config("log.level", "warn").build().await
}

fn file(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// What a run that ended with `code` said.
#[track_caller]
fn said(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap()
}

async fn import(app: &TestApp, arguments: &[&str], path: &Path) -> Output {
    app.run(&[&["import"], arguments, &[path.to_str().unwrap()]].concat()).await
}

/// Begins to pipe a log, which does not end; `kill -9` once `committed` lines of it are in the store.
async fn pipe_and_kill(app: &TestApp, arguments: &[&str], content: &str, committed: u64) {
    let mut command = app.command(&[&["import", "-"], arguments].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = content.to_owned();
    let writing = std::thread::spawn(move || {
        // Who is killed does not read it all.
        let _ = input.write_all(bytes.as_bytes());
        input
    });
    eventually("the first lines to be committed", async || stored(app).await.values().sum::<u64>() >= committed).await;
    child.kill().unwrap();
    child.wait().unwrap();
    drop(writing.join().unwrap());
}

async fn a_log_that_is_piped_again_after_each_kill_counts_once(backend: Backend) {
    let app = app(backend).await;
    for (lines, committed) in [(250, 200), (399, 300), (750, 700)] {
        pipe_and_kill(&app, &["--commit-lines", "100"], &log(0..lines), committed).await;
        assert_eq!(stored(&app).await, counts(0..committed));
    }
    for (summary, before) in [("300 lines, 300 counted", 700), ("0 lines, 0 counted", 1_000)] {
        let said = said(&app.run_with(&["import", "-"], &log(0..1_000)).await, 0);
        assert!(said.starts_with(&format!("standard input: {summary}")), "{said}");
        assert!(said.contains(&format!("imported before: {before} lines")), "{said}");
        assert_eq!(stored(&app).await, counts(0..1_000));
    }
    assert_eq!(app.audit().await, 1_000);
}

async fn an_import_that_is_killed_anywhere_goes_on_where_it_was(backend: Backend) {
    let app = app(backend).await;
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "access.log", log(0..5_000));
    let mut patience = std::time::Duration::from_millis(5);
    loop {
        let arguments = ["import", "--commit-lines", "25", path.to_str().unwrap()];
        let mut child = app.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed() < patience && child.try_wait().unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        patience = patience * 4 / 3;
    }
    assert_eq!(stored(&app).await, counts(0..5_000));
    assert_eq!(app.audit().await, 5_000);
}

async fn a_log_that_has_grown_counts_its_new_lines(backend: Backend) {
    let app = app(backend).await;
    let folder = tempfile::tempdir().unwrap();
    let all = log(0..60);
    let ends: Vec<usize> = all.match_indices('\n').map(|(at, _)| at + 1).collect();
    // Nothing but a beginning; the first lines; within a line, where it can't be read and where it can; just before a
    // line's end; the whole.
    let grown =
        [(ends[0], 1), (ends[9], 10), (ends[9] + 40, 10), (ends[19] - 10, 20), (ends[29] - 1, 30), (ends[59], 60)];
    for (bytes, lines) in grown {
        let path = file(folder.path(), "access.log", &all[..bytes]);
        for _ in 0..2 {
            said(&import(&app, &["--commit-lines", "7"], &path).await, 0);
            assert_eq!(stored(&app).await, counts(0..lines), "{bytes} bytes");
        }
    }
    // What was there before, as if the log were made anew.
    let path = file(folder.path(), "access.log", &all[..ends[9]]);
    let refused = said(&import(&app, &[], &path).await, 1);
    assert!(refused.contains(&format!("has counted {} bytes, but here are only {}", ends[59], ends[9])), "{refused}");
    assert_eq!(app.audit().await, 60);
}

async fn a_copy_counts_nothing_and_another_log_that_begins_alike_counts(backend: Backend) {
    let app = app(backend).await;
    let folder = tempfile::tempdir().unwrap();
    said(&import(&app, &[], &file(folder.path(), "access.log", log(0..100))).await, 0);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(log(0..100).as_bytes()).unwrap();
    let copies = [("access.log.1", log(0..100).into_bytes()), ("access.log.2.gz", encoder.finish().unwrap())];
    for (name, content) in copies {
        let said = said(&import(&app, &[], &file(folder.path(), name, content)).await, 0);
        assert!(said.contains("0 lines, 0 counted") && said.contains("imported before: 100 lines"), "{said}");
    }
    assert_eq!(stored(&app).await, counts(0..100));

    // The same first line, then others: a log of its own, that grows and is killed like any other.
    let alike = |lines: u64| [log(0..1), log(500..500 + lines)].concat();
    let path = file(folder.path(), "other.log", alike(200));
    let said_of = async |path: &Path| said(&import(&app, &["--commit-lines", "50"], path).await, 0);
    assert!(said_of(&path).await.contains("201 lines, 201 counted"));
    let path = file(folder.path(), "other.log", alike(230));
    assert!(said_of(&path).await.contains("30 lines, 30 counted"));
    // It would have to be read twice.
    let third = [log(0..1), log(900..1_200)].concat();
    let refused = said(&app.run_with(&["import", "-"], &third).await, 1);
    assert!(refused.contains("put it into a file"), "{refused}");
    let expected = counts((0..100).chain(0..1).chain(500..730));
    assert_eq!(stored(&app).await, expected);
    assert_eq!(app.audit().await, expected.values().sum::<u64>());
}

async fn other_options_are_refused_unless_they_are_meant(backend: Backend) {
    let app = app(backend).await;
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "access.log", log(0..100));
    said(&import(&app, &[], &path).await, 0);
    let refused = said(&import(&app, &["--event", "status"], &path).await, 1);
    assert!(refused.contains("other options") && refused.contains("--another"), "{refused}");
    assert_eq!(stored(&app).await, counts(0..100));
    for _ in 0..2 {
        said(&import(&app, &["--event", "status", "--another"], &path).await, 0);
        said(&import(&app, &["--event", "status"], &path).await, 0);
        said(&import(&app, &[], &path).await, 0);
        let mut expected = counts(0..100);
        expected.insert("200".into(), 100);
        assert_eq!(stored(&app).await, expected);
    }
}

async fn a_service_shows_what_is_imported_beside_it(backend: Backend) {
    let mut app = TestApp::with(backend).config("flush.interval_ms", 20).config("log.level", "warn").start().await;
    let folder = tempfile::tempdir().unwrap();
    app.count("login", 5).await;
    assert_eq!(app.total("/page/1").await, 0);
    pipe_and_kill(&app, &["--commit-lines", "100"], &log(0..250), 200).await;
    let path = file(folder.path(), "access.log", log(0..300));
    said(&import(&app, &[], &path).await, 0);
    let mut expected = counts(0..300);
    expected.insert("login".into(), 5);
    eventually("the service to show them", async || app.totals().await == expected).await;
    let first = app.range("2024030100", "2024030100").await;
    assert_eq!(first.iter().map(|(_, _, count)| count).sum::<u64>(), 60);
    app.stop().await;
    assert_eq!(app.audit().await, 305);
    let left = std::fs::read_dir(app.data_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("import-")).collect();
    assert!(left.is_empty(), "what a killed import has left is tidied by the next one: {left:?}");
}

async fn events_that_were_switched_off_are_skipped(backend: Backend) {
    let app = TestApp::with(backend).config("log.level", "warn").config("limits.events_max", 3).start().await;
    let folder = tempfile::tempdir().unwrap();
    app.post("/api/events/off/2?ack=store").await;
    let store = app.store().await;
    let switch_off = Change::SetActive { event: EventName::parse("off").unwrap(), active: false };
    let changed = store.change(switch_off, "ada", chrono::Utc::now()).await.unwrap();
    assert!(matches!(changed, Changed::Done { .. }), "{changed:?}");
    store.close().await;
    // The service knows three names with the one that it is told of first, and so does the import.
    let lines = "\"a\"\n\"off\"\n\"off\"\n\"a\"\n\"b\"\n\"c\"\n\"a\"\n";
    let path = file(folder.path(), "names.ndjson", lines);
    // Names beyond the limit are not taken for done: the limit may be raised.
    let stopped = said(&import(&app, &["--commit-lines", "4"], &path).await, 1);
    assert!(stopped.contains("line 6 has a new event name"), "{stopped}");
    assert!(stopped.contains("4 lines, 2 counted"), "{stopped}");
    assert!(stopped.contains("skipped 2: events that an administrator has switched off (first: line 2)"), "{stopped}");
    assert_eq!(stored(&app).await, [("a".to_owned(), 2), ("off".to_owned(), 2)].into());
    let roomy = app.command(&["import", path.to_str().unwrap()]).env("EVENT_TRACKER__LIMITS__EVENTS_MAX", "9").output();
    assert!(said(&roomy.unwrap(), 0).contains("3 lines, 3 counted"));
    let expected = [("a".to_owned(), 3), ("b".to_owned(), 1), ("c".to_owned(), 1), ("off".to_owned(), 2)];
    assert_eq!(stored(&app).await, expected.into());
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_counts_once() {
    let cluster = Cluster::shared();
    let direct = cluster.url(&cluster.create_database().await);
    let proxy = Proxy::start(cluster.port()).await;
    let app =
        TestApp::with(Backend::Postgres).database_url(&proxy.url(&direct)).config("log.level", "off").build().await;
    let content = log(0..400);
    pipe_and_kill(&app, &["--commit-lines", "100"], &log(0..150), 100).await;
    proxy.set(Fault::LoseCommit);
    let said = said(&app.run_with(&["import", "-", "--commit-lines", "100"], &content).await, 0);
    assert!(said.contains("300 lines, 300 counted"), "{said}");
    assert_eq!(proxy.lost_commits(), 1);
    assert_eq!(stored(&app).await, counts(0..400));
    assert_eq!(app.audit().await, 400);
}

#[tokio::test]
async fn an_import_that_is_killed_between_two_partitions_goes_on_in_both() {
    let app = app(Backend::Partitioned).await;
    let folder = tempfile::tempdir().unwrap();
    said(&app.run_with(&["import", "-"], &log(0..10)).await, 0);
    let path = file(folder.path(), "access.log", log(0..1_000));
    for (partition, lines) in (0..PARTITIONS).zip([13, 100, 31, 57]) {
        let client = Cluster::shared().connect(&app.database()).await;
        let lock = format!("begin; lock table public_partition_{partition}.ledger in exclusive mode");
        client.batch_execute(&lock).await.unwrap();
        let before = stored(&app).await;
        let lines = lines.to_string();
        let arguments = ["import", "--commit-lines", &lines, path.to_str().unwrap()];
        let mut child = app.command(&arguments).stdout(Stdio::null()).spawn().unwrap();
        eventually("the other partitions to have a batch", async || stored(&app).await != before).await;
        child.kill().unwrap();
        child.wait().unwrap();
        // What it has sent is done or not, also after its death.
        drop(client);
    }
    said(&import(&app, &["--commit-lines", "77"], &path).await, 0);
    assert_eq!(stored(&app).await, counts(0..1_000));
    said(&import(&app, &[], &path).await, 0);
    assert_eq!(app.audit().await, 1_000);
}
