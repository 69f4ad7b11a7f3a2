//! The parts of an answer in JSON, besides the numbers: facts have types, and become text here.

use serde::Serialize;

/// What a batch is told: how many of its items were counted, and about the first that were not.
#[derive(Debug, Serialize)]
pub(crate) struct BatchOutcome {
    pub(crate) accepted: u64,
    pub(crate) duplicates: u64,
    pub(crate) rejected: u64,
    pub(crate) errors: Vec<ItemError>,
}

/// One rejected item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct ItemError {
    /// Which item, from 0.
    pub(crate) index: u64,
    pub(crate) code: &'static str,
    /// The code, a colon and the detail.
    pub(crate) reason: String,
}

/// What is known of the increments of a POST that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Counted {
    /// They are not counted: it may be sent again.
    No,
    /// They may be counted or not.
    Unknown,
}

impl Counted {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// The body of any failure.
#[derive(Serialize)]
pub(crate) struct FailureEnvelope<'a> {
    pub(crate) status: bool,
    pub(crate) response: Option<u16>,
    pub(crate) error: Words,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) counted: Option<Counted>,
    #[serde(flatten)]
    pub(crate) outcome: Option<&'a BatchOutcome>,
}

/// What went wrong, once for a developer and once for a person.
#[derive(Serialize)]
pub(crate) struct Words {
    pub(crate) internal: String,
    pub(crate) external: String,
}
