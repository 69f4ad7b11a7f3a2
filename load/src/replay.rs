//! A web server's access log as traffic: one line, one increment.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::bail;
use chrono::DateTime;

use crate::names::{NameId, Names, objection};
use crate::plan::{Phase, Requests};
use crate::request::Dialect;
use crate::schedule::Schedule;
use crate::target::Usage;

/// How fast a log is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// So many seconds of the log in one second.
    Times(f64),
    /// As fast as the answers come.
    Max,
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "max" => Ok(Self::Max),
            text => match text.parse() {
                Ok(times) if times > 0.0 && times <= 1e9 => Ok(Self::Times(times)),
                _ => Err("expected `max` or a factor greater than 0, e.g. 60".to_owned()),
            },
        }
    }
}

/// One line of a log in Common or Combined Log Format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Seconds since 1970.
    pub time_s: i64,
    pub method: String,
    /// The request target as the client sent it, with its query.
    pub path: String,
    pub status: u16,
}

impl Line {
    /// `None` if the line is in neither format.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(" [")?;
        let (time, rest) = rest.split_once("] \"")?;
        let time = DateTime::parse_from_str(time, "%d/%b/%Y:%H:%M:%S %z").ok()?;
        let (request, rest) = quoted(rest)?;
        let (method, target) = request.split_once(' ')?;
        // HTTP/0.9 requests have no version behind the target.
        let path = target.rsplit_once(" HTTP/").map_or(target, |(path, _)| path);
        let mut fields = rest.split_whitespace();
        let status = fields.next()?.parse().ok()?;
        // The size: digits, or a dash for an answer without a body.
        let size = fields.next()?;
        if path.is_empty() || size != "-" && !size.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self { time_s: time.timestamp(), method: method.to_owned(), path: path.to_owned(), status })
    }

    /// The event that a template makes of this line; see [`check_template`].
    #[must_use]
    pub fn event(&self, template: &str) -> String {
        let mut event = String::with_capacity(self.path.len() + 16);
        let mut rest = template;
        while let Some((text, (field, after))) =
            rest.split_once('{').and_then(|(text, after)| Some((text, after.split_once('}')?)))
        {
            event.push_str(text);
            let _ = match field {
                "method" => write!(event, "{}", self.method),
                "status" => write!(event, "{}", self.status),
                "route" => write!(event, "{}", self.path.split_once('?').map_or(&*self.path, |(route, _)| route)),
                _ => write!(event, "{}", self.path),
            };
            rest = after;
        }
        event.push_str(rest);
        event
    }
}

/// # Errors
/// A [`Usage`] error if the template holds a field that does not exist.
pub fn check_template(template: &str) -> anyhow::Result<()> {
    const FIELDS: [&str; 4] = ["path", "route", "method", "status"];
    let expected = "expected text with {path} (with its query), {route} (without), {method} or {status}";
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        match after.split_once('}') {
            Some((field, after)) if FIELDS.contains(&field) => rest = after,
            Some((field, _)) => bail!(Usage(format!("--event {template:?}: there is no {{{field}}}; {expected}"))),
            None => bail!(Usage(format!("--event {template:?}: a `{{` is not closed; {expected}"))),
        }
    }
    if template.is_empty() {
        bail!(Usage(format!("--event is empty; {expected}")));
    }
    Ok(())
}

/// The text up to the closing quote, unescaped, and what follows it. Web servers write a quote, a
/// backslash and bytes outside of printable ASCII with a backslash.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut plain = Vec::with_capacity(text.len().min(256));
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            b'"' => return Some((String::from_utf8(plain).ok()?, text.get(at + 1..)?)),
            b'\\' => {
                let escaped = *bytes.get(at + 1)?;
                at += 2;
                match escaped {
                    b'x' => {
                        plain.push(u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?);
                        at += 2;
                    }
                    b'n' => plain.push(b'\n'),
                    b'r' => plain.push(b'\r'),
                    b't' => plain.push(b'\t'),
                    other => plain.push(other),
                }
            }
            byte => {
                plain.push(byte);
                at += 1;
            }
        }
    }
}

/// A log, read.
#[derive(Debug, Default)]
pub struct Log {
    names: Vec<String>,
    /// What each usable line counts, in the order of the log.
    sequence: Vec<NameId>,
    times_s: Vec<i64>,
    /// Why lines were left out, with how many and the first one's number.
    skipped: BTreeMap<&'static str, (u64, u64)>,
}

impl Log {
    /// Reads the lines of a log. Lines that can't be used are left out and kept count of.
    #[must_use]
    pub fn read(bytes: &[u8], template: &str) -> Self {
        let mut log = Self::default();
        let mut ids: HashMap<String, NameId> = HashMap::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let text = std::str::from_utf8(line).unwrap_or("\u{fffd}").trim_end_matches('\r');
            if text.is_empty() {
                continue;
            }
            let usable = Line::parse(text).ok_or("not in Common or Combined Log Format").and_then(|line| {
                let event = line.event(template);
                objection(&event).map_or(Ok((line.time_s, event)), Err)
            });
            match usable {
                Ok((time_s, event)) => {
                    let next = log.names.len() as NameId;
                    let id = *ids.entry(event).or_insert_with_key(|event| {
                        log.names.push(event.clone());
                        next
                    });
                    log.sequence.push(id);
                    // Servers write a line when the answer is complete, so times may step back a little.
                    log.times_s.push(log.times_s.last().map_or(time_s, |last| time_s.max(*last)));
                }
                Err(reason) => log.skipped.entry(reason).or_insert((0, index as u64 + 1)).0 += 1,
            }
        }
        log
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.sequence.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sequence.is_empty()
    }

    /// Sentences about the lines that were left out.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let note = |(reason, (count, first)): (&&str, &(u64, u64))| {
            format!("lines of the log left out: {count} ({reason}; the first is line {first})")
        };
        self.skipped.iter().map(note).collect()
    }

    /// When each line is sent, in nanoseconds. A log has whole seconds: the lines of one second are
    /// spread evenly over it.
    #[must_use]
    pub fn starts_ns(&self, times: f64) -> Vec<u64> {
        let first_s = self.times_s.first().copied().unwrap_or_default();
        let mut starts = Vec::with_capacity(self.times_s.len());
        for second in self.times_s.chunk_by(|a, b| a == b) {
            for (index, time_s) in second.iter().enumerate() {
                let log_s = (time_s - first_s) as f64 + index as f64 / second.len() as f64;
                starts.push((log_s / times * 1e9) as u64);
            }
        }
        starts
    }

    /// The log as a phase of at most `limit_ns`.
    #[must_use]
    pub fn phase(self, speed: Speed, connections: usize, limit_ns: u64, dialect: Dialect) -> Phase {
        let (schedule, duration_ns) = match speed {
            Speed::Max => (None, limit_ns),
            Speed::Times(times) => {
                let starts = self.starts_ns(times);
                let last_ns = starts.last().copied().unwrap_or_default();
                (Some(Schedule::Listed(starts.into())), (last_ns + 1).min(limit_ns))
            }
        };
        Phase {
            name: "replay".to_owned(),
            schedule,
            think_ns: 0,
            duration_ns,
            connections,
            pipeline: 1,
            timeout_ns: 5_000_000_000,
            dialect,
            names: Arc::new(Names::listed(self.names)),
            requests: Requests::Sequence(self.sequence.into()),
        }
    }
}
