//! What the parts of event-tracker cost, each alone: `cargo bench -p event-load`, ten seconds once built.
//!
//! Nothing here judges: compare two runs on one quiet machine. What the whole does under traffic is
//! measured by the scenarios.

#![allow(clippy::unwrap_used, reason = "a benchmark that can't be set up may fail by panicking")]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use event_tracker::api::countable_items;
use event_tracker::batch::Batches;
use event_tracker::counts::Counts;
use event_tracker::domain::{Ack, Day, EventName, EventTotal, Hour};
use event_tracker::histogram::{self, Format, Series, Size};
use event_tracker::journal::segment::HEADER_BYTES;
use event_tracker::journal::segment::Kind;
use event_tracker::journal::{self, DataDir, record, replay};
use event_tracker::names::{Limits, NameId, Names};
use event_tracker::rows;
use rand::Rng;

/// The allocator of the service: times and memory are to be the service's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whether a table fits into the processor's caches decides about most of these times.
const FEW_AND_MANY: [usize; 2] = [10, 1_000_000];
/// Calls a sample, where one takes nanoseconds: what divan guesses from a first, cold call is too few.
const FAST: u32 = 10_000;
const BATCH_ITEMS: usize = 10_000;
const LINES: &str = "lines";
/// Form and number of different names.
const BATCHES: [(&str, usize); 4] = [("array", 10), ("array", BATCH_ITEMS), (LINES, 10), (LINES, BATCH_ITEMS)];
const SEALED_COUNTERS: usize = 100_000;
const SEGMENT_BYTES: u64 = 10_000_000;
const COMMITTED_EVENTS: usize = 10_000;
const PENDING_EVENTS: usize = 1_000;

fn main() {
    if std::env::args().any(|argument| argument == "--bench") {
        print_memory_per_counter();
    }
    divan::Divan::default().sample_count(50).max_time(Duration::from_millis(700)).config_with_args().main();
}

#[divan::bench(args = FEW_AND_MANY, sample_size = FAST)]
fn admit_a_known_name(bencher: Bencher, known: usize) {
    let (names, _) = known_names(known);
    bencher.with_inputs(|| any_event(known)).bench_refs(|event| names.admit(event, 1).is_ok());
}

#[divan::bench(args = FEW_AND_MANY, sample_size = FAST)]
fn add_to_a_counter(bencher: Bencher, counters: usize) {
    let (_, ids) = known_names(counters);
    let counts = filled_counts(&ids);
    bencher
        .with_inputs(|| ids[rand::rng().random_range(0..counters)])
        .bench_values(|name| counts.add(name, hour(), black_box(1)));
}

#[divan::bench(args = ["event-0000000001", "resource%2F209", "%D0%92%D1%85%D0%BE%D0%B4"], sample_size = FAST)]
fn decode_a_path_segment(segment: &str) -> bool {
    EventName::from_path_segment(black_box(segment)).is_ok()
}

#[divan::bench(sample_size = FAST)]
fn encode_a_journal_record(bencher: Bencher) {
    let (event, mut bytes) = (event(0), Vec::with_capacity(1024));
    bencher.bench_local(|| {
        bytes.clear();
        let count = [(black_box(&event).as_str(), black_box(1))];
        record::encode_counts(&mut bytes, record::Seed(1), HEADER_BYTES, hour(), count);
        black_box(&bytes).len()
    });
}

/// All that a POST acknowledged at level `memory` does behind the HTTP layer.
#[divan::bench(args = FEW_AND_MANY, threads = [1, 2], sample_size = FAST)]
fn record_an_increment(bencher: Bencher, counters: usize) {
    let node = Node::with_counters(counters);
    bencher.with_inputs(|| any_event(counters)).bench_refs(|event| {
        let recorded = node.batches.record(event, hour(), 1).is_ok();
        node.batches.write_behind();
        recorded
    });
}

