//! What a run knows from outside of the processes: what was sent and answered, and what reads may therefore show.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use event_tracker::domain::{Ack, Hour, HourRange};
use parking_lot::Mutex;

use super::figures::{Fact, Figures};
use super::sums::{Charge, Fence, Hours, Lower, Sums};
use crate::check::{History, Outcome};

/// How long a node may not show what another one has in the store.
pub const STALENESS: Duration = Duration::from_millis(500);
/// An operation that begins so short before a full hour may be counted in the next.
const HOUR_MARGIN: Duration = Duration::from_secs(20);
/// Names that all nodes count.
pub const HOT: usize = 16;
/// Wrong things that are told; there may be very many.
const TOLD_MAX: usize = 40;

/// A row as the range route gives it.
pub type Row = (String, Hour);

pub struct Observed {
    began: Instant,
    pub figures: Arc<Figures>,
    tags: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Operations with a name of their own.
    history: History,
    /// Those of these that may be counted in the next hour, too.
    around_an_hour: Vec<(usize, Hour)>,
    /// Operations with shared names.
    sums: Sums,
    /// The shared names are new in each round, so that what is not certain of one does not hide a fault of the next.
    round: u64,
    /// How many processes of each data folder have ended.
    lives: BTreeMap<usize, u64>,
    /// What earlier rounds came to, exactly.
    settled: Arc<HashMap<String, u64>>,
    settled_rows: BTreeMap<Row, u64>,
    wrong: Vec<String>,
}

/// What one request asks for.
#[derive(Debug)]
pub struct Sent {
    by: usize,
    life: u64,
    charges: Vec<Charge>,
    tag: Option<(usize, u64)>,
    hours: Hours,
}

/// A read that has begun.
pub struct Asked {
    pub by: usize,
    began: Duration,
    lower: Lower,
    pub round: u64,
    era: u64,
}

/// An operation that ends only when all that was acknowledged before is in the store.
pub struct Waiting {
    by: usize,
    life: u64,
    era: u64,
    began: Duration,
    fence: Fence,
}

