//! The list of events: search, sort by any column, pages of 50.

use std::cmp::Ordering;
use std::sync::Arc;

use askama::Template;
use serde::Serialize;
use warp::reply::Response;

use super::State;
use super::activity::{EventLine, Listing, aside};
use super::answer::{Failure, html};
use super::request::{Parameters, Request, encoded};
use super::session::Who;
use super::view::{Page, beginning, event_url, grouped, listed};
use super::zone::Zone;
use crate::domain::{Hour, HourRange};

const PAGE: usize = 50;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Column {
    Name,
    Total,
    Today,
    Hour,
    Last,
    First,
}

impl Column {
    const ALL: [Self; 6] = [Self::Name, Self::Total, Self::Today, Self::Hour, Self::Last, Self::First];

    fn key(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Total => "total",
            Self::Today => "today",
            Self::Hour => "hour",
            Self::Last => "last",
            Self::First => "first",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Name => "Event",
            Self::Total => "Total",
            Self::Today => "Today",
            Self::Hour => "This hour",
            Self::Last => "Last seen",
            Self::First => "First seen",
        }
    }

    /// Names from A, everything else from the largest.
    fn descends_first(self) -> bool {
        self != Self::Name
    }

    fn compare(self, a: &EventLine, b: &EventLine) -> Ordering {
        match self {
            Self::Name => a.lower.cmp(&b.lower),
            Self::Total => a.total.cmp(&b.total),
            Self::Today => a.today.cmp(&b.today),
            Self::Hour => a.this_hour.cmp(&b.this_hour),
            Self::Last => a.last.cmp(&b.last),
            Self::First => a.first.cmp(&b.first),
        }
    }
}

/// What is searched and how it is sorted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Selection {
    pub(super) search: String,
    /// `all`, `active`, `inactive` or `deleted`.
    pub(super) show: &'static str,
    pub(super) sort: Column,
    pub(super) descending: bool,
}

const SHOWN: [&str; 4] = ["all", "active", "inactive", "deleted"];

impl Selection {
    pub(super) fn of(query: &Parameters) -> Self {
        let sort = Column::ALL.into_iter().find(|column| column.key() == query.get("sort")).unwrap_or(Column::Total);
        Self {
            search: query.get("q").chars().take(255).collect(),
            show: SHOWN.into_iter().find(|shown| *shown == query.get("show")).unwrap_or("all"),
            sort,
            descending: match query.get("order") {
                "asc" => false,
                "desc" => true,
                _ => sort.descends_first(),
            },
        }
    }

    /// The part of an address after `?`, without the page.
    fn to_query(&self) -> String {
        let order = if self.descending { "desc" } else { "asc" };
        format!("q={}&show={}&sort={}&order={order}", encoded(&self.search), self.show, self.sort.key())
    }

    fn by(&self, column: Column) -> Self {
        let descending = if column == self.sort { !self.descending } else { column.descends_first() };
        Self { sort: column, descending, ..self.clone() }
    }

    fn takes(&self, line: &EventLine, search: &str) -> bool {
        let shown = match self.show {
            "active" => !line.entry.inactive && line.entry.deleted_at.is_none(),
            "inactive" => line.entry.inactive && line.entry.deleted_at.is_none(),
            "deleted" => line.entry.deleted_at.is_some(),
            // What is deleted is out of sight unless it is asked for.
            _ => line.entry.deleted_at.is_none(),
        };
        shown && (line.lower.contains(search) || line.entry.description.to_lowercase().contains(search))
    }

    /// The lines that are shown, in order, as numbers of the listing. Equal ones are in order of
    /// their names.
    pub(super) fn select(&self, listing: &Listing) -> Vec<u32> {
        let search = self.search.to_lowercase();
        let lines = (0..).zip(&listing.lines);
        let mut chosen: Vec<u32> =
            lines.filter(|(_, line)| self.takes(line, &search)).map(|(index, _)| index).collect();
        chosen.sort_by(|a, b| {
            let (a, b) = (&listing.lines[*a as usize], &listing.lines[*b as usize]);
            let order = self.sort.compare(a, b);
            if self.descending { order.reverse() } else { order }
        });
        chosen
    }
}

/// The hours of the viewer's day up to now.
pub(super) fn today(zone: Zone, now: chrono::DateTime<chrono::Utc>) -> HourRange {
    let now = Hour::containing(now);
    HourRange { first: zone.hours_of(zone.day_of(now)).first.min(now), last: now }
}

/// What the request selects, in order.
pub(super) async fn selected(
    state: &State,
    selection: &Selection,
    today: HourRange,
) -> Result<(Arc<Listing>, Vec<u32>), Failure> {
    let listing = state.listing(today).await?;
    let (all, wanted) = (Arc::clone(&listing), selection.clone());
    let chosen = aside(move || wanted.select(&all)).await?;
    Ok((listing, chosen))
}

struct Heading {
    title: &'static str,
    query: String,
    /// `ascending`, `descending` or `none`.
    sorted: &'static str,
    is_number: bool,
}

struct Row {
    name: String,
    url: String,
    description: String,
    state: &'static str,
    total: String,
    today: String,
    this_hour: String,
    last: String,
    last_exact: String,
    first: String,
    first_exact: String,
}

