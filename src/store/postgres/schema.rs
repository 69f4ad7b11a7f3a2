//! The schema: made and brought up to date by the first node that finds it missing or old.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::rows::column;
use crate::store::StoreError;
use crate::store::migration::{Migration, newest_version, random_identity, refuse_newer_schema};

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, sql: include_str!("0001_counts.sql") },
    Migration { version: 2, sql: include_str!("0002_admin.sql") },
    Migration { version: 3, sql: include_str!("0003_account_log.sql") },
    Migration { version: 4, sql: include_str!("0004_digest.sql") },
];

/// Any number will do that no other program takes in the same database: "eventtrk" in ASCII.
const MIGRATION_LOCK: i64 = 0x6576_656e_7474_726b;

/// How often a migration that met another one begins anew.
const ATTEMPTS_MAX: usize = 10;

/// Cheap when the schema is there: one round trip.
pub(super) async fn ensure(client: &mut Client) -> Result<(), StoreError> {
    let found = match version(client).await {
        Ok(found) => found,
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => 0,
        Err(error) => return Err(error.into()),
    };
    refuse_newer_schema(found, MIGRATIONS)?;
    if found == newest_version(MIGRATIONS) {
        return Ok(());
    }
    let mut advisory_lock = true;
    let mut attempt = 1;
    loop {
        let error = match migrate(client, advisory_lock).await {
            Ok(()) => return Ok(()),
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

/// All missing migrations in one transaction, so that a half-made schema can't be.
async fn migrate(client: &mut Client, advisory_lock: bool) -> Result<(), Failure> {
    client.batch_execute("begin isolation level read committed").await?;
    if advisory_lock {
        let key: &(dyn tokio_postgres::types::ToSql + Sync) = &MIGRATION_LOCK;
        client.query_typed("select pg_advisory_xact_lock($1)", &[(key, Type::INT8)]).await?;
    }
    client.batch_execute(include_str!("schema_version_table.sql")).await?;
    let found = version(client).await?;
    refuse_newer_schema(found, MIGRATIONS).map_err(Failure::Refused)?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        client.batch_execute(migration.sql).await?;
        client
            .execute_typed("insert into schema_version (version) values ($1)", &[(&migration.version, Type::INT4)])
            .await?;
    }
    let identity = random_identity().map_err(Failure::Refused)?;
    client
        .execute_typed(
            "insert into store_identity (identity) values ($1) on conflict (only_row) do nothing",
            &[(&identity.as_slice(), Type::BYTEA)],
        )
        .await?;
    client.batch_execute("commit").await?;
    Ok(())
}

async fn version(client: &Client) -> Result<i32, tokio_postgres::Error> {
    let row = client.query_typed_one(include_str!("schema_version.sql"), &[]).await?;
    row.try_get(0)
}

pub(super) async fn identity(client: &Client) -> Result<String, StoreError> {
    let row = client.query_typed_one(include_str!("identity.sql"), &[]).await?;
    Ok(hex::encode(column::<&[u8]>(&row, 0)?))
}
