//! The check that the service counted exactly what it acknowledged.

use std::collections::HashMap;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::ledger::Books;
use crate::target::Target;

/// Differences that a report lists; their number is always exact.
const LISTED_MAX: usize = 20;

/// All-time totals by event, as `GET /api/events/unique` answers them.
#[derive(Debug, Default)]
pub struct Totals(HashMap<String, u64>);

impl Totals {
    /// # Errors
    /// If the target can't be reached or does not answer as the contract says.
    pub fn read(target: &Target) -> anyhow::Result<Self> {
        const PATH: &str = "/api/events/unique";
        #[derive(Deserialize)]
        struct Envelope {
            response: Vec<[Total; 1]>,
        }
        #[derive(Deserialize)]
        struct Total {
            event: String,
            count: u64,
        }
        let (status, body) = target.get(PATH)?;
        if status != 200 {
            bail!("GET {PATH} answered HTTP {status}, so nothing can be verified (--no-verify runs without)");
        }
        let envelope: Envelope =
            serde_json::from_slice(&body).with_context(|| format!("GET {PATH} did not answer as the contract says"))?;
        Ok(Self(envelope.response.into_iter().map(|[total]| (total.event, total.count)).collect()))
    }

    fn of(&self, event: &str) -> u64 {
        self.0.get(event).copied().unwrap_or_default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    pub exact: bool,
    pub events: usize,
    pub acknowledged: u64,
    /// How much more than `acknowledged` is allowed, because outcomes are unknown.
    pub unknown: u64,
    pub counted: u64,
    pub differences: usize,
    pub listed: Vec<Difference>,
}

/// One event whose count is outside of what its answers allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub event: String,
    pub acknowledged: u64,
    pub unknown: u64,
    /// Signed: a total may even have shrunk.
    pub counted: i128,
}

/// Compares what `after` holds more than `before` with the books. If the names of the run carry a
/// `prefix` of its own, an event with that prefix which the run never sent is a difference, too.
#[must_use]
pub fn verify(before: &Totals, after: &Totals, books: &Books, prefix: Option<&str>) -> Verification {
    let counted = |event: &str| i128::from(after.of(event)) - i128::from(before.of(event));
    let sent = books.0.iter().map(|(event, expected)| (event.as_str(), *expected));
    let strangers = after.0.keys().filter(|event| {
        prefix.is_some_and(|prefix| event.starts_with(prefix)) && !books.0.contains_key(event.as_str())
    });
    let strangers = strangers.map(|event| (event.as_str(), Default::default()));
    let mut differences: Vec<Difference> = sent
        .chain(strangers)
        .map(|(event, expected)| Difference {
            event: event.to_owned(),
            acknowledged: expected.acknowledged,
            unknown: expected.unknown,
            counted: counted(event),
        })
        .filter(|difference| {
            let least = i128::from(difference.acknowledged);
            !(least..=least + i128::from(difference.unknown)).contains(&difference.counted)
        })
        .collect();
    differences.sort_by(|a, b| a.event.cmp(&b.event));
    let sum: i128 = books.0.keys().map(|event| counted(event)).sum();
    Verification {
        exact: differences.is_empty(),
        events: books.0.len(),
        acknowledged: books.0.values().map(|expected| expected.acknowledged).sum(),
        unknown: books.0.values().map(|expected| expected.unknown).sum(),
        counted: u64::try_from(sum).unwrap_or_default(),
        differences: differences.len(),
        listed: {
            differences.truncate(LISTED_MAX);
            differences
        },
    }
}

impl Difference {
    /// One line for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { event, acknowledged, unknown, counted } = self;
        let least = i128::from(*acknowledged);
        let most = least + i128::from(*unknown);
        let expected =
            if *unknown == 0 { format!("acknowledged {acknowledged}") } else { format!("expected {least} to {most}") };
        let off =
            if *counted < least { format!("{} lost", least - counted) } else { format!("{} too many", counted - most) };
        format!("{event:?}: {expected}, counted {counted}: {off}")
    }
}