impl Observed {
    #[must_use]
    pub fn new(figures: Arc<Figures>) -> Self {
        Self { began: Instant::now(), figures, tags: AtomicU64::new(0), state: Mutex::default() }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// A name that no other operation has.
    pub fn tag(&self) -> String {
        format!("tag-{}", self.tags.fetch_add(1, Ordering::Relaxed))
    }

    #[must_use]
    pub fn round(&self) -> u64 {
        self.state.lock().round
    }

    /// One of the names that all nodes count in this round.
    #[must_use]
    pub fn hot(round: u64, event: usize) -> String {
        format!("hot-{round}-{event}")
    }

    /// The number of the process that runs on a data folder, or of the next.
    #[must_use]
    pub fn life(&self, by: usize) -> u64 {
        self.state.lock().lives.get(&by).copied().unwrap_or(0)
    }

    /// Something is going to be sent to a process.
    pub fn send(&self, (by, life): (usize, u64), charges: Vec<Charge>, tag: Option<(&str, u64)>) -> Sent {
        let wall = SystemTime::now();
        let hours = Hours { first: Hour::containing(wall), last: Hour::containing(wall + HOUR_MARGIN) };
        let mut state = self.state.lock();
        let now = self.now();
        state.sums.begin(&charges, hours);
        let tag = tag.map(|(name, count)| {
            let signed = i64::try_from(count).unwrap_or(i64::MAX);
            let number = state.history.begin(name, hours.first, signed, by, now);
            if !hours.is_certain() {
                state.around_an_hour.push((number, hours.last));
            }
            (number, count)
        });
        drop(state);
        Sent { by, life, charges, tag, hours }
    }

    pub fn answered(&self, sent: &Sent, outcome: Outcome) {
        let Sent { by, life, charges, tag, hours } = sent;
        let mut state = self.state.lock();
        let has_ended = state.lives.get(by).copied().unwrap_or(0) != *life;
        let outcome = match outcome {
            // The answer was under way when its process ended, and what that had in memory is gone.
            Outcome::Acknowledged(Ack::Memory) if has_ended => Outcome::Unknown,
            other => other,
        };
        let now = self.now();
        state.sums.end(charges, *by, *hours, outcome);
        if let Some((number, _)) = tag {
            state.history.end(*number, outcome, now);
        }
        drop(state);
        let increments = charges.iter().map(|charge| charge.count).sum::<u64>() + tag.map_or(0, |(_, count)| count);
        match outcome {
            Outcome::Acknowledged(_) => {
                self.figures.note(Fact::Acknowledged);
                self.figures.add(Fact::Increments, increments);
                self.figures.add(Fact::Tags, u64::from(tag.is_some()));
            }
            Outcome::NotCounted => self.figures.note(Fact::NotCounted),
            Outcome::Unknown | Outcome::Pending => self.figures.note(Fact::Unknown),
        }
    }

    /// The process of a data folder is gone; `kept`: it said that nothing is lost by that.
    pub fn ended(&self, by: usize, kept: bool) {
        let mut state = self.state.lock();
        *state.lives.entry(by).or_default() += 1;
        if kept {
            state.sums.kept(by);
            state.history.kept(by, true);
        } else {
            state.sums.crash(by);
            state.history.crash(by, false);
        }
    }

    pub fn fence(&self, (by, life): (usize, u64)) -> Waiting {
        let mut state = self.state.lock();
        let (began, era) = (self.now(), state.history.era);
        Waiting { by, life, era, began, fence: state.sums.fence(by) }
    }

    /// It was acknowledged at level `store`.
    pub fn passed(&self, waiting: Waiting) {
        let mut state = self.state.lock();
        let Waiting { by, life, era, began, fence } = waiting;
        // Once the store has gone back, batches may come into it in another order.
        if state.lives.get(&by).copied().unwrap_or(0) != life || state.history.era != era || era > 0 {
            return;
        }
        let now = self.now();
        state.sums.passed(fence, now, STALENESS);
        state.history.settle(by, began, Some(now));
    }

    pub fn went_back(&self) {
        let mut state = self.state.lock();
        state.sums.went_back();
        state.history.went_back();
    }

    /// A read of the process of a data folder begins.
    #[must_use]
    pub fn ask(&self, by: usize) -> Asked {
        let mut state = self.state.lock();
        let began = self.now();
        let lower = state.sums.lower(by, began, STALENESS);
        Asked { by, began, lower, round: state.round, era: state.history.era }
    }

    /// Checks totals of all names; those that are not there were not shown.
    pub fn check_totals(&self, what: &str, asked: &Asked, shown: &HashMap<String, u64>) {
        let of = |name: &str| shown.get(name).copied().unwrap_or(0);
        let mut wrong = Vec::new();
        let state = self.state.lock();
        let ended = self.now();
        let holds = state.history.era == asked.era;
        for event in 0..HOT {
            let name = Self::hot(asked.round, event);
            let bounds = state.sums.bounds(event, None, &asked.lower, holds);
            if !bounds.contain(of(&name)) {
                wrong.push(format!("{name} is {}, and should be {bounds}", of(&name)));
            }
        }
        wrong.extend(state.history.check_tagged(of, asked.by, (asked.began, ended), STALENESS).err());
        let settled = Arc::clone(&state.settled);
        let checked = HOT + settled.len() + state.history.operations.len();
        drop(state);
        let changed = settled.iter().filter(|(name, count)| of(name) != **count);
        wrong.extend(changed.map(|(name, count)| format!("{name} is {}, and was {count} for good", of(name))));
        let hot = Self::hot(asked.round, 0);
        let hot = hot.trim_end_matches('0');
        let is_known = |name: &str| name.starts_with("tag-") || name.starts_with(hot) || settled.contains_key(name);
        let strange = shown.keys().filter(|name| !is_known(name));
        wrong.extend(strange.map(|name| format!("nobody has counted {name}")));
        self.figures.add(Fact::ValuesChecked, checked as u64);
        for wrong in wrong {
            self.wrong(format!("{what} of node {}, asked from {:?} to {ended:?}: {wrong}", asked.by, asked.began));
        }
    }

    /// Checks hours of one of the shared names `within` a range; those that are not there were not shown.
    pub fn check_hours(&self, what: &str, asked: &Asked, event: usize, within: HourRange, shown: &BTreeMap<Hour, u64>) {
        let state = self.state.lock();
        let holds = state.history.era == asked.era;
        let mut hours: Vec<Hour> = state.sums.hours(event).chain(shown.keys().copied()).collect();
        hours.retain(|hour| within.contains(*hour));
        hours.sort_unstable();
        hours.dedup();
        let mut wrong = Vec::new();
        for hour in &hours {
            let count = shown.get(hour).copied().unwrap_or(0);
            let bounds = state.sums.bounds(event, Some(*hour), &asked.lower, holds);
            if !bounds.contain(count) {
                wrong.push(format!("{} at {hour} is {count}, and should be {bounds}", Self::hot(asked.round, event)));
            }
        }
        drop(state);
        self.figures.add(Fact::ValuesChecked, hours.len() as u64);
        for wrong in wrong {
            let ended = self.now();
            self.wrong(format!("{what} of node {}, asked from {:?} to {ended:?}: {wrong}", asked.by, asked.began));
        }
    }

    /// Nothing is under way, and this is what the store holds: compares all of it exactly, and goes on to the next
    /// round with new names.
    pub fn settle(&self, held: &BTreeMap<Row, u64>) {
        let mut state = self.state.lock();
        let mut wrong = Vec::new();
        for (number, next) in std::mem::take(&mut state.around_an_hour) {
            let operation = &mut state.history.operations[number];
            if held.contains_key(&(operation.event.clone(), next)) {
                operation.hour = next;
            }
        }
        let round = state.round;
        for event in 0..HOT {
            let name = Self::hot(round, event);
            let hours: Vec<Hour> = state.sums.hours(event).collect();
            let each = hours.iter().map(|hour| held.get(&(name.clone(), *hour)).copied().unwrap_or(0));
            let of_name = held.iter().filter(|((other, _), _)| *other == name);
            let all = of_name.map(|(_, count)| count).sum::<u64>();
            let shown = hours.iter().map(|hour| Some(*hour)).zip(each).chain([(None, all)]);
            for (hour, shown) in shown {
                let bounds = state.sums.at_rest(event, hour);
                if !bounds.contain(shown) {
                    wrong.push(format!("{name} at {hour:?} is {shown}, and should be {bounds}"));
                }
            }
        }
        let is_settled = |row: &Row| state.settled_rows.contains_key(row);
        let changed = state.settled_rows.iter().filter(|(row, count)| held.get(*row) != Some(*count));
        wrong.extend(changed.map(|(row, count)| format!("{row:?} is {:?}, and was {count} for good", held.get(row))));
        let is_hot = |name: &str| name.starts_with(&format!("hot-{round}-"));
        let fresh = held.iter().filter(|(row, _)| !is_settled(row) && !is_hot(&row.0));
        let fresh: BTreeMap<Row, u64> = fresh.map(|(row, count)| (row.clone(), *count)).collect();
        wrong.extend(state.history.check_at_rest(&fresh, |_| false).err());
        state.round += 1;
        state.sums = Sums::default();
        state.history = History::default();
        let mut settled = HashMap::new();
        for ((name, _), count) in held {
            *settled.entry(name.clone()).or_default() += count;
        }
        (state.settled, state.settled_rows) = (Arc::new(settled), held.clone());
        drop(state);
        wrong.into_iter().for_each(|wrong| self.wrong(format!("at rest in round {round}: {wrong}")));
    }

    /// How often the store has gone back in this round.
    #[must_use]
    pub fn era(&self) -> u64 {
        self.state.lock().history.era
    }

    pub fn wrong(&self, what: String) {
        let mut state = self.state.lock();
        if state.wrong.len() < TOLD_MAX {
            state.wrong.push(what);
        }
    }

    #[must_use]
    pub fn wrongs(&self) -> Vec<String> {
        self.state.lock().wrong.clone()
    }

    #[must_use]
    pub fn is_wrong(&self) -> bool {
        !self.state.lock().wrong.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One round in which one name of its own and one shared name were counted, and what a right service holds then.
    fn round() -> (Observed, BTreeMap<Row, u64>, String) {
        let observed = Observed::new(Arc::default());
        let mut held = BTreeMap::new();
        let (tag, hour) = (observed.tag(), Hour::containing(SystemTime::now()));
        let sent = observed.send((0, 0), vec![Charge { event: 3, count: 70 }], Some((&tag, 5)));
        observed.answered(&sent, Outcome::Acknowledged(Ack::Journal));
        let sent = observed.send((0, 0), vec![Charge { event: 3, count: 900 }], None);
        observed.answered(&sent, Outcome::NotCounted);
        held.insert((tag.clone(), hour), 5);
        held.insert((Observed::hot(0, 3), hour), 70);
        (observed, held, tag)
    }

    fn totals(held: &BTreeMap<Row, u64>) -> HashMap<String, u64> {
        held.iter().map(|((name, _), count)| (name.clone(), *count)).collect()
    }

    #[test]
    fn what_is_right_passes_while_it_runs_and_at_rest() {
        let (observed, held, _) = round();
        observed.check_totals("unique", &observed.ask(0), &totals(&held));
        // Another node need not know it yet.
        observed.check_totals("unique", &observed.ask(1), &HashMap::new());
        observed.settle(&held);
        observed.check_totals("unique", &observed.ask(1), &totals(&held));
        observed.settle(&held);
        assert_eq!(observed.wrongs(), Vec::<String>::new());
    }

    #[test]
    fn whatever_is_lost_doubled_or_not_counted_is_found_by_reads_and_at_rest() {
        let (_, held, _) = round();
        for row in held.keys() {
            for change in [-1, 1, 900, -5] {
                let (observed, mut wrong, _) = round();
                let count = wrong.entry(row.clone()).or_default();
                *count = count.saturating_add_signed(change);
                observed.check_totals("unique", &observed.ask(0), &totals(&wrong));
                assert!(observed.is_wrong(), "{row:?} {change}");
                let (observed, ..) = round();
                observed.settle(&wrong);
                assert!(observed.is_wrong(), "{row:?} {change}");
            }
        }
        let (observed, mut held, tag) = round();
        observed.settle(&held);
        held.retain(|(name, _), _| *name != tag);
        observed.check_totals("unique", &observed.ask(1), &totals(&held));
        assert!(observed.wrongs()[0].contains("was 5 for good"), "{:?}", observed.wrongs());
    }

    #[test]
    fn an_answer_from_memory_that_comes_after_the_crash_is_not_certain() {
        let observed = Observed::new(Arc::default());
        let tag = observed.tag();
        let sent = observed.send((0, 0), Vec::new(), Some((&tag, 5)));
        observed.ended(0, false);
        observed.answered(&sent, Outcome::Acknowledged(Ack::Memory));
        observed.settle(&BTreeMap::new());
        assert!(!observed.is_wrong());
        assert_eq!(observed.figures.of(Fact::Unknown), 1);
    }

    #[test]
    fn others_show_what_a_fence_was_behind_unless_the_store_goes_back() {
        for goes_back in [false, true] {
            let (observed, _, _) = round();
            let waiting = observed.fence((0, 0));
            if goes_back {
                observed.went_back();
            }
            observed.passed(waiting);
            std::thread::sleep(STALENESS);
            observed.check_totals("unique", &observed.ask(1), &HashMap::new());
            assert_eq!(observed.is_wrong(), !goes_back);
        }
    }
}
