//! A thread that owns a connection and runs one piece of work after the other.

use std::sync::mpsc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::store::StoreError;

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

pub(super) struct Worker {
    /// `None` once stopped; the thread then finishes what it has got, closes the connection and ends.
    queue: Mutex<Option<mpsc::Sender<Work>>>,
}

impl Worker {
    pub(super) fn start(name: &str, mut connection: Connection) -> Result<Self, StoreError> {
        let (queue, received) = mpsc::channel::<Work>();
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                for work in received {
                    work(&mut connection);
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
        Self::run_on(queue, work).await
    }

    /// Runs `last` after all other work, then ends the thread; later work is refused.
    pub(super) async fn stop(&self, last: impl FnOnce(&mut Connection) -> Result<(), StoreError> + Send + 'static) {
        let queue = self.queue.lock().take();
        if let Err(error) = Self::run_on(queue, last).await {
            tracing::warn!(%error, "SQLite did not close as it should");
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.queue.lock().is_none()
    }

    async fn run_on<T: Send + 'static>(
        queue: Option<mpsc::Sender<Work>>,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let closed = || StoreError::Unavailable("the store is closed".into());
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            // Nobody may be waiting any more.
            let _ = answer.send(work(connection));
        });
        queue.ok_or_else(closed)?.send(work).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}
