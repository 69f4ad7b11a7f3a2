//! The check over several nodes of one store: each shows at once what it acknowledged itself, and soon what all
//! have, in totals and in ranges alike.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::bail;
use chrono::{DateTime, TimeDelta, Utc};

use crate::ledger::Books;
use crate::names::Names;
use crate::plan::Phase;
use crate::target::{Target, Targets};
use crate::verify::{Difference, Shown, Totals, Verification, counted, differences};

/// Between two rounds of reads while the targets do not agree.
const PAUSE: Duration = Duration::from_millis(50);

/// What one target shows.
struct Views {
    unique: Totals,
    /// `None`: more rows than it gives.
    range: Option<Totals>,
}

/// Which events a run can count.
enum Scope<'a> {
    Prefix(&'a str),
    Listed(HashSet<&'a str>),
}

impl Scope<'_> {
    fn holds(&self, event: &str) -> bool {
        match self {
            Self::Prefix(prefix) => event.starts_with(prefix),
            Self::Listed(names) => names.contains(event),
        }
    }
}

/// One way to read one target, before and after the run.
struct Read<'r> {
    target: usize,
    name: String,
    before: &'r Totals,
    after: &'r Totals,
}

impl Read<'_> {
    fn grown(&self, event: &str) -> u64 {
        self.after.of(event).saturating_sub(self.before.of(event))
    }
}

/// A run over several targets, from before its first request until after its last answer.
pub struct Watch<'a> {
    targets: &'a Targets,
    prefix: Option<&'a str>,
    first_hour: DateTime<Utc>,
    before: Vec<Views>,
}

