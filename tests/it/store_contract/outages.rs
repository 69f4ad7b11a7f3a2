//! PostgreSQL goes away, hangs, comes back; a transaction survives its client.

use std::time::Duration;

use super::*;

/// Time-outs short enough to wait for.
async fn impatient(url: String) -> Arc<dyn Store> {
    let options = Options {
        url,
        connect_timeout_ms: 500,
        statement_timeout_ms: 1_500,
        lock_timeout_ms: 1_000,
        ..Options::default()
    };
    store::open(&options, std::path::Path::new("unused")).await.unwrap()
}

fn is_unavailable<T>(outcome: &Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Unavailable(_)))
}

/// Waits as the flusher does: the same batch again and again.
async fn commit_until_done(store: &Arc<dyn Store>, id: BatchId, sent: &Arc<[HourlyCount]>) -> Commit {
    let retried = async {
        loop {
            match store.commit(request(id, Arc::clone(sent))).await {
                Ok(outcome) => return outcome,
                Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), retried).await.expect("the store never came back")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_says_so_and_works_once_it_is_back() {
    let cluster = Cluster::private();
    let database = cluster.create_database().await;
    cluster.stop("fast");
    let store = impatient(cluster.url(&database)).await;
    let sent = rows([("a", 1, 1)]);
    assert!(is_unavailable(&store.commit(request(batch(1, 1), sent.clone())).await));
    assert!(is_unavailable(&store.totals(vec![]).await));
    assert!(is_unavailable(&store.identity().await));
    cluster.start();
    assert_eq!(commit_until_done(&store, batch(1, 1), &sent).await, Commit::Applied);

    cluster.stop("immediate");
    assert!(is_unavailable(&store.commit(request(batch(1, 2), sent.clone())).await));
    assert!(is_unavailable(&store.position(vec![]).await));
    cluster.start();
    assert_eq!(commit_until_done(&store, batch(1, 2), &sent).await, Commit::Applied);

    cluster.kill();
    assert!(is_unavailable(&store.commit(request(batch(1, 3), sent.clone())).await));
    cluster.start();
    assert_eq!(commit_until_done(&store, batch(1, 3), &sent).await, Commit::Applied);
    assert_eq!(totals(&store).await, [("a".into(), 3)]);
    balanced_books(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_is_given_up_and_its_late_answers_count_once() {
    let cluster = Cluster::private();
    let database = cluster.create_database().await;
    let store = impatient(cluster.url(&database)).await;
    let sent = rows([("a", 1, 1)]);
    assert_eq!(store.commit(request(batch(1, 1), sent.clone())).await, Ok(Commit::Applied));
    store.totals(vec![]).await.unwrap();
    cluster.freeze();
    let (commit, read) = tokio::join!(store.commit(request(batch(1, 2), sent.clone())), store.totals(vec![]));
    assert!(is_unavailable(&commit) && is_unavailable(&read), "{commit:?} {read:?}");
    cluster.thaw();
    commit_until_done(&store, batch(1, 2), &sent).await;
    assert_eq!(totals(&store).await, [("a".into(), 2)]);
}

/// On one thread, so that all reads wait before the first attempt can fail.
#[tokio::test]
async fn a_crowd_of_reads_shares_one_failed_attempt_to_connect() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let store = impatient(format!("postgres://u@127.0.0.1:{port}/db?sslmode=disable")).await;
    let reads = futures_util::future::join_all((0..20).map(|_| store.totals(vec![])));
    let hang_up_on_everybody = async {
        for attempts in 1.. {
            drop(listener.accept().await.unwrap());
            assert!(attempts <= 1, "the crowd connects again and again");
        }
    };
    tokio::select! {
        outcomes = reads => assert!(outcomes.iter().all(is_unavailable)),
        () = hang_up_on_everybody => unreachable!(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_commits_wins_and_one_that_rolls_back_loses() {
    for (end, first) in [("commit", true), ("rollback", true), ("commit", false), ("rollback", false)] {
        let database = Cluster::shared().create_database().await;
        let store = open_url(&Cluster::shared().url(&database)).await;
        store.identity().await.unwrap();
        let id = if first { batch(1, 1) } else { batch(1, 2) };
        if !first {
            store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
        }
        let zombie = Cluster::shared().connect(&database).await;
        zombie
            .batch_execute(
                "begin; \
                 insert into ledger (writer, last_seq, total) values (decode(repeat('01', 16), 'hex'), 1, 10) \
                 on conflict (writer) do update set last_seq = 2, total = ledger.total + 10; \
                 insert into hourly_counts values ('a', 9, 10); \
                 insert into hour_totals values (9, 10); \
                 insert into event_totals values ('a', 10, 9, 9) \
                 on conflict (event) do update set total = event_totals.total + 10",
            )
            .await
            .unwrap();
        let committing = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(request(id, rows([("a", 9, 10)]))).await })
        };
        wait_for_a_blocked_session(&database).await;
        zombie.batch_execute(end).await.unwrap();
        let (last_seq, total) = if first { (BatchSeq(1), 10) } else { (BatchSeq(2), 11) };
        // The zombie is of a version that kept no digests, or kept that of the batch before.
        let digest = (!first).then(|| Digest::of(&rows([("a", 1, 1)])));
        let outcome = match end {
            "commit" => Commit::Stands(Some(LedgerEntry { last_seq, total, digest })),
            _ => Commit::Applied,
        };
        assert_eq!(committing.await.unwrap(), Ok(outcome), "{end}, first batch: {first}");
        assert_eq!(totals(&store).await, [("a".into(), if first { 10 } else { 11 })]);
        balanced_books(&store).await;
    }
}

/// Until the store's commit waits for the lock of the zombie.
async fn wait_for_a_blocked_session(database: &str) {
    let observer = Cluster::shared().connect(database).await;
    let blocked =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    for _ in 0..1_000 {
        if observer.query_one(blocked, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the commit did not wait for the zombie");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_never_ends_makes_the_commit_give_up_and_try_again() {
    let database = Cluster::shared().create_database().await;
    let store = impatient(Cluster::shared().url(&database)).await;
    let sent = rows([("a", 1, 1)]);
    store.commit(request(batch(1, 1), sent.clone())).await.unwrap();
    let zombie = Cluster::shared().connect(&database).await;
    zombie.batch_execute("begin; update ledger set last_seq = 2").await.unwrap();
    assert!(is_unavailable(&store.commit(request(batch(1, 2), sent.clone())).await));
    drop(zombie);
    assert_eq!(commit_until_done(&store, batch(1, 2), &sent).await, Commit::Applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_became_read_only_is_unavailable_until_it_takes_writes() {
    let database = Cluster::shared().create_database().await;
    let store = impatient(Cluster::shared().url(&database)).await;
    let sent = rows([("a", 1, 1)]);
    store.commit(request(batch(1, 1), sent.clone())).await.unwrap();
    let admin = Cluster::shared().connect("postgres").await;
    let set = |value: &str| format!("alter database {database} set default_transaction_read_only = {value}");
    let end_sessions =
        format!("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{database}'");
    admin.batch_execute(&set("on")).await.unwrap();
    admin.batch_execute(&end_sessions).await.unwrap();
    for _ in 0..2 {
        assert!(is_unavailable(&store.commit(request(batch(1, 2), sent.clone())).await));
    }
    admin.batch_execute(&set("off")).await.unwrap();
    assert_eq!(commit_until_done(&store, batch(1, 2), &sent).await, Commit::Applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_exist_is_refused_in_words() {
    let store = open_url(&Cluster::shared().url("nowhere")).await;
    let refused = store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Refused(why) if why.contains("does not exist")), "{refused}");
}
