//! What a fleet cost, for machines and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::FleetArgs;
use super::activity::{Activity, LockWait, Purpose};
use super::database::{Sizes, Span, Table};
use super::member::Ages;
use crate::table;

/// What was measured beside the database's own numbers.
pub(super) struct Parts {
    pub(super) seconds: f64,
    pub(super) own_cpu_ns: u64,
    pub(super) activity: Activity,
    pub(super) ages: Ages,
    pub(super) sizes: Sizes,
    pub(super) faults: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Figures {
    postgresql: String,
    nodes: usize,
    counters: usize,
    shared: bool,
    flush_interval_ms: u64,
    fold_interval_ms: u64,
    readers: usize,
    seconds: f64,
    commits_due_per_s: f64,
    commits_per_s: f64,
    /// As the log has them; one more than `counters` is the marker.
    counters_per_commit: f64,
    counters_per_s: f64,
    /// Of all its processes; `None`: it is on another machine.
    postgresql_cores: Option<f64>,
    /// A counter in a flush, all processes, and by what they are for.
    postgresql_us_per_counter: Option<f64>,
    postgresql_us_per_counter_of: BTreeMap<&'static str, f64>,
    /// Of the nodes, with what counts and reads in them.
    nodes_us_per_counter: f64,
    wal_bytes_per_counter: f64,
    deadlocks: i64,
    looks: u64,
    lock_waits: Vec<SeenWait>,
    /// How old what another node acknowledged is when it shows.
    staleness: Option<Spread>,
    /// Reads of all totals at a node.
    totals: Option<Spread>,
    tables: BTreeMap<String, Before<Table>>,
    sizes: Sizes,
    pub(super) exact: bool,
    faults: Vec<String>,
}

#[derive(Serialize)]
struct SeenWait {
    #[serde(flatten)]
    wait: LockWait,
    looks: u64,
}

#[derive(Serialize)]
struct Before<T> {
    before: T,
    after: T,
}

/// In milliseconds.
#[derive(Serialize)]
struct Spread {
    samples: u64,
    p50_ms: f64,
    p99_ms: f64,
    p99_9_ms: f64,
    max_ms: f64,
}

impl Spread {
    fn of(us: &Histogram<u64>) -> Option<Self> {
        let ms = |quantile| us.value_at_quantile(quantile) as f64 / 1e3;
        (!us.is_empty()).then(|| Self {
            samples: us.len(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p99_9_ms: ms(0.999),
            max_ms: us.max() as f64 / 1e3,
        })
    }

    fn words(&self) -> String {
        let [p50, p99, p99_9, max] =
            [self.p50_ms, self.p99_ms, self.p99_9_ms, self.max_ms].map(|ms| table::duration(ms * 1e3));
        format!("p50 {p50}, p99 {p99}, p99.9 {p99_9}, max {max} ({} samples)", table::integer(self.samples))
    }
}

impl Figures {
    pub(super) fn new(args: &FleetArgs, span: &Span, version: &str, parts: &Parts) -> Self {
        let Parts { seconds, activity, ages, sizes, .. } = parts;
        let commits = span.commits as f64;
        let counters = (commits * sizes.counters_per_commit).max(1.0);
        let us = |ns: u64| ns as f64 / 1e3 / counters;
        let whole = activity.cpu_ns.as_ref().map(|cpu_ns| cpu_ns.values().sum::<u64>());
        let each = activity.cpu_ns.iter().flatten().map(|(purpose, ns)| (purpose.name(), us(*ns)));
        let waits = activity.lock_waits.iter().map(|(wait, looks)| SeenWait { wait: wait.clone(), looks: *looks });
        let tables = span.tables.iter().map(|(name, [before, after])| {
            let (before, after) = (*before, *after);
            (name.clone(), Before { before, after })
        });
        Self {
            postgresql: version.to_owned(),
            nodes: args.nodes,
            counters: args.counters,
            shared: args.shared,
            flush_interval_ms: args.flush_interval_ms,
            fold_interval_ms: args.fold_interval_ms,
            readers: args.readers,
            seconds: *seconds,
            commits_due_per_s: args.nodes as f64 * 1e3 / args.flush_interval_ms as f64,
            commits_per_s: commits / seconds,
            counters_per_commit: sizes.counters_per_commit,
            counters_per_s: counters / seconds,
            postgresql_cores: whole.map(|ns| ns as f64 / 1e9 / seconds),
            postgresql_us_per_counter: whole.map(us),
            postgresql_us_per_counter_of: each.collect(),
            nodes_us_per_counter: us(parts.own_cpu_ns),
            wal_bytes_per_counter: span.wal_bytes as f64 / counters,
            deadlocks: span.deadlocks,
            looks: activity.looks,
            lock_waits: waits.collect(),
            staleness: Spread::of(&ages.shown_us),
            totals: Spread::of(&ages.totals_us),
            tables: tables.collect(),
            sizes: *sizes,
            exact: parts.faults.is_empty(),
            faults: parts.faults.clone(),
        }
    }

