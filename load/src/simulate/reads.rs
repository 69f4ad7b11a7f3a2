//! What one process shows, against what it may show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use event_tracker::domain::{Day, EventName, Hour, HourRange};
use event_tracker::node::Node;
use event_tracker::store::memory::MemoryStore;
use event_tracker::store::{HourlyQuery, Store};
use parking_lot::Mutex;

use super::record::Record;
use super::script::{CORRECTED, DELETED, HOT, Look, MOVED, PURGED};
use crate::check::Scope;

/// How old at most what a node knows of others' commits may be: see [`event_tracker::committed`].
const STALENESS: Duration = Duration::from_millis(110);
const ROWS_MAX: usize = 1_000_000;

pub(super) struct Reader {
    machine: usize,
    node: Arc<Node>,
    /// Whether its process does: a dead one answers nothing.
    lives: Arc<AtomicBool>,
    shared: Arc<Record>,
    /// What was shown of an event, and when at the latest that was.
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    /// How often the store has gone back, and when it did.
    era: u64,
    since: Duration,
    of: BTreeMap<String, Vec<(Duration, u64)>>,
}

/// Counts of these are hidden, moved or taken away by administrators.
fn is_edited(event: &str) -> bool {
    event == DELETED || event == PURGED || event == CORRECTED || MOVED.contains(&event)
}

impl Reader {
    pub(super) fn new(machine: usize, node: Arc<Node>, lives: Arc<AtomicBool>, shared: Arc<Record>) -> Self {
        Self { machine, node, lives, shared, shown: Mutex::default() }
    }

    /// The store went back: it may show less than before, where others' counts are gone.
    pub(super) fn forget_shown(&self) {
        let mut shown = self.shown.lock();
        *shown = Shown { era: shown.era + 1, since: self.shared.now(), of: BTreeMap::new() };
    }

    pub(super) async fn read(&self, look: Look, wall: SystemTime) {
        let (era, began) = (self.shown.lock().era, self.shared.now());
        let query = &self.node.query;
        let event = EventName::parse(HOT[0]);
        let hour = Hour::containing(wall);
        let day = Day::containing(hour);
        let read = match (look, event) {
            (Look::Totals, _) => query.totals().await.map(|totals| {
                let shown = totals.into_iter().map(|total| (total.event.as_str().to_owned(), total.count));
                self.check_events(shown.collect(), (era, began), true);
            }),
            (Look::Hourly, _) => query.hourly(HourRange::ALL, ROWS_MAX).await.map(|rows| {
                let mut shown = BTreeMap::new();
                for row in rows {
                    *shown.entry(row.event.as_str().to_owned()).or_insert(0) += row.count;
                }
                self.check_events(shown, (era, began), true);
            }),
            (Look::EventSums, _) => query.event_sums(HourRange::ALL).await.map(|sums| {
                let shown = sums.into_iter().map(|(event, count)| (event.as_str().to_owned(), count));
                self.check_events(shown.collect(), (era, began), true);
            }),
            (Look::HourSums, _) => query.hour_sums(HourRange { first: hour, last: hour }).await.map(|sums| {
                let shown = sums.iter().map(|(_, count)| count).sum();
                let scope = Scope { event: None, hours: HourRange { first: hour, last: hour } };
                self.check(&format!("all at {hour}"), scope, shown, began);
            }),
            (Look::EventHours, Ok(event)) => query.event_hours(&event, HourRange::ALL).await.map(|rows| {
                let shown = [(HOT[0].to_owned(), rows.iter().map(|row| row.count).sum())];
                self.check_events(shown.into(), (era, began), false);
            }),
            (Look::Day, Ok(event)) => query.day(&event, day).await.map(|series| {
                let shown = series.map_or(0, |series| series.counts.iter().sum());
                let scope = Scope { event: Some(HOT[0]), hours: day.range() };
                self.check(&format!("{} on {day}", HOT[0]), scope, shown, began);
            }),
            (_, Err(_)) => return,
        };
        self.shared.figures().reads += u64::from(read.is_ok());
        if let Err(error) = read {
            self.shared.say(format_args!("{look:?} by {}: {error}", self.machine));
        }
    }

