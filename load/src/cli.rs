//! The command line.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use clap::{Args, Parser, Subcommand};

use crate::attack::{self, AttackArgs};
use crate::baseline;
use crate::compare::{self, CompareArgs};
use crate::fleet::{self, FleetArgs};
use crate::picture;
use crate::plan::Phase;
use crate::replay::{self, Log, Speed};
use crate::report::Report;
use crate::request::Dialect;
use crate::run::{Options, run_on};
use crate::scenario::{SHIPPED, Scenario};
use crate::simulate::images::{self, CrashImagesArgs};
use crate::simulate::{self, SimulateArgs};
use crate::target::{Targets, Usage};
use crate::torture::{self, TortureArgs};

/// The longest flush interval, and some more.
const SETTLE_MAX: Duration = Duration::from_secs(4_000);

/// Load for event-tracker: scripted traffic on a fixed schedule, and the check that every
/// acknowledged count is there, once.
///
/// Exit codes: 0 all well, 1 failed (counts differ, too many errors, no connection), 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "event-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a scenario: a TOML file, or the name of a shipped one (see `scenarios`)
    Run {
        /// Name of a shipped scenario, or path of a TOML file
        scenario: String,
        /// Multiplies all rates
        #[arg(long, default_value_t = 1.0)]
        rate_factor: f64,
        /// Multiplies all durations
        #[arg(long, default_value_t = 1.0)]
        duration_factor: f64,
        #[command(flatten)]
        common: Common,
    },
    /// Replays a web server's log (Common or Combined Log Format), one count a line
    Replay {
        /// The access log
        log: PathBuf,
        /// Seconds of the log in one second, or `max`: as fast as the answers come
        #[arg(long, default_value = "1")]
        speed: Speed,
        /// What is counted: text with {path} (with its query), {route} (without), {method}, {status}
        #[arg(long, default_value = "{path}")]
        event: String,
        /// Connections to send over
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// Longest run in seconds; lines that can't be sent by then are errors
        #[arg(long, default_value_t = 86_400)]
        limit_s: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Measures the service against a bare HTTP server, nginx with Lua and Redis, in turn
    Compare(CompareArgs),
    /// Runs many nodes in one process on one PostgreSQL and says what they cost it
    Fleet(FleetArgs),
    /// Plays simulations: real nodes on machines, disks, a network and a store in memory that fail
    Simulate(SimulateArgs),
    /// Starts from everything that power cuts may leave of a disk, at each of its operations
    CrashImages(CrashImagesArgs),
    /// Tortures the real program on a real store: kills, lost answers, frozen and full machines, and exact checks
    Torture(TortureArgs),
    /// Attacks a node that it starts, kind by kind, and says what an honest client notices of it
    Attack(AttackArgs),
    /// Serves the static answer that `compare` measures against
    BaselineServer {
        /// Port on 127.0.0.1; 0 takes a free one
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Ends by itself after so many seconds
        #[arg(long, default_value_t = 3600)]
        lifetime_s: u64,
    },
    /// Lists the shipped scenarios
    Scenarios {
        /// Prints the file of this one
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// The service; several, one after another or with commas, are nodes of one database: each gets an even
    /// share of connections and requests and must show, in the end, what all of them acknowledged
    #[arg(long, value_name = "URL", value_delimiter = ',', default_value = "http://127.0.0.1:8000")]
    target: Vec<String>,
    /// How many seconds several targets may take to show each other's counts: more than their flush interval
    #[arg(long, default_value_t = 10.0)]
    settle_s: f64,
    /// Allows targets on other machines
    #[arg(long)]
    allow_remote: bool,
    /// Threads that send; one drives more than the service can take. Each of several targets has as many
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Does not compare the totals of the service with what it acknowledged
    #[arg(long)]
    no_verify: bool,
    /// Begins all names with this instead of a prefix that is new for each run; replays have none
    #[arg(long)]
    prefix: Option<String>,
    /// Failed requests that are put up with
    #[arg(long, default_value_t = 0)]
    max_errors: u64,
    /// Prints the report as JSON
    #[arg(long)]
    json: bool,
    /// Adds to the JSON what was acknowledged, and what may have been counted, of each event
    #[arg(long, requires = "json")]
    list_events: bool,
    /// Draws latency by percentile and over time into this folder, as SVG and PNG
    #[arg(long, value_name = "DIR")]
    picture: Option<PathBuf>,
    /// Measures the processor time of this process instead of whoever listens on the target's port
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
}

/// Parses the command line, does what it says, and turns the outcome into an exit code.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command.execute() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "event-load: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

impl Command {
    /// Whether all is well.
    fn execute(self) -> anyhow::Result<bool> {
        match self {
            Self::Run { scenario: name, rate_factor, duration_factor, common } => {
                let mut scenario = Scenario::load(&name)?;
                scenario.scale(rate_factor, duration_factor)?;
                let (targets, options) = common.options()?;
                let prefix = common.prefix.clone().unwrap_or_else(new_prefix);
                let phases = Phase::from_scenario(&scenario, &options.target.host, &prefix)
                    .map_err(|error| Usage(format!("{error:#}")))?;
                let title = Path::new(&name).file_stem().map_or(name.clone(), |stem| stem.to_string_lossy().into());
                let report = run_on(&targets, &title, &phases, &Options { prefix: Some(prefix), ..options })?;
                common.show(&report)
            }
            Self::Replay { log: path, speed, event, connections, limit_s, common } => {
                replay::check_template(&event)?;
                if connections == 0 || limit_s == 0 {
                    return Err(Usage("--connections and --limit-s must be at least 1".to_owned()).into());
                }
                let bytes = std::fs::read(&path)
                    .map_err(|error| Usage(format!("can't read the log {}: {error}", path.display())))?;
                let (targets, options) = common.options()?;
                let template = format!("{}{event}", common.prefix.as_deref().unwrap_or_default());
                let log = Log::read(&bytes, &template);
                let notes = log.notes();
                if log.is_empty() {
                    let notes = notes.join("; ");
                    return Err(Usage(format!("{} holds no line that can be sent. {notes}", path.display())).into());
                }
                let host = options.target.host.clone();
                let dialect = Dialect { host, ack: None, keep_alive: true, redis: false };
                let phase = log.phase(speed, connections, limit_s * 1_000_000_000, dialect);
                let mut report = run_on(&targets, "replay", &[phase], &options)?;
                report.notes.splice(..0, notes);
                common.show(&report)
            }
            Self::Compare(args) => compare::execute(&args, stop_on_signal()?),
            Self::Simulate(args) => simulate::execute(&args, &stop_on_signal()?),
            Self::CrashImages(args) => images::execute(&args, &stop_on_signal()?),
            Self::Torture(args) => torture::execute(&args, &stop_on_signal()?),
            Self::Attack(args) => attack::execute(&args, &stop_on_signal()?),
            Self::Fleet(args) => fleet::execute(&args, &stop_on_signal()?),
            Self::BaselineServer { port, lifetime_s } => {
                let runtime = tokio::runtime::Runtime::new().context("can't start the runtime")?;
                runtime.block_on(async {
                    let listening = baseline::listen(SocketAddr::from(([127, 0, 0, 1], port))).await;
                    let (listener, address) = listening.with_context(|| format!("can't listen on port {port}"))?;
                    writeln!(std::io::stdout(), "listening on http://{address}")?;
                    baseline::serve(listener, Duration::from_secs(lifetime_s)).await;
                    Ok(true)
                })
            }
            Self::Scenarios { name: Some(name) } => {
                let shipped = SHIPPED.iter().find(|(shipped, _)| *shipped == name);
                let (_, text) = shipped.ok_or_else(|| Usage(format!("there is no shipped scenario {name:?}")))?;
                std::io::stdout().write_all(text.as_bytes())?;
                Ok(true)
            }
            Self::Scenarios { name: None } => {
                for (name, text) in SHIPPED {
                    writeln!(std::io::stdout(), "{name:13} {}", Scenario::parse(text)?.description)?;
                }
                Ok(true)
            }
        }
    }
}

impl Common {
    fn targets(&self) -> anyhow::Result<Targets> {
        let patience = Duration::try_from_secs_f64(self.settle_s).ok().filter(|patience| *patience <= SETTLE_MAX);
        let patience = patience
            .ok_or_else(|| Usage(format!("--settle-s is {}; expected 0 to {}", self.settle_s, SETTLE_MAX.as_secs())))?;
        Targets::parse(&self.target, self.allow_remote, patience)
    }

    fn options(&self) -> anyhow::Result<(Targets, Options)> {
        if self.threads == 0 || self.threads > 64 {
            return Err(Usage(format!("--threads is {}; expected 1 to 64", self.threads)).into());
        }
        let targets = self.targets()?;
        let options = Options {
            target: targets.all[0].clone(),
            threads: self.threads,
            verify: !self.no_verify,
            prefix: None,
            list_events: self.list_events,
            server_pid: self.server_pid,
            progress: std::io::stderr().is_terminal() && !self.json,
            stop: stop_on_signal()?,
        };
        Ok((targets, options))
    }

    fn show(&self, report: &Report) -> anyhow::Result<bool> {
        let mut out = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, report)?;
            writeln!(out)?;
        } else {
            out.write_all(report.summary().as_bytes())?;
        }
        if let Some(folder) = &self.picture {
            for path in picture::draw(report, folder)? {
                let _ = writeln!(std::io::stderr(), "drawn: {}", path.display());
            }
        }
        Ok(report.passed(self.max_errors))
    }
}

/// Names of one run are not those of another, so that runs do not disturb each other.
fn new_prefix() -> String {
    format!("load-{:x}-{:x}-", Utc::now().timestamp_millis(), std::process::id())
}

/// Set by Ctrl-C or SIGTERM: the run ends early, verifies and reports. The second signal ends it at once.
fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let flag = Arc::clone(&stop);
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if flag.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(stop)
}
