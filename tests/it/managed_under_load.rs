//! Renames, merges, corrections, deletions and their undoing while clients post, with `kill -9` in
//! between: every total stays exact, and the books balance.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::harness::{
    Backend, Superuser, Tally, TestApp, Traffic, by_group, eventually, hours_ago, on_both_stores, signal,
};

on_both_stores!(
    every_total_stays_exact_whatever_administrators_do_while_clients_post_and_the_program_is_killed,
    an_event_that_is_counted_without_a_pause_can_be_managed_before_its_first_flush,
);

const SEEDED: u64 = 500;

/// Which events share their counts, one way or another.
fn group(event: &str) -> &str {
    match event {
        "pool" => "shared",
        "client-1" => "client-0",
        name if name.starts_with("renamed-") => "client-0",
        other => other,
    }
}

/// What the administrator does, over and over, one after another.
struct Script {
    step: u64,
    /// The number of the last change in the log.
    last: i64,
    /// What the clients' first event is called by now.
    name: String,
    /// A past hour of `client-2`, and its count.
    hour: String,
    count: u64,
}

impl Script {
    /// Path and fields of the next change.
    fn next(&self) -> (String, serde_json::Value) {
        let action = |event: &str, action: &str| format!("events/{event}/{action}");
        match self.step % 9 {
            0 => {
                let fields = json!({
                    "hour": self.hour, "expected": self.count, "count": self.corrected(), "reason": "a test",
                });
                (action("client-2", "correct"), fields)
            }
            1 => (action(&self.name, "move"), json!({ "into": format!("renamed-{}", self.step) })),
            2 => (action("client-3", "delete"), json!({})),
            4 => (action("shared", "move"), json!({ "into": "pool" })),
            3 | 5 => (format!("changes/{}/undo", self.last), json!({})),
            6 => (action("client-2", "deactivate"), json!({})),
            7 => (action("client-2", "activate"), json!({})),
            _ if self.step == 8 => (action("client-1", "move"), json!({ "into": self.name })),
            _ => (action("client-2", "describe"), json!({ "description": format!("at step {}", self.step) })),
        }
    }

    fn corrected(&self) -> u64 {
        1 + (self.count + 379) % 1_000
    }

    /// The next change is in the store, as `change`.
    fn done(&mut self, change: i64, tally: &Tally) {
        match self.step % 9 {
            0 => {
                tally.adjust("client-2", i128::from(self.corrected()) - i128::from(self.count));
                self.count = self.corrected();
            }
            1 => self.name = format!("renamed-{}", self.step),
            _ => {}
        }
        (self.last, self.step) = (change, self.step + 1);
    }

    /// Goes on until `is_over`, or the program is gone.
    async fn run(&mut self, app: &TestApp, admin: &Superuser, tally: &Tally, is_over: impl Fn(u64) -> bool) {
        while !is_over(self.step) {
            let (path, fields) = self.next();
            let Some(answer) = admin.post(app, &path, &fields).await else { return };
            assert_eq!(answer.status, 200, "{path} {fields}: {}", answer.text());
            self.done(answer.json()["response"]["change"].as_i64().unwrap(), tally);
        }
    }

    /// Whether the change that was not answered was made, the log knows.
    async fn look_back(&mut self, app: &TestApp, admin: &Superuser, tally: &Tally) {
        let newest = admin.get(app, "changes?limit=1").await[0]["change"].as_i64().unwrap_or_default();
        if newest > self.last {
            self.done(newest, tally);
        }
    }
}

fn settle(tally: &Tally, totals: BTreeMap<String, u64>) {
    tally.regroup(group);
    tally.settle(&by_group(totals, group));
}

async fn every_total_stays_exact_whatever_administrators_do_while_clients_post_and_the_program_is_killed(
    backend: Backend,
) {
    let hour = hours_ago(5);
    let setup = TestApp::with(backend).config("flush.interval_ms", 20).stored(&[(&hour, "client-2", SEEDED)]);
    let mut app = setup.start().await;
    let admin = Superuser::of(&app).await;
    let tally = Arc::new(Tally::default());
    tally.adjust("client-2", SEEDED.into());
    let mut script = Script { step: 0, last: 0, name: "client-0".into(), hour, count: SEEDED };
    for round in 0..4 {
        let traffic = Traffic::start(&app, &tally, 4, "");
        // Every event is there before it is managed.
        eventually("all events to be counted", async || {
            tally.acknowledged().values().filter(|sum| **sum > 0).count() == 5
        })
        .await;
        let (pid, begun) = (app.pid(), script.step);
        let step = Cell::new(begun);
        let kill = async {
            eventually("changes to be made", async || step.get() >= begun + 3 + 2 * round).await;
            signal(pid, "KILL");
        };
        let run = script.run(&app, &admin, &tally, |now| {
            step.set(now);
            false
        });
        tokio::join!(run, kill);
        traffic.cut_off().await;
        app.kill().await;
        app.restart().await;
        script.look_back(&app, &admin, &tally).await;
    }
    let traffic = Traffic::start(&app, &tally, 4, "");
    traffic.answered(30).await;
    // To the end of the script, where everything is active and nothing deleted.
    let begun = script.step;
    script.run(&app, &admin, &tally, |step| step >= begun + 9 && step % 9 == 0).await;
    traffic.stop().await;
    let totals = app.totals().await;
    let sum: u64 = totals.values().sum();
    // One name of each group has all of it: aliases have nothing, nor what was undone.
    let mut names = ["client-2", "client-3", &script.name, "shared"];
    names.sort_unstable();
    assert_eq!(totals.keys().collect::<Vec<_>>(), names);
    settle(&tally, totals);
    let log = app.stop().await;
    assert_eq!(app.audit().await, sum, "{log}");
}

async fn an_event_that_is_counted_without_a_pause_can_be_managed_before_its_first_flush(backend: Backend) {
    let app = TestApp::with(backend).config("flush.interval_ms", 3_600_000).start().await;
    let admin = Superuser::of(&app).await;
    let tally = Arc::new(Tally::default());
    let traffic = Traffic::start(&app, &tally, 2, "");
    traffic.answered(20).await;
    admin.change(&app, "shared", "move", &json!({ "into": "pool" })).await;
    traffic.stop().await;
    settle(&tally, app.totals().await);
}
