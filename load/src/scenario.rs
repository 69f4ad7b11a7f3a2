//! Scenarios: TOML files that say what to send, how fast, and for how long.

use std::path::Path;

use anyhow::{Context, bail};
use event_tracker::domain::Ack;
use serde::{Deserialize, Serialize};

use crate::names::{Distribution, NamesSpec, Style};
use crate::target::Usage;

/// The scenarios that are compiled in, by name.
pub const SHIPPED: &[(&str, &str)] = &[
    ("smoke", include_str!("../scenarios/smoke.toml")),
    ("saturate", include_str!("../scenarios/saturate.toml")),
    ("frontend-day", include_str!("../scenarios/frontend-day.toml")),
    ("burst", include_str!("../scenarios/burst.toml")),
    ("hot-key", include_str!("../scenarios/hot-key.toml")),
    ("wide-names", include_str!("../scenarios/wide-names.toml")),
    ("batches", include_str!("../scenarios/batches.toml")),
    ("dashboards", include_str!("../scenarios/dashboards.toml")),
    ("mobile", include_str!("../scenarios/mobile.toml")),
    ("soak", include_str!("../scenarios/soak.toml")),
    ("bars-reads", include_str!("../scenarios/bars-reads.toml")),
    ("bars-live", include_str!("../scenarios/bars-live.toml")),
    ("bars-posts", include_str!("../scenarios/bars-posts.toml")),
    ("bars-posts-closed", include_str!("../scenarios/bars-posts-closed.toml")),
    ("bars-fill", include_str!("../scenarios/bars-fill.toml")),
];

/// Longest scenario. A run without an end is a mistake, not a test.
const DURATION_S_MAX: f64 = 24.0 * 3600.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One sentence: what is tried and why.
    pub description: String,
    #[serde(default = "default_names")]
    pub names: NamesSpec,
    #[serde(rename = "phase")]
    pub phases: Vec<PhaseSpec>,
}

/// One phase. With `rate_per_s` it is open loop, without it closed loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseSpec {
    pub name: String,
    pub duration_s: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<f64>,
    /// The rate at the end of the phase, reached linearly; unset, the rate stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_rate_per_s: Option<f64>,
    #[serde(default = "default_connections")]
    pub connections: usize,
    /// `false`: a new connection for every request.
    #[serde(default = "default_keep_alive")]
    pub keep_alive: bool,
    /// How many requests may be under way on one connection.
    #[serde(default = "default_pipeline")]
    pub pipeline: usize,
    /// Closed loop only: pause between an answer and the next request on the same connection.
    #[serde(default)]
    pub think_ms: u64,
    /// After this long an answer counts as lost.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<AckLevel>,
    /// Names of this phase, if they differ from the scenario's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<NamesSpec>,
    pub mix: Vec<Operation>,
}

/// The level asked for with `?ack=`; unset, the service's own setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AckLevel {
    Memory,
    Journal,
    Disk,
    Store,
}

impl AckLevel {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Journal => "journal",
            Self::Disk => "disk",
            Self::Store => "store",
        }
    }
}

