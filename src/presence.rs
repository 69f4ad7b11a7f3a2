//! Says every few seconds that this node lives, and knows which others do.
//!
//! For people who look after several nodes. Nothing waits for it, and nothing that is counted hangs on it.
//! A data folder has an id that stays when the node is started again: so a restart is no second node. Two
//! processes that go on side by side with the same id run on copies of one folder, and show as such.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::batch::Batches;
use crate::blocking::run_blocking;
use crate::domain::BatchId;
use crate::journal::files::{Files, read_small, remove_if_there};
use crate::shared::Shared;
use crate::store::{NodeId, NodeReport, NodeSeen, Store, StoreError, StoreHealth};

/// A node that misses some reports in a row does not count as live any more.
const REPORT_INTERVAL: Duration = Duration::from_secs(3);
/// How often it looks what is waiting: as exact as this is the age of the oldest count.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// So long an answer of the store is given to all who ask.
const FRESH: Duration = Duration::from_millis(500);
/// Longest wait for the store to take note that this node ends.
const FAREWELL: Duration = Duration::from_millis(500);
/// The file in the data folder with the folder's id.
const FILE: &str = "NODE";

pub struct Presence {
    files: Arc<dyn Files>,
    batches: Arc<Batches>,
    store: Arc<dyn Store>,
    health: Arc<StoreHealth>,
    begun: Instant,
    address: Mutex<String>,
    waiting: Mutex<Waiting>,
    /// Whether the store has noted the last report.
    is_noted: Mutex<bool>,
    seen: Shared<Result<Seen, StoreError>>,
}

/// The live nodes and when the store was asked.
type Seen = (Instant, Arc<Vec<NodeSeen>>);

impl Presence {
    #[must_use]
    pub fn new(files: Arc<dyn Files>, batches: Arc<Batches>, store: Arc<dyn Store>, health: Arc<StoreHealth>) -> Self {
        let begun = Instant::now();
        Self {
            files,
            batches,
            store,
            health,
            begun,
            address: Mutex::default(),
            waiting: Mutex::new(Waiting { looked: begun, since: BTreeMap::new() }),
            is_noted: Mutex::default(),
            seen: Shared::default(),
        }
    }

    /// From now on reports say so.
    pub fn listens_at(&self, address: String) {
        *self.address.lock() = address;
    }

    /// Reports until it is dropped. For one caller, once the store has been met.
    pub async fn run(&self) {
        tokio::join!(self.keep_looking(), self.keep_reporting());
    }

