//! What a run found, for machines (JSON) and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::ledger::Books;
use crate::plan::Phase;
use crate::table;
use crate::tally::Tally;
use crate::verify::{Shown, Verification};

#[derive(Debug, Serialize)]
pub struct Report {
    pub name: String,
    pub target: String,
    pub began: DateTime<Utc>,
    pub interrupted: bool,
    pub phases: Vec<PhaseReport>,
    /// `None` if the run did not verify.
    pub verification: Option<Verification>,
    /// What the run sent of each event, if that was asked for: there may be millions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Books>,
    /// Things that a reader must know, e.g. lines of a log that were not sent.
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct PhaseReport {
    pub name: String,
    /// `true`: requests started by a schedule; `false`: by answers.
    pub open_loop: bool,
    pub connections: usize,
    /// From the first intended start to the last answer or, if later, the intended end.
    pub elapsed_s: f64,
    pub intended: Option<u64>,
    pub intended_per_s: Option<f64>,
    /// Good answers per second.
    pub achieved_per_s: f64,
    /// Acknowledged increments per second, rows of batches counted one by one.
    pub increments_per_s: f64,
    pub sent: u64,
    pub ok: u64,
    pub not_modified: u64,
    pub error_sum: u64,
    pub errors: BTreeMap<String, u64>,
    /// Requests that may or may not have been counted.
    pub unknown: u64,
    pub connects: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// From the intended start to the whole answer, of good answers; and of the requests that were
    /// given up (time-outs, not sent in time), as long as they took.
    pub latency: Latency,
    pub operations: Vec<OperationReport>,
    pub server_cpu_us_per_request: Option<f64>,
    pub generator_cpu_us_per_request: Option<f64>,
    /// Share of the sending threads' time that they worked, 0 to 1; see [`GENERATOR_BUSY_MAX`].
    pub generator_busy: f64,
    /// What the picture is drawn from.
    #[serde(skip)]
    pub tally: Tally,
}

#[derive(Debug, Serialize)]
pub struct OperationReport {
    pub name: String,
    pub ok: u64,
    pub not_modified: u64,
    pub errors: u64,
    pub latency: Latency,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub p99_99_us: f64,
    pub max_us: f64,
}

impl Latency {
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p99_9_us: us(0.999),
            p99_99_us: us(0.9999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }

    fn cells(&self) -> [String; 6] {
        let cells = [self.p50_us, self.p90_us, self.p99_us, self.p99_9_us, self.p99_99_us, self.max_us];
        // Without an answer there is no latency.
        cells.map(|us| if us > 0.0 { table::duration(us) } else { "-".to_owned() })
    }
}

/// A generator that works more than this share of the time could not drive twice the rate, and may be
/// what limits it.
pub const GENERATOR_BUSY_MAX: f64 = 0.5;

const LATENCY_HEAD: [&str; 6] = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];

impl PhaseReport {
    /// `server_cpu_ns` and `generator_cpu_ns` are what the phase cost, where that is known; `threads` sent.
    #[must_use]
    pub fn new(
        phase: &Phase,
        tally: Tally,
        interrupted_after_ns: Option<u64>,
        server_cpu_ns: Option<u64>,
        (generator_cpu_ns, threads): (u64, usize),
    ) -> Self {
        // A closed list (a replay as fast as it goes) ends with its last answer, all else not before its time.
        let ends_early = phase.schedule.is_none() && phase.intended().is_some();
        let planned_ns = if ends_early { 0 } else { interrupted_after_ns.unwrap_or(phase.duration_ns) };
        let elapsed_s = planned_ns.max(tally.last_answer_ns).max(1) as f64 / 1e9;
        let ok = tally.ok();
        let answered = (ok > 0).then_some(ok as f64);
        let (intended, duration_ns) = match interrupted_after_ns {
            Some(after_ns) if phase.intended().is_some() => (Some(tally.sent + tally.not_sent), after_ns),
            _ => (phase.intended(), phase.duration_ns),
        };
        let duration_s = duration_ns.max(1) as f64 / 1e9;
        Self {
            name: phase.name.clone(),
            open_loop: phase.schedule.is_some(),
            connections: phase.connections,
            elapsed_s,
            intended,
            intended_per_s: intended.filter(|_| phase.schedule.is_some()).map(|intended| intended as f64 / duration_s),
            achieved_per_s: ok as f64 / elapsed_s,
            increments_per_s: tally.rows as f64 / elapsed_s,
            sent: tally.sent,
            ok,
            not_modified: tally.operations.iter().map(|operation| operation.not_modified).sum(),
            error_sum: tally.error_sum(),
            errors: tally.errors.clone(),
            unknown: tally.unknown,
            connects: tally.connects,
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
            latency: Latency::of(&tally.latencies()),
            operations: phase
                .labels()
                .into_iter()
                .zip(&tally.operations)
                .map(|(name, operation)| OperationReport {
                    name,
                    ok: operation.ok,
                    not_modified: operation.not_modified,
                    errors: operation.errors,
                    latency: Latency::of(&operation.latencies),
                })
                .collect(),
            server_cpu_us_per_request: server_cpu_ns.zip(answered).map(|(ns, answered)| ns as f64 / 1e3 / answered),
            generator_cpu_us_per_request: answered.map(|answered| generator_cpu_ns as f64 / 1e3 / answered),
            generator_busy: generator_cpu_ns as f64 / 1e9 / elapsed_s / threads as f64,
            tally,
        }
    }
}

