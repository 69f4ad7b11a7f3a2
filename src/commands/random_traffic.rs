//! Plausible traffic, made up: day and night, working days and weekends, better and worse days, and
//! the scatter of real counts. Pure: the same [`Plan`] gives the same increments.

use chrono::{Datelike, Weekday};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Binomial, Distribution};

use crate::domain::{EventName, Hour, Increment};

/// What is made up.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The sum of all counts, exactly.
    pub(super) occurrences: u64,
    /// At least 1; the last of them ends with `last_hour`.
    pub(super) days: u32,
    pub(super) last_hour: Hour,
    /// Distinct.
    pub(super) types: Vec<EventName>,
    pub(super) seed: u64,
}

/// When something happens.
#[derive(Debug, Clone, Copy)]
enum Profile {
    /// From nine to five, Monday to Friday.
    Office,
    /// After work and at weekends.
    Leisure,
    /// By a timer, in the small hours.
    Nightly,
}

/// The event types of the original service: how common each is, and when it happens.
const KNOWN: [(&str, f64, Profile); 6] = [
    ("login", 30.0, Profile::Office),
    ("resource/209", 40.0, Profile::Leisure),
    ("recovery", 3.0, Profile::Office),
    ("backup", 4.0, Profile::Nightly),
    ("settings", 8.0, Profile::Office),
    ("admin", 10.0, Profile::Office),
];

/// The increments of `plan`, at most one for each event and hour, in the order of time. Their sum is
/// `plan.occurrences`.
///
/// Counts scatter like independent Poisson variables whose sum happens to be that number, which is a
/// multinomial distribution: each cell draws its binomial share of what is left.
pub(super) fn generate(plan: &Plan) -> Vec<Increment> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    // One more than `days`, since they need not begin at midnight.
    let moods: Vec<f64> = (0..=plan.days).map(|_| random.random_range(0.8..1.2)).collect();
    let first_hour = plan.last_hour.plus(1 - 24 * i64::from(plan.days));
    let hours = first_hour.number()..=plan.last_hour.number();
    let habits: Vec<(&EventName, f64, Profile)> =
        plan.types.iter().enumerate().map(|(position, event)| habit(event, position)).collect();
    let cells = || {
        hours.clone().filter_map(Hour::from_number).flat_map(|hour| {
            let mood = moods[(hour.number() / 24 - first_hour.number() / 24) as usize];
            habits.iter().map(move |&(event, weight, profile)| (event, hour, mood * weight * profile.level(hour)))
        })
    };

    let mut weight_left: f64 = cells().map(|(_, _, weight)| weight).sum();
    let mut left = plan.occurrences;
    let mut increments = Vec::new();
    for (event, hour, weight) in cells() {
        // The last cell takes all that is left, whatever rounding made of the weights.
        let is_last = hour == plan.last_hour && Some(event) == plan.types.last();
        let share = if is_last { 1.0 } else { (weight / weight_left).clamp(0.0, 1.0) };
        weight_left -= weight;
        let count = Binomial::new(left, share).map_or(0, |cell| cell.sample(&mut random));
        if count > 0 {
            increments.push(Increment { event: event.clone(), hour, count });
            left -= count;
        }
        if left == 0 {
            break;
        }
    }
    increments
}

/// How common an event is and when it happens. Unknown ones get rarer by their place in the list.
fn habit(event: &EventName, position: usize) -> (&EventName, f64, Profile) {
    match KNOWN.into_iter().find(|(name, ..)| *name == event.as_str()) {
        Some((_, weight, profile)) => (event, weight, profile),
        None => {
            let profile = if position.is_multiple_of(2) { Profile::Office } else { Profile::Leisure };
            (event, 40.0 / (position + 1) as f64, profile)
        }
    }
}

impl Profile {
    /// How busy an hour is, compared with others of the same profile; always above 0.
    fn level(self, hour: Hour) -> f64 {
        let of_day = f64::from(hour.of_day());
        let weekend = matches!(hour.start().weekday(), Weekday::Sat | Weekday::Sun);
        match self {
            Self::Office => {
                let curve = 0.04 + bump(of_day, 10.5, 2.2) + 0.9 * bump(of_day, 15.0, 2.5);
                curve * if weekend { 0.25 } else { 1.0 }
            }
            Self::Leisure => {
                let curve = 0.08 + 0.5 * bump(of_day, 13.0, 3.5) + bump(of_day, 20.0, 2.5);
                curve * if weekend { 1.4 } else { 1.0 }
            }
            Self::Nightly => 0.01 + bump(of_day, 2.0, 0.6),
        }
    }
}

