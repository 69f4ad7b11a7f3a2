//! The numbers that pages show, summed up from the exact reads: all events in a list, and the hours
//! of a period. Kept while nothing changes, since several people look at the same.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tokio::sync::Mutex;

use super::State;
use super::answer::Failure;
use super::chart::before;
use crate::domain::{EventName, EventTotal, Hour, HourRange, HourlyCount};
use crate::query::DataVersion;
use crate::store::StoreError;
use crate::store::admin::{Catalog, CatalogEntry};

/// Rows that one page may sum up.
const ROWS_MAX: usize = 2_000_000;
/// Most popular events shown.
pub(super) const TOP: usize = 10;
/// New names shown.
const NEW_NAMES: usize = 8;
/// Different periods and lists remembered.
const KEPT_MAX: u64 = 32;

/// One line of the list of events.
#[derive(Clone, Debug)]
pub(super) struct EventLine {
    pub(super) event: EventName,
    /// For searching.
    pub(super) lower: String,
    pub(super) total: u64,
    pub(super) today: u64,
    pub(super) this_hour: u64,
    /// `None`: never counted, only described.
    pub(super) first: Option<Hour>,
    pub(super) last: Option<Hour>,
    pub(super) entry: CatalogEntry,
}

/// All events that are not aliases, sorted by name.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) lines: Vec<EventLine>,
    /// Whether today held too many rows to sum up.
    pub(super) without_today: bool,
}

/// One of the most popular events of a period.
#[derive(Clone, Debug)]
pub(super) struct Top {
    pub(super) event: EventName,
    pub(super) count: u64,
    pub(super) before: u64,
    /// First counted within the period, when others had been counted before.
    pub(super) is_new: bool,
    /// By hour of the period.
    pub(super) hours: Vec<u64>,
}

/// All events together in a period, and in the equally long one before it.
#[derive(Debug, Default)]
pub(super) struct Period {
    pub(super) hours: Vec<u64>,
    pub(super) hours_before: Vec<u64>,
    pub(super) top: Vec<Top>,
    /// Events with counts in the period.
    pub(super) events: usize,
    /// First counted within the period, the latest first.
    pub(super) new_names: Vec<EventTotal>,
    pub(super) new_names_count: usize,
}

struct Computed<T> {
    version: DataVersion,
    at: Instant,
    cost: Duration,
    value: Arc<T>,
}

type Slot<T> = Arc<Mutex<Option<Computed<T>>>>;

pub(super) struct Kept {
    listings: Cache<HourRange, Slot<Listing>>,
    periods: Cache<HourRange, Slot<Period>>,
    sums: Cache<HourRange, Slot<Vec<u64>>>,
}

fn cache<K: Hash + Eq + Send + Sync + 'static, T: Send + Sync + 'static>() -> Cache<K, Slot<T>> {
    Cache::builder().max_capacity(KEPT_MAX).time_to_idle(Duration::from_secs(60)).build()
}

impl Default for Kept {
    fn default() -> Self {
        Self { listings: cache(), periods: cache(), sums: cache() }
    }
}

