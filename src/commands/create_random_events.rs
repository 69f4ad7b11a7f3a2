//! `event-tracker create-random-events`.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Instant, SystemTime};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::Usage;
use super::random_traffic::{self, Plan};
use crate::app;
use crate::config::Config;
use crate::domain::{EventName, Hour, NUM_MAX};

/// More names than a chart or a list can show at a glance.
const TYPES_MAX: usize = 100;

const MANUAL: &str = "\
The history has days and nights, working days and weekends, and ends with the current hour (UTC). It \
takes the same way into the store as real counts and adds to what is there. The same --seed gives the \
same history within the same hour.

Works while the service runs, also with the embedded database; its pages show the history at once.

Examples:
  event-tracker create-random-events
  event-tracker create-random-events --events 1000000 --days 90
  event-tracker create-random-events --types signup,purchase,refund --seed 42";

/// Fill the store with plausible random history
///
/// Makes up plausible history and adds it to the configured store, to have something to look at.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "create_random_events", after_long_help = MANUAL)]
pub(super) struct CreateRandomEvents {
    /// Occurrences, all together: 1 to 1000000000
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=NUM_MAX))]
    events: u64,
    /// Days, the last of which ends with the current hour: 1 to 3660
    #[arg(long, value_name = "D", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3660))]
    days: u32,
    /// Event types, separated by commas: 1 to 100 names
    #[arg(long, value_name = "LIST", default_value = "login,resource/209,recovery,backup,settings,admin")]
    types: String,
    /// Any whole number; repeats the history made with it [default: random, printed]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

impl CreateRandomEvents {
    /// `load` is called once the command's own options are known to be right.
    pub(super) fn run(self, load: impl FnOnce() -> anyhow::Result<Config>) -> anyhow::Result<()> {
        let types = parse_types(&self.types)?;
        let config = load()?;
        let started = Instant::now();
        let seed = match self.seed {
            Some(seed) => seed,
            None => getrandom::u64()?,
        };
        let last_hour = Hour::containing(SystemTime::now());
        let plan = Plan { occurrences: self.events, days: self.days, last_hour, types, seed };
        let increments = random_traffic::generate(&plan);
        let events = increments.iter().map(|increment| &increment.event).collect::<BTreeSet<_>>().len();
        let hours = increments.iter().map(|increment| increment.hour).collect::<BTreeSet<_>>().len();

        // indicatif draws on standard error, and only when that is a terminal.
        let bar = ProgressBar::new(self.events)
            .with_style(ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} occurrences, {eta} to go")?);
        let imported = app::import(config, &increments, &|done| bar.set_position(done));
        bar.finish_and_clear();
        writeln!(
            std::io::stdout(),
            "created {} occurrences of {events} {} in {hours} {} in {}, in {:.2} s (seed {seed})",
            HumanCount(self.events),
            if events == 1 { "event" } else { "events" },
            if hours == 1 { "hour" } else { "hours" },
            imported?.store,
            started.elapsed().as_secs_f64(),
        )?;
        Ok(())
    }
}

fn parse_types(list: &str) -> Result<Vec<EventName>, Usage> {
    let mut types = Vec::new();
    for text in list.split(',').map(str::trim) {
        let name = EventName::parse(text).map_err(|error| Usage(format!("--types {text:?}: {error}")))?;
        if types.contains(&name) {
            return Err(Usage(format!("--types: {text} is named twice")));
        }
        types.push(name);
    }
    if types.len() > TYPES_MAX {
        return Err(Usage(format!("--types: {} names, but at most {TYPES_MAX} are expected", types.len())));
    }
    Ok(types)
}
