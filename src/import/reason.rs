//! Why a line is not counted.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::{EVENT_NAME_BYTES_MAX, NUM_MAX, NameError};
use crate::names::Refused;

use super::LINE_BYTES_MAX;

/// So much of what a line says is shown.
const DETAIL_CHARS_MAX: usize = 120;

/// In the order of the summary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    Method,
    Status,
    Asset,
    Blank,
    Unreadable,
    Item,
    TooLong,
    Request,
    Time,
    TooEarly,
    Future,
    Count,
    EmptyName,
    LongName,
    ControlCharacter,
    Dots,
    NotUtf8,
    Inactive,
    Deleted,
    TotalOverflow,
    /// The last line has no end yet and can't be read: it is left for the next time.
    Unfinished,
}

impl From<NameError> for Reason {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Empty => Self::EmptyName,
            NameError::TooLong => Self::LongName,
            NameError::ControlCharacter => Self::ControlCharacter,
            NameError::Dots => Self::Dots,
            NameError::NotUtf8 => Self::NotUtf8,
        }
    }
}

impl Reason {
    /// `None`: the name is refused for want of room, which may be mended.
    pub(super) fn of_refused(refused: Refused) -> Option<Self> {
        match refused {
            Refused::TooManyEvents => None,
            Refused::TotalOverflow => Some(Self::TotalOverflow),
            Refused::Inactive => Some(Self::Inactive),
            Refused::Deleted => Some(Self::Deleted),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "another method (--method)",
            Self::Status => "another status (--status)",
            Self::Asset => "images, styles, scripts and fonts (--assets counts them)",
            Self::Blank => "empty",
            Self::Unreadable => "neither a line of an access log nor JSON of the format that is expected",
            Self::Item => "JSON, but not a name or an object with `event` and perhaps `count` and `time`",
            Self::TooLong => return write!(f, "longer than {LINE_BYTES_MAX} bytes"),
            Self::Request => "a request without a method and a path",
            Self::Time => "a time that can't be read",
            Self::TooEarly => "a time before 1970",
            Self::Future => "a time in the future",
            Self::Count => return write!(f, "a count that is no whole number from 1 to {NUM_MAX}"),
            Self::EmptyName => "an empty name",
            Self::LongName => return write!(f, "a name longer than {EVENT_NAME_BYTES_MAX} bytes"),
            Self::ControlCharacter => "a name with a control character",
            Self::Dots => "the names . and ..",
            Self::NotUtf8 => "a name that is not UTF-8 after percent-decoding",
            Self::Inactive => "events that an administrator has switched off",
            Self::Deleted => "events that an administrator has deleted",
            Self::TotalOverflow => "a total that would be too large",
            Self::Unfinished => "the last line has no end yet; it is left for the next import",
        })
    }
}

/// The lines that were skipped for one reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skipped {
    pub lines: u64,
    /// The number of the first of them, from 1.
    pub first_line: u64,
    /// What was wrong with that one, where that is known.
    pub detail: Option<String>,
}

/// All that was skipped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Skips(BTreeMap<Reason, Skipped>);

impl Skips {
    pub(super) fn note(&mut self, reason: Reason, lines: u64, first_line: u64, detail: Option<String>) {
        let new = || Skipped { lines: 0, first_line, detail: detail.map(|text| shown(&text)) };
        self.0.entry(reason).or_insert_with(new).lines += lines;
    }

    pub(super) fn absorb(&mut self, others: Self) {
        for (reason, Skipped { lines, first_line, detail }) in others.0 {
            self.note(reason, lines, first_line, detail);
        }
    }

    /// How many lines, for all reasons.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.0.values().map(|skipped| skipped.lines).sum()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, &Skipped)> {
        self.0.iter().map(|(reason, skipped)| (*reason, skipped))
    }
}

fn shown(text: &str) -> String {
    text.chars().take(DETAIL_CHARS_MAX).flat_map(char::escape_debug).collect()
}
