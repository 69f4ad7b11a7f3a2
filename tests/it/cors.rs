//! Pages of other sites: which may read answers, on every status, and what a browser asks first.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::answer::raw;
use crate::harness::{Answer, Backend, TestApp};

const SHOP: &str = "https://shop.example";

fn is_shared(answer: &Answer) -> bool {
    answer.headers.keys().any(|name| name.starts_with("access-control-"))
}

async fn asked(app: &TestApp, method: &str, target: &str, more: &[(&str, &str)], body: &str) -> Answer {
    app.send(method, target, &[&[("origin", SHOP)], more].concat(), body).await
}

/// Method, target, headers, body, and the status of the answer.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16);

/// Each from another part of the service.
const ANSWERS: [Case<'static>; 22] = [
    ("POST", "/api/events/login", &[], "", 201),
    ("POST", "/api/events/login/5", &[], "", 200),
    ("POST", "/api/events/login", &[], "a body", 400),
    ("POST", "/api/events/login?ack=store", &[], "", 201),
    ("POST", "/api/events", &[], "[\"login\"]", 200),
    ("POST", "/api/events", &[], "[", 400),
    ("POST", "/api/events", &[], "", 400),
    ("POST", "/api/events", &[("content-type", "text/html")], "x", 415),
    ("POST", "/api/events", &[], "login=1&logout=2", 400),
    ("POST", "/api/events/login?ack=no", &[], "", 400),
    ("POST", "/api/events/%00", &[], "", 403),
    ("POST", "/api/events/login/0", &[], "", 404),
    ("GET", "/api/events?start_date=20200101&end_date=20200102", &[], "", 200),
    ("GET", "/api/events?start_date=20200101", &[], "", 400),
    ("GET", "/api/events/unique", &[], "", 200),
    ("GET", "/api/events/unique", &[("if-none-match", "*")], "", 304),
    ("GET", "/api/events/histogram/login/20200911?format=svg", &[], "", 200),
    ("GET", "/nothing", &[], "", 404),
    ("DELETE", "/api/events/unique", &[], "", 405),
    ("GET", "/readyz", &[], "", 200),
    ("GET", "/api/v1/nodes", &[], "", 200),
    ("GET", "/api/v1/nodes/x", &[], "", 404),
];

#[tokio::test]
async fn any_page_may_read_every_answer_without_credentials() {
    let app = TestApp::with(Backend::Sqlite).config("http.body_bytes_max", 1024).start().await;
    let too_long = "x".repeat(1025);
    let too_long: [Case<'_>; 2] =
        [("POST", "/api/events", &[], &too_long, 413), ("POST", "/api/events/login", &[], &too_long, 413)];
    for (method, target, headers, body, status) in ANSWERS.into_iter().chain(too_long) {
        let answer = asked(&app, method, target, headers, body).await;
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{method} {target}");
        assert!(answer.header("access-control-expose-headers").contains("etag"), "{method} {target}");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
        assert!(!answer.header("vary").contains("origin"));
        if body.len() < 1025 {
            let plain = app.send(method, target, headers, body).await;
            // A cache that has a read keeps it for pages, too.
            assert_eq!(is_shared(&plain), method != "POST", "{method} {target} without an origin: {plain:?}");
        }
    }
}

#[tokio::test]
async fn exact_origins_may_read_and_others_may_not_and_caches_keep_them_apart() {
    let origins = format!("{SHOP}, http://localhost:3000");
    let app = TestApp::with(Backend::Sqlite).config("http.cors_origins", origins).start().await;
    for (method, target, headers, body, status) in ANSWERS {
        let answer = asked(&app, method, target, headers, body).await;
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), SHOP);
        assert!(answer.header("vary").contains("origin"), "{method} {target}: {answer:?}");
    }
    for origin in ["https://shop.example:444", "http://shop.example", "https://shop.example.evil", "null", "*"] {
        let answer = app.get_with("/api/events/unique", &[("origin", origin)]).await;
        assert_eq!((answer.status, is_shared(&answer), answer.header("vary")), (200, false, "origin"), "{origin}");
    }
    // A cache that has this one must not give it to a page.
    assert_eq!(app.get("/api/events/unique").await.header("vary"), "origin");
    let refused = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    assert!(!is_shared(&app.send("OPTIONS", "/api/events", &refused, "").await));
    assert_eq!(
        app.get_with("/livez", &[("origin", "http://localhost:3000")]).await.header("access-control-allow-origin"),
        "http://localhost:3000"
    );

    let closed = TestApp::with(Backend::Sqlite).config("http.cors_origins", "").start().await;
    assert!(!is_shared(&asked(&closed, "GET", "/api/events/unique", &[], "").await));
}

