//! Changing events, and the log of all changes.

use askama::Template;
use warp::reply::Response;

use super::State;
use super::answer::{Failure, html, see_other};
use super::request::{Parameters, Request, encoded};
use super::session::Who;
use super::told::{Reader, texts};
use super::view::{Page, beginning, event_url, listed};
use crate::domain::{EventName, Hour, HourRange};
use crate::store::StoreError;
use crate::store::admin::{Change, Changed, LoggedChange};

/// Changes on one page of the log.
const PAGE: u32 = 25;
const TEXT_CHARS_MAX: usize = 1000;

/// One line of the log, for people.
pub(super) struct LogLine {
    pub(super) number: i64,
    pub(super) at: String,
    pub(super) ago: String,
    pub(super) who: String,
    pub(super) what: String,
    /// Or the superuser or key.
    pub(super) event: String,
    pub(super) url: String,
    pub(super) before: String,
    pub(super) after: String,
    /// Whether `before` or `after` is a beginning only.
    pub(super) is_cut: bool,
    pub(super) undone_by: Option<i64>,
    pub(super) can_undo: bool,
}

impl LogLine {
    pub(super) fn of(logged: LoggedChange, page: &Page) -> Self {
        let of_account = if logged.is_of_key() { "/admin/keys" } else { "/admin/users" };
        let LoggedChange { change, at, who, what, event, account, told, undone_by, can_undo } = logged;
        let (url, subject) = match event {
            Some(event) => (event_url(event.as_str()), event.to_string()),
            None => (of_account.to_owned(), account.unwrap_or_default()),
        };
        let (before, after) = texts(&told, Reader::Viewer(page.zone));
        Self {
            number: change,
            at: page.time(&at),
            ago: page.ago(&at),
            who,
            what,
            url,
            event: subject,
            before,
            after,
            is_cut: false,
            undone_by,
            can_undo: can_undo && undone_by.is_none(),
        }
    }

    /// As one of many.
    pub(super) fn shortened(self) -> Self {
        let (before, after) = (beginning(&self.before).into_owned(), beginning(&self.after).into_owned());
        let is_cut = before != self.before || after != self.after;
        let (who, event) = (listed(&self.who).into_owned(), listed(&self.event).into_owned());
        Self { who, event, before, after, is_cut, ..self }
    }
}

fn bad(sentence: &str) -> Failure {
    Failure::BadRequest(sentence.into())
}

/// The change that an action and its fields ask for; the same for forms and for JSON.
pub(super) fn parsed(event: EventName, action: &str, fields: &Parameters, now: Hour) -> Result<Change, Failure> {
    match action {
        "describe" => {
            // An empty one takes it away; a missing one is a mistake.
            let missing =
                "The field “description” is missing: send a form, or JSON with Content-Type: application/json.";
            let description = fields.given("description").ok_or_else(|| bad(missing))?.to_owned();
            if description.chars().count() > TEXT_CHARS_MAX {
                return Err(bad("A description has at most 1,000 characters."));
            }
            Ok(Change::Describe { event, description })
        }
        "activate" => Ok(Change::SetActive { event, active: true }),
        "deactivate" => Ok(Change::SetActive { event, active: false }),
        "move" => {
            let into = EventName::parse(fields.get("into"));
            let into = into.map_err(|error| Failure::BadRequest(format!("This can be no event's name: {error}.")))?;
            Ok(Change::Move { from: event, into })
        }
        "correct" => {
            let number = |name: &str| fields.get(name).replace([',', ' '], "").parse::<u64>().ok();
            let hour = fields.get("hour");
            // `YYYYMMDDHH` as in the API, or the hour's number from the form.
            let hour = match hour.len() {
                10 => HourRange::parse(Some(hour), Some(hour)).ok().map(|range| range.first),
                _ => hour.parse().ok().and_then(Hour::from_number),
            };
            let hour = hour.filter(|hour| *hour < now).ok_or_else(|| bad("Please choose an hour that is over."))?;
            let count = number("count").ok_or_else(|| bad("The correct count is a whole number from 0."))?;
            let expected = number("expected").ok_or_else(|| bad("What the count is now must be given too."))?;
            let reason = fields.get("reason").to_owned();
            if reason.is_empty() || reason.chars().count() > TEXT_CHARS_MAX {
                return Err(bad("Please give a reason, of at most 1,000 characters: the log will show it."));
            }
            Ok(Change::Correct { event, hour, expected, count, reason })
        }
        "delete" => Ok(Change::Delete { event }),
        _ => Err(Failure::NotFound),
    }
}

/// `POST /admin/events/{event}/{action}`
pub(super) async fn change(
    state: &State,
    request: &Request,
    who: &Who,
    event: &str,
    action: &str,
) -> Result<Response, Failure> {
    let event = EventName::from_path_segment(event).map_err(|_| Failure::NotFound)?;
    let mut form = request.form();
    let now = Hour::containing((state.clock)());
    // The form names hour and present count in one value, since each hour has its own.
    if let Some((hour, expected)) = form.get("hour").split_once('=').map(|(h, e)| (h.to_owned(), e.to_owned())) {
        form = Parameters::from_pairs([
            ("hour", hour.as_str()),
            ("expected", expected.as_str()),
            ("count", form.get("count")),
            ("reason", form.get("reason")),
        ]);
    }
    let change = parsed(event.clone(), action, &form, now)?;
    let goes_to = match &change {
        Change::Move { into, .. } => event_url(into.as_str()),
        Change::Delete { .. } => "/admin/events".into(),
        _ => event_url(event.as_str()),
    };
    let number = state.change(change, who).await?;
    Ok(see_other(&format!("{goes_to}?notice=changed&change={number}")))
}

