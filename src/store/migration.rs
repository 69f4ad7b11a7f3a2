//! What both stores' migrations have in common.

use super::StoreError;

/// One step of the schema. Versions count from 1; a published step never changes.
pub(super) struct Migration {
    pub(super) version: i32,
    pub(super) sql: &'static str,
}

pub(super) fn newest_version(migrations: &[Migration]) -> i32 {
    migrations.last().map_or(0, |migration| migration.version)
}

/// A newer program may have given the tables another meaning; writing into them would be a guess.
pub(super) fn refuse_newer_schema(found: i32, migrations: &[Migration]) -> Result<(), StoreError> {
    let known = newest_version(migrations);
    if found > known {
        return Err(StoreError::Refused(format!(
            "the store's schema has version {found}, made by a newer event-tracker; this one knows up to {known}: \
             run the newer one"
        )));
    }
    Ok(())
}

/// 128 random bits for [`super::Store::identity`].
pub(super) fn random_identity() -> Result<[u8; 16], StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Unavailable(format!("no random bytes: {error}")))?;
    Ok(bytes)
}
