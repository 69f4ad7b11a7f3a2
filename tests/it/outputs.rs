//! Standard output and standard error may be full, dead or blocked: nothing else notices.

use std::cell::RefCell;
use std::io::Write;
use std::process::{Child, Stdio};

use crate::harness::{Backend, TestApp, eventually, signal};

/// What becomes of one of the program's outputs.
#[derive(Clone, Copy, Debug)]
enum Output {
    /// As on a disk without space.
    Full,
    /// The reader of the pipe is gone.
    Dead,
    /// Nobody reads the pipe, and it holds all it can.
    Blocked,
}

/// As much as a pipe holds.
const PIPE_BYTES: usize = 65_536;

impl Output {
    /// What to give to the program, and what to keep for as long as it runs.
    fn open(self) -> (Stdio, Option<std::io::PipeReader>) {
        if let Self::Full = self {
            return (std::fs::File::create("/dev/full").unwrap().into(), None);
        }
        let (reader, mut writer) = std::io::pipe().unwrap();
        match self {
            Self::Blocked => writer.write_all(&[b'.'; PIPE_BYTES]).unwrap(),
            _ => return (writer.into(), None),
        }
        (writer.into(), Some(reader))
    }
}

struct Running {
    child: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(app: &TestApp, stdout: Stdio, stderr: Stdio) -> Running {
    let mut command = app.command(&["serve"]);
    let listen = std::ffi::OsStr::new("EVENT_TRACKER__HTTP__LISTEN");
    let address = command.get_envs().find(|(name, _)| *name == listen).unwrap().1.unwrap().to_str().unwrap().to_owned();
    Running { child: command.stdout(stdout).stderr(stderr).spawn().unwrap(), address }
}

/// Starts the program on these outputs, uses it, stops it, and looks at what it has counted.
async fn counts_and_stops(stdout: Option<Output>, stderr: Option<Output>) {
    let setup = TestApp::with(Backend::Sqlite).keep_address().config("log.level", "debug");
    let app = setup.config("flush.interval_ms", 1).build().await;
    let open = |output: Option<Output>| output.map_or_else(|| (Stdio::null(), None), Output::open);
    let ((stdout, _stdout), (stderr, _stderr)) = (open(stdout), open(stderr));
    let mut running = start(&app, stdout, stderr);
    let client = app.client();
    let url = |target: &str| format!("http://{}{target}", running.address);
    eventually("the program to live", async || {
        client.get(url("/livez")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    for number in 0..50 {
        let level = ["memory", "journal", "store"][number % 3];
        let answer = client.post(url(&format!("/api/events/login?ack={level}"))).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }
    for target in ["/readyz", "/api/events/unique", "/admin/login"] {
        assert_eq!(client.get(url(target)).send().await.unwrap().status(), 200, "{target}");
    }
    signal(running.child.id(), "TERM");
    let child = RefCell::new(&mut running.child);
    eventually("the program to end", async || child.borrow_mut().try_wait().unwrap().is_some()).await;
    let status = running.child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(app.audit().await, 50);
}

#[tokio::test]
async fn a_full_standard_error_is_no_reason_to_lose_or_to_wait() {
    counts_and_stops(None, Some(Output::Full)).await;
}

#[tokio::test]
async fn a_standard_error_that_was_closed_is_no_reason_to_lose_or_to_wait() {
    counts_and_stops(None, Some(Output::Dead)).await;
}

#[tokio::test]
async fn a_standard_error_that_nobody_reads_is_no_reason_to_lose_or_to_wait() {
    counts_and_stops(None, Some(Output::Blocked)).await;
}

#[tokio::test]
async fn a_full_standard_output_is_no_reason_to_lose_or_to_wait() {
    counts_and_stops(Some(Output::Full), None).await;
}

#[tokio::test]
async fn a_standard_output_that_was_closed_is_no_reason_to_lose_or_to_wait() {
    counts_and_stops(Some(Output::Dead), None).await;
}

#[tokio::test]
async fn a_standard_output_that_nobody_reads_is_no_reason_to_lose_or_to_wait() {
    counts_and_stops(Some(Output::Blocked), None).await;
}

#[tokio::test]
async fn with_both_outputs_blocked_the_program_still_counts_and_stops() {
    counts_and_stops(Some(Output::Blocked), Some(Output::Blocked)).await;
}
