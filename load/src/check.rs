//! Whether what was read agrees with what was done: every acknowledged count is there, once, at every moment.
//!
//! Each operation has the times at which it began and ended, seen from outside the process that served it. A
//! read that began and ended at two times shows at least what was acknowledged before and at most what had
//! begun until its end. An operation whose outcome is not known widens that interval and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use event_tracker::domain::{Ack, Hour, HourRange};

/// What the client knows of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is under way.
    Pending,
    Acknowledged(Ack),
    /// It was refused: nothing was counted.
    NotCounted,
    /// No answer came, or a fault has happened that its level does not cover.
    Unknown,
}

/// One count, or a correction by an administrator.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The name it was counted with. One that no other operation has tells which operation was lost or doubled.
    pub event: String,
    pub hour: Hour,
    /// Negative: a correction took away.
    pub count: i64,
    /// Who took it: a data folder.
    pub by: usize,
    pub began: Duration,
    pub ended: Option<Duration>,
    pub outcome: Outcome,
    /// Since when everybody must see it: its batch is in the store, and the store has not gone back since.
    pub stored: Option<Duration>,
    /// Whether a crash of the process or of the machine can't take it any more.
    pub is_safe: bool,
    /// How often the store had gone back when it began.
    pub era: u64,
}

impl Operation {
    /// Whether a read that begins then at the process of a data folder has to show it.
    fn must_show(&self, by: usize, began: Duration, staleness: Duration) -> bool {
        matches!(self.outcome, Outcome::Acknowledged(_))
            && self.ended.is_some_and(|end| end <= began)
            && (self.by == by || self.stored.is_some_and(|at| at + staleness <= began))
    }
}

/// Part of what was counted.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// `None`: all of them.
    pub event: Option<&'a str>,
    pub hours: HourRange,
}

impl Scope<'_> {
    pub const EVERYTHING: Self = Self { event: None, hours: HourRange::ALL };

    fn contains(&self, operation: &Operation) -> bool {
        self.event.is_none_or(|event| operation.event == event) && self.hours.contains(operation.hour)
    }
}

/// What a read may show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    pub lower: i128,
    pub upper: i128,
}

impl Bounds {
    #[must_use]
    pub fn contain(&self, shown: u64) -> bool {
        (self.lower..=self.upper).contains(&i128::from(shown))
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.lower, self.upper)
    }
}

/// All operations of a run.
#[derive(Clone, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    /// Counts that the process of each data folder has reported as missing, where what it needs to deliver them
    /// is gone.
    missing: BTreeMap<usize, i128>,
    /// How often the store has gone back.
    pub era: u64,
}

impl History {
    /// Notes that one begins; gives its number.
    pub fn begin(&mut self, event: &str, hour: Hour, count: i64, by: usize, now: Duration) -> usize {
        self.operations.push(Operation {
            event: event.to_owned(),
            hour,
            count,
            by,
            began: now,
            ended: None,
            outcome: Outcome::Pending,
            stored: None,
            is_safe: false,
            era: self.era,
        });
        self.operations.len() - 1
    }

    pub fn end(&mut self, number: usize, outcome: Outcome, now: Duration) {
        let operation = &mut self.operations[number];
        operation.ended = Some(now);
        operation.outcome = outcome;
        if outcome == Outcome::Acknowledged(Ack::Store) {
            // The store may have lost it again before the answer came.
            operation.stored = operation.stored.or_else(|| (operation.era == self.era).then_some(now));
            operation.is_safe = true;
        }
    }

    /// The process of a data folder reports so many counts as missing in all; less than none is none.
    pub fn note_missing(&mut self, by: usize, missing: i128) {
        self.missing.insert(by, missing.max(0));
    }

    /// The sum of all these reports: what one process can't deliver is missing for every reader.
    #[must_use]
    pub fn missing(&self) -> i128 {
        self.missing.values().sum()
    }

    /// The process of a data folder is gone, and with `power` all that its machine had not written to the disk.
    pub fn crash(&mut self, by: usize, power: bool) {
        for operation in self.operations.iter_mut().filter(|operation| operation.by == by) {
            let survives = match operation.outcome {
                Outcome::Acknowledged(Ack::Memory) => operation.is_safe,
                Outcome::Acknowledged(Ack::Journal) => operation.is_safe || !power,
                Outcome::Acknowledged(_) | Outcome::NotCounted | Outcome::Unknown => true,
                Outcome::Pending => false,
            };
            if !survives {
                operation.outcome = Outcome::Unknown;
            }
        }
    }

    /// The process of a data folder has ended by itself and said that the journal keeps everything, `synced` or
    /// not.
    pub fn kept(&mut self, by: usize, synced: bool) {
        for operation in self.operations.iter_mut().filter(|operation| operation.by == by) {
            match operation.outcome {
                Outcome::Acknowledged(_) if synced => operation.is_safe = true,
                Outcome::Acknowledged(Ack::Memory) => operation.outcome = Outcome::Acknowledged(Ack::Journal),
                Outcome::Acknowledged(_) => {}
                Outcome::Pending => operation.outcome = Outcome::Unknown,
                Outcome::NotCounted | Outcome::Unknown => {}
            }
        }
    }

