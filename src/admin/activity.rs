//! The numbers that pages show, summed up from the exact reads: all events in a list, and the hours
//! of a period. Kept while nothing changes, since several people look at the same.

use std::cmp::Reverse;
use std::future::Future;
use std::hash::Hash;
use std::iter::Peekable;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use moka::sync::Cache;
use tokio::sync::Mutex;
use tokio::try_join;

use super::State;
use super::answer::Failure;
use super::chart::before;
use crate::domain::{EventName, EventTotal, Hour, HourRange, HourlyCount};
use crate::query::DataVersion;
use crate::query::lists::{Held, Reader, bytes_of};
use crate::store::admin::{Catalog, CatalogEntry};

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
    /// Of the lines.
    _held: Option<Held>,
}

/// One of the most popular events of a period.
#[derive(Clone, Debug)]
pub(super) struct Top {
    pub(super) event: EventName,
    pub(super) count: u64,
    /// By hour of the equally long period before.
    pub(super) hours_before: Vec<u64>,
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

impl Listing {
    #[cfg(test)]
    pub(super) fn of(lines: Vec<EventLine>) -> Self {
        Self { lines, _held: None }
    }
}

struct Computed<T> {
    version: DataVersion,
    /// The version of the catalog.
    catalog: u64,
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

impl Kept {
    pub(super) fn forget_idle(&self) {
        self.listings.run_pending_tasks();
        self.periods.run_pending_tasks();
        self.sums.run_pending_tasks();
    }
}

impl State {
    /// All events; `today` is from the first hour of the viewer's day through the current one.
    pub(super) async fn listing(&self, today: HourRange) -> Result<Arc<Listing>, Failure> {
        let slot = self.activity.listings.get_with(today, Slot::default);
        self.kept(slot, || async move {
            let this_hour = HourRange { first: today.last, last: today.last };
            let ((totals, view), of_today, of_hour) =
                try_join!(self.query.all_totals(), self.query.event_sums(today), self.query.event_sums(this_hour))?;
            // Each line has its name twice, and what was said about it.
            let bytes = 2 * bytes_of(&totals) + totals.len() * size_of::<EventLine>();
            let held = self.query.lists().hold(Reader::Administrator, bytes)?;
            let listing = aside(move || listing(totals, of_today, of_hour, view.catalog())).await?;
            Ok(Listing { _held: Some(held), ..listing })
        })
        .await
    }

    /// As [`State::period`] and `true`, if that takes no longer than `patience`. Else what is quickly known, the hours
    /// of all events together, while the rest is added up for the next one who asks.
    pub(super) async fn period_within(
        &'static self,
        range: HourRange,
        patience: Duration,
    ) -> Result<(Arc<Period>, bool), Failure> {
        let adding_up = tokio::spawn(self.period(range));
        if let Ok(added_up) = tokio::time::timeout(patience, adding_up).await {
            return Ok((added_up.map_err(|error| failed(&error))??, true));
        }
        let (hours, hours_before) = try_join!(self.sums(range), self.sums(before(range)))?;
        let (hours, hours_before) = (hours.to_vec(), hours_before.to_vec());
        Ok((Arc::new(Period { hours, hours_before, ..Period::default() }), false))
    }

    /// The hours `range` of all events, compared with the hours before it.
    pub(super) async fn period(&self, range: HourRange) -> Result<Arc<Period>, Failure> {
        let slot = self.activity.periods.get_with(range, Slot::default);
        self.kept(slot, || async move {
            let earlier = before(range);
            let (hours, hours_before, events, totals) = try_join!(
                self.query.hour_sums(range),
                self.query.hour_sums(earlier),
                self.query.event_sums(range),
                self.query.totals(),
            )?;
            let both = HourRange { first: earlier.first, last: range.last };
            let top = most(&events).into_iter().map(|(event, count)| async move {
                let rows = self.query.event_hours(&event, both).await?;
                // The earlier period begins at the same time of a day, so hours of neither may lie between the two.
                let (hours, hours_before) = (each_hour(range, &rows), each_hour(earlier, &rows));
                Ok::<_, Failure>(Top { event, count, hours, hours_before, is_new: false })
            });
            let top = try_join_all(top).await?;
            aside(move || period(hours, hours_before, events.len(), top, totals, range)).await
        })
        .await
    }

