//! Superusers, their sessions, and keys.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::store::StoreError;
use crate::store::admin::{AccountChange, AdminKey, Session, Superuser, key_name};
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

pub(super) fn change(
    connection: &mut Connection,
    change: &AccountChange,
    who: &str,
    at: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(account) = make(&transaction, change, at)? else { return Ok(false) };
    let number: i64 =
        transaction
            .query_row("update catalog_state set version = version + 1 returning version", [], |row| row.get(0))?;
    transaction.execute(
        "insert into admin_changes (change, at, who, what, account, before, after, facts, entries, undoable)
         values (?1, ?2, ?3, ?4, ?5, '', '', ?6, '[]', 0)",
        params![number, stored_time(at), who, change.what(), account, change.facts().stored()?],
    )?;
    transaction.commit()?;
    Ok(true)
}

/// Gives what the log calls the user or key; `None` when nothing was changed.
fn make(
    transaction: &Transaction<'_>,
    change: &AccountChange,
    at: DateTime<Utc>,
) -> Result<Option<String>, StoreError> {
    let end_sessions = |user: &str, keep: Option<[u8; 32]>| {
        transaction.execute("delete from sessions where username = ?1 and id_hash is not ?2", params![user, keep])
    };
    let (user, changed) = match change {
        AccountChange::AddUser(user) => (&user.name, add_superuser(transaction, user)?),
        AccountChange::SetPassword { user, password_hash, keep } => {
            end_sessions(user, *keep)?;
            let sql = "update superusers set password_hash = ?2 where name = ?1";
            (user, transaction.execute(sql, [user, password_hash])?)
        }
        AccountChange::Disable { user } => {
            end_sessions(user, None)?;
            (user, transaction.execute("update superusers set disabled = 1 where name = ?1", [user])?)
        }
        AccountChange::Enable { user } => {
            (user, transaction.execute("update superusers set disabled = 0 where name = ?1", [user])?)
        }
        AccountChange::DeleteUser { user } => {
            end_sessions(user, None)?;
            (user, transaction.execute("delete from superusers where name = ?1", [user])?)
        }
        AccountChange::SignOut { user } => {
            end_sessions(user, None)?;
            let sql = "select exists (select 1 from superusers where name = ?1)";
            (user, usize::from(transaction.query_row(sql, [user], |row| row.get::<_, bool>(0))?))
        }
        AccountChange::AddKey(key) => return Ok(Some(key_name(add_admin_key(transaction, key)?, &key.label))),
        AccountChange::RevokeKey { id } => {
            let sql = "update admin_keys set revoked_at = ?2 where id = ?1 and revoked_at is null returning label";
            let mut statement = transaction.prepare_cached(sql)?;
            let label = statement.query_row(params![id, stored_time(at)], |row| row.get::<_, String>(0)).optional()?;
            return Ok(label.map(|label| key_name(*id, &label)));
        }
    };
    Ok((changed == 1).then(|| user.clone()))
}

fn add_superuser(transaction: &Transaction<'_>, user: &Superuser) -> Result<usize, StoreError> {
    Ok(transaction.execute(
        "insert into superusers (name, password_hash, disabled, created_at, last_login_at)
         values (?1, ?2, ?3, ?4, ?5) on conflict do nothing",
        params![
            user.name,
            user.password_hash,
            user.disabled,
            stored_time(user.created_at),
            user.last_login_at.map(stored_time),
        ],
    )?)
}

pub(super) fn add_session(
    connection: &mut Connection,
    session: &Session,
    password_hash: &str,
    sessions_max: u32,
) -> Result<bool, StoreError> {
    let created_at = stored_time(session.created_at);
    let transaction = connection.transaction()?;
    transaction.execute("delete from sessions where expires_at <= ?1", [&created_at])?;
    let may_log_in = transaction.execute(
        "update superusers set last_login_at = ?2 where name = ?1 and not disabled and password_hash = ?3",
        [&*session.user, &created_at, password_hash],
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
    Ok(may_log_in == 1)
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

fn add_admin_key(connection: &Connection, key: &AdminKey) -> Result<i64, StoreError> {
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
