//! Requests that are none, or not for us: refused in the envelope, whoever finds out, and nothing is counted.

use super::*;

impl Served {
    async fn counts_nothing(&self) {
        assert_eq!(self.ask(&get("/api/events/unique")).await.json()["response"], serde_json::json!([]));
    }
}

#[tokio::test]
async fn targets_that_are_no_path_are_refused_in_the_envelope() {
    let served = serve(defaults()).await;
    for line in ["CONNECT example.org:443", "GET ftp://example.org/livez", "OPTIONS *", "CONNECT /livez"] {
        let answer = served.ask(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!((answer.status, answer.json()["response"].is_null()), (400, true), "{line}");
        assert!(answer.internal().starts_with("bad_target: "), "{line}");
    }
    assert_eq!(served.ask(&get("/livez")).await.status, 200);
}

#[tokio::test]
async fn malformed_framing_is_refused_and_the_connection_closed() {
    let served = serve(defaults()).await;
    for request in [
        "nonsense\r\n\r\n",
        "POST /api/events/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST /api/events/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /api/events/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST /api/events/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut client = served.connect().await;
        client.send(request).await;
        assert_eq!(client.answer().await.status, 400, "{request}");
        assert_eq!(client.rest().await, "", "{request}");
    }
    assert_eq!(served.ask(&get("/api/events/unique")).await.json()["response"], serde_json::json!([]));
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_answered_431() {
    let served = serve(Options { header_bytes_max: 8_192, ..defaults() }).await;
    let head = |bytes: usize| format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Fill: {}\r\n\r\n", "x".repeat(bytes));
    assert_eq!(served.ask(&head(8_000)).await.status, 200);
    assert_eq!(served.ask(&head(8_200)).await.status, 431);
    let many: String = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect();
    assert_eq!(served.ask(&format!("GET /livez HTTP/1.1\r\n{many}\r\n")).await.status, 431);
}

#[tokio::test]
async fn a_request_says_once_for_which_host_it_is_or_is_not_counted() {
    let served = serve(defaults()).await;
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a b\r\n", "Host: a/b\r\n", "Host: u@a\r\n", "Host: a, b\r\n"] {
        for target in ["/api/events/a", "http://x/api/events/a"] {
            let answer = served.ask(&format!("POST {target} HTTP/1.1\r\n{hosts}Content-Length: 0\r\n\r\n")).await;
            assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{hosts:?}");
            let internal = answer.internal();
            assert!(internal.starts_with("bad_host: ") && internal.ends_with("; counted: no"), "{internal}");
        }
    }
    served.counts_nothing().await;
    assert_eq!(served.ask("POST /api/events/a HTTP/1.0\r\nContent-Length: 0\r\n\r\n").await.status, 201);
}

#[tokio::test]
async fn a_target_in_absolute_form_is_taken_as_its_path() {
    let served = serve(defaults()).await;
    let answer = served.ask(&post("http://x:8000/api/events/resource%2F209/5?ack=memory")).await;
    assert_eq!((answer.status, answer.body.as_str()), (201, CREATED));
    let totals = served.ask(&get("http://anything.example/api/events/unique")).await;
    assert_eq!(totals.json()["response"][0][0]["event"], "resource/209");
    assert_eq!(totals.json()["response"][0][0]["count"], 5);
}

#[tokio::test]
async fn a_transfer_coding_besides_chunked_is_501_and_not_counted() {
    let served = serve(defaults()).await;
    for coding in ["gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", "chunked\r\nTransfer-Encoding: chunked"] {
        for path in ["/api/events", "/api/events/a", "/admin/login"] {
            let mut client = served.connect().await;
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n");
            client.send(&(head + "5\r\n[\"a\"]\r\n0\r\n\r\n")).await;
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.header("connection")), (501, Some("close")), "{coding} {path}");
            assert!(answer.internal().ends_with("; counted: no"));
        }
    }
    served.counts_nothing().await;
}

#[tokio::test]
async fn a_hash_that_is_not_encoded_is_refused_with_what_to_write() {
    let served = serve(defaults()).await;
    for target in ["/api/events/a#b", "/api/events/a?ack=disk#", "http://x/api/events/a#b"] {
        let mut client = served.connect().await;
        client.send(&[post("/api/events/first"), post(target)].concat()).await;
        assert_eq!(client.answer().await.status, 201);
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.internal().starts_with("fragment: ") && answer.internal().ends_with("; counted: no"));
        assert_eq!(client.rest().await, "");
    }
    let body = "[\"a#b\"]";
    let batch =
        format!("POST /api/events HTTP/1.1\r\nHost: x\r\nX-A: #\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(served.ask(&batch).await.status, 200);
    let names: Vec<String> = served.ask(&get("/api/events/unique")).await.json()["response"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row[0]["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["a#b", "first"]);
}

#[tokio::test]
async fn what_hyper_refuses_is_answered_in_the_envelope_and_may_be_read_by_pages() {
    let served = serve(Options { cors_origins: vec!["https://shop.example".into()], ..defaults() }).await;
    let head = |fill: &str| format!("POST /api/events/a HTTP/1.1\r\nHost: x\r\nX-Fill: {fill}\r\n\r\n");
    let many: String = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect();
    for (request, status, code) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "malformed_request: "),
        ("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_owned(), 400, "malformed_request: "),
        ("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), 400, "malformed_request: "),
        (head(&"x".repeat(17_000)), 431, "head_too_large: "),
        (format!("POST /api/events/a HTTP/1.1\r\n{many}\r\n"), 431, "head_too_large: "),
    ] {
        let mut client = served.connect().await;
        // Behind one that is answered as always.
        client.send(&[post("/api/events/a/0"), request.clone()].concat()).await;
        assert_eq!(client.answer().await.status, 404);
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{request:.60}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
        assert_eq!(answer.json()["counted"], "no");
        assert_eq!(answer.json()["response"].as_u64(), (status != 400).then_some(u64::from(status)));
        assert!(answer.internal().starts_with(code) && answer.internal().ends_with("; counted: no"), "{answer:?}");
        assert_eq!(client.rest().await, "");
    }
    served.counts_nothing().await;
}
