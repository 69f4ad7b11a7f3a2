//! What is happening, and whether the numbers can be trusted.

use std::sync::Arc;

use askama::Template;
use warp::reply::Response;

use super::State;
use super::activity::{Period, Top};
use super::answer::{Failure, html};
use super::chart::{Chart, columns, last_days, seconds_into_hour, sparkline};
use super::request::Request;
use super::session::Who;
use super::status::Status;
use super::view::{Page, Trend, event_url, grouped, rate_text, short};
use crate::domain::{Hour, HourRange};
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
    period: &'static str,
    period_name: &'static str,
    periods: [(&'static str, &'static str, i64); 4],
    compare: bool,
    /// `None`: too much for one chart.
    chart: Option<Chart>,
    period_total: String,
    period_trend: Option<Trend>,
    events: String,
    top: Vec<TopLine>,
    new_names: Vec<NewName>,
    new_names_more: usize,
    is_empty: bool,
}

pub(super) async fn page(state: &'static State, request: &Request, who: &Who) -> Result<Response, Failure> {
    let page = Page::new(state, request, Some(who), "Overview");
    let (zone, now) = (page.zone, Hour::containing(page.now));
    let query = request.query();
    let (key, period_name, days) =
        PERIODS.into_iter().find(|(key, ..)| *key == query.get("period")).unwrap_or(PERIODS[0]);
    let compare = query.get("compare") == "1";
    let range = if days == 0 { HourRange { first: now.plus(-23), last: now } } else { last_days(days, now, zone) };

    let totals = state.query.totals().await?;
    let figures = figures(state, &page, now, &totals).await?;
    let period = match state.period(range).await {
        Ok(period) => Some(period),
        Err(Failure::Store(StoreError::TooManyRows { .. })) => None,
        Err(failure) => return Err(failure),
    };
    state.look_at_store().await;

    let chart = period.as_ref().map(|period| {
        let before = compare.then_some(&period.hours_before[..]);
        Chart {
            id: "traffic",
            description: format!("All events together in the last {period_name}"),
            columns: columns(range, &period.hours, before, zone, now),
            before: if compare { "before" } else { "" },
            zoom: false,
        }
    });
    let period = period.unwrap_or_else(|| Arc::new(Period::default()));
    let (sum, sum_before) = (period.hours.iter().sum::<u64>(), period.hours_before.iter().sum::<u64>());
    let most = period.top.first().map_or(1, |top| top.count.max(1));
    let overview = Overview {
        figures,
        status: state.status(),
        period: key,
        period_name,
        periods: PERIODS,
        compare,
        chart,
        period_total: grouped(sum),
        period_trend: Trend::between(sum_before, sum),
        events: grouped(period.events as u64),
        top: period.top.iter().map(|top| top_line(top, most)).collect(),
        new_names: period
            .new_names
            .iter()
            .map(|total| NewName {
                name: total.event.to_string(),
                url: event_url(total.event.as_str()),
                count: short(total.count),
                since: page.hours_ago(total.first_hour),
            })
            .collect(),
        new_names_more: period.new_names_count - period.new_names.len(),
        is_empty: totals.is_empty(),
        page,
    };
    Ok(html(&overview))
}

fn top_line(top: &Top, most: u64) -> TopLine {
    TopLine {
        name: top.event.to_string(),
        url: event_url(top.event.as_str()),
        count: grouped(top.count),
        share: (u128::from(top.count) * 100 / u128::from(most)).try_into().unwrap_or(100),
        trend: if top.is_new { Some(Trend::new_name()) } else { Trend::between(top.before, top.count) },
        // Without the hour that is not over: it would always fall.
        spark: top.hours.split_last().and_then(|(_, over)| sparkline(over)).unwrap_or_default(),
    }
}

async fn figures(
    state: &State,
    page: &Page,
    now: Hour,
    totals: &[crate::domain::EventTotal],
) -> Result<Vec<Figure>, Failure> {
    const WEEK: i64 = 7 * 24;
    let zone = page.zone;
    let today = zone.hours_of(page.today());
    let yesterday =
        HourRange { first: zone.hours_of(zone.day_of(today.first.plus(-1))).first, last: today.first.plus(-1) };
    let seen = HourRange { first: yesterday.first.plus(-WEEK), last: now };
    let sums = match state.sums(seen).await {
        Ok(sums) => Some(sums),
        Err(Failure::Store(StoreError::TooManyRows { .. })) => None,
        Err(failure) => return Err(failure),
    };
    let at = |hour: Hour| -> u64 {
        let index = (hour.number() - seen.first.number()) as usize;
        sums.as_ref().and_then(|sums| sums.get(index)).copied().unwrap_or(0)
    };
    let sum = |first: Hour, last: Hour| -> u64 {
        (first.number()..=last.number()).filter_map(Hour::from_number).map(at).sum()
    };
    let elapsed_s = seconds_into_hour(page.now);
    let counted_today = sum(today.first, now);
    // The same time last week: whole hours, and of the current hour the part that has passed.
    let whole_hours = if now > today.first { sum(today.first.plus(-WEEK), now.plus(-WEEK - 1)) } else { 0 };
    let part = u128::from(at(now.plus(-WEEK))) * u128::from(elapsed_s) / 3600;
    let last_week = whole_hours + u64::try_from(part).unwrap_or(0);
    let counted_yesterday = sum(yesterday.first, yesterday.last);
    let before_yesterday = sum(yesterday.first.plus(-WEEK), yesterday.last.plus(-WEEK));
    let total = totals.iter().map(|total| u128::from(total.count)).sum::<u128>();
    #[allow(clippy::cast_precision_loss)]
    let per_second = at(now) as f64 / elapsed_s as f64;
    let weekday = zone.local(page.now).format("%a");
    Ok(vec![
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
    ])
}
