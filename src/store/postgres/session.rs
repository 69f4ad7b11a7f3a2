//! Connections: made when needed, given back only after success, never shared by two tasks at once.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use super::schema;
use super::url::Target;
use crate::store::{Options, StoreError, StoreUrlError};

/// One connection. Dropped, its socket closes at once, whatever the database still sends.
pub(super) struct Session {
    pub(super) client: Client,
    connection: AbortOnDropHandle<()>,
}

impl Session {
    /// Says goodbye before the socket closes.
    async fn end(self) {
        drop(self.client);
        let _ = tokio::time::timeout(Duration::from_secs(1), self.connection).await;
    }
}

/// Makes sessions on a database whose schema is the one this program knows.
pub(super) struct Connector {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    connect_timeout: Duration,
    /// When the last attempt failed, and how. One attempt at a time: who waited for an attempt that
    /// failed gets its error instead of making the next one, so a crowd of reads can't become a
    /// crowd of connects.
    last_failure: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
    /// The identity that the database must have.
    expected: Mutex<Option<String>>,
    /// How the last attempt failed, to be read while the next one is made.
    failure: Mutex<Option<StoreError>>,
}

impl Connector {
    pub(super) fn new(target: &Target, options: &Options) -> Result<Self, StoreUrlError> {
        Ok(Self {
            config: target.config.clone(),
            tls: target.trust.connector()?,
            connect_timeout: Duration::from_millis(options.connect_timeout_ms),
            last_failure: tokio::sync::Mutex::new(None),
            expected: Mutex::new(None),
            failure: Mutex::new(None),
        })
    }

    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.lock().clone()
    }

    pub(super) fn expect(&self, identity: Option<String>) {
        *self.expected.lock() = identity;
    }

    /// `asked_at`: since when the caller has been waiting for a session.
    async fn connect(&self, asked_at: Instant) -> Result<Session, StoreError> {
        let mut last_failure = self.last_failure.lock().await;
        if let Some((failed_at, error)) = &*last_failure
            && *failed_at >= asked_at
        {
            return Err(error.clone());
        }
        let outcome = self.attempt().await;
        *last_failure = outcome.as_ref().err().map(|error| (Instant::now(), error.clone()));
        *self.failure.lock() = outcome.as_ref().err().cloned();
        outcome
    }

    async fn attempt(&self) -> Result<Session, StoreError> {
        // The driver's own time-out covers the TCP handshake only, not TLS and login.
        let (mut client, connection) =
            match tokio::time::timeout(self.connect_timeout, self.config.connect(self.tls.clone())).await {
                Ok(connected) => connected?,
                Err(_) => {
                    let waited_ms = self.connect_timeout.as_millis();
                    return Err(StoreError::Unavailable(format!("no connection within {waited_ms} ms")));
                }
            };
        if let Some(encoding) = connection.parameter("server_encoding")
            && encoding != "UTF8"
        {
            return Err(StoreError::Rejected(format!(
                "the database's encoding is {encoding}: create the database with encoding UTF8"
            )));
        }
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                let reason = StoreError::from(error).to_string();
                tracing::debug!(reason, "a connection to PostgreSQL ended");
            }
        }));
        schema::ensure(&mut client).await?;
        Ok(Session { client, connection })
    }
}

/// A fixed number of sessions. The one for commits is a pool of one.
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
    pub(super) fn new(size: usize) -> Self {
        let size = u32::try_from(size.clamp(1, 1_000)).unwrap_or(1);
        Self { permits: Semaphore::new(size as usize), size, idle: Mutex::new(Vec::new()) }
    }

    pub(super) async fn lease(&self, connector: &Connector) -> Result<Lease<'_>, StoreError> {
        let closed = |_| StoreError::Unavailable("the store is closed".into());
        let asked_at = Instant::now();
        let permit = self.permits.acquire().await.map_err(closed)?;
        let session = match self.take_idle() {
            Some(session) => session,
            None => connector.connect(asked_at).await?,
        };
        Ok(Lease { session, pool: self, _permit: permit })
    }

    fn take_idle(&self) -> Option<Session> {
        let mut idle = self.idle.lock();
        idle.retain(|session| !session.client.is_closed());
        idle.pop()
    }

    /// For when the database stopped answering: its other connections will not answer either.
    pub(super) fn forget_idle(&self) {
        self.idle.lock().clear();
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
