//! What is happening, and whether the numbers can be trusted.

use std::cmp::Ordering;
use std::time::Duration;

use askama::Template;
use chrono::TimeDelta;
use warp::reply::Response;

use super::State;
use super::activity::Top;
use super::answer::{Failure, html};
use super::chart::{Chart, columns, last_days, seconds_into_hour, sparkline};
use super::nodes::NodeLine;
use super::request::Request;
use super::session::Who;
use super::status::Status;
use super::view::{AsOf, Page, Trend, event_url, grouped, rate_text, short};
use crate::domain::{EventTotal, Hour, HourRange};
use crate::store::StoreError;

/// What the chart can show: key, name, days (0: the last 24 hours).
const PERIODS: [(&str, &str, i64); 4] =
    [("24h", "24 hours", 0), ("7d", "7 days", 7), ("30d", "30 days", 30), ("90d", "90 days", 90)];

/// One big number.
struct Figure {
    id: &'static str,
    name: &'static str,
    value: String,
    /// With all digits.
    exact: String,
    /// What the script adds to.
    number: u128,
    trend: Option<Trend>,
    note: String,
}

/// A page does not wait longer for the sums of each event, which after a start cost the store all rows of the period.
const PERIOD_PATIENCE: Duration = Duration::from_millis(500);

struct TopLine {
    name: String,
    url: String,
    count: String,
    /// In percent of the most popular one.
    share: u64,
    trend: Option<Trend>,
    spark: String,
}

struct NewName {
    name: String,
    url: String,
    count: String,
    since: String,
}

#[derive(Template)]
#[template(path = "overview.html", config = "src/admin/askama.toml")]
struct Overview {
    page: Page,
    figures: Vec<Figure>,
    status: Status,
    nodes: Vec<NodeLine>,
    period: &'static str,
    period_name: &'static str,
    periods: [(&'static str, &'static str, i64); 4],
    compare: bool,
    chart: Chart,
    period_total: String,
    period_trend: Option<Trend>,
    events: String,
    top: Vec<TopLine>,
    new_names: Vec<NewName>,
    new_names_more: usize,
    is_empty: bool,
    /// The sums of the single events are not known yet.
    is_adding_up: bool,
    /// Why there are no numbers.
    outage: Option<Failure>,
    as_of: AsOf,
    /// All time, as the script compares it.
    total: String,
}

impl Overview {
    fn missing(&self) -> String {
        grouped(u64::try_from(self.status.missing).unwrap_or(0))
    }

    /// The script asks for the page again so soon when there is something new.
    fn refresh_s(&self) -> u32 {
        if self.is_empty || self.outage.is_some() { 5 } else { 60 }
    }
}

pub(super) async fn page(state: &'static State, request: &Request, who: &Who) -> Result<Response, Failure> {
    let page = Page::new(state, request, Some(who), "Overview");
    let (zone, now) = (page.zone, Hour::containing(page.now));
    let query = request.query();
    let (key, period_name, days) =
        PERIODS.into_iter().find(|(key, ..)| *key == query.get("period")).unwrap_or(PERIODS[0]);
    let compare = query.get("compare") == "1";
    let range = if days == 0 { HourRange { first: now.plus(-23), last: now } } else { last_days(days, now, zone) };

    let as_of = AsOf::now(state, &page);
    let blank = Overview {
        figures: Vec::new(),
        status: state.status(),
        nodes: Vec::new(),
        period: key,
        period_name,
        periods: PERIODS,
        compare,
        chart: Chart {
            id: "traffic",
            description: format!("All events together in the last {period_name}"),
            columns: Vec::new(),
            before: if compare { "before" } else { "" },
            zoom: false,
        },
        period_total: String::new(),
        period_trend: None,
        events: String::new(),
        top: Vec::new(),
        new_names: Vec::new(),
        new_names_more: 0,
        is_empty: false,
        is_adding_up: false,
        outage: None,
        as_of,
        total: "unknown".into(),
        page,
    };
    let read = async {
        let period = state.period_within(range, PERIOD_PATIENCE);
        let ((totals, figures), (period, is_complete)) = tokio::try_join!(figures(state, &blank.page, now), period)?;
        Ok::<_, Failure>((totals, figures, period, is_complete))
    };
    // Nothing here waits for another: the first page after a while takes as long as its longest read.
    let (read, ()) = tokio::join!(read, state.look_at_nodes());
    let (totals, figures, period, is_complete) = match read {
        Ok(read) => read,
        // What is known without the store says what is the matter, and the numbers come by themselves.
        Err(
            failure @ Failure::Store(
                StoreError::Unavailable(_)
                | StoreError::Refused(_)
                | StoreError::AnotherDatabase(_)
                | StoreError::CatalogChanging,
            ),
        ) => {
            let status = failure.status();
            let mut response = html(&Overview { status: state.status(), outage: Some(failure), ..blank });
            *response.status_mut() = status;
            return Ok(response);
        }
        Err(failure) => return Err(failure),
    };
    state.look_at_books().await;

    let elapsed_s = seconds_into_hour(blank.page.now);
    let before = compare.then_some(&period.hours_before[..]);
    let most = period.top.first().map_or(1, |top| top.count.max(1));
    let new_names = period.new_names.iter().map(|total| NewName {
        name: total.event.to_string(),
        url: event_url(total.event.as_str()),
        count: short(total.count),
        since: blank.page.hours_ago(total.first_hour),
    });
    let overview = Overview {
        total: totals.iter().map(|total| u128::from(total.count)).sum::<u128>().to_string(),
        figures,
        status: state.status(),
        nodes: NodeLine::all(&state.live_nodes(), &state.node.presence, &blank.page),
        chart: Chart { columns: columns(range, &period.hours, before, zone, now), ..blank.chart },
        period_total: grouped(period.hours.iter().sum::<u64>()),
        period_trend: Trend::so_far(&period.hours_before, &period.hours, elapsed_s),
        events: grouped(period.events as u64),
        top: period.top.iter().map(|top| top_line(top, most, elapsed_s)).collect(),
        new_names: new_names.collect(),
        new_names_more: period.new_names_count - period.new_names.len(),
        is_empty: totals.is_empty(),
        is_adding_up: !is_complete,
        ..blank
    };
    Ok(html(&overview))
}

