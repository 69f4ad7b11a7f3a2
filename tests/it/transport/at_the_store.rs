//! Connections that wait for a commit. Nothing flushes here but the test.

use std::time::Duration;

use event_tracker::node::Node;
use tokio::time::timeout;

use super::*;

fn stored(path: &str) -> String {
    post(&format!("{path}?ack=store"))
}

/// The count waits in the open batch.
async fn counted(node: &Node, counts: i128) {
    soon(async {
        while node.batches.unstored() < counts {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

impl Client {
    async fn hears_nothing(&mut self) {
        let heard = timeout(Duration::from_millis(100), self.stream.read_buf(&mut self.received)).await;
        assert!(heard.is_err(), "{:?}", String::from_utf8_lossy(&self.received));
    }
}

#[tokio::test]
async fn pipelined_requests_wait_for_one_commit_and_are_answered_in_order() {
    let served = serve(defaults()).await;
    let mut client = served.connect().await;
    let mut requests = String::new();
    for number in 0..5 {
        requests += &stored(&format!("/api/events/event-{number}"));
        requests += &stored("/api/events/a/0");
        requests += &stored("/api/events/again/2");
    }
    client.send(&requests).await;
    // None waits for the answer to another.
    counted(&served.node, 15).await;
    client.hears_nothing().await;
    served.node.flusher.flush().await.unwrap();
    for number in 0..5 {
        assert_eq!(client.answer().await.status, 201);
        assert_eq!(client.answer().await.status, 404);
        assert_eq!(client.answer().await.status, if number == 0 { 201 } else { 200 });
    }
}

#[tokio::test]
async fn requests_of_all_levels_on_one_connection_are_answered_in_order() {
    let served = serve(defaults()).await;
    let mut client = served.connect().await;
    let batch =
        |level: &str| format!("POST /api/events?ack={level} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n[\"a\"]");
    for round in 0..8 {
        let mut levels = vec!["store", "memory", "disk", "journal", "disk", "store"];
        levels.rotate_left(round % 6);
        for level in &levels {
            let name = if round == 0 { level } else { "again" };
            client
                .send(&[post(&format!("/api/events/{name}?ack={level}")), batch(level), get("/livez")].concat())
                .await;
        }
        let flushes = async {
            loop {
                served.node.flusher.flush().await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let answers = async {
            for _ in &levels {
                assert_eq!(client.answer().await.status, 201);
                assert!(client.answer().await.body.contains("accepted"));
                assert_eq!(client.answer().await.status, 200);
            }
        };
        tokio::select! {
            () = flushes => {}
            () = answers => {}
        }
    }
}

#[tokio::test]
async fn many_connections_are_answered_by_the_commit_of_their_own_batch() {
    let served = serve(defaults()).await;
    let mut early = Vec::new();
    for number in 0..40 {
        let mut client = served.connect().await;
        client.send(&stored("/api/events/early").repeat(1 + number % 3)).await;
        early.push(client);
    }
    let counts = (0..40).map(|number| 1 + number % 3).sum::<usize>();
    counted(&served.node, counts as i128).await;
    assert!(served.node.batches.seal().unwrap());
    let mut late = served.connect().await;
    late.send(&stored("/api/events/late")).await;
    counted(&served.node, counts as i128 + 1).await;
    let sealed = served.node.batches.oldest_sealed(&[]).unwrap();
    let rows = served.node.batches.sealed_rows(&sealed).into();
    served.node.batches.discard(&sealed, rows, served.node.batches.epoch()).unwrap();
    for (number, client) in early.iter_mut().enumerate() {
        for _ in 0..1 + number % 3 {
            assert_eq!(client.answer().await.status, 201);
        }
    }
    late.hears_nothing().await;
}

#[tokio::test]
async fn a_commit_that_takes_too_long_is_told_as_unknown_and_the_connection_closed() {
    let served = serve(Options { store_ack_timeout_ms: 100, ..defaults() }).await;
    let mut client = served.connect().await;
    client.send(&stored("/api/events/a").repeat(3)).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    assert!(answer.internal().starts_with("store_ack_timeout: ") && answer.internal().ends_with("counted: unknown"));
    assert_eq!(client.rest().await, "", "of the others it is unknown, too");
    served.node.flusher.flush().await.unwrap();
    let totals = served.ask(&get("/api/events/unique")).await.body;
    assert!(totals.contains(r#"{"event":"a","count":3}"#), "{totals}");
}

#[tokio::test]
async fn who_waits_for_a_batch_that_is_set_aside_hears_that_it_is_unknown() {
    let served = serve(defaults()).await;
    let mut client = served.connect().await;
    client.send(&stored("/api/events/a").repeat(2)).await;
    counted(&served.node, 2).await;
    let batches = &served.node.batches;
    batches.seal().unwrap();
    let sealed = batches.oldest_sealed(&[]).unwrap();
    // The ledger stands there by somebody else.
    let another = event_tracker::domain::Digest::of(&[]);
    batches
        .settle(&sealed, (sealed.id.seq, 7), Some(another), &event_tracker::batch::Rest::Unknown, batches.epoch())
        .unwrap();
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.json()["counted"].as_str()), (503, Some("unknown")));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_drain_ends_in_time_although_the_store_does_not_answer() {
    let served = serve(Options { drain_timeout_ms: 100, ..defaults() }).await;
    let mut client = served.connect().await;
    client.send(&stored("/api/events/a").repeat(2)).await;
    counted(&served.node, 2).await;
    served.drain.cancel();
    soon(served.server).await.unwrap();
    assert_eq!(client.rest().await, "", "nothing was acknowledged");
}

#[tokio::test]
async fn a_drain_waits_for_the_commit_and_then_closes() {
    let served = serve(defaults()).await;
    let mut client = served.connect().await;
    client.send(&stored("/api/events/a").repeat(2)).await;
    counted(&served.node, 2).await;
    served.drain.cancel();
    client.hears_nothing().await;
    served.node.flusher.flush().await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.answer().await.status, 201);
    }
    assert_eq!(client.rest().await, "");
    soon(served.server).await.unwrap();
}

#[tokio::test]
async fn clients_that_leave_while_they_wait_do_not_keep_others_from_being_answered() {
    let served = serve(Options { store_ack_timeout_ms: 200, connections_max: 5, ..defaults() }).await;
    for _ in 0..5 {
        let mut client = served.connect().await;
        client.send(&stored("/api/events/a")).await;
    }
    counted(&served.node, 5).await;
    // Their places come back, at the latest when they would have been answered.
    let mut status = 503;
    while status == 503 {
        let mut client = served.connect().await;
        let _ = client.stream.write_all(get("/livez").as_bytes()).await;
        status = if client.more().await { client.head().await.status } else { 503 };
    }
    assert_eq!(status, 200);
}
