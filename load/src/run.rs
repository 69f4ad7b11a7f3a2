//! One run: totals before, the phases one after another, totals after, report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use chrono::Utc;
use indicatif::{ProgressBar, ProgressStyle};

use crate::agree::Watch;
use crate::cpu::{self, Processes};
use crate::ledger::Books;
use crate::plan::Phase;
use crate::report::{PhaseReport, Report};
use crate::tally::Tally;
use crate::target::{Target, Targets, Usage};
use crate::verify::{Totals, Verification, verify};
use crate::worker::{Outcome, Progress, Worker};

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub struct Options {
    /// Where [`run`] sends.
    pub target: Target,
    pub threads: usize,
    pub verify: bool,
    /// Set if the names of the run begin with a text that nobody else uses.
    pub prefix: Option<String>,
    /// Whether the report lists every event.
    pub list_events: bool,
    /// Whose processor time is measured; unset, whoever listens on the target's port.
    pub server_pid: Option<u32>,
    /// A progress bar, if standard error is a terminal.
    pub progress: bool,
    /// Ends the run early; it still verifies and reports.
    pub stop: Arc<AtomicBool>,
}

/// # Errors
/// If the target can't be reached before or after, or a worker can't work. Failed requests are no
/// error here; they are in the report.
pub fn run(name: &str, phases: &[Phase], options: &Options) -> anyhow::Result<Report> {
    run_on(&Targets::one(&options.target), name, phases, options)
}

/// The same over several nodes of one store: connections and requests are spread evenly over them, and each
/// must show what all of them acknowledged. `options.target` has no meaning here.
///
/// # Errors
/// As [`run`]; a [`Usage`] error if a phase has too few connections for the targets.
pub fn run_on(targets: &Targets, name: &str, phases: &[Phase], options: &Options) -> anyhow::Result<Report> {
    let count = targets.all.len();
    if let Some(phase) = phases.iter().find(|phase| phase.connections < count) {
        let Phase { name, connections, .. } = phase;
        let wanted = format!("phase {name:?} has {connections} connections for {count} targets");
        return Err(Usage(format!("{wanted}; expected at least one for each")).into());
    }
    let verifier = Verifier::begin(targets, phases, options)?;
    let listening = targets.all.iter().filter(|target| target.address.ip().is_loopback());
    let server = match options.server_pid {
        Some(pid) => Processes::of(pid),
        // Of nodes that are here and elsewhere, some would be missing.
        None if listening.clone().count() < count => Processes::none(),
        None => Processes::joined(listening.map(|target| Processes::listening_on(target.address.port()))),
    };
    let mut report = Report {
        name: name.to_owned(),
        target: targets.urls(),
        began: Utc::now(),
        interrupted: false,
        phases: Vec::new(),
        verification: None,
        events: None,
        notes: Vec::new(),
    };
    let mut books: Vec<Books> = targets.all.iter().map(|_| Books::default()).collect();
    for phase in phases {
        if options.stop.load(Ordering::Relaxed) {
            break;
        }
        report.phases.push(run_phase(phase, targets, options, &server, &mut books)?);
    }
    report.interrupted = options.stop.load(Ordering::Relaxed);
    (report.verification, report.notes) = verifier.end(&books)?;
    report.events = options.list_events.then(|| {
        let mut all = Books::default();
        books.iter().for_each(|books| all.add(books));
        all
    });
    Ok(report)
}

/// Who compares the books with what the service shows.
enum Verifier<'a> {
    Nobody,
    OfOne { target: &'a Target, before: Totals, prefix: Option<&'a str> },
    OfSeveral(Watch<'a>),
}

impl<'a> Verifier<'a> {
    fn begin(targets: &'a Targets, phases: &[Phase], options: &'a Options) -> anyhow::Result<Self> {
        let prefix = options.prefix.as_deref();
        Ok(match targets.all.as_slice() {
            all if !options.verify => {
                all.iter().try_for_each(Target::probe)?;
                Self::Nobody
            }
            [target] => Self::OfOne { target, before: Totals::read(target)?, prefix },
            _ => Self::OfSeveral(Watch::begin(targets, phases, prefix)?),
        })
    }

