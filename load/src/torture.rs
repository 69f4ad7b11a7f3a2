//! Torture of the real thing: the service's own program on a real store, continuous counts and reads, and every
//! fault that can be made from outside, many of them a second. What it acknowledged and what it showed is checked
//! all the time, and exactly whenever everything has come to rest.
//!
//! A run is a row of worlds ([`world`]), each drawn from a seed of its own, with an empty store. A world is a row of
//! rounds: traffic ([`traffic`], [`reads`]) and faults ([`faults`], [`outages`], [`proxy`]) at the same time, then
//! rest ([`rest`]). [`observed`] knows what may be shown, with [`sums`] for names that are counted often and
//! [`crate::check`] for those that tell which operation was lost or doubled.

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::scenario::AckLevel;
use crate::target::Usage;
use figures::Figures;
use node::Service;
use play::Crew;
use process::Sweeper;
use world::{Settings, World};

mod faults;
pub mod figures;
mod gate;
mod http;
mod node;
mod observed;
mod outages;
mod play;
mod postgres;
mod process;
mod proxy;
mod reads;
mod rest;
pub mod sums;
mod traffic;
mod world;

/// Rounds until a world ends: each read shows all names that it has ever counted.
const ROUNDS: usize = 8;
/// A shorter run may have had no fault of some rare kind.
const SHORT_MINUTES: f64 = 2.0;
/// Less room than this, and the folders are on the disk. Bytes.
const IN_MEMORY_MIN: u64 = 4 << 30;
/// Between lines that tell how far it is where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum StoreKind {
    Postgres,
    Sqlite,
}

#[derive(Debug, Args)]
pub struct TortureArgs {
    /// How long
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// The store: an own PostgreSQL that is started on this machine, or SQLite
    #[arg(long, value_enum, default_value = "postgres")]
    store: StoreKind,
    /// How many nodes; on SQLite there is one [default: 3 on PostgreSQL]
    #[arg(long)]
    nodes: Option<usize>,
    /// What must have happened before a count is acknowledged
    #[arg(long, value_enum, default_value = "journal")]
    ack: AckLevel,
    /// The faults of the first world are drawn from it, those of the next from the next [default: any]
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds from rest to rest
    #[arg(long, default_value_t = 30.0)]
    round_s: f64,
    /// The service [default: event-tracker beside this program]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Copies folders and logs of a run that failed into this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

impl TortureArgs {
    fn settings(&self) -> anyhow::Result<Settings> {
        let in_range = |key: &str, value: f64, least: f64, most: f64| {
            let usage = || Usage(format!("--{key} is {value}; expected {least} to {most}"));
            if (least..=most).contains(&value) { Ok(()) } else { Err(usage()) }
        };
        in_range("minutes", self.minutes, 0.05, 100_000.0)?;
        in_range("round-s", self.round_s, 1.0, 300.0)?;
        let is_postgres = self.store == StoreKind::Postgres;
        let nodes = self.nodes.unwrap_or(if is_postgres { 3 } else { 1 });
        let usage = || Usage(format!("--nodes is {nodes}; expected 1 with --store sqlite"));
        ensure!(is_postgres || nodes == 1, usage());
        in_range("nodes", nodes as f64, 1.0, 16.0)?;
        let service = Service { program: node::program(self.program.as_deref())?, ack: self.ack };
        let round = Duration::from_secs_f64(self.round_s);
        Ok(Settings { is_postgres, nodes, service, round, rounds: ROUNDS })
    }
}

/// Runs it and prints what happened; `false` if something was wrong.
///
/// # Errors
/// When it can't be run, or when nothing of interest happened in it.
pub fn execute(args: &TortureArgs, stop: &Arc<AtomicBool>) -> anyhow::Result<bool> {
    let settings = args.settings()?;
    let first = args.seed.unwrap_or_else(rand::random);
    let (began, figures) = (Instant::now(), Arc::new(Figures::default()));
    let until = began + Duration::from_secs_f64(args.minutes * 60.0);
    let progress = Progress::new(began);
    let (mut seeds, mut wrong, mut has_disks) = (Vec::new(), Vec::new(), true);
    while wrong.is_empty() && !stop.load(Ordering::Relaxed) && (seeds.is_empty() || Instant::now() < until) {
        let seed = first.wrapping_add(seeds.len() as u64);
        seeds.push(seed);
        let folder = folder()?;
        let sweeper = Arc::new(Sweeper::start(folder.path())?);
        let world = World::create(&settings, seed, folder.path(), &figures, &sweeper)?;
        has_disks = world.has_disks;
        let mut crew = Crew::of(&world);
        let played = crew.play(until, stop, &|| progress.tell(&figures));
        wrong.extend(played.err().map(|error| format!("{error:#}")));
        crew.end();
        wrong.splice(0..0, world.observed.wrongs());
        if let (false, Some(keep)) = (wrong.is_empty(), &args.keep) {
            process::copy_folder(folder.path(), keep)?;
        }
    }
    progress.end();
    let mut out = std::io::stdout().lock();
    let (minutes, last) = (began.elapsed().as_secs_f64() / 60.0, seeds.last().copied().unwrap_or(first));
    let store = if settings.is_postgres { "PostgreSQL" } else { "SQLite" };
    let (nodes, ack) = (settings.nodes, settings.service.ack);
    writeln!(
        out,
        "{minutes:.1} minutes, {store}, {nodes} nodes, acknowledged after: {ack:?}, seeds {first} to {last}"
    )?;
    write!(out, "{}", figures.summary())?;
    if !has_disks {
        writeln!(out, "Disks were not filled: only root may mount a small file system.")?;
    }
    for what in &wrong {
        writeln!(out, "WRONG: {what}")?;
    }
    if wrong.is_empty() {
        writeln!(out, "0 lost, 0 doubled, 0 out of bounds")?;
        figures.check(settings.is_postgres, minutes < SHORT_MINUTES)?;
    }
    Ok(wrong.is_empty())
}

/// In memory where there is room for it: nothing here is about the speed of a disk.
fn folder() -> anyhow::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |space| space.f_bavail * space.f_frsize);
    let parent = if room < IN_MEMORY_MIN { std::env::temp_dir() } else { memory.to_owned() };
    let folder = tempfile::Builder::new().prefix("event-load-torture-").tempdir_in(parent);
    let folder = folder.context("can't make a folder for the run")?;
    // The database runs as another user.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))?;
    Ok(folder)
}

/// How far it is: a line that changes, or one from time to time.
struct Progress {
    began: Instant,
    bar: Option<ProgressBar>,
    told: Mutex<Instant>,
}

impl Progress {
    fn new(began: Instant) -> Self {
        let style =
            ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new_spinner().with_style(style));
        Self { began, bar, told: Mutex::new(began) }
    }

    fn tell(&self, figures: &Figures) {
        let line = || figures.line(self.began.elapsed());
        if let Some(bar) = &self.bar {
            bar.set_message(line());
            return bar.tick();
        }
        let mut told = self.told.lock();
        if told.elapsed() > LINE_INTERVAL {
            *told = Instant::now();
            let _ = writeln!(std::io::stderr(), "{}", line());
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
