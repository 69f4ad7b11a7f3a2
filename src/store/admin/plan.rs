//! What a change does, as a function from the state before to the state after; the difference of the
//! two is what a store writes, what the books gain and what undoing needs.

use std::collections::{BTreeMap, BTreeSet};
use std::{iter, mem};

use chrono::{DateTime, TimeDelta, Utc};

use super::due::is_ripe;
use super::log::{CountChange, EntryChange, Recorded};
use super::{CatalogEntry, Change, Fact, Facts, Refusal};
use crate::domain::{EventName, EventTotal, Hour, HourlyCount, TOTAL_MAX};

mod difference;

use difference::{difference, summary};

const TEXT_CHARS_MAX: usize = 1_000;

/// All hourly counts under one name; none is 0.
pub type History = BTreeMap<Hour, u64>;

/// The part of the store that a change sees. The catalog's lock keeps it as it is meanwhile.
#[derive(Clone, Default)]
pub struct State {
    /// All of them; none is the default one.
    pub entries: BTreeMap<EventName, CatalogEntry>,
    /// Those of [`names_of`], as they were counted; empty for a name without counts.
    pub histories: BTreeMap<EventName, History>,
    /// What the store's clock says.
    pub now: DateTime<Utc>,
    /// Since when the purge of the change's event is marked as due.
    pub due_since: Option<DateTime<Utc>>,
}

/// What a store writes for a change, in the transaction that read the [`State`].
pub struct Plan {
    pub line: Line,
    /// A default entry `after` is no entry.
    pub entries: Vec<EntryChange>,
    pub counts: Vec<CountChange>,
    /// The changed rows as they become, sorted by event bytes, then hour; count 0 is no row.
    pub rows: Vec<HourlyCount>,
    /// The changed totals as they become; `None` is no row.
    pub totals: Vec<(EventName, Option<EventTotal>)>,
    /// For the books: what was taken out of all counts; negative: added.
    pub removed: i128,
}

/// A line for the log.
pub struct Line {
    pub what: &'static str,
    pub event: EventName,
    pub facts: Facts,
    pub undoable: bool,
    /// The change that this one undoes.
    pub undoes: Option<i64>,
    /// These names are free again, and earlier changes of them can't be undone any more.
    pub purged: Vec<EventName>,
}

/// What the log calls a move to a name that was no event of its own.
const RENAME: &str = "rename";

/// The names whose histories `change` has to see: of the events that it concerns, and of their aliases.
/// `recorded` is the line that it undoes.
pub fn names_of(
    change: &Change,
    recorded: Option<&Recorded>,
    entries: &BTreeMap<EventName, CatalogEntry>,
) -> BTreeSet<EventName> {
    let mut names = events_of(change, recorded);
    let targets: Vec<_> = names.iter().filter_map(|name| entries.get(name)?.alias_of.clone()).collect();
    names.extend(targets);
    let is_alias = |entry: &CatalogEntry| entry.alias_of.as_ref().is_some_and(|event| names.contains(event));
    let aliases = entries.iter().filter(|(_, entry)| is_alias(entry)).map(|(alias, _)| alias.clone());
    names.extend(aliases.collect::<Vec<_>>());
    names
}

fn events_of(change: &Change, recorded: Option<&Recorded>) -> BTreeSet<EventName> {
    match change {
        Change::Describe { event, .. }
        | Change::SetActive { event, .. }
        | Change::Correct { event, .. }
        | Change::Delete { event }
        | Change::Purge { event, .. } => BTreeSet::from([event.clone()]),
        Change::Move { from, into } => BTreeSet::from([from.clone(), into.clone()]),
        Change::Undo { .. } => {
            let counted = recorded.iter().flat_map(|line| &line.counts).map(|count| &count.event);
            // What was moved without counts may have got some since.
            let moved = recorded.iter().filter_map(|line| line.moved_into());
            // The log tells the counts of a restored event.
            let changed = recorded.iter().map(|line| &line.event);
            counted.chain(moved).chain(changed).cloned().collect()
        }
    }
}

/// # Errors
/// When the change is refused.
pub fn plan(change: &Change, recorded: Option<&Recorded>, before: &State, at: DateTime<Utc>) -> Result<Plan, Refusal> {
    let mut after = before.clone();
    let line = match change {
        Change::Describe { event, description } => after.describe(event, description)?,
        Change::SetActive { event, active } => after.set_active(event, *active)?,
        Change::Move { from, into } => after.relocate(from, into)?,
        Change::Correct { event, hour, expected, count, reason } => {
            if *hour >= Hour::containing(at) {
                return Err("Only hours that are over can be corrected.".into());
            }
            after.correct(event, *hour, *expected, *count, reason)?
        }
        Change::Delete { event } => after.delete(event)?,
        Change::Purge { event, grace } => after.purge(event, *grace)?,
        Change::Undo { change } => after.undo(*change, recorded)?,
    };
    after.check()?;
    Ok(difference(before, &after, line))
}