    /// All that a data folder has taken is in the store.
    pub fn stored(&mut self, by: usize, now: Duration) {
        let counted = |operation: &&mut Operation| operation.by == by && operation.outcome != Outcome::NotCounted;
        for operation in self.operations.iter_mut().filter(counted) {
            operation.stored = Some(operation.stored.unwrap_or(now));
            operation.is_safe = true;
        }
    }

    /// Notes that a crash can't take any more what a data folder's process had acknowledged by `until`. `stored`: since
    /// when that is in the store, if this is known.
    pub fn settle(&mut self, by: usize, until: Duration, stored: Option<Duration>) {
        for operation in self.operations.iter_mut().filter(|operation| operation.by == by) {
            let is_acknowledged = matches!(operation.outcome, Outcome::Acknowledged(_));
            if is_acknowledged && operation.ended.is_some_and(|end| end <= until) {
                operation.is_safe = true;
                operation.stored = operation.stored.or(stored);
            }
        }
    }

    /// The store went back: only who has counted something must still show it.
    pub fn went_back(&mut self) {
        self.era += 1;
        self.operations.iter_mut().for_each(|operation| operation.stored = None);
    }

    /// What may be shown by a read of a data folder's process that took from `began` to `ended`, of which other
    /// nodes' counts may be `staleness` old.
    #[must_use]
    pub fn bounds(&self, scope: Scope<'_>, by: usize, began: Duration, ended: Duration, staleness: Duration) -> Bounds {
        let must_show = |operation: &Operation| operation.must_show(by, began, staleness);
        self.sum(scope, must_show, |operation| operation.began <= ended)
    }

    /// Checks what such a read has shown of the events of all operations, each of which has a name of its own.
    ///
    /// # Errors
    /// The first that it should have shown and has not, or has shown in part, twice or too early.
    pub fn check_tagged(
        &self,
        shown: impl Fn(&str) -> u64,
        by: usize,
        (began, ended): (Duration, Duration),
        staleness: Duration,
    ) -> Result<(), String> {
        for operation in &self.operations {
            let shown = shown(&operation.event);
            let is_whole = i128::from(shown) == i128::from(operation.count);
            let is_right = if is_whole {
                operation.outcome != Outcome::NotCounted && operation.began <= ended
            } else {
                shown == 0 && !operation.must_show(by, began, staleness)
            };
            if !is_right {
                return Err(format!("{by} shows {shown} of {operation:?}: asked from {began:?} to {ended:?}"));
            }
        }
        Ok(())
    }

    /// What the store holds once nothing is under way any more.
    #[must_use]
    pub fn at_rest(&self, scope: Scope<'_>) -> Bounds {
        self.sum(scope, |operation| matches!(operation.outcome, Outcome::Acknowledged(_)), |_| true)
    }

    fn sum(
        &self,
        scope: Scope<'_>,
        must_show: impl Fn(&Operation) -> bool,
        may_show: impl Fn(&Operation) -> bool,
    ) -> Bounds {
        let mut bounds = Bounds { lower: -self.missing(), upper: 0 };
        for operation in self.operations.iter().filter(|operation| scope.contains(operation)) {
            if operation.outcome == Outcome::NotCounted {
                continue;
            }
            let count = i128::from(operation.count);
            let (must, may) = (must_show(operation), may_show(operation));
            let (least, most) = if must { (count, count) } else { (count.min(0), count.max(0)) };
            if must || may {
                bounds.lower += least;
                bounds.upper += most;
            }
        }
        bounds
    }

    /// The operations that have a name of their own, by that.
    #[must_use]
    pub fn tagged(&self) -> BTreeMap<&str, &Operation> {
        let mut by_name: BTreeMap<&str, (&Operation, usize)> = BTreeMap::new();
        for operation in &self.operations {
            by_name.entry(&operation.event).or_insert((operation, 0)).1 += 1;
        }
        by_name
            .into_iter()
            .filter(|(_, (_, times))| *times == 1)
            .map(|(name, (operation, _))| (name, operation))
            .collect()
    }

