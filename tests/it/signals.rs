//! Every signal that would end the process by default ends it in order, unless it was ignored before.

use crate::harness::{Backend, TestApp};

/// Counts in memory only, sends the signal, and gives what is there after a restart.
async fn counted_after(name: &str, sent_as: &str) {
    let setup = TestApp::with(Backend::Sqlite).config("flush.interval_ms", 3_600_000);
    let mut app = setup.start().await;
    assert_eq!(app.post("/api/events/login/7?ack=memory").await.status, 201);
    app.signal(sent_as);
    let (status, log) = app.ended().await;
    assert!(status.success() && log.contains(name), "{name}: {status}: {log}");
    assert_eq!(app.audit().await, 7, "{name}");
    app.restart().await;
    assert_eq!(app.total("login").await, 7, "{name}");
}

#[tokio::test]
async fn any_signal_that_means_the_end_loses_nothing_that_was_only_in_memory() {
    for name in ["HUP", "QUIT", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "XCPU"] {
        counted_after(&format!("SIG{name}"), name).await;
    }
    // Shells know these by their numbers only.
    counted_after("SIGSTKFLT", "16").await;
    counted_after("a real-time signal", "40").await;
}

#[tokio::test]
async fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let mut app = TestApp::with(Backend::Sqlite).shell("trap '' HUP INT").start().await;
    app.count("login", 7).await;
    for name in ["HUP", "INT"] {
        app.signal(name);
    }
    // The same thread takes in signals of either kind, in the order of their numbers.
    app.signal("USR1");
    let (status, log) = app.ended().await;
    assert!(status.success() && log.contains("SIGUSR1"), "{status}: {log}");
    assert!(!log.contains("SIGHUP") && !log.contains("SIGINT"), "{log}");
}

#[tokio::test]
async fn files_that_may_not_grow_do_not_kill_the_program() {
    // In blocks of 512 bytes: the journal reaches it soon.
    let setup = TestApp::with(Backend::Sqlite).shell("ulimit -f 400").config("flush.interval_ms", 3_600_000);
    let mut app = setup.start().await;
    app.signal("XFSZ");
    let body = |round: u32| (0..1_000).map(|name| format!("\"name-{round}-{name}\"\n")).collect::<String>();
    let mut refused = None;
    for round in 0..100 {
        let answer = app.client().post(app.url("/api/events")).body(body(round)).send().await;
        match answer {
            Ok(answer) if answer.status() == 200 => {}
            other => {
                refused = Some(other.map(|answer| answer.status().as_u16()).ok());
                break;
            }
        }
    }
    assert!(refused.is_some(), "the limit was not reached");
    app.signal("TERM");
    let (status, log) = app.ended().await;
    assert!(status.code().is_some(), "killed by a signal: {status}: {log}");
}