#[derive(Template)]
#[template(path = "events.html", config = "src/admin/askama.toml")]
struct EventsPage {
    page: Page,
    selection: Selection,
    sort: &'static str,
    order: &'static str,
    shown: [&'static str; 4],
    headings: Vec<Heading>,
    rows: Vec<Row>,
    found: String,
    is_filtered: bool,
    from: String,
    to: String,
    previous: Option<String>,
    next: Option<String>,
    number: usize,
    pages: usize,
    pages_text: String,
    export: String,
}

pub(super) async fn page(state: &State, request: &Request, who: &Who) -> Result<Response, Failure> {
    let page = Page::new(state, request, Some(who), "Events");
    let query = request.query();
    let selection = Selection::of(&query);
    let (listing, chosen) = selected(state, &selection, today(page.zone, page.now)).await?;
    let pages = chosen.len().div_ceil(PAGE).max(1);
    let number = query.get("page").parse::<usize>().unwrap_or(1).clamp(1, pages);
    let from = (number - 1) * PAGE;
    let on_page = chosen.iter().skip(from).take(PAGE).map(|index| &listing.lines[*index as usize]);
    let rows: Vec<Row> = on_page.map(|line| row(&page, line)).collect();
    let here = selection.to_query();
    let link = |number: usize| format!("?{here}&page={number}");
    let heading = |column: Column| Heading {
        title: column.title(),
        query: selection.by(column).to_query(),
        sorted: match (column == selection.sort, selection.descending) {
            (false, _) => "none",
            (true, true) => "descending",
            (true, false) => "ascending",
        },
        is_number: matches!(column, Column::Total | Column::Today | Column::Hour),
    };
    let content = EventsPage {
        headings: Column::ALL.into_iter().map(heading).collect(),
        sort: selection.sort.key(),
        order: if selection.descending { "desc" } else { "asc" },
        shown: SHOWN,
        found: grouped(chosen.len() as u64),
        is_filtered: !selection.search.is_empty() || selection.show != "all",
        from: grouped(from as u64 + 1),
        to: grouped((from + rows.len()) as u64),
        previous: (number > 1).then(|| link(number - 1)),
        next: (number < pages).then(|| link(number + 1)),
        number,
        pages,
        pages_text: grouped(pages as u64),
        export: here,
        rows,
        selection,
        page,
    };
    Ok(html(&content))
}

fn row(page: &Page, line: &EventLine) -> Row {
    let ago = |hour: Option<Hour>| hour.map_or_else(|| "never".into(), |hour| page.hours_ago(hour));
    let exact = |hour: Option<Hour>| hour.map(|hour| page.hour(&hour)).unwrap_or_default();
    Row {
        name: listed(line.event.as_str()).into_owned(),
        url: event_url(line.event.as_str()),
        description: beginning(&line.entry.description).into_owned(),
        state: match (&line.entry.deleted_at, line.entry.inactive) {
            (Some(_), _) => "deleted",
            (None, true) => "inactive",
            (None, false) => "",
        },
        total: grouped(line.total),
        today: grouped(line.today),
        this_hour: grouped(line.this_hour),
        last: ago(line.last),
        last_exact: exact(line.last),
        first: ago(line.first),
        first_exact: exact(line.first),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::domain::EventName;
    use crate::store::admin::CatalogEntry;

    fn listing(events: &[(&str, u64)]) -> Listing {
        let line = |(name, total): &(&str, u64)| EventLine {
            event: EventName::parse(name).unwrap(),
            lower: name.to_lowercase(),
            total: *total,
            today: 0,
            this_hour: 0,
            first: None,
            last: None,
            entry: CatalogEntry::default(),
        };
        Listing::of(events.iter().map(line).collect())
    }

    fn select(listing: &Listing, query: &str) -> Vec<String> {
        let chosen = Selection::of(&Parameters::parse(query.as_bytes())).select(listing);
        chosen.iter().map(|index| listing.lines[*index as usize].event.to_string()).collect()
    }

    #[test]
    fn the_most_frequent_come_first_and_equals_by_name() {
        let listing = listing(&[("a", 1), ("b", 5), ("c", 5)]);
        assert_eq!(select(&listing, ""), ["b", "c", "a"]);
        assert_eq!(select(&listing, "sort=total&order=asc"), ["a", "b", "c"]);
        assert_eq!(select(&listing, "sort=name"), ["a", "b", "c"]);
        assert_eq!(select(&listing, "sort=name&order=desc"), ["c", "b", "a"]);
    }

    #[test]
    fn search_ignores_case_in_any_script_and_looks_into_descriptions() {
        let mut listing = listing(&[("Login", 1), ("ВХОД", 2), ("other", 3)]);
        listing.lines[2].entry.description = "Where people LOG in".into();
        assert_eq!(select(&listing, "q=log"), ["other", "Login"]);
        assert_eq!(select(&listing, "q=%D0%B2%D1%85%D0%BE%D0%B4"), ["ВХОД"]);
        assert!(select(&listing, "q=%25").is_empty());
    }

    #[test]
    fn deleted_events_are_out_of_sight_unless_asked_for() {
        let mut listing = listing(&[("a", 1), ("b", 2), ("c", 3)]);
        listing.lines[0].entry.deleted_at = Some(chrono::Utc::now());
        listing.lines[1].entry.inactive = true;
        assert_eq!(select(&listing, ""), ["c", "b"]);
        assert_eq!(select(&listing, "show=deleted"), ["a"]);
        assert_eq!(select(&listing, "show=inactive"), ["b"]);
        assert_eq!(select(&listing, "show=active"), ["c"]);
    }

    #[test]
    fn an_address_brings_back_the_same_selection() {
        let selection =
            Selection::of(&Parameters::parse("q=a%26b+c%2F%23&sort=last&order=asc&show=inactive".as_bytes()));
        assert_eq!(selection.search, "a&b c/#");
        assert_eq!(Selection::of(&Parameters::parse(selection.to_query().as_bytes())), selection);
    }
}
