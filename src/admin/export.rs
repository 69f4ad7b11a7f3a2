//! What the list shows, as a file: CSV for spreadsheets, JSON for programs.

use hyper::header::{CONTENT_DISPOSITION, HeaderValue};
use serde::Serialize;
use warp::reply::Response;

use super::State;
use super::activity::{EventLine, aside};
use super::answer::{Failure, in_pieces};
use super::events::{Selection, selected, today};
use super::request::Request;
use super::view::Page;
use crate::domain::Hour;
use crate::query::lists::Reader;

/// An event as programs get it. Hours are UTC, as everywhere in the API.
#[derive(Serialize)]
pub(super) struct Exported<'a> {
    event: &'a str,
    total: u64,
    today: u64,
    this_hour: u64,
    first_hour: Option<Hour>,
    last_hour: Option<Hour>,
    description: &'a str,
    active: bool,
    deleted: bool,
}

impl<'a> From<&'a EventLine> for Exported<'a> {
    fn from(line: &'a EventLine) -> Self {
        Self {
            event: line.event.as_str(),
            total: line.total,
            today: line.today,
            this_hour: line.this_hour,
            first_hour: line.first,
            last_hour: line.last,
            description: &line.entry.description,
            active: !line.entry.inactive && line.entry.deleted_at.is_none(),
            deleted: line.entry.deleted_at.is_some(),
        }
    }
}

pub(super) async fn download(state: &State, request: &Request) -> Result<Response, Failure> {
    let query = request.query();
    // The viewer's day, as in the list.
    let page = Page::new(state, request, None, "");
    let (listing, chosen) = selected(state, &Selection::of(&query), today(page.zone, page.now)).await?;
    let as_json = query.get("format") == "json";
    let text = aside(move || {
        let lines = chosen.iter().map(|index| &listing.lines[*index as usize]);
        if as_json {
            serde_json::to_string(&lines.map(Exported::from).collect::<Vec<_>>()).unwrap_or_default()
        } else {
            csv(lines)
        }
    })
    .await?;
    let (content_type, name) = if as_json {
        ("application/json", "attachment; filename=\"events.json\"")
    } else {
        ("text/csv; charset=utf-8", "attachment; filename=\"events.csv\"")
    };
    let held = state.query.lists().hold(Reader::Administrator, text.len())?;
    let mut response = in_pieces(content_type, text, held);
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static(name));
    Ok(response)
}

fn csv<'a>(lines: impl Iterator<Item = &'a EventLine>) -> String {
    // The mark tells spreadsheets that it is UTF-8.
    let mut text =
        String::from("\u{feff}event,total,today,this_hour,first_hour_utc,last_hour_utc,description,active,deleted\r\n");
    let hour = |hour: Option<Hour>| hour.map(|hour| hour.to_string()).unwrap_or_default();
    for line in lines {
        let Exported { event, total, today, this_hour, first_hour, last_hour, description, active, deleted } =
            line.into();
        let (event, description) = (field(event), field(description));
        let (first, last) = (hour(first_hour), hour(last_hour));
        text += &format!("{event},{total},{today},{this_hour},{first},{last},{description},{active},{deleted}\r\n");
    }
    text
}

/// One text as a field. Spreadsheets run what begins like a formula, even in quotes; an apostrophe
/// in front makes it text.
fn field(text: &str) -> String {
    let first = text.trim_start().chars().next();
    let is_formula = first.is_some_and(|first| "=+-@\u{ff1d}\u{ff0b}\u{ff0d}\u{ff20}|%".contains(first))
        || text.starts_with(['\t', '\r', '\n']);
    format!("\"{}{}\"", if is_formula { "'" } else { "" }, text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn no_name_becomes_a_formula_in_a_spreadsheet() {
        for name in ["=1+1", "+1", "-1", "@SUM(A1)", "  =1", "\t=1", "＝1", "|x", "%x"] {
            assert!(field(name).starts_with("\"'"), "{name}");
        }
    }

    #[test]
    fn quotes_commas_and_line_breaks_stay_within_a_field() {
        assert_eq!(field("a\"b,c"), "\"a\"\"b,c\"");
        assert_eq!(field("a\nb"), "\"a\nb\"");
        assert_eq!(field("resource/209"), "\"resource/209\"");
    }
}
