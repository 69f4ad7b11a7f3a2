//! A thread that owns a connection and runs one piece of work after the other.

use std::sync::{Arc, mpsc};

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
        Ok(Self { queue: Mutex::new(Some(queue)) })
    }

    /// The work is done even if the caller does not wait for its outcome.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = self.queue.lock().clone();
        Self::run_on(queue, |slot| slot.run(work)).await
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
