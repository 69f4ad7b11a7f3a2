//! What happens in one simulation, drawn from its seed: a list of steps, each with what it needs to know, so
//! that steps can be left out and the rest stays as it is.

use std::time::Duration;

use event_tracker::domain::Ack;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::disk::{Fault, Kind, Left};
use super::wire::{LATE_MAX, Weather};

/// Machines at the start; folders that are copied come to them.
const MACHINES_MAX: usize = 4;
const STEPS_MAX: usize = 120;

/// Hot names, counted by everybody.
pub const HOT: [&str; 3] = ["hot-0", "hot-1", "hot-2"];
/// Names that administrators move into one another.
pub const MOVED: [&str; 3] = ["moved-0", "moved-1", "moved-2"];
/// What administrators delete and restore.
pub const DELETED: &str = "deleted";
/// What they remove for good.
pub const PURGED: &str = "purged";
/// Whose counts they correct.
pub const CORRECTED: &str = "corrected";

/// The settings of one simulation.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub machines: usize,
    pub flush_interval: Duration,
    pub fold_interval: Duration,
    /// How many committed segments are kept under their names.
    pub kept_files_max: usize,
    pub segment_bytes_max: u64,
    /// Where in its hour the simulation begins, and in which one.
    pub begins: Duration,
}

#[derive(Clone, Copy, Debug)]
pub enum Look {
    Totals,
    Hourly,
    EventHours,
    HourSums,
    EventSums,
    Day,
}

#[derive(Clone, Copy, Debug)]
pub enum Edit {
    Rename { from: usize, into: usize },
    Undo,
    Correct { count: u64 },
    Delete,
    Purge,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// One count: of a name of its own where there is no `event`.
    Count {
        machine: usize,
        event: Option<&'static str>,
        count: u32,
        ack: Ack,
    },
    Read {
        machine: usize,
        look: Look,
    },
    Edit {
        machine: usize,
        edit: Edit,
    },
    Wait(Duration),
    /// A process is stopped as it should be, and what was not running is started.
    Stop {
        machine: usize,
    },
    Start {
        machine: usize,
    },
    Kill {
        machine: usize,
    },
    CutPower {
        machine: usize,
        left: Left,
        seed: u64,
    },
    /// A copy of a folder, as it is at this moment, is started as one more machine.
    Copy {
        machine: usize,
        seed: u64,
    },
    Weather(Weather),
    Disk {
        machine: usize,
        fault: Option<Fault>,
    },
    SaveStore,
    /// The store goes back to where it was saved last.
    SetStoreBack,
    /// The clock of a machine, or of the store, jumps by so many seconds.
    Clock {
        machine: Option<usize>,
        seconds: i64,
    },
    /// Everything is off for so many hours.
    Night {
        hours: u32,
    },
}

pub struct Script {
    pub settings: Settings,
    pub steps: Vec<Step>,
}

/// Which faults a seed may have: not all in each, so that what one of them hides is seen in another.
struct Moods {
    kills: bool,
    power: bool,
    disks: bool,
    copies: bool,
    network: bool,
    edits: bool,
    sets_back: bool,
    clocks: bool,
}

impl Script {
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let machines = random.random_range(1..=MACHINES_MAX);
        let pick_ms = |random: &mut SmallRng, of: &[u64]| Duration::from_millis(*of.choose(random).unwrap_or(&1_000));
        let settings = Settings {
            machines,
            flush_interval: pick_ms(&mut random, &[50, 200, 1_000, 5_000]),
            fold_interval: pick_ms(&mut random, &[100, 700, 4_000]),
            kept_files_max: random.random_range(1..20),
            segment_bytes_max: random.random_range(200..4_000),
            begins: Duration::from_secs(1_767_000_000 + random.random_range(0..100_000_000)),
        };
        let (edits, disks) = (random.random_bool(0.3), random.random_bool(0.4));
        let moods = Moods {
            kills: random.random_bool(0.7),
            power: random.random_bool(0.5),
            disks,
            copies: random.random_bool(0.3),
            network: random.random_bool(0.6),
            edits,
            // What an administrator did is lost with a store that goes back, which nobody can tell of. Nor can a
            // node tell what was confirmed whose disk takes no note of it.
            sets_back: !edits && !disks && random.random_bool(0.5),
            clocks: random.random_bool(0.3),
        };
        let count = random.random_range(10..=STEPS_MAX);
        let steps = (0..count).map(|_| moods.step(machines, &mut random)).collect();
        Self { settings, steps }
    }
}

