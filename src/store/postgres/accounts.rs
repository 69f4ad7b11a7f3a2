//! Superusers, their sessions, and keys.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::change::raise_version;
use super::client::{Client, Param};
use super::rows::{column, time, time_or_none};
use crate::store::StoreError;
use crate::store::admin::{AccountChange, AdminKey, Session, Superuser, key_name};

pub(super) async fn superusers(client: &Client) -> Result<Vec<Superuser>, StoreError> {
    let sql = "select name, password_hash, disabled, created_at, last_login_at from superusers order by name";
    let user = |row: &Row| {
        Ok(Superuser {
            name: column(row, 0)?,
            password_hash: column(row, 1)?,
            disabled: column(row, 2)?,
            created_at: time(row, 3)?,
            last_login_at: time_or_none(row, 4)?,
        })
    };
    client.query_typed(sql, &[]).await?.iter().map(user).collect()
}

/// Within a transaction that is committed whatever this gives.
pub(super) async fn change(
    session: &super::session::Session,
    change: &AccountChange,
    who: &str,
    at: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let client = &session.client;
    let Some(account) = make(client, change, at).await? else { return Ok(false) };
    let number = raise_version(session).await?;
    let params: [Param<'_>; 6] = [
        (&number, Type::INT8),
        (&SystemTime::from(at), Type::TIMESTAMPTZ),
        (&who, Type::TEXT),
        (&change.what(), Type::TEXT),
        (&account, Type::TEXT),
        (&change.facts().stored()?, Type::TEXT),
    ];
    let sql = "insert into admin_changes (change, at, who, what, account, before, after, facts, entries, undoable)
         values ($1, $2, $3, $4, $5, '', '', $6, '[]', false)";
    client.execute_typed(sql, &params).await?;
    Ok(true)
}

