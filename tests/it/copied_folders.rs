//! Copies of a data folder, made at any moment and started on the same store: nothing is doubled, and
//! nothing is lost as long as the store's log can tell what it has. Later, what it lacks is reported to the
//! unit.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use event_tracker::batch::Mark;
use event_tracker::domain::WriterId;
use event_tracker::journal::files::OsFiles;
use futures_util::FutureExt;

use crate::harness::fleet::{Fleet, Seed, copy_folder, seeds};
use crate::harness::{Backend, Tally, TestApp, Traffic, eventually};

#[tokio::test]
async fn copies_at_any_moment_double_nothing_and_lose_nothing() {
    for seed in seeds(150) {
        let _seed = Seed(seed);
        let mut fleet = Fleet::new(seed);
        for _ in 0..60 {
            fleet.step(true).await;
        }
        assert_eq!(fleet.settle().await, 0);
    }
}

#[tokio::test]
async fn what_the_log_can_not_tell_any_more_is_kept_and_reported_to_the_unit() {
    let mut with_losses = 0;
    for seed in seeds(150) {
        let _seed = Seed(seed);
        let mut fleet = Fleet::new(seed);
        for _ in 0..60 {
            fleet.step(true).await;
            fleet.store.forget_log();
        }
        with_losses += u32::from(fleet.settle().await > 0);
    }
    assert!(with_losses > 0, "the cases are too tame");
}

/// What the nodes of these folders say is missing. Copies of one folder say the same of one writer.
fn missing<'a>(folders: impl Iterator<Item = &'a Path>) -> i128 {
    let mut missing: BTreeMap<WriterId, i128> = BTreeMap::new();
    for folder in folders {
        for (writer, count) in Mark::read(&OsFiles::open(folder).unwrap()).unwrap().missing {
            let known = missing.entry(writer).or_default();
            *known = count.max(*known);
        }
    }
    missing.values().sum()
}

/// `EVENT_TRACKER_CLONES` says how many.
#[tokio::test]
async fn clones_of_a_running_node_started_beside_it_double_nothing_and_lose_nothing() {
    let wanted = std::env::var("EVENT_TRACKER_CLONES").map_or(4, |text| text.parse().unwrap());
    // Most clones are there before the batch that they have the beginning of is committed.
    let mut app = TestApp::with(Backend::Postgres).config("flush.interval_ms", 1_500).start().await;
    let tally = Arc::new(Tally::default());
    let traffic = Traffic::start(&app, &tally, 4, "");
    let (mut clones, mut refused) = (Vec::new(), 0);
    while clones.len() < wanted {
        let more = tally.answers() + 20;
        eventually("traffic to go on", async || tally.answers() >= more).await;
        let mut clone = app.another_node().await;
        clone.configure("flush.interval_ms", 10);
        copy_folder(&app.data_dir(), &clone.data_dir());
        // A copy whose files are not of one moment may lack a segment, and then says so.
        if AssertUnwindSafe(clone.restart()).catch_unwind().await.is_err() {
            refused += 1;
            assert!(refused <= wanted / 10 + 1, "{refused} copies of {} were refused", clones.len());
            continue;
        }
        let beside = Traffic::start(&clone, &tally, 1, "");
        beside.answered(10).await;
        beside.stop().await;
        clone.stop().await;
        clones.push(clone);
    }
    traffic.stop().await;
    let log = app.stop().await;
    let store = app.store().await;
    let books = store.audit().await.unwrap();
    store.close().await;
    assert!(books.balance(), "{books:?}");
    let folders: Vec<_> = clones.iter().chain([&app]).map(TestApp::data_dir).collect();
    let missing = missing(folders.iter().map(AsRef::as_ref));
    let acknowledged: u64 = tally.acknowledged().values().sum();
    let posts = tally.answers();
    eprintln!(
        "{} clones, {refused} refused, {posts} posts, {acknowledged} acknowledged, {missing} missing",
        clones.len()
    );
    assert_eq!((i128::from(acknowledged), missing), (books.rows, 0), "{books:?}\n{log}");
}
