//! Nodes without HTTP on one embedded store, their data folders copied, killed and started at random, and
//! the account of what they acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use event_tracker::batch::RecoverError;
use event_tracker::domain::{Ack, EventName, Hour, HourRange, WriterId};
use event_tracker::journal::replay::ReplayError;
use event_tracker::node::{Drained, Node, Options};
use event_tracker::store::Store;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::eventually;
use super::node::{lock, now, options};
use super::unsteady::{Fate, Unsteady, folder};

const EVENTS: [&str; 4] = ["login", "logout", "resource/209", "backup"];
const NODES_MAX: usize = 6;

/// Says on which seed a test has failed.
pub struct Seed(pub u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- failed with seed {}", self.0);
        }
    }
}

/// One data folder and the node that runs in it.
pub struct Member {
    pub dir: PathBuf,
    pub node: Option<Node>,
    /// The folder was copied while it was written, so its files are not of one moment.
    blurred: bool,
    /// A copy that no node takes.
    refused: bool,
}

pub struct Fleet {
    pub store: Arc<Unsteady>,
    pub members: Vec<Member>,
    pub acknowledged: BTreeMap<&'static str, u64>,
    pub random: StdRng,
    pub options: Options,
    folder: tempfile::TempDir,
    copies: usize,
    nodes_max: usize,
    /// Saved states of the store, oldest first.
    saved: Vec<PathBuf>,
    /// Segments that were ever found to differ from what the store has.
    differing: BTreeSet<PathBuf>,
    story: Vec<String>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.story.join("\n"));
        }
    }
}

