//! Names that would be code if a page let them.

use serde_json::json;

use super::hours_ago;
use crate::harness::superuser::{PASSWORD, encoded};
use crate::harness::{Backend, Browser, Superuser, TestApp, in_browser};

const NAMES: [&str; 10] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' autofocus onfocus=alert(1) x='",
    "<svg/onload=alert(1)>",
    "</title></textarea></script><script>alert(1)</script>",
    "{\"event\":\"</script><script>alert(1)</script>\"}",
    "javascript:alert(1)//${alert(1)}{{7*7}}",
    "\u{202e}gnirts\u{2066} \u{200f}mirrored",
    "&lt;b&gt; %3Cb%3E ../../etc?x=1#y",
    "👩‍👩‍👧 中文 ünï",
];

/// Opens a page, and insists that no name has become a part of it.
async fn open(browser: &Browser, page: &str) {
    browser.open(page).await;
    let injected = "return [...document.querySelectorAll('script:not([src]), img[src=x], [onload], [onerror], \
                    [onfocus], main b')].map((element) => element.outerHTML)";
    assert_eq!(browser.run(injected, vec![]).await, json!([]), "{page}");
}

#[tokio::test]
async fn names_that_look_like_code_are_shown_as_they_are_on_every_page() {
    let hour = hours_ago(2);
    let rows: Vec<_> = NAMES.iter().map(|name| (&*hour, *name, 5)).collect();
    let app = TestApp::with(Backend::Sqlite).stored(&rows).config("flush.interval_ms", 50).start().await;
    let admin = Superuser::of(&app).await;
    for name in NAMES {
        app.count(&encoded(name), 1).await;
        admin.change(&app, name, "describe", &json!({ "description": name })).await;
        admin.create_key(&app, name).await;
    }
    admin
        .change(&app, NAMES[0], "correct", &json!({ "hour": hour, "expected": 5, "count": 6, "reason": NAMES[1] }))
        .await;
    admin.change(&app, NAMES[3], "move", &json!({ "into": "<b>moved</b>" })).await;
    let added = [("current", PASSWORD), ("user", NAMES[1]), ("password", "nine blue boats on a still lake")];
    let added = admin.submit(&app, "/admin/users", &[&added[..], &[("repeated", added[2].1)]].concat()).await;
    assert_eq!(added.status, 303);

    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        let shown: Vec<_> = NAMES.iter().map(|name| if *name == NAMES[3] { "<b>moved</b>" } else { name }).collect();
        for (page, places) in [
            ("/admin", "#top .name bdi, #new-names bdi"),
            ("/admin/events", "#events .name a bdi"),
            ("/admin/changes", ".log bdi"),
            ("/admin/keys", "#keys .name bdi"),
            ("/admin/users", "#users .name bdi"),
        ] {
            open(browser, page).await;
            let texts = browser.texts(places).await;
            let expected: &[&str] = match page {
                "/admin/users" => &NAMES[1..2],
                "/admin/keys" | "/admin/changes" => &NAMES,
                _ => &shown,
            };
            for name in expected {
                assert!(texts.iter().any(|text| text == name.trim()), "{page} does not show {name}: {texts:#?}");
            }
        }
        for name in NAMES {
            open(browser, &format!("/admin/events?q={}", encoded(name))).await;
            let field = browser.run("return document.querySelector('[name=q]').value", vec![]).await;
            assert_eq!(field, name);
        }
        for name in &shown {
            open(browser, &format!("/admin/events/{}", encoded(name))).await;
            assert_eq!(browser.text("h1 bdi").await, *name);
            // Hovering puts texts in by script.
            browser.run("document.querySelector('#chart-day .plot').focus()", vec![]).await;
            browser.press(thirtyfour::Key::Left).await;
            browser.see(".tip").await;
        }
        browser.allow("status of 404");
        open(browser, &format!("/admin/{}", encoded(NAMES[0]))).await;
        browser.see("#failure").await;
        open(browser, &format!("/admin/login?next={}", encoded("javascript:alert(1)"))).await;
        open(browser, "/admin?notice=%3Cscript%3Ealert(1)%3C%2Fscript%3E").await;
    })
    .await;
}

#[tokio::test]
async fn no_page_is_longer_than_100_kb_however_long_names_and_texts_become_as_html() {
    let hour = hours_ago(2);
    let names: Vec<String> = (100..170).map(|number| format!("{number}{}", "\"".repeat(252))).collect();
    let rows: Vec<_> = names.iter().map(|name| (&*hour, &**name, 5)).collect();
    let app = TestApp::with(Backend::Sqlite).stored(&rows).config("flush.interval_ms", 50).start().await;
    let admin = Superuser::of(&app).await;
    let text = "\"".repeat(1000);
    let label = "\"".repeat(100);
    admin.create_key(&app, &label).await;
    let event = encoded(&names[0]);
    for (number, name) in names.iter().enumerate() {
        // A quarter of them is this one's, under other names.
        match number % 4 {
            1 => admin.change(&app, name, "move", &json!({ "into": names[0] })).await,
            _ => admin.change(&app, name, "describe", &json!({ "description": text })).await,
        };
    }
    let correction = json!({ "hour": hour, "expected": 90 + 5, "count": 7, "reason": text });
    admin.change(&app, &names[0], "correct", &correction).await;
    let pages = [
        "/admin?period=90d&compare=1".to_owned(),
        "/admin/events".to_owned(),
        format!("/admin/events?q={}", "%22".repeat(255)),
        format!("/admin/events/{event}?days=90&compare=1"),
        "/admin/changes".to_owned(),
        format!("/admin/changes?event={event}"),
        format!("/admin/changes?event={}", encoded(&names[2])),
        "/admin/keys".to_owned(),
        "/admin/users".to_owned(),
        "/admin/preferences".to_owned(),
    ];
    let mut long = Vec::new();
    for page in pages {
        let length = admin.page(&app, &page).await.len();
        if length >= 100_000 {
            long.push((length, page));
        }
    }
    assert_eq!(long, [], "bytes");
}
