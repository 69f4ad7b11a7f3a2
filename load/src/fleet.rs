//! A fleet in one process: real nodes (journal, flusher, folder, reads, only no HTTP) on one PostgreSQL, and
//! what they cost it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use event_tracker::domain::EventTotal;

use crate::cpu;
use crate::target::Usage;
use database::{Database, Snapshot};
use figures::{Figures, Parts};
use member::{Ages, Member, Reader};

mod activity;
mod database;
mod figures;
mod member;

/// Beside the sessions of the nodes: those that look on, and room for others.
const SESSIONS_BESIDE: usize = 10;
/// For commits, folds, looks, the start and reads.
const SESSIONS_OF_A_NODE: usize = 5;

/// How long a node may not show what another one has committed.
const SHOWN_MAX: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub struct FleetArgs {
    /// PostgreSQL, as in event-tracker's DATABASE_URL, reached without TLS by a role that may create databases.
    /// The fleet works in a database that it creates and drops again; the one of the URL stays as it is
    #[arg(long, value_name = "URL")]
    database_url: String,
    /// How many nodes
    #[arg(long, default_value_t = 8)]
    nodes: usize,
    /// How many counters each node has in every flush
    #[arg(long, default_value_t = 2_000)]
    counters: usize,
    /// Whether all nodes count the same names
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    shared: bool,
    #[arg(long, default_value_t = 300)]
    flush_interval_ms: u64,
    #[arg(long, default_value_t = 1_000)]
    fold_interval_ms: u64,
    /// How long it is measured, after a warm-up
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// How many nodes are read from: a marker that another one counts every few milliseconds, and all totals
    /// once a second
    #[arg(long, default_value_t = 1)]
    readers: usize,
    /// Where the nodes' folders are, for as long as it runs; unset, among the temporary files
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Prints the figures as JSON
    #[arg(long)]
    json: bool,
}

impl FleetArgs {
    fn check(&self) -> anyhow::Result<()> {
        let in_range = |key: &str, value: f64, least: f64, most: f64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Usage(format!("--{key} is {value}; expected {least} to {most}")))
        };
        in_range("nodes", self.nodes as f64, 1.0, 1_000.0)?;
        in_range("counters", self.counters as f64, 1.0, 500_000.0)?;
        in_range("flush-interval-ms", self.flush_interval_ms as f64, 10.0, 600_000.0)?;
        in_range("fold-interval-ms", self.fold_interval_ms as f64, 10.0, 600_000.0)?;
        in_range("seconds", self.seconds, 0.5, 3_600.0)?;
        in_range("readers", self.readers as f64, 0.0, self.nodes as f64)?;
        Ok(())
    }

    fn flush_interval(&self) -> Duration {
        Duration::from_millis(self.flush_interval_ms)
    }

    /// Until every counter has its rows, and what the start needed is done.
    fn warm_up(&self) -> Duration {
        let fold = Duration::from_millis(self.fold_interval_ms);
        (self.flush_interval() * 3).max(fold * 3).clamp(Duration::from_secs(2), Duration::from_secs(60))
    }
}

/// Runs the fleet and prints its figures; `false` if a count was wrong or the books do not balance.
///
/// # Errors
/// If the database can't be used, or a node does not get its counts into it.
pub fn execute(args: &FleetArgs, stop: &Arc<AtomicBool>) -> anyhow::Result<bool> {
    args.check()?;
    // As the service does: 100 nodes have more open files than a process may usually have.
    let _ = event_tracker::descriptors::fit(0, args.nodes * SESSIONS_OF_A_NODE, 0);
    let runtime = tokio::runtime::Runtime::new().context("can't start the runtime")?;
    let figures = runtime.block_on(async {
        let database = Database::create(&args.database_url, args.nodes * SESSIONS_OF_A_NODE + SESSIONS_BESIDE).await?;
        let measured = measure(args, &database, stop).await;
        // Whatever became of it.
        let dropped = database.drop().await;
        let figures = measured?;
        dropped.map(|()| figures)
    })?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &figures)?;
        writeln!(out)?;
    } else {
        out.write_all(figures.summary().as_bytes())?;
    }
    Ok(figures.exact)
}

