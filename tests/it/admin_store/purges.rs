//! When the counts of a deleted event are removed for good: no clock alone decides that.

use std::sync::atomic::{AtomicI64, Ordering};

use event_tracker::admin;
use event_tracker::journal::DataDir;
use event_tracker::node::Node;
use event_tracker::store::sqlite::SqliteStore;

use super::*;

on_both_stores!(
    when_an_event_was_deleted_the_store_says_and_not_the_caller,
    a_node_with_a_clock_a_week_ahead_purges_nothing,
    a_store_clock_that_jumps_ahead_for_a_moment_purges_nothing,
    an_honest_grace_ends_in_a_purge,
    a_restored_event_begins_its_grace_anew_when_it_is_deleted_again,
    a_purge_is_remembered_for_thirty_days,
);

const GRACE: TimeDelta = TimeDelta::hours(168);

/// A store whose clock goes wrong as a test wants it to.
pub struct Clocked<'a> {
    bench: &'a Bench,
    pub store: Arc<dyn Store>,
    ahead_s: Arc<AtomicI64>,
}

impl<'a> Clocked<'a> {
    pub async fn open(bench: &'a Bench) -> Self {
        let ahead_s = Arc::new(AtomicI64::new(0));
        let store: Arc<dyn Store> = match bench {
            Bench::Sqlite(folder) => {
                let ahead = Arc::clone(&ahead_s);
                let clock = move || (Utc::now() + TimeDelta::seconds(ahead.load(Ordering::SeqCst))).into();
                let store = SqliteStore::open(&folder.path().join("events.sqlite")).unwrap();
                Arc::new(store.with_clock(Arc::new(clock)))
            }
            Bench::Postgres { .. } | Bench::Memory(_) => bench.store().await,
        };
        Self { bench, store, ahead_s }
    }

    /// The store's clock is so far ahead of the right time from now on. Nobody sets the clock of PostgreSQL:
    /// there, what it is compared with moves the other way.
    pub async fn set_ahead(&self, ahead: TimeDelta) {
        let more = ahead.num_seconds() - self.ahead_s.swap(ahead.num_seconds(), Ordering::SeqCst);
        if let Bench::Postgres { .. } = self.bench {
            let moved = format!(
                "update catalog set deleted_at = deleted_at - interval '{more} s',
                     purge_due_since = purge_due_since - interval '{more} s';
                 update purge_marks set at = at - interval '{more} s'"
            );
            self.bench.execute(&moved).await;
        }
    }

    /// What a look at this moment finds to be purged.
    async fn due(&self) -> Vec<EventName> {
        self.store.due_purges(GRACE).await.unwrap()
    }
}

fn purge_after_grace(event: &str) -> Change {
    Change::Purge { event: name(event), grace: GRACE }
}

async fn when_an_event_was_deleted_the_store_says_and_not_the_caller(bench: Bench) {
    let store = bench.store().await;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    let before = Utc::now() - TimeDelta::seconds(1);
    // The caller's time is years ago.
    done(&store, delete("a")).await;
    let deleted_at = entry(&store, "a").await.deleted_at.unwrap();
    assert!((before..=Utc::now() + TimeDelta::seconds(1)).contains(&deleted_at), "{deleted_at}");
    refused(&store, purge_after_grace("a"), "can be restored is not over yet").await;
    let ahead = store.change(purge_after_grace("a"), "ada", Utc::now() + TimeDelta::days(365)).await.unwrap();
    assert!(matches!(ahead, Changed::Refused { .. }), "{ahead:?}");
}

async fn a_node_with_a_clock_a_week_ahead_purges_nothing(bench: Bench) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(|| (Utc::now() + GRACE + TimeDelta::days(1)).into());
    let (dir, options) = (DataDir::lock(folder.path()).unwrap(), crate::harness::node::options());
    let (node, _) = Node::recover(dir, bench.store().await, options, clock).unwrap();
    let node = Arc::new(node);
    node.meet_store().await.unwrap();
    let admin = admin::State::new(&node, admin::Options::default());
    node.batches.record(&name("a"), hour(1), 5).unwrap();
    node.flusher.flush().await.unwrap();
    // By another node, whose clock is right.
    bench.store().await.change(delete("a"), "ada", Utc::now()).await.unwrap();
    node.look().await.unwrap();
    for _ in 0..3 {
        admin.purge_deleted().await.unwrap();
    }
    assert_eq!(stored(&node.store).await, *rows([("a", 1, 5)]));
    assert_eq!(node.store.changes(vec![], None, 10).await.unwrap().len(), 1);
}

