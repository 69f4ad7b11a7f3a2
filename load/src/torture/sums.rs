//! Sums of what was counted of names that many writers share: what a read may show of them costs the same
//! however many operations there were.
//!
//! A [`crate::check::History`] keeps each operation, which is too much at some thousand a second. Here are only
//! sums, by event and by hour. The times of operations are in the order of the calls: a read takes
//! [`Sums::lower`] before it begins and asks for the bounds after it has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use event_tracker::domain::{Ack, Hour};

use crate::check::{Bounds, Outcome};

/// So many counts of one of the names.
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    pub event: usize,
    pub count: u64,
}

/// The hours that an operation may be counted in: two of them around a full hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hours {
    pub first: Hour,
    pub last: Hour,
}

impl Hours {
    #[must_use]
    pub fn is_certain(self) -> bool {
        self.first == self.last
    }
}

/// A name, and one hour of it or all.
type Key = (usize, Option<Hour>);
type Snapshot = BTreeMap<Key, u64>;

/// The sums of one name, or of one hour of it.
#[derive(Default, Debug)]
struct Sum {
    /// All that may have been counted, by anybody.
    begun: u64,
    /// What is certain, by data folder.
    acknowledged: Vec<Certain>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Certain {
    count: u64,
    /// Of that, what a crash of the process may take: acknowledged since the last fence began, and before.
    at_risk: [u64; 2],
}

/// What was in the store at two times, the later of which is too young to be known everywhere.
#[derive(Default, Debug)]
struct Stored {
    known: Snapshot,
    fresh: Option<(Duration, Snapshot)>,
}

/// All that was counted of the names of one round.
#[derive(Default, Debug)]
pub struct Sums {
    sums: BTreeMap<Key, Sum>,
    /// By data folder.
    stored: BTreeMap<usize, Stored>,
    /// Whether the store has gone back. What was in it before may be there again at any later time.
    is_set_back: bool,
}

/// What a data folder had acknowledged before an operation that ends only when all of that is in the store.
#[derive(Debug)]
pub struct Fence {
    by: usize,
    acknowledged: Snapshot,
}

/// What a read that begins now must show at least.
#[derive(Default, Debug)]
pub struct Lower {
    own: Snapshot,
    /// Of other data folders. It does not hold any more if the store goes back meanwhile.
    others: Snapshot,
}

impl Sum {
    fn of(&mut self, by: usize) -> &mut Certain {
        if self.acknowledged.len() <= by {
            self.acknowledged.resize(by + 1, Certain::default());
        }
        &mut self.acknowledged[by]
    }
}

/// The sums that an operation belongs to. With `certain` those that it belongs to in any case.
fn keys(event: usize, hours: Hours, certain: bool) -> impl Iterator<Item = Key> {
    let both = [hours.first, hours.last];
    let count = match (hours.is_certain(), certain) {
        (true, _) => 1,
        (false, true) => 0,
        (false, false) => 2,
    };
    std::iter::once((event, None)).chain(both.into_iter().take(count).map(move |hour| (event, Some(hour))))
}

impl Sums {
    pub fn begin(&mut self, charges: &[Charge], hours: Hours) {
        for charge in charges {
            for key in keys(charge.event, hours, false) {
                self.sums.entry(key).or_default().begun += charge.count;
            }
        }
    }

    pub fn end(&mut self, charges: &[Charge], by: usize, hours: Hours, outcome: Outcome) {
        for charge in charges {
            match outcome {
                Outcome::Acknowledged(ack) => {
                    for key in keys(charge.event, hours, true) {
                        let certain = self.sums.entry(key).or_default().of(by);
                        certain.count += charge.count;
                        if ack == Ack::Memory {
                            certain.at_risk[0] += charge.count;
                        }
                    }
                }
                Outcome::NotCounted => {
                    for key in keys(charge.event, hours, false) {
                        self.sums.entry(key).or_default().begun -= charge.count;
                    }
                }
                Outcome::Unknown | Outcome::Pending => {}
            }
        }
    }

    /// The process of a data folder is gone.
    pub fn crash(&mut self, by: usize) {
        for sum in self.sums.values_mut() {
            let certain = sum.of(by);
            certain.count -= certain.at_risk.iter().sum::<u64>();
            certain.at_risk = [0; 2];
        }
    }

    /// The process of a data folder has ended by itself and has kept everything.
    pub fn kept(&mut self, by: usize) {
        self.sums.values_mut().for_each(|sum| sum.of(by).at_risk = [0; 2]);
    }

    /// An operation at level `store` begins. One at a time for each data folder.
    #[must_use]
    pub fn fence(&mut self, by: usize) -> Fence {
        let mut acknowledged = Snapshot::new();
        for (key, sum) in &mut self.sums {
            let certain = sum.of(by);
            acknowledged.insert(*key, certain.count);
            certain.at_risk = [0, certain.at_risk[0] + certain.at_risk[1]];
        }
        Fence { by, acknowledged }
    }

