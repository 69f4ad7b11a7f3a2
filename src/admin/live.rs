//! Live numbers by server-sent events: one producer looks once a second while somebody listens, and
//! all overviews are sent the same bytes; an event's page is sent that event in place of the
//! liveliest. Who is slow gets the latest, not all.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use warp::Reply;
use warp::reply::Response;

use super::State;
use super::activity::aside;
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
/// Who polls is expected again within this time.
const POLL_MAX: Duration = Duration::from_secs(15);
/// A poll waits so long for the first look.
const POLL_PATIENCE: Duration = Duration::from_secs(5);
/// The rate is that of the last so many looks.
const WINDOW: usize = 10;
/// Events whose counts moved within the window, the liveliest first.
const EVENTS_MAX: usize = 50;

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Moving {
    event: EventName,
    total: u64,
    total_text: String,
    /// A second, over the window; `None` before there are two looks.
    rate: Option<f64>,
    rate_text: String,
}

/// What everybody is told.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Look {
    /// Occurrences a second, over the window; `None` before there are two looks.
    rate: Option<f64>,
    rate_text: String,
    /// `None` while the store could not be read yet, like the next two.
    total: Option<u64>,
    total_text: String,
    /// Since the beginning of the current hour, UTC.
    this_hour: Option<u64>,
    hour: Hour,
    /// How many changes administrators have made: these move totals, too.
    catalog: u64,
    status: Status,
}

struct Frame {
    number: u64,
    look: Look,
    /// The liveliest events.
    events: Vec<Moving>,
    rates: Option<Rates>,
    /// As overviews are sent it.
    bytes: Bytes,
}

#[derive(Serialize)]
struct Snapshot<'a> {
    #[serde(flatten)]
    look: &'a Look,
    events: &'a [Moving],
}

impl Frame {
    fn new(number: u64, look: Look, events: Vec<Moving>, rates: Option<Rates>) -> Self {
        let bytes = message(number, &Snapshot { look: &look, events: &events });
        Self { number, look, events, rates, bytes }
    }

    fn message(&self, event: Option<&EventName>) -> Bytes {
        match event {
            None => self.bytes.clone(),
            Some(event) => message(self.number, &Snapshot { look: &self.look, events: &self.of(event) }),
        }
    }

    /// The event as it moves; nothing of what is deleted or was never counted.
    fn of(&self, event: &EventName) -> Vec<Moving> {
        self.rates.iter().filter_map(|rates| rates.of(event)).collect()
    }
}

fn message(number: u64, snapshot: &Snapshot<'_>) -> Bytes {
    // It holds no map with keys that are no text, the one thing that would fail.
    let json = serde_json::to_string(snapshot).unwrap_or_default();
    Bytes::from(format!("id: {number}\ndata: {json}\n\n"))
}

pub(super) struct Live {
    /// `None` while nobody looks.
    latest: watch::Sender<Option<Arc<Frame>>>,
    number: AtomicU64,
    polled_at: Mutex<Option<Instant>>,
    slots: Arc<Semaphore>,
    producing: AtomicBool,
}

impl Live {
    pub(super) fn new(streams_max: usize) -> Self {
        Self {
            latest: watch::Sender::new(None),
            // Who was told something by an earlier process has not seen what this one has to say.
            number: AtomicU64::new(rand::random::<u32>().into()),
            polled_at: Mutex::new(None),
            slots: Arc::new(Semaphore::new(streams_max.min(Semaphore::MAX_PERMITS))),
            producing: AtomicBool::new(false),
        }
    }

    fn is_watched(&self) -> bool {
        let is_polled = || self.polled_at.lock().is_some_and(|at| at.elapsed() < POLL_MAX);
        self.latest.receiver_count() > 0 || is_polled()
    }
}

/// Whom `?event=` asks for.
fn subject(request: &Request) -> Result<Option<EventName>, Failure> {
    match request.query().get("event") {
        "" => Ok(None),
        name => EventName::parse(name).map(Some).map_err(|error| Failure::BadRequest(format!("{error}."))),
    }
}