fn top_line(top: &Top, most: u64, elapsed_s: u64) -> TopLine {
    TopLine {
        name: top.event.to_string(),
        url: event_url(top.event.as_str()),
        count: grouped(top.count),
        share: (u128::from(top.count) * 100 / u128::from(most)).try_into().unwrap_or(100),
        trend: if top.is_new {
            Some(Trend::new_name())
        } else {
            Trend::so_far(&top.hours_before, &top.hours, elapsed_s)
        },
        // Without the hour that is not over: it would always fall.
        spark: top.hours.split_last().and_then(|(_, over)| sparkline(over)).unwrap_or_default(),
    }
}

async fn figures(state: &State, page: &Page, now: Hour) -> Result<(Vec<EventTotal>, Vec<Figure>), Failure> {
    let zone = page.zone;
    let days_ago = |days: i64| zone.hours_of(page.today() - TimeDelta::days(days));
    let today = days_ago(0);
    let yesterday =
        HourRange { first: zone.hours_of(zone.day_of(today.first.plus(-1))).first, last: today.first.plus(-1) };
    let seen = HourRange { first: days_ago(8).first.min(yesterday.first), last: now };
    let totals = async { Ok(state.query.totals().await?) };
    let (totals, sums) = tokio::try_join!(totals, state.sums(seen))?;
    let at = |hour: Hour| -> u64 {
        let index = hour.number().checked_sub(seen.first.number());
        index.and_then(|index| sums.get(index as usize)).copied().unwrap_or(0)
    };
    let hours = |range: HourRange| (range.first.number()..=range.last.number()).filter_map(Hour::from_number);
    let sum = |range: HourRange| hours(range).map(at).sum::<u64>();
    let elapsed_s = seconds_into_hour(page.now);
    let counted_today = sum(HourRange { last: now, ..today });
    // The same time last week: whole hours, and of the current hour the part that has passed. By the
    // clock on the wall, since a day on which clocks change is longer or shorter.
    let time = zone.hour_and_weekday(now).0;
    let last_week: u128 = hours(days_ago(7))
        .map(|hour| match zone.hour_and_weekday(hour).0.cmp(&time) {
            Ordering::Less => u128::from(at(hour)),
            Ordering::Equal => u128::from(at(hour)) * u128::from(elapsed_s) / 3600,
            Ordering::Greater => 0,
        })
        .sum();
    let last_week = u64::try_from(last_week).unwrap_or(u64::MAX);
    let (counted_yesterday, before_yesterday) = (sum(yesterday), sum(days_ago(8)));
    let total = totals.iter().map(|total| u128::from(total.count)).sum::<u128>();
    #[allow(clippy::cast_precision_loss)]
    let per_second = at(now) as f64 / elapsed_s as f64;
    let weekday = page.today().format("%a");
    let figures = vec![
        Figure {
            id: "rate",
            name: "Events per second",
            value: rate_text(per_second),
            exact: String::new(),
            number: 0,
            trend: None,
            note: "average of this hour".into(),
        },
        Figure {
            id: "today",
            name: "Today",
            value: short(counted_today),
            exact: grouped(counted_today),
            number: counted_today.into(),
            trend: Trend::between(last_week, counted_today),
            note: format!("to last {weekday}, same time"),
        },
        Figure {
            id: "yesterday",
            name: "Yesterday",
            value: short(counted_yesterday),
            exact: grouped(counted_yesterday),
            number: counted_yesterday.into(),
            trend: Trend::between(before_yesterday, counted_yesterday),
            note: "to a week before".into(),
        },
        Figure {
            id: "total",
            name: "All time",
            value: short(total),
            exact: grouped(total),
            number: total,
            trend: None,
            note: match totals.len() {
                1 => "one event".into(),
                n => format!("{} events", grouped(n as u64)),
            },
        },
    ];
    Ok((totals, figures))
}