async fn a_store_clock_that_jumps_ahead_for_a_moment_purges_nothing(bench: Bench) {
    let clocked = Clocked::open(&bench).await;
    let store = &clocked.store;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    done(store, delete("a")).await;
    let (due, moment) = (GRACE + TimeDelta::days(1), TimeDelta::minutes(30));
    // Again and again, and each time further.
    for times in 0..5 {
        clocked.set_ahead(due + moment * times).await;
        assert_eq!(clocked.due().await, []);
        refused(store, purge_after_grace("a"), "not over yet").await;
        clocked.set_ahead(TimeDelta::zero()).await;
        assert_eq!(clocked.due().await, []);
    }
    // And back while nobody looks: the mark is of a time to come then.
    clocked.set_ahead(due * 3).await;
    assert_eq!(clocked.due().await, []);
    clocked.set_ahead(due).await;
    assert_eq!(clocked.due().await, []);
    refused(store, purge_after_grace("a"), "not over yet").await;
    assert_eq!(stored(store).await, *rows([("a", 1, 1)]));
}

async fn an_honest_grace_ends_in_a_purge(bench: Bench) {
    let clocked = Clocked::open(&bench).await;
    let store = &clocked.store;
    store.commit(request(batch(1, 1), rows([("a", 1, 1), ("b", 1, 1), ("c", 1, 1)]))).await.unwrap();
    done(store, delete("a")).await;
    done(store, delete("b")).await;
    let (day, minute) = (TimeDelta::days(1), TimeDelta::minutes(1));
    for (ahead, is_due) in [
        (TimeDelta::zero(), false),
        (GRACE - minute, false),
        // The first look that finds it due, and later ones.
        (GRACE + minute, false),
        (GRACE + minute * 30, false),
        (GRACE + minute * 62, true),
        (GRACE + day, true),
    ] {
        clocked.set_ahead(ahead).await;
        let expected = if is_due { vec![name("a"), name("b")] } else { vec![] };
        assert_eq!(clocked.due().await, expected, "{ahead}");
        if !is_due {
            refused(store, purge_after_grace("a"), "not over yet").await;
        }
    }
    done(store, purge_after_grace("a")).await;
    assert_eq!(clocked.due().await, [name("b")]);
    assert_eq!(stored(store).await, *rows([("b", 1, 1), ("c", 1, 1)]));
    assert_eq!(balanced_books(store).await.removed, 1);
}

async fn a_restored_event_begins_its_grace_anew_when_it_is_deleted_again(bench: Bench) {
    let clocked = Clocked::open(&bench).await;
    let store = &clocked.store;
    store.commit(request(batch(1, 1), rows([("a", 1, 1)]))).await.unwrap();
    let deletion = done(store, delete("a")).await;
    clocked.set_ahead(GRACE).await;
    assert_eq!(clocked.due().await, []);
    clocked.set_ahead(TimeDelta::zero()).await;
    done(store, Change::Undo { change: deletion }).await;
    clocked.set_ahead(GRACE).await;
    done(store, delete("a")).await;
    for ahead in [GRACE + TimeDelta::hours(2), GRACE * 2 - TimeDelta::hours(1), GRACE * 2 + TimeDelta::minutes(1)] {
        clocked.set_ahead(ahead).await;
        assert_eq!(clocked.due().await, [], "{ahead}");
    }
    clocked.set_ahead(GRACE * 2 + TimeDelta::minutes(62)).await;
    assert_eq!(clocked.due().await, [name("a")]);
}

async fn a_purge_is_remembered_for_thirty_days(bench: Bench) {
    let clocked = Clocked::open(&bench).await;
    let store = &clocked.store;
    let events = ["a", "b", "c"];
    store.commit(request(batch(1, 1), rows(events.map(|event| (event, 1, 1))))).await.unwrap();
    for (event, days, remembered) in [("a", 0, vec!["a"]), ("b", 29, vec!["a", "b"]), ("c", 31, vec!["b", "c"])] {
        clocked.set_ahead(TimeDelta::days(days)).await;
        done(store, delete(event)).await;
        done(store, purge(event)).await;
        let catalog = store.catalog().await.unwrap();
        assert_eq!(catalog.purges.keys().map(EventName::as_str).collect::<Vec<_>>(), remembered);
        assert_eq!(catalog.purges[&name(event)], catalog.version);
    }
    store.commit(request(batch(1, 2), rows(events.map(|event| (event, 1, 10))))).await.unwrap();
    assert_eq!(totals(store).await, [("a".into(), 10)]);
    balanced_books(store).await;
}
