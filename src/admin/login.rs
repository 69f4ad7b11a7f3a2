//! Signing in and out, and making the first superuser by the set-up link.

use std::time::Instant;

use askama::Template;
use hyper::StatusCode;
use subtle::ConstantTimeEq;
use warp::reply::Response;

use super::answer::{Failure, html, see_other};
use super::password::check_strength;
use super::request::{Request, encoded};
use super::session::hash_of;
use super::view::{Page, local_path};
use super::{State, users};
use crate::store::admin::{AccountChange, Superuser};

#[derive(Template)]
#[template(path = "login.html", config = "src/admin/askama.toml")]
struct LoginPage {
    page: Page,
    next: String,
    user: String,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "setup.html", config = "src/admin/askama.toml")]
struct SetUpPage {
    page: Page,
    /// Empty: the link is not valid.
    token: String,
    user: String,
    error: Option<String>,
}

/// Leads on by a navigation that is this site's own.
#[derive(Template)]
#[template(path = "bounce.html", config = "src/admin/askama.toml")]
struct BouncePage {
    url: String,
}

pub(super) async fn page(state: &State, request: &Request) -> Result<Response, Failure> {
    let next = local_path(request.query().get("next")).to_owned();
    if state.superuser(request).await?.is_some() {
        return Ok(see_other(&next));
    }
    // Who follows a link from another site comes without the session's cookie, since that is strict.
    // A step of our own brings it along.
    let from_elsewhere =
        request.header("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site");
    if from_elsewhere && request.query().get("stepped").is_empty() {
        return Ok(html(&BouncePage { url: format!("/admin/login?stepped=1&next={}", encoded(&next)) }));
    }
    Ok(html(&LoginPage { page: Page::new(state, request, None, "Sign in"), next, user: String::new(), error: None }))
}

/// Nothing tells a wrong name from a wrong password or a disabled account: not the words, not the
/// status, not the time.
pub(super) async fn sign_in(state: &State, request: &Request) -> Result<Response, Failure> {
    let form = request.form();
    let (user, password) = (form.get("user"), form.exact("password"));
    let client = request.client(state.options.trust_proxy);
    let retry = |status: StatusCode, error: String| {
        let page = Page::new(state, request, None, "Sign in");
        let next = local_path(form.get("next")).to_owned();
        let mut response = html(&LoginPage { page, next, user: user.to_owned(), error: Some(error) });
        *response.status_mut() = status;
        response
    };
    if let Err(wait) = state.throttle.begin(user, Some(client), Instant::now()) {
        let failure = Failure::Throttled(wait);
        let mut response = retry(failure.status(), failure.sentence());
        if let Ok(seconds) = hyper::header::HeaderValue::try_from((wait.as_secs() + 1).to_string()) {
            response.headers_mut().insert(hyper::header::RETRY_AFTER, seconds);
        }
        return Ok(response);
    }
    let mut response = see_other(local_path(form.get("next")));
    let attempt = async {
        let known = state.store.superusers().await?.into_iter().find(|known| known.name == user);
        let hash = known.as_ref().map(|known| known.password_hash.clone());
        let matches = state.passwords.verify(password.to_owned(), hash).await?;
        match known.filter(|known| matches && !known.disabled) {
            // The password may have been changed while this waited to be checked.
            Some(known) => state.sign_in(request, user, &known.password_hash, &mut response).await,
            None => Ok(false),
        }
    };
    let attempted = attempt.await;
    // What the store could not answer was no guess.
    if !matches!(attempted, Ok(false)) {
        state.throttle.take_back(user, Some(client));
    }
    if !attempted? {
        tracing::warn!(%client, "A login to the dashboard failed");
        return Ok(retry(StatusCode::UNPROCESSABLE_ENTITY, "The name or the password is wrong.".into()));
    }
    tracing::info!(user, %client, "Signed in to the dashboard");
    Ok(response)
}

/// The browser forgets its session in any case.
pub(super) async fn sign_out(state: &State, request: &Request) -> Result<Response, Failure> {
    let mut response = see_other("/admin/login?notice=signed-off");
    if let Err(failure) = state.sign_out(request, &mut response).await {
        response = see_other("/admin/login?notice=signed-off-here");
        state.forget_cookie(request, &mut response);
        tracing::warn!(?failure, "A session could not be ended; it ends by itself");
    }
    Ok(response)
}

impl State {
    fn is_setup_token(&self, token: &str) -> bool {
        self.setup.lock().is_some_and(|hash| bool::from(hash.ct_eq(&hash_of(token))))
    }
}

pub(super) fn set_up_page(state: &State, request: &Request) -> Result<Response, Failure> {
    let query = request.query();
    let token = if state.is_setup_token(query.get("token")) { query.get("token").to_owned() } else { String::new() };
    let mut page = Page::new(state, request, None, "Set up");
    // The secret is in the form already; it has no business in other places.
    page.path = "/admin/setup".into();
    Ok(html(&SetUpPage { page, token, user: String::new(), error: None }))
}

pub(super) async fn create_first(state: &State, request: &Request) -> Result<Response, Failure> {
    let form = request.form();
    let (token, user) = (form.get("token"), form.get("user"));
    let again = |token: &str, error: String| {
        let page = Page::new(state, request, None, "Set up");
        let content = SetUpPage { page, token: token.to_owned(), user: user.to_owned(), error: Some(error) };
        let mut response = html(&content);
        *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        response
    };
    if !state.is_setup_token(token) {
        return Ok(again("", "This link is not valid any more.".into()));
    }
    if let Err(why) = users::check_new(user, form.exact("password"), form.exact("repeated")) {
        return Ok(again(token, why));
    }
    let password_hash = state.passwords.hash(form.exact("password").to_owned()).await?;
    // Whoever takes the link first has it; it comes back if nothing was made of it.
    let Some(link) = state.setup.lock().take_if(|hash| bool::from(hash.ct_eq(&hash_of(token)))) else {
        return Ok(again("", "This link is not valid any more.".into()));
    };
    let made = async {
        // Another node may have been quicker.
        if !state.store.superusers().await?.is_empty() {
            return Ok(false);
        }
        let created_at = (state.clock)();
        let (name, password_hash) = (user.to_owned(), password_hash.clone());
        let superuser = Superuser { name, password_hash, disabled: false, created_at, last_login_at: None };
        state.change_account(AccountChange::AddUser(superuser), users::SETUP_LINK).await
    };
    match made.await {
        Ok(true) => {
            tracing::info!(user, "The first superuser was made by the set-up link");
            let mut response = see_other("/admin?notice=welcome");
            state.sign_in(request, user, &password_hash, &mut response).await?;
            Ok(response)
        }
        Ok(false) => Ok(again("", "There is a superuser already. Please sign in.".into())),
        Err(error) => {
            *state.setup.lock() = Some(link);
            Err(error)
        }
    }
}

/// A password as it is typed twice.
pub(super) fn check_password(user: &str, password: &str, repeated: &str) -> Result<(), String> {
    check_strength(user, password).map_err(|why| why.to_string())?;
    if password == repeated { Ok(()) } else { Err("The two passwords differ.".into()) }
}
