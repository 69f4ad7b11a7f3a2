//! The schema: found where it is, made and brought up to date by the first node that finds it missing
//! or old.

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::client::{Client, Param};
use super::rows::column;
use crate::domain::Partitions;
use crate::store::StoreError;
use crate::store::migration::{Migration, newest_version, random_identity, refuse_newer_schema};

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, sql: include_str!("0001_counts.sql") },
    Migration { version: 2, sql: include_str!("0002_admin.sql") },
    Migration { version: 3, sql: include_str!("0003_account_log.sql") },
    Migration { version: 4, sql: include_str!("0004_digest.sql") },
    Migration { version: 5, sql: include_str!("0005_purge_marks.sql") },
    Migration { version: 6, sql: include_str!("0006_change_facts.sql") },
    Migration { version: 7, sql: concat!(include_str!("0007_log.sql"), include_str!("views.sql")) },
    Migration { version: 8, sql: include_str!("0008_partitions.sql") },
];

/// Any number will do that no other program takes in the same database: "eventtrk" in ASCII.
const MIGRATION_LOCK: i64 = 0x6576_656e_7474_726b;

const HAS_CITUS: &str = "exists (select from pg_extension where extname = 'citus')";

/// Around the making of a schema.
const DISTRIBUTE: (&str, &str) =
    ("set local citus.enable_schema_based_sharding = on; ", " set local citus.enable_schema_based_sharding = off;");

/// Of a partition's log.
const TOAST_OF_THE_LOG: &str = "alter table deltas set (toast.autovacuum_vacuum_scale_factor = 0.05)";

const NO_SCHEMA: &str = "there is no event-tracker schema in it";

/// PostgreSQL's limit for names.
const NAME_BYTES_MAX: usize = 63;

/// How often a migration that met another one begins anew.
const ATTEMPTS_MAX: usize = 10;

/// Where our tables are, and whose they are.
pub(super) struct Home {
    pub(super) identity: String,
    pub(super) schema: String,
    pub(super) partitions: Partitions,
    /// Whether the partitions are on the machines of a Citus cluster.
    pub(super) is_distributed: bool,
}

impl Home {
    /// The statements that open a transaction, have it see this schema and no other, and ask for the identity.
    pub(super) fn pinned(&self, begin: &str, path: &str) -> String {
        format!("{begin}; {path}; select encode(identity, 'hex') from store_identity")
    }

    /// What has a transaction see what is not cut into partitions.
    pub(super) fn path(&self) -> String {
        pin(&self.schema)
    }

    /// What has a transaction see a partition, and behind it the rest.
    pub(super) fn path_of(&self, partition: u16) -> String {
        if self.partitions == Partitions::ONE {
            return self.path();
        }
        format!("{}, {}", pin(&partition_schema(&self.schema, partition)), quoted(&self.schema))
    }

    /// A store that is cut otherwise than the settings say would be given counts where nobody looks for them.
    fn expect_partitions(&self, wanted: &Wanted) -> Result<(), StoreError> {
        let (found, expected) = (self.partitions.count(), wanted.partitions.count());
        if found == expected {
            return Ok(());
        }
        Err(StoreError::Refused(format!(
            "it was made with {found} partitions, which stay as they are: set store.partitions to {found}, not {expected}"
        )))
    }

    /// Whether their answer is that of the database where the schema was found.
    pub(super) fn recognise(
        &self,
        opened: Result<Vec<SimpleQueryMessage>, tokio_postgres::Error>,
    ) -> Result<(), StoreError> {
        let answers = match opened {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Vec::new(),
            opened => opened?,
        };
        let found = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        match found {
            Some(identity) if identity == self.identity => Ok(()),
            Some(other) => Err(is_another(other, &self.identity)),
            None => Err(StoreError::AnotherDatabase(NO_SCHEMA.into())),
        }
    }
}

fn pin(schema: &str) -> String {
    format!("set local search_path to {}", quoted(schema))
}

