//! What this node has read of the store, kept current, so that what dashboards poll costs the store
//! next to nothing.
//!
//! Rows are kept with the ledger position of the snapshot they came from. To use them again they are
//! brought forward, by what was committed since:
//! - What this process has committed it has in memory.
//! - What others have committed, another node or a command beside this one, is asked of the store's log, at
//!   most every [`VERIFY_INTERVAL`], and once for all kept lists.
//!
//! The sums of both positions must agree then. Rows from before an administrator's change, or from before
//! the store went back, are of no use any more. Anything else is read anew. Concurrent reads of the same
//! rows wait for one another.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::batch::{Batches, RecentCommits};
use crate::catalog::{CatalogView, LiveCatalog};
use crate::domain::{EventTotal, HourRange, HourlyCount, Sum, SumBy, WriterId};
use crate::reconcile::{Baseline, Reconciler};
use crate::rows::{Row, add, sum_up, sums_of, totals_of};
use crate::shared::Shared;
use crate::store::{HourlyQuery, Since, Snapshot, Store, StoreError};
use recent::{RecentDeltas, follow};

mod recent;

/// How old the knowledge may be that nobody else has committed. Adds to the interval at which
/// that node flushes.
const VERIFY_INTERVAL: Duration = Duration::from_millis(100);
/// How often a look is repeated because the store went back meanwhile.
const LOOKS_MAX: usize = 3;
/// Rows kept in all ranges together, in bytes, and sums likewise.
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// Of a list beside its rows.
const SLOT_BYTES: usize = 256;
/// Ranges that nobody asks for are forgotten. Pages ask again every 60 s, and some a little later than that: a
/// list that is forgotten by then would be read anew each time.
const IDLE_MAX: Duration = Duration::from_secs(180);

/// Rows and the position they stand for.
pub type Rows<T> = Snapshot<Arc<Vec<T>>>;

/// One kept list, locked by who reads or renews it.
type Slot<T> = Arc<Mutex<Option<Kept<T>>>>;

struct Kept<T> {
    rows: Rows<T>,
    /// As in [`Reconciler::epoch`].
    epoch: u64,
    /// When the store was asked whose answer they are brought forward to.
    at: Instant,
}

/// What the store's foreign version was last seen to be.
#[derive(Clone, Copy)]
struct Foreign {
    epoch: u64,
    /// As [`LedgerPosition::beside`].
    version: (u64, i128),
    catalog: u64,
    /// When the read began that saw it.
    at: Instant,
}

pub struct Committed {
    batches: Arc<Batches>,
    store: Arc<dyn Store>,
    catalog: Arc<LiveCatalog>,
    reconciler: Arc<Reconciler>,
    totals: Slot<EventTotal>,
    ranges: Cache<HourlyQuery, Slot<HourlyCount>>,
    sums: Cache<(HourRange, SumBy), Slot<Sum>>,
    foreign: Shared<Result<Foreign, StoreError>>,
    recent: parking_lot::Mutex<RecentDeltas>,
    /// When somebody last wanted a list.
    read_at: parking_lot::Mutex<Option<Instant>>,
}

impl Committed {
    #[must_use]
    pub fn new(
        batches: Arc<Batches>,
        store: Arc<dyn Store>,
        catalog: Arc<LiveCatalog>,
        reconciler: Arc<Reconciler>,
    ) -> Self {
        let (totals, ranges, sums) = (Slot::default(), by_bytes(), by_bytes());
        let (foreign, recent, read_at) = <(Shared<_>, _, _)>::default();
        Self { batches, store, catalog, reconciler, totals, ranges, sums, foreign, recent, read_at }
    }

    /// Take it before what is pending.
    #[must_use]
    pub fn baseline(&self) -> Baseline {
        self.reconciler.baseline()
    }

    /// The store's totals. `baseline` and then `commits` must have been taken before. `None`: the store
    /// went back since, so what is pending must be taken anew.
    ///
    /// # Errors
    /// The store's.
    pub async fn totals(
        &self,
        baseline: &Baseline,
        commits: &RecentCommits,
    ) -> Result<Option<Rows<EventTotal>>, StoreError> {
        let read = || self.store.totals(self.batches.writers());
        let current = self.current(&self.totals, baseline, commits, |_, rows| totals_of(rows), read).await?;
        Ok(current.map(|(rows, _)| rows))
    }

