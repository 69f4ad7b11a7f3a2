//! The machines, the store and what is between them, and a script that is played on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use event_tracker::domain::{Ack, BatchSeq, EventName, Hour, HourRange};
use event_tracker::flusher;
use event_tracker::journal::{self, Health};
use event_tracker::names::Limits;
use event_tracker::node::{Clock, Drained, Node, Options};
use event_tracker::store::memory::{MemoryDatabase, Saved};
use event_tracker::store::{HourlyQuery, Store};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::figures::Figures;
use super::reads::Reader;
use super::record::{Record, Trace};
use super::script::{PURGED, Script, Settings, Step};
use super::wire::{LATE_MAX, Network, PATIENCE, Weather, Wire};
use crate::check::{History, Outcome};

/// How often the journal of a node that has no thread of its own is attended to.
const ATTEND: Duration = Duration::from_millis(10);
const ATTEND_IDLE: Duration = Duration::from_millis(100);
/// How long a node that stops may try to put everything into the store.
const DRAIN: Duration = Duration::from_secs(8);
/// How long at most it takes until all is in the store when nothing fails any more.
const REST_MAX: Duration = Duration::from_secs(1_000);

pub(super) struct Running {
    pub(super) node: Arc<Node>,
    lives: Arc<AtomicBool>,
    stop: CancellationToken,
    runs: JoinHandle<()>,
    attends: JoinHandle<()>,
    /// Counts and reads that are under way.
    pub(super) tasks: Vec<JoinHandle<()>>,
    reader: Arc<Reader>,
}

pub(super) struct Machine {
    pub(super) disk: Disk,
    /// By how many seconds its clock is wrong.
    skew: Arc<AtomicI64>,
    running: Option<Running>,
}

pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) shared: Arc<Record>,
    pub(super) database: MemoryDatabase,
    store_skew: Arc<AtomicI64>,
    network: Arc<Network>,
    pub(super) machines: Vec<Machine>,
    saved: Option<Saved>,
    /// The changes that can be undone, newest last.
    pub(super) changes: Arc<Mutex<Vec<i64>>>,
}

/// How one ended.
pub struct Ended {
    pub wrong: Vec<String>,
    pub trace: String,
    pub figures: Figures,
}

fn clock(begins: Duration, began: Instant, skew: &Arc<AtomicI64>) -> Clock {
    let skew = Arc::clone(skew);
    Arc::new(move || {
        let seconds = skew.load(Ordering::Relaxed);
        let now = SystemTime::UNIX_EPOCH + begins + began.elapsed();
        let jump = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { now - jump } else { now + jump }
    })
}

impl World {
    /// Nothing runs yet.
    pub(super) fn new(settings: Settings, seed: u64, history: History, trace: Trace) -> Self {
        let shared = Record::new(history, trace);
        let store_skew = Arc::new(AtomicI64::new(0));
        let machines = (0..settings.machines).map(|number| Machine {
            disk: Disk::new(seed ^ (number as u64 + 1) << 32),
            skew: Arc::default(),
            running: None,
        });
        Self {
            settings,
            database: MemoryDatabase::new([7; 16], clock(settings.begins, shared.began, &store_skew)),
            shared,
            store_skew,
            network: Network::new(seed),
            machines: machines.collect(),
            saved: None,
            changes: Arc::default(),
        }
    }

    /// Plays a script to its end, and then until everything is at rest.
    pub(super) async fn play(script: &Script, seed: u64, trace: Trace) -> Ended {
        let mut world = Self::new(script.settings, seed, History::default(), trace);
        for number in 0..world.machines.len() {
            world.start(number).await;
        }
        for step in &script.steps {
            world.step(step).await;
            if world.shared.is_wrong() {
                break;
            }
        }
        if !world.shared.is_wrong() {
            world.come_to_rest().await;
        }
        world.end()
    }

    /// Kills all that runs.
    pub(super) fn end(mut self) -> Ended {
        for machine in 0..self.machines.len() {
            self.kill(machine);
        }
        let shared = &self.shared;
        let mut figures = *shared.figures();
        figures.operations = shared.history().operations.len() as u64;
        figures.traffic = self.network.traffic();
        figures.disk_operations = self.machines.iter().map(|machine| machine.disk.operations()).sum();
        figures.simulated = shared.now();
        let (wrong, trace) = shared.take();
        Ended { wrong, trace, figures }
    }

