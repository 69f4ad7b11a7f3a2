//! Connections that wait for the same write or sync.

use super::{defaults, get, post, serve};

#[tokio::test]
async fn all_who_wait_for_the_disk_together_are_answered() {
    let served = serve(defaults()).await;
    let clients = (1..=32).map(async |pipelined: usize| {
        let mut client = served.connect().await;
        for _ in 0..20 {
            client.send(&post("/api/events/a?ack=disk").repeat(pipelined)).await;
            for _ in 0..pipelined {
                assert_eq!(client.answer().await.status, 201);
            }
        }
    });
    futures_util::future::join_all(clients).await;
    let all = 20 * (1..=32).sum::<u64>();
    let expected = format!(r#"{{"status":true,"response":[[{{"event":"a","count":{all}}}]]}}"#);
    assert_eq!(served.ask(&get("/api/events/unique")).await.body, expected);
}

#[tokio::test]
async fn all_who_wait_for_the_journal_together_are_answered_and_closed_when_they_ask_for_it() {
    let served = serve(defaults()).await;
    let clients = (0..64).map(async |number: usize| {
        let mut client = served.connect().await;
        for _ in 0..20 {
            client.send(&post("/api/events/a").repeat(1 + number % 3)).await;
            for _ in 0..1 + number % 3 {
                assert_eq!(client.answer().await.status, 201);
            }
        }
        client.send("POST /api/events/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 201);
        assert_eq!(client.rest().await, "");
    });
    futures_util::future::join_all(clients).await;
    let all = 64 + 20 * (0..64).map(|number| 1 + number % 3).sum::<u64>();
    let expected = format!(r#"{{"status":true,"response":[[{{"event":"a","count":{all}}}]]}}"#);
    assert_eq!(served.ask(&get("/api/events/unique")).await.body, expected);
}
