//! What is in a database in memory, and what the statements of a real one do to it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::change::Recorder;
use crate::domain::{
    BatchId, BatchSeq, Delta, EventName, EventTotal, Hour, HourRange, HourlyCount, Sum, SumBy, WriterId,
};
use crate::rows::{merge, sum_up, sums_of, totals_of};
use crate::store::admin::plan::History;
use crate::store::admin::{Catalog, CatalogEntry, Landing};
use crate::store::columns::batch_total;
use crate::store::{Books, Commit, CommitRequest, Folded, LedgerEntry, LedgerPosition};

#[derive(Clone)]
pub(super) struct Contents {
    identity: [u8; 16],
    ledger: BTreeMap<WriterId, LedgerEntry>,
    /// With the time of the commit.
    log: BTreeMap<BatchId, (Delta, DateTime<Utc>)>,
    folded: BTreeMap<WriterId, BatchSeq>,
    folded_at: Option<DateTime<Utc>>,
    hourly: BTreeMap<EventName, History>,
    /// Sums that the fold keeps.
    pub(super) totals: BTreeMap<EventName, EventTotal>,
    pub(super) hours: BTreeMap<Hour, i128>,
    pub(super) removed: i128,
    pub(super) entries: BTreeMap<EventName, CatalogEntry>,
    pub(super) recorder: Recorder,
}

impl Contents {
    pub(super) fn new(identity: [u8; 16]) -> Self {
        Self {
            identity,
            ledger: BTreeMap::new(),
            log: BTreeMap::new(),
            folded: BTreeMap::new(),
            folded_at: None,
            hourly: BTreeMap::new(),
            totals: BTreeMap::new(),
            hours: BTreeMap::new(),
            removed: 0,
            entries: BTreeMap::new(),
            recorder: Recorder::default(),
        }
    }

    pub(super) fn identity(&self) -> String {
        hex::encode(self.identity)
    }

    pub(super) fn commit(&mut self, request: &CommitRequest, now: DateTime<Utc>) -> Commit {
        let CommitRequest { id, after, digest, catalog, rows } = request;
        let entry = self.ledger.get(&id.writer).copied();
        if entry.map_or(BatchSeq(0), |entry| entry.last_seq) != *after {
            return Commit::Stands(entry);
        }
        let total = batch_total(rows);
        let through = entry.map_or(0, |entry| entry.total) + total;
        self.ledger.insert(id.writer, LedgerEntry { last_seq: id.seq, total: through, digest: Some(*digest) });
        let delta = Delta { id: *id, partition: 0, after: *after, catalog: *catalog, total, rows: rows.clone() };
        self.log.insert(*id, (delta, now));
        Commit::Applied
    }

    fn is_folded(&self, id: BatchId) -> bool {
        self.folded.get(&id.writer).is_some_and(|through| id.seq <= *through)
    }

    fn unfolded(&self) -> impl Iterator<Item = &Delta> {
        self.log.values().map(|(delta, _)| delta).filter(|delta| !self.is_folded(delta.id))
    }

    fn landing(&self, known: u64) -> Landing {
        let purged = self.recorder.purges.iter().filter(|(_, (version, _))| *version > known);
        Landing { purged: purged.map(|(event, _)| event.clone()).collect() }
    }

    pub(super) fn has_folded_since(&self, time: DateTime<Utc>) -> bool {
        self.folded_at.is_some_and(|at| at > time)
    }

    /// Adds all that is not folded to the counts.
    pub(super) fn fold(&mut self, now: DateTime<Utc>) -> Folded {
        self.folded_at = Some(now);
        let due: Vec<Delta> = self.unfolded().cloned().collect();
        let mut folded = Folded::default();
        for delta in due {
            let (rows, overtaken) = {
                let (rows, overtaken) = self.landing(delta.catalog).of(&delta.rows);
                (rows.into_owned(), overtaken)
            };
            self.removed += overtaken.iter().map(|gone| gone.count).sum::<i128>();
            for row in &rows {
                *self.hourly.entry(row.event.clone()).or_default().entry(row.hour).or_default() += row.count;
                *self.hours.entry(row.hour).or_default() += i128::from(row.count);
            }
            for more in totals_of(&rows) {
                let total = self.totals.entry(more.event.clone());
                total
                    .and_modify(|total| {
                        total.count += more.count;
                        total.first_hour = total.first_hour.min(more.first_hour);
                        total.last_hour = total.last_hour.max(more.last_hour);
                    })
                    .or_insert(more);
            }
            self.folded.insert(delta.id.writer, delta.id.seq);
            folded = folded.plus(Folded { batches: 1, counters: delta.rows.len() as u64 });
        }
        folded
    }