impl From<AckLevel> for Ack {
    fn from(level: AckLevel) -> Self {
        match level {
            AckLevel::Memory => Self::Memory,
            AckLevel::Journal => Self::Journal,
            AckLevel::Disk => Self::Disk,
            AckLevel::Store => Self::Store,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operation {
    /// `POST /api/events/{event}`
    Single { weight: u32 },
    /// `POST /api/events/{event}/{num}`
    Num { weight: u32, num: u64 },
    /// `POST /api/events` with `rows` rows of `count` each.
    Batch {
        weight: u32,
        rows: u32,
        #[serde(default = "default_row_count")]
        count: u64,
        #[serde(default)]
        format: BatchFormat,
        #[serde(default)]
        gzip: bool,
    },
    /// `GET /api/events` over the last `hours` hours.
    Range { weight: u32, hours: u32 },
    /// `GET /api/events/unique`
    Unique { weight: u32 },
    /// `GET /api/events/histogram/{event}/{today}` of a name that was acknowledged before.
    Histogram {
        weight: u32,
        #[serde(default)]
        format: PictureFormat,
    },
    /// A read with `If-None-Match`, as a dashboard repeats it.
    Poll {
        weight: u32,
        #[serde(default)]
        path: PollPath,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchFormat {
    #[default]
    Json,
    Ndjson,
    /// JSON in `text/plain`, as `navigator.sendBeacon` sends a string.
    Text,
}

impl BatchFormat {
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Text => "text/plain;charset=UTF-8",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PictureFormat {
    #[default]
    Png,
    Jpg,
    Svg,
    Json,
}

impl PictureFormat {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpg => "jpg",
            Self::Svg => "svg",
            Self::Json => "json",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum PollPath {
    #[default]
    Unique,
    Range {
        hours: u32,
    },
}

impl Operation {
    #[must_use]
    pub fn weight(&self) -> u32 {
        match self {
            Self::Single { weight }
            | Self::Num { weight, .. }
            | Self::Batch { weight, .. }
            | Self::Range { weight, .. }
            | Self::Unique { weight }
            | Self::Histogram { weight, .. }
            | Self::Poll { weight, .. } => *weight,
        }
    }

    /// Short name for reports.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Single { .. } => "single".to_owned(),
            Self::Num { num, .. } => format!("num {num}"),
            Self::Batch { rows, format, gzip, .. } => {
                let kind = match format {
                    BatchFormat::Json => "json",
                    BatchFormat::Ndjson => "ndjson",
                    BatchFormat::Text => "text",
                };
                format!("batch {rows} {kind}{}", if *gzip { " gzip" } else { "" })
            }
            Self::Range { hours, .. } => format!("range {hours} h"),
            Self::Unique { .. } => "unique".to_owned(),
            Self::Histogram { format, .. } => format!("histogram {}", format.name()),
            Self::Poll { path: PollPath::Unique, .. } => "poll unique".to_owned(),
            Self::Poll { path: PollPath::Range { hours }, .. } => format!("poll range {hours} h"),
        }
    }

    fn validate(&self) -> anyhow::Result<()> {
        let in_range = |key: &str, value: u64, max: u64| {
            if value == 0 || value > max {
                bail!("{key} is {value}; expected 1 to {max}");
            }
            Ok(())
        };
        in_range("weight", self.weight().into(), 1_000_000)?;
        match self {
            Self::Num { num, .. } => in_range("num", *num, 1_000_000_000),
            Self::Batch { rows, count, .. } => {
                in_range("rows", (*rows).into(), 1_000_000)?;
                in_range("count", *count, 1_000_000_000)
            }
            Self::Range { hours, .. } | Self::Poll { path: PollPath::Range { hours }, .. } => {
                in_range("hours", (*hours).into(), 24 * 366 * 10)
            }
            _ => Ok(()),
        }
    }
}

impl Scenario {
    /// Reads a shipped scenario by name, or a file by path.
    ///
    /// # Errors
    /// A [`Usage`] error that names the file, the line and what was expected.
    pub fn load(name_or_path: &str) -> anyhow::Result<Self> {
        if let Some((_, text)) = SHIPPED.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(text).with_context(|| format!("shipped scenario {name_or_path}"));
        }
        let shipped: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
        let text = std::fs::read_to_string(Path::new(name_or_path)).map_err(|error| {
            Usage(format!("scenario {name_or_path:?}: {error}; expected a TOML file or one of: {}", shipped.join(", ")))
        })?;
        Self::parse(&text).map_err(|error| Usage(format!("scenario {name_or_path:?}: {error:#}")).into())
    }

    /// Multiplies all rates and all durations.
    ///
    /// # Errors
    /// A [`Usage`] error if that makes something impossible of them.
    pub fn scale(&mut self, rate_factor: f64, duration_factor: f64) -> anyhow::Result<()> {
        for phase in &mut self.phases {
            phase.duration_s *= duration_factor;
            for rate in [&mut phase.rate_per_s, &mut phase.to_rate_per_s].into_iter().flatten() {
                *rate *= rate_factor;
            }
        }
        self.validate().map_err(|error| Usage(format!("with those factors: {error:#}")).into())
    }

    /// # Errors
    /// Says what is wrong and where.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        scenario.validate()?;
        Ok(scenario)
    }

    fn validate(&self) -> anyhow::Result<()> {
        self.names.validate()?;
        if self.phases.is_empty() {
            bail!("there is no [[phase]]");
        }
        for phase in &self.phases {
            phase.validate().with_context(|| format!("phase {:?}", phase.name))?;
        }
        let duration_s: f64 = self.phases.iter().map(|phase| phase.duration_s).sum();
        if duration_s > DURATION_S_MAX {
            bail!("the phases last {duration_s} s together; expected at most {DURATION_S_MAX} s");
        }
        Ok(())
    }
}

impl PhaseSpec {
    fn validate(&self) -> anyhow::Result<()> {
        if !(self.duration_s > 0.0 && self.duration_s <= DURATION_S_MAX) {
            bail!("duration_s is {}; expected more than 0 and at most {DURATION_S_MAX}", self.duration_s);
        }
        for rate in [self.rate_per_s, self.to_rate_per_s].into_iter().flatten() {
            if !(0.0..=10_000_000.0).contains(&rate) {
                bail!("a rate of {rate}/s is impossible; expected 0 to 10,000,000");
            }
        }
        match (self.rate_per_s, self.to_rate_per_s) {
            (None, Some(_)) => bail!("to_rate_per_s needs rate_per_s, where the ramp begins"),
            (Some(rate), to_rate) if rate + to_rate.unwrap_or(rate) <= 0.0 => bail!("rate_per_s is 0; expected more"),
            (Some(_), _) if self.think_ms > 0 => bail!("think_ms only has a meaning without rate_per_s (closed loop)"),
            _ => {}
        }
        if self.connections == 0 || self.connections > 60_000 {
            bail!("connections is {}; expected 1 to 60,000", self.connections);
        }
        if self.pipeline == 0 || self.pipeline > 1024 {
            bail!("pipeline is {}; expected 1 to 1024", self.pipeline);
        }
        if !self.keep_alive && self.pipeline > 1 {
            bail!("pipeline needs keep_alive = true");
        }
        if self.timeout_ms == 0 || self.timeout_ms > 600_000 {
            bail!("timeout_ms is {}; expected 1 to 600,000", self.timeout_ms);
        }
        if self.mix.is_empty() {
            bail!("mix is empty; expected at least one operation, e.g. {{ op = \"single\", weight = 1 }}");
        }
        self.names.as_ref().map_or(Ok(()), NamesSpec::validate)?;
        self.mix.iter().try_for_each(|operation| operation.validate().with_context(|| operation.label()))
    }
}

fn default_names() -> NamesSpec {
    NamesSpec { distribution: Distribution::Uniform, count: 100, exponent: 1.0, length_bytes: 0, style: Style::Plain }
}

fn default_connections() -> usize {
    16
}

fn default_keep_alive() -> bool {
    true
}

fn default_pipeline() -> usize {
    1
}

fn default_timeout_ms() -> u64 {
    5000
}

fn default_row_count() -> u64 {
    1
}
