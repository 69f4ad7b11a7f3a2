//! Every request that the store sends to PostgreSQL fails once, in every way: whatever it belonged to
//! happens exactly once, or not at all until it is repeated.

use std::path::Path;
use std::sync::Arc;

use event_tracker::domain::{Digest, HourlyCount};
use event_tracker::store::admin::{AccountChange, Change, Changed, Superuser};
use event_tracker::store::{self, Commit, Options, Store, StoreError};

use crate::admin_store::{correct, describe, name, now};
use crate::harness::postgres::Cluster;
use crate::harness::proxy::{Fault, Mishap, Proxy};
use crate::store_contract::{balanced_books, batch, open_url, request, rows, stored, writer};

/// More requests than any of the series below makes.
const REQUESTS_MAX: u64 = 60;

/// A database behind a proxy, and the store of a node that is quick to give up.
struct Bench {
    proxy: Proxy,
    url: String,
}

impl Bench {
    async fn new() -> Self {
        let cluster = Cluster::shared();
        let url = cluster.url(&cluster.create_database().await);
        let port = url::Url::parse(&url).unwrap().port().unwrap();
        Self { proxy: Proxy::start(port).await, url }
    }

    /// As quick as a new database is slow.
    async fn empty(&self) {
        let database = self.url.rsplit('/').next().unwrap();
        let client = Cluster::shared().connect(database).await;
        client.batch_execute("drop schema public cascade; create schema public").await.unwrap();
    }

    async fn store(&self) -> Arc<dyn Store> {
        let options = Options {
            url: self.proxy.url(&self.url),
            connect_timeout_ms: 400,
            statement_timeout_ms: 400,
            lock_timeout_ms: 400,
            ..Options::default()
        };
        store::open(&options, Path::new("unused")).await.unwrap()
    }
}