    /// Compares what the store holds in the end, by event and hour, with all operations; `skip`s events that
    /// nobody can tell of. An error names each that is wrong.
    ///
    /// # Errors
    /// When a count is lost, doubled or one that nobody made.
    pub fn check_at_rest(
        &self,
        held: &BTreeMap<(String, Hour), u64>,
        skip: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let mut wrong = Vec::new();
        for (name, operation) in self.tagged() {
            let shown: u64 = held.iter().filter(|((event, _), _)| event == name).map(|(_, count)| count).sum();
            let whole = i128::from(shown) == i128::from(operation.count);
            let is_right = match operation.outcome {
                Outcome::Acknowledged(_) => whole || (shown == 0 && i128::from(operation.count) <= self.missing()),
                Outcome::NotCounted => shown == 0,
                Outcome::Unknown | Outcome::Pending => whole || shown == 0,
            };
            if !is_right && !skip(name) {
                wrong.push(format!("{shown} of {operation:?}"));
            }
        }
        let mut counters: BTreeMap<(&str, Hour), u64> = BTreeMap::new();
        counters.extend(self.operations.iter().map(|operation| ((operation.event.as_str(), operation.hour), 0)));
        counters.extend(held.iter().map(|((event, hour), count)| ((event.as_str(), *hour), *count)));
        for ((event, hour), shown) in counters {
            let bounds = self.at_rest(Scope { event: Some(event), hours: HourRange { first: hour, last: hour } });
            if !bounds.contain(shown) && !skip(event) {
                wrong.push(format!("{event} at {hour} is {shown}, and should be {bounds}"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn hour(number: u32) -> Hour {
        Hour::from_number(number).unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A history and what a right service would hold after it.
    fn history(seed: u64) -> (History, BTreeMap<(String, Hour), u64>) {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut history, mut held) = (History::default(), BTreeMap::new());
        for number in 0..60 {
            let event = if random.random_bool(0.5) { format!("tag-{number}") } else { "hot".to_owned() };
            let (hour, count) = (hour(random.random_range(0..3)), random.random_range(1..1_000));
            let operation = history.begin(&event, hour, count, random.random_range(0..3), at(number));
            let outcome = match random.random_range(0..10) {
                0 => Outcome::NotCounted,
                1 => Outcome::Unknown,
                _ => Outcome::Acknowledged(Ack::Journal),
            };
            history.end(operation, outcome, at(number + 1));
            let is_held = outcome != Outcome::NotCounted && (outcome != Outcome::Unknown || random.random_bool(0.5));
            if is_held {
                *held.entry((event, hour)).or_insert(0) += count.unsigned_abs();
            }
        }
        (history, held)
    }

    #[test]
    fn a_right_history_passes_and_each_mutated_one_is_found_out() {
        let (mut found, mut mutated) = (0, 0);
        for seed in 0..1_000 {
            let (history, held) = history(seed);
            history.check_at_rest(&held, |_| false).unwrap();
            let mut random = SmallRng::seed_from_u64(seed);
            let keys: Vec<_> = held.keys().filter(|(event, _)| event.starts_with("tag")).cloned().collect();
            let key = keys[random.random_range(0..keys.len())].clone();
            for mutation in 0..4 {
                let mut wrong = held.clone();
                let count = wrong[&key];
                match mutation {
                    0 => drop(wrong.insert(key.clone(), count * 2)),
                    1 => drop(wrong.insert(key.clone(), count + 1)),
                    2 => {
                        // Another hour.
                        wrong.remove(&key);
                        wrong.insert((key.0.clone(), hour(7)), count);
                    }
                    _ => drop(wrong.insert(("nobody".into(), hour(1)), 1)),
                }
                mutated += 1;
                found += u32::from(history.check_at_rest(&wrong, |_| false).is_err());
            }
            // One that was acknowledged and is not there.
            let tagged = history.tagged();
            let acked = tagged.iter().find(|(_, operation)| matches!(operation.outcome, Outcome::Acknowledged(_)));
            let (event, operation) = acked.unwrap();
            let mut wrong = held.clone();
            wrong.remove(&((*event).to_owned(), operation.hour));
            mutated += 1;
            found += u32::from(history.check_at_rest(&wrong, |_| false).is_err());
        }
        assert_eq!(found, mutated);
    }

    #[test]
    fn a_read_shows_what_was_acknowledged_before_and_at_most_what_had_begun() {
        let mut history = History::default();
        let own = history.begin("a", hour(1), 5, 0, at(1));
        history.end(own, Outcome::Acknowledged(Ack::Memory), at(2));
        let others = history.begin("a", hour(1), 70, 1, at(1));
        history.end(others, Outcome::Acknowledged(Ack::Journal), at(2));
        history.begin("a", hour(1), 900, 0, at(3));
        let bounds = |history: &History, began, ended| {
            let bounds = history.bounds(Scope::EVERYTHING, 0, at(began), at(ended), at(1));
            (bounds.lower, bounds.upper)
        };
        assert_eq!(bounds(&history, 1, 1), (0, 75));
        assert_eq!(bounds(&history, 2, 2), (5, 75));
        assert_eq!(bounds(&history, 2, 3), (5, 975));
        history.stored(1, at(4));
        assert_eq!((bounds(&history, 4, 4), bounds(&history, 5, 5)), ((5, 975), (75, 975)));
        history.crash(0, false);
        assert_eq!(bounds(&history, 5, 5), (70, 975));
    }

    #[test]
    fn what_a_crash_may_take_depends_on_the_level() {
        let levels = [Ack::Memory, Ack::Journal, Ack::Disk, Ack::Store];
        let after = |power, is_stored: bool| {
            let mut history = History::default();
            for ack in levels {
                let operation = history.begin("a", hour(1), 1, 0, at(1));
                history.end(operation, Outcome::Acknowledged(ack), at(2));
            }
            if is_stored {
                history.stored(0, at(2));
            }
            history.crash(0, power);
            history.at_rest(Scope::EVERYTHING).lower
        };
        assert_eq!((after(false, false), after(true, false), after(true, true)), (3, 2, 4));
    }
}
