//! When requests start. Open loop: at fixed times that do not depend on the server's answers.

use std::sync::Arc;

/// The intended starts of a phase, in nanoseconds since its beginning, never decreasing.
#[derive(Debug, Clone)]
pub enum Schedule {
    /// Evenly spaced starts, the rate going linearly from one value to another.
    Ramp { rate_per_s: f64, to_rate_per_s: f64, duration_ns: u64 },
    /// Starts read from somewhere, e.g. a log.
    Listed(Arc<[u64]>),
}

impl Schedule {
    /// How many requests the whole schedule holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            // The mean rate times the duration: the area under the ramp.
            Self::Ramp { rate_per_s, to_rate_per_s, duration_ns } => {
                (f64::midpoint(*rate_per_s, *to_rate_per_s) * seconds(*duration_ns)).round() as u64
            }
            Self::Listed(starts) => starts.len() as u64,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The intended start of request `index`; `None` past the end.
    #[must_use]
    pub fn start_ns(&self, index: u64) -> Option<u64> {
        if index >= self.len() {
            return None;
        }
        match self {
            Self::Listed(starts) => starts.get(usize::try_from(index).ok()?).copied(),
            Self::Ramp { .. } if index == 0 => Some(0),
            // Solves rate * t + slope * t² / 2 = index for t, in the form that also holds for slope 0.
            Self::Ramp { rate_per_s, to_rate_per_s, duration_ns } => {
                let index = index as f64;
                let slope = (to_rate_per_s - rate_per_s) / seconds(*duration_ns);
                let root = (rate_per_s * rate_per_s + 2.0 * slope * index).max(0.0).sqrt();
                let start_ns = (2.0 * index / (rate_per_s + root) * 1e9) as u64;
                Some(start_ns.min(*duration_ns))
            }
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// One worker's share of a schedule: every `workers`-th request, so that the workers interleave.
#[derive(Debug, Clone)]
pub struct Share {
    schedule: Schedule,
    next_index: u64,
    /// Requests from this index on are not wanted.
    end_index: u64,
    workers: u64,
}

impl Share {
    #[must_use]
    pub fn new(schedule: Schedule, worker: usize, workers: usize) -> Self {
        Self { end_index: schedule.len(), schedule, next_index: worker as u64, workers: workers as u64 }
    }

    /// The intended start of the next request, without taking it.
    #[must_use]
    pub fn peek_ns(&self) -> Option<u64> {
        self.schedule.start_ns(self.next_index).filter(|_| self.next_index < self.end_index)
    }

    /// Index, in the whole schedule, of the next request.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    pub fn take(&mut self) {
        self.next_index += self.workers;
    }

    /// How many requests have not been taken.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.end_index.saturating_sub(self.next_index).div_ceil(self.workers)
    }

    /// Ends the schedule at `now_ns`. What was meant to start by then is still wanted.
    pub fn cut(&mut self, now_ns: u64) {
        let mut later = self.clone();
        while later.peek_ns().is_some_and(|start_ns| start_ns <= now_ns) {
            later.take();
        }
        self.end_index = self.end_index.min(later.next_index);
    }
}

/// What decides about the next start of a worker.
#[derive(Debug, Clone)]
pub enum Pacing {
    /// Fixed starts; answers do not hold them up.
    Open(Share),
    /// As soon as a connection is free again, `think_ns` after its last answer; until the phase ends
    /// or, where there is one, the list of requests.
    Closed { think_ns: u64, rest: Option<Share> },
}

/// A request that is to start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Its place in the whole schedule; 0 where there is none.
    pub index: u64,
    pub intended_ns: u64,
}

impl Pacing {
    /// Takes the next request that is due at `now_ns`; `end_ns` is the end of a closed loop.
    pub fn take_due(&mut self, now_ns: u64, end_ns: u64) -> Option<Due> {
        match self {
            Self::Open(share) => {
                let intended_ns = share.peek_ns().filter(|start_ns| *start_ns <= now_ns)?;
                let index = share.next_index();
                share.take();
                Some(Due { index, intended_ns })
            }
            Self::Closed { rest: None, .. } => (now_ns < end_ns).then_some(Due { index: 0, intended_ns: now_ns }),
            Self::Closed { rest: Some(share), .. } => {
                share.peek_ns().filter(|_| now_ns < end_ns)?;
                let index = share.next_index();
                share.take();
                Some(Due { index, intended_ns: now_ns })
            }
        }
    }

    /// When the next request is to start, as far as that does not depend on a free connection.
    #[must_use]
    pub fn next_start_ns(&self) -> Option<u64> {
        match self {
            Self::Open(share) => share.peek_ns(),
            Self::Closed { .. } => Some(0),
        }
    }

    /// Whether every request has been taken.
    #[must_use]
    pub fn is_exhausted(&self, now_ns: u64, end_ns: u64) -> bool {
        match self {
            Self::Open(share) => share.peek_ns().is_none(),
            Self::Closed { rest, .. } => {
                now_ns >= end_ns || rest.as_ref().is_some_and(|share| share.peek_ns().is_none())
            }
        }
    }

    /// How many requests of the list, where there is one, have not been taken.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        match self {
            Self::Open(share) => share.remaining(),
            Self::Closed { rest, .. } => rest.as_ref().map_or(0, Share::remaining),
        }
    }

    /// Nothing is meant to start after `now_ns`.
    pub fn cut(&mut self, now_ns: u64) {
        match self {
            Self::Open(share) => share.cut(now_ns),
            Self::Closed { rest, .. } => *rest = None,
        }
    }
}
