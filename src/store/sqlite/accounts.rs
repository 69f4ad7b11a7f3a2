//! Superusers, their sessions, and keys.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Row, Transaction, params};

use crate::store::StoreError;
use crate::store::admin::{AdminKey, Session, Superuser};
use crate::store::columns::{read_time, stored_time, text_time};

pub(super) fn superusers(snapshot: &Transaction<'_>) -> Result<Vec<Superuser>, StoreError> {
    snapshot
        .prepare_cached(
            "select name, password_hash, disabled, created_at, last_login_at from superusers order by name",
        )?
        .query_and_then([], |row| {
            Ok(Superuser {
                name: row.get(0)?,
                password_hash: row.get(1)?,
                disabled: row.get(2)?,
                created_at: read_time(&row.get::<_, String>(3)?)?,
                last_login_at: text_time(row.get(4)?)?,
            })
        })?
        .collect()
}

pub(super) fn add_superuser(connection: &Connection, user: &Superuser) -> Result<bool, StoreError> {
    let added = connection.execute(
        "insert into superusers (name, password_hash, disabled, created_at, last_login_at)
         values (?1, ?2, ?3, ?4, ?5) on conflict do nothing",
        params![
            user.name,
            user.password_hash,
            user.disabled,
            stored_time(user.created_at),
            user.last_login_at.map(stored_time),
        ],
    )?;
    Ok(added == 1)
}

pub(super) fn update_superuser(
    connection: &mut Connection,
    name: &str,
    password_hash: Option<&str>,
    disabled: Option<bool>,
    keep: Option<[u8; 32]>,
) -> Result<bool, StoreError> {
    let transaction = connection.transaction()?;
    let updated = transaction.execute(
        "update superusers set password_hash = coalesce(?2, password_hash), disabled = coalesce(?3, disabled)
         where name = ?1",
        params![name, password_hash, disabled],
    )?;
    transaction.execute("delete from sessions where username = ?1 and id_hash is not ?2", params![name, keep])?;
    transaction.commit()?;
    Ok(updated == 1)
}

pub(super) fn delete_superuser(connection: &mut Connection, name: &str) -> Result<bool, StoreError> {
    let transaction = connection.transaction()?;
    let deleted = transaction.execute("delete from superusers where name = ?1", [name])?;
    transaction.execute("delete from sessions where username = ?1", [name])?;
    transaction.commit()?;
    Ok(deleted == 1)
}

pub(super) fn add_session(connection: &mut Connection, session: &Session, sessions_max: u32) -> Result<(), StoreError> {
    let created_at = stored_time(session.created_at);
    let transaction = connection.transaction()?;
    transaction.execute("delete from sessions where expires_at <= ?1", [&created_at])?;
    let may_log_in = transaction.execute(
        "update superusers set last_login_at = ?2 where name = ?1 and not disabled",
        [&session.user, &created_at],
    )?;
    if may_log_in == 1 {
        transaction.execute(
            "insert into sessions (id_hash, username, created_at, last_seen_at, expires_at, agent)
             values (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                session.id_hash,
                session.user,
                created_at,
                stored_time(session.last_seen_at),
                stored_time(session.expires_at),
                session.agent,
            ],
        )?;
        transaction.execute(
            "delete from sessions where username = ?1 and id_hash not in (
                 select id_hash from sessions where username = ?1
                 order by id_hash = ?2 desc, created_at desc limit ?3)",
            params![session.user, session.id_hash, sessions_max],
        )?;
    }
    transaction.commit()?;
    Ok(())
}

