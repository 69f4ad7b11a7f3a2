//! Live numbers by server-sent events: one producer looks once a second while somebody listens, and
//! everybody is sent the same bytes. Who is slow gets the latest, not all.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use warp::Reply;
use warp::reply::Response;

use super::State;
use super::answer::{Failure, success};
use super::request::Request;
use super::session::Who;
use super::status::Status;
use super::view::{grouped, rate_text};
use crate::domain::{EventName, EventTotal, Hour, HourRange};
use crate::query::DataVersion;
use crate::store::StoreError;

const INTERVAL: Duration = Duration::from_secs(1);
/// A comment after so much silence, so that proxies keep the stream and a lost client is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Then a stream ends and the browser begins a new one, for which its session is checked again.
const STREAM_AGE_MAX: Duration = Duration::from_secs(300);
/// How often a stream asks whether its session is still good.
const ACCESS_CHECK: Duration = Duration::from_secs(60);
/// Rows of the current hour: one an event.
const ROWS_MAX: usize = 10_000_000;
/// The rate is that of the last so many seconds.
const WINDOW: usize = 10;
/// Events whose counts moved within the window, the liveliest first.
const EVENTS_MAX: usize = 50;

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Moving {
    event: EventName,
    total: u64,
    total_text: String,
    /// A second, over the window.
    rate: f64,
    rate_text: String,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Snapshot {
    /// Occurrences a second, over the window; `None` before there are two looks.
    rate: Option<f64>,
    rate_text: String,
    total: u64,
    total_text: String,
    /// Since the beginning of the current hour, UTC.
    this_hour: u64,
    hour: Hour,
    events: Vec<Moving>,
    status: Status,
}

/// The latest frame and its number.
type Frame = (u64, Bytes);

pub(super) struct Live {
    latest: watch::Sender<Frame>,
    slots: Arc<Semaphore>,
    producing: AtomicBool,
}

impl Live {
    pub(super) fn new(streams_max: usize) -> Self {
        Self {
            latest: watch::Sender::new((0, Bytes::new())),
            slots: Arc::new(Semaphore::new(streams_max.min(Semaphore::MAX_PERMITS))),
            producing: AtomicBool::new(false),
        }
    }
}

/// `GET /admin/live`
pub(super) fn stream(state: &'static State, request: &Request, who: Who) -> Result<Response, Failure> {
    let Ok(slot) = Arc::clone(&state.live.slots).try_acquire_owned() else { return Err(Failure::Busy) };
    if state.draining.is_cancelled() {
        return Err(Failure::Busy);
    }
    let mut frames = state.live.latest.subscribe();
    begin_producing(state);
    // Who comes back and has seen the latest is not told it again.
    let seen = request.header("last-event-id").and_then(|id| id.parse::<u64>().ok());
    if frames.borrow().0 == 0 || seen == Some(frames.borrow().0) {
        frames.mark_unchanged();
    } else {
        frames.mark_changed();
    }
    let end = tokio::time::Instant::now() + jittered(STREAM_AGE_MAX);
    let access = Access { state, who, changed: state.access_changed.subscribe(), due: next_access_check() };
    let frames = stream::unfold((frames, slot, access), move |(mut frames, slot, mut access)| async move {
        let bytes = tokio::select! {
            biased;
            () = state.draining.cancelled() => return None,
            () = tokio::time::sleep_until(end) => return None,
            () = access.lost() => return None,
            changed = frames.changed() => {
                changed.ok()?;
                frames.borrow_and_update().1.clone()
            }
            () = tokio::time::sleep(HEARTBEAT) => Bytes::from_static(b":\n\n"),
        };
        Some((Ok::<_, Infallible>(bytes), (frames, slot, access)))
    });
    let opening = stream::once(async { Ok(Bytes::from_static(b"retry: 3000\n\n")) });
    let mut response = warp::reply::stream(futures_util::StreamExt::chain(opening, frames)).into_response();
    let mut add = |name, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
    add(CONTENT_TYPE, "text/event-stream");
    add(HeaderName::from_static("x-accel-buffering"), "no");
    Ok(response)
}

/// `GET /admin/live.json` and `GET /api/v1/admin/status`: the same once, for browsers and proxies
/// that don't do streams.
pub(super) async fn once(state: &'static State) -> Result<Response, Failure> {
    state.look_at_store().await;
    let mut window = Window::default();
    Ok(success(&window.look(state).await?))
}

/// Who listens, and whether that is still allowed.
struct Access {
    state: &'static State,
    who: Who,
    changed: watch::Receiver<()>,
    due: tokio::time::Instant,
}

impl Access {
    /// Waits until the session or key would not be let in any more. Asks when this node has heard of
    /// something that ends some, and each minute for what other nodes and commands did. May be called again.
    async fn lost(&mut self) {
        loop {
            tokio::select! {
                _ = self.changed.changed() => {}
                () = tokio::time::sleep_until(self.due) => {}
            }
            // If this is cut off by a frame, the next call asks.
            self.due = tokio::time::Instant::now();
            let (state, who) = (self.state, self.who.clone());
            let asked = tokio::spawn(async move { state.still_lets_in(&who).await });
            if !asked.await.unwrap_or(false) {
                return;
            }
            self.due = next_access_check();
        }
    }
}

fn next_access_check() -> tokio::time::Instant {
    tokio::time::Instant::now() + ACCESS_CHECK
}

fn jittered(age: Duration) -> Duration {
    // So that streams that began together don't come back together.
    age + Duration::from_millis(rand::random_range(0..60_000))
}

fn begin_producing(state: &'static State) {
    if !state.live.producing.swap(true, Ordering::AcqRel) {
        tokio::spawn(produce(state));
    }
}

async fn produce(state: &'static State) {
    let mut window = Window::default();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sent = None;
    while !state.draining.is_cancelled() {
        ticks.tick().await;
        if state.live.latest.receiver_count() == 0 {
            state.live.producing.store(false, Ordering::Release);
            // Somebody may have come between the two lines above.
            if state.live.latest.receiver_count() == 0 || state.live.producing.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        state.look_at_store().await;
        // While the store is away, the status says so; the numbers stay as they were.
        let Ok(snapshot) = window.look(state).await else { continue };
        if sent.as_ref() == Some(&snapshot) {
            continue;
        }
        let Ok(json) = serde_json::to_string(&snapshot) else { continue };
        state.live.latest.send_modify(|(number, bytes)| {
            *number += 1;
            *bytes = Bytes::from(format!("id: {number}\ndata: {json}\n\n"));
        });
        sent = Some(snapshot);
    }
}

/// What the last looks saw.
#[derive(Default)]
struct Window {
    /// The state of the counts at the last look.
    seen: Option<(DataVersion, Hour)>,
    /// The version of the catalog at the last look.
    catalog: u64,
    totals: Option<(Instant, Vec<EventTotal>)>,
    /// What each event grew by from look to look, with the time between.
    steps: VecDeque<(Duration, BTreeMap<EventName, u64>)>,
    sums: (u64, u64),
}

impl Window {
    async fn look(&mut self, state: &'static State) -> Result<Snapshot, StoreError> {
        let hour = Hour::containing((state.clock)());
        match self.read(state, hour).await {
            Ok(None) => self.note_nothing(Instant::now()),
            Ok(Some(totals)) => {
                self.note(totals, Instant::now());
                let range = HourRange { first: hour, last: hour };
                let this_hour = state.query.hourly(range, ROWS_MAX).await?.iter().map(|row| row.count).sum();
                let total = self.totals.iter().flat_map(|(_, totals)| totals).map(|total| total.count);
                self.sums = (total.fold(0, u64::saturating_add), this_hour);
            }
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => return Err(error),
        }
        let (rate, events) = self.rates();
        let (total, this_hour) = self.sums;
        Ok(Snapshot {
            rate,
            rate_text: rate.map(rate_text).unwrap_or_default(),
            total,
            total_text: grouped(total),
            this_hour,
            hour,
            events,
            status: state.status(),
        })
    }

    /// All totals; `None` when nothing has changed since the last look.
    async fn read(&mut self, state: &State, hour: Hour) -> Result<Option<Vec<EventTotal>>, StoreError> {
        let seen = Some((state.query.version().await?, hour));
        if self.totals.is_some() && self.seen == seen {
            return Ok(None);
        }
        let (mut totals, view) = state.query.all_totals().await?;
        totals.retain(|total| !view.hides(&total.event));
        self.seen = seen;
        // What an administrator moved or restored has not just been counted.
        if std::mem::replace(&mut self.catalog, view.catalog().version) != view.catalog().version {
            self.totals = None;
        }
        Ok(Some(totals))
    }

    fn note_nothing(&mut self, now: Instant) {
        if let Some((at, _)) = &mut self.totals {
            let passed = now.saturating_duration_since(std::mem::replace(at, now));
            self.push((passed, BTreeMap::new()));
        }
    }

    fn push(&mut self, step: (Duration, BTreeMap<EventName, u64>)) {
        self.steps.push_back(step);
        while self.steps.len() > WINDOW {
            self.steps.pop_front();
        }
    }

    fn note(&mut self, totals: Vec<EventTotal>, now: Instant) {
        if let Some((at, before)) = &self.totals {
            let step = (now.saturating_duration_since(*at), growth(before, &totals));
            self.push(step);
        }
        self.totals = Some((now, totals));
    }

    #[allow(clippy::cast_precision_loss)]
    fn rates(&self) -> (Option<f64>, Vec<Moving>) {
        let seconds = self.steps.iter().map(|(time, _)| time.as_secs_f64()).sum::<f64>();
        if seconds <= 0.0 {
            return (None, Vec::new());
        }
        let a_second = |count: u64| (count as f64 / seconds * 10.0).round() / 10.0;
        let mut sums: BTreeMap<&EventName, u64> = BTreeMap::new();
        for (event, count) in self.steps.iter().flat_map(|(_, growth)| growth) {
            *sums.entry(event).or_default() += count;
        }
        let all = sums.values().sum();
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        sums.truncate(EVENTS_MAX);
        let totals = self.totals.as_ref().map_or(&[][..], |(_, totals)| totals);
        let total_of = |event: &EventName| {
            totals.binary_search_by(|total| total.event.cmp(event)).map_or(0, |found| totals[found].count)
        };
        let moving = sums.into_iter().map(|(event, count)| {
            let (total, rate) = (total_of(event), a_second(count));
            let (total_text, rate_text) = (grouped(total), rate_text(rate));
            Moving { event: event.clone(), total, total_text, rate, rate_text }
        });
        (Some(a_second(all)), moving.collect())
    }
}

/// What each event has more than before. Both are sorted; administrators can also make counts shrink.
fn growth(before: &[EventTotal], after: &[EventTotal]) -> BTreeMap<EventName, u64> {
    let mut before = before.iter().peekable();
    let mut grown = BTreeMap::new();
    for total in after {
        while before.next_if(|earlier| earlier.event < total.event).is_some() {}
        let earlier = before.next_if(|earlier| earlier.event == total.event).map_or(0, |earlier| earlier.count);
        if total.count > earlier {
            grown.insert(total.event.clone(), total.count - earlier);
        }
    }
    grown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn totals(counts: &[(&str, u64)]) -> Vec<EventTotal> {
        let hour = Hour::from_number(1).unwrap();
        let total = |(event, count): &(&str, u64)| EventTotal {
            event: EventName::parse(event).unwrap(),
            count: *count,
            first_hour: hour,
            last_hour: hour,
        };
        counts.iter().map(total).collect()
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_falls_to_zero() {
        let (mut window, start) = (Window::default(), Instant::now());
        window.note(totals(&[("a", 100)]), start);
        assert_eq!(window.rates(), (None, vec![]));
        window.note(totals(&[("a", 130), ("b", 10)]), start + Duration::from_secs(2));
        let (rate, moving) = window.rates();
        assert_eq!(rate, Some(20.0));
        let moving: Vec<_> = moving.iter().map(|m| (m.event.as_str(), m.total, m.rate)).collect();
        assert_eq!(moving, [("a", 130, 15.0), ("b", 10, 5.0)]);
        for second in 3..=12 {
            window.note_nothing(start + Duration::from_secs(second));
        }
        assert_eq!(window.rates(), (Some(0.0), vec![]));
    }

    #[test]
    fn counts_that_an_administrator_takes_away_are_no_negative_rate() {
        assert!(growth(&totals(&[("a", 5), ("b", 5)]), &totals(&[("b", 3)])).is_empty());
    }
}
