//! Counting logs: each line once, however often the import is cut off, repeated, or the log has grown.
//!
//! The lines go past the journal straight into the store, a batch at a time, since the log itself is what a
//! crash can't take away. What makes it exact is in [`origin`].

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::domain::{BatchId, BatchSeq, EventName, Hour, HourlyCount};
use crate::node::Node;
use crate::store::{Commit, CommitRequest, StoreError};
use content::{Content, LineEnd};
use origin::Origin;

mod access;
mod content;
#[cfg(test)]
mod fuzz;
mod item;
mod line;
mod options;
mod origin;
mod reason;
mod time;

pub use content::{OnRead, Source};
pub use options::{Format, Methods, Options, Statuses, Template};
pub use reason::{Reason, Skipped, Skips};

/// Longer lines are skipped.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// Distinct counters of one batch.
const ROWS_MAX: usize = 20_000;
/// How long a store that is down is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Why an import ended early. Lines up to some place are counted, each once, and the others are not.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("can't read it: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "it was imported with other options before, and nothing was counted now: repeat those, or add --another to \
         count it with these as well"
    )]
    OtherOptions,
    #[error(
        "an import that began with the same line has counted {before} bytes, but here are only {bytes}: nothing was \
         counted now. If it is an earlier or shorter copy of that log, all of it is counted already; if it is another \
         log, add --another"
    )]
    Shorter { bytes: u64, before: u64 },
    #[error(
        "it begins like a log that was imported before, and it must be read twice to tell them apart: put it into a \
         file and import that"
    )]
    NotRepeatable,
    #[error("none of the first {lines} lines can be read in the format that is expected, and nothing was counted")]
    Unreadable { lines: u64 },
    #[error("it has changed while it was read")]
    Changed,
    #[error("{0} imported logs begin with this line; no more can be told apart")]
    TooManyAlike(usize),
    #[error("somebody else imports the same log at the same time")]
    Overtaken,
    #[error("line {line} has a new event name, and the limit on distinct names (limits.events_max) is reached")]
    TooManyEvents { line: u64 },
}

/// What an import did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Lines that an earlier import had done.
    pub before: u64,
    /// Lines of this one.
    pub lines: u64,
    /// Those of them that were counted.
    pub counted_lines: u64,
    /// What they added.
    pub counts: u64,
    pub events: BTreeSet<EventName>,
    pub hours: BTreeSet<Hour>,
    pub skips: Skips,
}

/// How to go about it.
pub struct Import<'a> {
    pub node: &'a Node,
    pub source: &'a Source,
    pub options: &'a Options,
    /// Count it though it looks as if it was imported before: with other options, or longer than it is.
    pub another: bool,
    /// Lines of one commit; at least 1.
    pub lines_max: u64,
    pub on_read: OnRead,
}

/// One counter of a batch.
#[derive(Default)]
struct Tallied {
    count: u64,
    lines: u64,
    first_line: u64,
}

/// What one commit will hold.
#[derive(Default)]
struct Batch {
    rows: HashMap<(EventName, Hour), Tallied>,
    lines: u64,
    skips: Skips,
}

impl Batch {
    /// Whether it is no log at all, or one of another format: better to say so than to take note of it as done.
    fn is_unreadable(&self) -> bool {
        let is_wrong = |reason| matches!(reason, Reason::Unreadable | Reason::Item | Reason::TooLong);
        let mut reasons = self.skips.iter().map(|(reason, _)| reason).filter(|reason| *reason != Reason::Blank);
        self.rows.is_empty() && reasons.next().is_some_and(is_wrong) && reasons.all(is_wrong)
    }
}

