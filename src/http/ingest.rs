//! Counting: parse, stamp the hour once, record, owe the durability asked for, answer.

use std::cell::Cell;

use hyper::StatusCode;
use warp::reply::Response;

use super::State;
use super::answer::{ApiError, json};
use super::gate;
use super::query_string::{Parameters, RawQuery};
use crate::batch::{Recorded, Ticket};
use crate::domain::{Ack, EventName, Hour, parse_num};

const CREATED: &str = r#"{"status":true,"response":201}"#;
/// HTTP 204 may not carry a body, so the number is in the envelope and the status is 200.
const KNOWN: &str = r#"{"status":true,"response":204}"#;

thread_local! {
    /// The hour that counts of the present poll of a connection are stamped with: one look at the
    /// clock serves all requests that came together.
    static STAMP: Cell<Option<Hour>> = const { Cell::new(None) };
}

/// To be called before every poll of a connection.
pub(super) fn forget_hour() {
    STAMP.set(None);
}

fn hour(state: &State) -> Hour {
    STAMP.get().unwrap_or_else(|| {
        let hour = Hour::containing((state.clock)());
        STAMP.set(Some(hour));
        hour
    })
}

/// `POST /api/events/{event}`
pub(super) fn one(state: &State, event: &str, query: Option<&RawQuery>) -> Result<Response, ApiError> {
    let event = EventName::from_path_segment(event).map_err(ApiError::NotCountable)?;
    let (recorded, ack) = count(state, &event, 1, query)?;
    Ok(acknowledge(state, recorded.ticket, ack, json(StatusCode::CREATED, CREATED)))
}

/// `POST /api/events/{event}/{num}`
pub(super) fn many(state: &State, event: &str, num: &str, query: Option<&RawQuery>) -> Result<Response, ApiError> {
    let event = EventName::from_path_segment(event).map_err(ApiError::NotCountableMany)?;
    let num = parse_num(num).ok_or(ApiError::BadNum)?;
    let (recorded, ack) = count(state, &event, num, query)?;
    let answer = if recorded.first_seen { json(StatusCode::CREATED, CREATED) } else { json(StatusCode::OK, KNOWN) };
    Ok(acknowledge(state, recorded.ticket, ack, answer))
}

fn count(state: &State, event: &EventName, count: u64, query: Option<&RawQuery>) -> Result<(Recorded, Ack), ApiError> {
    let ack = match query {
        None => state.ack,
        Some(query) => requested_ack(query)?.unwrap_or(state.ack),
    };
    Ok((state.batches.record(event, hour(state), count)?, ack))
}

pub(super) fn requested_ack(query: &RawQuery) -> Result<Option<Ack>, ApiError> {
    let parameters = Parameters::parse(Some(query))?;
    parameters.get("ack").map(|text| Ack::parse(text).ok_or(ApiError::BadAck)).transpose()
}

/// `answer`, which leaves when what `ack` names has happened.
pub(super) fn acknowledge(state: &State, ticket: Ticket, ack: Ack, answer: Response) -> Response {
    match ack {
        Ack::Memory => state.batches.write_behind(),
        _ => gate::owe(ticket, ack),
    }
    answer
}
