//! The counting core under schedules that are drawn at random, and under those that give way at a few points only:
//! at every lock and atomic any thread may go on. `SCHEDULES` says how many of each kind are tried (1,500).

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize as Tally;

use event_schedules::batch::Batches;
use event_schedules::domain::{Ack, BatchId, BatchSeq, EventName, Hour, WriterId};
use event_schedules::journal::{DataDir, Options};
use event_schedules::names::{Limits, Names};
use event_schedules::server::worker::connection;
use shuttle::future::block_on;
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

/// How many points of a schedule of the second kind are not as the scheduler would have it.
const CHANGES: usize = 3;

fn under_all_schedules(model: impl Fn() + Send + Sync + Clone + 'static) {
    let schedules = std::env::var("SCHEDULES").map_or(1_500, |text| text.parse().unwrap());
    shuttle::check_random(model.clone(), schedules);
    shuttle::check_pct(model, schedules, CHANGES);
}

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A node's batches on that folder, which it has to itself.
fn start(folder: &Path, options: Options) -> Batches {
    let names = Arc::new(Names::new(Limits { events_max: 10 }));
    Batches::recover(&DataDir::lock(folder).unwrap(), options, names).unwrap().0
}

fn quiet() -> Options {
    Options { own_thread: false, ..Options::default() }
}

fn hour() -> Hour {
    Hour::from_number(400_000).unwrap()
}

/// So long that some records are more than a snapshot of their counters.
fn name(number: usize) -> EventName {
    EventName::parse(&format!("{number}{}", "-".repeat(250))).unwrap()
}

/// The sum of the counts in each sealed batch of a writer.
fn sealed(batches: &Batches, writer: WriterId) -> BTreeMap<BatchSeq, u64> {
    let sealed = batches.sealed_through(writer, BatchSeq(u64::MAX));
    let sum = |batch| batches.sealed_rows(batch).iter().map(|row| row.count).sum();
    sealed.iter().map(|batch| (batch.id.seq, sum(batch))).collect()
}

/// Counts `times` times at level `journal`, each time another power of two.
fn count(batches: &Batches, number: usize, times: usize) {
    for time in 0..times {
        let count = 1 << (number * times + time);
        let recorded = batches.record(&name(number), hour(), count).unwrap();
        block_on(batches.wait_durable(recorded.ticket, Ack::Journal)).unwrap();
    }
}

