//! Makes sessions, on the expected database and no other.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::client::Client;
use super::hosts::Hosts;
use super::schema::{self, Home, Wanted};
use super::session::Session;
use super::url::Target;
use crate::domain::Partitions;
use crate::store::{Options, StoreError, StoreUrlError};

/// Older servers lack what the schema is made of.
const SERVER_VERSION_MIN: u32 = 10;

/// A server that refuses is not asked again before this, and then ever more rarely.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(60);

pub(super) struct Connector {
    hosts: Hosts,
    /// Longest wait for one answer.
    pub(super) patience: Duration,
    /// Never changes anything.
    for_audit: bool,
    /// The URL itself says where tables are looked for and made.
    own_search_path: bool,
    /// Which the store must have, or gets when it is made.
    partitions: Partitions,
    /// One attempt at a time.
    attempting: tokio::sync::Mutex<()>,
    /// How the last attempt failed.
    failure: Mutex<Option<Failure>>,
    known: Mutex<Known>,
}

struct Failure {
    error: StoreError,
    at: Instant,
    /// Until then nobody tries again.
    pause: Duration,
}

/// What is known of the database by now.
#[derive(Default)]
struct Known {
    /// The identity that it must have: as the caller said, or that of the first session.
    identity: Option<String>,
    /// Where our tables were found. Remembered, so that a role whose `search_path` changes neither loses
    /// them nor makes a second set of them.
    schema: Option<String>,
}

impl Connector {
    pub(super) fn new(target: &Target, options: &Options, for_audit: bool) -> Result<Self, StoreUrlError> {
        let timeout = Duration::from_millis(options.connect_timeout_ms);
        Ok(Self {
            hosts: Hosts::new(target.config.clone(), target.trust.connector()?, timeout),
            patience: options.patience(),
            for_audit,
            own_search_path: target.config.get_options().is_some_and(|options| options.contains("search_path")),
            partitions: options.partitions()?,
            attempting: tokio::sync::Mutex::new(()),
            failure: Mutex::new(None),
            known: Mutex::new(Known::default()),
        })
    }

    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.lock().as_ref().map(|failure| failure.error.clone())
    }

    pub(super) fn expect(&self, identity: Option<String>) {
        let mut known = self.known.lock();
        if known.identity != identity {
            *known = Known { identity, schema: None };
            *self.failure.lock() = None;
        }
    }

    /// Whether a session that was made before is still of the right database.
    pub(super) fn expects(&self, home: &Home) -> bool {
        self.known.lock().identity.as_ref().is_none_or(|identity| *identity == home.identity)
    }

    /// `asked_at`: since when the caller has been waiting for a session. A caller that waited for an
    /// attempt that failed gets its error instead of making the next one, so a crowd of reads can't become
    /// a crowd of connects. One that is refused fails at once during the pause.
    pub(super) async fn connect(&self, asked_at: Instant) -> Result<Session, StoreError> {
        let _turn = self.attempting.lock().await;
        let last_pause = match &*self.failure.lock() {
            Some(failure) if failure.at >= asked_at || failure.at.elapsed() < failure.pause => {
                return Err(failure.error.clone());
            }
            Some(failure) => failure.pause,
            None => Duration::ZERO,
        };
        let outcome = self.attempt().await;
        *self.failure.lock() = outcome.as_ref().err().map(|error| {
            let needs_somebody = matches!(error, StoreError::Refused(_) | StoreError::AnotherDatabase(_));
            let pause = if needs_somebody { (last_pause * 2).clamp(FIRST_PAUSE, PAUSE_MAX) } else { Duration::ZERO };
            Failure { error: error.clone(), at: Instant::now(), pause }
        });
        outcome
    }

    async fn attempt(&self) -> Result<Session, StoreError> {
        let (driver, connection) = self.hosts.connect().await?;
        let encoding = connection.parameter("server_encoding");
        if let Some(encoding) = encoding.filter(|encoding| *encoding != "UTF8") {
            return Err(StoreError::Refused(format!(
                "the database's encoding is {encoding}: create the database with encoding UTF8"
            )));
        }
        let version = connection.parameter("server_version").unwrap_or_default();
        let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse::<u32>().ok());
        if major.is_some_and(|major| major < SERVER_VERSION_MIN) {
            return Err(StoreError::Refused(format!(
                "the server is PostgreSQL {version}: version {SERVER_VERSION_MIN} or later is needed"
            )));
        }
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                let reason = StoreError::from(error).to_string();
                tracing::debug!(reason, "a connection to PostgreSQL ended");
            }
        }));
        let client = Client::new(driver, self.patience);
        let wanted = {
            let known = self.known.lock();
            Wanted {
                identity: known.identity.clone(),
                schema: known.schema.clone(),
                for_audit: self.for_audit,
                own_search_path: self.own_search_path,
                partitions: self.partitions,
            }
        };
        let home = schema::find_or_make(&client, &wanted).await?;
        let mut known = self.known.lock();
        // Unless somebody has said otherwise meanwhile.
        if known.identity == wanted.identity {
            *known = Known { identity: Some(home.identity.clone()), schema: Some(home.schema.clone()) };
        }
        drop(known);
        Ok(Session { client, home, connection })
    }
}