impl State {
    /// All events; `today` is from the first hour of the viewer's day through the current one.
    pub(super) async fn listing(&self, today: HourRange) -> Result<Arc<Listing>, Failure> {
        let slot = self.activity.listings.get_with(today, Slot::default);
        self.kept(slot, || async move {
            let (totals, view) = self.query.all_totals().await?;
            let rows = match self.query.hourly(today, ROWS_MAX).await {
                Ok(rows) => Some(rows),
                Err(StoreError::TooManyRows { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            aside(move || listing(totals, rows, view.catalog(), today.last)).await
        })
        .await
    }

    /// The hours `range` of all events, compared with the hours before it.
    pub(super) async fn period(&self, range: HourRange) -> Result<Arc<Period>, Failure> {
        let slot = self.activity.periods.get_with(range, Slot::default);
        self.kept(slot, || async move {
            let earlier = before(range);
            let both = HourRange { first: earlier.first, last: range.last };
            let rows = self.query.hourly(both, ROWS_MAX).await?;
            let totals = self.query.totals().await?;
            aside(move || period(&rows, totals, range, earlier)).await
        })
        .await
    }

    /// What was counted in each hour of the range, all events together.
    pub(super) async fn sums(&self, range: HourRange) -> Result<Arc<Vec<u64>>, Failure> {
        let slot = self.activity.sums.get_with(range, Slot::default);
        self.kept(slot, || async move {
            let rows = self.query.hourly(range, ROWS_MAX).await?;
            aside(move || {
                let mut sums = hours_of(range);
                for row in &rows {
                    add(&mut sums, range.first, row);
                }
                sums
            })
            .await
        })
        .await
    }

    /// Computes a value anew only when something was counted since, and for at most a third of the
    /// time when something always is.
    async fn kept<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        slot: Slot<T>,
        compute: impl FnOnce() -> F,
    ) -> Result<Arc<T>, Failure> {
        let mut slot = slot.lock().await;
        let version = self.query.version().await?;
        if let Some(computed) = slot.as_ref()
            && (computed.version == version || computed.at.elapsed() < computed.cost * 2)
        {
            return Ok(Arc::clone(&computed.value));
        }
        let begun = Instant::now();
        let value = Arc::new(compute().await?);
        *slot = Some(Computed { version, at: Instant::now(), cost: begun.elapsed(), value: Arc::clone(&value) });
        Ok(value)
    }
}

/// Summing up 100,000 events is work of many milliseconds: not on the threads that count.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "summing up failed");
        Failure::Internal
    })
}

fn listing(totals: Vec<EventTotal>, rows: Option<Vec<HourlyCount>>, catalog: &Catalog, now: Hour) -> Listing {
    let without_today = rows.is_none();
    let rows = rows.unwrap_or_default();
    let mut groups = rows.chunk_by(|a, b| a.event == b.event).peekable();
    let mut lines: Vec<EventLine> = Vec::with_capacity(totals.len());
    let line = |event: &EventName| EventLine {
        event: event.clone(),
        lower: event.as_str().to_lowercase(),
        total: 0,
        today: 0,
        this_hour: 0,
        first: None,
        last: None,
        entry: catalog.entries.get(event).cloned().unwrap_or_default(),
    };
    for total in totals {
        while groups.next_if(|group| group[0].event < total.event).is_some() {}
        let group = groups.next_if(|group| group[0].event == total.event).unwrap_or_default();
        lines.push(EventLine {
            total: total.count,
            today: group.iter().map(|row| row.count).sum(),
            this_hour: group.iter().filter(|row| row.hour == now).map(|row| row.count).sum(),
            first: Some(total.first_hour),
            last: Some(total.last_hour),
            ..line(&total.event)
        });
    }
    // Events that were deleted or only described have no counts to show.
    let counted = lines.len();
    for (event, entry) in &catalog.entries {
        let known = lines[..counted].binary_search_by(|known| known.event.cmp(event)).is_ok();
        if !known && entry.alias_of.is_none() {
            lines.push(line(event));
        }
    }
    lines.retain(|line| line.entry.alias_of.is_none());
    lines.sort_by(|a, b| a.event.cmp(&b.event));
    Listing { lines, without_today }
}

fn period(rows: &[HourlyCount], totals: Vec<EventTotal>, range: HourRange, earlier: HourRange) -> Period {
    let mut hours = hours_of(range);
    let mut hours_before = hours.clone();
    let mut events = Vec::new();
    for group in rows.chunk_by(|a, b| a.event == b.event) {
        let before = &group[..group.partition_point(|row| row.hour <= earlier.last)];
        let within = &group[group.partition_point(|row| row.hour < range.first)..];
        before.iter().for_each(|row| add(&mut hours_before, earlier.first, row));
        within.iter().for_each(|row| add(&mut hours, range.first, row));
        let sum = |rows: &[HourlyCount]| rows.iter().map(|row| row.count).sum::<u64>();
        if !within.is_empty() {
            events.push((sum(within), sum(before), within));
        }
    }
    events.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.2[0].event.cmp(&b.2[0].event)));
    // On a fresh installation everything is new, which says nothing about any event.
    let has_past = hours_before.iter().any(|count| *count > 0);
    let is_first_within = |event: &EventName| {
        let total = totals.binary_search_by(|total| total.event.cmp(event)).ok().map(|index| &totals[index]);
        total.is_some_and(|total| range.contains(total.first_hour))
    };
    let top = events.iter().take(TOP).map(|(count, before, rows)| {
        let is_new = has_past && is_first_within(&rows[0].event);
        let mut hours = hours_of(range);
        rows.iter().for_each(|row| add(&mut hours, range.first, row));
        Top { event: rows[0].event.clone(), count: *count, before: *before, is_new, hours }
    });
    let top = top.collect();
    let mut new_names: Vec<_> = totals.into_iter().filter(|total| range.contains(total.first_hour)).collect();
    new_names.sort_by(|a, b| b.first_hour.cmp(&a.first_hour).then_with(|| b.count.cmp(&a.count)));
    let new_names_count = new_names.len();
    new_names.truncate(NEW_NAMES);
    Period { hours, hours_before, top, events: events.len(), new_names, new_names_count }
}

