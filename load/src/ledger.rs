//! What a worker knows about its increments: acknowledged, or of unknown outcome.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde::Serialize;

use crate::names::{NameId, Names};
use crate::request::Batch;

/// What one request counts if it succeeds.
#[derive(Debug, Clone)]
pub enum Credit {
    Nothing,
    One { name: NameId, count: u64 },
    Rows(Rc<Batch>),
}

/// One worker's sums by name, for the names of one phase.
#[derive(Debug, Default)]
pub struct Ledger {
    acknowledged: Vec<u64>,
    unknown: HashMap<NameId, u64>,
}

impl Ledger {
    pub fn acknowledge(&mut self, credit: &Credit) {
        match credit {
            Credit::Nothing => {}
            Credit::One { name, count } => self.add(*name, *count),
            Credit::Rows(batch) => batch.rows.iter().for_each(|(name, count)| self.add(*name, *count)),
        }
    }

    /// As [`Self::acknowledge`] without the rows that the service refused, given by their index.
    pub fn acknowledge_except(&mut self, batch: &Batch, rejected: &[usize]) {
        for (index, (name, count)) in batch.rows.iter().enumerate() {
            if !rejected.contains(&index) {
                self.add(*name, *count);
            }
        }
    }

    /// The request may or may not have been counted.
    pub fn doubt(&mut self, credit: &Credit) {
        match credit {
            Credit::Nothing => {}
            Credit::One { name, count } => *self.unknown.entry(*name).or_default() += count,
            Credit::Rows(batch) => {
                batch.rows.iter().for_each(|(name, count)| *self.unknown.entry(*name).or_default() += count);
            }
        }
    }

    fn add(&mut self, name: NameId, count: u64) {
        let index = name as usize;
        if index >= self.acknowledged.len() {
            // Doubling, so that ever-new names do not grow it one by one.
            self.acknowledged.resize((index + 1).next_power_of_two(), 0);
        }
        self.acknowledged[index] += count;
    }
}

/// What the service must have counted for one event during the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Expected {
    pub acknowledged: u64,
    /// How much more it may have counted: requests whose outcome is unknown.
    pub unknown: u64,
}

/// The ledgers of all workers and phases, by the name's text.
#[derive(Debug, Default, Serialize)]
pub struct Books(pub BTreeMap<String, Expected>);

impl Books {
    pub fn merge(&mut self, ledger: &Ledger, names: &Names, worker: usize) {
        for (id, count) in ledger.acknowledged.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.entry(names, worker, id as NameId).acknowledged += count;
        }
        for (id, count) in &ledger.unknown {
            self.entry(names, worker, *id).unknown += count;
        }
    }

    /// Adds what another target has acknowledged.
    pub fn add(&mut self, other: &Self) {
        for (event, theirs) in &other.0 {
            let mine = self.0.entry(event.clone()).or_default();
            mine.acknowledged += theirs.acknowledged;
            mine.unknown += theirs.unknown;
        }
    }

    #[must_use]
    pub fn sum(&self) -> Expected {
        self.0.values().fold(Expected::default(), |sum, one| Expected {
            acknowledged: sum.acknowledged + one.acknowledged,
            unknown: sum.unknown + one.unknown,
        })
    }

    fn entry(&mut self, names: &Names, worker: usize, id: NameId) -> &mut Expected {
        self.0.entry(names.text(worker, id).into_owned()).or_default()
    }
}
