//! Who is let in where.

use chrono::TimeDelta;
use hyper::Method;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, SET_COOKIE};

use super::harness::{Answer, Browser, Dashboard};
use crate::admin::answer::POLICY;
use crate::admin::routes::{Access, ROUTES, Verb};
use crate::admin::{CookieSecure, Options};
use crate::store::admin::AccountChange;

/// Every route of the table that needs somebody, with its braces filled in, and what does not exist.
fn guarded() -> Vec<(Method, String, Access)> {
    let routes = ROUTES.iter().filter(|route| route.access != Access::Open).map(|route| {
        let method = if route.verb == Verb::Get { Method::GET } else { Method::POST };
        let path = route.path.replace("{event}", "login").replace("{action}", "delete").replace("{user}", "ann");
        (method, path.replace("{change}", "1").replace("{key}", "1"), route.access)
    });
    let unknown = [("/admin/nothing", Access::Page), ("/api/v1/admin/nothing", Access::Program)];
    let unknown = unknown.map(|(path, access)| (Method::GET, path.to_owned(), access));
    let wrong_method = [(Method::POST, "/admin/events".to_owned(), Access::Page)];
    routes.chain(unknown).chain(wrong_method).collect()
}

async fn assert_shut(browser: &mut Browser, why: &str) {
    let cookies = browser.cookies.clone();
    for (method, path, access) in guarded() {
        browser.cookies.clone_from(&cookies);
        let answer = browser.send(method.clone(), &path, String::new()).await;
        if access == Access::Program {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path} {why}");
            assert_eq!(answer.json()["response"], 401, "{method} {path}");
        } else {
            assert_eq!(answer.status, StatusCode::SEE_OTHER, "{method} {path} {why}");
            assert!(answer.location().starts_with("/admin/login?next="), "{method} {path}");
        }
        assert_sealed(&answer);
    }
}

fn assert_sealed(answer: &Answer) {
    assert_eq!(answer.header(CONTENT_SECURITY_POLICY), POLICY);
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("referrer-policy"), "same-origin");
    assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
    assert_eq!(answer.header(CACHE_CONTROL), "no-store");
}

#[tokio::test]
async fn nothing_is_open_without_with_an_expired_a_forged_or_an_ended_session() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    dashboard.count("login", 1).await;
    assert_shut(&mut dashboard.browser(), "without a session").await;

    let mut forged = dashboard.browser();
    forged.cookies = vec![("session".into(), "A".repeat(43))];
    assert_shut(&mut forged, "with a forged session").await;

    let mut idle = dashboard.signed_in("ann").await;
    assert_eq!(idle.get("/admin").await.status, StatusCode::OK);
    dashboard.pass(TimeDelta::hours(12) + TimeDelta::minutes(2));
    assert_shut(&mut idle, "after 12 idle hours").await;

    let mut old = dashboard.signed_in("ann").await;
    for _ in 0..7 * 24 {
        assert_eq!(old.get("/admin/users").await.status, StatusCode::OK);
        dashboard.pass(TimeDelta::hours(1));
    }
    assert_shut(&mut old, "after 7 days").await;

    let mut ended = dashboard.signed_in("ann").await;
    let stolen = ended.cookies.clone();
    ended.post("/admin/logout", &[]).await;
    assert!(ended.cookies.iter().all(|(name, _)| name != "session"), "the browser forgets the cookie");
    ended.cookies = stolen;
    assert_shut(&mut ended, "after the logout").await;

    let mut disabled = dashboard.signed_in("ann").await;
    dashboard.account(AccountChange::Disable { user: "ann".into() }).await;
    assert_shut(&mut disabled, "of a disabled superuser").await;
}

#[tokio::test]
async fn keys_open_the_api_and_nothing_else_until_they_expire_or_are_revoked() {
    let dashboard = Dashboard::open().await;
    dashboard.count("login", 1).await;
    let now = *dashboard.now.lock();
    let (id, secret) = dashboard.add_key(Some(now + TimeDelta::hours(2))).await;
    let mut program = dashboard.browser().without_origin();
    program.headers.push(("authorization", format!("Bearer {secret}")));
    assert_eq!(program.get("/api/v1/admin/events").await.json()["response"]["found"], 1);
    assert_eq!(program.get("/admin").await.status, StatusCode::SEE_OTHER);
    let changed = program.post("/api/v1/admin/events/login/describe", &[("description", "people come")]).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    let changes = program.get("/api/v1/admin/changes").await.json();
    assert_eq!(changes["response"][0]["who"], format!("key {id} (a test)"));

    dashboard.pass(TimeDelta::hours(1));
    let (_, other) = dashboard.add_key(None).await;
    dashboard.account(AccountChange::RevokeKey { id }).await;
    assert_shut(&mut program, "with a revoked key").await;
    program.headers = vec![("authorization", format!("bearer {other}"))];
    assert_eq!(program.get("/api/v1/admin/status").await.status, StatusCode::OK);
    program.headers = vec![("authorization", format!("Bearer {other}x"))];
    assert_shut(&mut program, "with a wrong key").await;
}

