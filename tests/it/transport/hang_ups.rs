//! Clients that leave while their request is being answered: the work ends, and their place is free.

use socket2::SockRef;

use super::*;
use crate::harness::outages::{Link, Outages};

/// With a store that answers no list.
async fn with_a_silent_store(options: Options) -> (Served, Arc<Outages>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Outages::of(node::sqlite(dir.path()).await);
    let served = serve_with(server::listen(&options.listen).unwrap(), options, dir, store.clone()).await;
    store.set(Link::Silent);
    (served, store)
}

impl Served {
    async fn is_let_in(&self) -> bool {
        let mut client = self.connect().await;
        let _ = client.stream.write_all(get("/livez").as_bytes()).await;
        client.more().await && client.head().await.status == 200
    }

    /// Asks until it is let in.
    async fn lets_in(&self) {
        soon(async { while !self.is_let_in().await {} }).await;
    }
}

/// All places are taken by requests whose answer does not come.
async fn waiting(served: &Served, number: usize) -> Vec<Client> {
    let mut waiting: Vec<Client> = Vec::new();
    loop {
        // One whose request was not read yet has made room for the look.
        waiting.retain(|client| client.stream.try_read(&mut [0]).is_err());
        while waiting.len() < number {
            let mut client = served.connect().await;
            client.send(&get("/api/events/unique")).await;
            waiting.push(client);
        }
        if !served.is_let_in().await {
            return waiting;
        }
    }
}

#[tokio::test]
async fn who_resets_its_connection_gives_up_its_place_at_once() {
    let (served, _store) = with_a_silent_store(Options { connections_max: 4, ..defaults() }).await;
    for client in waiting(&served, 4).await {
        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    served.lets_in().await;
}

#[tokio::test]
async fn who_closes_its_connection_gives_up_its_place_soon() {
    let options = Options { connections_max: 4, header_timeout_ms: 1_000, ..defaults() };
    let (served, _store) = with_a_silent_store(options).await;
    drop(waiting(&served, 4).await);
    served.lets_in().await;
}

#[tokio::test]
async fn who_only_closes_its_sending_side_still_gets_an_answer_that_takes_some_time() {
    let (served, store) = with_a_silent_store(defaults()).await;
    let mut client = served.connect().await;
    client.send(&get("/api/events/unique")).await;
    client.stream.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    store.set(Link::Up);
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn who_sends_the_next_request_while_it_waits_has_not_left() {
    let (served, store) = with_a_silent_store(defaults()).await;
    let mut client = served.connect().await;
    client.send(&get("/api/events/unique")).await;
    client.send(&get("/livez")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    store.set(Link::Up);
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn so_many_wait_for_lists_and_the_next_one_is_answered_503() {
    let (served, _store) = with_a_silent_store(Options { connections_max: 300, ..defaults() }).await;
    let mut clients = Vec::new();
    let refused = loop {
        let mut client = served.connect().await;
        let hour = clients.len() % 24;
        client.send(&get(&format!("/api/events?start_date=20260101{hour:02}&end_date=20260102"))).await;
        let heard = tokio::time::timeout(Duration::from_millis(20), client.stream.read_buf(&mut client.received)).await;
        if heard.is_ok() {
            break client.answer().await;
        }
        clients.push(client);
        assert!(clients.len() < 250, "any number waits");
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
}