/// `GET /admin/live?event=`
pub(super) fn stream(state: &'static State, request: &Request, who: Who) -> Result<Response, Failure> {
    let event = subject(request)?;
    let Ok(slot) = Arc::clone(&state.live.slots).try_acquire_owned() else { return Err(Failure::Busy) };
    if state.draining.is_cancelled() {
        return Err(Failure::Busy);
    }
    let mut frames = state.live.latest.subscribe();
    begin_producing(state);
    // Who comes back and has seen the latest is not told it again.
    let seen = request.header("last-event-id").and_then(|id| id.parse::<u64>().ok());
    let is_news = frames.borrow().as_ref().is_some_and(|frame| seen != Some(frame.number));
    if is_news {
        frames.mark_changed();
    } else {
        frames.mark_unchanged();
    }
    let end = tokio::time::Instant::now() + jittered(STREAM_AGE_MAX);
    let access = Access { state, who, changed: state.access_changed.subscribe(), due: next_access_check() };
    let streaming = (frames, slot, event, access);
    let frames = stream::unfold(streaming, move |(mut frames, slot, event, mut access)| async move {
        let bytes = loop {
            tokio::select! {
                biased;
                () = state.draining.cancelled() => return None,
                () = tokio::time::sleep_until(end) => return None,
                () = access.lost() => return None,
                changed = frames.changed() => {
                    changed.ok()?;
                    let Some(frame) = frames.borrow_and_update().clone() else { continue };
                    break frame.message(event.as_ref());
                }
                () = tokio::time::sleep(HEARTBEAT) => break Bytes::from_static(b":\n\n"),
            }
        };
        Some((Ok::<_, Infallible>(bytes), (frames, slot, event, access)))
    });
    let opening = stream::once(async { Ok(Bytes::from_static(b"retry: 3000\n\n")) });
    let mut response = warp::reply::stream(futures_util::StreamExt::chain(opening, frames)).into_response();
    let mut add = |name, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
    add(CONTENT_TYPE, "text/event-stream");
    add(HeaderName::from_static("x-accel-buffering"), "no");
    Ok(response)
}

