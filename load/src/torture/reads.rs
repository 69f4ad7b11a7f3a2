//! Reads of every route that shows counts, one after the other, each checked against what it may show.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use event_tracker::domain::{Day, Hour, HourRange};
use rand::Rng as _;
use rand::rngs::StdRng;
use serde::Deserialize;

use super::figures::Fact;
use super::http::{Answer, Client, request};
use super::node::Node;
use super::observed::{Asked, HOT, Observed, Row};
use super::world::World;

/// Between reads of one reader: the machine is for commits and faults as well.
const REST: Duration = Duration::from_millis(1);
/// Between looks for a process to read from, and after one that could not answer.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
struct Envelope<T> {
    response: T,
}

#[derive(Deserialize)]
struct Count {
    event: String,
    count: u64,
}

#[derive(Deserialize)]
struct HourlyRow {
    date: String,
    event: String,
    count: u64,
}

#[derive(Deserialize)]
struct Picture {
    total: u64,
    hours: Vec<HourOfDay>,
}

#[derive(Deserialize)]
struct HourOfDay {
    date: String,
    count: u64,
}

pub const UNIQUE: &str = "/api/events/unique";

/// All hours that a world may have counted in.
#[must_use]
pub fn range(begins: Hour) -> String {
    format!("/api/events?start_date={begins}&end_date={}", begins.plus(1_000))
}

fn hour(date: &str) -> Result<Hour, String> {
    HourRange::parse(Some(date), Some(date)).map(|range| range.first).map_err(|error| format!("{date:?}: {error}"))
}

fn parsed<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, String> {
    serde_json::from_slice(&answer.body)
        .map(|Envelope { response }| response)
        .map_err(|error| format!("{error} in {:.200}", String::from_utf8_lossy(&answer.body)))
}

/// # Errors
/// When it is no answer as the contract says.
pub fn totals(answer: &Answer) -> Result<HashMap<String, u64>, String> {
    let rows: Vec<[Count; 1]> = parsed(answer)?;
    let length = rows.len();
    let totals: HashMap<_, _> = rows.into_iter().map(|[Count { event, count }]| (event, count)).collect();
    if totals.len() == length { Ok(totals) } else { Err("a name stands there twice".to_owned()) }
}

/// # Errors
/// When it is no answer as the contract says.
pub fn rows(answer: &Answer) -> Result<BTreeMap<Row, u64>, String> {
    let list: Vec<[HourlyRow; 1]> = parsed(answer)?;
    let mut rows = BTreeMap::new();
    for [HourlyRow { date, event, count }] in list {
        if rows.insert((event, hour(&date)?), count).is_some() {
            return Err("a row stands there twice".to_owned());
        }
    }
    Ok(rows)
}

/// Reads from one node until there is nothing more to do.
pub fn read(world: &Arc<World>, node: &Arc<Node>, mut random: StdRng) {
    let mut client = Client::default();
    let mut before = Shown::default();
    while let Some(_pass) = world.enter(node) {
        let Some(address) = node.reach(&mut client) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        let (observed, event) = (&world.observed, random.random_range(0..HOT));
        let asked = observed.ask(node.number);
        let day = Day::containing(Hour::containing(SystemTime::now()));
        let kind = random.random_range(0..10);
        let (target, fact) = match kind {
            0..2 => (range(world.begins), Fact::ReadsRange),
            2..5 => (UNIQUE.to_owned(), Fact::ReadsUnique),
            _ => {
                let name = Observed::hot(asked.round, event);
                (format!("/api/events/histogram/{name}/{day}?format=json"), Fact::ReadsHistogram)
            }
        };
        let Some(answer) = client.exchange(&request("GET", &target)) else { continue };
        let checked = match answer.status {
            200 => check(observed, &asked, (fact, event, day), &answer).and_then(|totals| {
                // Once the store has gone back, what comes from others may shrink.
                let of = (asked.round, address.life);
                let shrunk = totals.filter(|_| observed.era() == 0).and_then(|totals| before.shrinks(of, totals));
                shrunk.map_or(Ok(()), Err)
            }),
            404 if fact == Fact::ReadsHistogram => {
                observed.check_hours("histogram", &asked, event, day.range(), &BTreeMap::new());
                Ok(())
            }
            503 => {
                observed.figures.note(Fact::ReadsRefused);
                std::thread::sleep(PAUSE);
                continue;
            }
            status => Err(format!("HTTP {status}: {:.300}", String::from_utf8_lossy(&answer.body))),
        };
        observed.figures.note(fact);
        std::thread::sleep(REST);
        if let Err(wrong) = checked {
            observed.wrong(format!("GET {target} of node {}: {wrong}", node.number));
        }
    }
}

/// What this connection has seen last, which it must not see less of while its process lives and the store does not
/// go back.
#[derive(Default)]
struct Shown {
    of: Option<(u64, u64)>,
    totals: [u64; HOT],
}

impl Shown {
    /// Gives a name that has shrunk.
    fn shrinks(&mut self, of: (u64, u64), totals: [u64; HOT]) -> Option<String> {
        let before = std::mem::replace(&mut self.totals, totals);
        let is_same = self.of.replace(of) == Some(of);
        let event = (0..HOT).find(|event| is_same && totals[*event] < before[*event])?;
        Some(format!("{} is {}, and was {} before", Observed::hot(of.0, event), totals[event], before[event]))
    }
}

/// Gives the totals of the shared names, if the route shows those.
fn check(
    observed: &Observed,
    asked: &Asked,
    (fact, event, day): (Fact, usize, Day),
    answer: &Answer,
) -> Result<Option<[u64; HOT]>, String> {
    if fact == Fact::ReadsHistogram {
        let Picture { total, hours } = parsed(answer)?;
        let hours = hours.iter().filter(|hour| hour.count > 0).map(|of| Ok((hour(&of.date)?, of.count)));
        let hours = hours.collect::<Result<BTreeMap<_, _>, String>>()?;
        observed.check_hours("histogram", asked, event, day.range(), &hours);
        let sum = hours.values().sum::<u64>();
        return if sum == total { Ok(None) } else { Err(format!("the day is {total}, and its hours are {sum}")) };
    }
    let (shown, what) = if fact == Fact::ReadsUnique {
        (totals(answer)?, "unique")
    } else {
        let rows = rows(answer)?;
        for event in 0..HOT {
            let name = Observed::hot(asked.round, event);
            let of_name = rows.range((name.clone(), Hour::containing(std::time::UNIX_EPOCH))..);
            let of_name = of_name.take_while(|((other, _), _)| *other == name);
            let hours = of_name.map(|((_, hour), count)| (*hour, *count)).collect();
            observed.check_hours("range", asked, event, HourRange::ALL, &hours);
        }
        let mut sums: HashMap<String, u64> = HashMap::new();
        for ((name, _), count) in rows {
            *sums.entry(name).or_default() += count;
        }
        (sums, "range")
    };
    observed.check_totals(what, asked, &shown);
    let totals = std::array::from_fn(|event| shown.get(&Observed::hot(asked.round, event)).copied().unwrap_or(0));
    Ok(Some(totals))
}
