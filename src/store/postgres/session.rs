//! Connections in use: given back only after success, never shared by two tasks at once.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::task::AbortOnDropHandle;

use super::client::Client;
use super::connector::Connector;
use super::schema::Home;
use crate::domain::Partitions;
use crate::store::StoreError;

/// One connection. Dropped, its socket closes at once, whatever the database still sends.
pub(super) struct Session {
    pub(super) client: Client,
    /// Where in the database our tables are.
    pub(super) home: Home,
    pub(super) connection: AbortOnDropHandle<()>,
}

impl Session {
    /// Says goodbye before the socket closes.
    async fn end(self) {
        self.client.close();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.connection).await;
    }

    /// Opens a transaction and waits until it is known to be open: nothing that changes data may be sent
    /// before, since it would be done outside of one. The schema is set here and not for the session, and the
    /// database asked who it is: behind a pooler each transaction may be on another connection, which others
    /// have used, and which may lead to another database than when the session was made.
    pub(super) async fn begin(&self, begin: &str) -> Result<(), StoreError> {
        self.begin_at(begin, &self.home.path()).await
    }

    /// The same for a transaction that begins in a partition.
    pub(super) async fn begin_in(&self, begin: &str, partition: u16) -> Result<(), StoreError> {
        self.begin_at(begin, &self.home.path_of(partition)).await
    }

    async fn begin_at(&self, begin: &str, path: &str) -> Result<(), StoreError> {
        let statements = self.home.pinned(begin, path);
        let opened = self.client.answered(self.client.driver().simple_query(&statements)).await?;
        self.home.recognise(opened)
    }

    /// From now on the transaction is in that partition.
    pub(super) async fn enter(&self, partition: u16) -> Result<(), StoreError> {
        if self.home.partitions == Partitions::ONE {
            return Ok(());
        }
        self.client.batch_execute(&self.home.path_of(partition)).await
    }

    /// From now on the transaction is where everything is that is not cut into partitions.
    pub(super) async fn leave(&self) -> Result<(), StoreError> {
        if self.home.partitions == Partitions::ONE {
            return Ok(());
        }
        self.client.batch_execute(&self.home.path()).await
    }
}

/// A fixed number of sessions for one purpose, so that purposes do not wait for each other.
pub(super) struct Pool {
    permits: Semaphore,
    size: u32,
    idle: Mutex<Vec<Session>>,
}

/// A session in use. Only a session that is given back is used again: after an error, a time-out or a
/// caller that went away nobody can know what is still on the wire.
pub(super) struct Lease<'a> {
    pub(super) session: Session,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    pub(super) fn new(size: usize) -> Self {
        let size = u32::try_from(size.clamp(1, 1_000)).unwrap_or(1);
        Self { permits: Semaphore::new(size as usize), size, idle: Mutex::new(Vec::new()) }
    }

    /// Waits no longer than `patience` for its turn; connecting has a time of its own.
    pub(super) async fn lease(&self, connector: &Connector, patience: Duration) -> Result<Lease<'_>, StoreError> {
        let asked_at = Instant::now();
        let Ok(permit) = tokio::time::timeout(patience, self.permits.acquire()).await else {
            let waited_ms = patience.as_millis();
            return Err(StoreError::Unavailable(format!("all connections were busy for {waited_ms} ms")));
        };
        let permit = permit.map_err(|_| StoreError::Unavailable("the store is closed".into()))?;
        let session = match self.take_idle(connector) {
            Some(session) => session,
            None => connector.connect(asked_at).await?,
        };
        Ok(Lease { session, pool: self, _permit: permit })
    }

    fn take_idle(&self, connector: &Connector) -> Option<Session> {
        let mut idle = self.idle.lock();
        idle.retain(|session| !session.client.is_closed() && connector.expects(&session.home));
        idle.pop()
    }

    /// For when the database stopped answering: its other connections will not answer either.
    pub(super) fn forget_idle(&self) {
        self.idle.lock().clear();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }

    /// Waits for the sessions in use and ends them all; later calls are refused.
    pub(super) async fn close(&self) {
        let all = self.permits.acquire_many(self.size).await;
        let idle = std::mem::take(&mut *self.idle.lock());
        for session in idle {
            session.end().await;
        }
        self.permits.close();
        drop(all);
    }
}

impl Lease<'_> {
    pub(super) fn give_back(self) {
        self.pool.idle.lock().push(self.session);
    }
}