impl Script {
    /// The short life of one machine that counts, and is stopped and started: for all that a power cut may leave
    /// of it.
    #[must_use]
    pub fn of_one_machine(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let settings = Settings {
            machines: 1,
            flush_interval: Duration::from_millis(*[50, 1_000, 5_000].choose(&mut random).unwrap_or(&50)),
            fold_interval: Duration::from_secs(4),
            kept_files_max: random.random_range(1..4),
            segment_bytes_max: random.random_range(200..1_000),
            begins: Duration::from_secs(1_767_000_000),
        };
        let acks = [Ack::Memory, Ack::Journal, Ack::Disk, Ack::Disk, Ack::Disk, Ack::Store];
        let steps = (0..random.random_range(4..16)).map(|_| match random.random_range(0..10) {
            0..6 => {
                let event = random.random_bool(0.3).then_some(HOT[0]);
                let ack = *acks.choose(&mut random).unwrap_or(&Ack::Disk);
                Step::Count { machine: 0, event, count: random.random_range(1..1_000), ack }
            }
            6..9 => Step::Wait(Duration::from_millis(random.random_range(1..1_500))),
            _ if random.random_bool(0.5) => Step::Stop { machine: 0 },
            _ => Step::Start { machine: 0 },
        });
        Self { settings, steps: steps.collect() }
    }
}

impl Moods {
    fn step(&self, machines: usize, random: &mut SmallRng) -> Step {
        let machine = random.random_range(0..machines + usize::from(self.copies));
        loop {
            return match random.random_range(0..100) {
                0..40 => self.count(machine, random),
                40..55 => Step::Read { machine, look: look(random) },
                55..70 => Step::Wait(wait(random)),
                70..74 => Step::Stop { machine },
                74..78 => Step::Start { machine },
                78..82 if self.kills => Step::Kill { machine },
                82..84 if self.power => {
                    let left = Left(*[0.0, 0.5, 0.9, 1.0].choose(random).unwrap_or(&0.5));
                    Step::CutPower { machine, left, seed: random.random() }
                }
                82..85 if self.kills => {
                    let fault = Fault::Dies { nth: random.random_range(1..40), done: random.random_bool(0.5) };
                    Step::Disk { machine, fault: Some(fault) }
                }
                85..87 if self.disks => Step::Disk { machine, fault: fault(random) },
                87..89 if self.copies => Step::Copy { machine, seed: random.random() },
                89..92 if self.network => Step::Weather(weather(random)),
                92..95 if self.edits => Step::Edit { machine, edit: edit(random) },
                92..95 if self.sets_back => Step::SaveStore,
                95..97 if self.sets_back => Step::SetStoreBack,
                97..98 if self.clocks => {
                    let machine = random.random_bool(0.7).then_some(machine);
                    Step::Clock { machine, seconds: random.random_range(-10_000..10_000) }
                }
                98..99 => Step::Night { hours: random.random_range(1..100) },
                _ => continue,
            };
        }
    }

    fn count(&self, machine: usize, random: &mut SmallRng) -> Step {
        let ack =
            *[Ack::Memory, Ack::Journal, Ack::Journal, Ack::Disk, Ack::Store].choose(random).unwrap_or(&Ack::Disk);
        let event = match random.random_range(0..10) {
            0..4 => None,
            4 if self.edits => MOVED.choose(random).copied(),
            5 if self.edits => [DELETED, PURGED, CORRECTED].choose(random).copied(),
            _ => HOT.choose(random).copied(),
        };
        Step::Count { machine, event, count: random.random_range(1..1_000_000), ack }
    }
}

fn look(random: &mut SmallRng) -> Look {
    let looks = [Look::Totals, Look::Hourly, Look::EventHours, Look::HourSums, Look::EventSums, Look::Day];
    *looks.choose(random).unwrap_or(&Look::Totals)
}

fn wait(random: &mut SmallRng) -> Duration {
    let ms_max = *[5, 100, 2_000, 20_000].choose(random).unwrap_or(&5);
    Duration::from_micros(random.random_range(0..ms_max * 1_000))
}

fn fault(random: &mut SmallRng) -> Option<Fault> {
    match random.random_range(0..10) {
        0..5 => {
            let kind = *Kind::ALL.choose(random).unwrap_or(&Kind::Sync);
            Some(Fault::Nth { kind, nth: random.random_range(1..10), done: random.random_bool(0.5) })
        }
        5 => Some(Fault::Full),
        6 => Some(Fault::ReadOnly),
        7 => Some(Fault::Gone),
        _ => None,
    }
}

fn weather(random: &mut SmallRng) -> Weather {
    if random.random_bool(0.4) {
        return Weather::FAIR;
    }
    if random.random_bool(0.3) {
        return Weather::DOWN;
    }
    Weather {
        delay_ms_max: *[1, 50, 2_000].choose(random).unwrap_or(&1),
        request_lost: random.random_range(0.0..0.3),
        answer_lost: random.random_range(0.0..0.4),
        zombie: random.random_range(0.0..0.3),
        zombie_ms_max: random.random_range(1..u64::try_from(LATE_MAX.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn edit(random: &mut SmallRng) -> Edit {
    match random.random_range(0..6) {
        0 | 1 => Edit::Rename { from: random.random_range(0..MOVED.len()), into: random.random_range(0..MOVED.len()) },
        2 => Edit::Undo,
        3 => Edit::Correct { count: random.random_range(1..2_000_000) },
        4 if random.random_bool(0.5) => Edit::Delete,
        4 => Edit::Undo,
        _ => Edit::Purge,
    }
}
