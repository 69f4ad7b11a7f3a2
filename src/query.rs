//! The read path: committed counts and pending batches, merged exactly.
//!
//! The order is the proof. What is pending is taken *first*, with its identities; *then* rows are
//! got with the ledger position of the one snapshot they come from; then each pending batch is
//! added unless that very position includes it. A batch committed in between is neither lost nor
//! counted twice, and a commit whose answer was lost needs no special case.
//!
//! A position that is lower than what the store had confirmed before means that it went back: then what
//! is pending is taken anew, with what is delivered again in it.
//!
//! The catalog of that very position says under which event pending counts belong and what is hidden.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{Batches, Pending};
use crate::catalog::{CatalogView, LiveCatalog};
pub use crate::committed::yielding;
use crate::committed::{Committed, Rows};
use crate::domain::{Day, EventName, EventTotal, Hour, HourRange, HourlyCount, Sum, SumBy, SumOf, WriterId};
use crate::histogram::Series;
use crate::reconcile::{Baseline, Reconciler};
use crate::rows::{merge, sums_of, totals_of};
pub use crate::store::StoreError;
use crate::store::{HourlyQuery, Store, StoreHealth, StoreStatus};

pub mod lists;

use lists::Lists;

/// How often a read is repeated because administrators change the catalog meanwhile.
const ATTEMPTS_MAX: usize = 10;

pub struct Query {
    batches: Arc<Batches>,
    committed: Committed,
    catalog: Arc<LiveCatalog>,
    health: Arc<StoreHealth>,
    lists: Arc<Lists>,
}

/// Stands for the state of all counts: while it is the same, so is every answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataVersion {
    writer: WriterId,
    changes: u64,
    /// How often the store has gone back.
    epoch: u64,
    foreign: (u64, i128),
}

/// Short enough for an `ETag`.
impl fmt::Display for DataVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writer, changes, epoch, foreign: (foreign, total) } = self;
        let process = u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| writer.0[i]));
        write!(f, "{process:x}-{changes:x}-{epoch:x}-{foreign:x}-{total:x}")
    }
}

impl Query {
    #[must_use]
    pub fn new(
        batches: Arc<Batches>,
        store: Arc<dyn Store>,
        catalog: Arc<LiveCatalog>,
        reconciler: Arc<Reconciler>,
        health: Arc<StoreHealth>,
    ) -> Self {
        let committed = Committed::new(Arc::clone(&batches), store, Arc::clone(&catalog), reconciler);
        Self { batches, committed, catalog, health, lists: Arc::default() }
    }

    /// What administrators said about events, and the way to change it.
    #[must_use]
    pub fn catalog(&self) -> &LiveCatalog {
        &self.catalog
    }

    /// What all lists together may take.
    #[must_use]
    pub fn lists(&self) -> &Arc<Lists> {
        &self.lists
    }

    /// What is known of the store from its last uses.
    #[must_use]
    pub fn store_status(&self) -> StoreStatus {
        self.health.status()
    }

    /// Looks whether the store still has what it confirmed, and whether the catalog has changed, together
    /// with whoever reads at that time.
    ///
    /// # Errors
    /// The store's.
    pub async fn keep_current(&self) -> Result<(), StoreError> {
        self.committed.keep_catalog_current().await
    }

    /// As [`Committed::look_age`].
    #[must_use]
    pub fn look_age(&self) -> Option<Duration> {
        self.committed.look_age()
    }

    /// Gives back the memory of rows that nobody has asked for lately.
    pub fn forget_idle(&self) {
        self.committed.forget_idle();
    }

    /// Take it *before* reading what it is to stand for.
    ///
    /// # Errors
    /// The store's: whether another node has changed it can't be known then.
    pub async fn version(&self) -> Result<DataVersion, StoreError> {
        let changes = self.batches.changes();
        let (epoch, foreign) = self.committed.foreign_version().await?;
        Ok(DataVersion { writer: self.batches.writer(), changes, epoch, foreign })
    }

