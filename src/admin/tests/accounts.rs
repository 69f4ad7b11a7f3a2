//! Signing in, the first superuser, passwords and sessions.

use hyper::StatusCode;
use hyper::header::RETRY_AFTER;

use super::harness::{Dashboard, PASSWORD};
use crate::store::admin::AccountChange;

fn token_of(link: &str) -> String {
    link.split_once("token=").unwrap().1.to_owned()
}

#[tokio::test]
async fn the_set_up_link_makes_one_superuser_and_signs_in() {
    let dashboard = Dashboard::open().await;
    let link = dashboard.state.setup_link("0.0.0.0:8000".parse().unwrap()).await.unwrap().unwrap();
    assert!(link.starts_with("http://127.0.0.1:8000/admin/setup?token="), "{link}");
    let token = token_of(&link);
    let mut browser = dashboard.browser();
    assert!(browser.get(&format!("/admin/setup?token={token}")).await.body.contains("id=\"setup\""));
    assert!(!browser.get("/admin/setup?token=x").await.body.contains("id=\"setup\""));

    let fields = |password: &'static str| {
        [("token", token.clone()), ("user", "ann".into()), ("password", password.into()), ("repeated", password.into())]
    };
    let as_str = |fields: &[(&'static str, String); 4]| fields.clone();
    let weak = as_str(&fields("passwordpassword"));
    let weak: Vec<_> = weak.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(browser.post("/admin/setup", &weak).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let good = fields(PASSWORD);
    let good: Vec<_> = good.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(browser.post("/admin/setup", &good).await.location(), "/admin?notice=welcome");
    assert_eq!(browser.get("/admin").await.status, StatusCode::OK);

    let mut second: Vec<_> = good.clone();
    second[1].1 = "eve";
    assert_eq!(dashboard.browser().post("/admin/setup", &second).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(dashboard.store.superusers().await.unwrap().len(), 1);
    assert_eq!(dashboard.state.setup_link("127.0.0.1:1".parse().unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn a_set_up_link_is_worth_nothing_once_there_is_a_superuser() {
    let dashboard = Dashboard::open().await;
    let link = dashboard.state.setup_link("127.0.0.1:1".parse().unwrap()).await.unwrap().unwrap();
    dashboard.add_user("ann").await;
    let token = token_of(&link);
    let fields = [("token", &*token), ("user", "eve"), ("password", PASSWORD), ("repeated", PASSWORD)];
    assert_eq!(dashboard.browser().post("/admin/setup", &fields).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(dashboard.store.superusers().await.unwrap().len(), 1);
}

#[tokio::test]
async fn nothing_tells_a_wrong_name_from_a_wrong_password_or_a_disabled_account() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    dashboard.add_user("off").await;
    dashboard.account(AccountChange::Disable { user: "off".into() }).await;
    let mut answers = Vec::new();
    for (user, password) in [("ann", "wrong-wrong-wrong"), ("nobody", "wrong-wrong-wrong"), ("off", PASSWORD)] {
        let answer = dashboard.browser().post("/admin/login", &[("user", user), ("password", password)]).await;
        answers.push((answer.status, answer.body.replace(&format!("value=\"{user}\""), "value=\"\"")));
    }
    assert_eq!(answers[0].0, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
}

#[tokio::test]
async fn too_many_attempts_have_to_wait_but_working_sessions_go_on() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    let mut working = dashboard.signed_in("ann").await;
    let mut attacker = dashboard.browser();
    for _ in 0..5 {
        let answer = attacker.post("/admin/login", &[("user", "ann"), ("password", "wrong")]).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let answer = attacker.post("/admin/login", &[("user", "ann"), ("password", PASSWORD)]).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(!answer.header(RETRY_AFTER).is_empty());
    assert_eq!(working.get("/admin").await.status, StatusCode::OK);
    let fields = [("current", PASSWORD), ("password", "brave-copper-7-window"), ("repeated", "brave-copper-7-window")];
    let answer = working.post("/admin/users/ann/password", &fields).await;
    assert_eq!(answer.location(), "/admin/users?notice=password-changed");
    // Who has found an open session does not guess without end either.
    let guess = [("current", "wrong"), ("password", PASSWORD), ("repeated", PASSWORD)];
    for _ in 0..5 {
        let answer = working.post("/admin/users/ann/password", &guess).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(working.post("/admin/users/ann/password", &guess).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_login_whose_password_is_changed_while_it_waits_begins_no_session() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    let mut late = dashboard.browser();
    let fields = [("user", "ann"), ("password", PASSWORD)];
    let login = async {
        // Both wait for the one thread that hashes: the login has read what the password was.
        late.post("/admin/login", &fields).await
    };
    let change = async {
        let (user, password_hash) = ("ann".into(), "another".into());
        dashboard.account(AccountChange::SetPassword { user, password_hash, keep: None }).await;
    };
    let (answer, ()) = tokio::join!(login, change);
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.body);
    assert_eq!(late.get("/admin").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_login_begins_a_session_of_a_new_id_and_ends_the_former() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    let mut browser = dashboard.signed_in("ann").await;
    let first = browser.cookies.clone();
    browser.post("/admin/login", &[("user", "ann"), ("password", PASSWORD)]).await;
    assert_ne!(browser.cookies, first);
    browser.cookies = first;
    assert_eq!(browser.get("/admin").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_new_password_needs_the_old_one_and_ends_all_other_sessions() {
    const NEW: &str = "brave-copper-7-window";
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    let (mut mine, mut other) = (dashboard.signed_in("ann").await, dashboard.signed_in("ann").await);
    let path = "/admin/users/ann/password";
    let wrong = [("current", "wrong"), ("password", NEW), ("repeated", NEW)];
    assert_eq!(mine.post(path, &wrong).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let differ = [("current", PASSWORD), ("password", NEW), ("repeated", "brave-copper-7-windox")];
    assert_eq!(mine.post(path, &differ).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let right = [("current", PASSWORD), ("password", NEW), ("repeated", NEW)];
    assert_eq!(mine.post(path, &right).await.location(), "/admin/users?notice=password-changed");
    assert_eq!(mine.get("/admin").await.status, StatusCode::OK);
    assert_eq!(other.get("/admin").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn superusers_are_added_signed_out_disabled_and_deleted_but_nobody_locks_themselves_out() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    let mut ann = dashboard.signed_in("ann").await;
    let fields = [("user", "Jürgen <b>"), ("password", PASSWORD), ("repeated", PASSWORD)];
    assert_eq!(ann.confirm("/admin/users", &fields).await.location(), "/admin/users?notice=user-added");
    assert_eq!(
        ann.confirm("/admin/users", &fields).await.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "the name is taken"
    );
    assert!(ann.get("/admin/users").await.body.contains("Jürgen &#60;b&#62;"));

    let path = "/admin/users/J%C3%BCrgen%20%3Cb%3E";
    let mut other = dashboard.signed_in("Jürgen <b>").await;
    ann.post(&format!("{path}/sign-out"), &[]).await;
    assert_eq!(other.get("/admin").await.status, StatusCode::SEE_OTHER);
    let mut other = dashboard.signed_in("Jürgen <b>").await;
    ann.post(&format!("{path}/disable"), &[]).await;
    assert_eq!(other.get("/admin").await.status, StatusCode::SEE_OTHER);
    ann.confirm(&format!("{path}/enable"), &[]).await;
    dashboard.signed_in("Jürgen <b>").await;
    assert_eq!(ann.confirm(&format!("{path}/delete"), &[]).await.location(), "/admin/users?notice=user-deleted");
    assert_eq!(ann.confirm(&format!("{path}/delete"), &[]).await.status, StatusCode::NOT_FOUND);

    for action in ["disable", "delete"] {
        assert_eq!(ann.post(&format!("/admin/users/ann/{action}"), &[]).await.status, StatusCode::CONFLICT);
    }
    assert_eq!(ann.get("/admin").await.status, StatusCode::OK);
}

#[tokio::test]
async fn whoever_finds_an_open_session_lets_nobody_in_without_the_password() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    dashboard.add_user("off").await;
    dashboard.account(AccountChange::Disable { user: "off".into() }).await;
    let before = dashboard.store.changes(vec![], None, 1).await.unwrap()[0].change;
    let passwords = [("password", "brave-copper-7-window"), ("repeated", "brave-copper-7-window")];
    let new = [&[("user", "eve")][..], &passwords].concat();
    for (path, fields) in [
        ("/admin/users", &new[..]),
        ("/admin/users/off/password", &passwords),
        ("/admin/users/off/enable", &[]),
        ("/admin/users/off/delete", &[]),
        ("/admin/keys", &[("label", "x"), ("days", "30")]),
    ] {
        let mut found = dashboard.signed_in("ann").await;
        for guess in [&[][..], &[("current", "wrong")]] {
            let answer = found.post(path, &[fields, guess].concat()).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
            assert!(answer.body.contains("Your own password is another one."), "{path}: {}", answer.body);
        }
        for _ in 2..5 {
            found.post(path, fields).await;
        }
        assert_eq!(found.confirm(path, fields).await.status, StatusCode::TOO_MANY_REQUESTS, "{path}");
    }
    assert_eq!(dashboard.store.changes(vec![], None, 1).await.unwrap()[0].change, before, "nothing was changed");
}

#[tokio::test]
async fn a_keys_secret_is_shown_once() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    let mut ann = dashboard.signed_in("ann").await;
    let made = ann.confirm("/admin/keys", &[("label", "deploys"), ("days", "30")]).await;
    let secret = made.body.split("id=\"secret\">").nth(1).unwrap().split('<').next().unwrap().to_owned();
    assert!(secret.starts_with("etk_") && secret.len() == 47, "{secret}");
    assert!(!ann.get("/admin/keys").await.body.contains(&secret));
    let mut program = dashboard.browser().without_origin();
    program.headers.push(("authorization", format!("Bearer {secret}")));
    assert_eq!(program.get("/api/v1/admin/status").await.status, StatusCode::OK);
    let id = dashboard.store.admin_keys().await.unwrap()[0].id;
    ann.post(&format!("/admin/keys/{id}/revoke"), &[]).await;
    assert_eq!(program.get("/api/v1/admin/status").await.status, StatusCode::UNAUTHORIZED);
}
