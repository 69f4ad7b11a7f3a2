//! `POST /api/events`: every form of a batch, what is rejected, the limits, and counting exactly once.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use event_tracker::batch::{Batches, RecordError};
use event_tracker::domain::{EventName, TOTAL_MAX};
use event_tracker::journal::{self, DataDir};
use event_tracker::names::{Limits, Names};
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::app::parse_hour;
use crate::harness::{Answer, Backend, TestApp, eventually, on_both_stores};

on_both_stores!(
    every_form_of_a_batch_is_counted,
    what_can_t_be_counted_is_listed_and_the_rest_is_counted,
    a_batch_waits_for_what_it_asks,
    kills_lose_no_acknowledged_batch_and_split_none,
);

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const TEXT: &str = "text/plain;charset=UTF-8";

async fn post(app: &TestApp, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
    app.send("POST", "/api/events", &[("content-type", content_type)], body).await
}

/// Checks the envelope; gives `accepted`, `rejected` and the errors.
#[track_caller]
fn outcome(answer: &Answer) -> (u64, u64, Vec<Value>) {
    assert_eq!((answer.status, answer.header("content-type")), (200, JSON), "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["status"], true);
    let response = &body["response"];
    assert_eq!(response.as_object().unwrap().len(), 4, "{body}");
    accounts(response)
}

/// The same of a batch of which nothing was counted.
#[track_caller]
fn nothing_accepted(answer: &Answer) -> Vec<Value> {
    let (internal, _) = answer.fails(400);
    assert!(internal.starts_with("nothing_accepted: "), "{internal}");
    assert_eq!(answer.counted().as_deref(), Some("no"));
    let (accepted, _, errors) = accounts(&answer.json());
    assert_eq!(accepted, 0);
    errors
}

#[track_caller]
fn accounts(response: &Value) -> (u64, u64, Vec<Value>) {
    let number = |key: &str| response[key].as_u64().unwrap();
    assert_eq!(number("duplicates"), 0);
    for error in response["errors"].as_array().unwrap() {
        assert!(error["reason"].as_str().unwrap().starts_with(&format!("{}: ", error["code"].as_str().unwrap())));
    }
    (number("accepted"), number("rejected"), response["errors"].as_array().unwrap().clone())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn every_form_of_a_batch_is_counted(backend: Backend) {
    let app = TestApp::start(backend).await;
    let array = r#"["login",{"event":"login","count":4},{"event":"日 ☃"},{"count":2,"event":"a\/b"}]"#;
    let wrapped = format!("{{\n  \"events\": {array},\n  \"sent\": \"now\"\n}}");
    let spread = format!("{{\"sent\":\"now\",\"events\":{array}}}");
    // Its last element alone on a line, as an item in lines would be.
    let pretty = "{\n  \"sent\": \"now\",\n  \"events\": [\n    {\"event\": \"login\", \"count\": 4},\n    \"login\",\n    \
        {\"count\": 2, \"event\": \"a/b\"},\n    \"日 ☃\"\n  ]\n}\n";
    let lines =
        "\"login\"\n{\"event\":\"login\",\"count\":4}\r\n\n{\"event\":\"日 ☃\"}\n{\"count\":2,\"event\":\"a\\/b\"}";
    let marked = [array, lines].map(|text| format!("\u{feff}{text}"));
    let objects = lines.replacen("\"login\"", "{\"event\":\"login\"}", 1);
    let forms = [
        (JSON, array),
        ("application/json; charset=utf-8", &wrapped),
        (JSON, &spread),
        (LINES, lines),
        ("application/jsonl", lines),
        (TEXT, array),
        (TEXT, &wrapped),
        (TEXT, &spread),
        (JSON, pretty),
        (TEXT, pretty),
        (TEXT, lines),
        (TEXT, &objects),
        (JSON, &marked[0]),
        (TEXT, &marked[0]),
        (LINES, &marked[1]),
        (TEXT, &marked[1]),
        ("application/x-www-form-urlencoded", array),
        ("", lines),
    ];
    for (content_type, body) in forms {
        assert_eq!(outcome(&post(&app, content_type, body).await), (4, 0, vec![]), "{content_type} {body}");
        let encoded = [("content-type", content_type), ("content-encoding", "gzip")];
        let answer = app.send("POST", "/api/events/", &encoded, gzip(body.as_bytes())).await;
        assert_eq!(outcome(&answer), (4, 0, vec![]), "{content_type} {body}, compressed");
    }
    assert_eq!(outcome(&app.send("POST", "/api/events", &[], array).await), (4, 0, vec![]), "no content type");
    for nothing in ["[]", "{\"events\":[]}"] {
        assert_eq!(outcome(&post(&app, JSON, nothing).await), (0, 0, vec![]));
        assert_eq!(outcome(&post(&app, TEXT, nothing).await), (0, 0, vec![]));
    }
    let times = 2 * forms.len() as u64 + 1;
    let expected = [("login", 5), ("日 ☃", 1), ("a/b", 2)];
    assert_eq!(app.totals().await, expected.map(|(event, count)| (event.to_owned(), count * times)).into());
}

async fn what_can_t_be_counted_is_listed_and_the_rest_is_counted(backend: Backend) {
    let stored = [("2020091112", "known", 1), ("2020091112", "full", TOTAL_MAX - 5)];
    let app = TestApp::with(backend).config("limits.events_max", 3).stored(&stored).start().await;
    // What the store holds is learnt in the background.
    eventually("the stored totals to be known", async || {
        app.post("/api/events/full/6").await.status == 409 && app.post("/api/events/known").await.status == 201
    })
    .await;
    let before = app.total("known").await;
    let body = json!([
        "known", "", 7, null, {"event": "known", "count": 0}, {"event": "known", "count": "2"}, {"name": "known"},
        "new", "newer", {"event": "full", "count": 6}, "x".repeat(256), "..", "a\u{0}b", {"event": "known", "count": 10},
        "newer", ["known"], "new",
    ]);
    let (accepted, rejected, errors) = outcome(&post(&app, JSON, body.to_string()).await);
    assert_eq!((accepted, rejected), (4, 13));
    let told = |error: &Value| (error["index"].as_u64().unwrap(), error["reason"].as_str().unwrap().to_owned());
    let told: Vec<_> = errors.iter().map(told).collect();
    let codes: Vec<_> = told.iter().map(|(index, reason)| (*index, reason.split(": ").next().unwrap())).collect();
    let expected = [
        (1, "bad_name"),
        (2, "bad_item"),
        (3, "bad_item"),
        (4, "bad_count"),
        (5, "bad_count"),
        (6, "bad_field"),
        (8, "too_many_events"),
        (9, "total_overflow"),
        (10, "bad_name"),
        (11, "bad_name"),
        (12, "bad_name"),
        (14, "too_many_events"),
        (15, "bad_item"),
    ];
    assert_eq!(codes, expected);
    assert!(told.iter().all(|(_, reason)| reason.len() > 20), "{told:?}");
    assert_eq!(app.total("known").await, before + 11);
    assert_eq!(app.total("new").await, 2);
    assert_eq!(app.total("full").await, TOTAL_MAX - 5);

    // Half an emoji, as `JSON.stringify` writes a text that was cut, and a number beyond all.
    let odd = [r#""known""#, r#""\ud83d""#, r#"{"event":"known","count":1e999}"#, r#""known""#];
    for (content_type, body) in [(JSON, format!("[{}]", odd.join(","))), (LINES, odd.join("\n"))] {
        let (accepted, rejected, errors) = outcome(&post(&app, content_type, body).await);
        assert_eq!((accepted, rejected), (2, 2));
        assert!(errors.iter().all(|error| error["reason"].as_str().unwrap().starts_with("bad_item: ")), "{errors:?}");
    }

    // Lines that are no JSON are rejected one by one, too; of all errors the first hundred are told.
    let lines = "known\n".repeat(150) + "\"known\"\n{\"event\":\"known\"";
    let (accepted, rejected, errors) = outcome(&post(&app, LINES, lines).await);
    assert_eq!((accepted, rejected, errors.len()), (1, 151, 100));
    assert_eq!(errors[99]["index"], 99);
}

async fn a_batch_waits_for_what_it_asks(backend: Backend) {
    let app = TestApp::with(backend).config("flush.interval_ms", 3_600_000).start().await;
    for (ack, in_store) in [("memory", 0), ("journal", 0), ("disk", 0), ("store", 4)] {
        let answer = app.send("POST", &format!("/api/events?ack={ack}"), &[], r#"["login"]"#).await;
        assert_eq!(outcome(&answer), (1, 0, vec![]));
        assert_eq!(app.audit().await, in_store, "{ack}");
    }
    let (internal, _) = app.send("POST", "/api/events?ack=maybe", &[], r#"["login"]"#).await.fails(400);
    assert!(internal.ends_with("; counted: no"), "{internal}");
    assert_eq!(app.total("login").await, 4);
}

/// One client: sends batches that count two events of its own alike, until the program is gone.
#[derive(Clone, Copy, Default, Debug)]
struct Account {
    acknowledged: u64,
    unanswered: u64,
}

async fn kills_lose_no_acknowledged_batch_and_split_none(backend: Backend) {
    let mut app = TestApp::with(backend).config("flush.interval_ms", 10).start().await;
    let accounts: Arc<Mutex<BTreeMap<usize, Account>>> = Arc::default();
    for round in 0..6_u64 {
        let mut clients = JoinSet::new();
        let before: u64 = accounts.lock().values().map(|account| account.acknowledged).sum();
        for number in 0..6_usize {
            let (client, url, accounts) = (app.client(), app.url("/api/events"), Arc::clone(&accounts));
            let mut random = StdRng::seed_from_u64(round * 10 + number as u64);
            clients.spawn(async move {
                loop {
                    let count = random.random_range(1..=1_000_000);
                    let item = |letter| format!("{{\"event\":\"{letter}{number}\",\"count\":{count}}}\n");
                    accounts.lock().entry(number).or_default().unanswered = 3 * count;
                    let body = [item('a'), item('b').repeat(3), item('a'), item('a')].concat();
                    let Ok(answer) = client.post(&url).body(body).send().await else { return };
                    let Ok(answer) = Answer::of(answer).await else { return };
                    assert_eq!(outcome(&answer), (6, 0, vec![]));
                    let mut accounts = accounts.lock();
                    let account = accounts.get_mut(&number).unwrap();
                    (account.acknowledged, account.unanswered) = (account.acknowledged + 3 * count, 0);
                }
            });
        }
        eventually("batches to be counted", async || {
            accounts.lock().values().map(|account| account.acknowledged).sum::<u64>() > before + 100_000_000
        })
        .await;
        app.kill().await;
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        app.restart().await;
        let totals = app.totals().await;
        for (number, account) in accounts.lock().iter_mut() {
            let (a, b) = (totals[&format!("a{number}")], totals[&format!("b{number}")]);
            assert_eq!(a, b, "a batch is counted in part");
            assert!(a == account.acknowledged || a == account.acknowledged + account.unanswered, "{a}: {account:?}");
            *account = Account { acknowledged: a, unanswered: 0 };
        }
    }
    let totals: u64 = app.totals().await.values().sum();
    app.stop().await;
    assert_eq!(app.audit().await, totals);
}

#[tokio::test]
async fn an_item_with_a_field_that_no_item_has_is_refused_and_the_field_is_named() {
    let app = TestApp::start(Backend::Sqlite).await;
    let items = [
        r#""login""#,
        r#"{"event":"login","num":5}"#,
        r#"{"Count":5,"event":"login"}"#,
        r#"{"event":"login","time":1}"#,
    ];
    for (content_type, body) in [(JSON, format!("[{}]", items.join(","))), (LINES, items.join("\n"))] {
        let (accepted, rejected, errors) = outcome(&post(&app, content_type, body).await);
        assert_eq!((accepted, rejected), (1, 3));
        for (error, (index, field)) in errors.iter().zip([(1, "num"), (2, "Count"), (3, "time")]) {
            assert_eq!((&error["index"], &error["code"]), (&json!(index), &json!("bad_field")));
            assert!(error["reason"].as_str().unwrap().contains(&format!("`{field}`")), "{error}");
        }
    }
    assert_eq!(app.total("login").await, 2);
}

#[tokio::test]
async fn a_batch_of_which_nothing_is_accepted_is_400_and_says_why_for_each_item() {
    let app = TestApp::start(Backend::Sqlite).await;
    for (content_type, body) in
        [(JSON, r#"["",{"event":"a","count":0}]"#), (LINES, "\"\"\n{\"event\":\"a\",\"count\":0}")]
    {
        let answer = post(&app, content_type, body).await;
        let errors = nothing_accepted(&answer);
        assert_eq!(errors.iter().map(|error| &error["code"]).collect::<Vec<_>>(), ["bad_name", "bad_count"]);
        assert_eq!(answer.json()["rejected"], 2);
    }
    assert!(app.totals().await.is_empty());
}

#[tokio::test]
async fn a_body_sent_to_a_path_that_says_all_is_refused_and_nothing_is_counted() {
    let app = TestApp::start(Backend::Sqlite).await;
    for target in ["/api/events/login", "/api/events/login/5", "/api/events/login?ack=memory", "/api/events/unique/"] {
        for body in ["{\"count\":5}", "x", " "] {
            let answer = app.send("POST", target, &[("content-type", JSON)], body).await;
            let (internal, _) = answer.fails(400);
            assert!(internal.starts_with("body_not_taken: "), "{internal}");
            assert_eq!(answer.counted().as_deref(), Some("no"));
        }
        let chunked = app
            .client()
            .post(app.url(target))
            .body(reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("5")])));
        Answer::of(chunked.send().await.unwrap()).await.unwrap().fails(400);
    }
    assert!(app.totals().await.is_empty());
    // A body without content is none.
    let empty = app
        .client()
        .post(app.url("/api/events/login"))
        .body(reqwest::Body::wrap_stream(futures_util::stream::iter(Vec::<std::io::Result<&str>>::new())));
    assert_eq!(empty.send().await.unwrap().status(), 201);
    assert_eq!(app.send("POST", "/api/events/login", &[], "").await.status, 201);
    assert_eq!(app.total("login").await, 2);
}

#[tokio::test]
async fn a_body_that_is_no_batch_is_400_and_counts_nothing() {
    let app = TestApp::start(Backend::Sqlite).await;
    for (content_type, body) in [
        (JSON, ""),
        (JSON, "\"login\""),
        (JSON, "{}"),
        (JSON, "{\"event\":\"login\"}"),
        (JSON, "{\"events\":\"login\"}"),
        (JSON, "{\"events\":[\"login\"]"),
        (JSON, "[\"login\""),
        (JSON, "[\"login\",]"),
        (JSON, "[\"login\"]]"),
        (JSON, "[\"login\"]\n[\"login\"]"),
        (JSON, "[\"login\", login]"),
        (JSON, "null"),
        (LINES, ""),
        (LINES, "\n \n"),
        (LINES, "login"),
        (LINES, "login\nlogout\n"),
        (TEXT, ""),
        (TEXT, "login=1&logout=2"),
        (TEXT, "[\"login\""),
        (TEXT, "{\"events\":[\"login\"}"),
        ("", "<events/>"),
    ] {
        let (internal, external) = post(&app, content_type, body).await.fails(400);
        assert!(internal.starts_with("not_a_batch: ") && internal.ends_with("; counted: no"), "{body}: {internal}");
        assert!(external.contains("list of events"), "{external}");
    }
    app.raw("POST", "/api/events").await.fails(400);
    assert!(app.totals().await.is_empty());
}

#[tokio::test]
async fn what_is_not_understood_is_415_and_says_what_is() {
    let app = TestApp::start(Backend::Sqlite).await;
    for content_type in ["text/html", "application/xml", "multipart/form-data; boundary=x", "image/png"] {
        let (internal, _) = post(&app, content_type, "[\"login\"]").await.fails(415);
        assert!(internal.contains("application/json") && internal.ends_with("; counted: no"), "{internal}");
    }
    for encoding in ["br", "deflate", "zstd", "gzip, gzip", "nonsense"] {
        let answer = app.send("POST", "/api/events", &[("content-encoding", encoding)], "[\"login\"]").await;
        answer.fails(415);
        assert_eq!(answer.header("accept-encoding"), "gzip");
    }
    assert!(app.totals().await.is_empty());
}

#[tokio::test]
async fn a_batch_up_to_the_limit_is_counted_and_one_beyond_is_413_and_not_counted() {
    let app = TestApp::with(Backend::Sqlite).config("http.body_bytes_max", 10_000).start().await;
    let fitting = |line: &str| format!("{line}\n").repeat(10_000 / (line.len() + 1));
    let lines = [fitting("\"123456\"").as_bytes(), b" "].concat();
    assert_eq!(lines.len(), 10_000);
    assert_eq!(outcome(&post(&app, LINES, lines.clone()).await).0, 1_111);
    let array = format!("[{}\"x\"]", "\"1234567\",".repeat(999) + "    ");
    assert_eq!(array.len(), 10_000 - 1);
    assert_eq!(outcome(&post(&app, JSON, array.clone()).await).0, 1_000);
    let before = app.totals().await;

    let longer = |body: &[u8]| [body, b" \n"].concat();
    for (content_type, body) in [(LINES, longer(&lines)), (JSON, longer(array.as_bytes())), (TEXT, longer(&lines))] {
        let client = app.client();
        let pieces: Vec<_> = body.chunks(999).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        let chunked = client.post(app.url("/api/events")).header("content-type", content_type).body(chunked);
        let encoded = [("content-type", content_type), ("content-encoding", "gzip")];
        for answer in [
            post(&app, content_type, body.clone()).await,
            Answer::of(chunked.send().await.unwrap()).await.unwrap(),
            app.send("POST", "/api/events", &encoded, gzip(&body)).await,
        ] {
            let (internal, external) = answer.fails(413);
            assert!(internal.contains("10000 bytes (http.body_bytes_max)"), "{internal}");
            assert!(internal.ends_with("; counted: no") && external.contains("10000"), "{internal} {external}");
        }
    }
    assert_eq!(app.totals().await, before);
}

#[tokio::test]
async fn what_all_bodies_together_may_not_hold_is_503_and_not_counted_and_small_ones_are_counted() {
    let app = TestApp::with(Backend::Sqlite).config("http.bodies_bytes_max", 260_000).start().await;
    let items = |bytes: usize, between: &str| vec!["\"login\""; bytes / 8].join(between);
    let forms = |bytes: usize| [(JSON, format!("[{}]", items(bytes, ","))), (LINES, items(bytes, "\n"))];
    for (content_type, large) in forms(300_000) {
        let encoded = [("content-type", content_type), ("content-encoding", "gzip")];
        for refused in [
            post(&app, content_type, large.clone()).await,
            app.send("POST", "/api/events", &encoded, gzip(large.as_bytes())).await,
        ] {
            let (internal, _) = refused.fails(503);
            assert!(internal.starts_with("too_many_bodies: ") && internal.ends_with("; counted: no"), "{internal}");
            assert_eq!(refused.header("retry-after"), "5");
        }
    }
    let mut counted = 0;
    for (content_type, body) in forms(150_000).into_iter().chain(forms(60_000)).cycle().take(12) {
        counted += outcome(&post(&app, content_type, body).await).0;
    }
    let app = Arc::new(app);
    let mut sent = JoinSet::new();
    for (content_type, body) in forms(150_000).into_iter().cycle().take(20) {
        let app = Arc::clone(&app);
        sent.spawn(async move { post(&app, content_type, body).await });
    }
    for answer in sent.join_all().await {
        match answer.status {
            503 => {}
            _ => counted += outcome(&answer).0,
        }
    }
    assert_eq!(app.total("login").await, counted);
    assert_eq!(outcome(&post(&app, LINES, items(150_000, "\n")).await).0, 18_750, "all have given back their room");
}

/// The most memory that the process ever had.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_gzip_bomb_is_413_and_damaged_gzip_is_400() {
    let app = TestApp::start(Backend::Sqlite).await;
    let encoded = [("content-type", LINES), ("content-encoding", "gzip")];
    // Half a megabyte that inflates to 500, and the same in members that each are small.
    let bomb = gzip(&vec![b' '; 500_000_000]);
    assert!(bomb.len() < 1 << 20);
    let members = gzip(&vec![b'\n'; 1_000_000]).repeat(11);
    for bomb in [bomb, members] {
        app.send("POST", "/api/events", &encoded, bomb).await.fails(413);
    }
    let peak = peak_bytes(app.pid());
    assert!(peak < 200_000_000, "nothing is inflated beyond the limit: {peak} bytes");
    // Sent without its length, which would tell.
    let nothings = gzip(b"").repeat(10_485_760 / 20 + 1);
    let pieces: Vec<_> = nothings.chunks(100_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let chunked = app.client().post(app.url("/api/events")).header("content-encoding", "gzip");
    let chunked = chunked.body(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)));
    Answer::of(chunked.send().await.unwrap()).await.unwrap().fails(413);
    let whole = gzip(b"\"login\"\n");
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let trailing = [whole.as_slice(), b"\"login\"\n"].concat();
    for damaged in [b"\"login\"\n".to_vec(), whole[..whole.len() - 1].to_vec(), whole[..12].to_vec(), flipped, trailing]
    {
        let (internal, _) = app.send("POST", "/api/events", &encoded, damaged).await.fails(400);
        assert!(internal.starts_with("bad_gzip: ") && internal.ends_with("; counted: no"), "{internal}");
    }
    assert!(app.totals().await.is_empty());
    let members = [whole.as_slice(), &whole].concat();
    assert_eq!(outcome(&app.send("POST", "/api/events", &encoded, members).await), (2, 0, vec![]));
}

#[tokio::test]
async fn large_batches_of_many_names_are_counted_in_each_form() {
    let app = TestApp::start(Backend::Sqlite).await;
    let names: Vec<String> = (0..100_000).map(|number| format!("name-{}", number % 30_000)).collect();
    let lines = names.iter().map(|name| format!("{{\"event\": \"{name}\", \"count\": 3}}\n")).collect::<String>();
    assert_eq!(outcome(&post(&app, JSON, json!(names).to_string()).await), (100_000, 0, vec![]));
    assert_eq!(outcome(&post(&app, LINES, lines).await), (100_000, 0, vec![]));
    let totals = app.totals().await;
    assert_eq!((totals.len(), totals.values().sum::<u64>(), totals["name-7"]), (30_000, 400_000, 16));
}

#[test]
fn increments_recorded_together_are_one_record_and_refused_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = journal::Options::default();
    let recover = || {
        let folder = DataDir::lock(dir.path()).unwrap();
        let names = Arc::new(Names::new(Limits { events_max: 100 }));
        let (batches, recovered) = Batches::recover(&folder, options, names).unwrap();
        (folder, batches, recovered)
    };
    let names: Vec<_> = (0..110).map(|number| EventName::parse(&format!("name-{number}")).unwrap()).collect();
    let (folder, batches, _) = recover();
    let hour = parse_hour("2020091112");
    let recorded = batches.record_all(hour, names.iter().map(|name| (name, 2))).unwrap();
    assert!(recorded.ticket.is_some());
    let refused: Vec<_> = (100..110).map(|number| (number, RecordError::TooManyEvents)).collect();
    assert_eq!(recorded.refused, refused);
    assert_eq!(batches.record_all(hour, names[100..].iter().map(|name| (name, 2))).unwrap().ticket, None);
    batches.journal().write_all().unwrap();
    drop((folder, batches));
    let (_, _, recovered) = recover();
    assert_eq!((recovered.records, recovered.counts), (1, 200));
}
