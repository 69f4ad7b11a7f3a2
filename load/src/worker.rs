//! One thread, one epoll loop, many connections.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::epoll;

use crate::connection::{Connection, Lost};
use crate::ledger::{Credit, Ledger};
use crate::plan::Phase;
use crate::request::Source;
use crate::response::{Malformed, Response};
use crate::schedule::Pacing;
use crate::tally::Tally;
use crate::target::Target;
use crate::verdict::judge;

/// How often time-outs and Ctrl-C are looked at.
const TICK_NS: u64 = 20_000_000;

/// After a failed connect a closed loop pauses this long on that connection, or it would spin.
const CONNECT_PAUSE_NS: u64 = 100_000_000;

/// Requests started between two looks at the answers.
const STARTS_PER_ROUND: usize = 256;

/// What a worker shares with the thread that shows the progress.
#[derive(Debug, Default)]
pub struct Progress {
    pub ok: AtomicU64,
    pub errors: AtomicU64,
}

/// What a worker brings back.
#[derive(Debug)]
pub struct Outcome {
    pub tally: Tally,
    pub ledger: Ledger,
}

pub struct Worker<'a> {
    address: std::net::SocketAddr,
    redis: bool,
    keep_alive: bool,
    pipeline: usize,
    timeout_ns: u64,
    duration_ns: u64,
    /// When starting late requests is given up.
    deadline_ns: u64,
    pacing: Pacing,
    source: Source,
    connections: Vec<Connection>,
    /// Connections that may take a request, in the order in which they became free.
    ready: VecDeque<usize>,
    /// Closed loop: connections that pause, with the time at which they are ready again.
    thinking: VecDeque<(u64, usize)>,
    /// Connections with new bytes to send.
    dirty: Vec<usize>,
    in_flight: usize,
    tally: Tally,
    ledger: Ledger,
    epoll: rustix::fd::OwnedFd,
    began: Instant,
    progress: &'a Progress,
}

