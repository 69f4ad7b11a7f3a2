//! The schema is made once, known by its version, and tells databases apart.

use event_tracker::store::sqlite::SqliteStore;

use super::*;

on_both_stores!(
    the_identity_stays_and_differs_between_databases,
    a_newer_schema_is_refused_and_left_alone,
    many_that_start_at_once_make_one_schema,
    the_schema_of_every_older_version_is_brought_up_to_date_and_keeps_its_counts,
);

async fn the_identity_stays_and_differs_between_databases(bench: Bench) {
    let identity = bench.store().await.identity().await.unwrap();
    assert_eq!(identity.len(), 32);
    assert_eq!(bench.store().await.identity().await.unwrap(), identity);
    let another = match bench {
        Bench::Memory(_) => unreachable!("no SQL is meant for it"),
        Bench::Sqlite(_) => Bench::sqlite(),
        Bench::Postgres { .. } => Bench::postgres().await,
    };
    assert_ne!(another.store().await.identity().await.unwrap(), identity);
}

async fn a_newer_schema_is_refused_and_left_alone(bench: Bench) {
    bench.store().await.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    bench
        .execute(match bench {
            Bench::Memory(_) => unreachable!("no SQL is meant for it"),
            Bench::Sqlite(_) => "pragma user_version = 99",
            Bench::Postgres { .. } => "insert into schema_version (version) values (99)",
        })
        .await;
    let refused = match bench.open().await {
        Err(error) => error,
        Ok(store) => store.commit(request(batch(1, 2), rows([("a", 1, 1)]))).await.unwrap_err(),
    };
    assert!(matches!(&refused, StoreError::Refused(why) if why.contains("version 99")), "{refused}");
}

async fn many_that_start_at_once_make_one_schema(bench: Bench) {
    let bench = Arc::new(bench);
    let starting: Vec<_> = (1..=8)
        .map(|number| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                let store = bench.store().await;
                assert_eq!(store.commit(request(batch(number, 1), rows([("a", 1, 1)]))).await, Ok(Commit::Applied));
                store.identity().await.unwrap()
            })
        })
        .collect();
    let mut identities = std::collections::BTreeSet::new();
    for started in starting {
        identities.insert(started.await.unwrap());
    }
    assert_eq!(identities.len(), 1);
    assert_eq!(totals(&bench.store().await).await, [("a".into(), 8)]);
}

/// The steps of each kind of database, as they were published.
const SQLITE_STEPS: [&str; 6] = [
    include_str!("../../../src/store/sqlite/0001_counts.sql"),
    include_str!("../../../src/store/sqlite/0002_admin.sql"),
    include_str!("../../../src/store/sqlite/0003_account_log.sql"),
    include_str!("../../../src/store/sqlite/0004_digest.sql"),
    include_str!("../../../src/store/sqlite/0005_purge_marks.sql"),
    include_str!("../../../src/store/sqlite/0006_change_facts.sql"),
];
const POSTGRES_STEPS: [&str; 6] = [
    include_str!("../../../src/store/postgres/0001_counts.sql"),
    include_str!("../../../src/store/postgres/0002_admin.sql"),
    include_str!("../../../src/store/postgres/0003_account_log.sql"),
    include_str!("../../../src/store/postgres/0004_digest.sql"),
    include_str!("../../../src/store/postgres/0005_purge_marks.sql"),
    include_str!("../../../src/store/postgres/0006_change_facts.sql"),
];