    /// The store's rows of a query, otherwise as [`Committed::totals`].
    ///
    /// # Errors
    /// The store's.
    pub async fn hourly(
        &self,
        query: HourlyQuery,
        baseline: &Baseline,
        commits: &RecentCommits,
    ) -> Result<Option<Rows<HourlyCount>>, StoreError> {
        let slot = self.ranges.get_with_by_ref(&query, Slot::default);
        let select = |_: &CatalogView, rows: &[HourlyCount]| select(&query, rows);
        let read = || self.store.hourly(query.clone(), self.batches.writers());
        let Some((rows, renewed)) = self.current(&slot, baseline, commits, select, read).await? else {
            return Ok(None);
        };
        if renewed {
            self.ranges.insert(query, slot);
        }
        Ok(Some(rows))
    }

    /// The store's sums within a range, otherwise as [`Committed::totals`].
    ///
    /// # Errors
    /// The store's.
    pub async fn sums(
        &self,
        range: HourRange,
        by: SumBy,
        baseline: &Baseline,
        commits: &RecentCommits,
    ) -> Result<Option<Rows<Sum>>, StoreError> {
        let slot = self.sums.get_with((range, by), Slot::default);
        let select = |view: &CatalogView, rows: &[HourlyCount]| {
            sums_of(rows.iter().filter(|row| range.contains(row.hour) && !view.hides(view.event(&row.event))), by)
        };
        let read = || self.store.sums(range, by, self.batches.writers());
        let Some((sums, renewed)) = self.current(&slot, baseline, commits, select, read).await? else {
            return Ok(None);
        };
        if renewed {
            self.sums.insert((range, by), slot);
        }
        Ok(Some(sums))
    }

    /// Gives back the memory of ranges that nobody has asked for lately.
    pub fn forget_idle(&self) {
        self.ranges.run_pending_tasks();
        self.sums.run_pending_tasks();
    }

    /// The store's foreign version, at most [`VERIFY_INTERVAL`] old, and the epoch in which it was seen.
    ///
    /// # Errors
    /// The store's.
    pub async fn foreign_version(&self) -> Result<(u64, (u64, i128)), StoreError> {
        let foreign = self.foreign().await?;
        Ok((foreign.epoch, foreign.version))
    }

    /// Sees to it that the catalog is that of the store, also at most [`VERIFY_INTERVAL`] old.
    ///
    /// # Errors
    /// The store's.
    pub async fn keep_catalog_current(&self) -> Result<(), StoreError> {
        if self.foreign().await?.catalog != self.catalog.view().catalog().version {
            self.catalog.refresh().await?;
        }
        Ok(())
    }

    /// How long ago it was that somebody looked where the store stands; `None` before the first time, and while
    /// somebody looks.
    #[must_use]
    pub fn look_age(&self) -> Option<Duration> {
        self.foreign.peek(|last| last.as_ref().ok().map(|seen| seen.at.elapsed())).flatten()
    }

    async fn foreign(&self) -> Result<Foreign, StoreError> {
        let holds = |last: &Result<Foreign, _>| {
            let is_new = |seen: &Foreign| {
                seen.epoch == self.reconciler.epoch()
                    && seen.catalog >= self.catalog.newest()
                    && seen.at.elapsed() < VERIFY_INTERVAL
            };
            last.as_ref().is_ok_and(is_new)
        };
        self.foreign.get(holds, self.look()).await
    }

    async fn look(&self) -> Result<Foreign, StoreError> {
        for _ in 0..LOOKS_MAX {
            let (at, baseline) = (Instant::now(), self.reconciler.baseline());
            let since = self.since(baseline.epoch()).await?;
            if self.reconciler.check(&baseline, &since.position).await {
                let version = since.position.beside(&self.batches.writers());
                let foreign = Foreign { epoch: baseline.epoch(), version, catalog: since.position.catalog, at };
                self.recent.lock().go_on(baseline.epoch(), since);
                return Ok(foreign);
            }
        }
        Err(StoreError::Unavailable("the store goes back again and again".into()))
    }

    /// Where the store stands, and what led there since the last look, if somebody reads.
    async fn since(&self, epoch: u64) -> Result<Since, StoreError> {
        let is_read = self.read_at.lock().is_some_and(|at| at.elapsed() < IDLE_MAX);
        let known = {
            let mut recent = self.recent.lock();
            if !is_read {
                recent.forget();
            }
            recent.known(epoch, &self.batches.recent_commits())
        };
        match known {
            Some(known) => self.store.since(known, self.batches.writers()).await,
            None => {
                let position = self.store.position(self.batches.writers()).await?;
                Ok(Since { position, deltas: None })
            }
        }
    }