/// Gives what the log calls the user or key; `None` when nothing was changed. The user's row comes
/// first, in [`add_session`] too: whoever has it decides about the sessions.
async fn make(client: &Client, change: &AccountChange, at: DateTime<Utc>) -> Result<Option<String>, StoreError> {
    let of_user = async |sql: &str, user: &String| client.execute_typed(sql, &[(user, Type::TEXT)]).await;
    let (user, found, keep) = match change {
        AccountChange::AddUser(user) => (&user.name, add_superuser(client, user).await?, None),
        AccountChange::SetPassword { user, password_hash, keep } => {
            let params: [Param<'_>; 2] = [(user, Type::TEXT), (password_hash, Type::TEXT)];
            let sql = "update superusers set password_hash = $2 where name = $1";
            (user, client.execute_typed(sql, &params).await?, keep.as_ref())
        }
        AccountChange::Disable { user } => {
            (user, of_user("update superusers set disabled = true where name = $1", user).await?, None)
        }
        AccountChange::Enable { user } => {
            (user, of_user("update superusers set disabled = false where name = $1", user).await?, None)
        }
        AccountChange::DeleteUser { user } => {
            (user, of_user("delete from superusers where name = $1", user).await?, None)
        }
        AccountChange::SignOut { user } => {
            (user, of_user("select name from superusers where name = $1 for update", user).await?, None)
        }
        AccountChange::AddKey(key) => return Ok(Some(key_name(add_admin_key(client, key).await?, &key.label))),
        AccountChange::RevokeKey { id } => {
            let params: [Param<'_>; 2] = [(id, Type::INT8), (&SystemTime::from(at), Type::TIMESTAMPTZ)];
            let sql = "update admin_keys set revoked_at = $2 where id = $1 and revoked_at is null returning label";
            let revoked = client.query_typed_opt(sql, &params).await?;
            return revoked.map(|row| Ok(key_name(*id, column(&row, 0)?))).transpose();
        }
    };
    if found == 0 {
        return Ok(None);
    }
    let keep = keep.map(<[u8; 32]>::as_slice);
    let sql = "delete from sessions where username = $1 and id_hash is distinct from $2";
    client.execute_typed(sql, &[(user, Type::TEXT), (&keep, Type::BYTEA)]).await?;
    Ok(Some(user.clone()))
}

async fn add_superuser(client: &Client, user: &Superuser) -> Result<u64, StoreError> {
    let params: [Param<'_>; 5] = [
        (&user.name, Type::TEXT),
        (&user.password_hash, Type::TEXT),
        (&user.disabled, Type::BOOL),
        (&SystemTime::from(user.created_at), Type::TIMESTAMPTZ),
        (&user.last_login_at.map(SystemTime::from), Type::TIMESTAMPTZ),
    ];
    let sql = "insert into superusers (name, password_hash, disabled, created_at, last_login_at)
         values ($1, $2, $3, $4, $5) on conflict (name) do nothing";
    client.execute_typed(sql, &params).await
}

pub(super) async fn add_session(
    client: &Client,
    session: &Session,
    password_hash: &str,
    sessions_max: u32,
) -> Result<bool, StoreError> {
    let created_at = SystemTime::from(session.created_at);
    let params: [Param<'_>; 3] =
        [(&session.user, Type::TEXT), (&created_at, Type::TIMESTAMPTZ), (&password_hash, Type::TEXT)];
    let sql = "update superusers set last_login_at = $2 where name = $1 and not disabled and password_hash = $3";
    if client.execute_typed(sql, &params).await? == 0 {
        return Ok(false);
    }
    let id_hash = session.id_hash.as_slice();
    let params: [Param<'_>; 6] = [
        (&id_hash, Type::BYTEA),
        (&session.user, Type::TEXT),
        (&created_at, Type::TIMESTAMPTZ),
        (&SystemTime::from(session.last_seen_at), Type::TIMESTAMPTZ),
        (&SystemTime::from(session.expires_at), Type::TIMESTAMPTZ),
        (&session.agent, Type::TEXT),
    ];
    let sql = "insert into sessions (id_hash, username, created_at, last_seen_at, expires_at, agent)
         values ($1, $2, $3, $4, $5, $6)";
    client.execute_typed(sql, &params).await?;
    let params: [Param<'_>; 3] =
        [(&session.user, Type::TEXT), (&id_hash, Type::BYTEA), (&i64::from(sessions_max), Type::INT8)];
    client.execute_typed(include_str!("sessions_trim.sql"), &params).await?;
    client.execute_typed(include_str!("sessions_expire.sql"), &[(&created_at, Type::TIMESTAMPTZ)]).await?;
    Ok(true)
}

pub(super) async fn session(
    client: &Client,
    id_hash: [u8; 32],
    now: DateTime<Utc>,
    idle_since: DateTime<Utc>,
) -> Result<Option<Session>, StoreError> {
    let params: [Param<'_>; 3] = [
        (&id_hash.as_slice(), Type::BYTEA),
        (&SystemTime::from(now), Type::TIMESTAMPTZ),
        (&SystemTime::from(idle_since), Type::TIMESTAMPTZ),
    ];
    let sql = "select username, sessions.created_at, last_seen_at, expires_at, agent
         from sessions join superusers on name = username
         where id_hash = $1 and expires_at > $2 and last_seen_at >= $3 and not disabled";
    let Some(row) = client.query_typed_opt(sql, &params).await? else { return Ok(None) };
    Ok(Some(Session {
        id_hash,
        user: column(&row, 0)?,
        created_at: time(&row, 1)?,
        last_seen_at: time(&row, 2)?,
        expires_at: time(&row, 3)?,
        agent: column(&row, 4)?,
    }))
}

pub(super) async fn touch_session(client: &Client, id_hash: [u8; 32], now: DateTime<Utc>) -> Result<(), StoreError> {
    let params: [Param<'_>; 2] = [(&id_hash.as_slice(), Type::BYTEA), (&SystemTime::from(now), Type::TIMESTAMPTZ)];
    let sql = "update sessions set last_seen_at = $2 where id_hash = $1 and last_seen_at < $2";
    client.execute_typed(sql, &params).await?;
    Ok(())
}

pub(super) async fn end_session(client: &Client, id_hash: [u8; 32]) -> Result<(), StoreError> {
    let sql = "delete from sessions where id_hash = $1";
    client.execute_typed(sql, &[(&id_hash.as_slice(), Type::BYTEA)]).await?;
    Ok(())
}

const KEY_COLUMNS: &str = "id, label, secret_hash, hint, created_by, created_at, expires_at, revoked_at, last_used_at";

fn key(row: &Row) -> Result<AdminKey, StoreError> {
    let secret_hash: &[u8] = column(row, 2)?;
    Ok(AdminKey {
        id: column(row, 0)?,
        label: column(row, 1)?,
        secret_hash: secret_hash
            .try_into()
            .map_err(|_| StoreError::Rejected("a key's hash is not 32 bytes long".into()))?,
        hint: column(row, 3)?,
        created_by: column(row, 4)?,
        created_at: time(row, 5)?,
        expires_at: time_or_none(row, 6)?,
        revoked_at: time_or_none(row, 7)?,
        last_used_at: time_or_none(row, 8)?,
    })
}

pub(super) async fn admin_keys(client: &Client) -> Result<Vec<AdminKey>, StoreError> {
    let sql = format!("select {KEY_COLUMNS} from admin_keys order by id");
    client.query_typed(&sql, &[]).await?.iter().map(key).collect()
}

async fn add_admin_key(client: &Client, key: &AdminKey) -> Result<i64, StoreError> {
    let params: [Param<'_>; 8] = [
        (&key.label, Type::TEXT),
        (&key.secret_hash.as_slice(), Type::BYTEA),
        (&key.hint, Type::TEXT),
        (&key.created_by, Type::TEXT),
        (&SystemTime::from(key.created_at), Type::TIMESTAMPTZ),
        (&key.expires_at.map(SystemTime::from), Type::TIMESTAMPTZ),
        (&key.revoked_at.map(SystemTime::from), Type::TIMESTAMPTZ),
        (&key.last_used_at.map(SystemTime::from), Type::TIMESTAMPTZ),
    ];
    let sql = "insert into admin_keys
             (label, secret_hash, hint, created_by, created_at, expires_at, revoked_at, last_used_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8) returning id";
    column(&client.query_typed_one(sql, &params).await?, 0)
}

/// Reads only; [`note_key_use`] is due when the answer's `last_used_at` is long ago.
pub(super) async fn valid_key(
    client: &Client,
    secret_hash: [u8; 32],
    now: DateTime<Utc>,
) -> Result<Option<AdminKey>, StoreError> {
    let params: [Param<'_>; 2] = [(&secret_hash.as_slice(), Type::BYTEA), (&SystemTime::from(now), Type::TIMESTAMPTZ)];
    let sql = format!(
        "select {KEY_COLUMNS} from admin_keys
         where secret_hash = $1 and revoked_at is null and (expires_at is null or expires_at > $2)"
    );
    client.query_typed_opt(&sql, &params).await?.as_ref().map(key).transpose()
}

pub(super) async fn note_key_use(client: &Client, id: i64, now: DateTime<Utc>) -> Result<(), StoreError> {
    let params: [Param<'_>; 2] = [(&id, Type::INT8), (&SystemTime::from(now), Type::TIMESTAMPTZ)];
    client.execute_typed("update admin_keys set last_used_at = $2 where id = $1", &params).await?;
    Ok(())
}
