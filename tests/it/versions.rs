//! A version tag stands for contents: no slow read brings an old one back, and what is read under one tag
//! only grows.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_tracker::domain::{EventName, HourRange};
use event_tracker::node::Node;
use event_tracker::store::{Store, StoreError};

use crate::harness::fleet::{Fleet, Seed, seeds};
use crate::harness::node::{node, options, record};
use crate::harness::unsteady::{Unsteady, folder};

async fn sum(node: &Node) -> u64 {
    node.query.totals().await.unwrap().iter().map(|total| total.count).sum()
}

#[tokio::test]
async fn a_slow_read_brings_no_old_version_back() {
    let folder = folder();
    let store = Unsteady::open(&folder.path().join("events.sqlite"));
    let start = |name: &str| node(&folder.path().join(name), store.clone() as Arc<dyn Store>, options());
    let (here, there) = (start("here"), start("there"));
    for node in [&here, &there] {
        node.meet_store().await.unwrap();
    }
    record(&there, "login", 440_000, 1);
    there.flusher.flush().await.unwrap();
    let before = here.query.version().await.unwrap();

    let held = store.hold_next_read();
    held.may_read.notify_one();
    let slow = here.query.hourly(HourRange::ALL, 100);
    let others = async {
        held.has_read.notified().await;
        record(&there, "login", 440_000, 10);
        there.flusher.flush().await.unwrap();
        // Nothing is kept of the totals, so they are read anew and show it.
        assert_eq!(sum(&here).await, 11);
        let version = here.query.version().await.unwrap();
        assert_ne!(version, before);
        held.go_on.notify_one();
        version
    };
    let (rows, version) = tokio::join!(slow, others);
    assert_eq!(rows.unwrap()[0].count, 1, "it was read before");
    assert_eq!(here.query.version().await.unwrap(), version);
    assert_eq!(sum(&here).await, 11);
    assert_eq!(here.query.hourly(HourRange::ALL, 100).await.unwrap()[0].count, 11, "slow rows are not kept as new");
}

/// As the torture of the real program found it: after an outage a read has to connect first, and its rows are newer
/// than what a look saw that began after it.
#[tokio::test]
async fn no_list_shows_less_than_another_one_that_came_late() {
    let folder = folder();
    let store = Unsteady::open(&folder.path().join("events.sqlite"));
    let start = |name: &str| node(&folder.path().join(name), store.clone() as Arc<dyn Store>, options());
    let (here, there) = (start("here"), start("there"));
    for node in [&here, &there] {
        node.meet_store().await.unwrap();
    }
    record(&there, "login", 440_000, 1);
    there.flusher.flush().await.unwrap();
    assert_eq!(sum(&here).await, 1, "the totals are kept");

    let held = store.hold_next_read();
    let late = here.query.hourly(HourRange::ALL, 100);
    let others = async {
        held.is_asked.notified().await;
        here.query.version().await.unwrap();
        record(&there, "login", 440_000, 10);
        there.flusher.flush().await.unwrap();
        held.may_read.notify_one();
        held.go_on.notify_one();
    };
    let (rows, ()) = tokio::join!(late, others);
    assert_eq!(rows.unwrap()[0].count, 11);
    assert_eq!(sum(&here).await, 11, "the totals are as new as the rows were");
}

/// What was read under each tag.
type Contents = BTreeMap<String, BTreeMap<EventName, u64>>;

async fn reads_under_one_tag_only_grow(fleet: &Fleet, contents: &mut Contents) {
    for node in fleet.members.iter().filter_map(|member| member.node.as_ref()) {
        let read = async || node.query.totals().await;
        let Ok::<_, StoreError>((version, totals)) = node.query.with_version(read).await else { continue };
        let totals: BTreeMap<_, _> = totals.into_iter().map(|total| (total.event, total.count)).collect();
        if let Some(earlier) = contents.insert(version.to_string(), totals.clone()) {
            for (event, count) in earlier {
                assert!(totals.get(&event) >= Some(&count), "{version}: {event} went from {count} to {totals:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_read_under_one_tag_only_grows_on_many_nodes() {
    for seed in seeds(40) {
        let (_seed, mut fleet, mut contents) = (Seed(seed), Fleet::new(seed), Contents::new());
        for _ in 0..60 {
            fleet.step(true).await;
            reads_under_one_tag_only_grow(&fleet, &mut contents).await;
        }
    }
}

#[tokio::test]
async fn what_is_read_under_one_tag_only_grows_on_a_store_that_goes_back() {
    for seed in seeds(40) {
        let (_seed, mut fleet, mut contents) = (Seed(seed), Fleet::new(seed), Contents::new());
        fleet.alone();
        for _ in 0..60 {
            fleet.step(false).await;
            if rand::Rng::random_bool(&mut fleet.random, 0.25) {
                fleet.bad_day().await;
            }
            reads_under_one_tag_only_grow(&fleet, &mut contents).await;
        }
    }
}