impl<'a> Watch<'a> {
    /// Reads what all targets show, when they show the same of the events that the run can count: what another
    /// run has left is in all of them by then.
    ///
    /// # Errors
    /// If one can't be read, or they do not agree in time.
    pub fn begin(targets: &'a Targets, phases: &[Phase], prefix: Option<&'a str>) -> anyhow::Result<Self> {
        let listed = phases.iter().flat_map(|phase| match &*phase.names {
            Names::Listed(names) => names.as_slice(),
            Names::EverNew { .. } => &[],
        });
        let scope = match prefix {
            Some(prefix) => Scope::Prefix(prefix),
            None => Scope::Listed(listed.map(|name| name.text.as_str()).collect()),
        };
        // An hour more on both sides: clocks differ.
        let first_hour = Utc::now() - TimeDelta::hours(1);
        let began = Instant::now();
        loop {
            let before = read(targets, first_hour)?;
            let Some(disagreement) = disagreement(targets, &before, &scope) else {
                return Ok(Self { targets, prefix, first_hour, before });
            };
            if began.elapsed() >= targets.patience {
                bail!(
                    "before the run the targets did not show the same for {}: {disagreement}. Do they share one \
                     database, does nobody else count these events, and is --settle-s longer than their flush interval?",
                    seconds(targets.patience)
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Compares what each target shows with what each of them acknowledged, `books` in their order. What the
    /// others acknowledged may take its time, what it acknowledged itself may not.
    ///
    /// # Errors
    /// If a target can't be read.
    pub fn end(&self, books: &[Books]) -> anyhow::Result<(Verification, Vec<String>)> {
        let mut all = Books::default();
        books.iter().for_each(|books| all.add(books));
        let began = Instant::now();
        let mut after = read(self.targets, self.first_hour)?;
        let mut found = self.lacks_of_their_own(&after, books);
        let (rest, waited) = loop {
            let rest = self.off(&after, &all);
            let waited = began.elapsed();
            // An excess does not shrink by waiting.
            if rest.is_empty() || waited >= self.targets.patience || rest.iter().any(Difference::is_too_many) {
                break (rest, waited);
            }
            std::thread::sleep(PAUSE);
            after = read(self.targets, self.first_hour)?;
        };
        let settled_s = rest.is_empty().then_some(waited.as_secs_f64());
        found.extend(rest);
        let shown: Vec<Shown> = self.shown(&after, books, &all);
        let least = shown.iter().map(|shown| shown.counted).min().unwrap_or_default();
        let mut notes = Vec::new();
        if settled_s.is_none() {
            notes.push(format!(
                "the targets were read for {} after the last answer: do they share one database, and is --settle-s \
                 longer than their flush interval and half a second?",
                seconds(waited)
            ));
        }
        if after.iter().chain(&self.before).any(|views| views.range.is_none()) {
            notes.push("ranges were not compared: one holds more rows than a target gives".to_owned());
        }
        let verification = Verification { targets: shown, settled_s, ..Verification::of(found, &all, least) };
        Ok((verification, notes))
    }

    /// What a target has acknowledged itself and did not show at once.
    fn lacks_of_their_own(&self, after: &[Views], books: &[Books]) -> Vec<Difference> {
        let each = books.iter().enumerate().flat_map(|(target, books)| {
            let reads = self.reads(after).filter(move |read| read.target == target);
            reads.map(move |read| (read, books))
        });
        let lost = each.flat_map(|(Read { name, before, after, .. }, books)| {
            let lost = differences(before, after, books, None).into_iter().filter(Difference::is_lost);
            lost.map(move |lost| Difference { read: Some(format!("{name}, its own, at once")), ..lost })
        });
        lost.collect()
    }

    /// What is not as the sum of all says, in any read. Where outcomes are unknown several counts are right,
    /// but all reads must give the same one.
    fn off(&self, after: &[Views], all: &Books) -> Vec<Difference> {
        let mut off: Vec<Difference> = self
            .reads(after)
            .flat_map(|Read { name, before, after, .. }| {
                let off = differences(before, after, all, self.prefix).into_iter();
                off.map(move |off| Difference { read: Some(name.clone()), ..off })
            })
            .collect();
        if let (true, Some(first)) = (off.is_empty(), self.reads(after).next()) {
            for (event, _) in all.0.iter().filter(|(_, expected)| expected.unknown > 0) {
                let expected = first.grown(event);
                let differing = self.reads(after).filter(|read| read.grown(event) != expected);
                off.extend(differing.map(|read| Difference {
                    counted: read.grown(event).into(),
                    read: Some(read.name),
                    event: event.clone(),
                    acknowledged: expected,
                    unknown: 0,
                }));
            }
        }
        off
    }

    /// All that can be compared.
    fn reads<'r>(&'r self, after: &'r [Views]) -> impl Iterator<Item = Read<'r>> {
        let each = self.targets.all.iter().zip(self.before.iter().zip(after)).enumerate();
        each.flat_map(|(index, (target, (before, after)))| {
            let read = move |what: &str, before, after| {
                let name = format!("{what} of {}", target.url());
                Read { target: index, name, before, after }
            };
            let range = before.range.as_ref().zip(after.range.as_ref());
            let range = range.map(|(before, after)| read("range", before, after));
            [Some(read("unique", &before.unique, &after.unique)), range].into_iter().flatten()
        })
    }

    fn shown(&self, after: &[Views], books: &[Books], all: &Books) -> Vec<Shown> {
        let each = self.targets.all.iter().zip(books).zip(self.before.iter().zip(after));
        let shown = each.map(|((target, books), (before, after))| Shown {
            target: target.url(),
            acknowledged: books.sum().acknowledged,
            unknown: books.sum().unknown,
            counted: counted(&before.unique, &after.unique, all),
        });
        shown.collect()
    }
}

fn read(targets: &Targets, first_hour: DateTime<Utc>) -> anyhow::Result<Vec<Views>> {
    let views = |target: &Target| {
        let unique = Totals::read(target)?;
        Ok(Views { unique, range: Totals::read_range(target, first_hour, Utc::now() + TimeDelta::hours(1))? })
    };
    targets.all.iter().map(views).collect()
}

/// An event that two targets show differently.
fn disagreement(targets: &Targets, views: &[Views], scope: &Scope) -> Option<String> {
    let urls = || targets.all.iter().map(Target::url);
    let uniques = urls().zip(views).map(|(url, views)| (url, &views.unique));
    let ranges = urls().zip(views).filter_map(|(url, views)| Some((url, views.range.as_ref()?)));
    one_of(&uniques.collect::<Vec<_>>(), scope).or_else(|| one_of(&ranges.collect::<Vec<_>>(), scope))
}

fn one_of(totals: &[(String, &Totals)], scope: &Scope) -> Option<String> {
    let ((first_url, first), others) = totals.split_first()?;
    others.iter().find_map(|(url, other)| {
        let mut events = first.events().chain(other.events()).filter(|event| scope.holds(event));
        let event = events.find(|event| first.of(event) != other.of(event))?;
        Some(format!("{event:?} is {} at {first_url} and {} at {url}", first.of(event), other.of(event)))
    })
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
