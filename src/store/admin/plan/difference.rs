//! What lies between the state before a change and the state after it.

use std::collections::BTreeSet;

use super::{History, Line, Plan, State};
use crate::domain::{EventName, EventTotal, HourlyCount};
use crate::store::admin::log::{CountChange, EntryChange};

pub(super) fn summary(event: &EventName, history: &History) -> Option<EventTotal> {
    let (first, last) = (history.first_key_value()?, history.last_key_value()?);
    // A sum beyond 64 bits is told by `check`.
    let count = history.values().fold(0, |sum: u64, count| sum.saturating_add(*count));
    Some(EventTotal { event: event.clone(), count, first_hour: *first.0, last_hour: *last.0 })
}

pub(super) fn difference(before: &State, after: &State, line: Line) -> Plan {
    let mut plan =
        Plan { line, entries: Vec::new(), counts: Vec::new(), rows: Vec::new(), totals: Vec::new(), removed: 0 };
    for event in before.entries.keys().chain(after.entries.keys()).collect::<BTreeSet<_>>() {
        let (before, after) = (before.entry(event), after.entry(event));
        if before != after {
            plan.entries.push(EntryChange { event: event.clone(), before, after });
        }
    }
    let nothing = History::new();
    for (event, history) in &after.histories {
        let old = before.histories.get(event).unwrap_or(&nothing);
        for hour in old.keys().chain(history.keys()).collect::<BTreeSet<_>>() {
            let (old, count) = (old.get(hour).copied().unwrap_or(0), history.get(hour).copied().unwrap_or(0));
            // Both are at most TOTAL_MAX, or 2^63 - 1 in a store that was filled to the brim.
            let delta = count.cast_signed() - old.cast_signed();
            if delta != 0 {
                plan.counts.push(CountChange { event: event.clone(), hour: *hour, delta });
                plan.rows.push(HourlyCount { event: event.clone(), hour: *hour, count });
                plan.removed -= i128::from(delta);
            }
        }
        if old != history {
            plan.totals.push((event.clone(), summary(event, history)));
        }
    }
    plan
}
