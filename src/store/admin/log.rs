//! What the log keeps of a change, so that it can be undone.

use serde::{Deserialize, Serialize};

use super::{CatalogEntry, Facts};
use crate::domain::{EventName, Hour};
use crate::store::StoreError;

/// What a change did to one entry of the catalog. No entry is the same as the default one.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct EntryChange {
    pub event: EventName,
    pub before: CatalogEntry,
    pub after: CatalogEntry,
}

/// What a change added to one hourly count; negative: took away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CountChange {
    pub event: EventName,
    pub hour: Hour,
    pub delta: i64,
}

/// A line of the log, as far as undoing needs it.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub what: String,
    pub event: EventName,
    /// `None`: an earlier version wrote it.
    pub facts: Option<Facts>,
    pub undoable: bool,
    pub undone_by: Option<i64>,
    pub entries: Vec<EntryChange>,
    pub counts: Vec<CountChange>,
}

impl Recorded {
    /// Where a rename or a merge moved its event.
    pub fn moved_into(&self) -> Option<&EventName> {
        self.entries.iter().find(|change| change.event == self.event)?.after.alias_of.as_ref()
    }
}

/// The column's form of [`EntryChange`]s.
pub fn stored_entries(entries: &[EntryChange]) -> Result<String, StoreError> {
    serde_json::to_string(entries).map_err(|error| StoreError::Rejected(format!("can't note a change: {error}")))
}

/// Reads back what [`stored_entries`] gave.
pub fn read_entries(text: &str) -> Result<Vec<EntryChange>, StoreError> {
    serde_json::from_str(text)
        .map_err(|_| StoreError::Rejected("the log of changes holds a line that this program never writes".into()))
}
