//! Where counts under other names belong.

use std::borrow::Cow;
use std::collections::HashMap;

use super::Catalog;
use crate::domain::{EventName, HourlyCount};

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

    /// Rows that are distinct and sorted by event bytes, then hour, under the events that they belong
    /// to; distinct and sorted again.
    #[must_use]
    pub fn apply<'a>(&self, rows: &'a [HourlyCount]) -> Cow<'a, [HourlyCount]> {
        if self.0.is_empty() || !rows.iter().any(|row| self.0.contains_key(&row.event)) {
            return Cow::Borrowed(rows);
        }
        let belonging = |row: &HourlyCount| HourlyCount { event: self.event(&row.event).clone(), ..row.clone() };
        let mut rows: Vec<HourlyCount> = rows.iter().map(belonging).collect();
        rows.sort_unstable();
        rows.dedup_by(|later, first| {
            let same = (&later.event, later.hour) == (&first.event, first.hour);
            if same {
                // Beyond what the stores hold anyway, which then refuse it.
                first.count = first.count.saturating_add(later.count);
            }
            same
        });
        Cow::Owned(rows)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;
    use crate::domain::Hour;

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
        assert_eq!(*aliases.apply(&rows), [row("m", 1, 111), row("m", 2, 2), row("n", 1, 5)]);
    }

    #[test]
    fn rows_without_aliases_are_not_copied() {
        let aliases: Aliases = [(name("a"), name("m"))].into_iter().collect();
        assert!(matches!(aliases.apply(&[row("b", 1, 1)]), Cow::Borrowed(_)));
    }
}
