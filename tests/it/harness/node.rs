//! A node without HTTP, as `app` builds it, in a folder and on a store of the test's choice.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use event_tracker::domain::{Ack, EventName, Hour};
use event_tracker::flusher;
use event_tracker::journal::{self, DataDir};
use event_tracker::names::Limits;
use event_tracker::node::{Clock, Node, Options};
use event_tracker::store::{self, Store};

use super::PATIENCE;

/// Flushes often, tries again soon, and acknowledges in memory unless a test waits for more.
pub fn options() -> Options {
    Options {
        journal: journal::Options { ack: Ack::Memory, ..journal::Options::default() },
        flush: flusher::Options { interval_ms: 10, shutdown_timeout_ms: 10_000, retry_backoff_max_ms: 10 },
        fold_interval_ms: 15,
        limits: Limits { events_max: 100_000 },
    }
}

pub fn now() -> Clock {
    Arc::new(SystemTime::now)
}

/// The embedded store of a data folder.
pub async fn sqlite(dir: &Path) -> Arc<dyn Store> {
    store::open(&store::Options::default(), dir).await.unwrap()
}

/// A node in the folder, on this store. Not running: it flushes when it is told to.
pub fn node(dir: &Path, store: Arc<dyn Store>, options: Options) -> Node {
    Node::recover(lock(dir), store, options, now()).unwrap().0
}

/// Locks the folder. A child that another test has just forked holds the lock of a node that was dropped until
/// it becomes its own program.
pub fn lock(dir: &Path) -> DataDir {
    let began = Instant::now();
    loop {
        match DataDir::lock(dir) {
            Err(_) if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            locked => return locked.unwrap(),
        }
    }
}

pub fn record(node: &Node, event: &str, number: u32, count: u64) {
    let hour = Hour::from_number(number).unwrap();
    node.batches.record(&EventName::parse(event).unwrap(), hour, count).unwrap();
}
