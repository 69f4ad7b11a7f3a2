//! Why a change is refused.

use std::fmt;

use crate::domain::{EventName, Hour, TOTAL_MAX};

/// Hours and counts stay what they are until somebody writes the sentence: programs get
/// `2024050112` and `1200`, people the hour of their zone and `1,200`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A sentence without hours and counts.
    Words(String),
    /// A correction of another count than the present one.
    CountIs { event: EventName, hour: Hour, count: u64, expected: u64 },
    /// A correction to what it is.
    CountIsSo { event: EventName, hour: Hour, count: u64 },
    /// Undoing would take away more than there is.
    CountIsLess { event: EventName, hour: Hour, count: u64 },
    /// The event's total would be more than can be counted.
    TooMany { event: EventName },
}

impl Refusal {
    /// The sentence, with hours and counts as the functions write them.
    pub fn sentence(&self, write_hour: impl Fn(Hour) -> String, write_count: impl Fn(u64) -> String) -> String {
        match self {
            Self::Words(sentence) => sentence.clone(),
            Self::CountIs { event, hour, count, expected } => format!(
                "The count of “{event}” in {} is {} by now, not {}.",
                write_hour(*hour),
                write_count(*count),
                write_count(*expected)
            ),
            Self::CountIsSo { event, hour, count } => {
                format!("The count of “{event}” in {} is {} already.", write_hour(*hour), write_count(*count))
            }
            Self::CountIsLess { event, hour, count } => format!(
                "“{event}” has {} in {} by now, fewer than this would take away: undo the later change first.",
                write_count(*count),
                write_hour(*hour)
            ),
            Self::TooMany { event } => format!("The total of “{event}” would pass {}.", write_count(TOTAL_MAX)),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence(|hour| hour.to_string(), |count| count.to_string()))
    }
}

impl From<String> for Refusal {
    fn from(sentence: String) -> Self {
        Self::Words(sentence)
    }
}

impl From<&str> for Refusal {
    fn from(sentence: &str) -> Self {
        Self::Words(sentence.to_owned())
    }
}