    /// It was acknowledged by the process that had acknowledged what is behind it. Others know that `staleness`
    /// later.
    pub fn passed(&mut self, fence: Fence, now: Duration, staleness: Duration) {
        self.sums.values_mut().for_each(|sum| sum.of(fence.by).at_risk[1] = 0);
        if self.is_set_back {
            return;
        }
        let stored = self.stored.entry(fence.by).or_default();
        stored.ripen(now, staleness);
        if stored.fresh.is_none() {
            stored.fresh = Some((now, fence.acknowledged));
        }
    }

    /// The store went back. Each folder still has what it has acknowledged, and delivers it again.
    pub fn went_back(&mut self) {
        self.is_set_back = true;
        self.stored.clear();
    }

    /// To be taken before a read of `by` begins.
    #[must_use]
    pub fn lower(&mut self, by: usize, now: Duration, staleness: Duration) -> Lower {
        let mut lower = Lower::default();
        for (key, sum) in &self.sums {
            lower.own.insert(*key, sum.acknowledged.get(by).map_or(0, |certain| certain.count));
        }
        for (_, stored) in self.stored.iter_mut().filter(|(other, _)| **other != by) {
            stored.ripen(now, staleness);
            for (key, count) in &stored.known {
                *lower.others.entry(*key).or_default() += count;
            }
        }
        lower
    }

    /// What a read that has ended by now may show of a name, or of one hour of it. `holds`: the store has not gone
    /// back since it began.
    #[must_use]
    pub fn bounds(&self, event: usize, hour: Option<Hour>, lower: &Lower, holds: bool) -> Bounds {
        let key = (event, hour);
        let others = if holds { lower.others.get(&key).copied().unwrap_or(0) } else { 0 };
        Bounds {
            lower: i128::from(lower.own.get(&key).copied().unwrap_or(0)) + i128::from(others),
            upper: i128::from(self.sums.get(&key).map_or(0, |sum| sum.begun)),
        }
    }

    /// What the store holds once nothing is under way any more.
    #[must_use]
    pub fn at_rest(&self, event: usize, hour: Option<Hour>) -> Bounds {
        let sum = self.sums.get(&(event, hour));
        let certain = sum.map_or(0, |sum| sum.acknowledged.iter().map(|certain| i128::from(certain.count)).sum());
        Bounds { lower: certain, upper: sum.map_or(0, |sum| i128::from(sum.begun)) }
    }

