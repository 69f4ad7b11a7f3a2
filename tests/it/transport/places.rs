//! Who gets in: idle connections make room, busy ones do not, and no client takes all places.

use tokio::net::TcpSocket;

use super::*;

impl Served {
    async fn connect_from(&self, address: &str) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        Client { stream: soon(socket.connect(self.address)).await.unwrap(), received: Vec::new() }
    }
}

impl Client {
    async fn is_alive(&mut self) {
        self.send(&get("/livez")).await;
        assert_eq!(self.answer().await.status, 200);
    }

    /// Has a request under way until the client is dropped.
    async fn keep_busy(&mut self) {
        self.send("POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
        assert_eq!(self.head().await.status, 100);
    }
}

#[tokio::test]
async fn the_connection_that_has_waited_longest_makes_room_and_no_other() {
    let served = serve(Options { connections_max: 3, ..defaults() }).await;
    let [mut first, mut second, mut third] = [served.connect().await, served.connect().await, served.connect().await];
    // In another order than they came in.
    for client in [&mut second, &mut third, &mut first] {
        client.is_alive().await;
        // The order shows in milliseconds.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut fourth = served.connect().await;
    fourth.is_alive().await;
    assert_eq!(second.rest().await, "");
    third.is_alive().await;
    first.is_alive().await;
}

#[tokio::test]
async fn ten_times_as_many_idle_connections_as_fit_keep_nobody_out() {
    let served = serve(Options { connections_max: 50, ..defaults() }).await;
    let mut idle = Vec::new();
    for number in 0..500 {
        let mut client = served.connect().await;
        if number % 2 == 0 {
            client.send("GET /livez HTT").await;
        }
        idle.push(client);
        if number % 50 == 0 {
            served.connect().await.is_alive().await;
        }
    }
    served.connect().await.is_alive().await;
}

#[tokio::test]
async fn where_all_connections_are_busy_a_new_one_is_answered_503_and_room_comes_back() {
    let served = serve(Options { connections_max: 1, ..defaults() }).await;
    let mut first = served.connect().await;
    first.keep_busy().await;
    let mut second = served.connect().await;
    let refusal = second.answer().await;
    assert_eq!((refusal.status, refusal.json()["response"].as_u64()), (503, Some(503)));
    assert_eq!(second.rest().await, "");
    drop(first);
    let mut status = 503;
    while status == 503 {
        let mut client = served.connect().await;
        // The refusal may come, and reset the connection, before the request is sent.
        let _ = client.stream.write_all(get("/livez").as_bytes()).await;
        status = if client.more().await { client.head().await.status } else { 503 };
    }
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_client_has_its_share_of_the_connections_and_others_theirs() {
    let served = serve(Options { connections_per_client_max: 2, ..defaults() }).await;
    let [mut first, mut second] = [served.connect_from("127.0.0.2").await, served.connect_from("127.0.0.2").await];
    first.keep_busy().await;
    second.is_alive().await;
    // An idle one of its own makes room.
    let mut third = served.connect_from("127.0.0.2").await;
    third.keep_busy().await;
    assert_eq!(second.rest().await, "");
    let refusal = served.connect_from("127.0.0.2").await.answer().await;
    assert_eq!(refusal.status, 503);
    assert!(refusal.internal().contains("http.connections_per_client_max"), "{refusal:?}");
    served.connect_from("127.0.0.3").await.is_alive().await;
}

#[tokio::test]
async fn a_new_connection_is_not_silent_for_long_and_one_that_has_spoken_may_be() {
    let served = serve(Options { first_byte_timeout_ms: 100, ..defaults() }).await;
    let mut spoken = served.connect().await;
    spoken.is_alive().await;
    let mut begun = served.connect().await;
    begun.send("GET /livez HTTP/1.1\r\n").await;
    let mut silent = served.connect().await;
    assert_eq!(silent.rest().await, "");
    // Another one, so that the others have had as much time and more.
    assert_eq!(served.connect().await.rest().await, "");
    spoken.is_alive().await;
    begun.send("Host: x\r\n\r\n").await;
    assert_eq!(begun.answer().await.status, 200);
}
