//! What every store promises, each promise tried on SQLite and on PostgreSQL, and many on PostgreSQL behind
//! PgBouncer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use event_tracker::domain::{BatchId, BatchSeq, Digest, EventName, Hour, HourRange, HourlyCount, WriterId};
use event_tracker::store::memory::MemoryDatabase;
use event_tracker::store::{self, Books, Commit, CommitRequest, HourlyQuery, LedgerEntry, Options, Store, StoreError};

use crate::harness::pgbouncer::PgBouncer;
use crate::harness::postgres::Cluster;
use crate::harness::{PARTITIONS, citus};

mod commits;
mod encryption;
mod log;
mod nodes;
mod outages;
mod reads;
mod schema;
mod sessions;
mod sqlite_file;

/// An empty database of one kind, gone with the test.
pub enum Bench {
    Sqlite(tempfile::TempDir),
    Postgres {
        database: String,
        kind: Kind,
    },
    /// What simulations use in place of a database.
    Memory(MemoryDatabase),
}

/// How a store uses its PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Direct,
    /// Through a pooler.
    Pooled,
    /// In [`PARTITIONS`].
    Partitioned,
    /// The same on the Citus cluster that `CITUS_URL` names, each in a schema of its own.
    Citus,
}

impl Bench {
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    pub fn memory() -> Self {
        Self::Memory(MemoryDatabase::new(rand::random(), Arc::new(std::time::SystemTime::now)))
    }

    pub async fn postgres() -> Self {
        Self::on_postgres(Kind::Direct).await
    }

    pub async fn pooled() -> Self {
        Self::on_postgres(Kind::Pooled).await
    }

    pub async fn partitioned() -> Self {
        Self::on_postgres(Kind::Partitioned).await
    }

    pub async fn citus() -> Self {
        Self::on_postgres(Kind::Citus).await
    }

    async fn on_postgres(kind: Kind) -> Self {
        let database = match kind {
            Kind::Citus => citus::create_schema().await,
            _ => Cluster::shared().create_database().await,
        };
        Self::Postgres { database, kind }
    }

    /// The schema of what is not in the partitions.
    fn home(&self) -> &str {
        match self {
            Self::Postgres { database, kind: Kind::Citus } => database,
            _ => "public",
        }
    }

    pub fn partitions(&self) -> u64 {
        match self {
            Self::Postgres { kind: Kind::Partitioned | Kind::Citus, .. } => u64::from(PARTITIONS),
            _ => 1,
        }
    }

    /// Another empty database of the same kind.
    pub async fn another(&self) -> Self {
        match self {
            Self::Sqlite(_) => Self::sqlite(),
            Self::Memory(_) => Self::memory(),
            Self::Postgres { kind, .. } => Self::on_postgres(*kind).await,
        }
    }

    /// A session beside the store's, to the same PostgreSQL database.
    pub async fn client(&self) -> tokio_postgres::Client {
        match self {
            Self::Sqlite(_) | Self::Memory(_) => panic!("this is no PostgreSQL"),
            Self::Postgres { database, kind: Kind::Citus } => citus::connect(database).await,
            Self::Postgres { database, .. } => Cluster::shared().connect(database).await,
        }
    }

    /// Another store on the same database, as a second process would have it.
    pub async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::Sqlite(folder) => match store::open(&Options::default(), folder.path()).await {
                Ok(store) => Ok(store),
                Err(store::OpenError::Store(error)) => Err(error),
                Err(error) => panic!("{error}"),
            },
            Self::Memory(database) => Ok(Arc::new(database.open())),
            Self::Postgres { database, kind } => Ok(match kind {
                Kind::Direct => open_url(&Cluster::shared().url(database)).await,
                Kind::Pooled => open_url(&PgBouncer::shared().url(database)).await,
                Kind::Partitioned => open_in(&Cluster::shared().url(database), PARTITIONS).await,
                Kind::Citus => open_in(&citus::url(database), PARTITIONS).await,
            }),
        }
    }

    pub async fn store(&self) -> Arc<dyn Store> {
        self.open().await.unwrap()
    }

    /// The same in each partition of a PostgreSQL store.
    pub async fn execute_in_parts(&self, sql: &str) {
        let client = self.client().await;
        for partition in 0..self.partitions() {
            let path = format!("set search_path to {0}_partition_{partition}, {0}", self.home());
            client.batch_execute(&path).await.unwrap();
            client.batch_execute(sql).await.unwrap();
        }
    }

    /// Runs SQL behind the store's back.
    pub async fn execute(&self, sql: &str) {
        match self {
            Self::Sqlite(folder) => {
                let connection = rusqlite::Connection::open(folder.path().join("events.sqlite")).unwrap();
                connection.execute_batch(sql).unwrap();
            }
            Self::Postgres { .. } => self.client().await.batch_execute(sql).await.unwrap(),
            Self::Memory(_) => panic!("it understands no SQL"),
        }
    }
}

pub async fn open_url(url: &str) -> Arc<dyn Store> {
    open_in(url, 1).await
}

/// A store in so many partitions.
pub async fn open_in(url: &str, partitions: u16) -> Arc<dyn Store> {
    let options = Options { url: url.to_owned(), partitions, ..Options::default() };
    store::open(&options, std::path::Path::new("unused")).await.unwrap()
}