    /// What `read` gives, and a version that it stands for: of the same epoch, so that after the store has
    /// gone back nothing is given out under a tag from before.
    ///
    /// # Errors
    /// The store's, and what `read` says.
    pub async fn with_version<T, F>(&self, read: impl Fn() -> F) -> Result<(DataVersion, T), StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        for _ in 0..ATTEMPTS_MAX {
            let version = self.version().await?;
            let value = read().await?;
            if self.batches.epoch() == version.epoch {
                return Ok((version, value));
            }
        }
        Err(changing())
    }

    /// Every hourly count within `range`, ordered by event bytes, then hour.
    ///
    /// # Errors
    /// [`StoreError::TooManyRows`] beyond `rows_max`; otherwise the store's.
    pub async fn hourly(&self, range: HourRange, rows_max: usize) -> Result<Vec<HourlyCount>, StoreError> {
        let Read { committed, pending, view } = self.read_hourly(range, None, rows_max).await?;
        let merged = yielding(committed.value.len() + pending.counters(), || {
            let mut merged = view.belonging(merge(&committed.value, pending.within(range)));
            merged.retain(|row| !view.hides(&row.event));
            merged
        });
        if merged.len() > rows_max { Err(StoreError::TooManyRows { rows_max }) } else { Ok(merged) }
    }

    /// What was counted in each hour of `range`, all events together, without deleted ones and without
    /// hours in which nothing was. Costs the store the rows of the range once, and then what changes.
    ///
    /// # Errors
    /// The store's.
    pub async fn hour_sums(&self, range: HourRange) -> Result<Vec<(Hour, u64)>, StoreError> {
        let of_hour = |Sum { of, count }| match of {
            SumOf::Hour(hour) => Some((hour, count)),
            SumOf::Event(_) => None,
        };
        Ok(self.sums(range, SumBy::Hour).await?.0.into_iter().filter_map(of_hour).collect())
    }

    /// What was counted of each event within `range`, otherwise as [`Query::hour_sums`].
    ///
    /// # Errors
    /// The store's.
    pub async fn event_sums(&self, range: HourRange) -> Result<Vec<(EventName, u64)>, StoreError> {
        let of_event = |Sum { of, count }| match of {
            SumOf::Event(event) => Some((event, count)),
            SumOf::Hour(_) => None,
        };
        let (sums, view) = self.sums(range, SumBy::Event).await?;
        Ok(view.belonging(sums.into_iter().filter_map(of_event).collect()))
    }

    /// By event: by the names that were counted.
    async fn sums(&self, range: HourRange, by: SumBy) -> Result<(Vec<Sum>, Arc<CatalogView>), StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            let (baseline, view, pending) = self.begin();
            let Some(committed) = self.committed.sums(range, by, &baseline, &pending.commits).await? else { continue };
            if let Some(Read { committed, pending, view }) = self.of_one_moment(committed, pending, view).await? {
                let sums = yielding(committed.value.len() + pending.counters(), || {
                    let pending = pending.within(range);
                    let shown = pending.iter().filter(|row| !view.hides(view.event(&row.event)));
                    merge(&committed.value, sums_of(shown, by))
                });
                return Ok((sums, view));
            }
        }
        Err(changing())
    }

    /// The all-time total of every event, ordered by event bytes.
    ///
    /// # Errors
    /// The store's.
    pub async fn totals(&self) -> Result<Vec<EventTotal>, StoreError> {
        let (mut totals, view) = self.all_totals().await?;
        totals.retain(|total| !view.hides(&total.event));
        Ok(totals)
    }

    /// One event's hourly counts within `range`, ordered by hour, also by an alias, and also when it
    /// is deleted. Empty for unknown events.
    ///
    /// # Errors
    /// The store's.
    pub async fn event_hours(&self, name: &EventName, range: HourRange) -> Result<Vec<HourlyCount>, StoreError> {
        let rows_max = (range.last.number() - range.first.number()) as usize + 1;
        let Read { committed, pending, view } = self.read_hourly(range, Some(name), rows_max).await?;
        let event = view.event(name);
        let mut pending = pending.within(range);
        pending.retain(|row| view.event(&row.event) == event);
        Ok(view.belonging(merge(&committed.value, pending)))
    }

    /// The totals with those of deleted events, and what the catalog said at that moment.
    ///
    /// # Errors
    /// The store's.
    pub async fn all_totals(&self) -> Result<(Vec<EventTotal>, Arc<CatalogView>), StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            let (baseline, view, pending) = self.begin();
            let Some(committed) = self.committed.totals(&baseline, &pending.commits).await? else { continue };
            if let Some(Read { committed, pending, view }) = self.of_one_moment(committed, pending, view).await? {
                let totals = yielding(committed.value.len() + pending.counters(), || {
                    view.belonging(merge(&committed.value, totals_of(&pending.within(HourRange::ALL))))
                });
                return Ok((totals, view));
            }
        }
        Err(changing())
    }

    /// One event's day, also by an alias; `None` when nobody has ever counted the event, or it is
    /// deleted.
    ///
    /// # Errors
    /// The store's.
    pub async fn day(&self, name: &EventName, day: Day) -> Result<Option<Series>, StoreError> {
        let range = day.range();
        let Read { committed, pending, view } = self.read_hourly(range, Some(name), 24).await?;
        let event = view.event(name);
        if view.hides(event) {
            return Ok(None);
        }
        let mut counts = [0; 24];
        for row in &*committed.value {
            counts[row.hour.of_day() as usize] += row.count;
        }
        view.names_of(event).for_each(|name| pending.add_to(&mut counts, name, range.first));
        let known = counts.iter().any(|count| *count > 0)
            || view.names_of(event).any(|name| pending.counts(name))
            || self.is_committed(&view, event).await?;
        Ok(known.then(|| Series { event: event.clone(), day, counts }))
    }

    async fn is_committed(&self, view: &CatalogView, event: &EventName) -> Result<bool, StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            let (baseline, _, pending) = self.begin();
            let Some(totals) = self.committed.totals(&baseline, &pending.commits).await? else { continue };
            let has = |name: &EventName| totals.value.binary_search_by(|total| total.event.cmp(name)).is_ok();
            return Ok(view.names_of(event).any(has));
        }
        Err(changing())
    }

    async fn read_hourly(
        &self,
        range: HourRange,
        name: Option<&EventName>,
        rows_max: usize,
    ) -> Result<Read<HourlyCount>, StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            let (baseline, view, pending) = self.begin();
            let names =
                name.map(|name| view.names_of(view.event(name)).cloned().collect::<Vec<_>>()).unwrap_or_default();
            let query = HourlyQuery { range, rows_max: rows_max.saturating_mul(names.len().max(1)), names };
            let Some(committed) = self.committed.hourly(query, &baseline, &pending.commits).await? else { continue };
            if let Some(read) = self.of_one_moment(committed, pending, view).await? {
                return Ok(read);
            }
        }
        Err(changing())
    }

    /// In this order: a position that is not lower than the baseline goes with all batches that are
    /// pending, also with those that a store which went back gets again.
    fn begin(&self) -> (Baseline, Arc<CatalogView>, Pending) {
        let baseline = self.committed.baseline();
        (baseline, self.catalog.view(), self.batches.pending())
    }

    /// `None` when rows and catalog are not of the same moment: then everything is to be read again.
    async fn of_one_moment<T>(
        &self,
        committed: Rows<T>,
        pending: Pending,
        view: Arc<CatalogView>,
    ) -> Result<Option<Read<T>>, StoreError> {
        let at = self.catalog.at(committed.position.catalog).await?;
        let same = at.is_some_and(|at| at.catalog().version == view.catalog().version);
        let mut pending = not_in(pending, &committed);
        pending.hide_overtaken(|version| view.purged_since(version));
        Ok(same.then_some(Read { pending, committed, view }))
    }
}

/// Committed rows, what is pending beside them, and the catalog of the same moment.
struct Read<T> {
    committed: Rows<T>,
    pending: Pending,
    view: Arc<CatalogView>,
}

fn changing() -> StoreError {
    StoreError::CatalogChanging
}

fn not_in<T>(mut pending: Pending, committed: &Rows<T>) -> Pending {
    pending.drop_landed(|batch, partition| committed.position.includes_part(partition, batch));
    pending
}
