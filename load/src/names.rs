//! Event names: which exist, and which one comes next.

use std::borrow::Cow;
use std::fmt::Write as _;

use anyhow::{Context, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rand::Rng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution as _, Zipf};
use serde::{Deserialize, Serialize};

/// The contract's limit, in bytes of UTF-8.
pub const EVENT_NAME_BYTES_MAX: usize = 255;

/// Everything but RFC 3986's unreserved characters is encoded, so that no name can split a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as one path segment, percent-encoded once.
#[must_use]
pub fn segment(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

/// Why the service would refuse this name; `None` if the contract allows it.
#[must_use]
pub fn objection(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("empty name")
    } else if name.len() > EVENT_NAME_BYTES_MAX {
        Some("name longer than 255 bytes")
    } else if name == "." || name == ".." {
        Some("name is `.` or `..`")
    } else if name.chars().any(char::is_control) {
        Some("control character in name")
    } else {
        None
    }
}

/// `[names]` of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamesSpec {
    pub distribution: Distribution,
    /// How many names exist; ignored for `ever-new`.
    #[serde(default = "default_count")]
    pub count: u32,
    /// Of the Zipf distribution: rank r has a weight of r^-exponent.
    #[serde(default = "default_exponent")]
    pub exponent: f64,
    /// Names are filled up to this length.
    #[serde(default)]
    pub length_bytes: usize,
    #[serde(default)]
    pub style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    Uniform,
    Zipf,
    /// Every increment carries a name that was never used before.
    EverNew,
}

/// What names look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    #[default]
    Plain,
    /// With slashes, spaces and a question mark, as paths of a web site have them.
    Path,
    /// Outside ASCII.
    Unicode,
}

fn default_count() -> u32 {
    100
}

fn default_exponent() -> f64 {
    1.0
}

impl NamesSpec {
    /// # Errors
    /// Says which key is out of its range.
    pub fn validate(&self) -> anyhow::Result<()> {
        if self.count == 0 || self.count > 10_000_000 {
            bail!("names.count is {}; expected 1 to 10,000,000", self.count);
        }
        if !(self.exponent > 0.0 && self.exponent <= 10.0) {
            bail!("names.exponent is {}; expected more than 0 and at most 10", self.exponent);
        }
        if self.length_bytes > EVENT_NAME_BYTES_MAX {
            bail!("names.length_bytes is {}; expected at most {EVENT_NAME_BYTES_MAX}", self.length_bytes);
        }
        Ok(())
    }
}

/// The names of one phase. Identifiers are local to a worker, because ever-new names are.
#[derive(Debug)]
pub enum Names {
    Listed(Vec<ListedName>),
    EverNew { prefix: String, segment_prefix: String, style: Style, length_bytes: usize },
}

#[derive(Debug)]
pub struct ListedName {
    pub text: String,
    pub segment: String,
}

/// Identifies a name together with the [`Names`] and the worker it belongs to.
pub type NameId = u32;

impl Names {
    /// `prefix` sets the names of a run apart; `phase` those of ever-new phases from each other.
    ///
    /// # Errors
    /// If a name would become longer than the contract allows.
    pub fn generate(spec: &NamesSpec, prefix: &str, phase: usize) -> anyhow::Result<Self> {
        spec.validate()?;
        let longest = text_of(prefix, spec.style, "4294967295", spec.length_bytes);
        if let Some(objection) = objection(&longest) {
            bail!("names with the prefix {prefix:?} can't be used: {objection}");
        }
        if spec.distribution == Distribution::EverNew {
            let prefix = format!("{prefix}p{phase}");
            let segment_prefix = segment(&prefix);
            return Ok(Self::EverNew { prefix, segment_prefix, style: spec.style, length_bytes: spec.length_bytes });
        }
        let texts = (0..spec.count).map(|id| text_of(prefix, spec.style, &id.to_string(), spec.length_bytes));
        Ok(Self::listed(texts))
    }

    pub fn listed(texts: impl IntoIterator<Item = String>) -> Self {
        Self::Listed(texts.into_iter().map(|text| ListedName { segment: segment(&text), text }).collect())
    }

    #[must_use]
    pub fn text(&self, worker: usize, id: NameId) -> Cow<'_, str> {
        match self {
            Self::Listed(names) => names.get(id as usize).map_or(Cow::Borrowed(""), |name| Cow::Borrowed(&name.text)),
            Self::EverNew { prefix, style, length_bytes, .. } => {
                Cow::Owned(text_of(prefix, *style, &format!("w{worker}-{id}"), *length_bytes))
            }
        }
    }

    /// Appends the name as a path segment.
    pub fn write_segment(&self, worker: usize, id: NameId, out: &mut Vec<u8>) {
        match self {
            Self::Listed(names) => {
                if let Some(name) = names.get(id as usize) {
                    out.extend_from_slice(name.segment.as_bytes());
                }
            }
            // The usual case without a second allocation: ASCII that needs no encoding.
            Self::EverNew { segment_prefix, style: Style::Plain, length_bytes: 0, .. } => {
                use std::io::Write as _;
                out.extend_from_slice(segment_prefix.as_bytes());
                let _ = write!(out, "w{worker}-{id}");
            }
            Self::EverNew { .. } => out.extend_from_slice(segment(&self.text(worker, id)).as_bytes()),
        }
    }

    #[must_use]
    pub fn is_ever_new(&self) -> bool {
        matches!(self, Self::EverNew { .. })
    }
}

fn text_of(prefix: &str, style: Style, id: &str, length_bytes: usize) -> String {
    let mut text = String::with_capacity(prefix.len() + 32);
    let _ = match style {
        Style::Plain => write!(text, "{prefix}{id}"),
        Style::Path => write!(text, "{prefix}/shop/an item/{id}?from=mail"),
        Style::Unicode => write!(text, "{prefix}événement-事件-🦀-{id}"),
    };
    while text.len() < length_bytes {
        text.push('x');
    }
    text
}

/// Draws names.
#[derive(Debug, Clone)]
pub enum Sampler {
    Uniform { count: u32 },
    Zipf(Zipf<f64>),
    EverNew { next: NameId },
}

impl Sampler {
    /// # Errors
    /// If the distribution's parameters are impossible.
    pub fn new(spec: &NamesSpec) -> anyhow::Result<Self> {
        Ok(match spec.distribution {
            Distribution::Uniform => Self::Uniform { count: spec.count },
            Distribution::EverNew => Self::EverNew { next: 0 },
            Distribution::Zipf => {
                let zipf = Zipf::new(f64::from(spec.count), spec.exponent);
                Self::Zipf(zipf.context("names.count or names.exponent does not suit a Zipf distribution")?)
            }
        })
    }

    pub fn next(&mut self, rng: &mut SmallRng) -> NameId {
        match self {
            Self::Uniform { count } => rng.random_range(0..*count),
            // Ranks begin at 1.
            Self::Zipf(zipf) => zipf.sample(rng) as NameId - 1,
            Self::EverNew { next } => {
                let id = *next;
                *next = next.wrapping_add(1);
                id
            }
        }
    }
}