impl<'a> Worker<'a> {
    /// Worker `index` of `workers`. `began` is the phase's zero of time.
    ///
    /// # Errors
    /// If the system has no epoll instance left or the phase's names are impossible.
    pub fn new(
        phase: &Phase,
        target: &Target,
        (index, workers): (usize, usize),
        began: Instant,
        progress: &'a Progress,
    ) -> anyhow::Result<Self> {
        let connections = phase.connections / workers + usize::from(index < phase.connections % workers);
        let slice_ns = (phase.duration_ns / 100).max(100_000_000);
        Ok(Self {
            address: target.address,
            redis: phase.dialect.redis,
            keep_alive: phase.dialect.keep_alive,
            pipeline: phase.pipeline,
            timeout_ns: phase.timeout_ns,
            duration_ns: phase.duration_ns,
            deadline_ns: phase.duration_ns.saturating_add(phase.timeout_ns),
            pacing: phase.pacing(index, workers),
            source: phase.source(index, &target.host)?,
            connections: (0..connections).map(|_| Connection::free()).collect(),
            ready: (0..connections).collect(),
            thinking: VecDeque::new(),
            dirty: Vec::new(),
            in_flight: 0,
            tally: Tally::new(phase.labels().len(), slice_ns),
            ledger: Ledger::default(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("can't create an epoll instance")?,
            began,
            progress,
        })
    }

    /// Works until everything was sent and answered, time is up, or `stop` is set.
    ///
    /// # Errors
    /// If waiting for the sockets fails.
    pub fn run(mut self, stop: &AtomicBool) -> anyhow::Result<Outcome> {
        // The kernel may wake a thread this much later than asked for; its default of 50 µs is a request's time.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).context("can't ask for exact timers")?;
        let mut events = Vec::with_capacity(256);
        let mut next_tick_ns = 0;
        loop {
            let now_ns = self.now_ns();
            if now_ns >= next_tick_ns {
                next_tick_ns = now_ns + TICK_NS;
                self.tick(now_ns);
                if stop.load(Ordering::Relaxed) && now_ns < self.duration_ns {
                    self.pacing.cut(now_ns);
                    self.duration_ns = now_ns;
                    self.deadline_ns = now_ns + self.timeout_ns;
                }
            }
            self.start_due(now_ns);
            let exhausted = now_ns >= self.deadline_ns || self.pacing.is_exhausted(now_ns, self.duration_ns);
            if self.in_flight == 0 && exhausted {
                break;
            }
            let wake_ns = if exhausted { next_tick_ns } else { self.wake_ns(next_tick_ns) };
            let timeout = Duration::from_nanos(wake_ns.saturating_sub(self.now_ns()));
            let timeout = rustix::event::Timespec::try_from(timeout).unwrap_or_default();
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("can't wait for the sockets"),
            }
            for event in &events {
                self.handle(event.data.u64() as usize, event.flags);
                // At once, not after the whole list: the server is not to wait for its next request.
                if !self.ready.is_empty() {
                    self.start_due(self.now_ns());
                }
            }
        }
        self.give_up_rest();
        self.tick(self.now_ns());
        Ok(Outcome { tally: self.tally, ledger: self.ledger })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// When to look again if no socket reports anything.
    fn wake_ns(&self, next_tick_ns: u64) -> u64 {
        let start = self.pacing.next_start_ns().filter(|_| !self.ready.is_empty());
        let thinker = self.thinking.front().map(|(ready_ns, _)| *ready_ns);
        [start, thinker].into_iter().flatten().fold(next_tick_ns, u64::min)
    }

    /// Hands due requests to free connections. What finds none stays due: nothing is skipped.
    fn start_due(&mut self, now_ns: u64) {
        while let Some(&(ready_ns, id)) = self.thinking.front()
            && ready_ns <= now_ns
        {
            self.thinking.pop_front();
            self.offer(id);
        }
        if now_ns >= self.deadline_ns {
            return;
        }
        for _ in 0..STARTS_PER_ROUND {
            let Some(&id) = self.ready.front() else { break };
            let Some(due) = self.pacing.take_due(now_ns, self.duration_ns) else { break };
            self.ready.pop_front();
            let connection = &mut self.connections[id];
            connection.queued = false;
            let (output, begins) = connection.output();
            let written = self.source.write(due.index, output);
            if begins == 0 {
                self.dirty.push(id);
            }
            connection.push(written, begins, due.intended_ns, now_ns);
            self.in_flight += 1;
            self.tally.sent += 1;
            self.offer(id);
        }
        while let Some(id) = self.dirty.pop() {
            if let Err(lost) = self.send(id) {
                self.lose(id, lost);
            }
        }
    }

    /// Puts a connection into the queue of free ones, if it is one.
    fn offer(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        if !connection.queued && connection.in_flight.len() < self.pipeline {
            connection.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Sends what is queued on a connection, connecting it first if need be.
    fn send(&mut self, id: usize) -> Result<(), Lost> {
        let connection = &mut self.connections[id];
        let data = epoll::EventData::new_u64(id as u64);
        if connection.stream().is_none() {
            let stream = connection.open(self.address)?;
            // Level-triggered; writability matters only until it is connected, or while the kernel is full.
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
            epoll::add(&self.epoll, stream, data, flags).map_err(|_| Lost::Refused)?;
            connection.wants_write = true;
            self.tally.connects += 1;
        }
        let flushed = connection.flush(&mut self.tally.bytes_sent)?;
        if flushed == connection.wants_write {
            connection.wants_write = !flushed;
            let flags = if flushed { epoll::EventFlags::IN } else { epoll::EventFlags::IN | epoll::EventFlags::OUT };
            if let Some(stream) = connection.stream() {
                epoll::modify(&self.epoll, stream, data, flags).map_err(|_| Lost::Reset)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, id: usize, flags: epoll::EventFlags) {
        if let Err(lost) = self.exchange(id, flags) {
            self.lose(id, lost);
        }
    }

    fn exchange(&mut self, id: usize, flags: epoll::EventFlags) -> Result<(), Lost> {
        let connection = &mut self.connections[id];
        if connection.stream().is_none() {
            return Ok(());
        }
        if connection.connecting {
            connection.finish_connecting()?;
        }
        if connection.wants_write {
            self.send(id)?;
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            self.connections[id].fill(&mut self.tally.bytes_received)?;
            self.take_answers(id)?;
        }
        Ok(())
    }

    /// Matches the answers that have arrived with the requests under way, in order.
    fn take_answers(&mut self, id: usize) -> Result<(), Lost> {
        let now_ns = self.now_ns();
        loop {
            let connection = &mut self.connections[id];
            let unparsed = connection.unparsed();
            if unparsed.is_empty() {
                break;
            }
            let parsed = if self.redis { Response::parse_resp(unparsed) } else { Response::parse(unparsed) };
            let response = match parsed {
                Ok(Some(response)) => response,
                Ok(None) => break,
                Err(Malformed) => return Err(Lost::Malformed),
            };
            if response.status >= 200 {
                let request = connection.in_flight.pop_front().ok_or(Lost::Malformed)?;
                self.in_flight -= 1;
                let unparsed = self.connections[id].unparsed();
                let verdict = judge(&request.written, &response, unparsed, &mut self.ledger, &mut self.tally);
                let etag = response.etag.clone().and_then(|range| unparsed.get(range));
                self.source.answered(&request.written, verdict.is_ok(), etag);
                match verdict {
                    Ok(()) => {
                        let (intended_ns, operation) = (request.intended_ns, request.written.operation);
                        self.tally.record_ok(operation, intended_ns, now_ns, response.status == 304);
                    }
                    Err(kind) => self.tally.record_error(request.written.operation, request.intended_ns, &kind),
                }
            }
            self.connections[id].consume(response.len);
            if response.close || !self.keep_alive {
                return Err(Lost::Finished);
            }
        }
        match self.pacing {
            Pacing::Closed { think_ns, .. } if think_ns > 0 => {
                if !self.connections[id].queued && self.connections[id].in_flight.len() < self.pipeline {
                    self.thinking.push_back((now_ns + think_ns, id));
                }
            }
            _ => self.offer(id),
        }
        Ok(())
    }

    /// Closes a connection and settles the requests it carried. None of them is sent again.
    fn lose(&mut self, id: usize, lost: Lost) {
        let now_ns = self.now_ns();
        let lost_requests = self.connections[id].close();
        self.in_flight -= lost_requests.len();
        for (request, seen) in lost_requests {
            if seen {
                self.tally.unknown += u64::from(!matches!(request.written.credit, Credit::Nothing));
                self.ledger.doubt(&request.written.credit);
            }
            let (operation, intended_ns) = (request.written.operation, request.intended_ns);
            match lost {
                Lost::Timeout => self.tally.record_given_up(operation, intended_ns, now_ns, lost.kind()),
                _ => self.tally.record_error(operation, intended_ns, lost.kind()),
            }
        }
        let pause_ns = match self.pacing {
            Pacing::Closed { .. } if lost == Lost::Refused => CONNECT_PAUSE_NS,
            Pacing::Closed { think_ns, .. } => think_ns,
            Pacing::Open(_) => 0,
        };
        if pause_ns > 0 && !self.connections[id].queued {
            self.thinking.push_back((now_ns + pause_ns, id));
        } else {
            self.offer(id);
        }
    }

    /// What should have started and did not is an error, not a gap.
    fn give_up_rest(&mut self) {
        let now_ns = self.now_ns();
        for _ in 0..self.pacing.remaining() {
            let Some(due) = self.pacing.take_due(now_ns, u64::MAX) else { break };
            self.tally.record_not_sent(due.intended_ns, now_ns);
        }
    }

    /// Time-outs, and the progress for the thread that shows it.
    fn tick(&mut self, now_ns: u64) {
        for id in 0..self.connections.len() {
            let oldest = self.connections[id].in_flight.front();
            if oldest.is_some_and(|request| request.queued_ns + self.timeout_ns <= now_ns) {
                self.lose(id, Lost::Timeout);
            }
        }
        self.progress.ok.store(self.tally.ok(), Ordering::Relaxed);
        self.progress.errors.store(self.tally.error_sum(), Ordering::Relaxed);
    }
}
