//! Set-up link, login, logout, superusers and keys.

use crate::harness::superuser::{PASSWORD, USER};
use crate::harness::{Backend, Browser, Superuser, TestApp, eventually, in_browser, in_browser_over_plain_http};

async fn sign_in(browser: &Browser, user: &str, password: &str) {
    browser.fill("#login [name=user]", user).await;
    browser.fill("#login [name=password]", password).await;
    browser.submit("#login button").await;
}

#[tokio::test]
async fn the_set_up_link_makes_the_first_superuser_once_and_after_logout_nothing_is_left_to_see() {
    let app = TestApp::start(Backend::Postgres).await;
    app.count("secret-event", 5).await;
    in_browser(&app, async |browser| {
        let link = app.setup_link().await;
        browser.open("/admin").await;
        assert_eq!(browser.path().await, "/admin/login?next=%2Fadmin");

        browser.open_url(&link).await;
        for (field, text) in [("user", USER), ("password", PASSWORD), ("repeated", "something else")] {
            browser.fill(&format!("#setup [name={field}]"), text).await;
        }
        browser.allow("status of 422");
        browser.submit("#setup button").await;
        browser.shows("#error", "The two passwords differ").await;
        browser.fill("#setup [name=password]", PASSWORD).await;
        browser.fill("#setup [name=repeated]", PASSWORD).await;
        browser.submit("#setup button").await;
        browser.shows("#notice", "Welcome! You are the first superuser.").await;
        browser.open_url(&link).await;
        browser.shows("main", "This set-up link is not valid").await;

        browser.open("/admin/events").await;
        browser.shows("#events", "secret-event").await;
        browser.submit("#logout").await;
        browser.shows("#notice", "You are signed out.").await;
        browser.back().await;
        eventually("the login in place of the page", async || browser.count("#login").await == 1).await;
        assert!(!browser.text("body").await.contains("secret-event"));

        sign_in(browser, USER, "not the password").await;
        browser.shows("#error", "The name or the password is wrong.").await;
        sign_in(browser, USER, PASSWORD).await;
        browser.shows("#events", "secret-event").await;
    })
    .await;
}

#[tokio::test]
async fn the_dashboard_can_be_used_over_plain_http_under_any_host_name() {
    let app = TestApp::start(Backend::Sqlite).await;
    app.count("login", 5).await;
    in_browser_over_plain_http(&app, async |browser| {
        let link = app.setup_link().await;
        let (_, token) = link.split_once("/admin").unwrap();
        browser.open(&format!("/admin{token}")).await;
        for (field, text) in [("user", USER), ("password", PASSWORD), ("repeated", PASSWORD)] {
            browser.fill(&format!("#setup [name={field}]"), text).await;
        }
        browser.submit("#setup button").await;
        browser.shows("#notice", "Welcome! You are the first superuser.").await;
        browser.submit("#logout").await;
        sign_in(browser, USER, PASSWORD).await;
        browser.open("/admin/events").await;
        browser.shows("#events", "login").await;
    })
    .await;
}

#[tokio::test]
async fn who_guesses_passwords_has_to_wait_and_who_is_signed_in_does_not() {
    let app = TestApp::start(Backend::Sqlite).await;
    let admin = Superuser::of(&app).await;
    in_browser(&app, async |browser| {
        browser.allow("status of 422");
        browser.allow("status of 429");
        browser.open("/admin/login").await;
        // Whoever guesses on is told to wait; the first few may be typing errors.
        let mut wrong = 0;
        loop {
            sign_in(browser, USER, "guess").await;
            browser.see("#error").await;
            if browser.text("#error").await.starts_with("Too many attempts. Please try again in ") {
                break;
            }
            wrong += 1;
            assert!(wrong < 20, "guessing goes on and on");
        }
        assert!(wrong >= 5, "only {wrong} errors are forgiven");
        admin.enter(browser).await;
        browser.open("/admin").await;
        browser.see("#logout").await;
    })
    .await;
}

#[tokio::test]
async fn an_account_takes_few_guesses_however_many_come_at_once() {
    let app = TestApp::start(Backend::Sqlite).await;
    let admin = Superuser::of(&app).await;
    for user in [USER, "nobody"] {
        let fields = [("user", user), ("password", "guess")];
        let answers =
            futures_util::future::join_all((0..120).map(|_| admin.submit(&app, "/admin/login", &fields))).await;
        let (tried, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 422);
        assert!(tried.len() < 10, "{} guesses at once", tried.len());
        assert!(refused.iter().all(|answer| answer.status == 429 && !answer.header("retry-after").is_empty()));
    }
}

#[tokio::test]
async fn superusers_add_disable_and_delete_each_other_and_keys_open_the_api_until_they_are_revoked() {
    let app = TestApp::start(Backend::Postgres).await;
    let admin = Superuser::of(&app).await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open("/admin/users").await;
        browser.allow("status of 422");
        let other = "a quiet river under paper clouds";
        for (own, password, expected) in [
            (other, other, "Your own password is another one."),
            (PASSWORD, "password1234", "easy to guess"),
            (PASSWORD, other, "The superuser was added."),
            (PASSWORD, other, "There is a superuser of this name already."),
        ] {
            browser.fill("#add-user [name=user]", "Grace").await;
            browser.fill("#add-user [name=password]", password).await;
            browser.fill("#add-user [name=repeated]", password).await;
            browser.fill("#add-user [name=current]", own).await;
            browser.submit("#add-user button").await;
            browser.shows("#error, #notice", expected).await;
        }
        browser.open("/admin/users").await;
        let row = "#users tr:has(form[action='/admin/users/Grace/disable'])";
        browser.click(&format!("{row} summary")).await;
        browser.submit("form[action='/admin/users/Grace/disable'] button").await;
        browser.shows("#notice", "The superuser is disabled").await;
        assert_eq!(Superuser::sign_in(&app, "Grace", other).await, 422);
        browser.click("#users tr:has(form[action='/admin/users/Grace/enable']) summary").await;
        browser.fill("form[action='/admin/users/Grace/enable'] [name=current]", PASSWORD).await;
        browser.submit("form[action='/admin/users/Grace/enable'] button").await;
        browser.shows("#notice", "The superuser may sign in again.").await;
        assert_eq!(Superuser::sign_in(&app, "Grace", other).await, 303);
        browser.click("#users tr:has(form[action='/admin/users/Grace/delete']) summary").await;
        browser.fill("form[action='/admin/users/Grace/delete'] [name=current]", PASSWORD).await;
        browser.click("form[action='/admin/users/Grace/delete'] [type=checkbox]").await;
        browser.submit("form[action='/admin/users/Grace/delete'] button").await;
        browser.shows("#notice", "The superuser was deleted.").await;
        assert_eq!(browser.count("#users tbody tr").await, 1);

        browser.open("/admin/keys").await;
        browser.fill("#create-key [name=label]", "nightly report").await;
        browser.fill("#create-key [name=current]", PASSWORD).await;
        browser.submit("#create-key button").await;
        browser.see("#secret").await;
        let bearer = format!("Bearer {}", browser.text("#secret").await);
        let status = async || app.get_with("/api/v1/admin/status", &[("authorization", &bearer)]).await;
        assert_eq!(status().await.status, 200);
        browser.open("/admin/keys").await;
        assert_eq!(browser.count("#secret").await, 0, "the secret is shown once");
        browser.submit("#keys tr:nth-child(1) button").await;
        browser.shows("#notice", "The key was revoked.").await;
        status().await.fails(401);
    })
    .await;
}
