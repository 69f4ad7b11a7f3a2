//! The database, where counts stay: one trait, two implementations that pass one contract
//! (`tests/it/store_contract.rs`). SQL and drivers live below this module and nowhere else.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{
    BatchId, BatchSeq, Delta, Digest, EventName, EventTotal, HourRange, HourlyCount, Partitions, Sum, SumBy, WriterId,
};

pub mod admin;
mod aside;
mod columns;
mod health;
pub mod memory;
mod migration;
mod nodes;
mod options;
mod position;
pub mod postgres;
pub mod sqlite;
mod trimming;
mod watched;

pub use admin::AdminStore;
pub use health::{Outage, OutageKind, StoreHealth, StoreStatus};
pub use nodes::{NodeId, NodeReport, NodeSeen};
pub use options::{Options, StoreUrlError, without_password};
pub use position::LedgerPosition;
pub use watched::Watched;

/// One batch on its way into the store.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    pub id: BatchId,
    /// Where this writer's ledger must stand before: mostly `id.seq` - 1. 0: it has no row yet.
    pub after: BatchSeq,
    /// Of `rows`.
    pub digest: Digest,
    /// The catalog's version that the node knew before it counted the first of the rows.
    pub catalog: u64,
    /// Distinct, sorted by event bytes, then hour.
    pub rows: Arc<[HourlyCount]>,
}

/// What the ledger says about one writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LedgerEntry {
    /// The last batch that was applied.
    pub last_seq: BatchSeq,
    /// The sum of all counts that this writer ever applied.
    pub total: i128,
    /// Of the last batch. `None`: it was written by a version of this program that kept none.
    pub digest: Option<Digest>,
}

/// What became of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commit {
    Applied,
    /// Nothing was counted: the writer's ledger stands here and not at `after` (`None`: it has no
    /// row). An entry at or past the batch is as durable as a commit when this is answered.
    Stands(Option<LedgerEntry>),
}

/// Facts, for those who decide what to do next; the texts are for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store can't be reached or gave up this time; that may pass by itself. Whether a commit
    /// happened is unknown: retry the same batch.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store answers, but turns this program away until somebody mends it: says why, and what to do.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// Another database answers than the expected one. Nothing in it was read or written.
    #[error("another database answers: {0}")]
    AnotherDatabase(String),
    /// The store understood one statement and refused it; trying again changes nothing.
    #[error("the store refused: {0}")]
    Rejected(String),
    /// Administrators change the catalog faster than rows can be read with it.
    #[error("the catalog changes faster than it can be read")]
    CatalogChanging,
    /// More rows than the caller's limit.
    #[error("more than {rows_max} rows")]
    TooManyRows { rows_max: usize },
    /// Others read as much as there is room for. Nothing is wrong with the store; the same may do a moment later.
    #[error("too much is being read at the same time")]
    Busy,
}

impl StoreError {
    /// Whether the store as a whole can't be used, and not only this one statement.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Refused(_) | Self::AnotherDatabase(_))
    }
}

/// A value and the ledger position of the one database snapshot both were read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot<T> {
    pub value: T,
    pub position: LedgerPosition,
}

/// What was committed since an earlier position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Since {
    pub position: LedgerPosition,
    /// In the order of each writer. `None`: they are more than is worth the trouble, or the store does not
    /// have all of them any more, or administrators have changed something since.
    pub deltas: Option<Vec<Delta>>,
}

/// Which hourly rows a read wants.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HourlyQuery {
    pub range: HourRange,
    /// Only what was counted with these names; empty: all.
    pub names: Vec<EventName>,
    /// More rows than this are an error, [`StoreError::TooManyRows`].
    pub rows_max: usize,
}

/// The sums whose balance proves the store: `rows + removed == ledger`, and `totals == hours == rows`. In
/// each of them is what the log holds and what is not folded yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Books {
    /// Sum of all hourly rows.
    pub rows: i128,
    /// Sum of the all-time totals kept per event.
    pub totals: i128,
    /// Sum of the totals kept per hour.
    pub hours: i128,
    /// Sum of what administrators removed; what they added counts negative.
    pub removed: i128,
    /// Sum of the writers' cumulative totals in the ledger.
    pub ledger: i128,
}

impl Books {
    /// Those of two parts of a store, together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            totals: self.totals + other.totals,
            hours: self.hours + other.hours,
            removed: self.removed + other.removed,
            ledger: self.ledger + other.ledger,
        }
    }

    #[must_use]
    pub fn balance(&self) -> bool {
        self.rows + self.removed == self.ledger && self.totals == self.rows && self.hours == self.rows
    }
}

/// What one fold has added to the counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Folded {
    /// Entries of the log.
    pub batches: u64,
    /// Counters in them.
    pub counters: u64,
}

impl Folded {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { batches: self.batches + other.batches, counters: self.counters + other.counters }
    }
}

