//! The scripted life of a node on a disk that fails, and the account of what it has acknowledged.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use event_tracker::domain::{Ack, EventName, Hour};
use event_tracker::flusher;
use event_tracker::journal::{self, Health};
use event_tracker::node::{Drained, Node, Options};
use event_tracker::store::Store;

use super::Outcome;
use super::account::{Account, BULK, Known};
use crate::harness::PATIENCE;
use crate::harness::faulty_files::{Fault, Kind, Plan, Way};
use crate::harness::node::{now, options};
use crate::harness::outages::{Link, Outages};

/// One life: the fault in it, and whether the process is killed while the fault lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Case {
    pub fault: Option<Fault>,
    pub is_killed: bool,
    /// Whether the whole machine ends with the process, and what was not synced with it.
    pub cuts_power: bool,
}

/// More than this segment may have with the few counters of a life.
const BULK_COUNTS: u64 = 250;

pub struct Life<'a> {
    case: Case,
    folder: &'a Path,
    plan: Arc<Plan>,
    first_plan: Arc<Plan>,
    store: Arc<Outages>,
    link: Link,
    node: Option<Node>,
    account: Account,
    /// How many steps have ended since the fault was met.
    faulty_steps: u32,
    is_over: bool,
    log: String,
}

impl fmt::Display for Life<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.log)
    }
}

fn life_options() -> Options {
    let mut options = options();
    // So few files are kept that the others are soon used anew.
    options.journal = journal::Options {
        segment_bytes_max: 2_048,
        bytes_max: 1 << 20,
        keep_committed_files_max: 1,
        ..options.journal
    };
    options.flush = flusher::Options { shutdown_timeout_ms: 60, ..options.flush };
    options
}

impl<'a> Life<'a> {
    pub fn new(case: Case, folder: &'a Path, store: Arc<dyn Store>) -> Self {
        let plan = case.fault.map_or_else(Plan::healthy, Plan::with);
        let (account, log) = (Account::default(), String::new());
        let (store, link) = (Outages::of(store), Link::Up);
        let first_plan = Arc::clone(&plan);
        let (node, faulty_steps, is_over) = (None, 0, false);
        Self { case, folder, plan, first_plan, store, link, node, account, faulty_steps, is_over, log }
    }

    /// What was counted on the disk until the first end of the process.
    pub fn counted(&self) -> ([u64; Kind::ALL.len()], u64) {
        self.first_plan.counted()
    }

    fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    fn say(&mut self, what: impl fmt::Display) {
        let _ = writeln!(self.log, "{what}");
    }

    fn set_link(&mut self, link: Link) {
        self.say(format_args!("the store is {link:?}"));
        self.link = link;
        self.store.set(link);
    }

    /// From the first start to the last check.
    pub async fn live(&mut self) -> Outcome {
        self.start().await?;
        for number in 0.. {
            self.say(format_args!("--- step {number}"));
            let goes_on = self.step(number).await?;
            self.end_step().await?;
            if !goes_on {
                break;
            }
        }
        self.finish().await
    }

