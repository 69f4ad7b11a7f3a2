//! Who is asking: sessions of superusers by cookie, and admin keys.
//!
//! Only hashes of secrets are kept. The secrets are 256 random bits, so a plain SHA-256 does.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use hyper::header::{HeaderValue, SET_COOKIE};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use warp::reply::Response;

use super::answer::Failure;
use super::options::CookieSecure;
use super::request::Request;
use super::{Options, State};
use crate::store::StoreError;
use crate::store::admin::{AccountChange, Session, key_name};

/// A browser refuses this name unless the cookie is for TLS and for this host only.
const SECURE_COOKIE: &str = "__Host-session";
const PLAIN_COOKIE: &str = "session";
/// How exactly the store knows when a session was last seen.
const TOUCH_INTERVAL: TimeDelta = TimeDelta::minutes(1);
/// While the store can't be asked, a session that it knew is believed for so long: then of all times
/// the status is of interest.
const REMEMBERED: Duration = Duration::from_secs(600);
const REMEMBERED_MAX: u64 = 10_000;

pub(super) const KEY_PREFIX: &str = "etk_";

/// Who was let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Who {
    Superuser { name: String, id_hash: [u8; 32] },
    Key { id: i64, label: String, secret_hash: [u8; 32] },
}

impl Who {
    /// As the log of changes calls them.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Superuser { name, .. } => name.clone(),
            Self::Key { id, label, .. } => key_name(*id, label),
        }
    }
}

/// Sessions that the store knew lately.
pub(super) struct Remembered(Cache<[u8; 32], Session>);

impl Default for Remembered {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED).build())
    }
}

/// 256 random bits as text for cookies, links and headers.
///
/// # Errors
/// When the system has no randomness.
pub(super) fn secret() -> Result<String, Failure> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(|error| {
        tracing::error!(%error, "no randomness");
        Failure::Internal
    })?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bits))
}

pub(super) fn hash_of(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn is_secure(options: &Options, request: &Request) -> bool {
    match options.cookie_secure {
        CookieSecure::Always => true,
        CookieSecure::Never => false,
        CookieSecure::Auto => request.came_by_tls(options.trust_proxy),
    }
}

/// Whether the session can be used still, apart from its user being enabled.
pub(super) fn is_alive(session: &Session, now: DateTime<Utc>, idle_since: DateTime<Utc>) -> bool {
    now < session.expires_at && session.last_seen_at >= idle_since
}

impl State {
    /// The superuser whose session the request carries.
    pub(super) async fn superuser(&self, request: &Request) -> Result<Option<Who>, Failure> {
        let name = if is_secure(&self.options, request) { SECURE_COOKIE } else { PLAIN_COOKIE };
        let Some(id) = request.cookie(name).filter(|id| id.len() == 43) else { return Ok(None) };
        let (id_hash, now) = (hash_of(id), (self.clock)());
        let idle_since = now - self.options.session_idle();
        let session = match self.store.session(id_hash, now, idle_since).await {
            Ok(Some(session)) => {
                self.remembered.0.insert(id_hash, session.clone());
                session
            }
            Ok(None) => {
                self.remembered.0.invalidate(&id_hash);
                return Ok(None);
            }
            Err(StoreError::Unavailable(reason)) => match self.remembered.0.get(&id_hash) {
                Some(session) if is_alive(&session, now, idle_since) => session,
                _ => return Err(StoreError::Unavailable(reason).into()),
            },
            Err(error) => return Err(error.into()),
        };
        if now - session.last_seen_at >= TOUCH_INTERVAL {
            // The page is worth more than the exact minute.
            let _ = self.store.touch_session(id_hash, now).await;
        }
        Ok(Some(Who::Superuser { name: session.user, id_hash }))
    }

    /// The admin key that the request carries.
    pub(super) async fn key(&self, request: &Request) -> Result<Option<Who>, Failure> {
        let Some(secret) = request.bearer().filter(|secret| secret.starts_with(KEY_PREFIX)) else { return Ok(None) };
        let secret_hash = hash_of(secret);
        let key = self.store.use_admin_key(secret_hash, (self.clock)()).await?;
        Ok(key.map(|key| Who::Key { id: key.id, label: key.label, secret_hash }))
    }

    /// Whether the session or key of an earlier request would still be let in; a store that can't say
    /// takes nothing away.
    pub(super) async fn still_lets_in(&self, who: &Who) -> bool {
        let now = (self.clock)();
        match who {
            Who::Superuser { id_hash, .. } => {
                let session = self.store.session(*id_hash, now, now - self.options.session_idle()).await;
                !matches!(session, Ok(None))
            }
            Who::Key { secret_hash, .. } => !matches!(self.store.use_admin_key(*secret_hash, now).await, Ok(None)),
        }
    }

    /// Begins a session, always under a new id, and gives its cookie to the browser. `false`: what the
    /// password was checked against, `password_hash`, is not the user's any more, or the user is disabled.
    pub(super) async fn sign_in(
        &self,
        request: &Request,
        user: &str,
        password_hash: &str,
        response: &mut Response,
    ) -> Result<bool, Failure> {
        // What the browser had before is over, whoever it was.
        self.sign_out(request, response).await?;
        let (id, now) = (secret()?, (self.clock)());
        let session = Session {
            id_hash: hash_of(&id),
            user: user.to_owned(),
            created_at: now,
            last_seen_at: now,
            expires_at: now + self.options.session_age_max(),
            agent: request.agent(),
        };
        let begun = self.store.add_session(session, password_hash, self.options.sessions_max).await?;
        if begun {
            let age_s = self.options.session_age_max().num_seconds();
            self.set_session_cookie(request, &id, age_s, response);
        }
        Ok(begun)
    }

    pub(super) async fn sign_out(&self, request: &Request, response: &mut Response) -> Result<(), Failure> {
        for name in [SECURE_COOKIE, PLAIN_COOKIE] {
            if let Some(id) = request.cookie(name) {
                let id_hash = hash_of(id);
                self.remembered.0.invalidate(&id_hash);
                self.store.end_session(id_hash).await?;
                self.access_changed.send_replace(());
            }
        }
        self.forget_cookie(request, response);
        Ok(())
    }

    pub(super) fn forget_cookie(&self, request: &Request, response: &mut Response) {
        self.set_session_cookie(request, "", 0, response);
    }

    /// Makes a change to who is let in, as whoever asks. `false`: there is no such user or key, or one
    /// already. Sessions and streams that end with it are noticed at once on this node.
    pub(super) async fn change_account(&self, change: AccountChange, who: &str) -> Result<bool, Failure> {
        let changed = self.store.change_account(change, who, (self.clock)()).await.map_err(Failure::of_change)?;
        self.remembered.0.invalidate_all();
        self.access_changed.send_replace(());
        Ok(changed)
    }

    fn set_session_cookie(&self, request: &Request, id: &str, age_s: i64, response: &mut Response) {
        let cookie = if is_secure(&self.options, request) {
            format!("{SECURE_COOKIE}={id}; Path=/; Max-Age={age_s}; Secure; HttpOnly; SameSite=Strict")
        } else {
            format!("{PLAIN_COOKIE}={id}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict")
        };
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
    }
}
