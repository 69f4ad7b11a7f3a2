//! What this node has read of the store, kept current, so that what dashboards poll costs the store
//! next to nothing.
//!
//! Rows are kept with the ledger position of the snapshot they came from. To use them again:
//! - Batches that this process has committed since are folded in, from memory.
//! - Rows from before an administrator's change are of no use any more.
//! - That nobody else has changed the store, another node or a command beside this one, is asked with
//!   one small query at most every [`VERIFY_INTERVAL`].
//!
//! Anything else is read anew. Concurrent reads of the same rows wait for one another.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tokio::sync::Mutex;

use crate::batch::{Batches, RecentCommits};
use crate::catalog::{CatalogView, LiveCatalog};
use crate::domain::{Digest, EventTotal, HourRange, HourlyCount, Sum, SumBy, SumOf};
use crate::shared::Shared;
use crate::store::{HourlyQuery, LedgerPosition, Snapshot, Store, StoreError};

/// How old the knowledge may be that nobody else has committed. Adds to the interval at which
/// that node flushes.
const VERIFY_INTERVAL: Duration = Duration::from_millis(100);
/// Rows kept in all ranges together, and sums likewise; about 64 MB each.
const ROWS_MAX: u64 = 1_000_000;
/// Ranges that nobody asks for are forgotten.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Rows and the position they stand for.
pub type Rows<T> = Snapshot<Arc<Vec<T>>>;

/// Something the store has a sorted list of, one item a key.
pub trait Row: Clone {
    fn compare(&self, other: &Self) -> Ordering;
    /// Adds the other item of the same key.
    fn absorb(&mut self, other: &Self);
}

impl Row for HourlyCount {
    fn compare(&self, other: &Self) -> Ordering {
        (&self.event, self.hour).cmp(&(&other.event, other.hour))
    }

    fn absorb(&mut self, other: &Self) {
        self.count += other.count;
    }
}

impl Row for EventTotal {
    fn compare(&self, other: &Self) -> Ordering {
        self.event.cmp(&other.event)
    }

    fn absorb(&mut self, other: &Self) {
        self.count += other.count;
        self.first_hour = self.first_hour.min(other.first_hour);
        self.last_hour = self.last_hour.max(other.last_hour);
    }
}

impl Row for Sum {
    fn compare(&self, other: &Self) -> Ordering {
        self.of.cmp(&other.of)
    }

    fn absorb(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
    }
}

/// One kept list, locked by who reads or renews it.
type Slot<T> = Arc<Mutex<Option<Kept<T>>>>;

struct Kept<T> {
    rows: Rows<T>,
    /// How many batches of this process had been discarded when the rows were asked for: all of
    /// those are in them.
    discarded: u64,
}

/// What the store's foreign version was last seen to be, and when.
#[derive(Clone, Copy)]
struct Foreign {
    version: u64,
    catalog: u64,
    at: Instant,
}

pub struct Committed {
    batches: &'static Batches,
    store: Arc<dyn Store>,
    catalog: Arc<LiveCatalog>,
    totals: Slot<EventTotal>,
    ranges: Cache<HourlyQuery, Slot<HourlyCount>>,
    sums: Cache<(HourRange, SumBy), Slot<Sum>>,
    foreign: Shared<Result<Foreign, StoreError>>,
}

impl Committed {
    #[must_use]
    pub fn new(batches: &'static Batches, store: Arc<dyn Store>, catalog: Arc<LiveCatalog>) -> Self {
        let (totals, ranges, sums) = (Slot::default(), by_rows(), by_rows());
        Self { batches, store, catalog, totals, ranges, sums, foreign: Shared::default() }
    }

    /// The store's totals. `commits` must have been taken before.
    ///
    /// # Errors
    /// The store's.
    pub async fn totals(&self, commits: &RecentCommits) -> Result<Rows<EventTotal>, StoreError> {
        let read = || self.store.totals(self.batches.writers().to_vec());
        Ok(self.current(&self.totals, commits, |_, rows| totals_of(rows), read).await?.0)
    }

    /// The store's rows of a query. `commits` must have been taken before.
    ///
    /// # Errors
    /// The store's.
    pub async fn hourly(&self, query: HourlyQuery, commits: &RecentCommits) -> Result<Rows<HourlyCount>, StoreError> {
        let slot = self.ranges.get_with_by_ref(&query, Slot::default);
        let select = |_: &CatalogView, rows: &[HourlyCount]| select(&query, rows);
        let read = || self.store.hourly(query.clone(), self.batches.writers().to_vec());
        let (rows, renewed) = self.current(&slot, commits, select, read).await?;
        if renewed {
            self.ranges.insert(query, slot);
        }
        Ok(rows)
    }

    /// The store's sums within a range. `commits` must have been taken before.
    ///
    /// # Errors
    /// The store's.
    pub async fn sums(&self, range: HourRange, by: SumBy, commits: &RecentCommits) -> Result<Rows<Sum>, StoreError> {
        let slot = self.sums.get_with((range, by), Slot::default);
        let select = |view: &CatalogView, rows: &[HourlyCount]| {
            sums_of(rows.iter().filter(|row| range.contains(row.hour) && !view.hides(&row.event)), by)
        };
        let read = || self.store.sums(range, by, self.batches.writers().to_vec());
        let (sums, renewed) = self.current(&slot, commits, select, read).await?;
        if renewed {
            self.sums.insert((range, by), slot);
        }
        Ok(sums)
    }

    /// Gives back the memory of ranges that nobody has asked for lately.
    pub fn forget_idle(&self) {
        self.ranges.run_pending_tasks();
        self.sums.run_pending_tasks();
    }

