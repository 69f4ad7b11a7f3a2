//! The service against other ways to count, in turn, in one run: tables of medians and ratios.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use clap::Args;

use crate::plan::Phase;
use crate::report::PhaseReport;
use crate::run::{Options, run};
use crate::scenario::{AckLevel, BatchFormat, Scenario};
use crate::table;
use crate::target::{Target, Usage};
use crate::yardsticks::{Server, Yardstick};

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The service's program; unset, the `event-tracker` beside this program
    #[arg(long, value_name = "FILE")]
    service: Option<PathBuf>,
    /// Rounds; the tables show medians
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of each measurement in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Leaves out servers whose name does not hold one of these words
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    only: Vec<String>,
    /// Where the servers keep their data while they run. `disk` only means something on a real disk
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

/// Longest comparison: what is not done by then fails instead of running for ever.
const SERVER_LIFETIME_SLACK: Duration = Duration::from_secs(120);

/// Before each measurement: connections open, buffers grow, names become known.
const WARM_UP_S: f64 = 0.5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    OneByOne,
    Pipelined(usize),
    Batches(BatchFormat),
}

impl Workload {
    /// What is measured at a server.
    fn of(yardstick: Yardstick) -> Vec<Self> {
        let mut workloads = vec![Self::OneByOne, Self::Pipelined(16)];
        match yardstick {
            Yardstick::Service(_) => {
                workloads.extend([BatchFormat::Json, BatchFormat::Ndjson].map(Self::Batches));
            }
            Yardstick::Redis { .. } => workloads.push(Self::Pipelined(64)),
            _ => {}
        }
        workloads
    }

    fn name(self) -> String {
        match self {
            Self::OneByOne => "one by one".to_owned(),
            Self::Pipelined(depth) => format!("pipelined by {depth}"),
            Self::Batches(BatchFormat::Ndjson) => "batches of 1,000 rows, NDJSON".to_owned(),
            Self::Batches(_) => "batches of 1,000 rows, JSON".to_owned(),
        }
    }