/// `GET /admin/live.json?event=` and `GET /api/v1/admin/status`: the latest of the same, at most a
/// second old, for browsers and proxies that don't do streams.
pub(super) async fn once(state: &'static State, request: &Request) -> Result<Response, Failure> {
    let event = subject(request)?;
    *state.live.polled_at.lock() = Some(Instant::now());
    let mut frames = state.live.latest.subscribe();
    begin_producing(state);
    let first = tokio::time::timeout(POLL_PATIENCE, frames.wait_for(Option::is_some)).await;
    let frame = first.ok().and_then(|found| found.ok()?.clone()).ok_or(Failure::Busy)?;
    let of_event = event.map(|event| frame.of(&event));
    Ok(success(&Snapshot { look: &frame.look, events: of_event.as_ref().unwrap_or(&frame.events) }))
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
    let live = &state.live;
    let mut window = Window::default();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_moving = true;
    while !state.draining.is_cancelled() {
        ticks.tick().await;
        if !live.is_watched() {
            live.latest.send_replace(None);
            live.producing.store(false, Ordering::Release);
            // Somebody may have come meanwhile.
            if !live.is_watched() || live.producing.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        state.look_at_store().await;
        let hour = Hour::containing((state.clock)());
        // While the store is away, the status says so; the numbers stay as they were.
        let _ = window.read(state, hour).await;
        let rates = window.rates();
        let is_moving = rates.as_ref().is_some_and(Rates::is_moving);
        let Ok((look, events)) = window.look(state, hour, rates.clone()).await else { continue };
        let is_old = live.latest.borrow().as_ref().is_some_and(|old| old.look == look && old.events == events);
        // An event that is not among the liveliest may move although nothing of this does.
        let is_still = !std::mem::replace(&mut was_moving, is_moving) && !is_moving;
        if !(is_still && is_old) {
            let number = live.number.fetch_add(1, Ordering::Relaxed) + 1;
            live.latest.send_replace(Some(Arc::new(Frame::new(number, look, events, rates))));
        }
    }
}

/// What the last looks saw.
#[derive(Default)]
struct Window {
    /// The state of the counts at the last look.
    seen: Option<(DataVersion, Hour)>,
    /// The version of the catalog at the last look.
    catalog: u64,
    this_hour: Option<u64>,
    /// All totals look by look; the same list while nothing changes.
    totals: VecDeque<(Instant, Totals)>,
}

type Totals = Arc<Vec<EventTotal>>;

impl Window {
    async fn read(&mut self, state: &State, hour: Hour) -> Result<(), StoreError> {
        let seen = Some((state.query.version().await?, hour));
        let unchanged = self.totals.back().filter(|_| self.seen == seen).map(|(_, totals)| Arc::clone(totals));
        if let Some(totals) = unchanged {
            self.note(totals, Instant::now());
            return Ok(());
        }
        let (mut totals, view) = state.query.all_totals().await?;
        totals.retain(|total| !view.hides(&total.event));
        let this_hour = state.query.hour_sums(HourRange { first: hour, last: hour }).await?;
        self.this_hour = Some(this_hour.first().map_or(0, |(_, count)| *count));
        // What an administrator moved or restored has not just been counted.
        if std::mem::replace(&mut self.catalog, view.catalog().version) != view.catalog().version {
            self.totals.clear();
        }
        self.seen = seen;
        self.note(Arc::new(totals), Instant::now());
        Ok(())
    }

    fn note(&mut self, totals: Totals, now: Instant) {
        self.totals.push_back((now, totals));
        while self.totals.len() > WINDOW + 1 {
            self.totals.pop_front();
        }
    }

    /// `None` before the first look.
    fn rates(&self) -> Option<Rates> {
        let ((begun, first), (ended, last)) = (self.totals.front()?, self.totals.back()?);
        let seconds = ended.saturating_duration_since(*begun).as_secs_f64();
        Some(Rates { seconds, first: Arc::clone(first), last: Arc::clone(last) })
    }

    async fn look(
        &self,
        state: &'static State,
        hour: Hour,
        rates: Option<Rates>,
    ) -> Result<(Look, Vec<Moving>), Failure> {
        let (rate, total, events) = match rates {
            None => (None, None, Vec::new()),
            Some(rates) => aside(move || rates.of_all()).await?,
        };
        let look = Look {
            rate,
            rate_text: rate.map(rate_text).unwrap_or_default(),
            total,
            total_text: total.map(grouped).unwrap_or_default(),
            this_hour: self.this_hour,
            hour,
            catalog: self.catalog,
            status: state.status(),
        };
        Ok((look, events))
    }
}

/// How totals differ between the first and the last look of the window. Both lists are sorted.
#[derive(Clone)]
struct Rates {
    seconds: f64,
    first: Totals,
    last: Totals,
}

impl Rates {
    fn is_moving(&self) -> bool {
        !Arc::ptr_eq(&self.first, &self.last)
    }

    #[allow(clippy::cast_precision_loss)]
    fn a_second(&self, count: u64) -> Option<f64> {
        (self.seconds > 0.0).then(|| (count as f64 / self.seconds * 10.0).round() / 10.0)
    }

    fn moving(&self, total: &EventTotal, grown: u64) -> Moving {
        let rate = self.a_second(grown);
        Moving {
            event: total.event.clone(),
            total: total.count,
            total_text: grouped(total.count),
            rate,
            rate_text: rate.map(rate_text).unwrap_or_default(),
        }
    }

    fn of(&self, event: &EventName) -> Option<Moving> {
        let find = |totals: &Totals| {
            totals.binary_search_by(|total| total.event.cmp(event)).ok().map(|index| totals[index].clone())
        };
        let total = find(&self.last)?;
        let before = find(&self.first).map_or(0, |total| total.count);
        Some(self.moving(&total, total.count.saturating_sub(before)))
    }

    /// The rate and the total of all, and the liveliest events.
    fn of_all(&self) -> (Option<f64>, Option<u64>, Vec<Moving>) {
        let mut grown = if self.is_moving() { growth(&self.first, &self.last) } else { Vec::new() };
        let all = grown.iter().map(|(count, _)| *count).fold(0, u64::saturating_add);
        grown.sort_by_key(|(count, _)| Reverse(*count));
        let events = grown.into_iter().take(EVENTS_MAX).map(|(count, total)| self.moving(total, count)).collect();
        let total = self.last.iter().map(|total| total.count).fold(0, u64::saturating_add);
        (self.a_second(all), Some(total), events)
    }
}

/// What each event has more than before. Both are sorted; administrators can also make counts shrink.
fn growth<'a>(before: &[EventTotal], after: &'a [EventTotal]) -> Vec<(u64, &'a EventTotal)> {
    let mut before = before.iter().peekable();
    let mut grown = Vec::new();
    for total in after {
        while before.next_if(|earlier| earlier.event < total.event).is_some() {}
        let earlier = before.next_if(|earlier| earlier.event == total.event).map_or(0, |earlier| earlier.count);
        if total.count > earlier {
            grown.push((total.count - earlier, total));
        }
    }
    grown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn totals(counts: &[(&str, u64)]) -> Totals {
        let hour = Hour::from_number(1).unwrap();
        let total = |(event, count): &(&str, u64)| EventTotal {
            event: EventName::parse(event).unwrap(),
            count: *count,
            first_hour: hour,
            last_hour: hour,
        };
        Arc::new(counts.iter().map(total).collect())
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_falls_to_zero() {
        let (mut window, start) = (Window::default(), Instant::now());
        assert!(window.rates().is_none(), "nothing is known before the first look");
        window.note(totals(&[("a", 100)]), start);
        assert_eq!(window.rates().unwrap().of_all(), (None, Some(100), vec![]));
        let last = totals(&[("a", 130), ("b", 10)]);
        window.note(Arc::clone(&last), start + Duration::from_secs(2));
        let (rate, total, moving) = window.rates().unwrap().of_all();
        assert_eq!((rate, total), (Some(20.0), Some(140)));
        let moving: Vec<_> = moving.iter().map(|m| (m.event.as_str(), m.total, m.rate)).collect();
        assert_eq!(moving, [("a", 130, Some(15.0)), ("b", 10, Some(5.0))]);
        for second in 3..=12 {
            window.note(Arc::clone(&last), start + Duration::from_secs(second));
        }
        assert_eq!(window.rates().unwrap().of_all(), (Some(0.0), Some(140), vec![]));
    }

    #[test]
    fn any_event_has_a_rate_however_many_are_livelier() {
        let names: Vec<String> = (0..100).map(|number| format!("{number:02}")).collect();
        let at = |times: u64| {
            let counts: Vec<_> = (1_u64..).zip(&names).map(|(count, name)| (&**name, times * count)).collect();
            totals(&counts)
        };
        let rates = Rates { seconds: 1.0, first: at(1), last: at(2) };
        let (_, _, liveliest) = rates.of_all();
        assert_eq!((liveliest.len(), liveliest[0].rate), (EVENTS_MAX, Some(100.0)));
        let quiet = rates.of(&EventName::parse("02").unwrap()).unwrap();
        assert_eq!((quiet.total, quiet.rate), (6, Some(3.0)));
        assert!(rates.of(&EventName::parse("never").unwrap()).is_none());
    }

    #[test]
    fn counts_that_an_administrator_takes_away_are_no_negative_rate() {
        assert!(growth(&totals(&[("a", 5), ("b", 5)]), &totals(&[("b", 3)])).is_empty());
    }
}