    /// The store's foreign version, at most [`VERIFY_INTERVAL`] old.
    ///
    /// # Errors
    /// The store's.
    pub async fn foreign_version(&self) -> Result<u64, StoreError> {
        let holds = |last: &Result<Foreign, _>| {
            let is_new = |seen: &Foreign| seen.catalog >= self.catalog.newest() && seen.at.elapsed() < VERIFY_INTERVAL;
            last.as_ref().is_ok_and(is_new)
        };
        let look = async {
            let position = self.store.position(self.batches.writers().to_vec()).await?;
            Ok(Foreign::at(&position))
        };
        Ok(self.foreign.get(holds, look).await?.version)
    }

    async fn current<T: Row, R>(
        &self,
        slot: &Slot<T>,
        commits: &RecentCommits,
        items_of: impl Fn(&CatalogView, &[HourlyCount]) -> Vec<T>,
        read: impl FnOnce() -> R,
    ) -> Result<(Rows<T>, bool), StoreError>
    where
        R: Future<Output = Result<Snapshot<Vec<T>>, StoreError>>,
    {
        let mut slot = slot.lock().await;
        let view = self.catalog.view();
        if let Some(kept) = slot.as_mut()
            && kept.rows.position.catalog == view.catalog().version
            && kept.rows.position.catalog >= self.catalog.newest()
            && kept.discarded >= commits.before
            && kept.rows.position.foreign_version() == self.foreign_version().await?
        {
            for (batch, rows) in &commits.batches {
                if !kept.rows.position.includes(*batch) {
                    kept.rows.value = yielding(kept.rows.value.len() + rows.len(), || {
                        let items = items_of(&view, &view.aliases().apply(rows));
                        Arc::new(merge(&kept.rows.value, items))
                    });
                    kept.rows.position.advance(*batch, Digest::of(rows), total_of(rows));
                }
            }
            kept.discarded = kept.discarded.max(commits.discarded());
            return Ok((kept.rows.clone(), false));
        }
        let Snapshot { value, position } = read().await?;
        self.foreign.put(Ok(Foreign::at(&position))).await;
        let rows = Snapshot { value: Arc::new(value), position };
        *slot = Some(Kept { rows: rows.clone(), discarded: commits.discarded() });
        Ok((rows, true))
    }
}

impl Foreign {
    fn at(position: &LedgerPosition) -> Self {
        Self { version: position.foreign_version(), catalog: position.catalog, at: Instant::now() }
    }
}

fn total_of(rows: &[HourlyCount]) -> i128 {
    rows.iter().map(|row| i128::from(row.count)).sum()
}

/// A cache that is bounded by the rows in it.
fn by_rows<K, T>() -> Cache<K, Slot<T>>
where
    K: Hash + Eq + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    let weigh = |_: &K, slot: &Slot<T>| {
        let rows = slot.try_lock().ok().and_then(|kept| kept.as_ref().map(|kept| kept.rows.value.len()));
        // A slot is weighed when it is put in, which is done again once it is filled.
        u32::try_from(rows.unwrap_or(0) + 1).unwrap_or(u32::MAX)
    };
    Cache::builder().max_capacity(ROWS_MAX).weigher(weigh).time_to_idle(IDLE_MAX).build()
}

/// The rows of one batch that a query asks for.
fn select(query: &HourlyQuery, rows: &[HourlyCount]) -> Vec<HourlyCount> {
    let wanted =
        |row: &&HourlyCount| query.range.contains(row.hour) && query.event.as_ref().is_none_or(|e| *e == row.event);
    rows.iter().filter(wanted).cloned().collect()
}

/// The sums per event of sorted rows.
#[must_use]
pub fn totals_of(rows: &[HourlyCount]) -> Vec<EventTotal> {
    let of_event = |rows: &[HourlyCount]| EventTotal {
        event: rows[0].event.clone(),
        count: rows.iter().map(|row| row.count).sum(),
        first_hour: rows[0].hour,
        last_hour: rows[rows.len() - 1].hour,
    };
    rows.chunk_by(|a, b| a.event == b.event).map(of_event).collect()
}

/// The sums per hour or per event of sorted rows.
#[must_use]
pub fn sums_of<'a>(rows: impl Iterator<Item = &'a HourlyCount>, by: SumBy) -> Vec<Sum> {
    let mut sums: BTreeMap<SumOf, u64> = BTreeMap::new();
    for row in rows {
        let of = match by {
            SumBy::Hour => SumOf::Hour(row.hour),
            SumBy::Event => SumOf::Event(row.event.clone()),
        };
        let sum = sums.entry(of).or_default();
        *sum = sum.saturating_add(row.count);
    }
    sums.into_iter().map(|(of, count)| Sum { of, count }).collect()
}

/// From so many rows on, work on them takes milliseconds.
const MANY_ROWS: usize = 20_000;

/// Works on `rows` rows. While that takes long, other threads take over what this one serves besides.
pub fn yielding<T>(rows: usize, work: impl FnOnce() -> T) -> T {
    if rows < MANY_ROWS { work() } else { tokio::task::block_in_place(work) }
}

/// Merges two sorted lists; items of the same key become one.
#[must_use]
pub fn merge<T: Row>(committed: &[T], more: Vec<T>) -> Vec<T> {
    let mut merged = Vec::with_capacity(committed.len() + more.len());
    let mut more = more.into_iter().peekable();
    for row in committed {
        while let Some(earlier) = more.next_if(|next| next.compare(row).is_lt()) {
            merged.push(earlier);
        }
        let mut row = row.clone();
        if let Some(same) = more.next_if(|next| next.compare(&row).is_eq()) {
            row.absorb(&same);
        }
        merged.push(row);
    }
    merged.extend(more);
    merged
}
