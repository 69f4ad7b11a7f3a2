//! A phase, ready to be executed: what scenarios, replays and comparisons become.

use std::sync::Arc;

use chrono::Utc;

use crate::names::{NameId, Names, NamesSpec, Sampler};
use crate::request::{Dialect, Pieces, Source};
use crate::scenario::{Operation, PhaseSpec, Scenario};
use crate::schedule::{Pacing, Schedule, Share};

#[derive(Debug)]
pub struct Phase {
    pub name: String,
    /// `None`: closed loop.
    pub schedule: Option<Schedule>,
    /// Closed loop only.
    pub think_ns: u64,
    /// When the last request is meant to start at the latest.
    pub duration_ns: u64,
    pub connections: usize,
    pub pipeline: usize,
    pub timeout_ns: u64,
    pub dialect: Dialect,
    pub names: Arc<Names>,
    pub requests: Requests,
}

#[derive(Debug)]
pub enum Requests {
    Mix {
        operations: Vec<Operation>,
        names: NamesSpec,
    },
    /// One `POST` for each name, in order; in closed loop the phase ends with the list.
    Sequence(Arc<[NameId]>),
}

impl Phase {
    /// # Errors
    /// If the names of a phase can't be made.
    pub fn from_scenario(scenario: &Scenario, host: &str, prefix: &str) -> anyhow::Result<Vec<Self>> {
        let phase = |(index, spec): (usize, &PhaseSpec)| Self::from_spec(spec, &scenario.names, index, host, prefix);
        scenario.phases.iter().enumerate().map(phase).collect()
    }

    fn from_spec(spec: &PhaseSpec, names: &NamesSpec, index: usize, host: &str, prefix: &str) -> anyhow::Result<Self> {
        let names = spec.names.as_ref().unwrap_or(names);
        let duration_ns = (spec.duration_s * 1e9) as u64;
        Ok(Self {
            name: spec.name.clone(),
            schedule: spec.rate_per_s.map(|rate_per_s| Schedule::Ramp {
                rate_per_s,
                to_rate_per_s: spec.to_rate_per_s.unwrap_or(rate_per_s),
                duration_ns,
            }),
            think_ns: spec.think_ms * 1_000_000,
            duration_ns,
            connections: spec.connections,
            pipeline: spec.pipeline,
            timeout_ns: spec.timeout_ms * 1_000_000,
            dialect: Dialect { host: host.to_owned(), ack: spec.ack, keep_alive: spec.keep_alive, redis: false },
            names: Arc::new(Names::generate(names, prefix, index)?),
            requests: Requests::Mix { operations: spec.mix.clone(), names: names.clone() },
        })
    }

    /// Names of the operations, in the order of the mix.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        match &self.requests {
            Requests::Mix { operations, .. } => operations.iter().map(Operation::label).collect(),
            Requests::Sequence(_) => vec!["single".to_owned()],
        }
    }

    /// How many requests are meant to start; `None` if the answers decide.
    #[must_use]
    pub fn intended(&self) -> Option<u64> {
        match (&self.schedule, &self.requests) {
            (Some(schedule), _) => Some(schedule.len()),
            (None, Requests::Sequence(names)) => Some(names.len() as u64),
            (None, Requests::Mix { .. }) => None,
        }
    }

    /// The requests of one worker, to a server that is known as `host`.
    ///
    /// # Errors
    /// If the distribution of names is impossible.
    pub fn source(&self, worker: usize, host: &str) -> anyhow::Result<Source> {
        let dialect = Dialect { host: host.to_owned(), ..self.dialect.clone() };
        let pieces = Pieces::new(Arc::clone(&self.names), worker, &dialect);
        Ok(match &self.requests {
            Requests::Mix { operations, names } => {
                let seed = self.name.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
                Source::mix(operations, Sampler::new(names)?, pieces, seed, Utc::now())
            }
            Requests::Sequence(names) => Source::Sequence { names: Arc::clone(names), pieces },
        })
    }

    /// The starts of one worker of `workers`.
    #[must_use]
    pub fn pacing(&self, worker: usize, workers: usize) -> Pacing {
        match (&self.schedule, &self.requests) {
            (Some(schedule), _) => Pacing::Open(Share::new(schedule.clone(), worker, workers)),
            (None, Requests::Mix { .. }) => Pacing::Closed { think_ns: self.think_ns, rest: None },
            (None, Requests::Sequence(names)) => {
                let all = Schedule::Listed(vec![0; names.len()].into());
                Pacing::Closed { think_ns: self.think_ns, rest: Some(Share::new(all, worker, workers)) }
            }
        }
    }
}