    pub(super) fn summary(&self) -> String {
        let mut text = String::new();
        // Writing into a text can't fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let names = if self.shared { "shared" } else { "own" };
        let Self { postgresql, nodes, counters, flush_interval_ms, fold_interval_ms, seconds, readers, .. } = self;
        writeln!(
            text,
            "{nodes} nodes × {} {names} counters, flushed every {flush_interval_ms} ms, folded every {fold_interval_ms} ms, \
             {readers} readers, {seconds:.1} s, PostgreSQL {postgresql}\n",
            table::integer(*counters as u64)
        )?;
        let (done, due) = (self.commits_per_s, self.commits_due_per_s);
        let (each, per_s) = (table::number(self.counters_per_commit), table::number(self.counters_per_s));
        writeln!(text, "commits             {done:.1}/s of {due:.1} due, {each} counters each: {per_s} counters/s")?;
        match (self.postgresql_us_per_counter, self.postgresql_cores) {
            (Some(us), Some(cores)) => {
                let of = Purpose::ALL.iter().filter_map(|purpose| {
                    let us = self.postgresql_us_per_counter_of.get(purpose.name())?;
                    Some(format!("{} {us:.2}", purpose.name()))
                });
                let of = of.collect::<Vec<_>>().join(", ");
                writeln!(text, "PostgreSQL's CPU    {us:.2} µs a counter ({of}); {cores:.2} cores")?;
            }
            _ => writeln!(text, "PostgreSQL's CPU    not known: it is not on this machine")?,
        }
        writeln!(
            text,
            "nodes' CPU          {:.2} µs a counter, counting and reading included",
            self.nodes_us_per_counter
        )?;
        writeln!(text, "write-ahead log     {:.1} bytes a counter", self.wal_bytes_per_counter)?;
        writeln!(text, "deadlocks           {}", self.deadlocks)?;
        let waits = self.lock_waits.iter().map(|SeenWait { wait: LockWait { who, holder, lock }, looks }| {
            format!("{} for {} ({lock}) in {looks}", who.name(), holder.name())
        });
        let waits = waits.collect::<Vec<_>>().join(", ");
        let waits = if waits.is_empty() { "none".to_owned() } else { waits };
        writeln!(text, "waits for locks     {waits}; of {} looks", table::integer(self.looks))?;
        let spread = |spread: &Option<Spread>| spread.as_ref().map_or_else(|| "not read".to_owned(), Spread::words);
        writeln!(text, "others' counts      {}", spread(&self.staleness))?;
        writeln!(text, "reads of all totals {}\n", spread(&self.totals))?;
        text.push_str(&self.tables_table());
        let Sizes { rows, bytes, events, event_bytes, log_entries, log_bytes, .. } = self.sizes;
        let per = |bytes: i64, rows: i64| bytes as f64 / (rows.max(1)) as f64;
        writeln!(
            text,
            "\nin the end          {rows} hourly rows of {:.0} bytes, {events} totals of {:.0}, the log {:.1} a counter",
            per(bytes, rows),
            per(event_bytes, events),
            per(log_bytes, log_entries)
        )?;
        for fault in &self.faults {
            writeln!(text, "WRONG: {fault}")?;
        }
        if self.exact {
            writeln!(text, "exact: every node shows what all acknowledged, and the books balance")?;
        }
        Ok(())
    }

    fn tables_table(&self) -> String {
        let head = ["table", "rows", "dead before", "dead after", "updates", "in their page", "vacuums", "size"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (name, Before { before, after }) in &self.tables {
            let count = |count: i64| table::integer(u64::try_from(count).unwrap_or_default());
            let updated = after.updated - before.updated;
            let hot = (after.updated_hot - before.updated_hot) as f64 / updated.max(1) as f64;
            rows.push(vec![
                name.clone(),
                count(after.live),
                count(before.dead),
                count(after.dead),
                count(updated),
                if updated > 0 { table::percent(hot) } else { "-".to_owned() },
                count(after.vacuums - before.vacuums),
                table::bytes(u64::try_from(after.bytes).unwrap_or_default()),
            ]);
        }
        table::plain(&rows)
    }
}
