//! What administrators do to a store, each promise tried on SQLite and on PostgreSQL.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use event_tracker::domain::{EventName, Hour, HourlyCount};
use event_tracker::store::Store;
use event_tracker::store::admin::{Aliases, CatalogEntry, Change, Changed, Fact, Facts, LoggedChange, Told};

use crate::store_contract::{
    self, Bench, balanced_books, batch, hour, on_both_stores, on_partitions, on_partitions_and_in_memory, request, rows,
};

mod accounts;
mod changes;
mod corrections;
mod facts;
mod in_flight;
mod node;
mod purges;
mod races;

/// A time with more digits than are kept, so that rounding shows.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 123_456_789).unwrap()
}

pub fn name(text: &str) -> EventName {
    EventName::parse(text).unwrap()
}

pub fn relocate(from: &str, into: &str) -> Change {
    Change::Move { from: name(from), into: name(into) }
}

pub fn describe(event: &str, description: &str) -> Change {
    Change::Describe { event: name(event), description: description.into() }
}

pub fn set_active(event: &str, active: bool) -> Change {
    Change::SetActive { event: name(event), active }
}

pub fn delete(event: &str) -> Change {
    Change::Delete { event: name(event) }
}

/// Without a grace: at once.
pub fn purge(event: &str) -> Change {
    Change::Purge { event: name(event), grace: TimeDelta::zero() }
}

pub fn correct(event: &str, number: u32, expected: u64, count: u64) -> Change {
    Change::Correct { event: name(event), hour: hour(number), expected, count, reason: "miscounted".into() }
}

/// Makes the change; the books must balance afterwards. Gives its number.
pub async fn done(store: &Arc<dyn Store>, change: Change) -> i64 {
    let told = format!("{change:?}");
    let changed = store.change(change, "ada", now()).await.unwrap();
    balanced_books(store).await;
    match changed {
        Changed::Done { change } => change,
        Changed::Refused { reason } => panic!("{told}: {reason}"),
    }
}

/// Expects that the change is refused with `part` in the reason, and changes nothing at all.
pub async fn refused(store: &Arc<dyn Store>, change: Change, part: &str) {
    let told = format!("{change:?}");
    let before = everything(store).await;
    match store.change(change, "ada", now()).await.unwrap() {
        Changed::Refused { reason } => assert!(reason.to_string().contains(part), "{told}: {reason}"),
        Changed::Done { .. } => panic!("{told} was done"),
    }
    assert_eq!(everything(store).await, before, "{told}");
}

/// The rows under the events that they belong to.
pub async fn stored(store: &Arc<dyn Store>) -> Vec<HourlyCount> {
    let aliases = Aliases::from(&store.catalog().await.unwrap());
    aliases.apply(store_contract::stored(store).await)
}

/// The totals of events as (name, count).
pub async fn totals(store: &Arc<dyn Store>) -> Vec<(String, u64)> {
    let aliases = Aliases::from(&store.catalog().await.unwrap());
    let totals = aliases.apply(store.totals(vec![]).await.unwrap().value);
    totals.into_iter().map(|total| (total.event.as_str().to_owned(), total.count)).collect()
}

/// All that a change may touch.
pub async fn everything(store: &Arc<dyn Store>) -> String {
    let totals = store.totals(vec![]).await.unwrap().value;
    let log = store.changes(vec![], None, 1_000).await.unwrap();
    format!("{:?} {totals:?} {:?} {log:?}", stored(store).await, store.catalog().await.unwrap())
}

/// Rows, totals and catalog, without what only ever grows.
pub async fn contents(store: &Arc<dyn Store>) -> String {
    let totals = store.totals(vec![]).await.unwrap().value;
    format!("{:?} {totals:?} {:?}", stored(store).await, store.catalog().await.unwrap().entries)
}

pub async fn entry(store: &Arc<dyn Store>, event: &str) -> CatalogEntry {
    store.catalog().await.unwrap().entries.get(&name(event)).cloned().unwrap_or_default()
}

/// The facts of a line.
pub fn told(line: &LoggedChange) -> (&[Fact], &[Fact]) {
    match &line.told {
        Told::Facts(Facts { before, after }) => (before, after),
        Told::Sentences { .. } => panic!("no facts: {line:?}"),
    }
}

/// All counts of an event, as the log tells them.
pub fn counted(event: &str, count: u64, first: u32, last: u32) -> Fact {
    Fact::Counts { event: name(event), count, first_hour: hour(first), last_hour: hour(last) }
}

pub fn uncounted(event: &str) -> Fact {
    Fact::NoCounts { event: name(event) }
}

pub fn alias_of(event: &str) -> Fact {
    Fact::AliasOf { event: name(event) }
}

pub fn undid(change: i64, what: &str) -> Fact {
    Fact::Undid { change, what: what.into() }
}

/// The totals' hours as (name, first, last).
pub async fn spans(store: &Arc<dyn Store>) -> Vec<(String, Hour, Hour)> {
    let aliases = Aliases::from(&store.catalog().await.unwrap());
    let totals = aliases.apply(store.totals(vec![]).await.unwrap().value);
    totals.into_iter().map(|total| (total.event.to_string(), total.first_hour, total.last_hour)).collect()
}

pub fn later(seconds: i64) -> DateTime<Utc> {
    now() + TimeDelta::seconds(seconds)
}