#[tokio::test]
async fn a_session_changes_nothing_for_pages_of_other_sites() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    dashboard.count("login", 1).await;
    let browser = dashboard.signed_in("ann").await;
    for (name, value) in
        [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site"), ("origin", "")]
    {
        let mut tricked = dashboard.browser();
        tricked.cookies.clone_from(&browser.cookies);
        tricked.headers = vec![(name, value.to_owned())];
        for (method, path, _) in guarded().into_iter().filter(|(method, ..)| method == Method::POST) {
            let answer = tricked.send(method, &path, String::new()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {name} {value}");
        }
        for path in ["/admin/login", "/admin/setup"] {
            assert_eq!(tricked.post(path, &[]).await.status, StatusCode::FORBIDDEN, "{path}");
        }
    }
    assert!(dashboard.store.catalog().await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn every_answer_carries_the_headers_and_only_assets_may_be_kept() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    dashboard.count("login", 1).await;
    let mut browser = dashboard.signed_in("ann").await;
    for (method, path, _) in guarded().into_iter().filter(|(method, ..)| method == Method::GET) {
        assert_sealed(&browser.send(method, &path, String::new()).await);
    }
    let page = browser.get("/admin/events").await.body;
    let assets: Vec<&str> = page.split('"').filter(|part| part.starts_with("/admin/assets/")).collect();
    assert!(assets.len() >= 3, "{page}");
    for asset in assets {
        let answer = dashboard.browser().get(asset).await;
        assert_eq!(answer.status, StatusCode::OK, "{asset}");
        assert_eq!(answer.header(CACHE_CONTROL), "public, max-age=31536000, immutable");
        assert_eq!(answer.header(CONTENT_SECURITY_POLICY), POLICY);
    }
    assert_eq!(browser.get("/admin/assets/dashboard.css").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_session_cookie_is_for_this_host_only_and_for_tls_where_there_is_some() {
    let cookie_of = async |secure: CookieSecure, trust_proxy: bool, proto: &str| {
        let options = Options { cookie_secure: secure, trust_proxy, ..Options::default() };
        let dashboard = Dashboard::with(options).await;
        dashboard.add_user("ann").await;
        let mut browser = dashboard.browser();
        browser.headers.push(("x-forwarded-proto", proto.to_owned()));
        let fields = [("user", "ann"), ("password", super::harness::PASSWORD)];
        let answer = browser.post("/admin/login", &fields).await;
        assert_eq!(browser.get("/admin").await.status, StatusCode::OK, "the cookie works");
        let cookie = answer.header(SET_COOKIE).to_owned();
        assert!(cookie.contains("; Path=/; "), "{cookie}");
        assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
        assert!(!cookie.to_lowercase().contains("domain"), "{cookie}");
        cookie
    };
    let is_secure = |cookie: &str| {
        assert_eq!(cookie.starts_with("__Host-session="), cookie.contains("; Secure; "), "{cookie}");
        cookie.contains("; Secure; ")
    };
    assert!(!is_secure(&cookie_of(CookieSecure::Auto, false, "https").await), "nobody vouches for the header");
    assert!(is_secure(&cookie_of(CookieSecure::Auto, true, "https").await));
    assert!(!is_secure(&cookie_of(CookieSecure::Auto, true, "http").await));
    assert!(is_secure(&cookie_of(CookieSecure::Always, false, "").await));
    assert!(!is_secure(&cookie_of(CookieSecure::Never, true, "https").await));
}

#[tokio::test]
async fn a_link_from_another_site_finds_the_session_by_a_step_of_our_own() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    let mut browser = dashboard.signed_in("ann").await;
    let cookies = std::mem::take(&mut browser.cookies);
    browser.headers.push(("sec-fetch-site", "cross-site".into()));
    let login = browser.get("/admin/events?q=x").await.location().to_owned();
    let page = browser.get(&login).await.body;
    let target = page.split("href=\"").nth(1).unwrap().split('"').next().unwrap().replace("&#38;", "&");
    browser.headers = vec![("sec-fetch-site", "same-origin".into())];
    browser.cookies = cookies;
    assert_eq!(browser.get(&target).await.location(), "/admin/events?q=x");
    // Without a session it ends at the form, however one got there.
    browser.cookies.clear();
    browser.headers = vec![("sec-fetch-site", "cross-site".into())];
    assert!(browser.get(&target).await.body.contains("name=\"password\""));
}

#[tokio::test]
async fn a_login_leads_to_pages_of_ours_only() {
    let dashboard = Dashboard::open().await;
    dashboard.add_user("ann").await;
    for (next, to) in [
        ("/admin/events/a%2Fb?day=2024-05-01", "/admin/events/a%2Fb?day=2024-05-01"),
        ("https://evil.example/admin", "/admin"),
        ("//evil.example/admin", "/admin"),
        ("/admin\\@evil.example", "/admin"),
        ("/admin.evil.example", "/admin"),
        ("/admin/x\r\nset-cookie: a=b", "/admin"),
    ] {
        let fields = [("user", "ann"), ("password", super::harness::PASSWORD), ("next", next)];
        assert_eq!(dashboard.browser().post("/admin/login", &fields).await.location(), to, "{next}");
    }
}