fn partition_schema(schema: &str, partition: u16) -> String {
    format!("{schema}_partition_{partition}")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What a session looks for.
pub(super) struct Wanted {
    /// Only this one will do, and nothing is written before it is found.
    pub(super) identity: Option<String>,
    /// Where it was last time.
    pub(super) schema: Option<String>,
    pub(super) for_audit: bool,
    pub(super) own_search_path: bool,
    pub(super) partitions: Partitions,
}

/// One round trip where the tables are known to be.
pub(super) async fn find_or_make(client: &Client, wanted: &Wanted) -> Result<Home, StoreError> {
    let mut remembered = None;
    if let Some(schema) = &wanted.schema {
        remembered = look(client, schema).await?;
    }
    let found = match remembered.filter(|(home, _)| wanted.identity.as_ref().is_none_or(|id| *id == home.identity)) {
        Some(found) => Some(found),
        None => search(client, wanted).await?,
    };
    if let Some((home, version)) = found {
        refuse_newer_schema(version, MIGRATIONS)?;
        home.expect_partitions(wanted)?;
        if version == newest_version(MIGRATIONS) {
            return Ok(home);
        }
        if wanted.for_audit {
            return Err(StoreError::Refused(format!(
                "its schema has version {version}: start this event-tracker on it once, which brings it to {}",
                newest_version(MIGRATIONS)
            )));
        }
        return make(client, Some(&home.schema), wanted).await;
    }
    if wanted.identity.is_some() {
        return Err(StoreError::AnotherDatabase(NO_SCHEMA.into()));
    }
    if wanted.for_audit {
        return Err(StoreError::Refused("there is no event-tracker schema in it yet".into()));
    }
    make(client, None, wanted).await
}

fn is_another(found: &str, expected: &str) -> StoreError {
    StoreError::AnotherDatabase(format!("its identity is {found}, and {expected} is expected"))
}

/// What is in a schema; `None` when our tables are not.
async fn look(client: &Client, schema: &str) -> Result<Option<(Home, i32)>, StoreError> {
    let space = quoted(schema);
    // Earlier versions lack the column.
    let sql = format!(
        "select coalesce((select max(version) from {space}.schema_version), 0), identity, \
         coalesce(cast(to_jsonb(store_identity) ->> 'partitions' as integer), 1), {HAS_CITUS} \
         from (select) as here left join {space}.store_identity on true"
    );
    let row = match client.answered(client.driver().query_typed_one(&sql, &[])).await? {
        Ok(row) => row,
        Err(error) if matches!(error.code(), Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME)) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let Some(identity) = column::<Option<&[u8]>>(&row, 1)? else { return Ok(None) };
    let partitions = stored_partitions(column(&row, 2)?)?;
    let is_distributed = partitions != Partitions::ONE && column(&row, 3)?;
    let home = Home { identity: hex::encode(identity), schema: schema.to_owned(), partitions, is_distributed };
    Ok(Some((home, column(&row, 0)?)))
}

/// Looks through all schemas. Where the role's `search_path` finds none, the only one that there is
/// counts: better that than a second one beside it, among which the counts would be split. A URL that sets
/// the path itself means what it says.
async fn search(client: &Client, wanted: &Wanted) -> Result<Option<(Home, i32)>, StoreError> {
    let mut homes = Vec::new();
    for row in client.query_typed(include_str!("homes.sql"), &[]).await? {
        let is_found: bool = column(&row, 1)?;
        if let Some(found) = look(client, column(&row, 0)?).await? {
            homes.push((found, is_found));
        }
    }
    if let Some(identity) = &wanted.identity {
        if homes.is_empty() {
            return Ok(None);
        }
        let other = homes[0].0.0.identity.clone();
        let expected = homes.into_iter().map(|(found, _)| found).find(|(home, _)| home.identity == *identity);
        return expected.map(Some).ok_or_else(|| is_another(&other, identity));
    }
    let only_one = homes.len() == 1 && !wanted.own_search_path;
    let is_ambiguous = homes.len() > 1 && !wanted.own_search_path;
    let names: Vec<String> = homes.iter().map(|((home, _), _)| home.schema.clone()).collect();
    match homes.into_iter().next() {
        Some((found, is_found)) if is_found || only_one => Ok(Some(found)),
        Some(_) if is_ambiguous => Err(StoreError::Refused(format!(
            "the schemas {} hold tables of event-tracker: say which one, with options=-csearch_path%3DSCHEMA in the URL",
            names.join(", ")
        ))),
        _ => Ok(None),
    }
}

fn stored_partitions(count: i32) -> Result<Partitions, StoreError> {
    let partitions = u16::try_from(count).ok().and_then(Partitions::new);
    partitions.ok_or_else(|| StoreError::Refused(format!("it is cut into {count} partitions, which can't be")))
}

/// Makes what is missing, in this schema or where the `search_path` says.
async fn make(client: &Client, schema: Option<&str>, wanted: &Wanted) -> Result<Home, StoreError> {
    let mut advisory_lock = true;
    let mut attempt = 1;
    loop {
        let error = match migrate(client, schema, wanted, advisory_lock).await {
            Ok(home) => return Ok(home),
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Database(error)) => error,
        };
        let code = error.code().cloned();
        client.batch_execute("rollback").await?;
        match code {
            // Distributed databases lack advisory locks; the primary key of schema_version decides there.
            Some(SqlState::FEATURE_NOT_SUPPORTED | SqlState::UNDEFINED_FUNCTION) if advisory_lock => {
                advisory_lock = false;
            }
            // Another node was faster (CREATE TABLE IF NOT EXISTS races even with itself).
            Some(
                SqlState::UNIQUE_VIOLATION
                | SqlState::DUPLICATE_TABLE
                | SqlState::DUPLICATE_COLUMN
                | SqlState::DUPLICATE_OBJECT
                | SqlState::T_R_SERIALIZATION_FAILURE
                | SqlState::T_R_DEADLOCK_DETECTED,
            ) if attempt < ATTEMPTS_MAX => attempt += 1,
            _ => return Err(error.into()),
        }
    }
}

