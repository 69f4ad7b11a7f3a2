//! What has happened in a simulation: its history, its figures and its story.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use event_tracker::node::Node;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::figures::Figures;
use crate::check::History;

/// The story of a simulation; what nodes log can be written into it.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<String>>);

impl std::io::Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What has happened so far; the tasks of a simulation share it.
pub(super) struct Record {
    history: Mutex<History>,
    /// The nodes that run, by data folder.
    nodes: Mutex<BTreeMap<usize, Arc<Node>>>,
    figures: Mutex<Figures>,
    /// What went wrong, first things first.
    wrong: Mutex<Vec<String>>,
    trace: Trace,
    pub(super) began: Instant,
    /// When something last happened.
    last: Mutex<Duration>,
}

impl Record {
    /// That goes on after this history.
    pub(super) fn new(history: History, trace: Trace) -> Arc<Self> {
        Arc::new(Self {
            history: Mutex::new(history),
            nodes: Mutex::default(),
            figures: Mutex::default(),
            wrong: Mutex::default(),
            trace,
            began: Instant::now(),
            last: Mutex::default(),
        })
    }

    /// Later with each call: what happens in one simulated moment has an order, too.
    pub(super) fn now(&self) -> Duration {
        let mut last = self.last.lock();
        *last = self.began.elapsed().max(*last + Duration::from_nanos(1));
        *last
    }

    pub(super) fn starts(&self, number: usize, node: &Arc<Node>) {
        self.nodes.lock().insert(number, Arc::clone(node));
    }

    pub(super) fn ends(&self, number: usize) {
        let node = self.nodes.lock().remove(&number);
        if let Some(node) = node {
            self.history.lock().note_missing(number, node.missing());
        }
    }

    /// The history, with what all nodes report as missing at this moment.
    pub(super) fn history_told(&self) -> MutexGuard<'_, History> {
        let mut history = self.history.lock();
        self.nodes.lock().iter().for_each(|(number, node)| history.note_missing(*number, node.missing()));
        history
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }

    pub(super) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock()
    }

    pub(super) fn say(&self, what: impl std::fmt::Display) {
        let now = self.now();
        let _ = writeln!(self.trace.0.lock(), "{:>12.6} {what}", now.as_secs_f64());
    }

    pub(super) fn wrong(&self, what: String) {
        self.say(format_args!("WRONG: {what}"));
        self.wrong.lock().push(what);
    }

    pub(super) fn is_wrong(&self) -> bool {
        !self.wrong.lock().is_empty()
    }

    /// What went wrong, and the whole story.
    pub(super) fn take(&self) -> (Vec<String>, String) {
        (std::mem::take(&mut self.wrong.lock()), std::mem::take(&mut self.trace.0.lock()))
    }
}
