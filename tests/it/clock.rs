//! A system clock before 1970, as libfaketime shows it: nothing panics, and nobody is told that
//! something was counted under a false hour.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::answer::raw;
use crate::harness::{Backend, TestApp, eventually, packages, signal};

/// The library that is loaded before the program and shows it another time.
fn library() -> PathBuf {
    packages::needed(&["libfaketime"], || {
        let folders = std::fs::read_dir("/usr/lib").ok()?.chain(std::fs::read_dir("/usr/local/lib").ok()?);
        let folders = folders.filter_map(Result::ok).map(|entry| entry.path());
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.is_file())
    })
}

struct Clock(tempfile::NamedTempFile);

impl Clock {
    fn new() -> Self {
        let clock = Self(tempfile::NamedTempFile::new().unwrap());
        clock.set("@2024-05-15 10:00:00");
        clock
    }

    fn set(&self, time: &str) {
        std::fs::write(self.0.path(), format!("{time}\n")).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn shell(&self) -> String {
        let (library, file) = (library(), self.path());
        format!(
            "export LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
             DONT_FAKE_MONOTONIC=1 TZ=UTC",
            library.display(),
            file.display()
        )
    }
}

const BEFORE_1970: &str = "@1965-06-01 12:00:00";

/// The status of the answer to a request on a connection that stays open.
async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(format!("{request} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await.unwrap();
    let mut bytes = vec![0; 1 << 16];
    let length = stream.read(&mut bytes).await.unwrap();
    let answer = String::from_utf8_lossy(&bytes[..length]).into_owned();
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("{request} is not answered")).to_owned()
}

#[tokio::test]
async fn a_clock_that_is_set_to_before_1970_makes_nothing_panic() {
    let clock = Clock::new();
    let mut app = TestApp::with(Backend::Sqlite).shell(&clock.shell()).start().await;
    let mut open = TcpStream::connect(app.address()).await.unwrap();
    assert_eq!(ask(&mut open, "POST /api/events/login").await, "201");
    clock.set(BEFORE_1970);
    for (request, status) in [
        ("GET /livez", "200"),
        ("GET /readyz", "200"),
        ("GET /api/events/unique", "200"),
        ("GET /admin/login", "200"),
        ("GET /admin", "303"),
        ("POST /api/events/login?ack=store", "201"),
    ] {
        assert_eq!(ask(&mut open, request).await, status, "{request}");
    }
    for _ in 0..8 {
        let answer = raw(app.address(), "POST", b"/api/events/login", &[]).await;
        let (internal, _) = answer.fails(503);
        assert!(internal.starts_with("clock: "), "{internal}");
        assert_eq!(answer.counted().as_deref(), Some("no"));
    }
    clock.set("@2024-05-15 10:30:00");
    eventually("new connections to be served", async || raw(app.address(), "GET", b"/livez", &[]).await.status == 200)
        .await;
    let log = app.stop().await;
    assert!(!log.contains("panic"), "{log}");
    assert_eq!(app.audit().await, 2);
}

#[tokio::test]
async fn a_program_started_before_1970_waits_for_its_clock() {
    let clock = Clock::new();
    clock.set(BEFORE_1970);
    let app = TestApp::with(Backend::Sqlite).shell(&clock.shell()).keep_address().build().await;
    let mut command = app.command(&["serve"]);
    let listen = std::ffi::OsStr::new("EVENT_TRACKER__HTTP__LISTEN");
    let address = command.get_envs().find(|(name, _)| *name == listen).unwrap().1.unwrap().to_str().unwrap().to_owned();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the program to listen", async || TcpStream::connect(&address).await.is_ok()).await;
    raw(&address, "POST", b"/api/events/login", &[]).await.fails(503);
    clock.set("@2024-05-15 10:00:00");
    eventually("the program to serve", async || raw(&address, "GET", b"/livez", &[]).await.status == 200).await;
    assert_eq!(raw(&address, "POST", b"/api/events/login/7", &[]).await.status, 201);
    signal(child.id(), "TERM");
    let output = tokio::task::spawn_blocking(move || {
        let mut log = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut log).unwrap();
        (child.wait().unwrap(), log)
    });
    let (status, log) = output.await.unwrap();
    assert!(status.success() && !log.contains("panic"), "{status}: {log}");
    assert_eq!(app.audit().await, 7);
}
