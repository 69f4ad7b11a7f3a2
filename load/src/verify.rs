//! The check that the service counted exactly what it acknowledged.

use std::collections::HashMap;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ledger::Books;
use crate::target::Target;

/// Differences that a report lists; their number is always exact.
const LISTED_MAX: usize = 20;

/// How the service calls a range that it does not give whole.
const TOO_MANY: &[u8] = b"too_many_rows";

const UNIQUE: &str = "/api/events/unique";

/// Counts by event: all-time totals, or the sums of a range.
#[derive(Debug, Default)]
pub struct Totals(HashMap<String, u64>);

#[derive(Deserialize)]
struct Envelope<T> {
    response: Vec<[T; 1]>,
}

#[derive(Deserialize)]
struct Count {
    event: String,
    count: u64,
}

impl Totals {
    /// All-time totals, as `GET /api/events/unique` answers them.
    ///
    /// # Errors
    /// If the target can't be reached or does not answer as the contract says.
    pub fn read(target: &Target) -> anyhow::Result<Self> {
        let (status, body) = target.get(UNIQUE)?;
        if status != 200 {
            bail!("GET {UNIQUE} answered HTTP {status}, so nothing can be verified (--no-verify runs without)");
        }
        Self::summed(&body).with_context(|| format!("GET {UNIQUE} did not answer as the contract says"))
    }

    /// Sums of `GET /api/events` from one hour through another. `None`: they are more rows than the service
    /// gives.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_range(target: &Target, first: DateTime<Utc>, last: DateTime<Utc>) -> anyhow::Result<Option<Self>> {
        let path = format!("/api/events?start_date={}&end_date={}", first.format("%Y%m%d%H"), last.format("%Y%m%d%H"));
        let (status, body) = target.get(&path)?;
        match status {
            200 => {}
            400 if body.windows(TOO_MANY.len()).any(|part| part == TOO_MANY) => return Ok(None),
            _ => bail!("GET {path} answered HTTP {status}, so nothing can be verified (--no-verify runs without)"),
        }
        Self::summed(&body).map(Some).with_context(|| format!("GET {path} did not answer as the contract says"))
    }

    fn summed(body: &[u8]) -> serde_json::Result<Self> {
        let envelope: Envelope<Count> = serde_json::from_slice(body)?;
        let mut sums = HashMap::with_capacity(envelope.response.len());
        envelope.response.into_iter().for_each(|[row]| *sums.entry(row.event).or_default() += row.count);
        Ok(Self(sums))
    }

    #[must_use]
    pub fn of(&self, event: &str) -> u64 {
        self.0.get(event).copied().unwrap_or_default()
    }

    pub fn events(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    pub exact: bool,
    pub events: usize,
    pub acknowledged: u64,
    /// How much more than `acknowledged` is allowed, because outcomes are unknown.
    pub unknown: u64,
    pub counted: u64,
    pub differences: usize,
    pub listed: Vec<Difference>,
    /// What each of several targets acknowledged and shows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Shown>,
    /// How long after the last answer several targets were read until they showed the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_s: Option<f64>,
}

/// One of several targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    pub target: String,
    /// By itself.
    pub acknowledged: u64,
    pub unknown: u64,
    /// By all, as it shows them in the end.
    pub counted: u64,
}

/// One event whose count is outside of what its answers allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which read of which target, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
    pub event: String,
    pub acknowledged: u64,
    pub unknown: u64,
    /// Signed: a total may even have shrunk.
    pub counted: i128,
}

/// The events of which `after` does not hold as much more than `before` as the books say. If the names of the
/// run carry a `prefix` of its own, an event with that prefix which the run never sent is a difference, too.
#[must_use]
pub fn differences(before: &Totals, after: &Totals, books: &Books, prefix: Option<&str>) -> Vec<Difference> {
    let counted = |event: &str| i128::from(after.of(event)) - i128::from(before.of(event));
    let sent = books.0.iter().map(|(event, expected)| (event.as_str(), *expected));
    let strangers = after.0.keys().filter(|event| {
        prefix.is_some_and(|prefix| event.starts_with(prefix)) && !books.0.contains_key(event.as_str())
    });
    let strangers = strangers.map(|event| (event.as_str(), Default::default()));
    let mut differences: Vec<Difference> = sent
        .chain(strangers)
        .map(|(event, expected)| Difference {
            read: None,
            event: event.to_owned(),
            acknowledged: expected.acknowledged,
            unknown: expected.unknown,
            counted: counted(event),
        })
        .filter(|difference| difference.is_lost() || difference.is_too_many())
        .collect();
    differences.sort_by(|a, b| a.event.cmp(&b.event));
    differences
}

/// How much more of the events of the books `after` holds.
#[must_use]
pub fn counted(before: &Totals, after: &Totals, books: &Books) -> u64 {
    let counted = |event: &String| i128::from(after.of(event)) - i128::from(before.of(event));
    u64::try_from(books.0.keys().map(counted).sum::<i128>()).unwrap_or_default()
}

/// Compares what `after` holds more than `before` with the books, as [`differences`] does.
#[must_use]
pub fn verify(before: &Totals, after: &Totals, books: &Books, prefix: Option<&str>) -> Verification {
    Verification::of(differences(before, after, books, prefix), books, counted(before, after, books))
}

impl Verification {
    #[must_use]
    pub fn of(mut differences: Vec<Difference>, books: &Books, counted: u64) -> Self {
        let sum = books.sum();
        Self {
            exact: differences.is_empty(),
            events: books.0.len(),
            acknowledged: sum.acknowledged,
            unknown: sum.unknown,
            counted,
            differences: differences.len(),
            listed: {
                differences.truncate(LISTED_MAX);
                differences
            },
            targets: Vec::new(),
            settled_s: None,
        }
    }
}

impl Difference {
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.counted < i128::from(self.acknowledged)
    }

    #[must_use]
    pub fn is_too_many(&self) -> bool {
        self.counted > i128::from(self.acknowledged) + i128::from(self.unknown)
    }

    /// One line for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { read, event, acknowledged, unknown, counted } = self;
        let least = i128::from(*acknowledged);
        let most = least + i128::from(*unknown);
        let expected =
            if *unknown == 0 { format!("acknowledged {acknowledged}") } else { format!("expected {least} to {most}") };
        let off =
            if *counted < least { format!("{} lost", least - counted) } else { format!("{} too many", counted - most) };
        let read = read.as_ref().map_or_else(String::new, |read| format!("{read}: "));
        format!("{read}{event:?}: {expected}, counted {counted}: {off}")
    }
}
