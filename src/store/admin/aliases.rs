//! Where counts under other names belong.

use std::collections::HashMap;

use super::Catalog;
use crate::domain::EventName;
use crate::rows::{Named, merge};

/// From alias to event. No event in it is itself an alias.
#[derive(Clone, Debug, Default)]
pub struct Aliases(HashMap<EventName, EventName>);

impl FromIterator<(EventName, EventName)> for Aliases {
    fn from_iter<I: IntoIterator<Item = (EventName, EventName)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl From<&Catalog> for Aliases {
    fn from(catalog: &Catalog) -> Self {
        let entries = catalog.entries.iter();
        entries.filter_map(|(event, entry)| Some((event.clone(), entry.alias_of.clone()?))).collect()
    }
}

impl Aliases {
    /// The event that `name` stands for: mostly itself.
    #[must_use]
    pub fn event<'a>(&'a self, name: &'a EventName) -> &'a EventName {
        self.0.get(name).unwrap_or(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&EventName, &EventName)> {
        self.0.iter()
    }

    /// A sorted list under the events that its names stand for; sorted again. Costs nothing where there are
    /// no aliases, and little where none of them is in the list.
    #[must_use]
    pub fn apply<T: Named>(&self, rows: Vec<T>) -> Vec<T> {
        let is_alias = |row: &T| self.0.contains_key(row.name());
        let found = |alias: &EventName| rows.get(rows.partition_point(|row| row.name() < alias)).is_some_and(is_alias);
        if !self.0.keys().any(found) {
            return rows;
        }
        let (mut moved, stay): (Vec<T>, Vec<T>) = rows.into_iter().partition(is_alias);
        moved.iter_mut().for_each(|row| row.rename(self.event(row.name()).clone()));
        moved.sort_by(T::compare);
        moved.dedup_by(|later, first| {
            let same = later.compare(first).is_eq();
            if same {
                first.absorb(later);
            }
            same
        });
        merge(&stay, moved)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;
    use crate::domain::{Hour, HourlyCount};

    fn name(text: &str) -> EventName {
        EventName::parse(text).unwrap()
    }

    fn row(event: &str, hour: u32, count: u64) -> HourlyCount {
        HourlyCount { event: name(event), hour: Hour::from_number(hour).unwrap(), count }
    }

    #[test]
    fn rows_that_fall_together_become_one_and_the_order_stays() {
        let aliases: Aliases = [(name("a"), name("m")), (name("z"), name("m"))].into_iter().collect();
        let rows = [row("a", 1, 1), row("a", 2, 2), row("m", 1, 10), row("n", 1, 5), row("z", 1, 100)];
        assert_eq!(aliases.apply(rows.to_vec()), [row("m", 1, 111), row("m", 2, 2), row("n", 1, 5)]);
    }

    #[test]
    fn rows_without_aliases_stay_as_they_are() {
        let aliases: Aliases = [(name("a"), name("m"))].into_iter().collect();
        assert_eq!(aliases.apply(vec![row("b", 1, 1)]), [row("b", 1, 1)]);
    }
}
