//! Whole simulations, each drawn from one number: machines, disks, a network and a store in memory, and the
//! real nodes on them. A seed that fails is played again, the same each time, and made as short as it can be.

use std::future::Future;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use parking_lot::Mutex;

use crate::target::Usage;
pub use figures::Figures;
use record::Trace;
use script::Script;
pub use world::Ended;
use world::World;

pub mod disk;
mod edits;
mod figures;
pub mod images;
mod medium;
mod reads;
mod record;
pub mod script;
pub mod wire;
mod world;

/// How often at most a failing script is tried with less in it.
const SHRINK_RUNS_MAX: usize = 1_000;
/// Failing seeds that are told in full.
const TOLD_MAX: usize = 3;

#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// How many simulations
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed. One alone, with --seeds 1, is told step by step
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; 0: one for each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Ends with the first that fails, and tells only what went wrong in it
    #[arg(long)]
    first: bool,
}

/// Plays one script. The same script and seed end in the same way, to the last word of the trace.
///
/// # Errors
/// When no runtime can be made.
pub fn play(script: &Script, seed: u64) -> std::io::Result<Ended> {
    play_into(script, seed, Trace::default())
}

/// The same, with what the nodes log in its trace.
fn play_aloud(script: &Script, seed: u64) -> std::io::Result<Ended> {
    let trace = Trace::default();
    let written = trace.clone();
    let log = tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(move || written.clone()).finish();
    tracing::subscriber::with_default(log, || play_into(script, seed, trace))
}

fn play_into(script: &Script, seed: u64, trace: Trace) -> std::io::Result<Ended> {
    on_paused_time(World::play(script, seed, trace))
}

/// Time passes at once while nothing is to be done.
fn on_paused_time<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_time().start_paused(true).build()?.block_on(work))
}

/// Leaves out steps as long as the script still fails.
///
/// # Errors
/// As [`play`].
pub fn shrink(mut script: Script, seed: u64) -> std::io::Result<Script> {
    let mut runs = 0;
    let mut length = script.steps.len().div_ceil(2);
    while length > 0 && runs < SHRINK_RUNS_MAX {
        let mut at = 0;
        let mut shorter = false;
        while at < script.steps.len() && runs < SHRINK_RUNS_MAX {
            let mut steps = script.steps.clone();
            steps.drain(at..(at + length).min(steps.len()));
            let candidate = Script { settings: script.settings, steps };
            runs += 1;
            if play(&candidate, seed)?.wrong.is_empty() {
                at += length;
            } else {
                script = candidate;
                shorter = true;
            }
        }
        if length > 1 || !shorter {
            length /= 2;
        }
    }
    Ok(script)
}

/// Plays them all and prints what they were; `false` if one of them failed.
///
/// # Errors
/// When it can't be run, or when nothing of interest happened in it.
pub fn execute(args: &SimulateArgs, stop: &Arc<AtomicBool>) -> anyhow::Result<bool> {
    check_usage("seeds", args.seeds, args.threads)?;
    let last = args.seed.checked_add(args.seeds);
    ensure!(last.is_some(), Usage("--seed and --seeds exceed 64 bits".into()));
    if args.seeds == 1 {
        return tell(args.seed);
    }
    let (began, outcome) = (
        Instant::now(),
        run(args.seed, args.seeds, args.threads, &|run| {
            stop.load(Ordering::Relaxed) || (args.first && !run.failed.is_empty())
        })?,
    );
    let Run { figures, failed, played } = &outcome;
    writeln!(std::io::stdout(), "{}", figures.summary(*played, began.elapsed()))?;
    if let (true, Some(seed)) = (args.first, failed.first()) {
        let wrong = play(&Script::of(*seed), *seed)?.wrong;
        writeln!(std::io::stdout(), "seed {seed} failed: {}", wrong.join("\n"))?;
        return Ok(false);
    }
    for seed in failed.iter().take(TOLD_MAX) {
        report(*seed)?;
    }
    if failed.is_empty() {
        figures.check(*played)?;
    } else {
        writeln!(std::io::stdout(), "{} of {played} failed: seeds {failed:?}", failed.len())?;
    }
    Ok(failed.is_empty())
}

/// What became of many simulations.
pub struct Run {
    pub figures: Figures,
    /// Their seeds.
    pub failed: Vec<u64>,
    pub played: u64,
}

/// Plays seeds from `first` on, on so many threads, until all are played or it `is_over`.
///
/// # Errors
/// When no runtime or thread can be made.
pub fn run(first: u64, count: u64, threads: usize, is_over: &(dyn Fn(&Run) -> bool + Sync)) -> anyhow::Result<Run> {
    let run = Mutex::new(Run { figures: Figures::default(), failed: Vec::new(), played: 0 });
    each_seed(first..first + count, threads, &|| is_over(&run.lock()), &|seed| {
        let ended = play(&Script::of(seed), seed)?;
        let mut run = run.lock();
        run.figures.add(&ended.figures);
        run.played += 1;
        if !ended.wrong.is_empty() {
            run.failed.push(seed);
        }
        Ok(())
    })?;
    let mut run = run.into_inner();
    run.failed.sort_unstable();
    Ok(run)
}

/// Works on one seed after the other, on so many threads (0: one for each core), until it `is_over`.
///
/// # Errors
/// The first of the work; it ends with that.
fn each_seed(
    seeds: Range<u64>,
    threads: usize,
    is_over: &(dyn Fn() -> bool + Sync),
    work: &(dyn Fn(u64) -> std::io::Result<()> + Sync),
) -> std::io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if threads == 0 { cores } else { threads };
    let (seeds, error) = (Mutex::new(seeds), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_over() && error.lock().is_none() {
                    let Some(seed) = seeds.lock().next() else { break };
                    if let Err(failed) = work(seed) {
                        *error.lock() = Some(failed);
                    }
                }
            });
        }
    });
    error.into_inner().map_or(Ok(()), Err)
}

/// # Errors
/// When the user asks for too many of them, or for none.
fn check_usage(flag: &str, count: u64, threads: usize) -> anyhow::Result<()> {
    let is_right = (1..=1_000_000_000).contains(&count);
    ensure!(is_right, Usage(format!("--{flag} is {count}; expected 1 to 1,000,000,000")));
    ensure!(threads <= 1_024, Usage(format!("--threads is {threads}; expected at most 1,024")));
    Ok(())
}

fn tell(seed: u64) -> anyhow::Result<bool> {
    let Ended { wrong, trace, .. } = play_aloud(&Script::of(seed), seed)?;
    write!(std::io::stdout(), "{trace}")?;
    if !wrong.is_empty() {
        report(seed)?;
    }
    Ok(wrong.is_empty())
}

fn report(seed: u64) -> anyhow::Result<()> {
    let whole = Script::of(seed);
    let wrong = play(&whole, seed)?.wrong;
    let script = shrink(whole, seed)?;
    let short = play_aloud(&script, seed)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nseed {seed} failed: {}", wrong.join("\n"))?;
    writeln!(out, "The shortest script that fails, with {:?}:", script.settings)?;
    for step in &script.steps {
        writeln!(out, "  {step:?}")?;
    }
    writeln!(out, "It went so:\n{}", short.trace)?;
    Ok(())
}