fn hours_of(range: HourRange) -> Vec<u64> {
    vec![0; (range.last.number() - range.first.number()) as usize + 1]
}

fn add(hours: &mut [u64], first: Hour, row: &HourlyCount) {
    if let Some(hour) = hours.get_mut((row.hour.number() - first.number()) as usize) {
        *hour = hour.saturating_add(row.count);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(text: &str) -> EventName {
        EventName::parse(text).unwrap()
    }

    fn row(event: &str, hour: u32, count: u64) -> HourlyCount {
        HourlyCount { event: name(event), hour: Hour::from_number(hour).unwrap(), count }
    }

    fn total(event: &str, count: u64, first: u32, last: u32) -> EventTotal {
        let hour = |number| Hour::from_number(number).unwrap();
        EventTotal { event: name(event), count, first_hour: hour(first), last_hour: hour(last) }
    }

    #[test]
    fn a_listing_joins_totals_today_and_what_was_said_about_events() {
        let mut catalog = Catalog::default();
        catalog.entries.insert(name("gone"), CatalogEntry { inactive: true, ..CatalogEntry::default() });
        catalog.entries.insert(name("old"), CatalogEntry { alias_of: Some(name("b")), ..CatalogEntry::default() });
        let totals = vec![total("a", 7, 1, 2), total("b", 9, 1, 10)];
        let rows = vec![row("b", 9, 2), row("b", 10, 3)];
        let listing = listing(totals, Some(rows), &catalog, Hour::from_number(10).unwrap());
        let shown: Vec<_> =
            listing.lines.iter().map(|line| (line.event.as_str(), line.total, line.today, line.this_hour)).collect();
        assert_eq!(shown, [("a", 7, 0, 0), ("b", 9, 5, 3), ("gone", 0, 0, 0)]);
        assert!(listing.lines[2].entry.inactive);
    }

    #[test]
    fn a_period_is_compared_with_the_equally_long_one_before_it() {
        let rows = vec![row("a", 76, 1), row("a", 90, 9), row("a", 100, 5), row("b", 77, 2), row("c", 101, 5)];
        let range = HourRange { first: Hour::from_number(100).unwrap(), last: Hour::from_number(101).unwrap() };
        let totals = vec![total("a", 15, 76, 100), total("b", 2, 77, 77), total("c", 5, 101, 101)];
        let period = period(&rows, totals, range, before(range));
        assert_eq!((period.hours, period.hours_before), (vec![5, 5], vec![1, 2]));
        let top: Vec<_> =
            period.top.iter().map(|top| (top.event.as_str(), top.count, top.before, top.is_new)).collect();
        assert_eq!(top, [("a", 5, 1, false), ("c", 5, 0, true)]);
        assert_eq!((period.events, period.new_names_count), (2, 1));
        assert_eq!(period.new_names[0].event, name("c"));
    }

    #[test]
    fn nothing_is_new_where_nothing_was_counted_before_nor_what_only_paused() {
        let range = HourRange { first: Hour::from_number(100).unwrap(), last: Hour::from_number(101).unwrap() };
        let is_new = |rows: &[HourlyCount], totals| period(rows, totals, range, before(range)).top[0].is_new;
        assert!(!is_new(&[row("a", 100, 5)], vec![total("a", 5, 100, 100)]), "a fresh installation");
        let with_past = [row("a", 100, 5), row("b", 77, 2)];
        let totals = |first| vec![total("a", 9, first, 100), total("b", 2, 77, 77)];
        assert!(is_new(&with_past, totals(100)));
        assert!(!is_new(&with_past, totals(3)), "it was counted long before");
    }
}