    async fn keep_looking(&self) {
        loop {
            self.waiting.lock().look(self.batches.pending().waiting(), Instant::now());
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn keep_reporting(&self) {
        let files = Arc::clone(&self.files);
        let node = match run_blocking(move || id_of(&*files)).await {
            Ok(node) => node,
            // Without randomness there would be no writer either, and no node.
            Err(error) => return tracing::warn!(%error, "This node has no id, so it is not among the live nodes"),
        };
        loop {
            let noted = self.store.note_node(self.report(node)).await;
            if let Err(error) = &noted {
                tracing::debug!(%error, "The store has not noted that this node lives");
            }
            *self.is_noted.lock() = noted.is_ok();
            tokio::time::sleep(REPORT_INTERVAL).await;
        }
    }

    fn report(&self, node: NodeId) -> NodeReport {
        let now = Instant::now();
        NodeReport {
            node,
            writer: self.batches.writer(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            address: self.address.lock().clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: now.duration_since(self.begun),
            last_commit: self.health.status().last_commit.map(|at| now.saturating_duration_since(at)),
            waiting: self.waiting.lock().oldest(now),
        }
    }

    /// For the end of the process: a node that was stopped is not live any more, at once. One that is killed
    /// is forgotten when it has not reported for a while.
    pub async fn leave(&self) {
        if *self.is_noted.lock() {
            let _ = tokio::time::timeout(FAREWELL, self.store.forget_node(self.batches.writer())).await;
        }
    }

    /// The live nodes, this one among them if the store has noted it.
    ///
    /// # Errors
    /// The store's.
    pub async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        let is_fresh = |seen: &Result<Seen, StoreError>| seen.as_ref().is_ok_and(|(at, _)| at.elapsed() < FRESH);
        let ask = async {
            let at = Instant::now();
            Ok((at, Arc::new(self.store.nodes().await?)))
        };
        let (_, nodes) = self.seen.get(is_fresh, ask).await?;
        Ok(nodes.to_vec())
    }

    /// Whether it is this process.
    #[must_use]
    pub fn is_this(&self, seen: &NodeSeen) -> bool {
        seen.writer == self.batches.writer()
    }
}

/// The id in the data folder, made at the first start. Nothing is synced: what a crash of the machine takes
/// is made anew.
fn id_of(files: &dyn Files) -> io::Result<NodeId> {
    let found = read_small(files, FILE).ok().flatten();
    if let Some(id) = found.and_then(|contents| NodeId::parse(String::from_utf8_lossy(&contents).trim())) {
        return Ok(id);
    }
    let id = NodeId(files.random_bits()?);
    if let Err(error) = write(files, id) {
        tracing::warn!(%error, "The id of this node can't be kept in the data folder: after a restart it is another");
    }
    Ok(id)
}

fn write(files: &dyn Files, id: NodeId) -> io::Result<()> {
    let aside = format!("{FILE}.new");
    remove_if_there(files, &aside)?;
    let written = files.create(&aside).and_then(|file| file.write_at(format!("{id}\n").as_bytes(), 0));
    written.and_then(|()| files.rename(&aside, FILE)).inspect_err(|_| {
        let _ = files.remove(&aside);
    })
}

/// Since when batches have had something to commit, as far as looks can tell.
struct Waiting {
    looked: Instant,
    since: BTreeMap<BatchId, Instant>,
}

impl Waiting {
    /// A batch that was not there at the look before has come since then.
    fn look(&mut self, waiting: impl Iterator<Item = BatchId>, now: Instant) {
        let before = std::mem::replace(&mut self.looked, now);
        self.since = waiting.map(|id| (id, self.since.get(&id).copied().unwrap_or(before))).collect();
    }

    fn oldest(&self, now: Instant) -> Option<Duration> {
        self.since.values().min().map(|since| now.saturating_duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::{BatchSeq, WriterId};
    use crate::journal::files::OsFiles;

    fn batch(seq: u64) -> BatchId {
        BatchId { writer: WriterId([1; 16]), seq: BatchSeq(seq) }
    }

    #[test]
    fn the_oldest_count_is_never_said_to_be_younger_than_it_is() {
        let begun = Instant::now();
        let at = |secs| begun + Duration::from_secs(secs);
        let mut waiting = Waiting { looked: begun, since: BTreeMap::new() };
        waiting.look([].into_iter(), at(1));
        assert_eq!(waiting.oldest(at(2)), None);
        // It may have been counted right after the look before.
        waiting.look([batch(1)].into_iter(), at(2));
        assert_eq!(waiting.oldest(at(2)), Some(Duration::from_secs(1)));
        waiting.look([batch(1), batch(2)].into_iter(), at(3));
        assert_eq!(waiting.oldest(at(4)), Some(Duration::from_secs(3)));
        // The first is committed; the second has been waiting since the second look.
        waiting.look([batch(2)].into_iter(), at(5));
        assert_eq!(waiting.oldest(at(5)), Some(Duration::from_secs(3)));
        waiting.look([].into_iter(), at(6));
        assert_eq!(waiting.oldest(at(6)), None);
    }

    #[test]
    fn a_folder_keeps_its_id_and_one_that_is_damaged_gets_another() {
        let folder = tempfile::tempdir().unwrap();
        let files = OsFiles::open(folder.path()).unwrap();
        let id = id_of(&files).unwrap();
        assert_eq!(id_of(&files).unwrap(), id);
        std::fs::write(folder.path().join(FILE), "").unwrap();
        let other = id_of(&files).unwrap();
        assert_ne!(other, id);
        assert_eq!(id_of(&files).unwrap(), other);
    }

    #[test]
    fn a_folder_that_takes_no_files_still_gives_an_id() {
        let folder = tempfile::tempdir().unwrap();
        let files = OsFiles::open(folder.path()).unwrap();
        folder.close().unwrap();
        assert_ne!(id_of(&files).unwrap(), id_of(&files).unwrap());
    }
}
