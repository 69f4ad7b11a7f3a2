//! Admin keys for `/api/v1/admin`: create, label, expire, revoke. A secret is shown once.

use askama::Template;
use chrono::TimeDelta;
use hyper::StatusCode;
use warp::reply::Response;

use super::State;
use super::answer::{Failure, html, see_other};
use super::request::Request;
use super::session::{KEY_PREFIX, Who, hash_of, secret};
use super::users::confirm;
use super::view::Page;
use crate::store::admin::{AccountChange, AdminKey};

const LABEL_CHARS_MAX: usize = 100;
/// So much of a secret is kept to recognise it by: the prefix and 24 of its 256 bits.
const HINT_CHARS: usize = KEY_PREFIX.len() + 4;
const LIFETIMES: [(&str, &str); 5] =
    [("30", "30 days"), ("90", "90 days"), ("365", "1 year"), ("1", "1 day"), ("", "never")];

struct Line {
    id: i64,
    label: String,
    hint: String,
    created: String,
    expires: String,
    last_used: String,
    /// `active`, `revoked` or `expired`.
    state: &'static str,
}

#[derive(Template)]
#[template(path = "keys.html", config = "src/admin/askama.toml")]
struct KeysPage {
    page: Page,
    lines: Vec<Line>,
    lifetimes: [(&'static str, &'static str); 5],
    /// The secret that was just made.
    made: Option<String>,
    error: Option<String>,
}

pub(super) async fn page(state: &State, request: &Request, who: &Who) -> Result<Response, Failure> {
    show(state, request, who, None, None).await
}

async fn show(
    state: &State,
    request: &Request,
    who: &Who,
    made: Option<String>,
    error: Option<String>,
) -> Result<Response, Failure> {
    let mut page = Page::new(state, request, Some(who), "Keys");
    page.path = "/admin/keys".into();
    let mut keys = state.store.admin_keys().await?;
    keys.sort_by_key(|key| (key.revoked_at.is_some(), std::cmp::Reverse(key.id)));
    let line = |key: AdminKey| Line {
        id: key.id,
        hint: key.hint,
        created: format!("{} by {}", page.time(&key.created_at), key.created_by),
        expires: key.expires_at.map_or_else(|| "never".into(), |at| page.time(&at)),
        last_used: key.last_used_at.map_or_else(|| "never".into(), |at| page.ago(&at)),
        state: match (key.revoked_at, key.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(at)) if at <= page.now => "expired",
            _ => "active",
        },
        label: key.label,
    };
    let lines = keys.into_iter().map(line).collect();
    let status = if error.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let mut response = html(&KeysPage { page, lines, lifetimes: LIFETIMES, made, error });
    *response.status_mut() = status;
    Ok(response)
}

/// `POST /admin/keys`: the answer is the only place where the secret ever is.
pub(super) async fn create(state: &State, request: &Request, who: &Who) -> Result<Response, Failure> {
    let form = request.form();
    let label = form.get("label");
    if let Err(why) = confirm(state, who, &form).await? {
        return show(state, request, who, None, Some(why)).await;
    }
    if label.is_empty() || label.chars().count() > LABEL_CHARS_MAX || label.chars().any(char::is_control) {
        let why = "Please say in 1 to 100 characters what the key is for.".to_owned();
        return show(state, request, who, None, Some(why)).await;
    }
    let days = form.get("days");
    if !LIFETIMES.iter().any(|(known, _)| *known == days) {
        return Err(Failure::BadRequest("Please choose one of the lifetimes.".into()));
    }
    let created_at = (state.clock)();
    let secret = format!("{KEY_PREFIX}{}", secret()?);
    let key = AdminKey {
        id: 0,
        label: label.to_owned(),
        secret_hash: hash_of(&secret),
        hint: secret[..HINT_CHARS].to_owned(),
        created_by: who.name(),
        created_at,
        expires_at: days.parse().ok().map(|days| created_at + TimeDelta::days(days)),
        revoked_at: None,
        last_used_at: None,
    };
    state.change_account(AccountChange::AddKey(key), &who.name()).await?;
    tracing::info!(label, by = who.name(), "An admin key was created");
    show(state, request, who, Some(secret), None).await
}

/// `POST /admin/keys/{key}/revoke`
pub(super) async fn revoke(state: &State, who: &Who, id: &str) -> Result<Response, Failure> {
    let id = id.parse().map_err(|_| Failure::NotFound)?;
    if !state.change_account(AccountChange::RevokeKey { id }, &who.name()).await? {
        return Err(Failure::NotFound);
    }
    tracing::info!(id, by = who.name(), "An admin key was revoked");
    Ok(see_other("/admin/keys?notice=key-revoked"))
}