async fn measure(args: &FleetArgs, database: &Database, stop: &AtomicBool) -> anyhow::Result<Figures> {
    let folder = match &args.folder {
        Some(folder) => tempfile::Builder::new().prefix("event-load-fleet-").tempdir_in(folder),
        None => tempfile::Builder::new().prefix("event-load-fleet-").tempdir(),
    };
    let folder = folder.context("can't make a folder for the nodes")?;
    let mut members = Vec::new();
    for number in 0..args.nodes {
        let path = folder.path().join(format!("node-{number}"));
        members.push(Member::start(args, number, &path, database.url()).await?);
        ensure!(!stop.load(Ordering::Relaxed), "interrupted");
    }
    let readers = (0..args.readers).filter(|_| args.nodes > 1).map(|number| {
        let (of, at) = (&members[(number + 1) % args.nodes], &members[number]);
        Reader::start(of.marker(), at.node(), args.flush_interval())
    });
    let readers: Vec<Reader> = readers.collect();
    pause(args.warm_up(), stop).await;

    let (before, watch) = (database.snapshot().await?, database.watch().await?);
    let (began, own_cpu_before) = (Instant::now(), cpu::own_cpu_ns());
    pause(Duration::from_secs_f64(args.seconds), stop).await;
    let (after, ended) = (database.snapshot().await?, Instant::now());
    let own_cpu_ns = cpu::own_cpu_ns().saturating_sub(own_cpu_before);
    let activity = watch.end().await?;

    let mut ages = Ages::default();
    for reader in readers {
        reader.end(began..ended, &mut ages).await?;
    }
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for member in &mut members {
        member.stop(&mut expected).await?;
    }
    let faults = faults(&members, &expected).await?;
    let sizes = database.sizes().await?;
    for member in members {
        member.close().await;
    }
    let span = Snapshot::between(&before, &after);
    let parts = Parts { seconds: (ended - began).as_secs_f64(), own_cpu_ns, activity, ages, sizes, faults };
    Ok(Figures::new(args, &span, database.version(), &parts))
}

/// Until it is over or somebody ends it.
async fn pause(duration: Duration, stop: &AtomicBool) {
    let until = Instant::now() + duration;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        let rest = until.saturating_duration_since(Instant::now());
        tokio::time::sleep(rest.min(Duration::from_millis(100))).await;
    }
}

/// The faults that are left in the end: every node must show exactly what all have counted, and the books must
/// balance.
async fn faults(members: &[Member], expected: &BTreeMap<String, u64>) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    let Some(first) = members.first() else { return Ok(faults) };
    first.node().folder.fold().await.context("the log can't be folded")?;
    for (number, member) in members.iter().enumerate() {
        let began = Instant::now();
        // The last commits of others may take a moment to show.
        let fault = loop {
            let totals = member.node().query.totals().await.context("the totals can't be read")?;
            let fault = difference(&totals, expected);
            if fault.is_none() || began.elapsed() > SHOWN_MAX {
                break fault;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        faults.extend(fault.map(|fault| format!("node {number} {fault}")));
    }
    let books = first.node().store.audit().await.context("the books can't be read")?;
    if !books.balance() {
        faults.push(format!("the books do not balance: {books:?}"));
    }
    Ok(faults)
}

fn difference(totals: &[EventTotal], expected: &BTreeMap<String, u64>) -> Option<String> {
    let shown: BTreeMap<&str, u64> = totals.iter().map(|total| (total.event.as_str(), total.count)).collect();
    let off = expected.iter().find(|(event, count)| shown.get(event.as_str()) != Some(count));
    if let Some((event, count)) = off {
        let shown = shown.get(event.as_str()).copied().unwrap_or_default();
        return Some(format!("shows {event:?} as {shown}, {count} were acknowledged"));
    }
    (shown.len() != expected.len()).then(|| format!("shows {} events, {} were counted", shown.len(), expected.len()))
}
