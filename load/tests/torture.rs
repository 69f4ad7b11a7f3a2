//! The torture of the real program: a short run on each store, and what is said of wrong use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, reason = "others write files, too")]
mod service;

// It installs PostgreSQL where that is missing.
#[allow(dead_code, reason = "the torture starts one of its own")]
#[path = "../../tests/it/harness/keeper.rs"]
mod keeper;
#[allow(dead_code, reason = "the torture starts one of its own")]
#[path = "../../tests/it/harness/packages.rs"]
mod packages;
#[allow(dead_code, reason = "the torture starts one of its own")]
#[path = "../../tests/it/harness/postgres.rs"]
mod postgres;

use service::{event_load, service, text};

/// The number before these words of a report.
fn figure(report: &str, name: &str) -> u64 {
    let line = report.lines().find(|line| line.trim_end().ends_with(&format!("  {name}")));
    let line = line.unwrap_or_else(|| panic!("no {name:?} in {report}"));
    line.split_whitespace().next().unwrap().replace(',', "").parse().unwrap()
}

fn passes(store: &str, ack: &str) -> String {
    let program = service();
    let run = ["torture", "--minutes", "0.2", "--round-s", "6", "--store", store, "--ack", ack];
    let output = event_load(&[&run[..], &["--program", program.to_str().unwrap()]].concat());
    let report = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.contains("0 lost, 0 doubled, 0 out of bounds"), "{report}");
    for name in ["increments acknowledged", "tagged operations", "reads of unique", "reads of ranges"] {
        assert!(figure(&report, name) > 10, "{report}");
    }
    for name in ["kills of nodes", "reads of histograms", "rests with exact comparison"] {
        assert!(figure(&report, name) > 0, "{report}");
    }
    report
}

#[test]
fn on_sqlite_nothing_is_lost_doubled_or_out_of_bounds() {
    passes("sqlite", "journal");
}

#[test]
fn on_postgresql_nothing_is_lost_doubled_or_out_of_bounds() {
    postgres::programs();
    let report = passes("postgres", "memory");
    let [answers, zombies] = ["COMMIT answers lost", "zombies: COMMITs that came when their client had gone"]
        .map(|name| figure(&report, name));
    assert!(answers + zombies > 0 && figure(&report, "requests of unknown outcome") > 0, "{report}");
}

#[test]
fn wrong_use_is_told_in_one_line() {
    for (arguments, expected) in [
        (&["--minutes", "0"][..], "--minutes is 0; expected 0.05 to 100000"),
        (&["--store", "sqlite", "--nodes", "2"], "--nodes is 2; expected 1 with --store sqlite"),
        (&["--nodes", "17"], "--nodes is 17; expected 1 to 16"),
        (&["--round-s", "0"], "--round-s is 0; expected 1 to 300"),
        (&["--program", "/nowhere"], "/nowhere is not there"),
        (&["--ack", "never"], "possible values: memory, journal, disk, store"),
    ] {
        let output = event_load(&[&["torture"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
}
