//! What a node has acknowledged in its life, and what it may therefore show.

use std::collections::BTreeMap;

use super::Outcome;

/// What is known of the counts of one event, each event having been counted once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// The node said that it did not count them.
    Refused,
    /// In once or not at all.
    Unknown,
    /// Acknowledged, and gone if the process is killed.
    Memory,
    /// Acknowledged, and gone if the power is cut.
    Written,
    /// Acknowledged at a level that survives that, too.
    Safe,
}

/// An event that is counted over and over, so that segments become long.
#[derive(Default, Debug)]
pub struct Bulk {
    pub safe: u64,
    pub written: u64,
    pub memory: u64,
    pub unknown: u64,
}

/// Counted over and over.
pub const BULK: &str = "bulk";

#[derive(Default)]
pub struct Account {
    pub counted: BTreeMap<String, (u64, Known)>,
    pub bulk: Bulk,
}

impl Account {
    /// The process has ended in order: what it had in memory is safe.
    pub fn keep_memory(&mut self) {
        self.counted
            .values_mut()
            .filter(|(_, known)| matches!(known, Known::Memory | Known::Written))
            .for_each(|(_, known)| *known = Known::Safe);
        self.bulk.safe += std::mem::take(&mut self.bulk.memory) + std::mem::take(&mut self.bulk.written);
    }

    /// The process has ended without a word.
    pub fn lose_memory(&mut self) {
        for (_, known) in self.counted.values_mut() {
            *known = if *known == Known::Memory { Known::Unknown } else { *known };
        }
        self.bulk.unknown += std::mem::take(&mut self.bulk.memory);
    }

    /// The machine has lost its power, after [`Account::lose_memory`].
    pub fn lose_written(&mut self) {
        for (_, known) in self.counted.values_mut() {
            *known = if *known == Known::Written { Known::Unknown } else { *known };
        }
        self.bulk.unknown += std::mem::take(&mut self.bulk.written);
    }

    /// `settles`: what is in now stays in, what is not stays out.
    pub fn check(&mut self, totals: &BTreeMap<String, u64>, settles: bool) -> Outcome {
        for (event, (count, known)) in &mut self.counted {
            let found = totals.get(event).copied().unwrap_or(0);
            let is_right = match known {
                Known::Refused => found == 0,
                Known::Unknown => found == 0 || found == *count,
                Known::Memory | Known::Written | Known::Safe => found == *count,
            };
            if !is_right {
                return Err(format!("{event} stands at {found}, of {count} that are {known:?}"));
            }
            if settles {
                *known = if found == 0 { Known::Refused } else { Known::Safe };
            }
        }
        let found = totals.get(BULK).copied().unwrap_or(0);
        let sure = self.bulk.safe + self.bulk.written + self.bulk.memory;
        if found < sure || found > sure + self.bulk.unknown {
            return Err(format!("{BULK} stands at {found}: {:?}", self.bulk));
        }
        if settles {
            self.bulk = Bulk { safe: found, ..Bulk::default() };
        }
        Ok(())
    }
}
