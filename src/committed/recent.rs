//! What was committed lately, by this node and by others, so that kept lists are brought forward by it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::batch::RecentCommits;
use crate::domain::{Delta, WriterId};
use crate::store::{LedgerPosition, Since};

/// About 30 MB.
const ROWS_MAX: usize = 400_000;
const DELTAS_MAX: usize = 10_000;

/// The end of the store's log as this node knows it.
#[derive(Default)]
pub(super) struct RecentDeltas {
    /// As in [`crate::reconcile::Reconciler::epoch`].
    epoch: u64,
    /// How far it reaches; `None`: it was not followed lately.
    position: Option<LedgerPosition>,
    /// In the order of each writer.
    deltas: VecDeque<Arc<Delta>>,
    rows: usize,
}

impl RecentDeltas {
    /// Adds what this process itself has committed, and gives the position from which the store is to go
    /// on.
    pub(super) fn known(&mut self, epoch: u64, commits: &RecentCommits) -> Option<LedgerPosition> {
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::default() };
        }
        let position = self.position.as_mut()?;
        let mut own: Vec<Arc<Delta>> = Vec::new();
        for delta in &commits.batches {
            if position.last_seq_in(delta.partition, delta.id.writer) == delta.after {
                position.advance(delta);
                own.push(Arc::clone(delta));
            }
        }
        let position = position.clone();
        own.into_iter().for_each(|delta| self.push(delta));
        Some(position)
    }

    /// Follows the log from `position` on, unless it is followed already.
    pub(super) fn begin(&mut self, epoch: u64, position: &LedgerPosition) {
        if self.epoch != epoch || self.position.is_none() {
            *self = Self { epoch, position: Some(position.clone()), ..Self::default() };
        }
    }

    /// Takes note of what the store gave.
    pub(super) fn go_on(&mut self, epoch: u64, since: Since) {
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::default() };
        }
        self.position = Some(since.position);
        match since.deltas {
            Some(deltas) => deltas.into_iter().for_each(|delta| self.push(Arc::new(delta))),
            None => (self.deltas, self.rows) = (VecDeque::new(), 0),
        }
    }

    /// The store stands at a position, and nobody asked for what led there.
    pub(super) fn forget(&mut self) {
        *self = Self { epoch: self.epoch, ..Self::default() };
    }

    fn push(&mut self, delta: Arc<Delta>) {
        self.rows += delta.rows.len();
        self.deltas.push_back(delta);
        while self.rows > ROWS_MAX || self.deltas.len() > DELTAS_MAX {
            let Some(first) = self.deltas.pop_front() else { break };
            self.rows -= first.rows.len();
        }
    }

    /// Moves `position` forward by all that is known, and gives what it lacked; also what it must have
    /// reached then, as in [`LedgerPosition::beside`], where that is known.
    pub(super) fn behind(
        &self,
        epoch: u64,
        position: &mut LedgerPosition,
        own: &[WriterId],
    ) -> (Vec<Arc<Delta>>, Option<(u64, i128)>) {
        if self.epoch != epoch {
            return (Vec::new(), None);
        }
        let reached = self.position.as_ref().map(|position| position.beside(own));
        (follow(&self.deltas, position), reached)
    }
}

/// Moves `position` forward by those of `deltas` that follow it without a hole, and gives them.
pub(super) fn follow<'a>(
    deltas: impl IntoIterator<Item = &'a Arc<Delta>>,
    position: &mut LedgerPosition,
) -> Vec<Arc<Delta>> {
    let mut lacking = Vec::new();
    for delta in deltas {
        let is_next = position.last_seq_in(delta.partition, delta.id.writer) == delta.after;
        if is_next && delta.id.seq > delta.after {
            position.advance(delta);
            lacking.push(Arc::clone(delta));
        }
    }
    lacking
}
