//! What is known of the store from the last attempts to use it.

use std::fmt;
use std::time::Instant;

use parking_lot::Mutex;

use super::StoreError;

/// Shared by all who use the store; said on status pages and in `/readyz`. [`super::Watched`] tells
/// it of every use.
#[derive(Default)]
pub struct StoreHealth {
    status: Mutex<Uses>,
}

/// Commits and looks apart: a look that succeeds does not mean that commits do.
#[derive(Default)]
struct Uses {
    status: StoreStatus,
    commits: Option<Outage>,
    looks: Option<Outage>,
}

/// What the last uses said.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// `None`: the store could be used.
    pub outage: Option<Outage>,
    pub last_commit: Option<Instant>,
    /// Writers whose oldest batch the store refuses for good: a human has to look.
    pub refused_writers: usize,
    /// Confirmed counts that the store lacks by now.
    pub missing: i128,
    /// Rows that this process has set aside, since the store refuses them.
    pub set_aside: u64,
}

/// The store can't be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outage {
    pub kind: OutageKind,
    /// Since when it has been of this kind.
    pub since: Instant,
    /// As the store said it: for logs and administrators, not for clients.
    pub reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutageKind {
    /// No answer; that may pass by itself.
    Unreachable,
    /// It answers and turns this program away, until somebody mends that.
    Refused,
    /// Another database than the expected one answers.
    AnotherDatabase,
}

impl OutageKind {
    fn of(error: &StoreError) -> Option<(Self, &str)> {
        match error {
            StoreError::Unavailable(reason) => Some((Self::Unreachable, reason)),
            StoreError::Refused(reason) => Some((Self::Refused, reason)),
            StoreError::AnotherDatabase(reason) => Some((Self::AnotherDatabase, reason)),
            StoreError::Rejected(_)
            | StoreError::CatalogChanging
            | StoreError::TooManyRows { .. }
            | StoreError::Busy => None,
        }
    }
}

/// Which uses tell how the store is. A slow or rejected read concerns that read only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    Commit,
    /// A small read that every node makes at every interval: position, identity, catalog.
    Look,
}

impl StoreStatus {
    #[must_use]
    pub fn reachable(&self) -> bool {
        self.outage.is_none()
    }
}

/// In words for `/readyz` and the dashboard: how it is and what to do. No address and no secret, except
/// what the database itself says when it turns this program away.
impl fmt::Display for StoreStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outage {
            Some(Outage { kind: OutageKind::Unreachable, .. }) => {
                f.write_str("unreachable: the database gives no answer; counting goes on")?;
            }
            Some(Outage { kind: OutageKind::Refused, reason, .. }) => write!(f, "refused: {reason}")?,
            Some(Outage { kind: OutageKind::AnotherDatabase, .. }) => f.write_str(
                "another database: not the one that this node's journal belongs to; connect the right one, or run event-tracker accept-store",
            )?,
            None if self.missing == 0 => return f.write_str("reachable"),
            None => {}
        }
        if self.missing != 0 {
            let separator = if self.outage.is_some() { "; " } else { "" };
            write!(
                f,
                "{separator}behind: {} confirmed counts are missing; compare the database with its backups, then run event-tracker accept-store",
                self.missing
            )?;
        }
        Ok(())
    }
}

impl StoreHealth {
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        self.status.lock().status.clone()
    }

    /// Takes note of how a use of the store ended. A line in the log for each change of kind.
    pub(super) fn note<T>(&self, used: Use, result: &Result<T, StoreError>) {
        let mut uses = self.status.lock();
        let now = Instant::now();
        let outage = result.as_ref().err().and_then(OutageKind::of);
        let last = if used == Use::Commit { &mut uses.commits } else { &mut uses.looks };
        *last = outage.map(|(kind, reason)| Outage { kind, since: now, reason: reason.to_owned() });
        if used == Use::Commit && result.is_ok() {
            uses.status.last_commit = Some(now);
        }
        let before = uses.status.outage.take();
        // Where both fail, commits say what matters more.
        let mut after = uses.commits.clone().or_else(|| uses.looks.clone());
        if let (Some(before), Some(after)) = (&before, &mut after)
            && before.kind == after.kind
        {
            after.since = before.since;
        }
        tell(before.as_ref(), after.as_ref(), now);
        uses.status.outage = after;
    }

    pub fn note_refused(&self, writers: usize) {
        self.status.lock().status.refused_writers = writers;
    }

    pub fn note_missing(&self, counts: i128) {
        self.status.lock().status.missing = counts;
    }

    pub(super) fn note_set_aside(&self, rows: u64) {
        self.status.lock().status.set_aside = rows;
    }
}

fn tell(before: Option<&Outage>, after: Option<&Outage>, now: Instant) {
    match (before, after) {
        (Some(before), Some(after)) if before.kind == after.kind => {}
        (_, Some(Outage { kind: OutageKind::Unreachable, reason, .. })) => {
            tracing::warn!(reason, "The store is unavailable: counting goes on, the journal keeps the counts");
        }
        (_, Some(Outage { kind: OutageKind::Refused, reason, .. })) => {
            tracing::error!(reason, "The store turns this node away: counting goes on, the journal keeps the counts");
        }
        (_, Some(Outage { kind: OutageKind::AnotherDatabase, reason, .. })) => {
            tracing::error!(reason, "Another database answers: counting goes on, the journal keeps the counts");
        }
        (Some(before), None) => {
            let outage_ms = u64::try_from((now - before.since).as_millis()).unwrap_or(u64::MAX);
            tracing::info!(outage_ms, "The store is available again");
        }
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: StoreError) -> Result<(), StoreError> {
        Err(error)
    }

    fn kind(health: &StoreHealth) -> Option<OutageKind> {
        health.status().outage.map(|outage| outage.kind)
    }

    #[test]
    fn an_outage_says_of_which_kind_it_is_and_ends_with_the_next_use() {
        let health = StoreHealth::default();
        for (error, expected) in [
            (StoreError::Unavailable("x".into()), OutageKind::Unreachable),
            (StoreError::Refused("x".into()), OutageKind::Refused),
            (StoreError::AnotherDatabase("x".into()), OutageKind::AnotherDatabase),
        ] {
            health.note(Use::Look, &failed(error));
            assert_eq!(kind(&health), Some(expected));
        }
        health.note(Use::Look, &Ok(()));
        assert!(health.status().reachable());
    }

    #[test]
    fn a_statement_that_is_refused_is_no_outage() {
        let health = StoreHealth::default();
        health.note(Use::Commit, &failed(StoreError::Rejected("x".into())));
        health.note(Use::Look, &failed(StoreError::TooManyRows { rows_max: 1 }));
        assert!(health.status().reachable());
    }

    #[test]
    fn looks_that_succeed_do_not_hide_that_commits_fail() {
        let health = StoreHealth::default();
        health.note(Use::Commit, &failed(StoreError::Unavailable("full".into())));
        let since = health.status().outage.map(|outage| outage.since);
        health.note(Use::Look, &Ok(()));
        health.note(Use::Commit, &failed(StoreError::Unavailable("still full".into())));
        let outage = health.status().outage;
        assert_eq!(outage.as_ref().map(|outage| outage.since), since);
        assert_eq!(outage.map(|outage| outage.reason), Some("still full".into()));
        health.note(Use::Commit, &Ok(()));
        assert!(health.status().reachable() && health.status().last_commit.is_some());
    }
}
