//! What the tests run against: the real program, a real PostgreSQL, PgBouncer or a proxy between the two, and a
//! real browser.

pub mod answer;
pub mod app;
pub mod axe;
pub mod browser;
pub mod citus;
pub mod faulty_files;
pub mod fleet;
pub mod keeper;
pub mod load;
pub mod node;
pub mod outages;
pub mod packages;
pub mod pgbouncer;
pub mod postgres;
pub mod proxy;
pub mod superuser;
pub mod traffic;
pub mod unsteady;

pub use answer::Answer;
pub use app::{Backend, PARTITIONS, TestApp};
pub use browser::{Browser, in_browser, in_browser_at, in_browser_over_plain_http};
pub use superuser::Superuser;
pub use traffic::{Tally, Traffic};

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

/// Longest wait for anything that a test awaits. No test is faster or slower for it, unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits a condition, looking often.
#[track_caller]
pub fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + PATIENCE;
        while !condition().await {
            assert!(Instant::now() < deadline, "{caller}: waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The hour that began so many hours ago, as `YYYYMMDDHH`.
pub fn hours_ago(hours: i64) -> String {
    (chrono::Utc::now() - chrono::Duration::hours(hours)).format("%Y%m%d%H").to_string()
}

/// The sums of events that share their counts: `group` gives the name of the whole.
pub fn by_group(counts: BTreeMap<String, u64>, group: impl Fn(&str) -> &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (event, count) in counts {
        *sums.entry(group(&event).to_owned()).or_default() += count;
    }
    sums
}

/// Sends a signal by its short name, such as `TERM`.
pub fn signal(pid: u32, name: &str) {
    let sent = std::process::Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &pid.to_string()]).status();
    assert!(sent.unwrap().success(), "SIG{name} to {pid}");
}

/// Makes one test of an `async fn(Backend)` for each store.
macro_rules! on_both_stores {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $test() { super::$test(crate::harness::Backend::Sqlite).await; })*
        }
        mod on_postgres {
            $(#[tokio::test] async fn $test() { super::$test(crate::harness::Backend::Postgres).await; })*
        }
    };
}
pub(crate) use on_both_stores;

/// The same on PostgreSQL in partitions.
macro_rules! on_partitions {
    ($($test:ident),* $(,)?) => {
        mod on_partitions {
            $(#[tokio::test] async fn $test() { super::$test(crate::harness::Backend::Partitioned).await; })*
        }
    };
}
pub(crate) use on_partitions;