#[tokio::test]
async fn a_preflight_is_answered_for_a_day() {
    let app = TestApp::start(Backend::Sqlite).await;
    for target in ["/api/events", "/api/events/", "/api/events/login", "/api/events/unique", "/livez", "/nothing"] {
        let preflight = [("access-control-request-method", "POST"), ("access-control-request-headers", "content-type")];
        let answer = asked(&app, "OPTIONS", target, &preflight, "").await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{target}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("access-control-max-age"), "86400");
        for method in ["GET", "POST"] {
            assert!(answer.header("access-control-allow-methods").contains(method));
        }
        for header in ["content-type", "if-none-match", "content-encoding"] {
            assert!(answer.header("access-control-allow-headers").contains(header));
        }
    }
}

#[tokio::test]
async fn options_tells_the_methods_of_a_path() {
    let app = TestApp::start(Backend::Sqlite).await;
    for (target, allow) in [
        ("/api/events", "GET, HEAD, OPTIONS, POST"),
        ("/api/events/login", "OPTIONS, POST"),
        ("/api/events/unique", "GET, HEAD, OPTIONS, POST"),
        ("/livez", "GET, HEAD, OPTIONS"),
        ("/api/v1/nodes", "GET, HEAD, OPTIONS"),
    ] {
        let answer = app.send("OPTIONS", target, &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (204, allow), "{target}");
    }
    app.send("OPTIONS", "/nothing", &[], "").await.fails(404);
}

#[tokio::test]
async fn the_admin_pages_are_never_shared() {
    let app = TestApp::start(Backend::Sqlite).await;
    for target in ["/admin", "/admin/", "/admin/login"] {
        let preflight = [("access-control-request-method", "POST")];
        assert!(!is_shared(&asked(&app, "GET", target, &[], "").await), "{target}");
        assert!(!is_shared(&asked(&app, "POST", target, &[], "x").await), "{target}");
        assert!(!is_shared(&asked(&app, "OPTIONS", target, &preflight, "").await), "{target}");
    }
}

#[tokio::test]
async fn a_page_may_read_that_there_are_too_many_connections() {
    for (origins, expected) in [("*", "*"), (SHOP, SHOP), ("https://a.example,https://b.example", "")] {
        let app = TestApp::with(Backend::Sqlite).config("http.cors_origins", origins).config("http.connections_max", 2);
        let app = app.start().await;
        // Busy ones: those that are idle would make room.
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut busy = TcpStream::connect(app.address()).await.unwrap();
            let request = "POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
            busy.write_all(request.as_bytes()).await.unwrap();
            busy.read_exact(&mut [0; 25]).await.unwrap();
            held.push(busy);
        }
        let refused = loop {
            let answer = raw(app.address(), "GET", b"/livez", &[("origin", SHOP)]).await;
            if answer.status == 503 {
                break answer;
            }
        };
        assert_eq!(refused.header("access-control-allow-origin"), expected, "{refused:?}");
    }
}

#[tokio::test]
async fn an_origin_that_no_browser_sends_is_refused_at_start() {
    for wrong in [
        "shop.example",
        "https://shop.example/",
        "https://Shop.example",
        "https://shop.example:443",
        "null",
        "*,https://a.example",
    ] {
        let app = TestApp::with(Backend::Sqlite).config("http.cors_origins", wrong).build().await;
        let output = app.run(&["print-config"]).await;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && complaint.contains("http.cors_origins"), "{wrong}: {complaint}");
        assert!(complaint.contains("expected [\"*\"], or a list of origins"), "{complaint}");
    }
    let app = TestApp::with(Backend::Sqlite).config("http.cors_origins", SHOP).build().await;
    let output = app.run(&["print-config"]).await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("[\"https://shop.example\"]"), "{output:?}");
}
