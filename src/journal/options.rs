//! What the journal can be told.

use crate::domain::Ack;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// What must have happened before a POST is acknowledged, unless it asks otherwise:
    /// `memory`, `journal` or `disk`.
    pub ack: Ack,
    /// An open segment beyond this many bytes, and far beyond its distinct counters, is rewritten
    /// as a snapshot. At least 65,536.
    pub segment_bytes_max: u64,
    /// While all segments together hold more bytes than this, POSTs are refused. At least twice
    /// `segment_bytes_max`.
    pub bytes_max: u64,
    /// How long a committed segment is kept, to be delivered again should the store lose its commit.
    pub keep_committed_ms: u64,
    /// Bytes of committed segments kept at most; the oldest go first.
    pub keep_committed_bytes_max: u64,
    /// Of more committed segments than this, the files of the oldest are used anew: too many would make the
    /// folder slow. Not to be configured.
    #[serde(skip, default = "Options::files_max")]
    pub keep_committed_files_max: usize,
    /// Whether a thread of its own syncs and writes for those who wait. `false`: [`super::Journal::attend`] does,
    /// as in simulations. Not to be configured.
    #[serde(skip, default = "Options::own_thread")]
    pub own_thread: bool,
    /// Start although a segment is damaged in the middle: take what is readable, keep the damaged
    /// file beside it. Counts that can't be read are lost; the log says how much.
    pub accept_damage: bool,
}

/// As in `config/default.toml`.
impl Default for Options {
    fn default() -> Self {
        Self {
            ack: Ack::Journal,
            segment_bytes_max: 64 << 20,
            bytes_max: 4 << 30,
            keep_committed_ms: 600_000,
            keep_committed_bytes_max: 256 << 20,
            keep_committed_files_max: Self::files_max(),
            own_thread: Self::own_thread(),
            accept_damage: false,
        }
    }
}

impl Options {
    fn files_max() -> usize {
        2_000
    }

    fn own_thread() -> bool {
        true
    }
}