impl Fleet {
    pub fn new(seed: u64) -> Self {
        let folder = folder();
        let store = Unsteady::open(&folder.path().join("events.sqlite"));
        let mut random = StdRng::seed_from_u64(seed);
        let mut options = options();
        // Kept for ever, or forgotten at the next tidying.
        options.journal.keep_committed_ms = if random.random_bool(0.5) { 3_600_000 } else { 0 };
        options.flush.shutdown_timeout_ms = 20;
        let mut fleet = Self {
            store,
            members: Vec::new(),
            acknowledged: BTreeMap::new(),
            random,
            options,
            folder,
            copies: 0,
            nodes_max: NODES_MAX,
            saved: Vec::new(),
            differing: BTreeSet::new(),
            story: Vec::new(),
        };
        fleet.add(false);
        fleet.start(0);
        fleet
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    fn add(&mut self, blurred: bool) -> usize {
        let dir = self.folder.path().join(format!("node-{}", self.copies));
        self.copies += 1;
        self.members.push(Member { dir, node: None, blurred, refused: false });
        self.members.len() - 1
    }

    /// No other node joins.
    pub fn alone(&mut self) {
        self.nodes_max = 1;
    }

    /// Another node with an empty folder.
    pub fn join(&mut self) {
        if self.members.len() < self.nodes_max {
            let number = self.add(false);
            self.start(number);
        }
    }

    pub fn start(&mut self, number: usize) {
        if self.members[number].node.is_some() || self.members[number].refused {
            return;
        }
        self.tell(format!("start {number}"));
        let dir = lock(&self.members[number].dir);
        let store: Arc<dyn Store> = self.store.clone();
        let member = &mut self.members[number];
        match Node::recover(dir, store, self.options, now()) {
            Ok((node, _)) => member.node = Some(node),
            Err(RecoverError::Replay(ReplayError::Missing { .. })) if member.blurred => member.refused = true,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn node(&self, number: usize) -> Option<&Node> {
        self.members[number].node.as_ref()
    }

    /// As `kill -9`: what was acknowledged is in the journal's files.
    pub fn kill(&mut self, number: usize) {
        self.tell(format!("kill {number}"));
        self.members[number].node = None;
    }

    pub async fn stop(&mut self, number: usize) {
        self.tell(format!("stop {number}"));
        if let Some(node) = self.members[number].node.take() {
            let drained = node.drain(std::time::Duration::ZERO).await;
            assert!(!matches!(drained, Drained::Lost { .. }), "{drained:?}");
        }
    }

    pub async fn count(&mut self, number: usize) {
        let (event, hour) = (EVENTS[self.random.random_range(0..4)], self.random.random_range(440_000..440_003));
        let count = self.random.random_range(1..=1_000_000);
        let Some(node) = self.node(number) else { return };
        let recorded =
            node.batches.record(&EventName::parse(event).unwrap(), Hour::from_number(hour).unwrap(), count).unwrap();
        node.batches.wait_durable(recorded.ticket, Ack::Journal).await.unwrap();
        *self.acknowledged.entry(event).or_default() += count;
        self.tell(format!("count {number}: {count}"));
    }

    /// Meets the store and flushes; says whether that went well.
    pub async fn flush(&mut self, number: usize) -> bool {
        let Some(node) = self.node(number) else { return true };
        let met = node.meet_store().await;
        let flushed = match met {
            Ok(()) => node.flusher.flush().await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let (mark, writer) = (node.batches.mark(), node.batches.writer());
        self.tell(format!("flush {number}, {writer}: {flushed:?}, {mark:?}"));
        flushed.is_ok()
    }

    pub async fn look(&mut self, number: usize) {
        let Some(node) = self.node(number) else { return };
        if node.meet_store().await.is_ok() {
            let _ = node.look().await;
        }
        let mark = node.batches.mark();
        self.tell(format!("look {number}: {mark:?}"));
    }

    /// No read may show more than was acknowledged, and each way to read says the same.
    pub async fn read(&mut self, number: usize) {
        let Some(node) = self.node(number) else { return };
        let totals = async || {
            let totals = node.query.totals().await.ok()?;
            Some(totals.into_iter().map(|total| (total.event, total.count)).collect::<BTreeMap<_, _>>())
        };
        let (Some(before), Ok(rows)) = (totals().await, node.query.hourly(HourRange::ALL, 1_000).await) else { return };
        for (event, count) in &before {
            let acknowledged = self.acknowledged.get(event.as_str()).copied().unwrap_or(0);
            assert!(*count <= acknowledged, "node {number}: {event} {count}, {acknowledged} were acknowledged");
        }
        let mut by_hour: BTreeMap<EventName, u64> = BTreeMap::new();
        rows.into_iter().for_each(|row| *by_hour.entry(row.event).or_default() += row.count);
        // What was kept a moment ago may be given once more; whatever is read anew ends that.
        if before != by_hour
            && let Some(after) = totals().await
        {
            assert_eq!(after, by_hour, "the reads of node {number} contradict one another");
        }
    }

    fn seal(&mut self, number: usize) {
        self.tell(format!("seal {number}"));
        if let Some(node) = self.node(number) {
            node.batches.seal_behind().unwrap();
        }
    }

    fn tidy(&mut self, number: usize) {
        self.tell(format!("tidy {number}"));
        if let Some(node) = self.node(number) {
            node.batches.tidy().unwrap();
        }
    }

    /// Copies a folder file by file, as `cp -a` does. `blurred`: the node goes on meanwhile.
    pub async fn copy(&mut self, number: usize, blurred: bool) {
        if self.members.len() >= self.nodes_max || self.members[number].refused {
            return;
        }
        let blurred = blurred || self.members[number].blurred;
        let copy = self.add(blurred);
        self.tell(format!("copy {number} to {copy}, blurred: {blurred}"));
        let (from, to) = (self.members[number].dir.clone(), self.members[copy].dir.clone());
        std::fs::create_dir_all(to.join("journal")).unwrap();
        let mut names = [names(&from, ""), names(&from, "journal/")].concat();
        names.shuffle(&mut self.random);
        for name in names {
            // It may be gone by now.
            if std::fs::copy(from.join(&name), to.join(&name)).is_ok() {
                self.tell(format!("copied {name}"));
            }
            if blurred && self.random.random_bool(0.3) {
                match self.random.random_range(0..3) {
                    0 => drop(self.flush(number).await),
                    _ => self.count(number).await,
                }
            }
        }
    }

    pub fn save(&mut self) {
        let to = self.folder.path().join(format!("saved-{}", self.random.random::<u64>()));
        self.tell(format!("save {}", self.saved.len()));
        self.store.save(&to);
        self.saved.push(to);
    }

    /// The store goes back to a state that was saved.
    pub async fn set_back(&mut self) {
        if self.saved.is_empty() {
            return;
        }
        let to = self.random.random_range(0..self.saved.len());
        self.tell(format!("set back to {to}"));
        self.saved.truncate(to + 1);
        self.store.set_back(&self.saved[to]).await;
    }

    /// Something happens that needs no bad day of the store.
    pub async fn step(&mut self, copies: bool) {
        let number = self.random.random_range(0..self.members.len());
        match self.random.random_range(0..100) {
            0..35 => self.count(number).await,
            35..58 => drop(self.flush(number).await),
            58..63 => self.seal(number),
            63..68 => {
                let down = !self.store.is_down();
                self.tell(format!("down: {down}"));
                self.store.set_down(down);
            }
            68..72 if copies => {
                let blurred = self.random.random_bool(0.5);
                self.copy(number, blurred).await;
            }
            68..72 => self.join(),
            72..76 => self.kill(number),
            76..79 => self.stop(number).await,
            79..86 => self.start(number),
            86..89 => self.tidy(number),
            89..93 => self.look(number).await,
            _ => self.read(number).await,
        }
        self.note_differing();
    }

    /// What differs stays where it is.
    fn note_differing(&mut self) {
        for member in &self.members {
            if member.dir.is_dir() {
                let names = names(&member.dir, "journal/").into_iter().filter(|name| name.ends_with(".differing"));
                self.differing.extend(names.map(|name| member.dir.join(name)));
            }
        }
        for path in &self.differing {
            assert!(path.is_file(), "{} is gone", path.display());
        }
    }

    /// The bad days of the store.
    pub async fn bad_day(&mut self) {
        match self.random.random_range(0..6) {
            0 | 1 => self.save(),
            2 => self.set_back().await,
            3 => self.store.set_next(Fate::AnswerLost),
            4 => self.store.set_next(Fate::Late),
            _ => self.store.catch_up().await,
        }
    }

    /// Every folder gets its node, and every node delivers what it has: then nothing is doubled, and what
    /// the store lacks is what the nodes report.
    /// Gives how much is missing.
    pub async fn settle(&mut self) -> i128 {
        self.store.recover().await;
        let mut numbers: Vec<_> = (0..self.members.len()).collect();
        numbers.shuffle(&mut self.random);
        for round in 0..4 {
            for number in &numbers {
                self.start(*number);
                let flushed = self.flush(*number).await;
                self.look(*number).await;
                assert!(flushed || round == 0, "node {number} can't flush");
            }
        }
        self.note_differing();
        let mut missing: BTreeMap<WriterId, i128> = BTreeMap::new();
        for node in self.members.iter().filter_map(|member| member.node.as_ref()) {
            assert!(node.batches.is_settled());
            assert_eq!(node.health.status().missing, node.missing());
            // Copies of one folder report the same of one writer.
            for (writer, count) in node.batches.mark().missing {
                let known = missing.entry(writer).or_default();
                *known = count.max(*known);
            }
        }
        let books = self.store.inner().audit().await.unwrap();
        assert!(books.balance(), "{books:?}");
        let acknowledged: u64 = self.acknowledged.values().sum();
        assert_eq!(i128::from(acknowledged), books.rows + missing.values().sum::<i128>(), "{books:?}, {missing:?}");
        // A store that has lost as many commits as it has got since looks unchanged to a node that has
        // made none of them: then the next commit shows it.
        self.start(numbers[0]);
        self.count(numbers[0]).await;
        assert!(self.flush(numbers[0]).await);
        let totals = self.store.inner().totals(Vec::new()).await.unwrap().value;
        for total in &totals {
            assert!(total.count <= self.acknowledged[total.event.as_str()], "{total:?} is doubled");
        }
        for number in numbers {
            self.read(number).await;
            let Some(node) = self.node(number) else { continue };
            // What others have flushed shows a moment later.
            let shows = async || node.query.totals().await == Ok(totals.clone());
            eventually(&format!("node {number} to show what is in the store"), shows).await;
        }
        missing.values().sum()
    }
}

/// Copies a folder, file by file, as `cp -a` does. What goes away meanwhile is left out.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy_folder(&entry.path(), &target),
            Ok(_) => drop(std::fs::copy(entry.path(), target)),
            Err(_) => {}
        }
    }
}

/// The files of a folder, below it.
fn names(root: &Path, below: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root.join(below)).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| format!("{below}{}", entry.file_name().to_str().unwrap())).collect()
}

/// How many cases a test at random tries: `EVENT_TRACKER_SEEDS`, or so many.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("EVENT_TRACKER_SEED").unwrap_or(0);
    first..first + number("EVENT_TRACKER_SEEDS").unwrap_or(default)
}