    /// With what a reader must know of it.
    fn end(self, books: &[Books]) -> anyhow::Result<(Option<Verification>, Vec<String>)> {
        Ok(match (self, books) {
            (Self::OfOne { target, before, prefix }, [books]) => {
                (Some(verify(&before, &Totals::read(target)?, books, prefix)), Vec::new())
            }
            (Self::OfSeveral(watch), books) => {
                let (verification, notes) = watch.end(books)?;
                (Some(verification), notes)
            }
            _ => (None, Vec::new()),
        })
    }
}

/// As many workers for each target, and none without a connection.
fn workers(threads: usize, connections: usize, targets: usize) -> usize {
    threads.div_ceil(targets).clamp(1, (connections / targets).max(1)) * targets
}

/// `books` are those of the targets, in their order.
fn run_phase(
    phase: &Phase,
    targets: &Targets,
    options: &Options,
    server: &Processes,
    books: &mut [Books],
) -> anyhow::Result<PhaseReport> {
    let count = targets.all.len();
    let workers = workers(options.threads, phase.connections, count);
    let progress: Vec<Progress> = (0..workers).map(|_| Progress::default()).collect();
    let cpu_before = (server.cpu_ns(), cpu::own_cpu_ns());
    let began = Instant::now();
    let outcomes: Vec<anyhow::Result<Outcome>> = std::thread::scope(|scope| {
        let threads: Vec<_> = progress
            .iter()
            .enumerate()
            .map(|(index, progress)| {
                let target = &targets.all[index % count];
                let work = move || {
                    let worker = Worker::new(phase, target, (index, workers), began, progress)?;
                    worker.run(&options.stop)
                };
                scope.spawn(work)
            })
            .collect();
        if options.progress {
            show_progress(phase, began, &progress, || threads.iter().all(std::thread::ScopedJoinHandle::is_finished));
        }
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked")))).collect()
    });
    let elapsed_ns = began.elapsed().as_nanos() as u64;
    let server_cpu_ns = server.cpu_ns().zip(cpu_before.0).map(|(after, before)| after.saturating_sub(before));
    let generator_cpu_ns = cpu::own_cpu_ns().saturating_sub(cpu_before.1);
    let mut whole: Option<Tally> = None;
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let Outcome { tally, ledger } = outcome?;
        books[index % count].merge(&ledger, &phase.names, index);
        match &mut whole {
            None => whole = Some(tally),
            Some(whole) => whole.merge(&tally),
        }
    }
    let tally = whole.ok_or_else(|| anyhow!("a phase needs at least one worker"))?;
    let interrupted_after_ns = options.stop.load(Ordering::Relaxed).then_some(elapsed_ns);
    Ok(PhaseReport::new(phase, tally, interrupted_after_ns, server_cpu_ns, (generator_cpu_ns, workers)))
}

fn show_progress(phase: &Phase, began: Instant, progress: &[Progress], finished: impl Fn() -> bool) {
    let bar = ProgressBar::new(phase.duration_ns / 1_000_000);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(phase.name.clone());
    while !finished() {
        let sum = |field: fn(&Progress) -> u64| progress.iter().map(field).sum::<u64>();
        let ok = sum(|worker| worker.ok.load(Ordering::Relaxed));
        let errors = sum(|worker| worker.errors.load(Ordering::Relaxed));
        let elapsed = began.elapsed();
        let per_s = ok as f64 / elapsed.as_secs_f64().max(0.001);
        bar.set_position(elapsed.as_millis() as u64);
        bar.set_message(format!(
            "{} ok, {}/s, {errors} errors",
            crate::table::integer(ok),
            crate::table::number(per_s)
        ));
        std::thread::park_timeout(PROGRESS_INTERVAL);
    }
    bar.finish_and_clear();
}
