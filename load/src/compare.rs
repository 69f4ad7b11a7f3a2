//! The service against other ways to count, in turn, in one run: tables of medians and ratios.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use clap::Args;

use crate::plan::Phase;
use crate::report::{GENERATOR_BUSY_MAX, PhaseReport, Report};
use crate::run::{Options, run};
use crate::scenario::{AckLevel, BatchFormat, Scenario};
use crate::table;
use crate::target::Usage;
use crate::yardsticks::{Server, Yardstick};

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The service's program; unset, the `event-tracker` beside this program
    #[arg(long, value_name = "FILE")]
    service: Option<PathBuf>,
    /// Rounds; the tables show medians, and medians of the ratios within a round
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of each measurement in seconds
    #[arg(long, default_value_t = 2.0)]
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

/// Before each measurement: the server's buffers grow, names become known.
const WARM_UP_S: f64 = 0.5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    OneByOne,
    Pipelined(usize),
    Batches(BatchFormat),
}

impl Workload {
    const ALL: [Self; 5] = [
        Self::OneByOne,
        Self::Pipelined(16),
        Self::Batches(BatchFormat::Json),
        Self::Batches(BatchFormat::Ndjson),
        Self::Pipelined(64),
    ];

    /// Batches are the service's way to send much, a long pipeline is Redis'.
    fn suits(self, yardstick: Yardstick) -> bool {
        match self {
            Self::OneByOne | Self::Pipelined(16) => true,
            Self::Batches(_) => matches!(yardstick, Yardstick::Service(_)),
            Self::Pipelined(_) => yardstick.speaks_redis(),
        }
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
        for phase in &mut phases {
            (phase.dialect.redis, phase.dialect.ack) = (yardstick.speaks_redis(), yardstick.asks_for());
        }
        Ok(phases)
    }
}

/// What one round found for one workload at one server. Rows of batches count one by one.
#[derive(Debug)]
struct Sample {
    per_s: f64,
    p99_us: f64,
    cpu_us: Option<f64>,
    generator_busy: f64,
}

impl Sample {
    fn of(phase: &PhaseReport) -> Self {
        let rows = (phase.increments_per_s / phase.achieved_per_s.max(1e-9)).max(1.0);
        Self {
            per_s: phase.increments_per_s,
            p99_us: phase.latency.p99_us,
            cpu_us: phase.server_cpu_us_per_request.map(|us| us / rows),
            generator_busy: phase.generator_busy,
        }
    }
}

/// All rounds of one workload at one server, in order.
#[derive(Debug)]
struct Series {
    yardstick: Yardstick,
    workload: Workload,
    rounds: Vec<Sample>,
}

/// One column of a [`Sample`].
type Figure = fn(&Sample) -> Option<f64>;

const PER_S: Figure = |sample| Some(sample.per_s);
const P99_US: Figure = |sample| Some(sample.p99_us);
const CPU_US: Figure = |sample| sample.cpu_us;
const GENERATOR_BUSY: Figure = |sample| Some(sample.generator_busy);

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
    // What is compared with each other is measured one right after the other: a noisy machine changes within minutes.
    let pairs = Workload::ALL.into_iter().flat_map(|workload| present.iter().map(move |one| (workload, *one)));
    let pairs = pairs.filter(|(workload, yardstick)| workload.suits(*yardstick));
    let new = |(workload, yardstick)| Series { yardstick, workload, rounds: Vec::new() };
    let mut all: Vec<Series> = pairs.map(new).collect();
    let mut sound = true;
    for round in 1..=args.rounds {
        for series in &mut all {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let label = format!("{}, {}", series.yardstick.name(), series.workload.name());
            let report = measure(series, &service, args, &stop).with_context(|| label.clone())?;
            if !report.passed(0) {
                sound = false;
                writeln!(err, "{}", report.summary())?;
            }
            let Some(measured) = report.phases.last().filter(|_| !report.interrupted) else { break };
            let per_s = table::number(measured.increments_per_s);
            writeln!(err, "round {round} of {}: {label}: {per_s}/s", args.rounds)?;
            series.rounds.push(Sample::of(measured));
        }
    }
    all.retain(|series| !series.rounds.is_empty());
    std::io::stdout().write_all(tables(args, &all, &versions).as_bytes())?;
    Ok(sound && !stop.load(Ordering::Relaxed))
}