/// Again and again, as a flusher and a stubborn administrator do.
async fn until_it_answers<T, F: Future<Output = Result<T, StoreError>>>(mut attempt: impl FnMut() -> F) -> T {
    for _ in 0..20 {
        match attempt().await {
            Ok(answer) => return answer,
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store never came back");
}

async fn commit(store: &Arc<dyn Store>, seq: u64, rows: &Arc<[HourlyCount]>) {
    let sent = request(batch(1, seq), Arc::clone(rows));
    match until_it_answers(|| store.commit(sent.clone())).await {
        Commit::Applied => {}
        Commit::Stands(Some(entry)) => {
            assert_eq!((entry.last_seq, entry.digest), (sent.id.seq, Some(Digest::of(rows))), "of an earlier attempt");
        }
        Commit::Stands(None) => panic!("the ledger's row is gone"),
    }
}

async fn change(store: &Arc<dyn Store>, change: &Change) -> Changed {
    until_it_answers(|| store.change(change.clone(), "ada", now())).await
}

/// Whatever becomes of one request of `series`: `check` holds afterwards. Gives how many it made.
async fn whichever_request_fails<S, C>(mishap: Mishap, fresh_database: bool, series: S, check: C) -> u64
where
    S: AsyncFn(&Arc<dyn Store>, u64),
    C: AsyncFn(&Arc<dyn Store>, u64),
{
    let bench = Bench::new().await;
    for nth in 1..=REQUESTS_MAX {
        if fresh_database {
            bench.empty().await;
        }
        let store = bench.store().await;
        bench.proxy.set(Fault::Request(nth, mishap));
        series(&store, nth).await;
        let has_struck = bench.proxy.has_struck();
        bench.proxy.set(Fault::None);
        store.close().await;
        let direct = open_url(&bench.url).await;
        check(&direct, nth).await;
        direct.close().await;
        if !has_struck {
            return nth - 1;
        }
    }
    panic!("more than {REQUESTS_MAX} requests");
}

/// One test for each way to fail.
macro_rules! in_every_way {
    ($($promise:ident),* $(,)?) => {
        $(mod $promise {
            use super::*;
            #[tokio::test(flavor = "multi_thread")]
            async fn a_request_is_refused() { super::$promise(Mishap::Refuse).await; }
            #[tokio::test(flavor = "multi_thread")]
            async fn the_connection_is_cut_before_a_request() { super::$promise(Mishap::Cut).await; }
            #[tokio::test(flavor = "multi_thread")]
            async fn an_answer_is_lost() { super::$promise(Mishap::LoseAnswer).await; }
            #[tokio::test(flavor = "multi_thread")]
            async fn an_answer_comes_too_late() { super::$promise(Mishap::Delay).await; }
        })*
    };
}

in_every_way!(
    commits_count_once,
    a_commit_of_many_statements_counts_once,
    a_correction_happens_once,
    an_account_changes_once,
    an_empty_database_gets_one_schema,
);

async fn commits_count_once(mishap: Mishap) {
    let one = rows([("login", 10, 3), ("backup", 11, 4)]);
    let series = async |store: &Arc<dyn Store>, nth: u64| {
        commit(store, 2 * nth - 1, &one).await;
        commit(store, 2 * nth, &one).await;
    };
    let check = async |store: &Arc<dyn Store>, nth: u64| {
        assert_eq!(stored(store).await, *rows([("backup", 11, 8 * nth), ("login", 10, 6 * nth)]), "request {nth}");
        assert_eq!(balanced_books(store).await.ledger, i128::from(14 * nth));
        let entry = store.position(vec![writer(1)]).await.unwrap().applied[&writer(1)];
        assert_eq!((entry.last_seq.0, entry.total), (2 * nth, i128::from(14 * nth)));
    };
    let requests = whichever_request_fails(mishap, false, series, check).await;
    assert!(requests >= 8, "only {requests} requests were tried");
}

async fn a_commit_of_many_statements_counts_once(mishap: Mishap) {
    const ROWS: u64 = 25_000;
    let names: Vec<String> = (0..ROWS).map(|number| format!("event/{number}")).collect();
    let many = rows(names.iter().map(|name| (name.as_str(), 1, 1)));
    let series = async |store: &Arc<dyn Store>, nth: u64| commit(store, nth, &many).await;
    let check = async |store: &Arc<dyn Store>, nth: u64| {
        assert_eq!(balanced_books(store).await.rows, i128::from(ROWS * nth), "request {nth}");
    };
    whichever_request_fails(mishap, false, series, check).await;
}

async fn a_correction_happens_once(mishap: Mishap) {
    let one = rows([("login", 10, 3)]);
    let series = async |store: &Arc<dyn Store>, nth: u64| {
        commit(store, nth, &one).await;
        change(store, &correct("login", 10, 3 * nth + (nth - 1), 4 * nth)).await;
        change(store, &describe("login", &nth.to_string())).await;
    };
    let check = async |store: &Arc<dyn Store>, nth: u64| {
        assert_eq!(stored(store).await, *rows([("login", 10, 4 * nth)]), "request {nth}");
        let books = balanced_books(store).await;
        assert_eq!((books.ledger, books.removed), (i128::from(3 * nth), -i128::from(nth)));
        assert_eq!(store.changes(vec![], None, 1_000).await.unwrap().len() as u64, 2 * nth);
        let catalog = store.catalog().await.unwrap();
        assert_eq!((catalog.version, &*catalog.entries[&name("login")].description), (2 * nth, &*nth.to_string()));
    };
    whichever_request_fails(mishap, false, series, check).await;
}

async fn an_account_changes_once(mishap: Mishap) {
    let user = |nth: u64| Superuser {
        name: format!("user {nth}"),
        password_hash: "$argon2id$x".into(),
        disabled: false,
        created_at: now(),
        last_login_at: None,
    };
    let series = async |store: &Arc<dyn Store>, nth: u64| {
        let add = AccountChange::AddUser(user(nth));
        until_it_answers(|| store.change_account(add.clone(), "ada", now())).await;
        let off = AccountChange::Disable { user: user(nth).name };
        until_it_answers(|| store.change_account(off.clone(), "ada", now())).await;
    };
    let check = async |store: &Arc<dyn Store>, nth: u64| {
        let users = store.superusers().await.unwrap();
        assert!(users.len() as u64 == nth && users.iter().all(|user| user.disabled), "request {nth}: {users:?}");
        // To disable an account twice is a change twice; to add it twice is none.
        let log = store.changes(vec![], None, 1_000).await.unwrap();
        assert_eq!(log.iter().filter(|line| line.what == "add user").count() as u64, nth);
        assert_eq!(store.catalog().await.unwrap().version, log.len() as u64);
    };
    whichever_request_fails(mishap, false, series, check).await;
}

async fn an_empty_database_gets_one_schema(mishap: Mishap) {
    let one = rows([("login", 10, 3)]);
    let series = async |store: &Arc<dyn Store>, _| {
        let identity = until_it_answers(|| store.identity()).await;
        commit(store, 1, &one).await;
        assert_eq!(until_it_answers(|| store.identity()).await, identity);
    };
    let check = async |store: &Arc<dyn Store>, nth: u64| {
        assert_eq!(stored(store).await, *one, "request {nth}");
        assert_eq!(balanced_books(store).await.ledger, 3);
    };
    let requests = whichever_request_fails(mishap, true, series, check).await;
    assert!(requests >= 15, "only {requests} requests were tried");
}
