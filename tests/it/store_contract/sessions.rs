//! PostgreSQL sessions: which of them wait for what, which server they reach, and which database they
//! accept.

use event_tracker::store::admin::Change;
use tokio::net::TcpListener;

use super::*;
use crate::harness::proxy::Proxy;
use crate::harness::{PATIENCE, eventually};

async fn opened(url: String, change: impl FnOnce(&mut Options)) -> Arc<dyn Store> {
    let mut options = Options { url, ..Options::default() };
    change(&mut options);
    store::open(&options, std::path::Path::new("unused")).await.unwrap()
}

/// A fresh database and its URL.
async fn fresh() -> (String, String) {
    let database = Cluster::shared().create_database().await;
    let url = Cluster::shared().url(&database);
    (database, url)
}

async fn run(database: &str, sql: &str) {
    Cluster::shared().connect(database).await.batch_execute(sql).await.unwrap();
}

/// How many tables of ours there are, in all schemas.
async fn ledgers(database: &str) -> i64 {
    let client = Cluster::shared().connect(database).await;
    let sql = "select count(*) from pg_class where relname = 'ledger' and relkind = 'r'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

fn as_role(url: &str, role: &str) -> String {
    url.replace("postgres://postgres@", &format!("postgres://{role}@"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_may_take_long_while_each_of_its_statements_goes_on() {
    let (database, url) = fresh().await;
    let store = opened(url, |options| (options.connect_timeout_ms, options.statement_timeout_ms) = (500, 1_000)).await;
    store.identity().await.unwrap();
    run(
        &database,
        "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.6); return null; end $$;
         create trigger slow after insert on hourly_counts for each statement execute function slow();
         create trigger slow after insert on event_totals for each statement execute function slow()",
    )
    .await;
    // Six statements: more than twice of what one may take.
    let names: Vec<String> = (0..25_000).map(|number| format!("event/{number}")).collect();
    let sent = rows(names.iter().map(|name| (name.as_str(), 1, 1)));
    assert_eq!(store.commit(request(batch(1, 1), sent)).await, Ok(Commit::Applied));
    assert_eq!(balanced_books(&store).await.ledger, 25_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_looks_and_administrators_never_wait_for_reads() {
    let (database, url) = fresh().await;
    let store = opened(url, |options| options.read_connections = 2).await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    let blocker = Cluster::shared().connect(&database).await;
    // Only audits read it.
    blocker.batch_execute("begin; lock table removals in access exclusive mode").await.unwrap();
    let reads: Vec<_> = (0..6)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.audit().await })
        })
        .collect();
    let observer = Cluster::shared().connect(&database).await;
    eventually("all connections for reads to wait", async || {
        let sql =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        observer.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 2
    })
    .await;
    assert_eq!(store.commit(request(batch(1, 2), rows([("a", 1, 1)]))).await, Ok(Commit::Applied));
    store.identity().await.unwrap();
    assert!(store.position(vec![writer(1)]).await.unwrap().includes(batch(1, 2)));
    store.catalog().await.unwrap();
    let change = Change::Describe { event: EventName::parse("a").unwrap(), description: "x".into() };
    store.change(change, "ada", chrono::Utc::now()).await.unwrap();
    store.each_total(vec![], &mut |_| {}).await.unwrap();
    assert!(reads.iter().all(|read| !read.is_finished()));
    blocker.batch_execute("rollback").await.unwrap();
    for read in reads {
        assert!(read.await.unwrap().unwrap().balance());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_never_answers_is_given_up_for_the_next_one() {
    let (_, url) = fresh().await;
    // The kernel completes connections to both; one program never takes them, the other never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (first, second) = (silent.local_addr().unwrap(), mute.local_addr().unwrap());
    let accepting = tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok(connection) = mute.accept().await {
            taken.push(connection);
        }
    });
    let url = url.replace("@127.0.0.1:", &format!("@{first},{second},127.0.0.1:"));
    let store = opened(url, |options| options.connect_timeout_ms = 300).await;
    let committed = tokio::time::timeout(PATIENCE, store.commit(request(batch(1, 1), rows([("a", 1, 1)])))).await;
    assert_eq!(committed.expect("it waits for ever"), Ok(Commit::Applied));
    accepting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_takes_no_writes_is_passed_over() {
    let (database, url) = fresh().await;
    let standby = tokio::task::spawn_blocking(Cluster::private).await.unwrap();
    let client = standby.connect("postgres").await;
    client.batch_execute(&format!("create database {database}")).await.unwrap();
    client.batch_execute(&format!("alter database {database} set default_transaction_read_only = on")).await.unwrap();
    let port = url::Url::parse(&standby.url("postgres")).unwrap().port().unwrap();
    let url = url.replace("@127.0.0.1:", &format!("@127.0.0.1:{port},127.0.0.1:"));
    let store = opened(url, |_| {}).await;
    assert_eq!(store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await, Ok(Commit::Applied));
    assert_eq!(ledgers(&database).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_has_to_mend_is_refused_with_what_to_do_and_rarely_asked_again() {
    let (database, url) = fresh().await;
    run(&database, &format!("create role shut_out_{database} nologin; create role no_rights_{database} login")).await;
    for (url, words) in [
        (as_role(&url, &format!("shut_out_{database}")), ["not permitted to log in", "check the user"]),
        (as_role(&url, &format!("nobody_{database}")), ["does not exist", "check the user"]),
        (url.replace(&database, "nowhere"), ["does not exist", "create the database"]),
        (as_role(&url, &format!("no_rights_{database}")), ["permission denied", "grant the role"]),
    ] {
        let proxy = Proxy::start(url::Url::parse(&url).unwrap().port().unwrap()).await;
        let store = opened(proxy.url(&url), |_| {}).await;
        for _ in 0..10 {
            let refused = store.position(vec![]).await.unwrap_err();
            let StoreError::Refused(why) = &refused else { panic!("{url}: {refused}") };
            assert!(words.iter().all(|word| why.contains(word)), "{url}: {why}");
            assert_eq!(store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await, Err(refused));
        }
        assert!(proxy.connections() <= 2, "{url}: {} log-ins", proxy.connections());
    }
    assert_eq!(ledgers(&database).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_mended_is_noticed_without_a_restart() {
    let (database, url) = fresh().await;
    let role = format!("late_{database}");
    run(&database, &format!("create role {role} nologin")).await;
    let store = opened(as_role(&url, &role), |_| {}).await;
    assert!(matches!(store.identity().await, Err(StoreError::Refused(_))));
    run(&database, &format!("alter role {role} login; grant create on schema public to {role}")).await;
    eventually("the store to be let in", async || store.identity().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_made_anew_under_a_running_store_is_another_one_and_stays_empty() {
    let (database, url) = fresh().await;
    let store = opened(url, |_| {}).await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    let admin = Cluster::shared().connect("postgres").await;
    admin.batch_execute(&format!("drop database {database} with (force)")).await.unwrap();
    admin.batch_execute(&format!("create database {database} template template0")).await.unwrap();
    eventually("the other database to be noticed", async || {
        matches!(store.commit(request(batch(1, 2), rows([("a", 1, 1)]))).await, Err(StoreError::AnotherDatabase(_)))
    })
    .await;
    assert!(matches!(store.totals(vec![]).await, Err(StoreError::AnotherDatabase(_))));
    assert_eq!(ledgers(&database).await, 0);
    // Until somebody says that this one is right.
    store.expect(None);
    assert_eq!(store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await, Ok(Commit::Applied));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_open_are_not_used_for_another_identity() {
    let (_, url) = fresh().await;
    let store = opened(url, |_| {}).await;
    let identity = store.identity().await.unwrap();
    store.expect(Some("0".repeat(32)));
    let refused = store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await;
    assert!(matches!(&refused, Err(StoreError::AnotherDatabase(why)) if why.contains(&identity)), "{refused:?}");
    store.expect(Some(identity));
    assert_eq!(store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await, Ok(Commit::Applied));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_whose_search_path_changes_finds_the_same_tables_and_makes_no_others() {
    let (database, url) = fresh().await;
    let role = format!("mover_{database}");
    run(&database, &format!("create role {role} login superuser; create schema other")).await;
    let url = as_role(&url, &role);
    let store = opened(url.clone(), |_| {}).await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    run(&database, &format!("alter role {role} set search_path = other")).await;
    let end = format!("select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = '{role}'");
    run(&database, &end).await;
    eventually("the store to connect again", async || {
        store.commit(request(batch(1, 2), rows([("a", 1, 1)]))).await.is_ok()
    })
    .await;
    // And so does a node that has never met it.
    let newcomer = opened(url.clone(), |_| {}).await;
    newcomer.commit(request(batch(2, 1), rows([("a", 1, 1)]))).await.unwrap();
    assert_eq!(totals(&newcomer).await, [("a".into(), 3)]);
    assert_eq!(ledgers(&database).await, 1);
    // Unless the URL itself asks for a place of its own.
    let apart = opened(format!("{url}?options=-csearch_path%3Dother"), |_| {}).await;
    assert_eq!(totals(&apart).await, []);
    assert_eq!(ledgers(&database).await, 2);
    assert_eq!(totals(&store).await, [("a".into(), 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_of_an_empty_database_says_so_and_makes_nothing() {
    let (database, url) = fresh().await;
    let options = Options { url: url.clone(), ..Options::default() };
    let audit = store::open_for_audit(&options, std::path::Path::new("unused")).await.unwrap();
    let refused = audit.audit().await.unwrap_err();
    assert!(refused.to_string().contains("there is no event-tracker schema in it yet"), "{refused}");
    assert!(audit.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.is_err());
    assert_eq!(ledgers(&database).await, 0);
    let store = opened(url, |_| {}).await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    let audit = store::open_for_audit(&options, std::path::Path::new("unused")).await.unwrap();
    assert_eq!(audit.audit().await.unwrap().ledger, 1);
    assert!(audit.commit(request(batch(1, 2), rows([("a", 1, 1)]))).await.is_err());
    assert_eq!(balanced_books(&store).await.ledger, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_cut_off_for_its_time_is_no_outage() {
    let (database, url) = fresh().await;
    let store = opened(url, |options| options.lock_timeout_ms = 100).await;
    let health = Arc::new(store::StoreHealth::default());
    let watched = store::Watched::new(Arc::clone(&store), Arc::clone(&health));
    watched.identity().await.unwrap();
    let blocker = Cluster::shared().connect(&database).await;
    blocker.batch_execute("begin; lock table removals in access exclusive mode").await.unwrap();
    assert!(watched.audit().await.is_err());
    assert!(health.status().reachable());
    store.close().await;
    assert!(watched.audit().await.is_err());
    assert!(!health.status().reachable());
}
