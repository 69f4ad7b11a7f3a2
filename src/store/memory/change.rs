//! What administrators change in a database in memory.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::contents::Contents;
use crate::domain::EventName;
use crate::store::admin::due::{Deleted, REMEMBERED};
use crate::store::admin::log::Recorded;
use crate::store::admin::plan::{Plan, State, names_of, plan};
use crate::store::admin::{CatalogEntry, Change, Changed, LoggedChange, Told};

/// The log of changes, and what hangs on their times.
#[derive(Clone, Default)]
pub(super) struct Recorder {
    /// How many there were: the catalog's version.
    pub(super) version: u64,
    changes: BTreeMap<i64, Logged>,
    /// Which version a purge made, and when.
    pub(super) purges: BTreeMap<EventName, (u64, DateTime<Utc>)>,
    /// Since when the purges of deleted events are marked as due.
    due: BTreeMap<EventName, DateTime<Utc>>,
}

#[derive(Clone)]
struct Logged {
    at: DateTime<Utc>,
    who: String,
    recorded: Recorded,
}

impl Contents {
    pub(super) fn change(&mut self, change: &Change, who: &str, at: DateTime<Utc>, now: DateTime<Utc>) -> Changed {
        // What is not folded yet counts by what the catalog says before the change.
        self.fold(now);
        let logged = |number: &i64| self.recorder.changes.get(number).map(|logged| logged.recorded.clone());
        let recorded = if let Change::Undo { change } = change { logged(change) } else { None };
        let due_since =
            if let Change::Purge { event, .. } = change { self.recorder.due.get(event).copied() } else { None };
        let mut state = State { entries: self.entries.clone(), now, due_since, ..State::default() };
        for event in names_of(change, recorded.as_ref(), &state.entries) {
            state.histories.insert(event.clone(), self.history(&event));
        }
        let plan = match plan(change, recorded.as_ref(), &state, at) {
            Ok(plan) => plan,
            Err(reason) => return Changed::Refused { reason },
        };
        self.recorder.version += 1;
        let number = i64::try_from(self.recorder.version).unwrap_or(i64::MAX);
        self.write(&plan, number, now);
        let Plan { line, entries, counts, .. } = plan;
        let (entries, counts) = if line.undoable { (entries, counts) } else { Default::default() };
        let recorded = Recorded {
            what: line.what.to_owned(),
            event: line.event,
            facts: Some(line.facts),
            undoable: line.undoable,
            undone_by: None,
            entries,
            counts,
        };
        self.recorder.changes.insert(number, Logged { at, who: who.to_owned(), recorded });
        Changed::Done { change: number }
    }

    fn write(&mut self, plan: &Plan, number: i64, now: DateTime<Utc>) {
        plan.rows.iter().for_each(|row| self.set_count(row));
        for (event, total) in &plan.totals {
            self.totals.remove(event);
            self.totals.extend(total.clone().map(|total| (event.clone(), total)));
        }
        for change in &plan.entries {
            self.entries.remove(&change.event);
            self.recorder.due.remove(&change.event);
            if change.after != CatalogEntry::default() {
                self.entries.insert(change.event.clone(), change.after.clone());
            }
        }
        self.removed += plan.removed;
        let Recorder { version, changes, purges, .. } = &mut self.recorder;
        if !plan.line.purged.is_empty() {
            purges.retain(|_, (_, at)| *at >= now - REMEMBERED);
            purges.extend(plan.line.purged.iter().map(|event| (event.clone(), (*version, now))));
        }
        for logged in changes.values_mut() {
            if plan.line.purged.contains(&logged.recorded.event) {
                logged.recorded.undoable = false;
            }
        }
        if let Some(undone) = plan.line.undoes.and_then(|undone| changes.get_mut(&undone)) {
            undone.recorded.undone_by = Some(number);
        }
    }

    pub(super) fn due_purges(&mut self, grace: TimeDelta, now: DateTime<Utc>) -> Vec<EventName> {
        let deleted = self.entries.iter().filter_map(|(event, entry)| {
            let (deleted_at, marked) = (entry.deleted_at?, self.recorder.due.get(event).copied());
            Some(Deleted { event: event.clone(), deleted_at, marked })
        });
        let deleted: Vec<_> = deleted.collect();
        for entry in &deleted {
            match entry.mark(grace, now) {
                Some(Some(since)) => drop(self.recorder.due.insert(entry.event.clone(), since)),
                Some(None) => drop(self.recorder.due.remove(&entry.event)),
                None => {}
            }
        }
        deleted.into_iter().filter(|entry| entry.is_ripe(grace, now)).map(|entry| entry.event).collect()
    }

    pub(super) fn changes(&self, events: &[EventName], before: Option<i64>, limit: u32) -> Vec<LoggedChange> {
        let earlier = self.recorder.changes.range(..before.unwrap_or(i64::MAX)).rev();
        let wanted = earlier.filter(|(_, logged)| events.is_empty() || events.contains(&logged.recorded.event));
        let told = wanted.take(limit as usize).map(|(number, Logged { at, who, recorded })| LoggedChange {
            change: *number,
            at: *at,
            who: who.clone(),
            what: recorded.what.clone(),
            event: Some(recorded.event.clone()),
            account: None,
            told: Told::Facts(recorded.facts.clone().unwrap_or_default()),
            undone_by: recorded.undone_by,
            can_undo: recorded.undoable && recorded.undone_by.is_none(),
        });
        told.collect()
    }
}
