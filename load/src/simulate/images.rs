//! Power cuts, one by one: a short life is ended at each operation of its disk in turn, and a node must start from
//! each subset of what was not synced by then.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use event_tracker::store::memory::Saved;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, Fault};
use super::record::Trace;
use super::script::{Script, Settings};
use super::world::World;
use super::{check_usage, each_seed, on_paused_time};
use crate::check::History;

/// Of up to so many unsynced sectors and names all subsets are tried; of more, as many as that gives, drawn.
const SUBSETS_OF: u32 = 7;

#[derive(Debug, Args)]
pub struct CrashImagesArgs {
    /// How many images of disks at least
    #[arg(long, default_value_t = 100_000)]
    images: u64,
    /// The first life
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; 0: one for each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

/// The result of many images.
#[derive(Default)]
pub struct Tried {
    pub images: u64,
    /// Lives that were cut short at each of their operations.
    pub lives: u64,
    /// Operations at which one was cut short.
    pub cuts: u64,
    /// Of how many of these every subset was tried.
    pub whole: u64,
    /// One text for each image that failed: which one it was, and its trace.
    pub wrong: Vec<String>,
}

/// A machine without power, before it is known what is left of its disk.
struct Wreck {
    settings: Settings,
    disk: Disk,
    saved: Saved,
    history: History,
}

impl Wreck {
    /// `None`: the life ended before the nth operation of the disk.
    async fn of(script: &Script, seed: u64, nth: u32, done: bool) -> Option<Self> {
        let mut world = World::new(script.settings, seed, History::default(), Trace::default());
        let disk = world.machines.first()?.disk.clone();
        disk.set_fault(Some(Fault::Dies { nth, done }));
        world.start(0).await;
        for step in &script.steps {
            if disk.has_fault() {
                world.step(step).await;
            }
        }
        if disk.has_fault() {
            world.stop(0).await;
        }
        let is_dead = !disk.has_fault();
        world.kill(0);
        let mut history = world.shared.history().clone();
        history.crash(0, true);
        let begins = world.settings.begins + world.shared.now();
        let settings = Settings { begins, ..world.settings };
        is_dead.then(|| Self { settings, disk, saved: world.database.save(), history })
    }

    /// How many sectors and names may be left or not.
    fn unsynced(&self) -> u32 {
        let mut asked = 0;
        self.disk.fork().cut_power(|| {
            asked += 1;
            true
        });
        asked
    }

    /// Starts from what is left, and says what is wrong then.
    async fn start_from(&self, keeps: impl FnMut() -> bool) -> Option<String> {
        let mut world = World::new(self.settings, 0, self.history.clone(), Trace::default());
        world.database.set_back(&self.saved);
        let disk = self.disk.fork();
        disk.cut_power(keeps);
        world.machines.first_mut()?.disk = disk;
        world.come_to_rest().await;
        let ended = world.end();
        (!ended.wrong.is_empty()).then_some(ended.trace)
    }
}

/// Tries images of the lives from `first` on, until there are so many, on so many threads.
///
/// # Errors
/// When no runtime can be made.
pub fn try_images(first: u64, images: u64, threads: usize, stop: &AtomicBool) -> std::io::Result<Tried> {
    let tried = Mutex::new(Tried::default());
    let is_over = || {
        let tried = tried.lock();
        tried.images >= images || !tried.wrong.is_empty() || stop.load(Ordering::Relaxed)
    };
    each_seed(first..u64::MAX, threads, &is_over, &|seed| try_life(seed, &tried, &is_over))?;
    Ok(tried.into_inner())
}

fn try_life(seed: u64, tried: &Mutex<Tried>, is_over: &dyn Fn() -> bool) -> std::io::Result<()> {
    let script = Script::of_one_machine(seed);
    for done in [false, true] {
        for nth in 1.. {
            if is_over() {
                return Ok(());
            }
            let Some(wreck) = on_paused_time(Wreck::of(&script, seed, nth, done))? else { break };
            let unsynced = wreck.unsynced();
            let is_whole = unsynced <= SUBSETS_OF;
            for subset in 0..1_u64 << unsynced.min(SUBSETS_OF) {
                let (mut bits, mut random) = (subset, SmallRng::seed_from_u64(seed ^ subset << 32));
                let mut kept = String::new();
                let keeps = || {
                    let keeps = if is_whole { bits & 1 == 1 } else { random.random() };
                    bits >>= 1;
                    kept.push(if keeps { '1' } else { '0' });
                    keeps
                };
                let wrong = on_paused_time(wreck.start_from(keeps))?;
                let mut tried = tried.lock();
                tried.images += 1;
                if let Some(trace) = wrong {
                    let when = if done { "at" } else { "before" };
                    tried.wrong.push(format!("life {seed} cut short {when} operation {nth}, left {kept}:\n{trace}"));
                    return Ok(());
                }
            }
            let mut tried = tried.lock();
            tried.cuts += 1;
            tried.whole += u64::from(is_whole);
        }
    }
    tried.lock().lives += 1;
    Ok(())
}

/// Prints what they were; `false` if one of them was wrong.
///
/// # Errors
/// When it can't be run.
pub fn execute(args: &CrashImagesArgs, stop: &Arc<AtomicBool>) -> anyhow::Result<bool> {
    check_usage("images", args.images, args.threads)?;
    let began = Instant::now();
    let Tried { images, lives, cuts, whole, wrong } = try_images(args.seed, args.images, args.threads, stop)?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{images} images of disks in {:.1} s: of {cuts} operations at which the power was cut, {whole} with every subset \
         of what was not synced, in {lives} whole lives",
        began.elapsed().as_secs_f64()
    )?;
    wrong.iter().try_for_each(|wrong| writeln!(out, "{wrong}"))?;
    Ok(wrong.is_empty())
}