    /// Deletes entries of the log that are folded and older.
    pub(super) fn trim(&mut self, before: DateTime<Utc>) {
        let folded = std::mem::take(&mut self.folded);
        let is_folded = |id: &BatchId| folded.get(&id.writer).is_some_and(|through| id.seq <= *through);
        self.log.retain(|id, (_, at)| *at >= before || !is_folded(id));
        self.folded = folded;
    }

    /// Everything, or these names, folded or not.
    pub(super) fn hourly(&self, range: HourRange, names: &[EventName]) -> Vec<HourlyCount> {
        let wanted = |event: &EventName| names.is_empty() || names.contains(event);
        let stored = self.hourly.iter().filter(|(event, _)| wanted(event)).flat_map(|(event, history)| {
            let hours = history.range(range.first..=range.last);
            hours.map(|(hour, count)| HourlyCount { event: event.clone(), hour: *hour, count: *count })
        });
        let mut waiting = self.waiting();
        waiting.retain(|row| wanted(&row.event) && range.contains(row.hour));
        merge(&stored.collect::<Vec<_>>(), waiting)
    }

    /// What is not folded, as it counts.
    fn waiting(&self) -> Vec<HourlyCount> {
        let mut rows = Vec::new();
        for delta in self.unfolded() {
            rows.extend(self.landing(delta.catalog).of(&delta.rows).0.iter().cloned());
        }
        sum_up(&mut rows);
        rows
    }

    pub(super) fn totals(&self) -> Vec<EventTotal> {
        merge(&self.totals.values().cloned().collect::<Vec<_>>(), totals_of(&self.waiting()))
    }

    pub(super) fn sums(&self, range: HourRange, by: SumBy) -> Vec<Sum> {
        let is_deleted = |event: &EventName| self.entries.get(event).is_some_and(|entry| entry.deleted_at.is_some());
        let hides = |event: &EventName| {
            let target = self.entries.get(event).and_then(|entry| entry.alias_of.as_ref());
            is_deleted(target.unwrap_or(event))
        };
        let mut rows = self.hourly(range, &[]);
        rows.retain(|row| !hides(&row.event));
        sums_of(rows.iter(), by)
    }

    /// Tells of all writers.
    pub(super) fn position(&self) -> LedgerPosition {
        let catalog = self.recorder.version;
        LedgerPosition {
            version: catalog + self.ledger.values().map(|entry| entry.last_seq.0).sum::<u64>(),
            catalog,
            total: self.ledger.values().map(|entry| entry.total).sum(),
            applied: self.ledger.clone(),
            ..LedgerPosition::default()
        }
    }

    /// The entries of the log behind a position.
    pub(super) fn behind(&self, known: &LedgerPosition) -> Vec<Delta> {
        let deltas = self.log.values().map(|(delta, _)| delta);
        deltas.filter(|delta| delta.id.seq > known.last_seq(delta.id.writer)).cloned().collect()
    }

    pub(super) fn delta(&self, id: BatchId) -> Option<Delta> {
        self.log.get(&id).map(|(delta, _)| delta.clone())
    }

    pub(super) fn books(&self) -> Books {
        let waiting = batch_total(&self.waiting());
        let overtaken = self.unfolded().map(|delta| delta.total).sum::<i128>() - waiting;
        let counts = self.hourly.values().flat_map(BTreeMap::values);
        Books {
            rows: counts.map(|count| i128::from(*count)).sum::<i128>() + waiting,
            totals: self.totals.values().map(|total| i128::from(total.count)).sum::<i128>() + waiting,
            hours: self.hours.values().sum::<i128>() + waiting,
            removed: self.removed + overtaken,
            ledger: self.ledger.values().map(|entry| entry.total).sum(),
        }
    }

    pub(super) fn catalog(&self) -> Catalog {
        let purges = self.recorder.purges.iter().map(|(event, (version, _))| (event.clone(), *version));
        Catalog { version: self.recorder.version, entries: self.entries.clone(), purges: purges.collect() }
    }

    /// What is folded of a name.
    pub(super) fn history(&self, event: &EventName) -> History {
        self.hourly.get(event).cloned().unwrap_or_default()
    }

    /// 0: no row.
    pub(super) fn set_count(&mut self, row: &HourlyCount) {
        let history = self.hourly.entry(row.event.clone()).or_default();
        let before = history.remove(&row.hour).unwrap_or(0);
        if row.count > 0 {
            history.insert(row.hour, row.count);
        }
        if history.is_empty() {
            self.hourly.remove(&row.event);
        }
        *self.hours.entry(row.hour).or_default() += i128::from(row.count) - i128::from(before);
    }
}