enum Failure {
    Database(tokio_postgres::Error),
    Refused(StoreError),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

/// All missing migrations in one transaction, so that a half-made schema can't be. Each statement waits
/// for the one before.
async fn migrate(client: &Client, schema: Option<&str>, wanted: &Wanted, advisory_lock: bool) -> Result<Home, Failure> {
    let driver = client.driver();
    let pin = schema.map(pin).unwrap_or_default();
    client.answered(driver.batch_execute(&format!("begin isolation level read committed; {pin}"))).await??;
    if advisory_lock {
        let params: [Param<'_>; 1] = [(&MIGRATION_LOCK, Type::INT8)];
        client.answered(driver.query_typed("select pg_advisory_xact_lock($1)", &params)).await??;
    }
    client.answered(driver.batch_execute(include_str!("schema_version_table.sql"))).await??;
    let found: i32 =
        client.answered(driver.query_typed_one(include_str!("schema_version.sql"), &[])).await??.try_get(0)?;
    refuse_newer_schema(found, MIGRATIONS)?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        let noted = format!("{}; insert into schema_version (version) values ({})", migration.sql, migration.version);
        client.answered(driver.batch_execute(&noted)).await??;
    }
    let identity = random_identity()?;
    let params: [Param<'_>; 1] = [(&identity.as_slice(), Type::BYTEA)];
    let sql = "insert into store_identity (identity) values ($1) on conflict (only_row) do nothing";
    client.answered(driver.execute_typed(sql, &params)).await??;
    let sql = format!("select identity, current_schema()::text, partitions, {HAS_CITUS} from store_identity");
    let row = client.answered(driver.query_typed_one(&sql, &[])).await??;
    let mut home = Home {
        identity: hex::encode(column::<&[u8]>(&row, 0)?),
        schema: column(&row, 1)?,
        partitions: stored_partitions(column(&row, 2)?)?,
        is_distributed: column(&row, 3)?,
    };
    if found == 0 && wanted.partitions != Partitions::ONE {
        home.partitions = wanted.partitions;
        make_partitions(client, &home).await?;
    }
    home.is_distributed &= home.partitions != Partitions::ONE;
    home.expect_partitions(wanted)?;
    // Every statement has succeeded, so this is no ROLLBACK: see `Client::commit`.
    client.answered(driver.batch_execute("commit")).await??;
    Ok(home)
}

/// A new store gets its partitions, each in a schema of its own.
async fn make_partitions(client: &Client, home: &Home) -> Result<(), Failure> {
    let here = quoted(&home.schema);
    let mut all_counts = Vec::new();
    for partition in home.partitions.all() {
        let name = partition_schema(&home.schema, partition);
        if name.len() > NAME_BYTES_MAX {
            let why = format!("the name of the schema {here} is too long to name its partitions after it");
            return Err(StoreError::Refused(why).into());
        }
        let (schema, path) = (quoted(&name), home.path_of(partition));
        let tables = include_str!("partition.sql").replace("/* home */", &here);
        // With it, Citus gives the schema with all its tables to one machine, in turns.
        let (distribute, as_before) = if home.is_distributed { DISTRIBUTE } else { ("", "") };
        let tables = format!("{distribute}create schema {schema};{as_before} {path}; {tables}");
        // Citus passes on the whole text that a change of a table is part of.
        for sql in [&tables, TOAST_OF_THE_LOG, include_str!("views.sql")] {
            client.answered(client.driver().batch_execute(sql)).await??;
        }
        all_counts.push(format!("select * from {schema}.counts"));
    }
    let rest = include_str!("partitioned.sql").replace("/* all */", &all_counts.join(" union all "));
    let number = home.partitions.count();
    let sql = format!("{}; {rest} update store_identity set partitions = {number}", home.path());
    Ok(client.answered(client.driver().batch_execute(&sql)).await??)
}