    fn check(&self, what: &str, scope: Scope<'_>, shown: u64, began: Duration) {
        if !self.lives.load(Ordering::Relaxed) {
            return;
        }
        let ended = self.shared.now();
        let history = self.shared.history_told();
        let mut bounds = history.bounds(scope, self.machine, began, ended, STALENESS);
        if scope.event.is_none() {
            // Deleted ones are hidden, and what was corrected can't be told apart here.
            let edited = history.operations.iter().filter(|operation| is_edited(&operation.event));
            bounds.lower -= edited.map(|operation| i128::from(operation.count.unsigned_abs())).sum::<i128>();
            bounds.upper += history
                .operations
                .iter()
                .filter(|operation| operation.event == CORRECTED)
                .map(|operation| i128::from(operation.count.unsigned_abs()))
                .sum::<i128>();
        }
        drop(history);
        if !bounds.contain(shown) {
            let by = self.machine;
            self.shared.wrong(format!("{by} shows {shown} of {what}, and should show {bounds}: asked at {began:?}"));
        }
    }

    /// What was shown of all events, or of some of them only.
    fn check_events(&self, shown: BTreeMap<String, u64>, (era, began): (u64, Duration), all: bool) {
        let names: Vec<String> = if all {
            let history = self.shared.history();
            let mut names: Vec<_> = history.operations.iter().map(|operation| operation.event.clone()).collect();
            names.extend(shown.keys().cloned());
            names.sort_unstable();
            names.dedup();
            names
        } else {
            shown.keys().cloned().collect()
        };
        for name in names.iter().filter(|name| !is_edited(name)) {
            let count = shown.get(name).copied().unwrap_or(0);
            self.check(name, Scope { event: Some(name), hours: HourRange::ALL }, count, began);
            self.check_does_not_shrink(name, count, era, began);
        }
        if all {
            let moved: u64 = MOVED.iter().filter_map(|name| shown.get(*name)).sum();
            self.check_moved(moved, began);
        }
    }

    /// Wherever they are shown, together they are what was counted of them.
    fn check_moved(&self, shown: u64, began: Duration) {
        if !self.lives.load(Ordering::Relaxed) {
            return;
        }
        let ended = self.shared.now();
        let history = self.shared.history_told();
        let bounds = MOVED.map(|name| {
            let scope = Scope { event: Some(name), hours: HourRange::ALL };
            history.bounds(scope, self.machine, began, ended, STALENESS)
        });
        drop(history);
        let (lower, upper) =
            (bounds.iter().map(|b| b.lower).sum::<i128>(), bounds.iter().map(|b| b.upper).sum::<i128>());
        if !(lower..=upper).contains(&i128::from(shown)) {
            self.shared.wrong(format!("{shown} of moved events, and should be {lower} to {upper}: asked at {began:?}"));
        }
    }

    fn check_does_not_shrink(&self, name: &str, count: u64, era: u64, began: Duration) {
        let ended = self.shared.now();
        let mut all = self.shown.lock();
        // Until then it may still show what it knew of others.
        let is_old = all.era > 0 && began < all.since + STALENESS;
        if is_old || all.era != era || !self.lives.load(Ordering::Relaxed) {
            return;
        }
        let shown = all.of.entry(name.to_owned()).or_default();
        let before = shown.iter().filter(|(at, _)| *at <= began).map(|(_, count)| *count).max().unwrap_or(0);
        shown.push((ended, count));
        drop(all);
        if count < before {
            let by = self.machine;
            self.shared.wrong(format!("{by} shows {count} of {name}, and showed {before} before: asked at {began:?}"));
        }
    }

    /// At rest, it shows what the store holds.
    pub(super) async fn compare(&self, store: &MemoryStore) {
        let query = HourlyQuery { range: HourRange::ALL, names: Vec::new(), rows_max: usize::MAX };
        let Ok(held) = store.hourly(query, Vec::new()).await else { return };
        let held: u128 = held.value.iter().map(|row| u128::from(row.count)).sum();
        match self.node.query.all_totals().await {
            Ok((totals, _)) => {
                let shown: u128 = totals.iter().map(|total| u128::from(total.count)).sum();
                if shown != held {
                    self.shared.wrong(format!("{} shows {shown} in all, and the store holds {held}", self.machine));
                }
            }
            Err(error) => self.shared.wrong(format!("{} can't be read at rest: {error}", self.machine)),
        }
    }
}