#[test]
fn what_is_counted_while_batches_are_sealed_is_in_one_of_them_and_in_its_segment() {
    under_all_schedules(|| {
        let folder = folder();
        let batches = Arc::new(start(folder.path(), quiet()));
        let writers: Vec<_> = (0..2)
            .map(|number| {
                let batches = Arc::clone(&batches);
                thread::spawn(move || count(&batches, number, 3))
            })
            .collect();
        for _ in 0..3 {
            batches.seal_behind().unwrap();
            thread::yield_now();
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        batches.seal_behind().unwrap();
        let (writer, in_memory) = (batches.writer(), sealed(&batches, batches.writer()));
        assert_eq!(in_memory.values().sum::<u64>(), (1 << 6) - 1, "an increment is in no batch, or in two");
        drop(batches);
        assert_eq!(sealed(&start(folder.path(), quiet()), writer), in_memory, "a segment is not its batch");
    });
}

/// A store: the sum of its rows, and the batches that brought them. Both are of one moment.
#[derive(Default)]
struct Store {
    total: u64,
    batches: Vec<BatchId>,
}

#[test]
fn a_reader_sees_each_acknowledged_increment_once_while_batches_are_committed() {
    under_all_schedules(|| {
        let folder = folder();
        let batches = Arc::new(start(folder.path(), quiet()));
        let store = Arc::new(Mutex::new(Store::default()));
        let (begun, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let writers: Vec<_> = (0..2)
            .map(|number| {
                let (batches, begun, acknowledged) =
                    (Arc::clone(&batches), Arc::clone(&begun), Arc::clone(&acknowledged));
                thread::spawn(move || {
                    for _ in 0..3 {
                        begun.fetch_add(1, Ordering::SeqCst);
                        batches.record(&name(number), hour(), 1).unwrap();
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let flusher = {
            let (batches, store) = (Arc::clone(&batches), Arc::clone(&store));
            thread::spawn(move || {
                for _ in 0..3 {
                    batches.seal().unwrap();
                    let Some(batch) = batches.oldest_sealed(&[]) else { continue };
                    let (rows, epoch) = (batches.sealed_rows(&batch), batches.epoch());
                    {
                        let mut store = store.lock().unwrap();
                        store.total += rows.iter().map(|row| row.count).sum::<u64>();
                        store.batches.push(batch.id);
                    }
                    batches.discard(&batch, rows.into(), epoch).unwrap();
                }
            })
        };
        let read = || {
            let least = acknowledged.load(Ordering::SeqCst);
            let mut pending = batches.pending();
            let (total, landed) = {
                let store = store.lock().unwrap();
                (store.total, store.batches.clone())
            };
            pending.drop_landed(|id, _| landed.contains(&id));
            let shown = total + pending.total();
            let most = begun.load(Ordering::SeqCst);
            assert!((least..=most).contains(&shown), "{shown} is shown, between {least} and {most} are counted");
        };
        (0..3).for_each(|_| read());
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        flusher.join().unwrap();
        read();
    });
}

#[test]
fn a_segment_that_is_replaced_by_a_snapshot_loses_nothing_that_is_counted_meanwhile() {
    let shortened = Arc::new(Tally::new(0));
    let tally = Arc::clone(&shortened);
    under_all_schedules(move || {
        let folder = folder();
        let options = Options { segment_bytes_max: 1, ..quiet() };
        let batches = Arc::new(start(folder.path(), options));
        // More than what four snapshots take of its one counter.
        count(&batches, 2, 5);
        let writers: Vec<_> = (0..2)
            .map(|number| {
                let batches = Arc::clone(&batches);
                thread::spawn(move || count(&batches, number, 5))
            })
            .collect();
        let sealer = {
            let batches = Arc::clone(&batches);
            thread::spawn(move || batches.seal_behind().unwrap())
        };
        for _ in 0..2 {
            let is_shorter = batches.shorten_segments().unwrap();
            tally.fetch_add(usize::from(is_shorter), std::sync::atomic::Ordering::Relaxed);
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        sealer.join().unwrap();
        batches.seal_behind().unwrap();
        let (writer, in_memory) = (batches.writer(), sealed(&batches, batches.writer()));
        assert_eq!(in_memory.values().sum::<u64>(), (1 << 15) - 1, "an increment is in no batch, or in two");
        drop(batches);
        assert_eq!(sealed(&start(folder.path(), options), writer), in_memory, "a snapshot is not its batch");
    });
    assert!(shortened.load(std::sync::atomic::Ordering::Relaxed) > 0, "nothing was ever shortened");
}

#[test]
fn all_that_wait_for_the_disk_are_told_when_it_has_their_counts() {
    under_all_schedules(|| {
        let folder = folder();
        let batches = Arc::new(start(folder.path(), Options::default()));
        let writers: Vec<_> = (0..3)
            .map(|number| {
                let batches = Arc::clone(&batches);
                thread::spawn(move || {
                    for _ in 0..2 {
                        let recorded = batches.record(&name(number), hour(), 1).unwrap();
                        block_on(batches.wait_durable(recorded.ticket, Ack::Disk)).unwrap();
                        assert!(batches.is_written(recorded.ticket));
                    }
                })
            })
            .collect();
        batches.seal_behind().unwrap();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert!(Arc::into_inner(batches).is_some(), "its thread ends with it");
    });
}

#[test]
fn every_answer_leaves_the_gate_after_its_count_is_in_the_journal() {
    under_all_schedules(|| {
        let folder = folder();
        // Connections may outlive everything; a test has to let go of it.
        let batches: &'static Batches = Box::leak(Box::new(start(folder.path(), quiet())));
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let connections = (0..3).map(move |_| connection(batches, name(worker), hour(), 2));
                thread::spawn(move || block_on(futures_util::future::join_all(connections)))
            })
            .collect();
        let sealed = batches.seal_behind().unwrap();
        let left: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        assert_eq!(left, [2; 6], "an answer has not left, sealed: {sealed}");
    });
}
