//! One run: totals before, the phases one after another, totals after, report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use chrono::Utc;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cpu::{self, Processes};
use crate::ledger::Books;
use crate::plan::Phase;
use crate::report::{PhaseReport, Report};
use crate::tally::Tally;
use crate::target::Target;
use crate::verify::{Totals, verify};
use crate::worker::{Outcome, Progress, Worker};

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub struct Options {
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
    let before = if options.verify {
        Totals::read(&options.target)?
    } else {
        options.target.probe()?;
        Totals::default()
    };
    let server = match options.server_pid {
        Some(pid) => Processes::of(pid),
        None if options.target.address.ip().is_loopback() => Processes::listening_on(options.target.address.port()),
        None => Processes::none(),
    };
    let mut report = Report {
        name: name.to_owned(),
        target: format!("http://{}", options.target.host),
        began: Utc::now(),
        interrupted: false,
        phases: Vec::new(),
        verification: None,
        events: None,
        notes: Vec::new(),
    };
    let mut books = Books::default();
    for phase in phases {
        if options.stop.load(Ordering::Relaxed) {
            break;
        }
        report.phases.push(run_phase(phase, options, &server, &mut books)?);
    }
    report.interrupted = options.stop.load(Ordering::Relaxed);
    if options.verify {
        let after = Totals::read(&options.target)?;
        report.verification = Some(verify(&before, &after, &books, options.prefix.as_deref()));
    }
    report.events = options.list_events.then_some(books);
    Ok(report)
}

fn run_phase(phase: &Phase, options: &Options, server: &Processes, books: &mut Books) -> anyhow::Result<PhaseReport> {
    let workers = options.threads.clamp(1, phase.connections);
    let progress: Vec<Progress> = (0..workers).map(|_| Progress::default()).collect();
    let cpu_before = (server.cpu_ns(), cpu::own_cpu_ns());
    let began = Instant::now();
    let outcomes: Vec<anyhow::Result<Outcome>> = std::thread::scope(|scope| {
        let threads: Vec<_> = progress
            .iter()
            .enumerate()
            .map(|(index, progress)| {
                let work = move || {
                    let worker = Worker::new(phase, &options.target, (index, workers), began, progress)?;
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
        books.merge(&ledger, &phase.names, index);
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