    /// What was counted in each hour of the range, all events together.
    pub(super) async fn sums(&self, range: HourRange) -> Result<Arc<Vec<u64>>, Failure> {
        let slot = self.activity.sums.get_with(range, Slot::default);
        self.kept(slot, || async move { Ok(in_hours(range, self.query.hour_sums(range).await?)) }).await
    }

    /// Computes a value anew only when something was counted since, and for at most a third of the
    /// time when something always is. Who has changed the catalog sees that at once.
    async fn kept<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        slot: Slot<T>,
        compute: impl FnOnce() -> F,
    ) -> Result<Arc<T>, Failure> {
        let mut slot = slot.lock().await;
        let version = self.query.version().await?;
        let catalog = self.query.catalog().view().catalog().version;
        if let Some(computed) = slot.as_ref()
            && (computed.version == version || computed.catalog == catalog && computed.at.elapsed() < computed.cost * 2)
        {
            return Ok(Arc::clone(&computed.value));
        }
        let begun = Instant::now();
        let value = compute().await?;
        let (cost, value) = (begun.elapsed(), Arc::new(value));
        *slot = Some(Computed { version, catalog, at: Instant::now(), cost, value: Arc::clone(&value) });
        Ok(value)
    }
}

/// Summing up 100,000 events is work of many milliseconds: not on the threads that count.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error))
}

fn failed(error: &tokio::task::JoinError) -> Failure {
    tracing::error!(%error, "summing up failed");
    Failure::Internal
}

