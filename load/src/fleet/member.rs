//! One node of the fleet, what it counts, and who reads what another one counts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow, ensure};
use event_tracker::domain::{Ack, EventName, Hour, HourRange};
use event_tracker::journal::{self, DataDir};
use event_tracker::names::Limits;
use event_tracker::node::{Drained, Node, Options};
use event_tracker::{flusher, store};
use hdrhistogram::Histogram;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::FleetArgs;

/// How often a marker is counted; many are in one flush, so that the oldest of a flush are among them.
const MARKER_INTERVAL: Duration = Duration::from_millis(7);
/// How often another node is asked for it.
const READ_INTERVAL: Duration = Duration::from_millis(5);
const TOTALS_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than anything that is still in order.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// What one node counts all the time, every few milliseconds one.
pub(super) struct Marker {
    event: EventName,
    /// When each was acknowledged.
    acknowledged: Mutex<Vec<Instant>>,
}

impl Marker {
    fn at(&self, index: usize) -> Option<Instant> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).get(index).copied()
    }

    fn len(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

pub(super) struct Member {
    node: Arc<Node>,
    events: Arc<[EventName]>,
    marker: Arc<Marker>,
    stop_counting: CancellationToken,
    counting: Option<JoinHandle<anyhow::Result<Vec<u64>>>>,
    marking: Option<JoinHandle<anyhow::Result<()>>>,
    stop_running: CancellationToken,
    running: Option<JoinHandle<()>>,
}

impl Member {
    /// A node in a new folder, that counts all its counters as soon as they are flushed, again and again.
    pub(super) async fn start(args: &FleetArgs, number: usize, path: &Path, url: &str) -> anyhow::Result<Self> {
        let store_options = store::Options {
            url: url.to_owned(),
            fold_interval_ms: args.fold_interval_ms,
            ..store::Options::default()
        };
        let store = store::open(&store_options, path).await?;
        let options = Options {
            journal: journal::Options::default(),
            flush: flusher::Options {
                interval_ms: args.flush_interval_ms,
                shutdown_timeout_ms: 60_000,
                retry_backoff_max_ms: 1_000,
            },
            fold_interval_ms: args.fold_interval_ms,
            limits: Limits { events_max: 10_000_000 },
        };
        let dir = DataDir::lock(path).with_context(|| format!("node {number}"))?;
        let (node, _) = Node::recover(dir, store, options, Arc::new(SystemTime::now))?;
        let node = Arc::new(node);
        node.meet_store().await.with_context(|| format!("node {number} can't use the database"))?;
        let owner = (!args.shared).then_some(number);
        let names = (0..args.counters).map(|counter| Ok(EventName::parse(&name(owner, counter))?));
        let events: Arc<[EventName]> = names.collect::<anyhow::Result<Vec<_>>>()?.into();
        let event = EventName::parse(&format!("marker-{number}"))?;
        let marker = Arc::new(Marker { event, acknowledged: Mutex::default() });
        let (stop_counting, stop_running) = (CancellationToken::new(), CancellationToken::new());
        // Nodes do not flush in step: each begins at its own time of an interval.
        let delay = args.flush_interval().mul_f64(number as f64 / args.nodes as f64);
        let look = (args.flush_interval() / 20).max(Duration::from_millis(1));
        let counting = count(Arc::clone(&node), Arc::clone(&events), number, look, stop_counting.clone());
        let marking = mark(Arc::clone(&node), Arc::clone(&marker), stop_counting.clone());
        let running = {
            let (node, stop) = (Arc::clone(&node), stop_running.clone());
            async move {
                tokio::time::sleep(delay).await;
                node.run(stop).await;
            }
        };
        Ok(Self {
            counting: Some(tokio::spawn(counting)),
            marking: Some(tokio::spawn(marking)),
            running: Some(tokio::spawn(running)),
            node,
            events,
            marker,
            stop_counting,
            stop_running,
        })
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(super) fn marker(&self) -> &Arc<Marker> {
        &self.marker
    }

    /// Counts no more, puts everything into the store, and adds what it has acknowledged to `expected`.
    pub(super) async fn stop(&mut self, expected: &mut BTreeMap<String, u64>) -> anyhow::Result<()> {
        self.stop_counting.cancel();
        if let (Some(counting), Some(marking)) = (self.counting.take(), self.marking.take()) {
            marking.await??;
            for (event, count) in self.events.iter().zip(counting.await??) {
                *expected.entry(event.as_str().to_owned()).or_default() += count;
            }
            expected.insert(self.marker.event.as_str().to_owned(), self.marker.len() as u64);
        }
        self.stop_running.cancel();
        if let Some(running) = self.running.take() {
            running.await?;
        }
        let drained = self.node.drain(DRAIN_TIMEOUT).await;
        let health = self.node.query.store_status();
        ensure!(drained == Drained::Stored, "a node could not get its counts into the store: {drained:?}, {health:?}");
        Ok(())
    }

    pub(super) async fn close(self) {
        self.node.store.close().await;
    }
}

/// About as long as a route, and no more alike than those.
fn name(owner: Option<usize>, counter: usize) -> String {
    let seed = ((owner.map_or(0, |owner| owner as u64 + 1) << 32) | counter as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let code = (seed ^ (seed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
    match owner {
        Some(owner) => format!("shop/item/{code:06x}-{owner}-{counter}"),
        None => format!("shop/item/{code:06x}-{counter}"),
    }
}

/// Counts each event once a flush; gives how often each was counted in all.
async fn count(
    node: Arc<Node>,
    events: Arc<[EventName]>,
    number: usize,
    look: Duration,
    stop: CancellationToken,
) -> anyhow::Result<Vec<u64>> {
    let mut sums = vec![0; events.len()];
    let mut last = None;
    loop {
        let committed = node.batches.recent_commits().through.get(&node.batches.writer()).copied();
        let committed = Some(committed.map_or(0, |seq| seq.0));
        if committed != last {
            last = committed;
            let hour = Hour::containing((node.clock)());
            let mut ticket = None;
            for (index, (event, sum)) in events.iter().zip(&mut sums).enumerate() {
                // Counts of real events differ, and what is all the same is stored in next to no space.
                let mixed = (*sum + index as u64 + number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let count = 1 + (mixed >> 57);
                ticket = Some(node.batches.record(event, hour, count)?.ticket);
                *sum += count;
            }
            if let Some(ticket) = ticket {
                node.batches.wait_durable(ticket, Ack::Journal).await?;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(sums),
            () = tokio::time::sleep(look) => {}
        }
    }
}

async fn mark(node: Arc<Node>, marker: Arc<Marker>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(MARKER_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = tick.tick() => {}
        }
        let recorded = node.batches.record(&marker.event, Hour::containing((node.clock)()), 1)?;
        node.batches.wait_durable(recorded.ticket, Ack::Journal).await?;
        marker.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }
}

/// How old what other nodes counted is when it shows, in microseconds, and how long reads take.
pub(super) struct Ages {
    pub(super) shown_us: Histogram<u64>,
    pub(super) totals_us: Histogram<u64>,
}

impl Default for Ages {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the histogram accepts")]
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("constant bounds");
        Self { shown_us: histogram(), totals_us: histogram() }
    }
}

/// Reads one node's marker at another node.
pub(super) struct Reader {
    marker: Arc<Marker>,
    /// How many have shown so far.
    shown: Arc<AtomicUsize>,
    stop: CancellationToken,
    reading: JoinHandle<anyhow::Result<Seen>>,
    patience: Duration,
}

/// When each count of a marker showed first, and how long each read of all totals took from when on.
#[derive(Default)]
struct Seen {
    shown: Vec<Instant>,
    totals: Vec<(Instant, Duration)>,
}

impl Reader {
    pub(super) fn start(of: &Arc<Marker>, at: &Arc<Node>, flush_interval: Duration) -> Self {
        let stop = CancellationToken::new();
        let shown = Arc::<AtomicUsize>::default();
        let reading = tokio::spawn(read(Arc::clone(of), Arc::clone(at), Arc::clone(&shown), stop.clone()));
        Self { marker: Arc::clone(of), shown, stop, reading, patience: flush_interval * 2 + Duration::from_secs(5) }
    }

    /// Goes on until it has seen all that was acknowledged within `span`, for as long as is reasonable.
    pub(super) async fn end(self, span: Range<Instant>, ages: &mut Ages) -> anyhow::Result<()> {
        let wanted = self.marker.len();
        let began = Instant::now();
        while self.shown.load(Ordering::Relaxed) < wanted && began.elapsed() < self.patience {
            tokio::time::sleep(READ_INTERVAL).await;
        }
        self.stop.cancel();
        let Seen { shown, totals } = self.reading.await??;
        for index in (0..wanted).filter(|index| self.marker.at(*index).is_some_and(|at| span.contains(&at))) {
            let at = self.marker.at(index).ok_or_else(|| anyhow!("a marker is gone"))?;
            // A count that did not show at all is at least as old as that.
            let shown = shown.get(index).copied().unwrap_or_else(Instant::now);
            ages.shown_us.saturating_record(micros(shown.saturating_duration_since(at)));
        }
        for (_, took) in totals.iter().filter(|(began, _)| span.contains(began)) {
            ages.totals_us.saturating_record(micros(*took));
        }
        Ok(())
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn read(
    marker: Arc<Marker>,
    node: Arc<Node>,
    shown: Arc<AtomicUsize>,
    stop: CancellationToken,
) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut totals_due = Instant::now();
    // The one hour before may have begun the run.
    let first = Hour::containing((node.clock)());
    while !stop.is_cancelled() {
        let range = HourRange { first, last: Hour::containing((node.clock)()).plus(1) };
        let hours = node.query.event_hours(&marker.event, range).await?;
        let (count, now) = (hours.iter().map(|row| row.count).sum::<u64>(), Instant::now());
        while (seen.shown.len() as u64) < count {
            seen.shown.push(now);
        }
        shown.store(seen.shown.len(), Ordering::Relaxed);
        if totals_due <= now {
            totals_due = now + TOTALS_INTERVAL;
            node.query.totals().await?;
            seen.totals.push((now, now.elapsed()));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(READ_INTERVAL) => {}
        }
    }
    Ok(seen)
}