fn line(what: &'static str, event: &EventName, before: Vec<Fact>, after: Vec<Fact>) -> Line {
    Line {
        what,
        event: event.clone(),
        facts: Facts { before, after },
        undoable: true,
        undoes: None,
        purged: Vec::new(),
    }
}

impl State {
    fn entry(&self, event: &EventName) -> CatalogEntry {
        self.entries.get(event).cloned().unwrap_or_default()
    }

    fn set(&mut self, event: &EventName, entry: CatalogEntry) {
        if entry == CatalogEntry::default() {
            self.entries.remove(event);
        } else {
            self.entries.insert(event.clone(), entry);
        }
    }

    fn history(&mut self, event: &EventName) -> &mut History {
        self.histories.entry(event.clone()).or_default()
    }

    fn knows(&self, event: &EventName) -> bool {
        self.entries.contains_key(event) || self.names(event).any(|name| self.count_of(name) > 0)
    }

    /// The names whose counts belong to an event that is no alias: its own, then its aliases.
    fn names<'a>(&'a self, event: &'a EventName) -> impl Iterator<Item = &'a EventName> {
        let aliases = self.entries.iter().filter(|(_, entry)| entry.alias_of.as_ref() == Some(event));
        iter::once(event).chain(aliases.map(|(alias, _)| alias))
    }

    fn count_of(&self, name: &EventName) -> u64 {
        self.histories.get(name).map_or(0, |history| history.values().fold(0, |sum, n| sum.saturating_add(*n)))
    }

