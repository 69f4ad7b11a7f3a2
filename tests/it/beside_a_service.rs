//! Commands beside a running service, on the same database and the same folder.

use std::process::Output;
use std::sync::Arc;

use crate::harness::superuser::{PASSWORD, USER};
use crate::harness::{Backend, Superuser, Tally, TestApp, Traffic, eventually, on_both_stores};

on_both_stores!(
    random_events_are_counted_beside_the_traffic_and_both_are_exact,
    superusers_are_made_and_changed_while_the_service_runs,
);

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap()
}

async fn random_events_are_counted_beside_the_traffic_and_both_are_exact(backend: Backend) {
    let mut app = TestApp::with(backend).config("flush.interval_ms", 20).config("log.level", "warn").start().await;
    let tally = Arc::new(Tally::default());
    let traffic = Traffic::start(&app, &tally, 3, "");
    traffic.answered(50).await;
    let random = async |app: &TestApp| {
        let totals = app.totals().await;
        totals.get("random/a").copied().unwrap_or_default() + totals.get("random/b").copied().unwrap_or_default()
    };
    assert_eq!(random(&app).await, 0);
    let create = ["create-random-events", "--types", "random/a,random/b", "--events"];
    for (events, sum) in [("12345", 12_345), ("1000000", 1_012_345)] {
        let run = app.run(&[&create[..], &[events]].concat()).await;
        assert!(said(&run, 0).starts_with("created "), "{run:?}");
        eventually("the service to show them", async || random(&app).await == sum).await;
    }
    traffic.answered(100).await;
    traffic.stop().await;

    let check = async |app: &TestApp| {
        let mut totals = app.totals().await;
        let random = ["random/a", "random/b"].map(|event| totals.remove(event).unwrap());
        assert_eq!(random.iter().sum::<u64>(), 1_012_345);
        tally.settle(&totals);
        totals.values().sum::<u64>() + 1_012_345
    };
    check(&app).await;
    app.kill().await;
    app.restart().await;
    let all = check(&app).await;
    app.stop().await;
    assert_eq!(app.audit().await, all);
    let left = std::fs::read_dir(app.data_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().starts_with("import-")).count(), 0);
}

async fn superusers_are_made_and_changed_while_the_service_runs(backend: Backend) {
    let app = TestApp::with(backend).config("log.level", "warn").start().await;
    app.setup_link().await;
    let create = ["create-superuser", "--password-stdin", "--user"];
    let create = async |user: &str, password: &str| app.run_with(&[&create[..], &[user]].concat(), password).await;
    assert!(said(&create(USER, "password1234\n").await, 1).contains("event-tracker: "));
    assert!(said(&create(" ada", PASSWORD).await, 2).contains("spaces"));
    assert_eq!(Superuser::sign_in(&app, USER, PASSWORD).await, 422);
    assert!(said(&create(USER, &format!("{PASSWORD}\n")).await, 0).starts_with("ada can sign in"));
    assert_eq!(Superuser::sign_in(&app, USER, PASSWORD).await, 303);
    let taken = said(&create(USER, PASSWORD).await, 1);
    assert!(taken.contains("`event-tracker users change-password --user ada`"), "{taken}");

    let users = async |action: &str, input: &str| {
        let mut arguments = vec!["users", action, "--user", USER];
        if action == "change-password" {
            arguments.push("--password-stdin");
        }
        said(&app.run_with(&arguments, input).await, 0)
    };
    let list = said(&app.run(&["users", "list"]).await, 0);
    assert!(list.lines().any(|line| line.starts_with("ada ")), "{list}");
    users("disable", "").await;
    assert_eq!(Superuser::sign_in(&app, USER, PASSWORD).await, 422);
    users("enable", "").await;
    let other = "a quiet river under paper clouds";
    users("change-password", other).await;
    assert_eq!(Superuser::sign_in(&app, USER, PASSWORD).await, 422);
    assert_eq!(Superuser::sign_in(&app, USER, other).await, 303);
    users("delete", "").await;
    assert_eq!(Superuser::sign_in(&app, USER, other).await, 422);
    said(&app.run(&["users", "delete", "--user", USER]).await, 1);
}
