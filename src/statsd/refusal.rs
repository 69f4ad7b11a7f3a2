//! Why a line is not counted, and how often that was so.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::batch::RecordError;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a line, or a connection, was turned away.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
        }

        impl Refusal {
            /// Each of them with the word that logs have for it.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$name, $word)),*];
        }
    };
}

refusals! {
    /// It is not `name:count|c`.
    Malformed = "malformed",
    /// It is a gauge, a timer, a set, an event: this program counts.
    Kind = "not_a_counter",
    Negative = "negative",
    Fraction = "fraction",
    Zero = "zero",
    /// More than one increment may carry, with the sample rate.
    TooLarge = "too_large",
    /// The sample rate is not above 0 and at most 1.
    Rate = "bad_rate",
    Name = "bad_name",
    TooLong = "too_long",
    /// The connection was closed or silent in the middle of it.
    Unfinished = "unfinished",
    Inactive = "inactive",
    Deleted = "deleted",
    TooManyEvents = "too_many_events",
    TotalOverflow = "total_overflow",
    JournalUnavailable = "journal_unavailable",
    /// A connection beyond the limit.
    Connection = "too_many_connections",
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::JournalUnavailable => Self::JournalUnavailable,
            RecordError::TotalOverflow => Self::TotalOverflow,
            RecordError::TooManyEvents => Self::TooManyEvents,
            RecordError::Inactive => Self::Inactive,
            RecordError::Deleted => Self::Deleted,
        }
    }
}

/// What became of all lines since the start.
#[derive(Default)]
pub struct Figures {
    counted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Figures {
    pub(super) fn note(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_counted(&self) {
        self.counted.fetch_add(1, Ordering::Relaxed);
    }

    /// Lines that were counted.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// How often something was turned away for this reason.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }

    pub(super) fn all_refused(&self) -> u64 {
        Refusal::ALL.iter().map(|(refusal, _)| self.refused(*refusal)).sum()
    }
}

/// The reasons that occurred: `negative 3, zero 1`.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let occurred = Refusal::ALL.iter().map(|(refusal, word)| (self.refused(*refusal), word));
        for (index, (number, word)) in occurred.filter(|(number, _)| *number > 0).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{word} {number}")?;
        }
        Ok(())
    }
}
