//! The parts of an answer in JSON, besides the numbers: facts have types, and become text here.

use serde::Serialize;

/// What a batch is told: how many of its items were counted, and about the first that were not.
#[derive(Debug, Serialize)]
pub(super) struct BatchOutcome {
    pub(super) accepted: u64,
    pub(super) duplicates: u64,
    pub(super) rejected: u64,
    pub(super) errors: Vec<ItemError>,
}

/// One rejected item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct ItemError {
    /// Which item, from 0.
    pub(super) index: u64,
    pub(super) code: &'static str,
    /// The code, a colon and the detail.
    pub(super) reason: String,
}

/// What is known of the increments of a POST that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Counted {
    /// They are not counted: it may be sent again.
    No,
    /// They may be counted or not.
    Unknown,
}

impl Counted {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// The body of any failure.
#[derive(Serialize)]
pub(super) struct FailureEnvelope<'a> {
    pub(super) status: bool,
    pub(super) response: Option<u16>,
    pub(super) error: Words,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) counted: Option<Counted>,
    #[serde(flatten)]
    pub(super) outcome: Option<&'a BatchOutcome>,
}

/// What went wrong, once for a developer and once for a person.
#[derive(Serialize)]
pub(super) struct Words {
    pub(super) internal: String,
    pub(super) external: String,
}