/// Up to where it is recorded. One item in three has a count.
#[divan::bench(args = BATCHES, sample_size = 1)]
fn add_up_a_batch(bencher: Bencher, (form, names): (&str, usize)) {
    let item = |number: usize| match (event(number % names), number % 3) {
        (event, 0) => format!(r#"{{"event":"{}","count":{number}}}"#, event.as_str()),
        (event, _) => format!(r#"{{"event":"{}"}}"#, event.as_str()),
    };
    let items: Vec<String> = (1..=BATCH_ITEMS).map(item).collect();
    let (body, is_lines) =
        if form == LINES { (items.join("\n"), true) } else { (format!("[{}]", items.join(",")), false) };
    assert_eq!(countable_items(body.as_bytes(), is_lines), BATCH_ITEMS as u64);
    bencher
        .counter(ItemsCount::new(BATCH_ITEMS))
        .counter(BytesCount::of_str(&body))
        .bench(|| countable_items(black_box(body.as_bytes()), is_lines));
}

/// The stall that a flush means for POSTs lies within; so do two syncs of the temporary folder.
#[divan::bench(sample_size = 1)]
fn seal_100_000_counters(bencher: Bencher) {
    bencher.with_inputs(|| Node::with_counters(SEALED_COUNTERS)).bench_local_refs(|node| node.batches.seal().unwrap());
}

#[divan::bench(sample_size = 1)]
fn sort_the_rows_of_100_000_counters(bencher: Bencher) {
    let node = Node::with_counters(SEALED_COUNTERS);
    assert!(node.batches.seal().unwrap());
    let batch = node.batches.oldest_sealed(&[]).unwrap();
    bencher.counter(ItemsCount::new(SEALED_COUNTERS)).bench_local(|| node.batches.sealed_rows(&batch));
}

#[divan::bench(sample_size = 1)]
fn replay_a_segment_of_10_mb(bencher: Bencher) {
    let node = Node::with_counters(1_000);
    while node.batches.journal().active_bytes() < SEGMENT_BYTES {
        for number in 0..1_000 {
            node.batches.record(&event(number), hour(), 1).unwrap();
        }
        node.batches.journal().write_all().unwrap();
    }
    let files = node.batches.journal().files();
    let id = replay::find(files).unwrap().pending[0];
    bencher
        .counter(BytesCount::new(node.batches.journal().active_bytes()))
        .bench_local(|| replay::replay(files, id, Kind::Pending, false).unwrap());
}

#[divan::bench]
fn merge_10_000_totals_with_1_000_pending(bencher: Bencher) {
    let totals = |events: usize, step: usize| -> Vec<EventTotal> {
        let total = |number| EventTotal { event: event(number), count: 1, first_hour: hour(), last_hour: hour() };
        (0..events).map(|number| total(number * step)).collect()
    };
    let committed = totals(COMMITTED_EVENTS, 1);
    let pending = totals(PENDING_EVENTS, COMMITTED_EVENTS / PENDING_EVENTS);
    bencher.with_inputs(|| pending.clone()).bench_values(|pending| rows::merge(&committed, pending));
}

/// 1000 x 500 pixels.
#[divan::bench(args = Format::ALL)]
fn draw_a_histogram(bencher: Bencher, format: Format) {
    let counts = std::array::from_fn(|hour| 1_000 + 137 * (hour as u64 * 7 % 24));
    let series = Series { event: event(0), day: Day::containing(hour()), counts };
    bencher.bench(|| histogram::render(black_box(&series), Size::default(), format).unwrap());
}

/// A node without a server and a store. The fields go in this order: the folder last.
struct Node {
    batches: Batches,
    _lock: DataDir,
    _dir: tempfile::TempDir,
}

impl Node {
    /// Its open batch holds the counters of the first `counters` events.
    fn with_counters(counters: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lock = DataDir::lock(dir.path()).unwrap();
        let (segment_bytes_max, bytes_max) = (1 << 40, 1 << 41);
        let options = journal::Options { ack: Ack::Memory, segment_bytes_max, bytes_max, ..Default::default() };
        let names = Arc::new(Names::new(limits()));
        let (batches, _) = Batches::recover(&lock, options, names).unwrap();
        for number in 0..counters {
            batches.record(&event(number), hour(), 1).unwrap();
        }
        Self { batches, _lock: lock, _dir: dir }
    }
}

fn limits() -> Limits {
    Limits { events_max: u64::MAX }
}

/// The name is 16 bytes long.
fn event(number: usize) -> EventName {
    EventName::parse(&format!("event-{number:010}")).unwrap()
}

fn any_event(known: usize) -> EventName {
    event(rand::rng().random_range(0..known))
}

fn hour() -> Hour {
    Hour::from_number(450_000).unwrap()
}

fn known_names(known: usize) -> (Names, Vec<NameId>) {
    let names = Names::new(limits());
    let ids = (0..known).map(|number| names.learn(&event(number), 0)).collect();
    (names, ids)
}

fn filled_counts(ids: &[NameId]) -> Counts {
    let counts = Counts::with_capacity(ids.len());
    ids.iter().for_each(|name| counts.add(*name, hour(), 1));
    counts
}

/// By how much the process grows, so what the allocator and half-full tables waste is included.
fn print_memory_per_counter() {
    const COUNTERS: usize = 1_000_000;
    let Some(at_start) = resident_bytes() else { return };
    let (names, ids) = known_names(COUNTERS);
    let id_bytes = (ids.capacity() * size_of::<NameId>()) as u64;
    let with_names = resident_bytes().unwrap_or_default().saturating_sub(id_bytes);
    let counts = filled_counts(&ids);
    let with_counts = resident_bytes().unwrap_or_default().saturating_sub(id_bytes);
    let each = |before: u64, after: u64| after.saturating_sub(before) / COUNTERS as u64;
    let (name, counter) = (each(at_start, with_names), each(with_names, with_counts));
    black_box((names, counts));
    let text = "memory of 1,000,000 live counters with names of 16 bytes, each";
    let _ = writeln!(std::io::stdout(), "{text}: {name} bytes the name, {counter} bytes the counter\n");
}

/// `None` where there is no `/proc`.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kilobytes.parse::<u64>().ok()? * 1024)
}
