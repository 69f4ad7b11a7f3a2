//! Whatever the disk refuses, and whenever: what was acknowledged stays, once; and a node comes to work
//! again by itself, or ends and can be started again.

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use event_tracker::store::sqlite::SqliteStore;
use futures_util::FutureExt as _;

use crate::harness::faulty_files::{EIO, ENOSPC, EROFS, Fault, Kind, Way};
use crate::harness::keeper;
use life::{Case, Life};

mod account;
mod life;

/// What went wrong, for people.
type Outcome<T = ()> = Result<T, String>;

/// Most of a life is spent waiting for other threads.
const SIDE_BY_SIDE: usize = 12;
/// A life takes a tenth of a second, on a busy machine some seconds.
const LIFE_MAX: Duration = Duration::from_secs(300);
/// Of faults that stay, one is taken of so many neighbours: they differ little.
const STRIDE: u64 = 5;
/// Shown of many.
const FAILURES_MAX: usize = 12;

/// Lives it, and gives what was counted on the disk.
async fn live(case: Case) -> (Outcome, String, Vec<(Option<Kind>, u64)>) {
    let folder = keeper::folder_in_memory("event-tracker-test", None);
    let store = Arc::new(SqliteStore::open(&folder.path().join("events.sqlite")).unwrap());
    let data = folder.path().join("data");
    let mut life = Life::new(case, &data, store);
    let outcome = AssertUnwindSafe(life.live()).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| Err("a panic".into()));
    let (counted, all) = life.counted();
    let kinds = Kind::ALL.into_iter().map(|kind| (Some(kind), counted[kind as usize]));
    (outcome, life.to_string(), kinds.chain([(None, all)]).collect())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A life that hangs in a loop can't be told to stop: the test ends as a whole, and says in which.
struct Watched {
    _ends: std::sync::mpsc::Sender<()>,
}

impl Watched {
    fn begin(case: Case) -> Self {
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if ended.recv_timeout(LIFE_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // Not as a part of what the test prints, which nobody would see.
                let _ = writeln!(std::io::stderr(), "this life does not end: {case:?}");
                std::process::abort();
            }
        });
        Self { _ends: sender }
    }
}

/// Lives all of them side by side.
fn live_all(cases: &[Case]) {
    let (next, failures) = (AtomicUsize::new(0), parking_lot::Mutex::new(Vec::new()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                let runtime = runtime();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let _watched = Watched::begin(*case);
                    let (outcome, log, _) = runtime.block_on(live(*case));
                    if let Err(error) = outcome {
                        failures.lock().push((*case, error, log));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    eprintln!("{} lives in {:.1} s, {} of them wrong", cases.len(), began.elapsed().as_secs_f64(), failures.len());
    for (case, error, log) in failures.iter().take(FAILURES_MAX) {
        eprintln!("=== {case:?}: {error}\n{log}");
    }
    for (case, error, _) in &failures {
        eprintln!("{case:?}: {error}");
    }
    assert!(
        failures.is_empty(),
        "repeat one alone with FAULTY_DISK='nth: 7, way: Fails(5)', or as much of its case as names it"
    );
}

/// How often each kind of operation happens in a life without a fault.
fn operations() -> Vec<(Option<Kind>, u64)> {
    let (outcome, log, counted) = runtime().block_on(live(Case::default()));
    assert_eq!(outcome, Ok(()), "{log}");
    counted
}

/// One life for every operation of these kinds, every way, and every end of the fault.
fn cases(kinds: &[Option<Kind>], ways: &[Way], ends: &[bool]) -> Vec<Case> {
    let operations = operations().into_iter().filter(|(kind, _)| kinds.contains(kind));
    let faults = operations.flat_map(|(kind, count)| (1..=count).map(move |nth| (kind, nth)));
    let mut cases: Vec<_> = faults
        .flat_map(|(kind, nth)| {
            ways.iter().flat_map(move |way| {
                let fault = Some(Fault { kind, nth, way: *way });
                ends.iter().map(move |is_killed| Case { fault, is_killed: *is_killed, cuts_power: false })
            })
        })
        .collect();
    if std::env::var_os("FAULTY_DISK_ALL").is_none() {
        cases.retain(|case| {
            let Some(Fault { kind: None, nth, way }) = case.fault else { return true };
            let number = ways.iter().position(|of| *of == way).unwrap() as u64;
            way == Way::Dies || (nth + number).is_multiple_of(STRIDE)
        });
    }
    // One alone, to be looked at.
    if let Ok(wanted) = std::env::var("FAULTY_DISK") {
        cases.retain(|case| format!("{case:?}").contains(&wanted));
    }
    cases
}

fn cutting_power(mut cases: Vec<Case>) -> Vec<Case> {
    cases.iter_mut().for_each(|case| case.cuts_power = true);
    cases
}

fn some(kinds: &[Kind]) -> Vec<Option<Kind>> {
    kinds.iter().copied().map(Some).collect()
}

#[test]
fn faulty_disk_any_one_operation_may_fail_and_the_node_goes_on() {
    live_all(&cases(&some(&Kind::ALL), &[Way::Fails(EIO)], &[false]));
}

#[test]
fn faulty_disk_any_one_operation_may_fail_before_the_process_is_killed() {
    live_all(&cases(&some(&Kind::ALL), &[Way::Fails(EIO)], &[true]));
}

#[test]
fn faulty_disk_any_one_write_may_be_cut_short_or_refused_for_lack_of_room() {
    let kinds = some(&[Kind::WriteAt, Kind::Create, Kind::SetLength]);
    live_all(&cases(
        &kinds,
        &[Way::Half(ENOSPC), Way::Half(EIO), Way::Fails(ENOSPC), Way::Fails(EROFS)],
        &[false, true],
    ));
}

#[test]
fn faulty_disk_any_one_change_may_take_effect_and_fail_all_the_same() {
    let changes: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.changes()).collect();
    live_all(&cases(&some(&changes), &[Way::Done(EIO)], &[false, true]));
}

#[test]
fn faulty_disk_the_process_may_be_killed_at_any_operation() {
    let mut all = cases(&[None], &[Way::Dies], &[false]);
    all.extend(cases(&some(&[Kind::WriteAt]), &[Way::DiesHalfway], &[false]));
    live_all(&all);
}

#[test]
fn faulty_disk_may_be_gone_from_any_operation_on_for_a_while() {
    live_all(&cases(&[None], &[Way::Gone(None), Way::Gone(Some(3)), Way::Gone(Some(20))], &[false]));
    live_all(&cases(&[None], &[Way::Gone(None)], &[true]));
}

#[test]
fn faulty_disk_may_be_full_from_any_operation_on_for_a_while() {
    live_all(&cases(&[None], &[Way::Full(None), Way::Full(Some(10))], &[false]));
    live_all(&cases(&[None], &[Way::Full(None)], &[true]));
}

#[test]
fn faulty_disk_may_be_read_only_or_out_of_descriptors_from_any_operation_on_for_a_while() {
    live_all(&cases(&[None], &[Way::ReadOnly(None), Way::NoDescriptors(None)], &[false, true]));
}

#[test]
fn faulty_disk_power_may_be_cut_at_any_operation_and_soon_after_any_failure() {
    let mut all = cases(&[None], &[Way::Dies], &[false]);
    all.extend(cases(&some(&Kind::ALL), &[Way::Fails(EIO), Way::Half(ENOSPC)], &[true]));
    all.extend(cases(&[None], &[Way::Full(None), Way::ReadOnly(None)], &[true]));
    live_all(&cutting_power(all));
}
