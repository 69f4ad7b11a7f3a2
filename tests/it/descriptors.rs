//! Few open files allowed: clients make room before the journal or the store goes without.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Backend, TestApp};

#[tokio::test]
async fn idle_clients_leave_the_journal_and_the_store_their_files() {
    let setup = TestApp::with(Backend::Sqlite).shell("ulimit -n 256").config("flush.interval_ms", 50);
    let mut app = setup.start().await;
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(TcpStream::connect(app.address()).await.unwrap());
    }
    // The first have made room.
    assert_eq!(idle[0].read(&mut [0]).await.unwrap(), 0);
    let mut admitted = TcpStream::connect(app.address()).await.unwrap();
    let mut answer = [0; 4096];
    for round in 0..20 {
        admitted.write_all(b"POST /api/events/login?ack=store HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        let length = admitted.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with("HTTP/1.1 201 "), "{round}: {answer}");
    }
    drop(idle);
    let log = app.stop().await;
    assert_eq!(log.matches("http.connections_max").count(), 1, "{log}");
    assert_eq!(app.audit().await, 20);
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let mut app = TestApp::with(Backend::Sqlite).shell("ulimit -S -n 256").start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", app.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    app.stop().await;
}
