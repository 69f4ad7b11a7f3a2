//! Counters over the StatsD protocol, on real sockets.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::harness::{Backend, TestApp, eventually};
use crate::program::Program;

async fn start() -> TestApp {
    let app = TestApp::with(Backend::Sqlite).config("ingest.statsd_udp", "127.0.0.1:0");
    let app = app.config("ingest.statsd_tcp", "127.0.0.1:0").start().await;
    eventually("the program to say where", async || app.said().contains("StatsD counters are taken at udp ")).await;
    app
}

fn address(app: &TestApp, protocol: &str) -> SocketAddr {
    let said = app.said();
    let (_, rest) = said.split_once(&format!("{protocol} ")).unwrap();
    rest.split(|c: char| c == ',' || c.is_whitespace()).next().unwrap().parse().unwrap()
}

async fn send(app: &TestApp, datagrams: &[&[u8]]) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for datagram in datagrams {
        socket.send_to(datagram, address(app, "udp")).await.unwrap();
    }
}

async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(address(app, "tcp")).await.unwrap()
}

/// The log of a stop, which counts what has arrived.
async fn log(app: &mut TestApp) -> String {
    app.stop().await
}

#[tokio::test]
async fn counters_over_udp_are_counted_and_what_is_refused_is_told_by_reason() {
    let mut app = start().await;
    let datagrams: [&[u8]; 7] = [
        b"page:3|c",
        b"page:1|c|@0.1|#env:prod\nresource/209:2|c\r\n\nlogin:1|c\n",
        b"temp:21|g\nquery:320|ms\nusers:7|s",
        b"page:-1|c\npage:1.5|c\npage:0|c",
        b"garbage\n\xff\xfe:1|c",
        b"",
        b"last:1|c",
    ];
    send(&app, &datagrams).await;
    eventually("the last one", async || app.total("last").await == 1).await;
    let expected = [("last", 1), ("login", 1), ("page", 13), ("resource/209", 2)];
    assert_eq!(app.totals().await, expected.map(|(name, count)| (name.to_owned(), count)).into());
    let log = log(&mut app).await;
    let reasons = "malformed 2, not_a_counter 3, negative 1, fraction 1, zero 1";
    assert!(log.contains("StatsD lines were refused") && log.contains(reasons), "{log}");
    assert_eq!(app.audit().await, 17);
}

#[tokio::test]
async fn lines_over_tcp_come_in_pieces_and_long_ones_take_no_memory() {
    let mut app = start().await;
    let mut stream = connect(&app).await;
    for piece in ["pa", "ge:1|", "c\npage:2|c\nla"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    let long = vec![b'x'; 20 << 20];
    stream.write_all(&long).await.unwrap();
    stream.write_all(b"\npage:4|c\nend:1|c").await.unwrap();
    stream.shutdown().await.unwrap();
    eventually("the end", async || app.total("end").await == 1).await;
    assert_eq!(app.total("page").await, 7);
    // The program closes, too.
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    let mut reset = connect(&app).await;
    reset.write_all(b"page:8|c\npage:1|c").await.unwrap();
    eventually("the whole line", async || app.total("page").await == 15).await;
    socket2::SockRef::from(&reset).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(reset);
    let log = log(&mut app).await;
    assert!(log.contains("too_long 1"), "{log}");
    assert_eq!(app.audit().await, 16);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_the_others_go_on() {
    let app = start().await;
    let mut streams = Vec::new();
    for number in 0..256 {
        let mut stream = connect(&app).await;
        stream.write_all(format!("conn/{number}:1|c\n").as_bytes()).await.unwrap();
        streams.push(stream);
    }
    eventually("all of them", async || app.totals().await.len() == 256).await;
    let mut refused = connect(&app).await;
    let read = refused.read(&mut [0]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    streams[0].write_all(b"conn/0:1|c\n").await.unwrap();
    eventually("the first one", async || app.total("conn/0").await == 2).await;
    drop(streams);
    let room = async || {
        let mut stream = connect(&app).await;
        let _ = stream.write_all(b"again:1|c\n").await;
        app.total("again").await > 0
    };
    eventually("room for others", room).await;
}

#[tokio::test]
async fn what_has_arrived_before_a_stop_is_counted() {
    let mut app = start().await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = connect(&app).await;
        stream.write_all(b"tcp:1|c\n").await.unwrap();
        streams.push(stream);
    }
    eventually("them to be connections", async || app.total("tcp").await == 10).await;
    let pid = app.pid();
    // Stopped by the system, it takes nothing out of its sockets.
    crate::harness::signal(pid, "STOP");
    send(&app, &vec![&b"udp:1|c"[..]; 200]).await;
    for stream in &mut streams {
        stream.write_all(&b"tcp:1|c\n".repeat(3_000)).await.unwrap();
        stream.write_all(b"tcp:1|c|@0").await.unwrap();
    }
    app.signal("TERM");
    crate::harness::signal(pid, "CONT");
    let (status, log) = app.ended().await;
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("unfinished 10"), "{log}");
    assert_eq!(app.audit().await, 10 + 200 + 30_000);
}

#[test]
fn addresses_are_checked_before_anything_starts() {
    for (name, value) in [("STATSD_UDP", "8125"), ("STATSD_TCP", "localhost:8125")] {
        let program = Program::new().with_variable(&format!("EVENT_TRACKER__INGEST__{name}"), value);
        let complaint = program.run(&["serve"]).complaint(2);
        assert!(complaint.contains("such as 127.0.0.1:8125, or nothing"), "{complaint}");
    }
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let program = Program::new().with_variable("EVENT_TRACKER__INGEST__STATSD_UDP", &address);
    let program = program.with_variable("EVENT_TRACKER__LOG__LEVEL", "off");
    let complaint = program.run(&["serve", "--listen", "127.0.0.1:0"]).complaint(1);
    assert!(complaint.contains(&format!("can't take StatsD counters at {address}: ")), "{complaint}");
}