    /// What was counted of an event in one hour, under all of its names.
    fn count_in(&self, event: &EventName, hour: Hour) -> u64 {
        let counts = self.names(event).filter_map(|name| self.histories.get(name)?.get(&hour));
        counts.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The entry of an event that is neither unknown nor an alias nor deleted.
    fn changeable(&self, event: &EventName) -> Result<CatalogEntry, Refusal> {
        if !self.knows(event) {
            return Err(format!("There is no event “{event}” in the store.").into());
        }
        let entry = self.entry(event);
        if let Some(target) = &entry.alias_of {
            return Err(format!("“{event}” is an alias of “{target}”: that is the name to use.").into());
        }
        if entry.deleted_at.is_some() {
            return Err(format!("“{event}” is deleted; restore it first.").into());
        }
        Ok(entry)
    }

    fn describe(&mut self, event: &EventName, description: &str) -> Result<Line, Refusal> {
        let mut entry = self.changeable(event)?;
        expect_text("description", description)?;
        if entry.description == description {
            return Err(format!("“{event}” has this description already.").into());
        }
        let before = mem::replace(&mut entry.description, description.to_owned());
        self.set(event, entry);
        let described = |text: String| vec![Fact::Description { text }];
        Ok(line("describe", event, described(before), described(description.to_owned())))
    }

    fn set_active(&mut self, event: &EventName, active: bool) -> Result<Line, Refusal> {
        let word = |active| if active { "active" } else { "inactive" };
        let mut entry = self.changeable(event)?;
        if entry.inactive != active {
            return Err(format!("“{event}” is {} already.", word(active)).into());
        }
        entry.inactive = !active;
        self.set(event, entry);
        let what = if active { "activate" } else { "deactivate" };
        Ok(line(what, event, vec![activity(!active)], vec![activity(active)]))
    }

    fn relocate(&mut self, from: &EventName, into: &EventName) -> Result<Line, Refusal> {
        if from == into {
            return Err(format!("“{from}” is called so already.").into());
        }
        let entry = self.changeable(from)?;
        // A name that it had before is free for it, too: the two change places.
        let is_rename = !self.knows(into) || self.entry(into).alias_of.as_ref() == Some(from);
        if !is_rename {
            self.changeable(into)?;
        }
        let before = vec![self.counts(from), self.counts(into)];
        for entry in self.entries.values_mut().filter(|entry| entry.alias_of.as_ref() == Some(from)) {
            entry.alias_of = Some(into.clone());
        }
        if is_rename {
            self.set(into, entry);
        }
        self.set(from, CatalogEntry { alias_of: Some(into.clone()), ..CatalogEntry::default() });
        let after = vec![Fact::AliasOf { event: into.clone() }, self.counts(into)];
        Ok(line(if is_rename { RENAME } else { "merge" }, from, before, after))
    }

    fn correct(
        &mut self,
        event: &EventName,
        hour: Hour,
        expected: u64,
        count: u64,
        reason: &str,
    ) -> Result<Line, Refusal> {
        self.changeable(event)?;
        expect_text("reason", reason)?;
        if reason.trim().is_empty() {
            return Err("A correction needs a reason.".into());
        }
        let found = self.count_in(event, hour);
        if found != expected {
            return Err(Refusal::CountIs { event: event.clone(), hour, count: found, expected });
        }
        if count == expected {
            return Err(Refusal::CountIsSo { event: event.clone(), hour, count });
        }
        self.change_count(event, hour, expected, count);
        let before = vec![Fact::HourlyCount { hour, count: expected }];
        let after = vec![Fact::HourlyCount { hour, count }, Fact::Reason { text: reason.to_owned() }];
        Ok(line("correct", event, before, after))
    }

    fn delete(&mut self, event: &EventName) -> Result<Line, Refusal> {
        let mut entry = self.changeable(event)?;
        entry.deleted_at = Some(self.now);
        self.set(event, entry);
        Ok(line("delete", event, vec![self.counts(event)], vec![Fact::Deleted]))
    }

    fn purge(&mut self, event: &EventName, grace: TimeDelta) -> Result<Line, Refusal> {
        let Some(deleted_at) = self.entry(event).deleted_at else {
            return Err(format!("“{event}” is not deleted.").into());
        };
        if !is_ripe(deleted_at, self.due_since, grace, self.now) {
            return Err(format!("The time in which “{event}” can be restored is not over yet.").into());
        }
        let before = vec![self.counts(event)];
        let names: Vec<_> = self.names(event).cloned().collect();
        names.iter().for_each(|name| self.history(name).clear());
        self.entries.remove(event);
        let mut purged = vec![event.clone()];
        self.entries.retain(|alias, entry| {
            let stays = entry.alias_of.as_ref() != Some(event);
            if !stays {
                purged.push(alias.clone());
            }
            stays
        });
        Ok(Line { undoable: false, purged, ..line("purge", event, before, vec![Fact::Purged]) })
    }

    /// Takes back exactly what the change did, as long as nothing else has changed that since. Every count
    /// stays under the name that it was counted with.
    fn undo(&mut self, change: i64, recorded: Option<&Recorded>) -> Result<Line, Refusal> {
        let Some(recorded) = recorded else {
            return Err(format!("There is no change {change} of an event.").into());
        };
        if let Some(by) = recorded.undone_by {
            return Err(format!("Change {change} has been undone already, by change {by}.").into());
        }
        if !recorded.undoable {
            return Err(format!("Change {change} can't be undone.").into());
        }
        let moved_into = recorded.moved_into();
        let mut before = self.touched(recorded);
        before.extend(recorded.facts.as_ref().and_then(Facts::reason).cloned());
        for EntryChange { event, before, after } in &recorded.entries {
            let mut entry = self.entry(event);
            if !entry.take_back(before, after) {
                return Err(changed_since(event, recorded).into());
            }
            self.set(event, entry);
        }
        match moved_into {
            Some(into) if recorded.what == RENAME && !recorded.counts.is_empty() => self.rename_back(into, recorded)?,
            _ => self.take_counts_back(&recorded.counts)?,
        }
        let mut after = self.touched(recorded);
        after.push(Fact::Undid { change, what: recorded.what.clone() });
        if let Some(into) = moved_into.filter(|_| recorded.what != RENAME && !recorded.counts.is_empty()) {
            after.push(Fact::LaterCountsStay { event: into.clone() });
        }
        Ok(Line { undoable: false, undoes: Some(change), ..line("undo", &recorded.event, before, after) })
    }

    fn take_counts_back(&mut self, counts: &[CountChange]) -> Result<(), Refusal> {
        for CountChange { event, hour, delta } in counts {
            let count = self.history(event).get(hour).copied().unwrap_or(0);
            let Some(count) = count.checked_add_signed(delta.wrapping_neg()) else {
                return Err(Refusal::CountIsLess { event: event.clone(), hour: *hour, count });
            };
            self.put(event, *hour, count);
        }
        Ok(())
    }

    /// An earlier version moved the counts. All of `into`, which was no event of its own before the rename,
    /// go back, whenever they came.
    fn rename_back(&mut self, into: &EventName, recorded: &Recorded) -> Result<(), Refusal> {
        let of_into = |change: &&EntryChange| change.event == *into;
        let before = recorded.entries.iter().find(of_into).map(|change| change.before.clone()).unwrap_or_default();
        if self.entry(into) != before {
            return Err(changed_since(into, recorded).into());
        }
        if let Some((merged, _)) = self.entries.iter().find(|(_, entry)| entry.alias_of.as_ref() == Some(into)) {
            return Err(format!("“{merged}” has become an alias of “{into}” since then: undo that first.").into());
        }
        let moved = mem::take(self.history(into));
        for (hour, count) in moved {
            let own = self.history(&recorded.event).get(&hour).copied().unwrap_or(0);
            self.put(&recorded.event, hour, own.saturating_add(count));
        }
        Ok(())
    }

    /// An addition goes to the event's own name; a reduction comes from that first, then from its
    /// aliases, none of which gets less than nothing.
    fn change_count(&mut self, event: &EventName, hour: Hour, before: u64, after: u64) {
        let names: Vec<_> = self.names(event).cloned().collect();
        let mut too_many = before.saturating_sub(after);
        for name in names {
            let own = self.history(&name).get(&hour).copied().unwrap_or(0);
            let gone = too_many.min(own);
            let added = if name == *event { after.saturating_sub(before) } else { 0 };
            self.put(&name, hour, own - gone + added);
            too_many -= gone;
        }
    }

    fn put(&mut self, event: &EventName, hour: Hour, count: u64) {
        if count == 0 {
            self.history(event).remove(&hour);
        } else {
            self.history(event).insert(hour, count);
        }
    }

    /// What must hold after every change, whatever it was.
    fn check(&self) -> Result<(), Refusal> {
        for event in self.histories.keys() {
            if self.names(event).fold(0, |sum: u64, name| sum.saturating_add(self.count_of(name))) > TOTAL_MAX {
                return Err(Refusal::TooMany { event: event.clone() });
            }
        }
        for (alias, entry) in &self.entries {
            if let Some(target) = &entry.alias_of
                && self.entries.get(target).is_some_and(|entry| entry.alias_of.is_some())
            {
                return Err(format!("“{alias}” would be an alias of “{target}”, which is an alias itself.").into());
            }
        }
        Ok(())
    }

    /// All counts of an event, summed up.
    fn counts(&self, event: &EventName) -> Fact {
        let mut all = History::new();
        for (hour, count) in self.names(event).filter_map(|name| self.histories.get(name)).flatten() {
            let sum = all.entry(*hour).or_default();
            *sum = sum.saturating_add(*count);
        }
        match summary(event, &all) {
            None => Fact::NoCounts { event: event.clone() },
            Some(EventTotal { event, count, first_hour, last_hour }) => {
                Fact::Counts { event, count, first_hour, last_hour }
            }
        }
    }

    /// What a recorded change touched, as it is now.
    fn touched(&self, recorded: &Recorded) -> Vec<Fact> {
        let entry = self.entry(&recorded.event);
        if let Some(into) = recorded.moved_into() {
            let itself = match entry.alias_of {
                Some(event) => Fact::AliasOf { event },
                None => self.counts(&recorded.event),
            };
            return vec![itself, self.counts(into)];
        }
        let mut facts = Vec::new();
        for EntryChange { before, after, .. } in recorded.entries.iter().filter(|of| of.event == recorded.event) {
            if before.description != after.description {
                facts.push(Fact::Description { text: entry.description.clone() });
            }
            if before.inactive != after.inactive {
                facts.push(activity(!entry.inactive));
            }
            if before.deleted_at != after.deleted_at {
                let is_deleted = entry.deleted_at.is_some();
                facts.push(if is_deleted { Fact::Deleted } else { self.counts(&recorded.event) });
            }
        }
        let hours: BTreeSet<_> = recorded.counts.iter().map(|count| count.hour).collect();
        facts.extend(hours.into_iter().map(|hour| {
            let count = self.count_in(&recorded.event, hour);
            Fact::HourlyCount { hour, count }
        }));
        facts
    }
}

impl CatalogEntry {
    /// Gives every field that differs between `before` and `after` its value of `before`; `false`
    /// when one of them has another value than that of `after` now.
    fn take_back(&mut self, before: &Self, after: &Self) -> bool {
        fn field<T: Clone + PartialEq>(now: &mut T, before: &T, after: &T) -> bool {
            let as_left = before == after || now == after;
            if before != after {
                now.clone_from(before);
            }
            as_left
        }
        field(&mut self.description, &before.description, &after.description)
            && field(&mut self.inactive, &before.inactive, &after.inactive)
            && field(&mut self.deleted_at, &before.deleted_at, &after.deleted_at)
            && field(&mut self.alias_of, &before.alias_of, &after.alias_of)
    }
}

fn activity(active: bool) -> Fact {
    if active { Fact::Active } else { Fact::Inactive }
}

fn changed_since(event: &EventName, recorded: &Recorded) -> String {
    let way_out = match recorded.moved_into() {
        Some(into) if recorded.what == RENAME => format!(", or rename “{into}” to “{}”", recorded.event),
        _ => String::new(),
    };
    format!("“{event}” has been changed again since then: undo the later change first{way_out}.")
}

fn expect_text(what: &str, text: &str) -> Result<(), Refusal> {
    if text.chars().count() > TEXT_CHARS_MAX {
        return Err(format!("The {what} is longer than {TEXT_CHARS_MAX} characters.").into());
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(format!("The {what} holds a control character.").into());
    }
    Ok(())
}
