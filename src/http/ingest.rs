//! Counting: parse, stamp the hour once, record, wait for the durability asked for, answer.

use std::cell::Cell;
use std::time::Duration;

use hyper::{Method, StatusCode};
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

/// An increment is counted, and its answer waits for no more than its connection waits for anyhow.
pub(super) struct Counted {
    pub(super) answer: Response,
    /// But for the commit of this.
    pub(super) uncommitted: Option<Ticket>,
}

/// `POST /api/events/{event}`
pub(super) fn one(state: &State, event: &str, query: Option<&RawQuery>) -> Result<Counted, ApiError> {
    let event = EventName::from_path_segment(event).map_err(ApiError::NotCountable)?;
    let (recorded, ack) = count(state, &event, 1, query)?;
    Ok(acknowledge(state, recorded.ticket, ack, json(StatusCode::CREATED, CREATED)))
}

/// `POST /api/events/{event}/{num}`
pub(super) fn many(state: &State, event: &str, num: &str, query: Option<&RawQuery>) -> Result<Counted, ApiError> {
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

/// `answer`, for when what `ack` names has happened.
pub(super) fn acknowledge(state: &State, ticket: Ticket, ack: Ack, answer: Response) -> Counted {
    match ack {
        Ack::Memory => state.batches.write_behind(),
        Ack::Journal => gate::owe(ticket, false),
        Ack::Disk => gate::owe(ticket, true),
        Ack::Store => return Counted { answer, uncommitted: Some(ticket) },
    }
    Counted { answer, uncommitted: None }
}

impl Counted {
    pub(super) async fn answer(self, state: &State) -> Response {
        match self.uncommitted {
            Some(ticket) => committed(state, ticket, self.answer).await,
            None => self.answer,
        }
    }
}

/// It is counted by now, so an error means "counted: unknown".
async fn committed(state: &State, ticket: Ticket, answer: Response) -> Response {
    let patience = Duration::from_millis(state.options.store_ack_timeout_ms);
    let error = match tokio::time::timeout(patience, state.batches.wait_durable(ticket, Ack::Store)).await {
        Ok(Ok(())) => return answer,
        Ok(Err(_)) => ApiError::NotConfirmed,
        Err(_) => ApiError::StoreAckTimeout,
    };
    error.answer(&Method::POST)
}
