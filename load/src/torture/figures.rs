//! What happened in a run, in figures.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;

use crate::table;

/// What is counted of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Fact {
    Acknowledged,
    Increments,
    NotCounted,
    Unknown,
    Tags,
    ReadsUnique,
    ReadsRange,
    ReadsHistogram,
    ValuesChecked,
    ReadsRefused,
    Kills,
    KillsAtCommit,
    KillsAfterCommit,
    KillsAtSegment,
    KillsInStart,
    Stops,
    Deaths,
    Freezes,
    FreezesOfStore,
    Shortages,
    DisksFull,
    Copies,
    Silences,
    Commits,
    AnswersLost,
    RequestsLost,
    Zombies,
    ZombiesOfNothing,
    Cuts,
    StoreKills,
    StoreStops,
    BackendKills,
    Restores,
    Promotions,
    Rests,
    Worlds,
}

const NAMES: [&str; 36] = [
    "requests acknowledged",
    "increments acknowledged",
    "requests not counted",
    "requests of unknown outcome",
    "tagged operations",
    "reads of unique",
    "reads of ranges",
    "reads of histograms",
    "values checked",
    "reads refused",
    "kills of nodes",
    "of these at a COMMIT before the database had it",
    "of these after a COMMIT before its answer",
    "of these when a segment appeared",
    "of these during the start",
    "nodes stopped",
    "nodes that ended by themselves",
    "nodes frozen",
    "database or one of its backends frozen",
    "descriptor shortages",
    "disks filled",
    "folders copied and started",
    "links silent or closed",
    "COMMITs of batches seen",
    "COMMIT answers lost",
    "requests lost",
    "zombies: COMMITs that came when their client had gone",
    "other requests that came late, or too late",
    "messages cut at some byte",
    "kills of the database",
    "immediate stops of the database",
    "kills of a backend",
    "times the store was set back",
    "standbys that took the place of the database",
    "rests with exact comparison",
    "worlds",
];

/// Counted by all threads of a run.
pub struct Figures([AtomicU64; NAMES.len()]);

impl Default for Figures {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Figures {
    pub fn note(&self, fact: Fact) {
        self.add(fact, 1);
    }

    pub fn add(&self, fact: Fact, count: u64) {
        self.0[fact as usize].fetch_add(count, Ordering::Relaxed);
    }

    #[must_use]
    pub fn of(&self, fact: Fact) -> u64 {
        self.0[fact as usize].load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn reads(&self) -> u64 {
        [Fact::ReadsUnique, Fact::ReadsRange, Fact::ReadsHistogram].map(|fact| self.of(fact)).iter().sum()
    }

    /// One line while it runs.
    #[must_use]
    pub fn line(&self, elapsed: Duration) -> String {
        format!(
            "{} s: {} increments, {} reads, {} kills, {} lost COMMIT answers, {} zombies, {} rests",
            elapsed.as_secs(),
            table::integer(self.of(Fact::Increments)),
            table::integer(self.reads()),
            table::integer(self.of(Fact::Kills)),
            table::integer(self.of(Fact::AnswersLost)),
            table::integer(self.of(Fact::Zombies)),
            self.of(Fact::Rests),
        )
    }

    /// All that happened.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (name, count) in NAMES.iter().zip(&self.0) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                // Writing into a text can't fail.
                let _ = writeln!(text, "{:>16}  {name}", table::integer(count));
            }
        }
        text
    }

    /// A run in which nothing of interest happened proves nothing.
    ///
    /// # Errors
    /// When something never happened.
    pub fn check(&self, has_links: bool, is_short: bool) -> anyhow::Result<()> {
        let never = |facts: &[Fact]| -> Vec<Fact> {
            let facts = facts.iter().copied();
            facts.filter(|fact| self.of(*fact) == 0).collect()
        };
        let mut lacking = never(&[
            Fact::Increments,
            Fact::Tags,
            Fact::Unknown,
            Fact::ReadsUnique,
            Fact::ReadsRange,
            Fact::ReadsHistogram,
            Fact::Kills,
            Fact::Rests,
        ]);
        if has_links {
            lacking.extend(never(&[Fact::Commits]));
            // In a run of seconds one of the two may well not happen.
            lacking.extend(never(&[Fact::AnswersLost, Fact::Zombies]).into_iter().skip(usize::from(is_short)));
        }
        if let Some(fact) = lacking.first() {
            bail!("nothing was proved: the run had no {}", NAMES[*fact as usize]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    #[test]
    fn each_fact_has_its_name() {
        assert_eq!(Fact::Worlds as usize + 1, NAMES.len());
        assert_eq!(NAMES[Fact::Zombies as usize], "zombies: COMMITs that came when their client had gone");
        assert_eq!(NAMES[Fact::Restores as usize], "times the store was set back");
    }

    #[test]
    fn a_run_in_which_something_never_happened_fails() {
        let figures = Figures::default();
        let dull = figures.check(false, false).unwrap_err().to_string();
        assert!(dull.contains("nothing was proved: the run had no increments acknowledged"), "{dull}");
        let some = [Fact::Increments, Fact::Tags, Fact::Unknown, Fact::ReadsUnique, Fact::ReadsRange];
        for fact in [&some[..], &[Fact::ReadsHistogram, Fact::Kills, Fact::Rests]].concat() {
            figures.note(fact);
        }
        figures.check(false, false).unwrap();
        assert!(figures.check(true, false).is_err());
    }
}
