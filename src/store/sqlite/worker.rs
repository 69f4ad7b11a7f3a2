//! A thread that owns a connection and runs one piece of work after the other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::file::{DataFile, Role};
use crate::store::StoreError;

type Work = Box<dyn FnOnce(&mut Slot) + Send>;

/// A connection that is there or is made when it is needed.
pub(super) struct Slot {
    file: Arc<DataFile>,
    role: Role,
    connection: Option<Connection>,
}

impl Slot {
    pub(super) fn new(file: &Arc<DataFile>, role: Role) -> Self {
        Self { file: Arc::clone(file), role, connection: None }
    }

    /// Opens the connection if there is none, and sees to it that it is still of the right file.
    pub(super) fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        if let Err(error) = self.file.check() {
            self.close();
            return Err(error);
        }
        match &mut self.connection {
            Some(connection) => Ok(connection),
            empty => Ok(empty.insert(self.file.open(self.role)?)),
        }
    }

    /// What `work` says holds only for a file that is still there when it is done.
    fn run<T>(&mut self, work: impl FnOnce(&mut Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let outcome = work(self.connection()?)?;
        if let Err(error) = self.file.check() {
            self.close();
            return Err(error);
        }
        Ok(outcome)
    }

    fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // The connection still has the WAL, though nobody else will find it.
            if self.role == Role::Write
                && self.file.has_lost_its_wal()
                && let Err(error) = super::connection::save_wal(&connection)
            {
                tracing::error!(%error, "The WAL of SQLite was removed, and what it held can't be saved");
            }
            drop(connection);
            self.file.note_closed();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.close();
    }
}

pub(super) struct Worker {
    /// `None` once stopped; the thread then finishes what it has got, closes the connection and ends.
    queue: Mutex<Option<mpsc::Sender<Work>>>,
    /// Pieces of work that are waiting or being done.
    load: Arc<AtomicUsize>,
}

/// More work than this waits for no thread: the last would wait too long.
const WAITING_MAX: usize = 1_000;

/// How often a read looks whether it is still wanted, in steps of SQLite's machine: some ten thousand times a second.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;