/// A database that holds hourly counts and the ledger of the batches they came from.
///
/// Every method may be called while the database is down and then says [`StoreError::Unavailable`]
/// within the configured time-outs; it connects again by itself.
#[async_trait]
pub trait Store: AdminStore + Send + Sync + 'static {
    /// Adds the rows and moves the writer's ledger from `after` to the batch, in one transaction whose
    /// first statement is the ledger's. Counts of an alias go to the event that it stands for in that
    /// very moment. Safe to repeat: the ledger tells whether the batch is in already.
    async fn commit(&self, request: CommitRequest) -> Result<Commit, StoreError>;

    /// Adds what the log has gathered to the counts that are stored row by row, or the oldest part of it where
    /// that is long. Changes no answer. `None`: another node is at it. Nothing is left to do where commits do it themselves.
    async fn fold(&self) -> Result<Option<Folded>, StoreError>;

    /// The same, unless the last fold of any node began less than `rest` ago, by the store's clock: so many
    /// nodes fold no more often than one.
    async fn fold_after(&self, rest: Duration) -> Result<Option<Folded>, StoreError>;

    /// From now on every new session checks the identity of its database. `Some`: one of another
    /// identity, or without this program's schema, gives [`StoreError::AnotherDatabase`], and nothing
    /// is written into it, not even a schema. `None`: none was ever met, so the schema may be made.
    fn expect(&self, identity: Option<String>);

    /// The rows of the query, ordered by event bytes, then hour, with the ledger position (for
    /// `writers`) of the same snapshot.
    async fn hourly(
        &self,
        query: HourlyQuery,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<HourlyCount>>, StoreError>;

    /// The all-time total of every event, ordered by event bytes. Costs the number of events, not
    /// of rows.
    async fn totals(&self, writers: Vec<WriterId>) -> Result<Snapshot<Vec<EventTotal>>, StoreError>;

    /// Hands over all totals of one snapshot as they come, in each partition in the order of
    /// [`Store::totals`], without keeping them; gives the position of that snapshot. There is no deadline for the whole, but one
    /// for each next total.
    async fn each_total(
        &self,
        writers: Vec<WriterId>,
        on_total: &mut (dyn FnMut(EventTotal) + Send),
    ) -> Result<LedgerPosition, StoreError>;

    /// The sum of each hour or of each event of the range that has counts, in order, without deleted
    /// events. Costs the rows of the range, in the database: what comes back is one item an hour or event.
    async fn sums(&self, range: HourRange, by: SumBy, writers: Vec<WriterId>)
    -> Result<Snapshot<Vec<Sum>>, StoreError>;

    /// Where the ledger stands now.
    async fn position(&self, writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError>;

    /// Where the ledger stands now, and what was committed since it stood at `known`, which is as a read for
    /// `writers` gave it. Costs what was committed.
    async fn since(&self, known: LedgerPosition, writers: Vec<WriterId>) -> Result<Since, StoreError>;

    /// What a batch held when it was committed. `None`: it was not, or so long ago that the log does not have
    /// it any more.
    async fn delta(&self, id: BatchId) -> Result<Option<Delta>, StoreError>;

    /// All sums of the books in one snapshot. Costs the number of rows.
    async fn audit(&self) -> Result<Books, StoreError>;

    /// The random identity (32 hexadecimal digits) that this database got with its schema. A journal
    /// is never replayed into two stores; this tells them apart.
    async fn identity(&self) -> Result<String, StoreError>;

    /// Finishes what is under way and closes (SQLite: checkpoints its WAL).
    async fn close(&self);

    /// Notes by the store's clock that a node lives, and forgets nodes that have not reported for long. Safe
    /// to lose: no count hangs on it.
    async fn note_node(&self, report: NodeReport) -> Result<(), StoreError>;

    /// The process that counts as `writer` ends: it does not live any more.
    async fn forget_node(&self, writer: WriterId) -> Result<(), StoreError>;

    /// The nodes that have reported lately, ordered by address. A node that was started again is one; two
    /// that run on copies of one data folder are two, of the same [`NodeId`].
    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError>;

    /// How many rows this process has set aside, since the store refuses them for good.
    fn set_aside(&self) -> u64 {
        0
    }

    /// Why the last attempt to make a session failed; `None`: it did not.
    fn session_failure(&self) -> Option<StoreError> {
        None
    }

    /// How many it is cut into.
    fn partitions(&self) -> Partitions {
        Partitions::ONE
    }

    /// How many lists it reads at the same time.
    fn read_connections(&self) -> usize {
        1
    }

    /// Whether it may have several nodes. Commands may commit to any store, beside its nodes.
    fn is_shared(&self) -> bool;

    /// What people call it in logs and on pages, without secrets: `PostgreSQL at host/db`, `SQLite at data/events.sqlite`.
    fn label(&self) -> String;
}

/// Why [`open`] gave no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Url(#[from] StoreUrlError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store that `options.url` names: empty is SQLite at `data_dir/events.sqlite`, `sqlite:PATH` and
/// `sqlite://PATH` that file, `postgres://…` and `postgresql://…` a PostgreSQL database.
///
/// SQLite is opened (and created) here; PostgreSQL is connected to at the first use, so that a node
/// starts and counts while the database is down.
///
/// # Errors
/// When the URL is none of these, or the SQLite file can't be opened.
pub async fn open(options: &Options, data_dir: &Path) -> Result<Arc<dyn Store>, OpenError> {
    if let Some(path) = options.sqlite_path(data_dir)? {
        let opened = tokio::task::spawn_blocking(move || sqlite::SqliteStore::open(&path)).await;
        let store = opened.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        let milliseconds = Duration::from_millis;
        let store = store.with_read_patience(milliseconds(options.statement_timeout_ms));
        return Ok(Arc::new(store.with_log_kept(milliseconds(options.log_keep_ms))));
    }
    Ok(Arc::new(postgres::PostgresStore::new(&options.url, options)?))
}

/// Like [`open`], but it never changes anything: an SQLite file must exist already, a PostgreSQL database
/// must have the schema. They may be in use by a running service.
///
/// # Errors
/// As [`open`], and when there is no such file.
pub async fn open_for_audit(options: &Options, data_dir: &Path) -> Result<Arc<dyn Store>, OpenError> {
    if let Some(path) = options.sqlite_path(data_dir)? {
        let opened = tokio::task::spawn_blocking(move || sqlite::SqliteStore::open_for_audit(&path)).await;
        let store = opened.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        return Ok(Arc::new(store));
    }
    Ok(Arc::new(postgres::PostgresStore::for_audit(&options.url, options)?))
}