/// A bell around `peak`, on a clock where 23 is next to 0.
fn bump(of_day: f64, peak: f64, width_hours: f64) -> f64 {
    let distance = (of_day - peak).abs();
    let distance = distance.min(24.0 - distance);
    (-0.5 * (distance / width_hours).powi(2)).exp()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use std::collections::BTreeSet;

    use super::*;

    fn plan(occurrences: u64, days: u32, types: &[&str], seed: u64) -> Plan {
        let last_hour = Hour::from_number(490_001).unwrap();
        let types = types.iter().map(|name| EventName::parse(name).unwrap()).collect();
        Plan { occurrences, days, last_hour, types, seed }
    }

    fn defaults(seed: u64) -> Plan {
        plan(10_000, 30, &KNOWN.map(|(name, ..)| name), seed)
    }

    fn sum(increments: &[Increment], counts: impl Fn(&Increment) -> bool) -> u64 {
        increments.iter().filter(|increment| counts(increment)).map(|increment| increment.count).sum()
    }

    #[test]
    fn the_sum_is_exactly_what_was_asked_for() {
        for (occurrences, days, types) in [
            (1, 1, &["a"][..]),
            (7, 3660, &["a", "b"]),
            (10_000, 30, &["login", "x"]),
            (1_000_000_000, 2, &["a", "b", "c"]),
        ] {
            let increments = generate(&plan(occurrences, days, types, 1));
            assert_eq!(sum(&increments, |_| true), occurrences, "{days} days of {types:?}");
        }
    }

    #[test]
    fn a_seed_repeats_exactly_and_another_one_differs() {
        assert_eq!(generate(&defaults(7)), generate(&defaults(7)));
        assert_ne!(generate(&defaults(7)), generate(&defaults(8)));
    }

    #[test]
    fn increments_are_distinct_positive_and_within_the_days() {
        let increments = generate(&defaults(3));
        let last = defaults(3).last_hour;
        let distinct: BTreeSet<_> = increments.iter().map(|increment| (&increment.event, increment.hour)).collect();
        assert_eq!(distinct.len(), increments.len());
        assert!(increments.iter().all(|increment| increment.count > 0));
        assert!(increments.iter().all(|increment| increment.hour > last.plus(-30 * 24) && increment.hour <= last));
        assert!(increments.is_sorted_by_key(|increment| increment.hour));
    }

    #[test]
    fn all_types_and_all_days_take_part() {
        let increments = generate(&defaults(5));
        for (name, ..) in KNOWN {
            assert!(sum(&increments, |increment| increment.event.as_str() == name) > 50, "{name}");
        }
        let days: BTreeSet<u32> = increments.iter().map(|increment| increment.hour.number() / 24).collect();
        assert_eq!(days.len(), 31, "30 times 24 hours touch 31 calendar days");
    }

    #[test]
    fn nights_are_quieter_than_days() {
        let increments = generate(&defaults(11));
        let night = sum(&increments, |increment| (0..6).contains(&increment.hour.of_day()));
        let day = sum(&increments, |increment| (9..15).contains(&increment.hour.of_day()));
        assert!(night * 3 < day, "{night} at night, {day} by day");
    }

    #[test]
    fn logins_happen_on_working_days_and_backups_at_night() {
        let increments = generate(&plan(100_000, 28, &["login", "backup"], 2));
        let weekend = |increment: &Increment| matches!(increment.hour.start().weekday(), Weekday::Sat | Weekday::Sun);
        let logins = |increment: &Increment| increment.event.as_str() == "login";
        let (off, all) = (sum(&increments, |i| logins(i) && weekend(i)), sum(&increments, logins));
        assert!(off * 6 < all, "{off} of {all} logins at weekends");
        let backups = |increment: &Increment| !logins(increment);
        let nightly = sum(&increments, |i| backups(i) && i.hour.of_day() < 6);
        assert!(nightly * 10 > sum(&increments, backups) * 7, "{nightly} backups at night");
    }
}
