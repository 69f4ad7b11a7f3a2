//! A database for one fleet, and what PostgreSQL says of it.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::activity::Watching;
use crate::target::Usage;

/// Created for the fleet; dropped by [`Database::drop`].
pub(super) struct Database {
    /// In the database of the URL, since one can't drop the one it is in.
    outside: Session,
    inside: Session,
    name: String,
    url: String,
    version: String,
}

struct Session {
    client: Client,
    connection: JoinHandle<()>,
}

impl Session {
    async fn open(url: &str) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("can't connect to PostgreSQL")?;
        let connection = tokio::spawn(async move {
            // The users of the client are told the same.
            let _ = connection.await;
        });
        Ok(Self { client, connection })
    }

    async fn close(self) {
        drop(self.client);
        let _ = self.connection.await;
    }
}

impl Database {
    /// `sessions`: how many the fleet needs.
    pub(super) async fn create(url: &str, sessions: usize) -> anyhow::Result<Self> {
        let name = format!("event_load_fleet_{}", std::process::id());
        let own_url = with_database(url, &name)?;
        let outside = Session::open(url).await?;
        let row = outside.client.query_one(MAX_SESSIONS, &[]).await?;
        let (sessions_max, version): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
        if usize::try_from(sessions_max).unwrap_or_default() < sessions {
            bail!("the server takes {sessions_max} connections (max_connections); this fleet needs {sessions}");
        }
        let create = format!("create database {name} template template0 encoding 'UTF8'");
        outside.client.batch_execute(&create).await.with_context(|| format!("can't create the database {name}"))?;
        let inside = Session::open(&own_url).await;
        match inside {
            Ok(inside) => Ok(Self { outside, inside, name, url: own_url, version }),
            Err(error) => {
                let _ = outside.client.batch_execute(&format!("drop database {name}")).await;
                Err(error)
            }
        }
    }

    /// The URL of the new database.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Removes it, and ends whoever is still connected to it.
    pub(super) async fn drop(self) -> anyhow::Result<()> {
        self.inside.close().await;
        let Self { outside, name, .. } = self;
        let sql = format!("drop database {name} with (force)");
        let dropped = outside.client.batch_execute(&sql).await;
        outside.close().await;
        dropped.with_context(|| format!("can't drop the database {name}"))
    }

    /// Looks on from now, in a session of its own.
    pub(super) async fn watch(&self) -> anyhow::Result<Watching> {
        let Session { client, .. } = Session::open(&self.url).await?;
        let row = self.inside.client.query_one(OWN_SESSIONS, &[]).await?;
        let outside = self.outside.client.query_one("select pg_backend_pid()", &[]).await?;
        let own = [row.try_get(0)?, outside.try_get(0)?];
        Watching::begin(client, &own, row.try_get(1)?).await
    }

    pub(super) async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let row = self.inside.client.query_one(SNAPSHOT, &[]).await.context("PostgreSQL's statistics can't be read")?;
        let value = |index| row.try_get::<_, i64>(index);
        let mut tables = BTreeMap::new();
        for row in self.inside.client.query(TABLES, &[]).await? {
            let value = |index| row.try_get::<_, i64>(index);
            let table = Table {
                live: value(1)?,
                dead: value(2)?,
                updated: value(3)?,
                updated_hot: value(4)?,
                vacuums: value(5)?,
                bytes: value(6)?,
            };
            tables.insert(row.try_get(0)?, table);
        }
        Ok(Snapshot { wal_bytes: value(0)?, deadlocks: value(1)?, commits: value(2)?, tables })
    }

    /// What the rows take in the end, and how many counters a commit has.
    pub(super) async fn sizes(&self) -> anyhow::Result<Sizes> {
        let row = self.inside.client.query_one(SIZES, &[]).await?;
        Ok(Sizes {
            rows: row.try_get(0)?,
            bytes: row.try_get(1)?,
            events: row.try_get(2)?,
            event_bytes: row.try_get(3)?,
            log_entries: row.try_get(4)?,
            log_bytes: row.try_get(5)?,
            counters_per_commit: row.try_get(6)?,
        })
    }
}

