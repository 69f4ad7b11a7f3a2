//! Slow clients: one that goes on is waited for, one that trickles is not.

use std::time::Instant;

use socket2::SockRef;
use tokio::net::TcpSocket;

use super::*;

const NAMES: usize = 12_000;

/// With an answer of more than a megabyte to be had.
async fn with_a_long_list(options: Options) -> Served {
    let served = serve(Options { body_bytes_max: 10_000_000, bodies_bytes_max: 50_000_000, ..options }).await;
    let names: Vec<String> = (0..NAMES).map(|number| format!("\"{number:0>100}\"")).collect();
    let body = format!("[{}]", names.join(","));
    let length = body.len();
    let head = format!("POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    assert_eq!(served.ask(&[head, body].concat()).await.status, 200);
    served
}

/// Whose kernel takes little ahead.
async fn narrow(served: &Served) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let stream = socket.connect(served.address).await.unwrap();
    SockRef::from(&stream).set_tcp_nodelay(true).unwrap();
    Client { stream, received: Vec::new() }
}

#[tokio::test]
async fn a_long_answer_may_take_many_times_the_time_out_while_the_client_goes_on_taking_it() {
    let served = with_a_long_list(Options { header_timeout_ms: 2_000, ..defaults() }).await;
    let mut client = narrow(&served).await;
    client.send(&get("/api/events/unique")).await;
    let head = client.head().await;
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    assert!(length > 1_000_000);
    let mut piece = vec![0; 32 * 1024];
    let mut read = client.received.len();
    while read < length {
        let more = soon(client.stream.read(&mut piece)).await.unwrap();
        assert!(more > 0, "cut after {read} of {length} bytes");
        read += more;
        // Slower than the whole could come within one time-out.
        tokio::time::sleep(Duration::from_micros(more as u64 * 3)).await;
    }
}

#[tokio::test]
async fn a_client_that_takes_a_few_bytes_now_and_then_is_closed() {
    let served = with_a_long_list(Options { header_timeout_ms: 500, ..defaults() }).await;
    let mut client = narrow(&served).await;
    client.send(&get("/api/events/unique")).await;
    let length: usize = client.head().await.header("content-length").unwrap().parse().unwrap();
    let mut read = 0;
    let began = Instant::now();
    // Some time-outs long.
    while began.elapsed() < Duration::from_secs(3) {
        read += soon(client.stream.read(&mut [0; 16])).await.unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    read += client.rest().await.len();
    assert!(read < length, "it went on to the end");
}

#[tokio::test]
async fn lists_that_are_not_taken_have_no_room_for_more_and_give_it_back_with_their_connections() {
    // Each list has its rows and its text: one fits, three do not.
    let options = Options { lists_bytes_max: 8_000_000, range_rows_max: 100_000, ..defaults() };
    let served = with_a_long_list(options).await;
    let today = Utc::now();
    let path = |day: i64| {
        let first = (today - chrono::Duration::days(day)).format("%Y%m%d");
        format!("/api/events?start_date={first}&end_date={}", today.format("%Y%m%d"))
    };
    let mut parked = Vec::new();
    let refused = loop {
        let mut client = narrow(&served).await;
        client.send(&get(&path(parked.len() as i64))).await;
        let head = client.head().await;
        if head.status != 200 {
            break head;
        }
        parked.push(client);
        assert!(parked.len() < 20, "there is no limit");
    };
    assert!(!parked.is_empty());
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    // What has no list in it is not concerned.
    assert_eq!(served.ask(&post("/api/events/a")).await.status, 201);
    assert_eq!(served.ask(&get("/livez")).await.status, 200);
    let untaken = path(parked.len() as i64);
    drop(parked);
    soon(async { while served.ask(&get(&untaken)).await.status != 200 {} }).await;
}