/// `POST /admin/changes/{change}/undo`
pub(super) async fn undo(state: &State, request: &Request, who: &Who, number: &str) -> Result<Response, Failure> {
    let change = number.parse().map_err(|_| Failure::NotFound)?;
    let undone = state.change(Change::Undo { change }, who).await?;
    let form = request.form();
    let back = match super::view::local_path(form.get("back")).split('?').next() {
        // The page may be of a name that is gone again: the event has the one of before the change.
        Some(page) if page.starts_with("/admin/events/") => {
            let line = state.store.changes(Vec::new(), Some(undone + 1), 1).await?.into_iter().next();
            let event = line.and_then(|line| line.event);
            event.map_or_else(|| "/admin/events".into(), |event| event_url(event.as_str()))
        }
        Some("/admin") | None => "/admin/changes".to_owned(),
        Some(page) => page.to_owned(),
    };
    Ok(see_other(&format!("{back}?notice=undone")))
}

impl State {
    /// All names under which the log knows an event.
    pub(super) fn names_of(&self, event: &EventName) -> Vec<EventName> {
        let view = self.query.catalog().view();
        view.names_of(view.event(event)).cloned().collect()
    }

    /// Removes the counts of events whose grace period is over, for good. When that is, the store's clock
    /// says and not this node's. Several nodes may do so at once: the store refuses what is done already.
    ///
    /// # Errors
    /// The store's.
    pub async fn purge_deleted(&self) -> Result<(), StoreError> {
        let now = (self.clock)();
        let grace = chrono::TimeDelta::hours(self.options.delete_grace_hours.into());
        for event in self.store.due_purges(grace).await? {
            let change = Change::Purge { event: event.clone(), grace };
            if let Changed::Done { .. } = self.query.catalog().change(change, "event-tracker", now).await? {
                tracing::info!(%event, "The grace period of a deleted event is over: its counts are removed");
            }
        }
        Ok(())
    }
}

#[derive(Template)]
#[template(path = "changes.html", config = "src/admin/askama.toml")]
struct ChangesPage {
    page: Page,
    lines: Vec<LogLine>,
    event: String,
    older: Option<String>,
    is_first: bool,
    /// Whether it is about a single change, with the whole of its texts.
    is_one: bool,
}

/// `GET /admin/changes`, or one of them: `?only=NUMBER`
pub(super) async fn log_page(state: &State, request: &Request, who: &Who) -> Result<Response, Failure> {
    let query = request.query();
    let event = EventName::parse(query.get("event")).ok();
    let only: Option<i64> = query.get("only").parse().ok();
    let before: Option<i64> = only.map(|only| only.saturating_add(1)).or_else(|| query.get("before").parse().ok());
    let limit = if only.is_some() { 1 } else { PAGE };
    let names = event.as_ref().map(|event| state.names_of(event)).unwrap_or_default();
    let mut changes = state.store.changes(names, before, limit).await?;
    changes.retain(|change| only.is_none_or(|only| only == change.change));
    let page = Page::new(state, request, Some(who), "Changes");
    let event = event.map(|event| event.to_string()).unwrap_or_default();
    let older = changes
        .last()
        .filter(|_| changes.len() == PAGE as usize)
        .map(|last| format!("?event={}&before={}", encoded(&event), last.change));
    let lines = changes.into_iter().map(|change| LogLine::of(change, &page));
    let lines = lines.map(|line| if only.is_some() { line } else { line.shortened() }).collect();
    Ok(html(&ChangesPage { page, lines, event, older, is_first: before.is_none(), is_one: only.is_some() }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn change(action: &str, fields: &str) -> Result<Change, Failure> {
        let event = EventName::parse("login").unwrap();
        parsed(event, action, &Parameters::parse(fields.as_bytes()), Hour::from_number(480_000).unwrap())
    }

    #[test]
    fn a_correction_needs_a_past_hour_both_counts_and_a_reason() {
        let fields = "hour=479999&expected=1,200&count=7&reason=twice";
        assert!(matches!(change("correct", fields), Ok(Change::Correct { expected: 1200, count: 7, .. })));
        assert!(change("correct", &fields.replace("479999", "2024050112")).is_ok());
        for (from, to) in
            [("479999", "480000"), ("count=7", "count=-7"), ("reason=twice", "reason=+"), ("expected", "x")]
        {
            assert!(matches!(change("correct", &fields.replace(from, to)), Err(Failure::BadRequest(_))), "{to}");
        }
    }

    #[test]
    fn an_event_can_only_be_moved_to_a_name_that_can_be_counted() {
        assert!(matches!(change("move", "into=new+name"), Ok(Change::Move { .. })));
        assert!(change("move", "into=").is_err());
        assert!(change("move", "into=a%00b").is_err());
    }

    #[test]
    fn a_description_is_taken_away_only_by_an_empty_one() {
        assert!(
            matches!(change("describe", "description=+"), Ok(Change::Describe { description, .. }) if description.is_empty())
        );
        for fields in ["", "{\"description\":\"x\"}", "descripton=x"] {
            assert!(matches!(change("describe", fields), Err(Failure::BadRequest(_))), "{fields}");
        }
    }

    #[test]
    fn an_action_that_does_not_exist_is_not_found() {
        assert!(matches!(change("purge", ""), Err(Failure::NotFound)));
    }
}
