//! The attacks, at the rates at which they were found to hurt. All come from one address.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::Tally;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) run: fn(SocketAddr, Arc<Tally>, Instant) -> Running,
}

pub(super) const ATTACKS: [Attack; 10] = [
    Attack { name: "unread-ranges", run: |to, tally, until| Box::pin(unread_ranges(to, tally, until)) },
    Attack { name: "abandoned-ranges", run: |to, tally, until| Box::pin(abandoned_ranges(to, tally, until)) },
    Attack { name: "abandoned-logins", run: |to, tally, until| Box::pin(abandoned_logins(to, tally, until)) },
    Attack { name: "abandoned-pictures", run: |to, tally, until| Box::pin(abandoned_pictures(to, tally, until)) },
    Attack { name: "many-parameters", run: |to, tally, until| Box::pin(many_parameters(to, tally, until)) },
    Attack { name: "wrong-logins", run: |to, tally, until| Box::pin(wrong_logins(to, tally, until)) },
    Attack { name: "new-names", run: |to, tally, until| Box::pin(new_names(to, tally, until)) },
    Attack { name: "idle-sockets", run: |to, tally, until| Box::pin(idle_sockets(to, tally, until)) },
    Attack { name: "parked-bodies", run: |to, tally, until| Box::pin(parked_bodies(to, tally, until)) },
    Attack { name: "bad-heads", run: |to, tally, until| Box::pin(bad_heads(to, tally, until)) },
];

/// With little room for what it does not read.
async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4 * 1024)?;
    socket.bind(([127, 0, 0, 2], 0).into())?;
    socket.connect(to).await
}

/// Connects and sends.
async fn send(to: SocketAddr, request: &[u8], tally: &Tally) -> Option<TcpStream> {
    let mut stream = connect(to).await.ok()?;
    stream.write_all(request).await.ok()?;
    tally.sent();
    Some(stream)
}

/// The status of what comes.
async fn hear(stream: &mut TcpStream, tally: &Tally) {
    let mut head = [0; 12];
    let status = match stream.read_exact(&mut head).await {
        Ok(_) => std::str::from_utf8(&head[9..]).ok().and_then(|status| status.parse().ok()).unwrap_or(0),
        Err(_) => 0,
    };
    tally.answered(status);
}

/// So that closing is a reset.
fn reset_when_dropped(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

/// Another range for each number.
fn range(number: usize) -> String {
    let last = Utc::now().format("%Y%m%d%H");
    let first = (Utc::now() - TimeDelta::hours(1 + number as i64)).format("%Y%m%d%H");
    format!("/api/events?start_date={first}&end_date={last}")
}

fn login(user: &str) -> Vec<u8> {
    let body = format!("user={user}&password=wrong-horse-battery");
    let head = "POST /admin/login HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: same-origin";
    let kind = "Content-Type: application/x-www-form-urlencoded";
    format!("{head}\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// 30 different ranges, whose answers are not taken.
async fn unread_ranges(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    let mut held = JoinSet::new();
    for number in 0..30 {
        let tally = Arc::clone(&tally);
        held.spawn(async move {
            let mut stream = send(to, &get(&range(number)), &tally).await?;
            hear(&mut stream, &tally).await;
            tokio::time::sleep_until(until.into()).await;
            Some(())
        });
    }
    held.join_all().await;
}

/// 8 ranges at a time, whose clients leave.
async fn abandoned_ranges(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    let mut number = 0;
    while Instant::now() < until {
        let mut left = Vec::new();
        for _ in 0..8 {
            number += 1;
            left.extend(send(to, &get(&range(number)), &tally).await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        left.iter().for_each(reset_when_dropped);
    }
}

/// 1,500 logins, whose clients leave.
async fn abandoned_logins(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    for number in 0..1_500 {
        if Instant::now() >= until {
            return;
        }
        if let Some(stream) = send(to, &login(&format!("user{number}")), &tally).await {
            reset_when_dropped(&stream);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(stream);
            });
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// 10,500 pictures, whose clients leave.
async fn abandoned_pictures(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    for number in 0..10_500 {
        if Instant::now() >= until {
            return;
        }
        let day = Utc::now().format("%Y%m%d");
        let (width, height) = (400 + number % 700, 300 + number / 700);
        let target = format!("/api/events/histogram/honest/{day}?width={width}&height={height}");
        if let Some(stream) = send(to, &get(&target), &tally).await {
            reset_when_dropped(&stream);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(stream);
            });
        }
        if number % 4 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// 32 requests a second of 5,122 parameters each.
async fn many_parameters(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    let query: Vec<String> = (0..5_122).map(|number| format!("{:x}", number % 256)).collect();
    let request = get(&format!("/api/events/histogram/a/20260101?{}", query.join("&")));
    at(32, until, || asking(to, request.clone(), &tally)).await;
}

/// 4 a second, for one account.
async fn wrong_logins(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    at(4, until, || asking(to, login("owner"), &tally)).await;
}

/// A million new names, as fast as they are taken.
async fn new_names(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    for batch in 0..100 {
        if Instant::now() >= until {
            return;
        }
        let names = (0..10_000).map(|number| format!("\"new-{}\"", batch * 10_000 + number));
        let body = format!("[{}]", names.collect::<Vec<_>>().join(","));
        let head = "POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json";
        let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        asking(to, request.into_bytes(), &tally).await;
    }
}

/// 10,000 that say nothing.
async fn idle_sockets(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    hold(to, 10_000, b"", tally, until).await;
}

/// 10,000 bodies of which the end does not come.
async fn parked_bodies(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    let head = "POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 64000";
    let request = format!("{head}\r\n\r\n[{}", " ".repeat(60_000));
    hold(to, 10_000, request.as_bytes(), tally, until).await;
}

async fn hold(to: SocketAddr, number: usize, request: &[u8], tally: Arc<Tally>, until: Instant) {
    let request: Arc<[u8]> = request.into();
    let mut held = JoinSet::new();
    for _ in 0..number {
        if Instant::now() >= until {
            return;
        }
        let Some(mut stream) = send(to, b"", &tally).await else { continue };
        let (tally, request) = (Arc::clone(&tally), Arc::clone(&request));
        held.spawn(async move {
            if stream.write_all(&request).await.is_ok() {
                hear(&mut stream, &tally).await;
                tokio::time::sleep_until(until.into()).await;
            } else {
                tally.answered(0);
            }
        });
    }
    tokio::time::sleep_until(until.into()).await;
}

/// 200 a second that are no requests.
async fn bad_heads(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    let requests = ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "POST /a#b HTTP/1.1\r\nHost: x\r\n\r\n"];
    let mut number = 0;
    at(200, until, || {
        number += 1;
        asking(to, requests[number % requests.len()].into(), &tally)
    })
    .await;
}

async fn asking(to: SocketAddr, request: Vec<u8>, tally: &Tally) {
    match send(to, &request, tally).await {
        Some(mut stream) => hear(&mut stream, tally).await,
        None => tally.answered(0),
    }
}

/// One after another, at most so many a second.
async fn at<F: Future<Output = ()>>(rate: u32, until: Instant, mut once: impl FnMut() -> F) {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / rate);
    while Instant::now() < until {
        pace.tick().await;
        once().await;
    }
}
