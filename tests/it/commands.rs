//! The commands that work on a store, on the embedded one.

use crate::program::Program;

/// The sums that `audit --json` prints.
#[track_caller]
fn audit(program: &Program) -> serde_json::Value {
    serde_json::from_str(&program.run(&["audit", "--json"]).answer()).unwrap()
}

#[test]
fn random_events_are_in_the_store_to_the_unit_and_add_up() {
    let program = Program::new().with_variable("EVENT_TRACKER__LOG__LEVEL", "off");
    let said = program.run(&["create-random-events"]).answer();
    assert!(said.starts_with("created 10,000 occurrences of 6 events in "), "{said}");
    assert!(said.contains(" in SQLite at data/events.sqlite, in ") && said.contains(" s (seed "), "{said}");
    assert_eq!(said.matches('\n').count(), 1, "{said}");
    assert_eq!(audit(&program)["rows"], 10_000);

    let said = program.run(&["create_random_events", "--events", "7", "--days", "1", "--types", "a b,c/d"]).answer();
    assert!(said.starts_with("created 7 occurrences of "), "{said}");
    let sums = audit(&program);
    assert_eq!((&sums["rows"], &sums["totals"], &sums["ledger"]), (&10_007.into(), &10_007.into(), &10_007.into()));
    assert_eq!(sums["balanced"], true);
}

#[test]
fn an_audit_prints_the_sums_and_that_they_balance() {
    let program = Program::new().with_variable("EVENT_TRACKER__LOG__LEVEL", "off");
    program.run(&["create-random-events", "--events", "12345"]).answer();
    let said = program.run(&["audit"]).answer();
    let expected = "SQLite at data/events.sqlite\nhourly counts  12345\nremoved            0\n\
                    ledger         12345\ntotals         12345\nbalanced\n";
    assert_eq!(said, expected);
}

#[test]
fn an_audit_of_books_that_were_tampered_with_fails_and_says_by_how_much() {
    let program = Program::new().with_variable("EVENT_TRACKER__LOG__LEVEL", "off");
    program.run(&["create-random-events", "--events", "100", "--types", "login"]).answer();
    let database = rusqlite::Connection::open(program.folder().join("data/events.sqlite")).unwrap();
    let changed = database.execute("update event_totals set total = total + 3", ()).unwrap();
    assert_eq!(changed, 1);
    drop(database);
    let outcome = program.run(&["audit"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stdout.ends_with("totals differ from the hourly counts by 3\nnot balanced\n"), "{outcome:?}");
    assert_eq!(outcome.stderr, "event-tracker: the books do not balance\n");
}

#[test]
fn an_audit_without_a_store_fails_and_makes_none() {
    let program = Program::new();
    let said = program.run(&["audit"]).complaint(1);
    assert!(said.contains("data/events.sqlite") && said.contains("no such file"), "{said}");
    assert_eq!(std::fs::read_dir(program.folder()).unwrap().count(), 0);
    let said = Program::new().run(&["audit", "--database-url", "postgres://nobody@127.0.0.1:1/none"]).complaint(1);
    assert!(!said.is_empty());
}
