//! Attacks on a real node, one after another, while an honest client counts and reads: what it notices, and what the
//! node needs. The node is started here, on loopback, with an empty folder.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::table;
use crate::target::Usage;
use honest::Honest;
use kinds::{ATTACKS, Attack};
use victim::Victim;

mod client;
mod honest;
mod kinds;
mod victim;

/// The honest client may notice an attack by this factor, or not beyond this.
const FACTOR_MAX: f64 = 3.0;
const P99_MAX: Duration = Duration::from_millis(5);
const MEMORY_MAX: u64 = 300 << 20;

#[derive(Debug, Args)]
pub struct AttackArgs {
    /// The service [default: event-tracker beside this program]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// How long each attack lasts; the honest client is measured as long before it
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Only these attacks
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Names of 200 bytes that the node has counted before
    #[arg(long, default_value_t = 50_000)]
    names: usize,
    /// Prints the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What attackers have done, and what became of it.
#[derive(Debug, Default)]
pub struct Tally {
    sent: AtomicU64,
    /// By status; 0: closed without an answer.
    answers: Mutex<BTreeMap<u16, u64>>,
}

impl Tally {
    fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    fn answered(&self, status: u16) {
        *self.answers.lock().entry(status).or_default() += 1;
    }
}

/// What one attack was like.
#[derive(Debug, Serialize)]
struct Figures {
    attack: &'static str,
    sent: u64,
    answers: BTreeMap<u16, u64>,
    /// The 99th percentile of the honest client's counts, in microseconds.
    quiet_us: u64,
    attacked_us: u64,
    /// The same of its small reads.
    quiet_read_us: u64,
    attacked_read_us: u64,
    /// Requests of the honest client that were not answered with success.
    failed: u64,
    /// The most that the node had in memory.
    memory_bytes: u64,
}

impl Figures {
    fn holds(&self) -> bool {
        let holds =
            |quiet: u64, attacked: u64| attacked as f64 <= (quiet as f64 * FACTOR_MAX).max(P99_MAX.as_micros() as f64);
        let is_quick = holds(self.quiet_us, self.attacked_us) && holds(self.quiet_read_us, self.attacked_read_us);
        is_quick && self.failed == 0 && self.memory_bytes <= MEMORY_MAX
    }

    fn row(&self) -> Vec<String> {
        let us = |us: u64| table::duration(us as f64);
        let answers = self.answers.iter().map(|(status, count)| match status {
            0 => format!("closed {count}"),
            status => format!("{status}: {count}"),
        });
        vec![
            self.attack.to_owned(),
            format!("{} → {}", us(self.quiet_us), us(self.attacked_us)),
            format!("{} → {}", us(self.quiet_read_us), us(self.attacked_read_us)),
            self.failed.to_string(),
            table::bytes(self.memory_bytes),
            table::integer(self.sent),
            answers.collect::<Vec<_>>().join(", "),
            if self.holds() { "holds" } else { "FAILS" }.to_owned(),
        ]
    }
}

const HEAD: [&str; 8] = ["attack", "count p99", "read p99", "failed", "memory", "sent", "answers", "bars"];

impl AttackArgs {
    fn attacks(&self) -> anyhow::Result<Vec<&'static Attack>> {
        if !(1.0..=600.0).contains(&self.seconds) || self.names > 1_000_000 {
            let usage = "--seconds is 1 to 600, and --names at most 1000000".to_owned();
            return Err(Usage(usage).into());
        }
        for name in &self.only {
            if !ATTACKS.iter().any(|attack| attack.name == name) {
                let known: Vec<_> = ATTACKS.iter().map(|attack| attack.name).collect();
                return Err(Usage(format!("there is no attack {name:?}; expected {}", known.join(", "))).into());
            }
        }
        let is_wanted = |attack: &&Attack| self.only.is_empty() || self.only.iter().any(|name| name == attack.name);
        Ok(ATTACKS.iter().filter(is_wanted).collect())
    }
}

/// Whether all attacks were within the bars.
///
/// # Errors
/// When the arguments are wrong, or the node can't be started.
pub fn execute(args: &AttackArgs, stop: &Arc<AtomicBool>) -> anyhow::Result<bool> {
    let attacks = args.attacks()?;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut all = Vec::new();
    for attack in attacks {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // A node of its own for each, so that none sees what another has left.
        let victim = Victim::start(args.program.as_deref())?;
        victim.fill(args.names).with_context(|| format!("can't prepare {}", attack.name))?;
        let lasts = Duration::from_secs_f64(args.seconds);
        let quiet = Honest::start(victim.address).measured(lasts, &victim);
        let tally = Arc::new(Tally::default());
        let honest = Honest::start(victim.address);
        let until = Instant::now() + lasts;
        let attacking = runtime.spawn((attack.run)(victim.address, Arc::clone(&tally), until));
        let attacked = honest.measured(lasts, &victim);
        attacking.abort();
        let figures = Figures {
            attack: attack.name,
            sent: tally.sent.load(Ordering::Relaxed),
            answers: tally.answers.lock().clone(),
            quiet_us: quiet.count_us,
            attacked_us: attacked.count_us,
            quiet_read_us: quiet.read_us,
            attacked_read_us: attacked.read_us,
            failed: attacked.failed,
            memory_bytes: attacked.memory_bytes,
        };
        let _ = writeln!(std::io::stderr(), "{}", figures.row().join("  "));
        all.push(figures);
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &all)?;
        writeln!(out)?;
    } else {
        let head = HEAD.map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(all.iter().map(Figures::row)).collect();
        out.write_all(table::plain(&rows).as_bytes())?;
    }
    Ok(all.iter().all(Figures::holds))
}