impl Report {
    #[must_use]
    pub fn error_sum(&self) -> u64 {
        self.phases.iter().map(|phase| phase.error_sum).sum()
    }

    /// Whether the run counts as good with up to `errors_max` failed requests.
    #[must_use]
    pub fn passed(&self, errors_max: u64) -> bool {
        self.error_sum() <= errors_max && self.verification.as_ref().is_none_or(|verification| verification.exact)
    }

    /// The summary for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let interrupted = if self.interrupted { ", interrupted" } else { "" };
        // Writing into a text can't fail.
        let _ = writeln!(text, "{} against {}{interrupted}\n", self.name, self.target);
        text.push_str(&self.phases_table());
        text.push('\n');
        if self.phases.iter().any(|phase| phase.operations.len() > 1) {
            text.push_str(&self.operations_table());
            text.push('\n');
        }
        let sent = self.phases.iter().map(|phase| phase.bytes_sent).sum();
        let received = self.phases.iter().map(|phase| phase.bytes_received).sum();
        let connects = self.phases.iter().map(|phase| phase.connects).sum();
        let _ = writeln!(
            text,
            "{} sent, {} received, {} connections opened",
            table::bytes(sent),
            table::bytes(received),
            table::integer(connects)
        );
        for phase in &self.phases {
            for (kind, count) in &phase.errors {
                let _ = writeln!(text, "error in {}: {kind}: {}", phase.name, table::integer(*count));
            }
            if phase.tally.given_up > 0 {
                let given_up = table::integer(phase.tally.given_up);
                let _ = writeln!(text, "latencies in {} hold {given_up} requests that were given up", phase.name);
            }
            if phase.unknown > 0 {
                let _ = writeln!(text, "unknown outcome in {}: {}", phase.name, table::integer(phase.unknown));
            }
            if phase.generator_busy > GENERATOR_BUSY_MAX {
                let _ = writeln!(
                    text,
                    "note: in {} the generator may be the limit: it was busy for {} of the time (more --threads need more cores)",
                    phase.name,
                    table::percent(phase.generator_busy)
                );
            }
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text.push_str(&self.verification.as_ref().map_or_else(|| "not verified\n".to_owned(), Verification::summary));
        text
    }

    fn phases_table(&self) -> String {
        let head = ["phase", "loop", "intended/s", "achieved/s", "increments/s"];
        let head = head.into_iter().chain(LATENCY_HEAD).chain(["errors", "server CPU", "own CPU"]);
        let mut rows = vec![head.map(str::to_owned).collect()];
        for phase in &self.phases {
            let cpu = |us: Option<f64>| us.map_or_else(|| "?".to_owned(), table::duration);
            let kind = if phase.open_loop { "open" } else { "closed" };
            let intended = phase.intended_per_s.map_or_else(|| "-".to_owned(), table::number);
            let mut row = vec![phase.name.clone(), kind.to_owned(), intended];
            row.extend([table::number(phase.achieved_per_s), table::number(phase.increments_per_s)]);
            row.extend(phase.latency.cells());
            row.push(table::integer(phase.error_sum));
            row.extend([cpu(phase.server_cpu_us_per_request), cpu(phase.generator_cpu_us_per_request)]);
            rows.push(row);
        }
        table::plain(&rows)
    }

    fn operations_table(&self) -> String {
        let head = ["phase: operation", "ok", "304", "errors"].into_iter().chain(LATENCY_HEAD);
        let mut rows = vec![head.map(str::to_owned).collect()];
        for phase in &self.phases {
            for operation in &phase.operations {
                let counts = [operation.ok, operation.not_modified, operation.errors].map(table::integer);
                let mut row = vec![format!("{}: {}", phase.name, operation.name)];
                row.extend(counts.into_iter().chain(operation.latency.cells()));
                rows.push(row);
            }
        }
        table::plain(&rows)
    }
}

impl Verification {
    /// A few lines for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let verdict = if self.exact { "verified" } else { "NOT VERIFIED" };
        let _ = write!(text, "{verdict}: {} acknowledged", table::integer(self.acknowledged));
        if self.unknown > 0 {
            let _ = write!(text, ", up to {} more of unknown outcome", table::integer(self.unknown));
        }
        let (counted, events) = (table::integer(self.counted), table::integer(self.events as u64));
        let _ = write!(text, ", {counted} counted, {events} events");
        if let Some(settled_s) = self.settled_s {
            let _ = write!(text, ", the same at {} targets after {settled_s:.1} s", self.targets.len());
        }
        text.push('\n');
        for Shown { target, acknowledged, unknown, counted } in &self.targets {
            let [acknowledged, unknown, counted] = [acknowledged, unknown, counted].map(|count| table::integer(*count));
            let _ =
                writeln!(text, "  {target}: acknowledged {acknowledged}, unknown {unknown}; shows {counted} of all");
        }
        for difference in &self.listed {
            let _ = writeln!(text, "  {}", difference.sentence());
        }
        if self.differences > self.listed.len() {
            let _ =
                writeln!(text, "  and {} more events", table::integer((self.differences - self.listed.len()) as u64));
        }
        text
    }
}