/// One test for each promise named, each in a module of the kind's name.
macro_rules! on_one_store {
    ($kind:ident, $bench:expr, $($promise:ident),*) => {
        mod $kind {
            use crate::store_contract::Bench;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let bench: Bench = $bench.await;
                super::$promise(bench).await;
            })*
        }
    };
}
pub(crate) use on_one_store;

/// The same on a Citus cluster, where `CITUS_URL` names one: `load/citus.sh` does.
macro_rules! on_citus {
    ($($promise:ident),* $(,)?) => {
        mod citus {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs a Citus cluster: load/citus.sh"]
            async fn $promise() {
                super::$promise(crate::store_contract::Bench::citus().await).await;
            })*
        }
    };
}
pub(crate) use on_citus;

/// One test per store for each promise named.
macro_rules! on_both_stores {
    ($($promise:ident),* $(,)?) => {
        $crate::store_contract::on_one_store!(sqlite, std::future::ready(Bench::sqlite()), $($promise),*);
        $crate::store_contract::on_one_store!(postgres, Bench::postgres(), $($promise),*);
    };
}
pub(crate) use on_both_stores;

/// In memory, as far as simulations need it.
macro_rules! in_memory {
    ($($promise:ident),* $(,)?) => {
        $crate::store_contract::on_one_store!(memory, std::future::ready(Bench::memory()), $($promise),*);
    };
}
pub(crate) use in_memory;

/// In partitions, which only PostgreSQL has, by itself or as Citus.
macro_rules! on_partitions {
    ($($promise:ident),* $(,)?) => {
        $crate::store_contract::on_one_store!(partitioned, Bench::partitioned(), $($promise),*);
        $crate::store_contract::on_citus!($($promise),*);
    };
}
pub(crate) use on_partitions;

/// In partitions and in memory.
macro_rules! on_partitions_and_in_memory {
    ($($promise:ident),* $(,)?) => {
        $crate::store_contract::on_partitions!($($promise),*);
        $crate::store_contract::in_memory!($($promise),*);
    };
}
pub(crate) use on_partitions_and_in_memory;

/// On SQLite and on PostgreSQL, there also behind a pooler.
macro_rules! on_every_store {
    ($($promise:ident),* $(,)?) => {
        $crate::store_contract::on_both_stores!($($promise),*);
        $crate::store_contract::on_one_store!(pooled, Bench::pooled(), $($promise),*);
    };
}
pub(crate) use on_every_store;

/// For what only PostgreSQL has: directly and behind a pooler.
macro_rules! on_postgres {
    ($($promise:ident),* $(,)?) => {
        $crate::store_contract::on_one_store!(postgres, Bench::postgres(), $($promise),*);
        $crate::store_contract::on_one_store!(pooled, Bench::pooled(), $($promise),*);
    };
}
pub(crate) use on_postgres;

pub fn writer(number: u8) -> WriterId {
    WriterId([number; 16])
}

pub fn batch(writer_number: u8, seq: u64) -> BatchId {
    BatchId { writer: writer(writer_number), seq: BatchSeq(seq) }
}

/// The batch as its writer sends it while everything is as usual.
pub fn request(id: BatchId, rows: impl Into<Arc<[HourlyCount]>>) -> CommitRequest {
    let rows = rows.into();
    let after = BatchSeq(id.seq.0 - 1);
    CommitRequest { id, after, digest: Digest::of(&rows), catalog: 0, rows }
}

/// Where a writer's ledger stands after a batch.
pub fn stands(last_seq: u64, total: i128, last_rows: &[HourlyCount]) -> Commit {
    let digest = Some(Digest::of(last_rows));
    Commit::Stands(Some(LedgerEntry { last_seq: BatchSeq(last_seq), total, digest }))
}

pub fn hour(number: u32) -> Hour {
    Hour::from_number(number).unwrap()
}

/// Rows as a batch holds them: sorted by event bytes, then hour.
pub fn rows<'a>(rows: impl IntoIterator<Item = (&'a str, u32, u64)>) -> Arc<[HourlyCount]> {
    let mut rows: Vec<HourlyCount> = rows
        .into_iter()
        .map(|(event, number, count)| HourlyCount {
            event: EventName::parse(event).unwrap(),
            hour: hour(number),
            count,
        })
        .collect();
    rows.sort();
    rows.into()
}

pub fn everything() -> HourlyQuery {
    HourlyQuery { range: HourRange::ALL, names: vec![], rows_max: 1_000_000 }
}

pub async fn stored(store: &Arc<dyn Store>) -> Vec<HourlyCount> {
    store.hourly(everything(), vec![]).await.unwrap().value
}

/// The totals as (name, count), checked against the sums of the rows.
pub async fn totals(store: &Arc<dyn Store>) -> Vec<(String, u64)> {
    let totals = store.totals(vec![]).await.unwrap().value;
    totals.into_iter().map(|total| (total.event.as_str().to_owned(), total.count)).collect()
}

pub async fn balanced_books(store: &Arc<dyn Store>) -> Books {
    let books = store.audit().await.unwrap();
    assert!(books.balance(), "{books:?}");
    books
}