pub(super) fn session(
    snapshot: &Transaction<'_>,
    id_hash: [u8; 32],
    now: DateTime<Utc>,
    idle_since: DateTime<Utc>,
) -> Result<Option<Session>, StoreError> {
    let sql = "select id_hash, username, sessions.created_at, last_seen_at, expires_at, agent
         from sessions join superusers on name = username
         where id_hash = ?1 and expires_at > ?2 and last_seen_at >= ?3 and not disabled";
    let mut statement = snapshot.prepare_cached(sql)?;
    let mut rows = statement.query(params![id_hash, stored_time(now), stored_time(idle_since)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Session {
        id_hash: row.get(0)?,
        user: row.get(1)?,
        created_at: read_time(&row.get::<_, String>(2)?)?,
        last_seen_at: read_time(&row.get::<_, String>(3)?)?,
        expires_at: read_time(&row.get::<_, String>(4)?)?,
        agent: row.get(5)?,
    }))
}

pub(super) fn touch_session(connection: &Connection, id_hash: [u8; 32], now: DateTime<Utc>) -> Result<(), StoreError> {
    let sql = "update sessions set last_seen_at = max(last_seen_at, ?2) where id_hash = ?1";
    connection.execute(sql, params![id_hash, stored_time(now)])?;
    Ok(())
}

pub(super) fn end_session(connection: &Connection, id_hash: [u8; 32]) -> Result<(), StoreError> {
    connection.execute("delete from sessions where id_hash = ?1", [id_hash])?;
    Ok(())
}

pub(super) fn end_sessions(connection: &Connection, user: &str) -> Result<u64, StoreError> {
    Ok(connection.execute("delete from sessions where username = ?1", [user])? as u64)
}

const KEY_COLUMNS: &str = "id, label, secret_hash, hint, created_by, created_at, expires_at, revoked_at, last_used_at";

fn key(row: &Row<'_>) -> Result<AdminKey, StoreError> {
    Ok(AdminKey {
        id: row.get(0)?,
        label: row.get(1)?,
        secret_hash: row.get(2)?,
        hint: row.get(3)?,
        created_by: row.get(4)?,
        created_at: read_time(&row.get::<_, String>(5)?)?,
        expires_at: text_time(row.get(6)?)?,
        revoked_at: text_time(row.get(7)?)?,
        last_used_at: text_time(row.get(8)?)?,
    })
}

pub(super) fn admin_keys(snapshot: &Transaction<'_>) -> Result<Vec<AdminKey>, StoreError> {
    let sql = format!("select {KEY_COLUMNS} from admin_keys order by id");
    snapshot.prepare_cached(&sql)?.query_and_then([], key)?.collect()
}

pub(super) fn add_admin_key(connection: &Connection, key: &AdminKey) -> Result<i64, StoreError> {
    connection.execute(
        "insert into admin_keys
             (label, secret_hash, hint, created_by, created_at, expires_at, revoked_at, last_used_at)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            key.label,
            key.secret_hash,
            key.hint,
            key.created_by,
            stored_time(key.created_at),
            key.expires_at.map(stored_time),
            key.revoked_at.map(stored_time),
            key.last_used_at.map(stored_time),
        ],
    )?;
    Ok(connection.last_insert_rowid())
}

pub(super) fn revoke_admin_key(connection: &Connection, id: i64, at: DateTime<Utc>) -> Result<bool, StoreError> {
    let sql = "update admin_keys set revoked_at = ?2 where id = ?1 and revoked_at is null";
    Ok(connection.execute(sql, params![id, stored_time(at)])? == 1)
}

/// Reads only; [`note_key_use`] is due when the answer's `last_used_at` is long ago.
pub(super) fn valid_key(
    snapshot: &Transaction<'_>,
    secret_hash: [u8; 32],
    now: DateTime<Utc>,
) -> Result<Option<AdminKey>, StoreError> {
    let sql = format!(
        "select {KEY_COLUMNS} from admin_keys
         where secret_hash = ?1 and revoked_at is null and (expires_at is null or expires_at > ?2)"
    );
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut rows = statement.query(params![secret_hash, stored_time(now)])?;
    rows.next()?.map(key).transpose()
}

pub(super) fn note_key_use(connection: &Connection, id: i64, now: DateTime<Utc>) -> Result<(), StoreError> {
    let sql = "update admin_keys set last_used_at = ?2 where id = ?1";
    connection.execute(sql, params![id, stored_time(now)])?;
    Ok(())
}
