//! The administrators' part of the store: which transaction does what.

use async_trait::async_trait;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::{PostgresStore, accounts, change, session};
use crate::domain::EventName;
use crate::store::StoreError;
use crate::store::admin::{
    AccountChange, AdminKey, AdminStore, Catalog, Change, Changed, KEY_USE_INTERVAL, LoggedChange, Session, Superuser,
};

#[async_trait]
impl AdminStore for PostgresStore {
    async fn catalog(&self) -> Result<Catalog, StoreError> {
        self.transaction(&self.looks, &self.begin_read, async |client| change::catalog(client).await).await
    }

    async fn change(&self, change: Change, who: &str, at: DateTime<Utc>) -> Result<Changed, StoreError> {
        let at = at.trunc_subsecs(6);
        let begin = &self.begin_commit;
        let work = async |session: &session::Session| change::change(session, begin, &change, who, at).await;
        let (changed, set_aside) = self.on_session(&self.administrators, work).await?;
        self.note_set_aside(set_aside);
        Ok(changed)
    }

    async fn due_purges(&self, grace: TimeDelta) -> Result<Vec<EventName>, StoreError> {
        self.transaction(&self.administrators, &self.begin_commit, async |client| {
            change::due_purges(client, grace).await
        })
        .await
    }

    async fn changes(
        &self,
        events: Vec<EventName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<LoggedChange>, StoreError> {
        self.transaction(&self.administrators, &self.begin_read, async |client| {
            change::changes(client, &events, before, limit).await
        })
        .await
    }

    async fn superusers(&self) -> Result<Vec<Superuser>, StoreError> {
        self.transaction(&self.administrators, &self.begin_read, async |client| accounts::superusers(client).await)
            .await
    }

    async fn change_account(&self, change: AccountChange, who: &str, at: DateTime<Utc>) -> Result<bool, StoreError> {
        let at = at.trunc_subsecs(6);
        self.on_session(&self.administrators, async |session| {
            session.begin(&self.begin_commit).await?;
            let changed = accounts::change(session, &change, who, at).await?;
            session.client.commit().await?;
            Ok(changed)
        })
        .await
    }

    async fn add_session(&self, session: Session, password_hash: &str, sessions_max: u32) -> Result<bool, StoreError> {
        self.transaction(&self.administrators, &self.begin_commit, async |client| {
            accounts::add_session(client, &session, password_hash, sessions_max).await
        })
        .await
    }

    async fn session(
        &self,
        id_hash: [u8; 32],
        now: DateTime<Utc>,
        idle_since: DateTime<Utc>,
    ) -> Result<Option<Session>, StoreError> {
        self.transaction(&self.administrators, &self.begin_read, async |client| {
            accounts::session(client, id_hash, now, idle_since).await
        })
        .await
    }

    async fn touch_session(&self, id_hash: [u8; 32], now: DateTime<Utc>) -> Result<(), StoreError> {
        self.transaction(&self.administrators, &self.begin_commit, async |client| {
            accounts::touch_session(client, id_hash, now).await
        })
        .await
    }

    async fn end_session(&self, id_hash: [u8; 32]) -> Result<(), StoreError> {
        self.transaction(&self.administrators, &self.begin_commit, async |client| {
            accounts::end_session(client, id_hash).await
        })
        .await
    }

    async fn admin_keys(&self) -> Result<Vec<AdminKey>, StoreError> {
        self.transaction(&self.administrators, &self.begin_read, async |client| accounts::admin_keys(client).await)
            .await
    }

    async fn use_admin_key(&self, secret_hash: [u8; 32], now: DateTime<Utc>) -> Result<Option<AdminKey>, StoreError> {
        let found = self.transaction(&self.administrators, &self.begin_read, async |client| {
            accounts::valid_key(client, secret_hash, now).await
        });
        let Some(mut key) = found.await? else { return Ok(None) };
        if key.last_used_at.is_none_or(|last| now - last >= KEY_USE_INTERVAL) {
            key.last_used_at = Some(now.trunc_subsecs(6));
            let id = key.id;
            self.transaction(&self.administrators, &self.begin_commit, async |client| {
                accounts::note_key_use(client, id, now).await
            })
            .await?;
        }
        Ok(Some(key))
    }
}