    /// The hours in which something was counted.
    pub fn hours(&self, event: usize) -> impl Iterator<Item = Hour> {
        let of_event = self.sums.keys().filter(move |(other, _)| *other == event);
        of_event.filter_map(|(_, hour)| *hour)
    }
}

impl Stored {
    fn ripen(&mut self, now: Duration, staleness: Duration) {
        if self.fresh.as_ref().is_some_and(|(at, _)| *at + staleness <= now)
            && let Some((_, known)) = self.fresh.take()
        {
            self.known = known;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    const STALENESS: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn hours(first: u32, last: u32) -> Hours {
        Hours { first: Hour::from_number(first).unwrap(), last: Hour::from_number(last).unwrap() }
    }

    fn charge(count: u64) -> [Charge; 1] {
        [Charge { event: 0, count }]
    }

    fn count(sums: &mut Sums, by: usize, count: u64, outcome: Outcome) {
        sums.begin(&charge(count), hours(1, 1));
        sums.end(&charge(count), by, hours(1, 1), outcome);
    }

    fn pair(bounds: Bounds) -> (i128, i128) {
        (bounds.lower, bounds.upper)
    }

    /// What a read at `by` may show that takes no time.
    fn now(sums: &mut Sums, by: usize, seconds: u64) -> (i128, i128) {
        let lower = sums.lower(by, at(seconds), STALENESS);
        pair(sums.bounds(0, None, &lower, true))
    }

    #[test]
    fn a_read_shows_what_was_acknowledged_before_it_and_at_most_what_had_begun() {
        let mut sums = Sums::default();
        count(&mut sums, 0, 5, Outcome::Acknowledged(Ack::Journal));
        let lower = sums.lower(0, at(0), STALENESS);
        sums.begin(&charge(70), hours(1, 1));
        sums.end(&charge(70), 0, hours(1, 1), Outcome::Acknowledged(Ack::Journal));
        sums.begin(&charge(900), hours(1, 1));
        assert_eq!(pair(sums.bounds(0, None, &lower, true)), (5, 975));
        assert_eq!(pair(sums.bounds(0, Some(hours(1, 1).first), &lower, true)), (5, 975));
        assert_eq!(pair(sums.bounds(0, Some(hours(2, 2).first), &lower, true)), (0, 0));
        sums.end(&charge(900), 0, hours(1, 1), Outcome::NotCounted);
        assert_eq!(now(&mut sums, 0, 0), (75, 75));
        count(&mut sums, 0, 8_000, Outcome::Unknown);
        assert_eq!(now(&mut sums, 0, 0), (75, 8_075));
        assert_eq!(pair(sums.at_rest(0, None)), (75, 8_075));
    }

    #[test]
    fn others_must_show_it_when_a_fence_has_passed_and_is_known() {
        let mut sums = Sums::default();
        count(&mut sums, 1, 5, Outcome::Acknowledged(Ack::Journal));
        let fence = sums.fence(1);
        count(&mut sums, 1, 70, Outcome::Acknowledged(Ack::Journal));
        assert_eq!(now(&mut sums, 0, 1), (0, 75));
        sums.passed(fence, at(1), STALENESS);
        assert_eq!(now(&mut sums, 0, 1), (0, 75));
        // One that follows too soon does not make the first one younger.
        let fence = sums.fence(1);
        sums.passed(fence, at(1), STALENESS);
        assert_eq!(now(&mut sums, 0, 2), (5, 75));
        assert_eq!(now(&mut sums, 1, 2), (75, 75));
        let lower = sums.lower(0, at(2), STALENESS);
        sums.went_back();
        assert_eq!(pair(sums.bounds(0, None, &lower, false)), (0, 75));
        let fence = sums.fence(1);
        sums.passed(fence, at(3), STALENESS);
        assert_eq!((now(&mut sums, 0, 9), now(&mut sums, 1, 9)), ((0, 75), (75, 75)));
    }

    #[test]
    fn a_crash_takes_what_is_in_memory_only_and_not_behind_a_fence() {
        let mut sums = Sums::default();
        count(&mut sums, 0, 5, Outcome::Acknowledged(Ack::Memory));
        let fence = sums.fence(0);
        count(&mut sums, 0, 70, Outcome::Acknowledged(Ack::Memory));
        sums.passed(fence, at(0), STALENESS);
        count(&mut sums, 0, 900, Outcome::Acknowledged(Ack::Journal));
        count(&mut sums, 1, 8_000, Outcome::Acknowledged(Ack::Memory));
        let lost = sums.fence(0);
        sums.crash(0);
        drop(lost);
        assert_eq!(pair(sums.at_rest(0, None)), (8_905, 8_975));
        sums.kept(1);
        sums.crash(1);
        assert_eq!(pair(sums.at_rest(0, None)), (8_905, 8_975));
    }

    #[test]
    fn around_a_full_hour_each_of_both_may_have_it_and_together_they_must() {
        let mut sums = Sums::default();
        sums.begin(&charge(5), hours(1, 2));
        sums.end(&charge(5), 0, hours(1, 2), Outcome::Acknowledged(Ack::Journal));
        let both = hours(1, 2);
        let of = |hour| pair(sums.at_rest(0, hour));
        assert_eq!((of(Some(both.first)), of(Some(both.last)), of(None)), ((0, 5), (0, 5), (5, 5)));
        assert_eq!(sums.hours(0).count(), 2);
    }

    /// The sums say of random histories what the list of all operations says.
    #[test]
    fn they_agree_with_the_list_of_all_operations() {
        use crate::check::{History, Scope};
        use event_tracker::domain::HourRange;
        use rand::rngs::SmallRng;
        use rand::{Rng, SeedableRng};

        for seed in 0..300 {
            let mut random = SmallRng::seed_from_u64(seed);
            let (mut history, mut sums) = (History::default(), Sums::default());
            let mut reads = Vec::new();
            for number in 0..80 {
                let (by, count) = (random.random_range(0..3), random.random_range(1..1_000));
                let hour = random.random_range(0..3);
                if random.random_bool(0.1) {
                    reads.push((by, at(2 * number), sums.lower(by, at(2 * number), STALENESS)));
                }
                let hour = hours(hour, hour);
                sums.begin(&charge(count), hour);
                let now = at(2 * number + 1);
                let operation = history.begin("hot", hour.first, i64::try_from(count).unwrap(), by, now);
                let outcome = match random.random_range(0..6) {
                    0 => Outcome::NotCounted,
                    1 => Outcome::Unknown,
                    2 => Outcome::Acknowledged(Ack::Memory),
                    _ => Outcome::Acknowledged(Ack::Journal),
                };
                sums.end(&charge(count), by, hour, outcome);
                history.end(operation, outcome, now);
                for (by, began, lower) in reads.drain(..) {
                    let scope = Scope { event: Some("hot"), hours: HourRange::ALL };
                    let of_all = history.bounds(scope, by, began, now, STALENESS);
                    let shown = sums.bounds(0, None, &lower, true);
                    assert_eq!(pair(shown), pair(of_all), "seed {seed}");
                }
                if random.random_bool(0.1) {
                    history.crash(by, false);
                    sums.crash(by);
                }
            }
            let all = history.at_rest(Scope { event: Some("hot"), hours: HourRange::ALL });
            assert_eq!(pair(sums.at_rest(0, None)), pair(all), "seed {seed}");
        }
    }
}
