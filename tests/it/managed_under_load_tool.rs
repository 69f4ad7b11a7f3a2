//! Traffic of the load tool while an administrator renames, merges, corrects and deletes events, some for
//! good, and the program is killed again and again: what was acknowledged is counted, once.

use std::collections::BTreeMap;

use serde_json::json;

use crate::harness::load::{Known, Load};
use crate::harness::{Backend, Superuser, TestApp, by_group, eventually, hours_ago, on_both_stores};

on_both_stores!(
    what_the_load_tool_got_acknowledged_is_counted_once_whatever_is_renamed_merged_corrected_deleted_or_killed,
);

const SCENARIO: &str = r#"
description = "A few clients that never rest, on few names, so that each is always in flight."

[names]
distribution = "uniform"
count = 6

[[phase]]
name = "counts"
duration_s = 300
connections = 4
think_ms = 1
mix = [
    { op = "single", weight = 6 },
    { op = "num", weight = 3, num = 7 },
    { op = "batch", weight = 1, rows = 20, count = 3 },
]
"#;

/// Counts of the corrected hour, long before the load tool.
const SEEDED: u64 = 500;

/// Which events share their counts, one way or another.
fn group(event: &str) -> &str {
    match event {
        "load-1" => "load-0",
        "pool" => "load-5",
        name if name.starts_with("renamed-") => "load-0",
        other => other,
    }
}

/// What the administrator does, and what is known of it.
struct Manager {
    admin: Superuser,
    /// A past hour of `load-2`, and its count.
    hour: String,
    count: u64,
    /// What `load-0` is called by now.
    name: String,
    renames: u64,
}

impl Manager {
    async fn change(&self, app: &TestApp, event: &str, action: &str, fields: serde_json::Value) -> i64 {
        let change = self.admin.change(app, event, action, &fields).await;
        moving(app).await;
        change
    }

    async fn undo(&self, app: &TestApp, change: i64) {
        let answer = self.admin.post(app, &format!("changes/{change}/undo"), &json!({})).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        moving(app).await;
    }

    /// Everything once, except deleting for good.
    async fn manage(&mut self, app: &TestApp) {
        let count = self.count + 379;
        let correction = json!({ "hour": self.hour, "expected": self.count, "count": count, "reason": "a test" });
        self.change(app, "load-2", "correct", correction).await;
        self.count = count;
        self.renames += 1;
        let name = format!("renamed-{}", self.renames);
        self.change(app, &self.name, "move", json!({ "into": name })).await;
        self.name = name;
        if self.renames == 2 {
            self.change(app, "load-1", "move", json!({ "into": self.name })).await;
        }
        let deletion = self.change(app, "load-3", "delete", json!({})).await;
        self.undo(app, deletion).await;
        let renaming = self.change(app, "load-5", "move", json!({ "into": "pool" })).await;
        self.undo(app, renaming).await;
    }

    /// How many counts went with each deletion that became final, as the log says.
    async fn purged(&self, app: &TestApp) -> Vec<u64> {
        let log = self.admin.get(app, "changes?limit=1000").await;
        let lines = log.as_array().unwrap().iter().filter(|line| line["what"] == "purge");
        let with = |line: &serde_json::Value| {
            assert_eq!(line["event"], "load-4");
            line["facts"]["before"][0]["count"].as_u64().expect("it had counts")
        };
        lines.map(with).collect()
    }

    /// Counts that were in flight when their event was purged: the books have them, the log does not.
    async fn overtaken(&self, app: &TestApp, purged: u64) -> u64 {
        let store = app.store().await;
        let removed = store.audit().await.unwrap().removed;
        store.close().await;
        let corrected = i128::from(self.count) - i128::from(SEEDED);
        u64::try_from(removed + corrected - i128::from(purged)).unwrap()
    }

    /// What clients have counted, by group: all that is there, without what the administrator did.
    async fn counted(&self, app: &TestApp) -> BTreeMap<String, u64> {
        let mut counted = by_group(app.totals().await, group);
        *counted.get_mut("load-2").unwrap() -= self.count;
        let purged = self.purged(app).await.iter().sum::<u64>();
        *counted.get_mut("load-4").unwrap() += purged + self.overtaken(app, purged).await;
        counted
    }
}

/// Counts go on.
async fn moving(app: &TestApp) {
    let sum = async || app.totals().await.values().sum::<u64>();
    let before = sum().await;
    eventually("more counts", async || sum().await > before + 100).await;
}

async fn what_the_load_tool_got_acknowledged_is_counted_once_whatever_is_renamed_merged_corrected_deleted_or_killed(
    backend: Backend,
) {
    let hour = hours_ago(5);
    let mut app = TestApp::with(backend)
        .keep_address()
        .config("flush.interval_ms", 20)
        // Whatever is deleted at a start is removed then.
        .config("admin.delete_grace_hours", 0)
        .stored(&[(&hour, "load-2", SEEDED)])
        .start()
        .await;
    let admin = Superuser::of(&app).await;
    let mut manager = Manager { admin, hour, count: SEEDED, name: "load-0".into(), renames: 0 };

    let load = Load::start(&app, SCENARIO);
    eventually("all events", async || app.totals().await.len() == 6).await;
    for round in 1..=3 {
        manager.manage(&app).await;
        manager.change(&app, "load-4", "delete", json!({})).await;
        app.kill().await;
        app.restart().await;
        eventually("the deletion to become final", async || manager.purged(&app).await.len() == round).await;
        eventually("it to be counted anew", async || app.total("load-4").await > 0).await;
    }
    let known = load.stop().await;
    let counted = manager.counted(&app).await;
    let sum = |of: fn(&Known) -> u64| {
        by_group(known.iter().map(|(event, known)| (event.clone(), of(known))).collect(), group)
    };
    let (acknowledged, unknown) = (sum(|known| known.acknowledged), sum(|known| known.unknown));
    assert_eq!(acknowledged.keys().collect::<Vec<_>>(), counted.keys().collect::<Vec<_>>());
    for (event, counted) in &counted {
        let (least, unknown) = (acknowledged[event], unknown[event]);
        assert!((least..=least + unknown).contains(counted), "{event}: {counted} counted, {least} + {unknown} sent");
    }

    // Nobody is killed, so every outcome is known.
    let load = Load::start(&app, SCENARIO);
    moving(&app).await;
    manager.manage(&app).await;
    let mut expected = counted;
    for (event, Known { acknowledged, unknown }) in load.stop().await {
        assert_eq!(unknown, 0, "{event}");
        *expected.get_mut(group(&event)).unwrap() += acknowledged;
    }
    assert_eq!(manager.counted(&app).await, expected);

    let sum: u64 = app.totals().await.values().sum();
    let log = app.stop().await;
    assert_eq!(app.audit().await, sum, "{log}");
}
