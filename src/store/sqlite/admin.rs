//! The administrators' part of the store: which thread does what.

use async_trait::async_trait;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::{SqliteStore, accounts, change};
use crate::domain::EventName;
use crate::store::StoreError;
use crate::store::admin::{
    AccountChange, AdminKey, AdminStore, Catalog, Change, Changed, KEY_USE_INTERVAL, LoggedChange, Session, Superuser,
};

#[async_trait]
impl AdminStore for SqliteStore {
    async fn catalog(&self) -> Result<Catalog, StoreError> {
        self.read(|connection| change::catalog(&connection.transaction()?)).await
    }

    async fn change(&self, change: Change, who: &str, at: DateTime<Utc>) -> Result<Changed, StoreError> {
        let (who, at, clock) = (who.to_owned(), at.trunc_subsecs(6), self.clock.clone());
        self.write(move |connection| change::change(connection, clock.as_ref(), &change, &who, at)).await
    }

    async fn due_purges(&self, grace: TimeDelta) -> Result<Vec<EventName>, StoreError> {
        let clock = self.clock.clone();
        self.write(move |connection| change::due_purges(connection, clock.as_ref(), grace)).await
    }

    async fn changes(
        &self,
        events: Vec<EventName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<LoggedChange>, StoreError> {
        self.read(move |connection| change::changes(&connection.transaction()?, &events, before, limit)).await
    }

    async fn superusers(&self) -> Result<Vec<Superuser>, StoreError> {
        self.read(|connection| accounts::superusers(&connection.transaction()?)).await
    }

    async fn change_account(&self, change: AccountChange, who: &str, at: DateTime<Utc>) -> Result<bool, StoreError> {
        let (who, at) = (who.to_owned(), at.trunc_subsecs(6));
        self.write(move |connection| accounts::change(connection, &change, &who, at)).await
    }

    async fn add_session(&self, session: Session, password_hash: &str, sessions_max: u32) -> Result<bool, StoreError> {
        let password_hash = password_hash.to_owned();
        self.write(move |connection| accounts::add_session(connection, &session, &password_hash, sessions_max)).await
    }

    async fn session(
        &self,
        id_hash: [u8; 32],
        now: DateTime<Utc>,
        idle_since: DateTime<Utc>,
    ) -> Result<Option<Session>, StoreError> {
        self.read(move |connection| accounts::session(&connection.transaction()?, id_hash, now, idle_since)).await
    }

    async fn touch_session(&self, id_hash: [u8; 32], now: DateTime<Utc>) -> Result<(), StoreError> {
        self.write(move |connection| accounts::touch_session(connection, id_hash, now)).await
    }

    async fn end_session(&self, id_hash: [u8; 32]) -> Result<(), StoreError> {
        self.write(move |connection| accounts::end_session(connection, id_hash)).await
    }

    async fn admin_keys(&self) -> Result<Vec<AdminKey>, StoreError> {
        self.read(|connection| accounts::admin_keys(&connection.transaction()?)).await
    }

    async fn use_admin_key(&self, secret_hash: [u8; 32], now: DateTime<Utc>) -> Result<Option<AdminKey>, StoreError> {
        let found = self.read(move |connection| accounts::valid_key(&connection.transaction()?, secret_hash, now));
        let Some(mut key) = found.await? else { return Ok(None) };
        if key.last_used_at.is_none_or(|last| now - last >= KEY_USE_INTERVAL) {
            key.last_used_at = Some(now.trunc_subsecs(6));
            let id = key.id;
            self.write(move |connection| accounts::note_key_use(connection, id, now)).await?;
        }
        Ok(Some(key))
    }
}