/// One round at a new server: none inherits another's memory or files.
fn measure(series: &Series, service: &Path, args: &CompareArgs, stop: &Arc<AtomicBool>) -> anyhow::Result<Report> {
    let lifetime = Duration::from_secs_f64(args.seconds) + SERVER_LIFETIME_SLACK;
    let server = Server::start(series.yardstick, service, &args.folder, lifetime)?;
    let phases = series.workload.phases(series.yardstick, &server.target.host, args.seconds)?;
    let options = Options {
        target: server.target.clone(),
        threads: 1,
        verify: matches!(series.yardstick, Yardstick::Service(_)),
        prefix: None,
        list_events: false,
        server_pid: None,
        progress: false,
        stop: Arc::clone(stop),
    };
    run(series.yardstick.name(), &phases, &options)
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        Some(f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, *sorted.get(middle)?))
    } else {
        sorted.get(middle).copied()
    }
}

impl Series {
    /// The median of the rounds.
    fn cell(&self, figure: Figure, show: fn(f64) -> String) -> String {
        median(self.rounds.iter().filter_map(figure)).map_or_else(|| "?".to_owned(), show)
    }

    /// The median of the ratios, each within one round; a dash where there is none.
    fn ratio(&self, to: Option<&Self>, figure: Figure) -> String {
        let rounds = self.rounds.iter().zip(to.map_or(&[][..], |to| &to.rounds));
        let ratios = rounds.filter_map(|(of, to)| Some(figure(of)? / figure(to).filter(|to| *to > 0.0)?));
        median(ratios).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
    }
}

fn tables(args: &CompareArgs, all: &[Series], versions: &[String]) -> String {
    let date = Utc::now().format("%Y-%m-%d");
    let rounds = format!("closed loop; medians of {} × {} s, of ratios within a round", args.rounds, args.seconds);
    let mut text = format!("Measured {date} on {}; client on the same machine; {rounds}.\n", machine());
    let _ = writeln!(text, "Versions: {}.", versions.join("; "));
    for workload in [Workload::OneByOne, Workload::Pipelined(16)] {
        let series: Vec<_> = all.iter().filter(|series| series.workload == workload).collect();
        if !series.is_empty() {
            let _ = write!(text, "\n**{}, 64 connections**\n\n{}", workload.name(), requests_table(&series));
        }
    }
    let batches = |series: &&Series| matches!(series.workload, Workload::Batches(_) | Workload::Pipelined(64));
    let mut series: Vec<_> = all.iter().filter(batches).collect();
    series.sort_by_key(|series| Yardstick::ALL.iter().position(|yardstick| *yardstick == series.yardstick));
    if !series.is_empty() {
        let _ = write!(text, "\n**in bulk**\n\n{}", batches_table(&series));
    }
    let limit = table::percent(GENERATOR_BUSY_MAX);
    let _ = write!(
        text,
        "\nWhere the generator, one thread, is busy for more than {limit} of the time, it could not have driven twice the\n\
         rate: a rate there may be limited by it, and the processor time is the figure to compare.\n"
    );
    text
}

fn requests_table(series: &[&Series]) -> String {
    let find = |yardstick| series.iter().find(|series| series.yardstick == yardstick).copied();
    let (bare, nginx) = (find(Yardstick::Bare), find(Yardstick::NginxLua));
    let memory = find(Yardstick::Service(AckLevel::Memory));
    let head = [
        "server",
        "requests/s",
        "p99",
        "CPU/request",
        "generator busy",
        "rate ÷ bare",
        "CPU ÷ bare",
        "rate ÷ nginx",
        "rate ÷ memory",
        "CPU ÷ memory",
        "p99 ÷ memory",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for one in series {
        rows.push(vec![
            one.yardstick.name().to_owned(),
            one.cell(PER_S, table::number),
            one.cell(P99_US, table::duration),
            one.cell(CPU_US, table::duration),
            one.cell(GENERATOR_BUSY, table::percent),
            one.ratio(bare, PER_S),
            one.ratio(bare, CPU_US),
            one.ratio(nginx, PER_S),
            one.ratio(memory, PER_S),
            one.ratio(memory, CPU_US),
            one.ratio(memory, P99_US),
        ]);
    }
    table::markdown(&rows)
}

fn batches_table(series: &[&Series]) -> String {
    let redis = series.iter().find(|series| series.yardstick == Yardstick::Redis { always: false }).copied();
    let head = ["server", "how", "events/s", "CPU/event", "generator busy", "rate ÷ Redis by 64"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for one in series {
        rows.push(vec![
            one.yardstick.name().to_owned(),
            one.workload.name(),
            one.cell(PER_S, table::number),
            one.cell(CPU_US, table::duration),
            one.cell(GENERATOR_BUSY, table::percent),
            one.ratio(redis, PER_S),
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