/// The URL with another database in it.
fn with_database(url: &str, name: &str) -> anyhow::Result<String> {
    let expected = || Usage("--database-url: expected postgres://USER:PASSWORD@HOST/DATABASE".to_owned());
    let (scheme, rest) = url.split_once("://").ok_or_else(expected)?;
    ensure!(matches!(scheme, "postgres" | "postgresql"), expected());
    let (place, query) =
        rest.split_once('?').map_or((rest, String::new()), |(place, query)| (place, format!("?{query}")));
    let authority = place.split_once('/').map_or(place, |(authority, _)| authority);
    Ok(format!("{scheme}://{authority}/{name}{query}"))
}

const MAX_SESSIONS: &str =
    "select cast(current_setting('max_connections') as integer), current_setting('server_version')";

/// The session, and whether the server is on this machine as far as it can tell.
const OWN_SESSIONS: &str =
    "select pg_backend_pid(), coalesce(inet_server_addr() <<= '127.0.0.0/8' or inet_server_addr() = '::1', true)";

const SNAPSHOT: &str = "
    select
        cast(pg_current_wal_lsn() - '0/0' as bigint),
        deadlocks,
        (select cast(coalesce(sum(last_seq), 0) as bigint) from ledger)
    from pg_stat_database where datname = current_database()";

/// With the hidden tables in which long values are.
const TABLES: &str = "
    select
        tables.relname::text,
        cast(sum(stats.n_live_tup) filter (where stats.relid = tables.relid) as bigint),
        cast(sum(stats.n_dead_tup) as bigint),
        cast(sum(stats.n_tup_upd) as bigint),
        cast(sum(stats.n_tup_hot_upd) as bigint),
        cast(sum(stats.autovacuum_count) as bigint),
        pg_total_relation_size(tables.relid)
    from pg_stat_user_tables as tables
    join pg_class as classes on classes.oid = tables.relid
    join pg_stat_all_tables as stats on stats.relid in (tables.relid, classes.reltoastrelid)
    where tables.relname in ('ledger', 'deltas', 'folded', 'fold_lock', 'hourly_counts', 'event_totals', 'hour_totals')
    group by tables.relname, tables.relid";

const SIZES: &str = "
    select
        (select count(*) from hourly_counts),
        pg_total_relation_size('hourly_counts'),
        (select count(*) from event_totals),
        pg_total_relation_size('event_totals'),
        (select cast(coalesce(sum(entries), 0) as bigint) from deltas),
        pg_total_relation_size('deltas'),
        (select cast(coalesce(avg(entries), 0) as float8) from deltas)";

/// Where the database stands at one moment.
pub(super) struct Snapshot {
    wal_bytes: i64,
    deadlocks: i64,
    /// Of batches.
    commits: i64,
    tables: BTreeMap<String, Table>,
}

/// One table in PostgreSQL's statistics, which lag by about a second.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Table {
    pub(super) live: i64,
    pub(super) dead: i64,
    pub(super) updated: i64,
    pub(super) updated_hot: i64,
    /// Automatic ones.
    pub(super) vacuums: i64,
    pub(super) bytes: i64,
}

/// What happened between two moments.
pub(super) struct Span {
    pub(super) wal_bytes: i64,
    pub(super) deadlocks: i64,
    pub(super) commits: i64,
    /// Before and after.
    pub(super) tables: BTreeMap<String, [Table; 2]>,
}

impl Snapshot {
    pub(super) fn between(before: &Self, after: &Self) -> Span {
        let tables = after.tables.iter().map(|(name, after)| {
            let before = before.tables.get(name).copied().unwrap_or_default();
            (name.clone(), [before, *after])
        });
        Span {
            wal_bytes: after.wal_bytes - before.wal_bytes,
            deadlocks: after.deadlocks - before.deadlocks,
            commits: after.commits - before.commits,
            tables: tables.collect(),
        }
    }
}

/// Rows and bytes in the end, indexes included.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sizes {
    pub(super) rows: i64,
    pub(super) bytes: i64,
    pub(super) events: i64,
    pub(super) event_bytes: i64,
    /// Counters in the log.
    pub(super) log_entries: i64,
    pub(super) log_bytes: i64,
    pub(super) counters_per_commit: f64,
}