async fn the_schema_of_every_older_version_is_brought_up_to_date_and_keeps_its_counts(first: Bench) {
    for version in 1..=6 {
        let another = match first {
            Bench::Memory(_) => unreachable!("no SQL is meant for it"),
            Bench::Sqlite(_) => Bench::sqlite(),
            Bench::Postgres { .. } => Bench::postgres().await,
        };
        let (steps, mark, id) = match another {
            Bench::Memory(_) => unreachable!("no SQL is meant for it"),
            Bench::Sqlite(_) => (
                SQLITE_STEPS,
                format!("pragma application_id = 1165382770; pragma user_version = {version};"),
                "x'01010101010101010101010101010101'",
            ),
            Bench::Postgres { .. } => (
                POSTGRES_STEPS,
                format!(
                    "create table schema_version (version integer primary key, applied_at timestamptz default now());
                     insert into schema_version select generate_series(1, {version});"
                ),
                r"'\x01010101010101010101010101010101'",
            ),
        };
        let counted = format!(
            "{mark}
             insert into store_identity (identity) values ({id});
             insert into ledger (writer, last_seq, total) values ({id}, 7, 5);
             insert into hourly_counts values ('login', 10, 5);
             insert into event_totals values ('login', 5, 10, 10);"
        );
        another.execute(&format!("{}{counted}", steps[..version].concat())).await;
        let store = another.store().await;
        assert_eq!(store.identity().await.unwrap(), "01".repeat(16));
        let old = LedgerEntry { last_seq: BatchSeq(7), total: 5, digest: None };
        assert_eq!(store.position(vec![writer(1)]).await.unwrap().applied, [(writer(1), old)].into());
        let one = rows([("login", 10, 1)]);
        assert_eq!(store.commit(request(batch(1, 7), one.clone())).await, Ok(Commit::Stands(Some(old))));
        assert_eq!(store.commit(request(batch(1, 8), one.clone())).await, Ok(Commit::Applied));
        assert_eq!(store.commit(request(batch(1, 8), one.clone())).await, Ok(stands(8, 6, &one)));
        assert_eq!(totals(&store).await, [("login".into(), 6)]);
        assert_eq!(balanced_books(&store).await.ledger, 6);
    }
}

#[tokio::test]
async fn a_sqlite_file_of_another_program_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("create table notes (text text)").unwrap();
    let before = std::fs::read(&path).unwrap();
    let refused = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(&refused, StoreError::Refused(why) if why.contains("another program")), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);

    std::fs::write(&path, "certainly no database, but long enough to be looked at").unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn a_sqlite_file_and_its_folder_are_made_and_the_wal_is_emptied_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/events.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    store.close().await;
    let wal = folder.path().join("a/b/events.sqlite-wal");
    assert!(wal.metadata().map_or(0, |metadata| metadata.len()) == 0);
}

#[tokio::test]
async fn an_audit_reads_a_sqlite_file_in_use_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.sqlite");
    assert!(matches!(SqliteStore::open_for_audit(&path), Err(StoreError::Refused(_))));
    assert!(!path.exists());
    let store = SqliteStore::open(&path).unwrap();
    store.commit(request(batch(1, 1), rows([("a", 1, 5)]))).await.unwrap();
    let audit = SqliteStore::open_for_audit(&path).unwrap();
    assert_eq!(audit.audit().await.unwrap().ledger, 5);
    assert!(matches!(audit.commit(request(batch(1, 2), rows([("a", 1, 1)]))).await, Err(StoreError::Rejected(_))));
    store.commit(request(batch(1, 2), rows([("a", 1, 1)]))).await.unwrap();
    assert_eq!(audit.audit().await.unwrap().ledger, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_bytewise_in_a_database_that_sorts_by_language() {
    let cluster = Cluster::shared();
    let probe = cluster.connect("postgres").await;
    // Collations by ICU for a whole database came with version 15.
    let probed = probe
        .batch_execute(
            "select 1 / (current_setting('server_version_num')::int / 150000); \
             create collation probe (provider = icu, locale = 'en')",
        )
        .await;
    let sorting = if probed.is_ok() { "locale_provider icu icu_locale 'en'" } else { "" };
    let database = cluster.create_database_with(&format!("template template0 {sorting}")).await;
    if !sorting.is_empty() {
        let sorted = cluster.connect(&database).await.query_one("select 'a' < 'B'", &[]).await.unwrap();
        assert!(sorted.get::<_, bool>(0), "the database sorts bytewise, so this proves nothing");
    }
    super::reads::expect_bytewise_names(&open_url(&cluster.url(&database)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_utf8_is_refused() {
    let cluster = Cluster::shared();
    let database =
        cluster.create_database_with("template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'").await;
    let refused = open_url(&cluster.url(&database)).await.identity().await.unwrap_err();
    assert!(matches!(&refused, StoreError::Refused(why) if why.contains("UTF8")), "{refused}");
}
