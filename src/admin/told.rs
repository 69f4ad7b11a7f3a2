//! The log's facts in English.

use chrono::{DateTime, Utc};

use super::view::grouped;
use super::zone::Zone;
use crate::domain::Hour;
use crate::store::admin::{Fact, Told};

/// The reader of a text: a program gets hours and counts as they are kept, a viewer of a page gets the
/// hours of their zone and grouped numbers.
#[derive(Clone, Copy)]
pub(super) enum Reader {
    Program,
    Viewer(Zone),
}

/// The texts for before and after a change.
pub(super) fn texts(told: &Told, reader: Reader) -> (String, String) {
    match told {
        Told::Facts(facts) => (reader.text(&facts.before), reader.text(&facts.after)),
        Told::Sentences { before, after } => (before.clone(), after.clone()),
    }
}

impl Reader {
    fn text(self, facts: &[Fact]) -> String {
        // Remarks about a change stand in brackets behind what it did.
        let is_remark =
            |fact: &&Fact| matches!(fact, Fact::Reason { .. } | Fact::Undid { .. } | Fact::LaterCountsStay { .. });
        let joined = |facts: Vec<&Fact>| facts.into_iter().map(|fact| self.words(fact)).collect::<Vec<_>>().join("; ");
        let (remarks, facts): (Vec<_>, Vec<_>) = facts.iter().partition(is_remark);
        let (facts, remarks) = (joined(facts), joined(remarks));
        match (facts.is_empty(), remarks.is_empty()) {
            (_, true) => facts,
            (true, false) => format!("({remarks})"),
            (false, false) => format!("{facts} ({remarks})"),
        }
    }

    fn words(self, fact: &Fact) -> String {
        match fact {
            Fact::Description { text } | Fact::Reason { text } => text.clone(),
            Fact::Active => "active".into(),
            Fact::Inactive => "inactive".into(),
            Fact::Deleted => "deleted".into(),
            Fact::Purged => "nothing".into(),
            Fact::Counts { event, count, first_hour, last_hour } => format!(
                "“{event}” with {} from {} to {}",
                self.count(*count),
                self.hour(*first_hour),
                self.hour(*last_hour)
            ),
            Fact::NoCounts { event } => format!("“{event}” without counts"),
            Fact::AliasOf { event } => format!("alias of “{event}”"),
            Fact::HourlyCount { hour, count } => format!("{}: {}", self.hour(*hour), self.count(*count)),
            Fact::Undid { change, what } => format!("undid change {change}, {what}"),
            Fact::LaterCountsStay { event } => format!("what was counted since then stays in “{event}”"),
            Fact::MaySignIn => "may sign in".into(),
            Fact::MayNotSignIn => "may not sign in".into(),
            Fact::SignedOutEverywhere => "signed out everywhere".into(),
            Fact::SignedOutElsewhere => "signed out everywhere else".into(),
            Fact::UserDeleted => "is gone".into(),
            Fact::KeyExpires { at } => format!("expires on {}", self.day(*at)),
            Fact::KeyDoesNotExpire => "does not expire".into(),
            Fact::KeyRevoked => "is revoked".into(),
        }
    }

    fn hour(self, hour: Hour) -> String {
        match self {
            Self::Program => hour.to_string(),
            Self::Viewer(zone) => zone.time(hour.start()),
        }
    }

    fn count(self, count: u64) -> String {
        match self {
            Self::Program => count.to_string(),
            Self::Viewer(_) => grouped(count),
        }
    }

    fn day(self, at: DateTime<Utc>) -> String {
        let zone = match self {
            Self::Program => Zone::default(),
            Self::Viewer(zone) => zone,
        };
        zone.local(at).format("%Y-%m-%d").to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::EventName;
    use crate::store::admin::Facts;

    fn name(text: &str) -> EventName {
        EventName::parse(text).unwrap()
    }

    fn hour(text: &str) -> Hour {
        serde_json::from_value(text.into()).unwrap()
    }

    fn counted(event: &str, count: u64, first: &str) -> Fact {
        Fact::Counts { event: name(event), count, first_hour: hour(first), last_hour: hour("2026112401") }
    }

    /// For a program, and for a viewer in Berlin.
    fn both(facts: Vec<Fact>) -> [String; 2] {
        let told = Told::Facts(Facts { before: Vec::new(), after: facts });
        [Reader::Program, Reader::Viewer(Zone::parse("Europe/Berlin").unwrap())].map(|reader| {
            let (before, after) = texts(&told, reader);
            assert_eq!(before, "");
            after
        })
    }

    #[test]
    fn counts_and_hours_are_told_in_the_viewers_zone_and_as_they_are_kept_to_programs() {
        let undid = Fact::Undid { change: 7, what: "merge".into() };
        let stays = Fact::LaterCountsStay { event: name("b") };
        assert_eq!(
            both(vec![counted("a", 333_923, "2026082518"), Fact::NoCounts { event: name("b") }, undid, stays]),
            [
                "“a” with 333923 from 2026082518 to 2026112401; “b” without counts \
                 (undid change 7, merge; what was counted since then stays in “b”)",
                "“a” with 333,923 from 25 Aug 2026, 20:00 to 24 Nov 2026, 02:00; “b” without counts \
                 (undid change 7, merge; what was counted since then stays in “b”)"
            ]
        );
        let corrected = vec![
            Fact::HourlyCount { hour: hour("2026082518"), count: 1200 },
            Fact::Reason { text: "1200: twice".into() },
        ];
        assert_eq!(both(corrected), ["2026082518: 1200 (1200: twice)", "25 Aug 2026, 20:00: 1,200 (1200: twice)"]);
        let expires = Fact::KeyExpires { at: "2026-08-25T23:00:00Z".parse().unwrap() };
        assert_eq!(both(vec![expires]), ["expires on 2026-08-25", "expires on 2026-08-26"]);
    }

    #[test]
    fn words_of_people_stay_as_they_are_whatever_they_look_like() {
        for words in
            ["", "2026082518: 1200", "“a” with 7 from 2026082518 to 2026082518", "x (undid change 1, describe)"]
        {
            assert_eq!(both(vec![Fact::Description { text: words.into() }]), [words, words]);
            let older = Told::Sentences { before: words.into(), after: words.into() };
            assert_eq!(texts(&older, Reader::Viewer(Zone::default())), (words.into(), words.into()));
        }
        let undone =
            vec![Fact::Description { text: String::new() }, Fact::Undid { change: 1, what: "describe".into() }];
        assert_eq!(both(undone)[0], "(undid change 1, describe)");
    }
}