    async fn step(&mut self, number: u32) -> Outcome<bool> {
        match number {
            0 => self.count_at_all_levels().await,
            1 => self.count_into_the_store().await?,
            2 => self.count_bulk().await,
            3 => {
                self.shorten();
                self.count(Ack::Disk).await;
                self.count(Ack::Journal).await;
            }
            4 => self.flush().await,
            5 => {
                self.tidy();
                self.count_bulk().await;
                self.set_link(Link::Down);
                self.flush().await;
            }
            6 => {
                self.count_at_all_levels().await;
                self.shorten();
                self.count(Ack::Journal).await;
            }
            7 => {
                self.count_bulk().await;
                self.shorten();
                self.count(Ack::Disk).await;
            }
            8 => {
                self.set_link(Link::AnswersLost);
                self.flush().await;
                self.tidy();
                self.set_link(Link::Up);
            }
            9 => {
                self.flush().await;
                self.count_at_all_levels().await;
                self.tidy();
                self.flush().await;
            }
            10 => {
                self.count_at_all_levels().await;
                self.stop().await?;
                self.start().await?;
            }
            11 => {
                self.set_link(Link::Down);
                self.count_at_all_levels().await;
                self.flush().await;
                self.count_at_all_levels().await;
                self.stop().await?;
                self.start().await?;
            }
            12 => {
                self.count_bulk().await;
                self.shorten();
                self.count_at_all_levels().await;
                self.tidy();
                self.expire();
            }
            13 => {
                self.set_link(Link::Up);
                self.meet().await?;
                self.flush().await;
                self.tidy();
            }
            _ => {
                self.count_at_all_levels().await;
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn count_at_all_levels(&mut self) {
        for ack in [Ack::Memory, Ack::Journal, Ack::Memory, Ack::Disk] {
            self.count(ack).await;
        }
    }

    /// Counts an event of its own. Says whether that was acknowledged.
    async fn count(&mut self, ack: Ack) -> bool {
        let (event, count) = (format!("event-{}", self.account.counted.len()), 1 + self.account.counted.len() as u64);
        let known = match self.node().batches.record(&EventName::parse(&event).unwrap(), hour(count), count) {
            Err(error) => {
                self.say(format_args!("{event} at {ack:?}: {error}"));
                Known::Refused
            }
            Ok(recorded) => match self.node().batches.wait_durable(recorded.ticket, ack).await {
                Err(error) => {
                    self.say(format_args!("{event} at {ack:?}: {error}"));
                    Known::Unknown
                }
                Ok(()) if ack == Ack::Memory => Known::Memory,
                Ok(()) if ack == Ack::Journal => Known::Written,
                Ok(()) => Known::Safe,
            },
        };
        self.account.counted.insert(event, (count, known));
        matches!(known, Known::Memory | Known::Written | Known::Safe)
    }

    async fn count_into_the_store(&mut self) -> Outcome {
        let event = format!("event-{}", self.account.counted.len());
        let count = 1 + self.account.counted.len() as u64;
        let name = EventName::parse(&event).unwrap();
        let Ok(recorded) = self.node().batches.record(&name, hour(count), count) else {
            self.account.counted.insert(event, (count, Known::Refused));
            return Ok(());
        };
        let batches = Arc::clone(&self.node().batches);
        let mut waits = Box::pin(batches.wait_durable(recorded.ticket, Ack::Store));
        // A caller that waits before the flush has the next segment made ahead.
        let waited = futures_util::poll!(&mut waits);
        self.flush().await;
        let waited = if waited.is_ready() { waited } else { futures_util::poll!(&mut waits) };
        let is_stored = matches!(waited, Poll::Ready(Ok(())));
        self.account.counted.insert(event.clone(), (count, if is_stored { Known::Safe } else { Known::Unknown }));
        if is_stored && self.stored().await?.get(&event) != Some(&count) {
            return Err(format!("{event} was acknowledged as stored and is not"));
        }
        Ok(())
    }

    async fn count_bulk(&mut self) {
        let name = EventName::parse(BULK).unwrap();
        let mut last = None;
        for _ in 0..BULK_COUNTS {
            if let Ok(recorded) = self.node().batches.record(&name, hour(0), 1) {
                self.account.bulk.memory += 1;
                last = Some(recorded.ticket);
            }
        }
        if let Some(ticket) = last {
            self.account.bulk.memory -= 1;
            match self.node().batches.wait_durable(ticket, Ack::Journal).await {
                Ok(()) => self.account.bulk.written += 1,
                Err(_) => self.account.bulk.unknown += 1,
            }
        }
    }

    fn shorten(&mut self) {
        let shortened = self.node().batches.shorten_segments();
        self.say(format_args!("shortened: {shortened:?}"));
    }

    fn tidy(&mut self) {
        let tidied = self.node().batches.tidy();
        self.say(format_args!("tidied: {tidied:?}"));
    }

    async fn flush(&mut self) {
        let flushed = self.node().flusher.flush().await;
        self.say(format_args!("flushed: {flushed:?}"));
    }

    /// Whether the disk must be well.
    fn is_healthy(&self) -> bool {
        self.is_over || !self.plan.has_failed()
    }

    async fn start(&mut self) -> Outcome {
        for attempt in 0.. {
            let dir = self.plan.folder(self.folder);
            let store: Arc<dyn Store> = self.store.clone();
            match Node::recover(dir, store, life_options(), now()) {
                Ok((node, recovered)) => {
                    self.say(format_args!("started: {recovered:?}"));
                    self.node = Some(node);
                    break;
                }
                Err(error) if self.is_healthy() => {
                    return Err(format!("it does not start on a healthy disk: {error:?}"));
                }
                Err(error) if matches!(self.case.fault, Some(Fault { way: Way::Full(_), .. })) => {
                    return Err(format!("it does not start on a full disk: {error:?}"));
                }
                Err(error) => self.say(format_args!("it does not start: {error:?}")),
            }
            if self.plan.is_dead() || attempt == 1 {
                self.end_fault();
            }
        }
        self.meet().await?;
        // What is there now stays.
        self.check_reads(true).await
    }

    async fn meet(&mut self) -> Outcome {
        if self.link == Link::Up && !self.plan.is_dead() {
            self.node().meet_store().await.map_err(|error| format!("the store is not met: {error}"))?;
        }
        Ok(())
    }

    fn end_fault(&mut self) {
        self.say("the fault has passed");
        self.is_over = true;
        self.plan.heal();
        if self.plan.is_dead() {
            self.plan = Plan::healthy();
        }
    }

    /// As the service stops: what can't be stored must be in the journal, or is said to be lost.
    async fn stop(&mut self) -> Outcome {
        let pending = self.node().batches.pending().total();
        let drained = self.node().drain(Duration::from_millis(10)).await;
        self.say(format_args!("stopped with {pending} pending: {drained:?}"));
        if self.plan.is_dead() {
            return self.forget_node().await;
        }
        match drained {
            Drained::Stored => {
                if self.link == Link::Up {
                    let stored = self.stored().await?;
                    self.account.check(&stored, false)?;
                }
                self.account.keep_memory();
            }
            Drained::Kept => self.account.keep_memory(),
            Drained::Lost { .. } if self.is_healthy() => return Err(format!("{drained:?} on a healthy disk")),
            Drained::Lost { counts, .. } if counts > pending => return Err(format!("{drained:?} of {pending}")),
            Drained::Lost { .. } => return self.forget_node().await,
        }
        self.end_node().await
    }

    /// What a flush that was cut off has left behind on other threads ends with the process.
    async fn end_node(&mut self) -> Outcome {
        let Some(node) = self.node.take() else { return Ok(()) };
        let batches = Arc::downgrade(&node.batches);
        drop(node);
        let deadline = Instant::now() + PATIENCE;
        while batches.strong_count() > 0 {
            if Instant::now() > deadline {
                return Err("the node does not end".into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// The process ends without a word.
    async fn forget_node(&mut self) -> Outcome {
        self.end_node().await?;
        self.account.lose_memory();
        Ok(())
    }

    async fn end_step(&mut self) -> Outcome {
        if self.plan.is_dead() {
            return self.restart_killed().await;
        }
        if let Health::Poisoned(why) = self.node().batches.journal().health() {
            self.say(format_args!("poisoned: {why}"));
            self.stop().await?;
            self.end_fault();
            return self.start().await;
        }
        if self.plan.has_failed() && !self.is_over {
            self.faulty_steps += 1;
            if self.faulty_steps > 1 && self.case.is_killed {
                self.plan.die();
                return self.restart_killed().await;
            } else if self.faulty_steps > 1 {
                self.end_fault();
                self.recover().await?;
            }
        }
        self.check_reads(false).await
    }

    async fn restart_killed(&mut self) -> Outcome {
        self.say("killed");
        self.forget_node().await?;
        if self.case.cuts_power {
            self.plan.cut_power();
            self.account.lose_written();
        }
        self.end_fault();
        self.start().await
    }

    /// After a fault, a process that goes on must come to work again by itself.
    async fn recover(&mut self) -> Outcome {
        let deadline = Instant::now() + PATIENCE / 4;
        loop {
            self.tidy();
            self.shorten();
            self.flush().await;
            if matches!(self.node().batches.journal().health(), Health::Poisoned(_)) {
                self.stop().await?;
                return self.start().await;
            }
            if self.node().batches.journal_healthy().is_ok() && self.count(Ack::Disk).await {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!("it does not recover: {:?}", self.node().batches.journal().health()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.say("it has recovered");
        if self.link == Link::Up {
            let flushed = self.node().flusher.flush().await;
            flushed.map_err(|error| format!("it does not flush: {error}"))?;
            if !self.node().batches.is_settled() {
                return Err("it is not settled".into());
            }
        }
        Ok(())
    }

    async fn check_reads(&mut self, settles: bool) -> Outcome {
        if self.link != Link::Up || self.plan.is_dead() {
            return Ok(());
        }
        let totals = self.node().query.totals().await.map_err(|error| format!("a read failed: {error}"))?;
        let totals = totals.iter().map(|total| (total.event.as_str().to_owned(), total.count)).collect();
        self.account.check(&totals, settles)
    }

    async fn stored(&self) -> Outcome<BTreeMap<String, u64>> {
        let totals = self.store.totals(Vec::new()).await.map_err(|error| error.to_string())?;
        Ok(totals.value.iter().map(|total| (total.event.as_str().to_owned(), total.count)).collect())
    }

    fn expire(&mut self) {
        let expired = self.node().batches.expire_kept(Duration::ZERO, 0);
        self.say(format_args!("expired: {expired:?}"));
    }

    /// Killed, started on a healthy disk, drained: the store has what was acknowledged, and nothing is left.
    async fn finish(&mut self) -> Outcome {
        self.plan.die();
        self.restart_killed().await?;
        let flushed = self.node().flusher.flush().await;
        flushed.map_err(|error| format!("the last flush failed: {error}"))?;
        self.check_reads(true).await?;
        let stored = self.stored().await?;
        self.account.check(&stored, true)?;
        let books = self.store.audit().await.map_err(|error| error.to_string())?;
        if !books.balance() {
            return Err(format!("the books do not balance: {books:?}"));
        }
        self.node().batches.tidy().map_err(|error| format!("it can't be tidied: {error}"))?;
        let expired = self.node().batches.expire_kept(Duration::ZERO, 0);
        expired.map_err(|error| format!("what was kept can't be removed: {error}"))?;
        if self.node().missing() != 0 || !self.node().batches.is_settled() {
            return Err(format!("{} are missing", self.node().missing()));
        }
        self.end_node().await?;
        let left = std::fs::read_dir(self.folder.join("journal")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        // A batch may be in the store of which the journal could keep only a part: that is left to be looked at.
        let is_left = |name: &&String| !name.ends_with(".differing") || self.case.fault.is_none();
        let left: Vec<_> = left.iter().filter(is_left).collect();
        let is_tidy = left.iter().all(|name| *name == "RESERVE" || name.ends_with(".journal")) && left.len() == 2;
        if is_tidy { Ok(()) } else { Err(format!("the folder is left with {left:?}")) }
    }
}

fn hour(number: u64) -> Hour {
    Hour::from_number(490_000 + u32::try_from(number % 3).unwrap()).unwrap()
}