    /// Closed loop, 100 names: a warm-up and the measurement.
    fn phases(self, yardstick: Yardstick, host: &str, seconds: f64) -> anyhow::Result<Vec<Phase>> {
        let (connections, pipeline, mix) = match self {
            Self::OneByOne => (64, 1, r#"{ op = "single", weight = 1 }"#),
            Self::Pipelined(depth) => (64, depth, r#"{ op = "single", weight = 1 }"#),
            Self::Batches(BatchFormat::Ndjson) => {
                (8, 1, r#"{ op = "batch", weight = 1, rows = 1000, format = "ndjson" }"#)
            }
            Self::Batches(_) => (8, 1, r#"{ op = "batch", weight = 1, rows = 1000 }"#),
        };
        let mut text = "description = \"compare\"\n".to_owned();
        for (name, duration_s) in [("warm-up", WARM_UP_S), ("measured", seconds)] {
            let keys = format!("connections = {connections}\npipeline = {pipeline}\nmix = [{mix}]");
            write!(text, "[[phase]]\nname = \"{name}\"\nduration_s = {duration_s:?}\n{keys}\n")?;
        }
        let scenario = Scenario::parse(&text).map_err(|error| Usage(format!("--seconds: {error:#}")))?;
        let mut phases = Phase::from_scenario(&scenario, host, "event-")?;
        phases.iter_mut().for_each(|phase| phase.dialect.redis = yardstick.speaks_redis());
        Ok(phases)
    }
}

/// All rounds of one workload at one server.
#[derive(Debug)]
struct Series {
    yardstick: Yardstick,
    workload: Workload,
    per_s: Vec<f64>,
    p99_us: Vec<f64>,
    cpu_us: Vec<f64>,
    own_cpu_us: Vec<f64>,
}

impl Series {
    fn add(&mut self, phase: &PhaseReport) {
        let rows = (phase.increments_per_s / phase.achieved_per_s.max(1e-9)).max(1.0);
        self.per_s.push(phase.increments_per_s);
        self.p99_us.push(phase.latency.p99_us);
        self.cpu_us.extend(phase.server_cpu_us_per_request.map(|us| us / rows));
        self.own_cpu_us.extend(phase.generator_cpu_us_per_request.map(|us| us / rows));
    }
}

/// Runs the comparison and prints its tables; `false` if a count was wrong or a request failed.
///
/// # Errors
/// If the service's program is missing or a server does not start.
pub fn execute(args: &CompareArgs, stop: Arc<AtomicBool>) -> anyhow::Result<bool> {
    if args.rounds == 0 || args.rounds > 100 || !(0.1..=600.0).contains(&args.seconds) {
        return Err(Usage("expected 1 to 100 --rounds of 0.1 to 600 --seconds".to_owned()).into());
    }
    let service = match &args.service {
        Some(service) => service.clone(),
        None => std::env::current_exe()?.with_file_name("event-tracker"),
    };
    let service = std::path::absolute(service)?;
    let wanted = |yardstick: &Yardstick| {
        args.only.is_empty() || args.only.iter().any(|word| yardstick.name().contains(word.as_str()))
    };
    let mut err = std::io::stderr();
    let (mut present, mut versions) = (Vec::new(), Vec::new());
    for yardstick in Yardstick::ALL.into_iter().filter(wanted) {
        match (yardstick.version(&service), yardstick) {
            (Some(version), _) => {
                present.push(yardstick);
                versions.push(version);
            }
            (None, Yardstick::Service(_)) => {
                let hint = "build it with `cargo build --release`, name it with --service, or leave it out with --only";
                return Err(Usage(format!("there is no program {}; {hint}", service.display())).into());
            }
            (None, missing) => writeln!(err, "left out, not installed: {}", missing.name())?,
        }
    }
    if present.is_empty() {
        return Err(Usage("--only leaves nothing to compare".to_owned()).into());
    }
    versions.dedup();
    let mut all: Vec<Series> = Vec::new();
    let mut sound = true;
    for round in 1..=args.rounds {
        for yardstick in &present {
            for workload in Workload::of(*yardstick) {
                if stop.load(Ordering::Relaxed) {
                    continue;
                }
                // A new server for each measurement: none inherits another's memory or files.
                let lifetime = Duration::from_secs_f64(args.seconds) + SERVER_LIFETIME_SLACK;
                let server = Server::start(*yardstick, &service, &args.folder, lifetime)?;
                let phases = workload.phases(*yardstick, &server.target.host, args.seconds)?;
                let options = options(*yardstick, server.target.clone(), Arc::clone(&stop));
                let report = run(yardstick.name(), &phases, &options)
                    .with_context(|| format!("{}, {}", yardstick.name(), workload.name()))?;
                if !report.passed(0) {
                    sound = false;
                    writeln!(err, "{}", report.summary())?;
                }
                let Some(measured) = report.phases.last().filter(|_| !report.interrupted) else { continue };
                let per_s = table::number(measured.increments_per_s);
                let label = format!("{}, {}", yardstick.name(), workload.name());
                writeln!(err, "round {round} of {}: {label}: {per_s}/s", args.rounds)?;
                let known = all.iter().position(|series| (series.yardstick, series.workload) == (*yardstick, workload));
                let index = known.unwrap_or(all.len());
                if known.is_none() {
                    all.push(Series::new(*yardstick, workload));
                }
                all[index].add(measured);
            }
        }
    }
    std::io::stdout().write_all(tables(args, &all, &versions).as_bytes())?;
    Ok(sound && !stop.load(Ordering::Relaxed))
}

fn options(yardstick: Yardstick, target: Target, stop: Arc<AtomicBool>) -> Options {
    let verify = matches!(yardstick, Yardstick::Service(_));
    Options { target, threads: 1, verify, prefix: None, server_pid: None, progress: false, stop }
}

impl Series {
    fn new(yardstick: Yardstick, workload: Workload) -> Self {
        let none = Vec::new;
        Self { yardstick, workload, per_s: none(), p99_us: none(), cpu_us: none(), own_cpu_us: none() }
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        Some(f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, *sorted.get(middle)?))
    } else {
        sorted.get(middle).copied()
    }
}

fn tables(args: &CompareArgs, all: &[Series], versions: &[String]) -> String {
    let date = Utc::now().format("%Y-%m-%d");
    let rounds = format!("medians of {} × {} s", args.rounds, args.seconds);
    let mut text = format!("Measured {date} on {}; {rounds}; client on the same machine.\n", machine());
    let _ = writeln!(text, "Versions: {}.", versions.join("; "));
    for workload in [Workload::OneByOne, Workload::Pipelined(16)] {
        let series: Vec<_> = all.iter().filter(|series| series.workload == workload).collect();
        if !series.is_empty() {
            let _ = write!(text, "\n**{}, 64 connections**\n\n{}", workload.name(), requests_table(&series));
        }
    }
    let batches = |series: &&Series| matches!(series.workload, Workload::Batches(_) | Workload::Pipelined(64));
    let series: Vec<_> = all.iter().filter(batches).collect();
    if !series.is_empty() {
        let _ = write!(text, "\n**in bulk**\n\n{}", batches_table(&series));
    }
    text
}

/// A ratio of medians, or a dash where one of them is not known.
fn ratio(of: &[f64], to: Option<&[f64]>) -> String {
    match (median(of), to.and_then(median)) {
        (Some(of), Some(to)) if to > 0.0 => format!("{:.2}", of / to),
        _ => "-".to_owned(),
    }
}

fn requests_table(series: &[&Series]) -> String {
    let find = |yardstick| series.iter().find(|series| series.yardstick == yardstick);
    let (bare, nginx) = (find(Yardstick::Bare), find(Yardstick::NginxLua));
    let memory = find(Yardstick::Service(AckLevel::Memory));
    let head = [
        "server",
        "requests/s",
        "p99",
        "CPU/request",
        "own CPU",
        "rate ÷ bare",
        "CPU ÷ bare",
        "rate ÷ nginx",
        "rate ÷ memory",
        "CPU ÷ memory",
        "p99 ÷ memory",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for one in series {
        let show = |values: &[f64], show: fn(f64) -> String| median(values).map_or_else(|| "?".to_owned(), show);
        rows.push(vec![
            one.yardstick.name().to_owned(),
            show(&one.per_s, table::number),
            show(&one.p99_us, table::duration),
            show(&one.cpu_us, table::duration),
            show(&one.own_cpu_us, table::duration),
            ratio(&one.per_s, bare.map(|bare| &*bare.per_s)),
            ratio(&one.cpu_us, bare.map(|bare| &*bare.cpu_us)),
            ratio(&one.per_s, nginx.map(|nginx| &*nginx.per_s)),
            ratio(&one.per_s, memory.map(|memory| &*memory.per_s)),
            ratio(&one.cpu_us, memory.map(|memory| &*memory.cpu_us)),
            ratio(&one.p99_us, memory.map(|memory| &*memory.p99_us)),
        ]);
    }
    table::markdown(&rows)
}

fn batches_table(series: &[&Series]) -> String {
    let redis = series.iter().find(|series| series.yardstick == Yardstick::Redis { always: false });
    let head = ["server", "how", "events/s", "CPU/event", "rate ÷ Redis by 64"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for one in series {
        rows.push(vec![
            one.yardstick.name().to_owned(),
            one.workload.name(),
            median(&one.per_s).map_or_else(|| "?".to_owned(), table::number),
            median(&one.cpu_us).map_or_else(|| "?".to_owned(), table::duration),
            ratio(&one.per_s, redis.map(|redis| &*redis.per_s)),
        ]);
    }
    table::markdown(&rows)
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}
