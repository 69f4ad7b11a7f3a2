//! Opening the file: settings, ownership, schema.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::statements;
use crate::store::StoreError;
use crate::store::migration::{Migration, newest_version, random_identity, refuse_newer_schema};

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, sql: include_str!("0001_counts.sql") },
    Migration { version: 2, sql: include_str!("0002_admin.sql") },
    Migration { version: 3, sql: include_str!("0003_account_log.sql") },
    Migration { version: 4, sql: include_str!("0004_digest.sql") },
    Migration { version: 5, sql: include_str!("0005_purge_marks.sql") },
    Migration { version: 6, sql: include_str!("0006_change_facts.sql") },
    Migration { version: 7, sql: include_str!("0007_log.sql") },
];

/// Marks the file as ours: "EvTr" in ASCII.
const APPLICATION_ID: i32 = 0x4576_5472;

/// Before 3.51.3 a checkpoint could meet a commit and leave a corrupt file.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long opening tries to get its turn when several processes create the file at once.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn open_to_write(path: &Path) -> Result<Connection, StoreError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| StoreError::Unavailable(format!("can't create {}: {error}", folder.display())))?;
    }
    let named = |error: StoreError| name_file(path, error);
    let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    // Switching to the WAL meets another process that does the same without waiting for it.
    let give_up_at = Instant::now() + OPEN_TIMEOUT;
    while let Err(error) = migrate(&mut connection) {
        if !matches!(error, StoreError::Unavailable(_)) || Instant::now() >= give_up_at {
            return Err(named(error));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(connection)
}

pub(super) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let named = |error: StoreError| name_file(path, error);
    if !path.is_file() {
        return Err(named(StoreError::Refused("there is no such file".into())));
    }
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "query_only", true).map_err(|error| named(error.into()))?;
    let found = own_version(&connection).map_err(|unfit| named(unfit.into()))?;
    if found < newest_version(MIGRATIONS) {
        return Err(named(StoreError::Refused("it has no schema of this event-tracker yet".into())));
    }
    Ok(connection)
}

/// The identity in a file, `None` where there is no schema of ours. Changes nothing.
pub(super) fn look(path: &Path) -> Result<Option<String>, StoreError> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    match own_version(&connection) {
        Ok(1..) => statements::identity(&connection).map(Some).map_err(|error| name_file(path, error)),
        Ok(_) | Err(Unfit::AnotherProgram) => Ok(None),
        Err(Unfit::Store(error)) => Err(name_file(path, error)),
    }
}

/// Moves everything from the WAL into the file and empties the WAL.
pub(super) fn checkpoint(connection: &Connection) -> Result<(), StoreError> {
    connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
    Ok(())
}

/// Moves what it can from the WAL into the file, without waiting for anybody.
pub(super) fn save_wal(connection: &Connection) -> Result<(), StoreError> {
    connection.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(()))?;
    Ok(())
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let version = rusqlite::version_number();
    if version < SQLITE_VERSION_MIN {
        return Err(StoreError::Refused(format!("SQLite {} is too old: 3.51.3 is needed", rusqlite::version())));
    }
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| name_file(path, error.into()))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| name_file(path, error.into()))?;
    Ok(connection)
}

fn name_file(path: &Path, error: StoreError) -> StoreError {
    let at = path.display();
    match error {
        StoreError::Unavailable(reason) => StoreError::Unavailable(format!("SQLite at {at}: {reason}")),
        StoreError::Rejected(reason) => StoreError::Rejected(format!("SQLite at {at}: {reason}")),
        StoreError::Refused(reason) => StoreError::Refused(format!("SQLite at {at}: {reason}")),
        StoreError::AnotherDatabase(reason) => StoreError::AnotherDatabase(format!("SQLite at {at}: {reason}")),
        other => other,
    }
}

/// Why a file has no version of our schema.
enum Unfit {
    AnotherProgram,
    Store(StoreError),
}

impl From<rusqlite::Error> for Unfit {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => Self::AnotherProgram,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<StoreError> for Unfit {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Unfit> for StoreError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::AnotherProgram => Self::Refused("the file belongs to another program: name another one".into()),
            Unfit::Store(error) => error,
        }
    }
}

/// The version of our schema in the file; 0 for an empty file.
fn own_version(connection: &Connection) -> Result<i32, Unfit> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i32>(0));
    // Objects first: another process may commit both between the two looks, and objects without our
    // id would pass for a stranger's.
    let objects = number("select count(*) from sqlite_schema")?;
    let application_id = number("pragma application_id")?;
    if application_id != APPLICATION_ID && (application_id != 0 || objects != 0) {
        return Err(Unfit::AnotherProgram);
    }
    let found = number("pragma user_version")?;
    refuse_newer_schema(found, MIGRATIONS)?;
    Ok(found)
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    // Looked at before anything is changed: not even the journal mode of a stranger's file.
    own_version(connection)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // NORMAL may lose the last commits in a power cut, and their journal is gone by then.
    connection.pragma_update(None, "synchronous", "full")?;
    // After a big commit the WAL does not keep its size for ever.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = own_version(&transaction)?;
    if found == newest_version(MIGRATIONS) {
        return Ok(());
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        transaction.execute_batch(migration.sql)?;
    }
    let identity = "insert into store_identity (only_row, identity) values (1, ?1) on conflict do nothing";
    transaction.execute(identity, [random_identity()?])?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", newest_version(MIGRATIONS))?;
    transaction.commit()?;
    Ok(())
}
