//! One event: a day by hour, a range with its previous period, the week's pattern, and its settings.

use askama::Template;
use chrono::{NaiveDate, TimeDelta};
use warp::reply::Response;

use super::State;
use super::activity::each_hour;
use super::answer::{Failure, html};
use super::chart::{Chart, Heat, before, columns, days_of, last_days, seconds_into_hour};
use super::manage::LogLine;
use super::request::{Parameters, Request, encoded};
use super::session::Who;
use super::view::{AsOf, Page, Trend, event_url, grouped, isolated, listed};
use super::zone::Zone;
use crate::domain::{Day, EventName, EventTotal, Hour, HourRange};
use crate::store::admin::CatalogEntry;

/// Longest range of the chart.
const DAYS_MAX: i64 = 3660;
const DAYS_USUAL: i64 = 30;
/// The week's pattern is that of so many weeks.
const HEAT_WEEKS: i64 = 8;
/// Names shown under which an event is counted, too.
const ALIASES: usize = 10;
/// Changes shown on the page.
const CHANGES: u32 = 6;

#[derive(Template)]
#[template(path = "event.html", config = "src/admin/askama.toml")]
struct EventPage {
    page: Page,
    name: String,
    url: String,
    entry: CatalogEntry,
    /// When a deleted event is removed for good.
    purged_at: Option<String>,
    aliases: Vec<String>,
    aliases_more: usize,
    as_of: AsOf,
    total: u64,
    first: String,
    last: String,
    today: u64,
    day: NaiveDate,
    day_name: String,
    day_total: String,
    day_chart: Chart,
    previous_day: NaiveDate,
    next_day: Option<NaiveDate>,
    /// The range in an address, so that a usual period stays one.
    range_query: String,
    first_day: NaiveDate,
    last_day: NaiveDate,
    presets: [(i64, &'static str); 4],
    preset: i64,
    compare: bool,
    range_total: String,
    range_trend: Option<Trend>,
    range_chart: Chart,
    heat: Heat,
    heat_weeks: i64,
    /// Path of the picture of the day, which is a UTC day.
    picture: String,
    /// That can be corrected: number, time and count, with all digits and grouped.
    hours: Vec<(u32, String, u64, String)>,
    changes: Vec<LogLine>,
    grace_hours: u32,
}

impl EventPage {
    fn grouped(&self, count: &u64) -> String {
        grouped(*count)
    }

    fn grace(&self) -> String {
        match self.grace_hours {
            hours if hours % 24 == 0 => format!("{} days", hours / 24),
            hours => format!("{hours} hours"),
        }
    }
}

/// What is asked for by `day`, `from`, `to`, `days` and `compare`.
struct Asked {
    day: NaiveDate,
    range: HourRange,
    preset: i64,
    compare: bool,
}

impl Asked {
    fn of(query: &Parameters, zone: Zone, now: Hour) -> Self {
        let today = zone.day_of(now);
        let date = |name: &str| query.get(name).parse::<NaiveDate>().ok().filter(is_representable);
        let day = date("day").unwrap_or(today).min(today);
        let days = query.get("days").parse::<i64>().unwrap_or(DAYS_USUAL).clamp(1, DAYS_MAX);
        let (range, preset) = match (date("from"), date("to")) {
            (Some(from), Some(to)) => {
                let (from, to) = (from.min(to).min(today), from.max(to).min(today));
                let from = from.max(to - TimeDelta::days(DAYS_MAX));
                let last = zone.hours_of(to).last.min(now);
                (HourRange { first: zone.hours_of(from).first.min(last), last }, 0)
            }
            _ => (last_days(days, now, zone), days),
        };
        Self { day, range, preset, compare: query.get("compare") == "1" }
    }
}

fn is_representable(date: &NaiveDate) -> bool {
    let year = chrono::Datelike::year(date);
    (1971..9999).contains(&year)
}

/// The event of a path, and what is known of it.
pub(super) async fn known(
    state: &State,
    segment: &str,
) -> Result<(EventName, Option<EventTotal>, CatalogEntry, Vec<EventName>), Failure> {
    let event = EventName::from_path_segment(segment).map_err(|_| Failure::NotFound)?;
    let (totals, view) = state.query.all_totals().await?;
    let total = totals.binary_search_by(|total| total.event.cmp(&event)).ok().map(|index| totals[index].clone());
    let entry = view.entry(&event).cloned();
    if total.is_none() && entry.is_none() {
        return Err(Failure::NotFound);
    }
    let aliases = view.names_of(&event).skip(1).cloned().collect();
    Ok((event, total, entry.unwrap_or_default(), aliases))
}

pub(super) async fn page(
    state: &'static State,
    request: &Request,
    who: &Who,
    segment: &str,
) -> Result<Response, Failure> {
    let (event, total, entry, aliases) = known(state, segment).await?;
    if let Some(target) = &entry.alias_of {
        return Ok(super::answer::see_other(&event_url(target.as_str())));
    }
    let page = Page::new(state, request, Some(who), isolated(event.as_str()));
    let (zone, now) = (page.zone, Hour::containing(page.now));
    let asked = Asked::of(&request.query(), zone, now);
    let as_of = AsOf::now(state, &page);
    let hours = |range: HourRange| hours(state, event.clone(), range);

    let day_range = zone.hours_of(asked.day);
    let day_counts = hours(day_range).await?;
    let (counts, counts_before) = (hours(asked.range).await?, hours(before(asked.range)).await?);
    let heat_range = HourRange { first: now.plus(-HEAT_WEEKS * 168), last: now.plus(-1) };
    let heat_counts = hours(heat_range).await?;
    let today_counts =
        if asked.day == page.today() { day_counts.clone() } else { hours(zone.hours_of(page.today())).await? };
    let changes = state.store.changes(state.names_of(&event), None, CHANGES).await?;

    let sum = counts.iter().sum::<u64>();
    let (first_day, last_day) = days_of(asked.range, zone);
    let utc_day = Day::containing(day_range.first);
    let name = event.to_string();
    let content = EventPage {
        url: event_url(&name),
        purged_at: entry
            .deleted_at
            .map(|at| page.time(&(at + chrono::TimeDelta::hours(state.options.delete_grace_hours.into())))),
        aliases: aliases.iter().take(ALIASES).map(|alias| listed(alias.as_str()).into_owned()).collect(),
        aliases_more: aliases.len().saturating_sub(ALIASES),
        as_of,
        total: total.as_ref().map_or(0, |total| total.count),
        first: total.as_ref().map_or_else(|| "never".into(), |total| page.hour(&total.first_hour)),
        last: total.as_ref().map_or_else(|| "never".into(), |total| page.hour(&total.last_hour)),
        today: today_counts.iter().sum(),
        day: asked.day,
        day_name: asked.day.format("%A, %-d %B %Y").to_string(),
        day_total: grouped(day_counts.iter().sum::<u64>()),
        day_chart: Chart {
            id: "day",
            description: format!("{name} on {} by hour", asked.day.format("%-d %B %Y")),
            columns: columns(day_range, &day_counts, None, zone, now),
            before: "",
            zoom: false,
        },
        previous_day: asked.day - TimeDelta::days(1),
        next_day: asked.day.succ_opt().filter(|next| *next <= page.today()),
        range_query: match asked.preset {
            0 => format!("from={first_day}&to={last_day}"),
            days => format!("days={days}"),
        },
        first_day,
        last_day,
        presets: [(7, "7 days"), (30, "30 days"), (90, "90 days"), (365, "1 year")],
        preset: asked.preset,
        compare: asked.compare,
        range_total: grouped(sum),
        range_trend: if asked.range.last == now {
            Trend::so_far(&counts_before, &counts, seconds_into_hour(page.now))
        } else {
            Trend::between(counts_before.iter().sum(), sum)
        },
        range_chart: Chart {
            id: "range",
            description: format!("{name} from {first_day} to {last_day}"),
            columns: columns(asked.range, &counts, asked.compare.then_some(&counts_before[..]), zone, now),
            before: if asked.compare { "before" } else { "" },
            zoom: first_day < last_day,
        },
        heat: Heat::new(heat_range, &heat_counts, zone),
        heat_weeks: HEAT_WEEKS,
        picture: format!("/api/events/histogram/{}/{utc_day}", encoded(&name)),
        hours: (0..)
            .map(|hours| day_range.first.plus(hours))
            .zip(&day_counts)
            .filter(|(hour, _)| *hour < now)
            .map(|(hour, count)| (hour.number(), zone.label(hour, "%H:%M"), *count, grouped(*count)))
            .collect(),
        changes: changes.into_iter().map(|change| LogLine::of(change, &page).shortened()).collect(),
        grace_hours: state.options.delete_grace_hours,
        name,
        entry,
        page,
    };
    Ok(html(&content))
}

/// The count of each hour of the range.
pub(super) async fn hours(state: &State, event: EventName, range: HourRange) -> Result<Vec<u64>, Failure> {
    Ok(each_hour(range, &state.query.event_hours(&event, range).await?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked(query: &str) -> (String, String, String) {
        let now = Hour::containing("2024-05-15T10:30:00Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap());
        let asked = Asked::of(&Parameters::parse(query.as_bytes()), Zone::default(), now);
        (asked.day.to_string(), asked.range.first.to_string(), asked.range.last.to_string())
    }

    fn expected(day: &str, first: &str, last: &str) -> (String, String, String) {
        (day.into(), first.into(), last.into())
    }

    #[test]
    fn whatever_is_asked_for_the_range_is_in_order_in_the_past_and_not_too_long() {
        assert_eq!(asked(""), expected("2024-05-15", "2024041600", "2024051510"));
        assert_eq!(asked("days=1"), expected("2024-05-15", "2024051500", "2024051510"));
        assert_eq!(asked("from=2024-05-10&to=2024-05-01"), expected("2024-05-15", "2024050100", "2024051023"));
        assert_eq!(
            asked("from=2030-01-01&to=2030-02-01&day=2030-01-01"),
            expected("2024-05-15", "2024051500", "2024051510")
        );
        assert_eq!(asked("day=2024-05-01&from=x"), expected("2024-05-01", "2024041600", "2024051510"));
        assert_eq!(asked("from=0001-01-01&to=2024-05-01&days=-5"), expected("2024-05-15", "2024051500", "2024051510"));
        let (_, first, _) = asked("from=1980-01-01&to=2024-05-01");
        assert_eq!(first, "2014042400");
    }
}
