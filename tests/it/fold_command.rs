//! `event-tracker fold`.

use crate::harness::postgres::Cluster;
use crate::program::Program;

#[tokio::test(flavor = "multi_thread")]
async fn fold_empties_the_log_and_changes_no_sum() {
    let cluster = Cluster::shared();
    let database = cluster.create_database().await;
    let program = Program::new()
        .with_variable("EVENT_TRACKER__LOG__LEVEL", "off")
        .with_variable("DATABASE_URL", &cluster.url(&database));
    program.run(&["create-random-events", "--events", "1000"]).answer();
    let before = program.run(&["audit"]).answer();
    assert!(before.contains("hourly counts  1000\n") && before.ends_with("balanced\n"), "{before}");
    let client = cluster.connect(&database).await;
    let stored = async || {
        let sql = "select cast(coalesce(sum(count), 0) as bigint) from hourly_counts";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
    };
    assert_eq!(stored().await, 0);
    let said = program.run(&["fold"]).answer();
    assert!(said.starts_with("folded ") && said.contains(" counters in PostgreSQL at "), "{said}");
    assert_eq!(stored().await, 1_000);
    assert_eq!(program.run(&["audit"]).answer(), before);
    let said = program.run(&["fold"]).answer();
    assert!(said.starts_with("folded 0 batches with 0 counters in "), "{said}");
}

#[test]
fn there_is_nothing_to_fold_in_an_embedded_store() {
    let program = Program::new().with_variable("EVENT_TRACKER__LOG__LEVEL", "off");
    program.run(&["create-random-events", "--events", "10"]).answer();
    let said = program.run(&["fold"]).answer();
    assert!(said.starts_with("folded 0 batches with 0 counters in SQLite at data/events.sqlite"), "{said}");
}

#[test]
fn a_fold_without_its_database_fails_with_one_line() {
    let said = Program::new().run(&["fold", "--database-url", "postgres://nobody@127.0.0.1:1/none"]).complaint(1);
    assert!(!said.is_empty());
}
