//! Which nodes live on a store, as each of them reports every few seconds. For people who look after
//! them: no count hangs on it.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::domain::WriterId;

/// A node counts as live for so long after its last report: some of them may be late or lost.
pub(super) const LIVE: Duration = Duration::from_secs(15);

/// A data folder: what stays the same when a node is started again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// Reads back the 32 hexadecimal digits of its `Display`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// What a node says of itself. It measures how long ago things happened; when that was, the store's clock
/// says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeReport {
    pub node: NodeId,
    /// Begun anew with each start: the process.
    pub writer: WriterId,
    /// What its machine is called.
    pub host: String,
    /// Where it listens.
    pub address: String,
    pub version: String,
    pub started: Duration,
    /// `None`: it has committed nothing yet.
    pub last_commit: Option<Duration>,
    /// How old the oldest count is that it has not committed; `None`: there is none.
    pub waiting: Option<Duration>,
}

/// A node that has reported lately, by the store's clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSeen {
    pub node: NodeId,
    pub writer: WriterId,
    pub host: String,
    pub address: String,
    pub version: String,
    pub started: DateTime<Utc>,
    pub last_commit: Option<DateTime<Utc>>,
    /// How old its last report is.
    pub reported: Duration,
    /// How old the oldest count may be by now that it had not committed when it reported; zero: there was none.
    pub lag: Duration,
}

impl NodeSeen {
    /// Whether another one of these runs on a copy of the same data folder.
    #[must_use]
    pub fn is_copied(&self, among: &[Self]) -> bool {
        among.iter().any(|other| other.node == self.node && other.writer != self.writer)
    }
}
