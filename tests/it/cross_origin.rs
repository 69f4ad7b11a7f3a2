//! What a front end on another origin can do, in real Chromium; and the code that the README gives.

use std::process::Command;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::packages;
use crate::harness::{Backend, Superuser, TestApp, eventually, in_browser};

/// A site of its own: an empty page at every address. Gives its origin.
async fn site() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Another name, since cookies and "same site" know no ports.
    let origin = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let page = "<!doctype html><html lang=en><title>Shop</title><link rel=icon href=data:,>";
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length";
                let _ = stream.write_all(format!("{head}: {}\r\n\r\n{page}", page.len()).as_bytes()).await;
            });
        }
    });
    origin
}

/// The blocks of code of one language in the README that call the service, made to call `app`.
fn readme(language: &str, app: &TestApp) -> Vec<String> {
    const SERVICE: &str = "http://127.0.0.1:8000";
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let fence = format!("```{language}\n");
    let blocks = readme.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.filter(|block| block.contains(SERVICE)).map(|block| block.replace(SERVICE, &app.url(""))).collect()
}

#[tokio::test]
async fn the_readme_s_code_for_browsers_counts_by_fetch_by_beacon_and_when_the_page_goes_away() {
    let app = TestApp::start(Backend::Sqlite).await;
    let site = site().await;
    let [code] = readme("js", &app).try_into().unwrap();
    in_browser(&app, async |browser| {
        browser.open_url(&format!("{site}/shop")).await;
        let calls = "const done = arguments[0];
            const queued = beacon(['page-view', { event: 'item', count: 3 }]);
            count(['page-view', '', { event: 'item', count: 40 }])
              .then((response) => done([queued, response.accepted, response.rejected]), (error) => done(String(error)));";
        let answer = browser.run_async(&format!("{code}\n{calls}"), vec![]).await;
        assert_eq!(answer, json!([true, 2, 1]));
        browser.open_url(&format!("{site}/elsewhere")).await;
        // A beacon has no answer to wait for.
        let expected = [("item".into(), 43), ("left".into(), 1), ("page-view".into(), 2)].into();
        eventually("the beacons to be counted", async || app.totals().await == expected).await;
    })
    .await;
}

#[tokio::test]
async fn the_readme_s_code_for_shells_and_python_counts() {
    let app = TestApp::start(Backend::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let programs = ["sh", "curl", "gzip", "python3"];
    packages::needed(&["curl", "gzip", "python3-minimal"], || {
        let folders = packages::folders([]);
        programs.iter().all(|program| folders.iter().any(|folder| folder.join(program).is_file())).then_some(())
    });
    let run = |program: &str, code: &str| {
        let mut command = Command::new(program);
        let output = command.args(["-c", code]).current_dir(folder.path()).output().unwrap();
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !said.contains("\"status\":false"), "{code}\n{said}{errors}");
        said.into_owned()
    };
    for code in readme("sh", &app) {
        run("sh", &format!("set -e\n{code}"));
    }
    let [code] = readme("python", &app).try_into().unwrap();
    assert_eq!(run("python3", &code), "{'accepted': 2, 'duplicates': 0, 'rejected': 0, 'errors': []}\n");
    let expected = [("backup".into(), 6), ("login".into(), 10), ("resource/209".into(), 3)].into();
    assert_eq!(app.totals().await, expected);
}

#[tokio::test]
async fn a_page_of_another_origin_counts_in_every_form_and_reads_every_answer() {
    let app = TestApp::start(Backend::Sqlite).await;
    let site = site().await;
    in_browser(&app, async |browser| {
        browser.open_url(&format!("{site}/shop")).await;
        let events = app.url("/api/events");
        let fetched = "const [url, type, body, done] = arguments; \
            fetch(url, { method: 'POST', headers: type ? { 'content-type': type } : {}, body, keepalive: true }) \
            .then(async (answer) => done([answer.status, await answer.json()]), (error) => done(String(error)))";
        for (kind, body) in [
            ("application/json", r#"{"events":["page-view",{"event":"item","count":4}]}"#),
            ("application/x-ndjson", "\"page-view\"\n{\"event\":\"item\",\"count\":5}\n"),
            ("", r#"["page-view"]"#),
        ] {
            let answer = browser.run_async(fetched, vec![events.clone().into(), kind.into(), body.into()]).await;
            assert_eq!((&answer[0], &answer[1]["response"]["rejected"]), (&json!(200), &json!(0)), "{kind}: {answer}");
        }
        let one = app.url("/api/events/item/30");
        let answer = browser.run_async(fetched, vec![one.into(), "".into(), "".into()]).await;
        assert_eq!(answer, json!([200, { "status": true, "response": 204 }]));
        // Errors can be read too.
        browser.allow("status of 400");
        let answer = browser.run_async(fetched, vec![events.into(), "application/json".into(), "[".into()]).await;
        assert_eq!((&answer[0], &answer[1]["status"]), (&json!(400), &json!(false)), "{answer}");
        assert_eq!(app.totals().await, [("item".into(), 39), ("page-view".into(), 3)].into());
    })
    .await;
}

#[tokio::test]
async fn a_page_of_another_site_can_not_use_the_session_of_a_superuser() {
    let app = TestApp::start(Backend::Sqlite).await;
    app.post("/api/events/login?ack=store").await;
    let admin = Superuser::of(&app).await;
    let site = site().await;
    in_browser(&app, async |browser| {
        admin.enter(browser).await;
        browser.open_url(&format!("{site}/trap")).await;
        browser.allow("CORS policy");
        browser.allow("net::ERR_");
        browser.allow("status of 40");
        let fetched = "const [url, options, done] = arguments; \
            fetch(url, { credentials: 'include', ...options }) \
            .then(async (answer) => done(await answer.text()), (error) => done(error.name))";
        for path in ["/admin", "/admin/live.json", "/api/v1/admin/events"] {
            let answer = browser.run_async(fetched, vec![app.url(path).into(), json!({})]).await;
            assert_eq!(answer, "TypeError", "{path} can be read");
        }
        let blind = json!({ "method": "POST", "mode": "no-cors" });
        browser.run_async(fetched, vec![app.url("/admin/events/login/delete").into(), blind]).await;
        // A form needs no permission to be sent.
        let form = "const form = document.createElement('form'); form.method = 'post'; form.action = arguments[0]; \
            document.body.append(form); form.submit()";
        browser.run(form, vec![app.url("/admin/events/login/delete").into()]).await;
        eventually("an answer", async || browser.path().await.starts_with("/admin")).await;
        assert_eq!(app.total("login").await, 1);
    })
    .await;
}