/// Says, when it is dropped, that nobody waits any more.
struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One less piece of work, when it is dropped.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    pub(super) fn start(name: &str, mut slot: Slot) -> Result<Self, StoreError> {
        let (queue, received) = mpsc::channel::<Work>();
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                for work in received {
                    work(&mut slot);
                }
            })
            .map_err(|error| StoreError::Unavailable(format!("no thread for SQLite: {error}")))?;
        Ok(Self { queue: Mutex::new(Some(queue)), load: Arc::default() })
    }

    /// The work is done even if the caller does not wait for its outcome.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = self.queue.lock().clone();
        Self::run_on(queue, |slot| slot.run(work)).await
    }

    /// How much work waits or is being done.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// As [`Worker::run`], for work that changes nothing: it is not begun, and ends soon, when the caller does not
    /// wait any more, and takes no longer than `patience`.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        patience: Option<Duration>,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = self.queue.lock().clone();
        let load = Load(Arc::clone(&self.load));
        if self.load.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(StoreError::Busy);
        }
        let has_left = Arc::new(AtomicBool::new(false));
        let _waits = Waits(Arc::clone(&has_left));
        let work = move |slot: &mut Slot| {
            let _load = load;
            if has_left.load(Ordering::Relaxed) {
                return Err(StoreError::Busy);
            }
            slot.run(|connection| interruptible(connection, patience, has_left, work))
        };
        Self::run_on(queue, work).await
    }

    /// Has it close its connection if that is of a file which is not there any more.
    pub(super) fn look_after_file(&self) {
        if let Some(queue) = &*self.queue.lock() {
            // A stopped thread has none.
            let _ = queue.send(Box::new(|slot| {
                if slot.file.check().is_err() {
                    slot.close();
                }
            }));
        }
    }

    /// Runs `last` after all other work, if there is a connection, then ends the thread; later work is
    /// refused.
    pub(super) async fn stop(&self, last: impl FnOnce(&mut Connection) -> Result<(), StoreError> + Send + 'static) {
        let queue = self.queue.lock().take();
        let stopped = Self::run_on(queue, |slot| {
            let ended = match &mut slot.connection {
                Some(connection) if slot.file.check().is_ok() => last(connection),
                _ => Ok(()),
            };
            slot.close();
            ended
        });
        if let Err(error) = stopped.await {
            tracing::warn!(%error, "SQLite did not close as it should");
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.queue.lock().is_none()
    }

    async fn run_on<T: Send + 'static>(
        queue: Option<mpsc::Sender<Work>>,
        work: impl FnOnce(&mut Slot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let closed = || StoreError::Unavailable("the store is closed".into());
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |slot| {
            // Nobody may be waiting any more.
            let _ = answer.send(work(slot));
        });
        queue.ok_or_else(closed)?.send(work).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

fn interruptible<T>(
    connection: &mut Connection,
    patience: Option<Duration>,
    has_left: Arc<AtomicBool>,
    work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let until = patience.map(|patience| Instant::now() + patience);
    let is_late = move || until.is_some_and(|until| Instant::now() >= until);
    connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || has_left.load(Ordering::Relaxed) || is_late()))?;
    let outcome = work(connection);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match outcome {
        Err(_) if is_late() => Err(StoreError::Unavailable("a read of SQLite took too long".into())),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::super::SqliteStore;
    use super::*;
    use crate::store::Store;

    fn worker(dir: &tempfile::TempDir) -> Worker {
        let file = Arc::new(DataFile::at(&dir.path().join("events.sqlite")));
        Worker::start("test", Slot::new(&file, Role::Read)).unwrap()
    }

    /// Never ends by itself.
    fn endless(connection: &mut Connection) -> Result<i64, StoreError> {
        let sql = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
        Ok(connection.query_row(sql, [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn a_read_that_takes_too_long_ends_and_the_next_one_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let worker = worker(&dir);
        let late = worker.read(Some(Duration::from_millis(50)), endless).await;
        assert!(matches!(&late, Err(StoreError::Unavailable(why)) if why.contains("too long")), "{late:?}");
        assert_eq!(worker.read(Some(Duration::from_secs(60)), |_| Ok(7)).await, Ok(7));
    }

    #[tokio::test]
    async fn work_of_those_who_left_is_not_begun_and_what_is_begun_ends() {
        let dir = tempfile::tempdir().unwrap();
        let worker = worker(&dir);
        let (begin, begun) = mpsc::channel();
        let ran = Arc::new(AtomicUsize::new(0));
        {
            let mut first = Box::pin(worker.read(None, move |connection| {
                begin.send(()).unwrap();
                endless(connection)
            }));
            assert!(first.as_mut().now_or_never().is_none());
            begun.recv().unwrap();
            let mut behind = Box::pin(join_all((0..100).map(|_| {
                let ran = Arc::clone(&ran);
                worker.read(None, move |_| Ok(ran.fetch_add(1, Ordering::SeqCst)))
            })));
            assert!(behind.as_mut().now_or_never().is_none());
            assert_eq!(worker.load(), 101);
        }
        assert_eq!(worker.read(None, |_| Ok(7)).await, Ok(7));
        assert_eq!(ran.load(Ordering::SeqCst), 0);
        assert_eq!(worker.load(), 0);
    }

    #[tokio::test]
    async fn so_many_reads_wait_and_the_next_one_hears_that_it_is_busy() {
        let dir = tempfile::tempdir().unwrap();
        let worker = worker(&dir);
        let mut all = Box::pin(join_all((0..WAITING_MAX).map(|_| worker.read(None, endless))));
        assert!(all.as_mut().now_or_never().is_none());
        assert_eq!(worker.read(None, |_| Ok(7)).await, Err(StoreError::Busy));
        drop(all);
        while worker.read(None, |_| Ok(7)).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_small_and_the_dashboard_do_not_wait_for_long_lists() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("events.sqlite")).unwrap();
        let left = 1;
        let mut long = Box::pin(join_all((left..store.read_connections()).map(|_| store.list(None, endless))));
        assert!(long.as_mut().now_or_never().is_none());
        store.position(Vec::new()).await.unwrap();
        assert_eq!(store.totals(Vec::new()).await.unwrap().value, Vec::new());
        drop(long);
        store.close().await;
    }
}