    pub(super) async fn step(&mut self, step: &Step) {
        self.shared.say(format_args!("{step:?}"));
        self.take(step).await;
        self.look_around().await;
    }

    fn options(&self) -> Options {
        let Settings { flush_interval, fold_interval, kept_files_max, segment_bytes_max, .. } = self.settings;
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(1_000);
        Options {
            journal: journal::Options {
                own_thread: false,
                segment_bytes_max,
                bytes_max: 1 << 20,
                keep_committed_files_max: kept_files_max,
                ..journal::Options::default()
            },
            flush: flusher::Options {
                interval_ms: ms(flush_interval),
                shutdown_timeout_ms: ms(DRAIN),
                retry_backoff_max_ms: 2_000,
            },
            fold_interval_ms: ms(fold_interval),
            limits: Limits { events_max: 100_000 },
        }
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Count { machine, event, count, ack } => self.count(machine, event, count, ack),
            Step::Read { machine, look } => {
                let wall = self.wall(machine);
                if let Some(running) = self.running(machine) {
                    let reader = Arc::clone(&running.reader);
                    running.tasks.push(tokio::spawn(async move { reader.read(look, wall).await }));
                }
            }
            Step::Edit { machine, edit } => self.edit(machine, edit),
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Stop { machine } => self.stop(machine).await,
            Step::Start { machine } => self.start(machine).await,
            Step::Kill { machine } => {
                self.shared.figures().kills += u64::from(self.running(machine).is_some());
                self.kill(machine);
            }
            Step::CutPower { machine, left, seed } => {
                self.shared.figures().power_cuts += u64::from(self.running(machine).is_some());
                self.kill(machine);
                if let Some(found) = self.machines.get(machine) {
                    found.disk.cut_power(left.each(seed));
                    self.shared.history().crash(machine, true);
                }
            }
            Step::Copy { machine, seed } => self.copy(machine, seed).await,
            Step::Weather(weather) => self.network.set(weather),
            Step::Disk { machine, fault } => {
                if let Some(machine) = self.machines.get(machine) {
                    machine.disk.set_fault(fault);
                }
            }
            Step::SaveStore => self.saved = Some(self.database.save()),
            Step::SetStoreBack => {
                if let Some(saved) = &self.saved {
                    self.shared.figures().set_backs += 1;
                    self.database.set_back(saved);
                    self.shared.history().went_back();
                    self.machines.iter().filter_map(|machine| machine.running.as_ref()).for_each(|running| {
                        running.reader.forget_shown();
                    });
                }
            }
            Step::Clock { machine, seconds } => {
                let skew = match machine {
                    Some(machine) => self.machines.get(machine).map(|machine| &machine.skew),
                    None => Some(&self.store_skew),
                };
                if let Some(skew) = skew {
                    skew.fetch_add(seconds, Ordering::Relaxed);
                }
            }
            Step::Night { hours } => {
                for machine in 0..self.machines.len() {
                    self.stop(machine).await;
                }
                tokio::time::sleep(Duration::from_secs(u64::from(hours) * 3_600)).await;
                for machine in 0..self.machines.len() {
                    self.start(machine).await;
                }
            }
        }
    }

    pub(super) fn running(&mut self, machine: usize) -> Option<&mut Running> {
        self.machines.get_mut(machine)?.running.as_mut()
    }

    pub(super) fn wall(&self, machine: usize) -> SystemTime {
        let skew = self.machines.get(machine).map_or(&self.store_skew, |machine| &machine.skew);
        clock(self.settings.begins, self.shared.began, skew)()
    }

    fn count(&mut self, machine: usize, event: Option<&'static str>, count: u32, ack: Ack) {
        let hour = Hour::containing(self.wall(machine));
        let shared = Arc::clone(&self.shared);
        let Some(running) = self.running(machine) else { return };
        let event = event.map_or_else(|| format!("tag-{}", shared.history().operations.len()), str::to_owned);
        let Ok(name) = EventName::parse(&event) else { return };
        let number = shared.history().begin(&event, hour, i64::from(count), machine, shared.now());
        match running.node.batches.record(&name, hour, u64::from(count)) {
            Err(error) => {
                shared.say(format_args!("{event} is not counted: {error}"));
                shared.history().end(number, Outcome::NotCounted, shared.now());
            }
            Ok(recorded) => {
                let (node, lives) = (Arc::clone(&running.node), Arc::clone(&running.lives));
                running.tasks.push(tokio::spawn(async move {
                    let durable = node.batches.wait_durable(recorded.ticket, ack).await;
                    if !lives.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = match durable {
                        Ok(()) => Outcome::Acknowledged(ack),
                        Err(_) => Outcome::Unknown,
                    };
                    shared.say(format_args!("{event} of {count} at {hour} by {machine}: {outcome:?}"));
                    shared.figures().acknowledged += u64::from(durable.is_ok());
                    shared.history().end(number, outcome, shared.now());
                }));
            }
        }
    }

    pub(super) async fn start(&mut self, number: usize) {
        let options = self.options();
        let Some(machine) = self.machines.get_mut(number).filter(|machine| machine.running.is_none()) else { return };
        let (folder, lives) = machine.disk.data_dir();
        let store = Wire::new(self.database.open(), Arc::clone(&self.network), Arc::clone(&lives));
        let clock = clock(self.settings.begins, self.shared.began, &machine.skew);
        let node = match Node::recover(folder, Arc::new(store), options, clock) {
            Ok((node, recovered)) => {
                self.shared.say(format_args!("{number} starts: {recovered:?}"));
                Arc::new(node)
            }
            Err(error) => {
                self.shared.say(format_args!("{number} does not start: {error:?}"));
                return;
            }
        };
        let (stop, running) = (CancellationToken::new(), Arc::clone(&node));
        let stopped = stop.clone();
        let runs = tokio::spawn(async move { running.run(stopped).await });
        let attended = Arc::clone(&node);
        let attends = tokio::spawn(async move {
            loop {
                let is_busy = attended.batches.unstored() > 0;
                tokio::time::sleep(if is_busy { ATTEND } else { ATTEND_IDLE }).await;
                attended.batches.journal().attend();
            }
        });
        let reader = Arc::new(Reader::new(number, Arc::clone(&node), Arc::clone(&lives), Arc::clone(&self.shared)));
        self.shared.starts(number, &node);
        machine.running = Some(Running { node, lives, stop, runs, attends, tasks: Vec::new(), reader });
        // Some time passes until the first request.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// As the service stops, in the end with or without the store.
    pub(super) async fn stop(&mut self, number: usize) {
        let Some(running) = self.machines.get_mut(number).and_then(|machine| machine.running.take()) else { return };
        running.stop.cancel();
        let _ = running.runs.await;
        let drained = running.node.drain(DRAIN).await;
        self.shared.ends(number);
        running.attends.abort();
        running.tasks.iter().for_each(JoinHandle::abort);
        self.shared.say(format_args!("{number} stops: {drained:?}"));
        let has_all = self.has_all_of(&running.node).await;
        let is_synced = running.node.batches.journal().health() == Health::Healthy;
        let mut history = self.shared.history();
        match drained {
            Drained::Stored => {
                history.kept(number, is_synced);
                if has_all {
                    history.stored(number, self.shared.now());
                }
            }
            Drained::Kept => history.kept(number, is_synced),
            Drained::Lost { .. } => history.crash(number, false),
        }
        drop(history);
        self.machines[number].disk.kill();
    }

    pub(super) fn kill(&mut self, number: usize) {
        let Some(machine) = self.machines.get_mut(number) else { return };
        machine.disk.kill();
        if let Some(running) = machine.running.take() {
            self.shared.ends(number);
            running.runs.abort();
            running.attends.abort();
            running.tasks.iter().for_each(JoinHandle::abort);
            self.shared.history().crash(number, false);
        }
    }

    async fn copy(&mut self, from: usize, seed: u64) {
        let Some(machine) = self.machines.get(from) else { return };
        let disk = machine.disk.copy(seed);
        self.shared.figures().copies += 1;
        self.machines.push(Machine { disk, skew: Arc::default(), running: None });
        self.start(self.machines.len() - 1).await;
    }

    /// After each step: processes that give up, and what everybody must see from now on.
    async fn look_around(&mut self) {
        for number in 0..self.machines.len() {
            let Some(running) = self.running(number) else { continue };
            if !running.lives.load(Ordering::Relaxed) {
                self.shared.say(format_args!("{number} has died"));
                self.shared.figures().kills += 1;
                self.kill(number);
                continue;
            }
            running.tasks.retain(|task| !task.is_finished());
            let node = Arc::clone(&running.node);
            if node.batches.unstored() == 0 {
                if self.has_all_of(&node).await {
                    self.shared.history().stored(number, self.shared.now());
                }
            } else if let Health::Poisoned(why) = node.batches.journal().health() {
                self.shared.say(format_args!("{number} is poisoned: {why}"));
                self.stop(number).await;
            }
        }
    }

    /// Whether the store has what it has confirmed to the node, which may not know yet that it went back.
    async fn has_all_of(&self, node: &Node) -> bool {
        let Ok(position) = self.database.open().position(Vec::new()).await else { return false };
        node.batches.confirmed().1.iter().all(|(writer, confirmed)| {
            let found = position.applied.get(writer).map_or((BatchSeq(0), 0), |entry| (entry.last_seq, entry.total));
            !confirmed.is_lost_at(found)
        })
    }

    /// Nothing fails any more: everything must come into the store, and all must agree.
    pub(super) async fn come_to_rest(&mut self) {
        self.shared.say("no more faults");
        self.network.set(Weather::FAIR);
        self.machines.iter().for_each(|machine| machine.disk.set_fault(None));
        // What was given up has arrived by then.
        let late = if self.network.traffic().zombies > 0 { LATE_MAX } else { Duration::from_secs(1) };
        tokio::time::sleep(PATIENCE + late).await;
        let deadline = self.shared.now() + REST_MAX;
        loop {
            for number in 0..self.machines.len() {
                self.start(number).await;
                if self.running(number).is_none() {
                    return self.shared.wrong(format!("{number} does not start on a healthy disk"));
                }
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.look_around().await;
            let waiting = |machine: &Machine| {
                machine
                    .running
                    .as_ref()
                    .is_none_or(|running| running.node.batches.unstored() > 0 || !running.tasks.is_empty())
            };
            if !self.machines.iter().any(waiting) {
                break;
            }
            if self.shared.now() > deadline {
                let waiting: Vec<_> = self
                    .machines
                    .iter()
                    .map(|machine| {
                        machine.running.as_ref().map(|running| (running.node.batches.unstored(), running.tasks.len()))
                    })
                    .collect();
                return self.shared.wrong(format!("it does not come to rest: unstored and waiting: {waiting:?}"));
            }
        }
        self.check_store().await;
        // Older than any node's knowledge may be.
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.check_reads().await;
    }

    async fn check_store(&self) {
        let store = self.database.open();
        let missing = self.shared.history_told().missing();
        let query = HourlyQuery { range: HourRange::ALL, names: Vec::new(), rows_max: usize::MAX };
        let (Ok(rows), Ok(books)) = (store.hourly(query, Vec::new()).await, store.audit().await) else {
            return self.shared.wrong("the store can't be read".into());
        };
        if !books.balance() {
            self.shared.wrong(format!("the books do not balance: {books:?}"));
        }
        let rows = rows.value.into_iter().map(|row| ((row.event.as_str().to_owned(), row.hour), row.count));
        let held: BTreeMap<_, _> = rows.collect();
        let checked = self.shared.history().check_at_rest(&held, |event| event == PURGED);
        if let Err(what) = checked {
            self.shared.wrong(format!("with {missing} missing: {what}"));
        }
        for machine in &self.machines {
            self.shared.say(format_args!("disk: {}", machine.disk.summary()));
        }
    }

    async fn check_reads(&mut self) {
        let readers: Vec<_> = self
            .machines
            .iter()
            .filter_map(|machine| machine.running.as_ref())
            .map(|running| Arc::clone(&running.reader))
            .collect();
        let store = self.database.open();
        for reader in readers {
            reader.compare(&store).await;
        }
    }
}
