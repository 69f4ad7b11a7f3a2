//! What platform administrators keep in the store: the catalog of events (descriptions, aliases,
//! what is inactive or deleted), the log of their changes, and who they are.
//!
//! Every change is one transaction that takes the catalog's lock, advances the catalog's version,
//! changes rows and books together, and is written into the log with what undoing it needs.
//! Commits never look at the catalog: every count stays under the name that it was counted with, and
//! reads show it where an alias points.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::domain::{EventName, Hour};

mod account;
mod aliases;
pub(super) mod due;
mod fact;
mod landing;
pub(super) mod log;
pub(super) mod plan;
mod refusal;

pub use account::{AccountChange, key_name};
pub use aliases::Aliases;
pub use fact::{Fact, Facts, Told};
pub use landing::{Landing, Overtaken};
pub use refusal::Refusal;

/// How often the use of a key is noted.
pub(super) const KEY_USE_INTERVAL: TimeDelta = TimeDelta::minutes(1);

/// What administrators said about one event. An event without an entry is active and has no description.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
pub struct CatalogEntry {
    pub description: String,
    /// POSTs to it are answered as not counted.
    pub inactive: bool,
    /// Hidden and not counted since then; purged for good after the grace period.
    pub deleted_at: Option<DateTime<Utc>>,
    /// Its counts, past and coming, belong to that event. Never an alias itself.
    pub alias_of: Option<EventName>,
}

/// The catalog at one version.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Catalog {
    /// As in [`super::LedgerPosition::catalog`].
    pub version: u64,
    pub entries: BTreeMap<EventName, CatalogEntry>,
    /// Names whose counts were removed for good not long ago, with the version of the catalog that the
    /// purge made: counts that a batch of an older version holds do not bring them back.
    pub purges: BTreeMap<EventName, u64>,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// At most 1,000 characters.
    Describe {
        event: EventName,
        description: String,
    },
    SetActive {
        event: EventName,
        active: bool,
    },
    /// `from` becomes an alias of `into`: its counts, past and coming, show there. `into` may exist (a
    /// merge) or not (a rename), but is no alias, unless of `from`: then the two change places. Aliases of
    /// `from` then point to `into`.
    Move {
        from: EventName,
        into: EventName,
    },
    /// The committed count of a past hour becomes `count`, if it is `expected` now. The reason, 1 to
    /// 1,000 characters, goes into the log.
    Correct {
        event: EventName,
        hour: Hour,
        expected: u64,
        count: u64,
        reason: String,
    },
    /// Begins the grace period, by the store's clock.
    Delete {
        event: EventName,
    },
    /// Removes the rows of a deleted event for good; they are booked as removed, and so is what is in
    /// flight of it. The name is free again. Done by the service itself when [`AdminStore::due_purges`]
    /// says so, and refused before. Can't be undone.
    Purge {
        event: EventName,
        grace: TimeDelta,
    },
    /// Undoes an earlier change by its number in the log, where that can be undone.
    Undo {
        change: i64,
    },
}

/// What became of a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changed {
    /// Its number in the log, which is the catalog's new version.
    Done { change: i64 },
    /// Nothing was changed.
    Refused { reason: Refusal },
}

/// One line of the log of changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggedChange {
    pub change: i64,
    pub at: DateTime<Utc>,
    /// The superuser, `key ID (LABEL)`, `command line`, `set-up link`, or `event-tracker` for what the
    /// service does itself.
    pub who: String,
    /// `describe`, `activate`, `deactivate`, `rename`, `merge` (older ones: `move`), `correct`, `delete`,
    /// `purge`, `undo`; of accounts: `add user`, `set password`, `disable user`, `enable user`,
    /// `delete user`, `sign out`, `create key`, `revoke key`.
    pub what: String,
    /// Either this
    pub event: Option<EventName>,
    /// or the superuser or key that was changed.
    pub account: Option<String>,
    /// What was before and what is after.
    pub told: Told,
    /// Which change undid this one.
    pub undone_by: Option<i64>,
    /// Whether [`Change::Undo`] would be accepted now, as far as the log tells.
    pub can_undo: bool,
}

impl LoggedChange {
    /// Whether its account is a key. Only `what` decides it, of which no name is a part.
    #[must_use]
    pub fn is_of_key(&self) -> bool {
        self.account.is_some() && [account::CREATE_KEY, account::REVOKE_KEY].contains(&self.what.as_str())
    }
}

/// A platform administrator. Names are compared bytewise; 1 to 64 bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superuser {
    pub name: String,
    /// PHC string of Argon2id.
    pub password_hash: String,
    pub disabled: bool,
    pub created_at: DateTime<Utc>,
    pub last_login_at: Option<DateTime<Utc>>,
}

/// A session of the dashboard. Only the SHA-256 of its id is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    pub id_hash: [u8; 32],
    pub user: String,
    pub created_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    /// Absolute end.
    pub expires_at: DateTime<Utc>,
    /// Shown in the list of sessions: the browser's own description, at most 200 characters.
    pub agent: String,
}

/// A key for `/api/v1/admin/`. Only the SHA-256 of its secret is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminKey {
    pub id: i64,
    pub label: String,
    pub secret_hash: [u8; 32],
    /// The first characters of the secret, to recognise it by.
    pub hint: String,
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
}

/// The administrators' part of a store. All times come from the caller, except those that decide about
/// what can't be undone: when an event was deleted, and when its grace is over.
#[async_trait]
pub trait AdminStore: Send + Sync + 'static {
    async fn catalog(&self) -> Result<Catalog, StoreError>;
    async fn change(&self, change: Change, who: &str, at: DateTime<Utc>) -> Result<Changed, StoreError>;
    /// Marks the deleted events whose `grace` looks over, by the store's clock, and takes marks away that
    /// are wrong. Gives those that were marked long enough ago, for [`Change::Purge`].
    async fn due_purges(&self, grace: TimeDelta) -> Result<Vec<EventName>, StoreError>;
    /// Newest first, those before `before` (a number in the log), at most `limit`; only of these
    /// events if any are given.
    async fn changes(
        &self,
        events: Vec<EventName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<LoggedChange>, StoreError>;

    async fn superusers(&self) -> Result<Vec<Superuser>, StoreError>;
    /// Makes a change and writes it into the log. `false`: nothing was changed, since there is no such
    /// user or key, or one already.
    async fn change_account(&self, change: AccountChange, who: &str, at: DateTime<Utc>) -> Result<bool, StoreError>;

    /// Also notes the login, drops expired sessions, and the oldest of the user beyond `sessions_max`.
    /// `false`: the user is unknown or disabled, or its password hash is not `password_hash` any more,
    /// against which the password was checked.
    async fn add_session(&self, session: Session, password_hash: &str, sessions_max: u32) -> Result<bool, StoreError>;
    /// The session if it is not expired (absolutely, or idle since `idle_since`) and its user is enabled.
    async fn session(
        &self,
        id_hash: [u8; 32],
        now: DateTime<Utc>,
        idle_since: DateTime<Utc>,
    ) -> Result<Option<Session>, StoreError>;
    async fn touch_session(&self, id_hash: [u8; 32], now: DateTime<Utc>) -> Result<(), StoreError>;
    async fn end_session(&self, id_hash: [u8; 32]) -> Result<(), StoreError>;

    async fn admin_keys(&self) -> Result<Vec<AdminKey>, StoreError>;
    /// The key if it is neither expired nor revoked; notes the use (at most once a minute).
    async fn use_admin_key(&self, secret_hash: [u8; 32], now: DateTime<Utc>) -> Result<Option<AdminKey>, StoreError>;
}