fn listing(
    totals: Vec<EventTotal>,
    of_today: Vec<(EventName, u64)>,
    of_hour: Vec<(EventName, u64)>,
    catalog: &Catalog,
) -> Listing {
    // All three are sorted by name.
    let (mut of_today, mut of_hour) = (of_today.into_iter().peekable(), of_hour.into_iter().peekable());
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
        lines.push(EventLine {
            total: total.count,
            today: sum_of(&mut of_today, &total.event),
            this_hour: sum_of(&mut of_hour, &total.event),
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
    Listing { lines, _held: None }
}

/// The event's sum, from sums that are asked for in their order.
fn sum_of(sums: &mut Peekable<impl Iterator<Item = (EventName, u64)>>, event: &EventName) -> u64 {
    while sums.next_if(|(earlier, _)| earlier < event).is_some() {}
    sums.next_if(|(found, _)| found == event).map_or(0, |(_, count)| count)
}

/// The most popular events; equals in order of their names.
fn most(sums: &[(EventName, u64)]) -> Vec<(EventName, u64)> {
    let mut sums: Vec<_> = sums.iter().collect();
    sums.sort_by_key(|(_, count)| Reverse(*count));
    sums.into_iter().take(TOP).cloned().collect()
}

fn period(
    hours: Vec<(Hour, u64)>,
    hours_before: Vec<(Hour, u64)>,
    events: usize,
    mut top: Vec<Top>,
    totals: Vec<EventTotal>,
    range: HourRange,
) -> Period {
    // On a fresh installation everything is new, which says nothing about any event.
    let has_past = !hours_before.is_empty();
    for top in &mut top {
        let total = totals.binary_search_by(|total| total.event.cmp(&top.event)).ok().map(|index| &totals[index]);
        top.is_new = has_past && total.is_some_and(|total| range.contains(total.first_hour));
    }
    let mut new_names: Vec<_> = totals.into_iter().filter(|total| range.contains(total.first_hour)).collect();
    new_names.sort_by(|a, b| b.first_hour.cmp(&a.first_hour).then_with(|| b.count.cmp(&a.count)));
    let new_names_count = new_names.len();
    new_names.truncate(NEW_NAMES);
    Period {
        hours: in_hours(range, hours),
        hours_before: in_hours(before(range), hours_before),
        top,
        events,
        new_names,
        new_names_count,
    }
}

/// The count of each hour of the range. Rows of other hours are left out.
pub(super) fn each_hour(range: HourRange, rows: &[HourlyCount]) -> Vec<u64> {
    in_hours(range, rows.iter().filter(|row| range.contains(row.hour)).map(|row| (row.hour, row.count)))
}

fn in_hours(range: HourRange, counts: impl IntoIterator<Item = (Hour, u64)>) -> Vec<u64> {
    let mut hours = vec![0; (range.last.number() - range.first.number()) as usize + 1];
    for (hour, count) in counts {
        hours[(hour.number() - range.first.number()) as usize] = count;
    }
    hours
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::admin::tests::harness::Dashboard;
    use crate::store::admin::{Change, Changed};

    fn name(text: &str) -> EventName {
        EventName::parse(text).unwrap()
    }

    fn sums(events: &[(&str, u64)]) -> Vec<(EventName, u64)> {
        events.iter().map(|(event, count)| (name(event), *count)).collect()
    }

    fn total(event: &str, count: u64, first: u32, last: u32) -> EventTotal {
        let hour = |number| Hour::from_number(number).unwrap();
        EventTotal { event: name(event), count, first_hour: hour(first), last_hour: hour(last) }
    }

    #[tokio::test]
    async fn a_list_that_is_long_in_the_making_lags_behind_counts_but_not_behind_changes() {
        let dashboard = Dashboard::open().await;
        let now = *dashboard.now.lock();
        let today = HourRange { first: Hour::containing(now), last: Hour::containing(now) };
        dashboard.count("login", 42).await;
        let totals =
            async || dashboard.state.listing(today).await.unwrap().lines.iter().map(|line| line.total).sum::<u64>();
        assert_eq!(totals().await, 42);
        let slot = dashboard.state.activity.listings.get(&today).unwrap();
        slot.lock().await.as_mut().unwrap().cost = Duration::from_secs(3600);
        dashboard.count("login", 1).await;
        assert_eq!(totals().await, 42);
        let change = Change::Describe { event: name("login"), description: "people".into() };
        let changed = dashboard.state.query.catalog().change(change, "ann", now).await;
        assert!(matches!(changed.unwrap(), Changed::Done { .. }));
        assert_eq!(totals().await, 43);
    }

    #[test]
    fn a_listing_joins_totals_today_and_what_was_said_about_events() {
        let mut catalog = Catalog::default();
        catalog.entries.insert(name("gone"), CatalogEntry { inactive: true, ..CatalogEntry::default() });
        catalog.entries.insert(name("old"), CatalogEntry { alias_of: Some(name("b")), ..CatalogEntry::default() });
        let totals = vec![total("a", 7, 1, 2), total("b", 9, 1, 10)];
        let listing = listing(totals, sums(&[("b", 5), ("x", 1)]), sums(&[("b", 3)]), &catalog);
        let shown: Vec<_> =
            listing.lines.iter().map(|line| (line.event.as_str(), line.total, line.today, line.this_hour)).collect();
        assert_eq!(shown, [("a", 7, 0, 0), ("b", 9, 5, 3), ("gone", 0, 0, 0)]);
        assert!(listing.lines[2].entry.inactive);
    }

    #[test]
    fn a_period_has_its_most_popular_events_and_its_new_names() {
        let range = HourRange { first: Hour::from_number(100).unwrap(), last: Hour::from_number(101).unwrap() };
        let totals = vec![total("a", 15, 76, 100), total("b", 2, 77, 77), total("c", 5, 101, 101)];
        let (hours, earlier) = (vec![(range.first, 5), (range.last, 5)], vec![(range.last.plus(-24), 2)]);
        let events: Vec<_> =
            (0..20).map(|number| (name(&format!("{number:02}")), 1)).chain(sums(&[("a", 5), ("c", 5)])).collect();
        let top = most(&events);
        assert_eq!((top.len(), &top[..3]), (TOP, &sums(&[("a", 5), ("c", 5), ("00", 1)])[..]));
        let top = top.into_iter().map(|(event, count)| {
            let (hours, hours_before) = (vec![0, count], vec![0, 0]);
            Top { event, count, hours, hours_before, is_new: false }
        });
        let top: Vec<_> = top.collect();
        let fresh = period(hours.clone(), vec![], events.len(), top.clone(), totals.clone(), range);
        assert!(!fresh.top.iter().any(|top| top.is_new), "nothing was counted before");
        let period = period(hours, earlier, events.len(), top, totals, range);
        assert_eq!((period.hours, period.hours_before), (vec![5, 5], vec![0, 2]));
        assert_eq!(period.top.iter().map(|top| top.is_new).take(2).collect::<Vec<_>>(), [false, true]);
        assert_eq!((period.events, period.new_names_count), (22, 1));
        assert_eq!(period.new_names[0].event, name("c"));
    }
}
