//! Superusers: add, disable, enable, delete, change a password, sign out everywhere.

use askama::Template;
use hyper::StatusCode;
use warp::reply::Response;

use super::answer::{Failure, html, see_other};
use super::login::check_password;
use super::request::{Parameters, Request, encoded};
use super::session::Who;
use super::view::Page;
use super::{State, USER_NAME_BYTES_MAX};
use crate::store::admin::{AccountChange, Superuser};

/// Who the log says it was where no superuser was signed in.
pub(crate) const COMMAND_LINE: &str = "command line";
pub(super) const SETUP_LINK: &str = "set-up link";

struct Line {
    name: String,
    path: String,
    disabled: bool,
    created: String,
    last_login: String,
    is_me: bool,
}

#[derive(Template)]
#[template(path = "users.html", config = "src/admin/askama.toml")]
struct UsersPage {
    page: Page,
    lines: Vec<Line>,
    error: Option<String>,
    new_name: String,
}

/// # Errors
/// A sentence: why this can't be the name of a superuser.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > USER_NAME_BYTES_MAX {
        return Err(format!("A name has 1 to {USER_NAME_BYTES_MAX} bytes."));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return Err("A name has no control characters, and no spaces around it.".into());
    }
    // The log of changes names others so.
    if name.starts_with("key ") || ["event-tracker", COMMAND_LINE, SETUP_LINK].contains(&name) {
        return Err("The log of changes uses this name for another purpose.".into());
    }
    Ok(())
}

/// # Errors
/// A sentence: why this can't be a new superuser.
pub(super) fn check_new(name: &str, password: &str, repeated: &str) -> Result<(), String> {
    check_name(name)?;
    check_password(name, password, repeated)
}

pub(super) async fn page(state: &State, request: &Request, who: &Who) -> Result<Response, Failure> {
    show(state, request, who, None, "").await
}

async fn show(
    state: &State,
    request: &Request,
    who: &Who,
    error: Option<String>,
    new_name: &str,
) -> Result<Response, Failure> {
    let page = Page::new(state, request, Some(who), "Users");
    let mut users = state.store.superusers().await?;
    users.sort_by(|a, b| a.name.cmp(&b.name));
    let me = who.name();
    let lines = users
        .into_iter()
        .map(|user| Line {
            path: encoded(&user.name),
            disabled: user.disabled,
            created: page.time(&user.created_at),
            last_login: user.last_login_at.map_or_else(|| "never".into(), |at| page.ago(&at)),
            is_me: user.name == me,
            name: user.name,
        })
        .collect();
    let failed = error.is_some();
    let mut response = html(&UsersPage { page, lines, error, new_name: new_name.to_owned() });
    if failed {
        *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    }
    Ok(response)
}

/// `POST /admin/users`
pub(super) async fn add(state: &State, request: &Request, who: &Who) -> Result<Response, Failure> {
    let form = request.form();
    let name = form.get("user");
    if let Err(why) = confirm(state, who, &form).await? {
        return show(state, request, who, Some(why), name).await;
    }
    if let Err(why) = check_new(name, form.exact("password"), form.exact("repeated")) {
        return show(state, request, who, Some(why), name).await;
    }
    let password_hash = state.passwords.hash(form.exact("password").to_owned()).await?;
    let created_at = (state.clock)();
    let user = Superuser { name: name.to_owned(), password_hash, disabled: false, created_at, last_login_at: None };
    if !state.change_account(AccountChange::AddUser(user), &who.name()).await? {
        let why = "There is a superuser of this name already.".to_owned();
        return show(state, request, who, Some(why), name).await;
    }
    tracing::info!(user = name, by = who.name(), "A superuser was added");
    Ok(see_other("/admin/users?notice=user-added"))
}

/// `POST /admin/users/{user}/{action}`
pub(super) async fn change(
    state: &State,
    request: &Request,
    who: &Who,
    user: &str,
    action: &str,
) -> Result<Response, Failure> {
    let user = percent_encoding::percent_decode_str(user).decode_utf8().map_err(|_| Failure::NotFound)?;
    let Who::Superuser { name: me, id_hash } = who else { return Err(Failure::NotFound) };
    let is_me = *user == **me;
    let form = request.form();
    // What only takes away, and can be given back, needs no confirmation: it may be urgent.
    let needs_password = matches!(action, "enable" | "password") || action == "delete" && !is_me;
    if needs_password && let Err(why) = confirm(state, who, &form).await? {
        return show(state, request, who, Some(why), "").await;
    }
    let mut new_hash = String::new();
    let user = user.into_owned();
    let (change, notice) = match action {
        "disable" | "delete" if is_me => {
            return Err(Failure::Refused("Nobody can lock themselves out: ask another superuser.".into()));
        }
        "disable" => (AccountChange::Disable { user: user.clone() }, "user-disabled"),
        "enable" => (AccountChange::Enable { user: user.clone() }, "user-enabled"),
        "delete" => (AccountChange::DeleteUser { user: user.clone() }, "user-deleted"),
        "sign-out" => (AccountChange::SignOut { user: user.clone() }, "signed-out"),
        "password" => {
            if let Err(why) = check_password(&user, form.exact("password"), form.exact("repeated")) {
                return show(state, request, who, Some(why), "").await;
            }
            let password_hash = state.passwords.hash(form.exact("password").to_owned()).await?;
            new_hash.clone_from(&password_hash);
            // One's own session goes on, under a new id.
            let keep = is_me.then_some(*id_hash);
            (AccountChange::SetPassword { user: user.clone(), password_hash, keep }, "password-changed")
        }
        _ => return Err(Failure::NotFound),
    };
    if !state.change_account(change, me).await? {
        return Err(Failure::NotFound);
    }
    tracing::info!(user, by = %me, action, "A superuser was changed");
    let mut response = see_other(&format!("/admin/users?notice={notice}"));
    if action == "password" && is_me {
        state.sign_in(request, me, &new_hash, &mut response).await?;
    }
    Ok(response)
}

/// Who finds an open session must not be able to keep it, by a new password, superuser or key: the
/// form has one's own password once more. Guesses are counted by the session, so that guessing at the
/// login locks nobody out of it.
pub(super) async fn confirm(state: &State, who: &Who, form: &Parameters) -> Result<Result<(), String>, Failure> {
    let Who::Superuser { name: me, id_hash } = who else { return Err(Failure::NotFound) };
    let account = format!("session {}", hex::encode(id_hash));
    state.throttle.begin(&account, None, std::time::Instant::now()).map_err(Failure::Throttled)?;
    let verify = async {
        let known = state.store.superusers().await?.into_iter().find(|known| known.name == *me);
        Ok::<_, Failure>(
            state.passwords.verify(form.exact("current").to_owned(), known.map(|known| known.password_hash)).await?,
        )
    };
    let verified = verify.await;
    if !matches!(verified, Ok(false)) {
        state.throttle.take_back(&account, None);
    }
    Ok(if verified? { Ok(()) } else { Err("Your own password is another one.".into()) })
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_of_superusers_are_short_and_plain() {
        for name in ["ann", "Jürgen Ω", "a@b.example", &"x".repeat(64)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in [
            "key 1 (ci)",
            "event-tracker",
            "command line",
            "set-up link",
            "",
            " ann",
            "ann ",
            "a\nb",
            "a\u{0}",
            &"x".repeat(65),
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