impl Import<'_> {
    /// Counts what was not counted before. `summary` has what is committed, also when that fails.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub async fn run(&self, summary: &mut Summary) -> Result<(), ImportError> {
        let open = || self.source.open(&self.on_read);
        let mut content = open()?;
        if content.is_empty() {
            return Ok(());
        }
        let (store, options) = (&*self.node.store, self.options);
        let origin = origin::find(store, self.source, &mut content, options, self.another, open).await?;
        summary.before = content.lines() + u64::from(content.is_within_line());
        self.count(&mut content, &origin, summary).await
    }

    async fn count(&self, content: &mut Content, origin: &Origin, summary: &mut Summary) -> Result<(), ImportError> {
        let mut ends = origin.ends.iter().copied();
        let mut end = ends.next();
        let mut after = origin.start;
        loop {
            patiently(|| self.node.catalog.keep_current()).await?;
            let catalog = self.node.catalog.view().catalog().version;
            content.stop_at(end);
            let batch = self.gather(content, end.is_some())?;
            if let Some(expected) = end {
                if content.offset() != expected {
                    return Err(ImportError::Changed);
                }
                end = ends.next();
            } else if content.offset() == after {
                summary.skips.absorb(batch.skips);
                return Ok(());
            }
            if after == 0 && batch.is_unreadable() {
                return Err(ImportError::Unreadable { lines: batch.lines });
            }
            self.commit(content, origin, after, catalog, batch, summary).await?;
            after = content.offset();
        }
    }

    /// Reads lines up to the limits of a batch, or up to where it must end.
    fn gather(&self, content: &mut Content, must_end: bool) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut line = Vec::new();
        if content.is_within_line() {
            // It was counted when it had no end yet.
            content.next_line(&mut line)?;
        }
        let now = seconds((self.node.clock)());
        while must_end || (batch.lines < self.lines_max && batch.rows.len() < ROWS_MAX) {
            let Some(line_end) = content.next_line(&mut line)? else { break };
            let number = content.lines() + u64::from(content.is_within_line());
            let read = match line_end {
                LineEnd::TooLong => Err((Reason::TooLong, None)),
                LineEnd::Whole | LineEnd::Open => line::read(&line, self.options, now),
            };
            match read {
                Ok((event, hour, count)) => {
                    let new = || Tallied { first_line: number, ..Tallied::default() };
                    let row = batch.rows.entry((event, hour)).or_insert_with(new);
                    row.lines += 1;
                    row.count += count;
                }
                Err((Reason::Unreadable | Reason::Item, _)) if line_end == LineEnd::Open => {
                    // Somebody may be writing it.
                    content.give_back_line();
                    batch.skips.note(Reason::Unfinished, 1, number, None);
                    break;
                }
                Err((reason, detail)) => batch.skips.note(reason, 1, number, detail),
            }
            batch.lines += 1;
        }
        Ok(batch)
    }

    async fn commit(
        &self,
        content: &Content,
        origin: &Origin,
        after: u64,
        catalog: u64,
        mut batch: Batch,
        summary: &mut Summary,
    ) -> Result<(), ImportError> {
        let rows = self.admit(&mut batch, catalog)?;
        let id = BatchId { writer: origin.writer, seq: BatchSeq(content.offset()) };
        let digest = origin::digest(content, self.options);
        let request = CommitRequest { id, after: BatchSeq(after), digest, catalog, rows: rows.into() };
        let committed = patiently(|| self.node.store.commit(request.clone())).await?;
        if let Commit::Stands(found) = committed
            // A commit whose answer was lost.
            && found.is_none_or(|found| (found.last_seq, found.digest) != (id.seq, Some(digest)))
        {
            return Err(ImportError::Overtaken);
        }
        summary.lines += batch.lines;
        summary.skips.absorb(batch.skips);
        for ((event, hour), tallied) in batch.rows {
            summary.counted_lines += tallied.lines;
            summary.counts = summary.counts.saturating_add(tallied.count);
            summary.events.insert(event);
            summary.hours.insert(hour);
        }
        Ok(())
    }

    /// Takes out what administrators and limits refuse, and gives the rest in the order of the store.
    fn admit(&self, batch: &mut Batch, catalog: u64) -> Result<Vec<HourlyCount>, ImportError> {
        let names = self.node.batches.names();
        // In the order of the log, so that the same names are refused each time.
        let mut rows: Vec<_> = std::mem::take(&mut batch.rows).into_iter().collect();
        rows.sort_unstable_by_key(|(_, tallied)| tallied.first_line);
        let mut counts = Vec::with_capacity(rows.len());
        for ((event, hour), tallied) in rows {
            if let Err(refused) = names.admit_into(&event, tallied.count, catalog) {
                let line = tallied.first_line;
                let reason = Reason::of_refused(refused).ok_or(ImportError::TooManyEvents { line })?;
                batch.skips.note(reason, tallied.lines, line, None);
                continue;
            }
            counts.push(HourlyCount { event: event.clone(), hour, count: tallied.count });
            batch.rows.insert((event, hour), tallied);
        }
        counts.sort_unstable();
        Ok(counts)
    }
}

/// Tries again while the store is down, for a while.
async fn patiently<T, F>(work: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let (begun, mut backoff) = (Instant::now(), FIRST_BACKOFF);
    loop {
        match work().await {
            Err(StoreError::Unavailable(_) | StoreError::CatalogChanging) if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            done => return done,
        }
    }
}

fn seconds(now: SystemTime) -> i64 {
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