    async fn current<T: Row, R>(
        &self,
        slot: &Slot<T>,
        baseline: &Baseline,
        commits: &RecentCommits,
        items_of: impl Fn(&CatalogView, &[HourlyCount]) -> Vec<T>,
        read: impl FnOnce() -> R,
    ) -> Result<Option<(Rows<T>, bool)>, StoreError>
    where
        R: Future<Output = Result<Snapshot<Vec<T>>, StoreError>>,
    {
        *self.read_at.lock() = Some(Instant::now());
        let mut slot = slot.lock().await;
        if self.reconciler.epoch() != baseline.epoch() {
            return Ok(None);
        }
        let view = self.catalog.view();
        if let Some(kept) = slot.as_mut()
            && kept.epoch == baseline.epoch()
            && kept.rows.position.catalog == view.catalog().version
            && kept.rows.position.catalog >= self.catalog.newest()
        {
            let foreign = self.foreign().await?;
            let own = self.batches.writers();
            let reached = self.bring_forward(kept, commits, &own, |rows| items_of(&view, rows), &view);
            let has_own = commits.through.iter().all(|(writer, seq)| kept.rows.position.last_seq(*writer) >= *seq);
            let is_current =
                kept.at >= foreign.at || kept.rows.position.beside(&own) == reached.unwrap_or(foreign.version);
            if has_own && is_current && (kept.epoch, view.catalog().version) == (foreign.epoch, foreign.catalog) {
                kept.at = kept.at.max(foreign.at);
                return Ok(Some((kept.rows.clone(), false)));
            }
        }
        *slot = None;
        let at = Instant::now();
        let Snapshot { value, position } = read().await?;
        if !self.reconciler.check(baseline, &position).await {
            return Ok(None);
        }
        self.recent.lock().begin(baseline.epoch(), &position);
        // A reader that has seen these rows gets no older tag any more, nor older rows of another list. What a look
        // saw that began before now may be older, also when it began after this read, which had to connect first.
        let (version, now) = (position.beside(&self.batches.writers()), Instant::now());
        self.foreign.forget_if(|last| last.as_ref().is_ok_and(|last| last.at < now && last.version != version)).await;
        let rows = Snapshot { value: Arc::new(value), position };
        *slot = Some(Kept { rows: rows.clone(), epoch: baseline.epoch(), at });
        Ok(Some((rows, true)))
    }

    /// Adds what was committed since: by others as far as the last look told, and by this process. Gives
    /// where that look saw the others.
    fn bring_forward<T: Row>(
        &self,
        kept: &mut Kept<T>,
        commits: &RecentCommits,
        own: &[WriterId],
        items_of: impl Fn(&[HourlyCount]) -> Vec<T>,
        view: &CatalogView,
    ) -> Option<(u64, i128)> {
        let position = &mut kept.rows.position;
        let (mut lacking, reached) = self.recent.lock().behind(kept.epoch, position, own);
        lacking.extend(follow(&commits.batches, position));
        if lacking.is_empty() {
            return reached;
        }
        let rows = lacking.iter().map(|delta| delta.rows.len()).sum();
        yielding(rows, || {
            let mut landed: Vec<HourlyCount> = Vec::with_capacity(rows);
            for delta in &lacking {
                landed.extend(view.landing(delta.catalog).of(&delta.rows).0.iter().cloned());
            }
            if lacking.len() > 1 {
                sum_up(&mut landed);
            }
            add(&mut kept.rows.value, items_of(&landed));
        });
        reached
    }
}

/// A cache that is bounded by the bytes of the rows in it.
fn by_bytes<K, T>() -> Cache<K, Slot<T>>
where
    K: Hash + Eq + Send + Sync + 'static,
    T: Row + Send + Sync + 'static,
{
    let weigh = |_: &K, slot: &Slot<T>| {
        let of = |kept: &Kept<T>| kept.rows.value.iter().map(Row::bytes).sum::<usize>();
        let bytes = slot.try_lock().ok().and_then(|kept| kept.as_ref().map(of));
        // A slot is weighed when it is put in, which is done again once it is filled.
        u32::try_from(bytes.unwrap_or(0) + SLOT_BYTES).unwrap_or(u32::MAX)
    };
    Cache::builder().max_capacity(KEPT_BYTES_MAX).weigher(weigh).time_to_idle(IDLE_MAX).build()
}

/// The rows of one batch that a query asks for.
fn select(query: &HourlyQuery, rows: &[HourlyCount]) -> Vec<HourlyCount> {
    let wanted = |row: &&HourlyCount| {
        query.range.contains(row.hour) && (query.names.is_empty() || query.names.contains(&row.event))
    };
    rows.iter().filter(wanted).cloned().collect()
}

/// From so many rows on, work on them takes milliseconds.
const MANY_ROWS: usize = 20_000;

/// Works on `rows` rows. While that takes long, other threads take over what this one serves besides.
pub fn yielding<T>(rows: usize, work: impl FnOnce() -> T) -> T {
    if rows < MANY_ROWS { work() } else { tokio::task::block_in_place(work) }
}
