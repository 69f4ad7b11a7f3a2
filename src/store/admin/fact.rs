//! What the log tells of a change: facts, of which the dashboard and its API make sentences.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::{EventName, Hour};
use crate::store::StoreError;

/// One thing that is so, before a change or after it. The log keeps it as JSON, so a published fact
/// keeps its name and its fields, and a new one comes with a new version of the schema.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// The event's description, in the words of its author.
    Description {
        text: String,
    },
    Active,
    Inactive,
    Deleted,
    /// There is no such event any more.
    Purged,
    /// All counts of an event, summed up.
    Counts {
        event: EventName,
        count: u64,
        first_hour: Hour,
        last_hour: Hour,
    },
    NoCounts {
        event: EventName,
    },
    /// The changed event is an alias.
    AliasOf {
        event: EventName,
    },
    /// The count of the changed event in one hour.
    HourlyCount {
        hour: Hour,
        count: u64,
    },
    /// Why a count was corrected, in the administrator's words.
    Reason {
        text: String,
    },
    /// This change undid that one.
    Undid {
        change: i64,
        what: String,
    },
    /// Counts that came after a merge stay in the event that both became: nobody knows whose they are.
    LaterCountsStay {
        event: EventName,
    },
    MaySignIn,
    MayNotSignIn,
    SignedOutEverywhere,
    SignedOutElsewhere,
    /// There is no such superuser any more.
    UserDeleted,
    KeyExpires {
        at: DateTime<Utc>,
    },
    KeyDoesNotExpire,
    KeyRevoked,
}

/// The facts of one change.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
pub struct Facts {
    pub before: Vec<Fact>,
    pub after: Vec<Fact>,
}

/// What a line of the log tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    Facts(Facts),
    /// Earlier versions kept English sentences instead. They are shown as they are and never read.
    Sentences {
        before: String,
        after: String,
    },
}

impl Facts {
    /// Those of an account's change, which tells only what is after it.
    pub(super) fn of_account(fact: Fact) -> Self {
        Self { before: Vec::new(), after: vec![fact] }
    }

    /// The reason of a correction.
    pub(super) fn reason(&self) -> Option<&Fact> {
        self.after.iter().find(|fact| matches!(fact, Fact::Reason { .. }))
    }

    /// The column's form.
    pub(in crate::store) fn stored(&self) -> Result<String, StoreError> {
        serde_json::to_string(self).map_err(|error| StoreError::Rejected(format!("can't note a change: {error}")))
    }

    /// Reads back what [`Facts::stored`] gave; a line of an earlier version has none.
    pub(in crate::store) fn read(column: Option<&str>) -> Result<Option<Self>, StoreError> {
        column
            .map(serde_json::from_str)
            .transpose()
            .map_err(|_| StoreError::Rejected("the log of changes holds facts that this program never writes".into()))
    }
}

impl Told {
    /// The columns' form of it: facts, or both sentences.
    pub(in crate::store) fn read(facts: Option<&str>, before: String, after: String) -> Result<Self, StoreError> {
        Ok(Facts::read(facts)?.map_or(Self::Sentences { before, after }, Self::Facts))
    }
}
