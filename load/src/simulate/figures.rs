//! The figures of simulations.

use std::time::Duration;

use anyhow::ensure;

use super::wire::Traffic;

const HOURS_A_YEAR: f64 = 24.0 * 365.25;

/// How often each thing happened, in one simulation or in many.
#[derive(Clone, Copy, Default, Debug)]
pub struct Figures {
    pub operations: u64,
    pub acknowledged: u64,
    pub reads: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub copies: u64,
    pub set_backs: u64,
    pub edits: u64,
    pub disk_operations: u64,
    pub traffic: Traffic,
    pub simulated: Duration,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.copies += other.copies;
        self.set_backs += other.set_backs;
        self.edits += other.edits;
        self.disk_operations += other.disk_operations;
        self.traffic.add(other.traffic);
        self.simulated += other.simulated;
    }

    /// The figures of so many simulations in a sentence.
    pub(super) fn summary(&self, played: u64, took: Duration) -> String {
        let Figures { operations, acknowledged, reads, kills, power_cuts, copies, set_backs, edits, .. } = self;
        let traffic = self.traffic;
        format!(
            "{played} simulations of {:.1} years in {:.1} s: {operations} counts, {acknowledged} acknowledged, {reads} reads, \
             {kills} kills, {power_cuts} power cuts, {copies} copied folders, {set_backs} times a store went back, {edits} \
             changes by administrators, {} commits, {} lost answers, {} zombies, {} operations of disks",
            self.simulated.as_secs_f64() / 3_600.0 / HOURS_A_YEAR,
            took.as_secs_f64(),
            traffic.commits,
            traffic.answers_lost,
            traffic.zombies,
            self.disk_operations,
        )
    }

    /// A run in which nothing of interest happened proves nothing.
    ///
    /// # Errors
    /// When something never happened in so many simulations.
    pub fn check(&self, played: u64) -> anyhow::Result<()> {
        if played < 1_000 {
            return Ok(());
        }
        let counted = [
            ("counts were acknowledged", self.acknowledged),
            ("reads were answered", self.reads),
            ("processes were killed", self.kills),
            ("machines lost power", self.power_cuts),
            ("folders were copied", self.copies),
            ("stores went back", self.set_backs),
            ("changes were made", self.edits),
            ("commits' answers were lost", self.traffic.answers_lost),
            ("commits came late", self.traffic.zombies),
        ];
        for (what, times) in counted {
            ensure!(times * 100 >= played, "too few {what}: {times} in {played} simulations");
        }
        Ok(())
    }
}
