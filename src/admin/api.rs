//! The dashboard for programs: `/api/v1/admin`, by admin key. Hours and days are UTC.

use serde::Serialize;
use serde_json::json;
use warp::reply::Response;

use super::State;
use super::answer::{Failure, success};
use super::event::known;
use super::events::{Selection, selected, today};
use super::export::Exported;
use super::manage::parsed;
use super::request::{Parameters, Request};
use super::session::Who;
use super::told::{Reader, texts};
use super::zone::Zone;
use crate::domain::{EventName, Hour};
use crate::store::admin::{Change, Facts, LoggedChange, Told};

/// Most items of one answer; also what is given unless asked otherwise.
const LIMIT_MAX: usize = 1000;
const LIMIT_USUAL: usize = 50;

fn limit(query: &Parameters) -> Result<usize, Failure> {
    match query.get("limit") {
        "" => Ok(LIMIT_USUAL),
        text => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| Failure::BadRequest(format!("limit is a whole number from 1 to {LIMIT_MAX}."))),
    }
}

/// `GET /api/v1/admin/events?q=&show=&sort=&order=&offset=&limit=`
pub(super) async fn events(state: &State, request: &Request) -> Result<Response, Failure> {
    let query = request.query();
    let limit = limit(&query)?;
    let offset = query.get("offset").parse().unwrap_or(0);
    let today = today(Zone::default(), (state.clock)());
    let (listing, chosen) = selected(state, &Selection::of(&query), today).await?;
    let lines = chosen.iter().skip(offset).take(limit).map(|index| &listing.lines[*index as usize]);
    let events: Vec<Exported> = lines.map(Exported::from).collect();
    Ok(success(&json!({ "found": chosen.len(), "offset": offset, "events": events })))
}

/// `GET /api/v1/admin/events/{event}`
pub(super) async fn event(state: &State, segment: &str) -> Result<Response, Failure> {
    let (event, total, entry, aliases) = known(state, segment).await?;
    Ok(success(&json!({
        "event": event,
        "total": total.as_ref().map_or(0, |total| total.count),
        "first_hour": total.as_ref().map(|total| total.first_hour),
        "last_hour": total.as_ref().map(|total| total.last_hour),
        "description": entry.description,
        "active": !entry.inactive && entry.deleted_at.is_none(),
        "deleted_at": entry.deleted_at,
        "alias_of": entry.alias_of,
        "aliases": aliases,
    })))
}

/// `POST /api/v1/admin/events/{event}/{action}` with the fields of the action as a JSON object or a
/// form.
pub(super) async fn change_event(
    state: &State,
    request: &Request,
    who: &Who,
    event: &str,
    action: &str,
) -> Result<Response, Failure> {
    let event = EventName::from_path_segment(event).map_err(|error| Failure::BadRequest(format!("{error}.")))?;
    let change = parsed(event, action, &fields(request)?, Hour::containing((state.clock)()))?;
    let change = state.change(change, who).await?;
    Ok(success(&json!({ "change": change })))
}

fn fields(request: &Request) -> Result<Parameters, Failure> {
    if !request.has_json() {
        return Ok(request.form());
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&request.body)
        .map_err(|error| Failure::BadRequest(format!("The body must be a JSON object: {error}.")))?;
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let pairs: Vec<_> = object.into_iter().map(|(name, value)| (name, text(value))).collect();
    Ok(Parameters::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
}

/// `GET /api/v1/admin/changes?event=&before=&limit=`: newest first.
pub(super) async fn changes(state: &State, request: &Request) -> Result<Response, Failure> {
    #[derive(Serialize)]
    struct Line {
        change: i64,
        at: chrono::DateTime<chrono::Utc>,
        who: String,
        what: String,
        event: Option<EventName>,
        account: Option<String>,
        before: String,
        after: String,
        /// `None`: an earlier version wrote the line, as sentences.
        facts: Option<Facts>,
        undone_by: Option<i64>,
        can_undo: bool,
    }
    let query = request.query();
    let names = match query.get("event") {
        "" => Vec::new(),
        name => state.names_of(&EventName::parse(name).map_err(|error| Failure::BadRequest(format!("{error}.")))?),
    };
    let limit = u32::try_from(limit(&query)?).unwrap_or(u32::MAX);
    let changes = state.store.changes(names, query.get("before").parse().ok(), limit).await?;
    let line = |logged: LoggedChange| {
        let LoggedChange { change, at, who, what, event, account, told, undone_by, can_undo } = logged;
        let (before, after) = texts(&told, Reader::Program);
        let facts = match told {
            Told::Facts(facts) => Some(facts),
            Told::Sentences { .. } => None,
        };
        Line { change, at, who, what, event, account, before, after, facts, undone_by, can_undo }
    };
    Ok(success(&changes.into_iter().map(line).collect::<Vec<_>>()))
}

/// `POST /api/v1/admin/changes/{change}/undo`
pub(super) async fn undo(state: &State, who: &Who, number: &str) -> Result<Response, Failure> {
    let change = number.parse().map_err(|_| Failure::NotFound)?;
    let change = state.change(Change::Undo { change }, who).await?;
    Ok(success(&json!({ "change": change })))
}
