//! The live nodes of the database, as lines of a table.

use super::view::Page;
use crate::presence::Presence;
use crate::store::NodeSeen;

pub(super) struct NodeLine {
    pub(super) address: String,
    pub(super) host: String,
    pub(super) version: String,
    /// Times are the database's.
    pub(super) started: String,
    pub(super) last_commit: String,
    pub(super) waiting: String,
    pub(super) is_this: bool,
    pub(super) is_copied: bool,
}

impl NodeLine {
    pub(super) fn all(nodes: &[NodeSeen], presence: &Presence, page: &Page) -> Vec<Self> {
        let line = |seen: &NodeSeen| Self {
            address: seen.address.clone(),
            host: seen.host.clone(),
            version: seen.version.clone(),
            started: page.time(&seen.started),
            last_commit: seen.last_commit.as_ref().map_or_else(|| "none yet".into(), |at| page.time(at)),
            waiting: match seen.lag.as_secs() {
                _ if seen.lag.is_zero() => "none".into(),
                seconds => format!("for {} s", seconds.max(1)),
            },
            is_this: presence.is_this(seen),
            is_copied: seen.is_copied(nodes),
        };
        nodes.iter().map(line).collect()
    }
}
