//! Counting: parse, stamp the hour once, record, wait for the durability asked for, answer.

use std::future::{Future, Ready, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use hyper::{Method, StatusCode};
use warp::reply::Response;

use super::State;
use super::answer::{ApiError, json};
use super::gate;
use super::query_string::{Parameters, RawQuery};
use crate::batch::{AckError, Recorded, Ticket};
use crate::domain::{Ack, EventName, Hour, parse_num};

const CREATED: &str = r#"{"status":true,"response":201}"#;
/// HTTP 204 may not carry a body, so the number is in the envelope and the status is 200.
const KNOWN: &str = r#"{"status":true,"response":204}"#;

/// An answer that is there, or one that waits for more than its connection waits for anyhow. Small,
/// since it is copied for each request.
pub(super) type Counted = Either<Ready<Response>, BoxFuture<'static, Response>>;

/// `POST /api/events/{event}`
pub(super) fn one(state: &'static State, event: &str, query: Option<&RawQuery>) -> Result<Counted, ApiError> {
    let event = EventName::from_path_segment(event).map_err(ApiError::NotCountable)?;
    let (recorded, ack) = count(state, &event, 1, query)?;
    Ok(acknowledge(state, recorded.ticket, ack, json(StatusCode::CREATED, CREATED)))
}

/// `POST /api/events/{event}/{num}`
pub(super) fn many(
    state: &'static State,
    event: &str,
    num: &str,
    query: Option<&RawQuery>,
) -> Result<Counted, ApiError> {
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
    let hour = Hour::containing((state.clock)());
    Ok((state.batches.record(event, hour, count)?, ack))
}

pub(super) fn requested_ack(query: &RawQuery) -> Result<Option<Ack>, ApiError> {
    let parameters = Parameters::parse(Some(query))?;
    parameters.get("ack").map(|text| Ack::parse(text).ok_or(ApiError::BadAck)).transpose()
}

/// `answer`, as soon as what `ack` names has happened.
pub(super) fn acknowledge(state: &'static State, ticket: Ticket, ack: Ack, answer: Response) -> Counted {
    match ack {
        Ack::Memory => {
            state.batches.write_behind();
            return Either::Left(ready(answer));
        }
        Ack::Journal => {
            gate::owe(ticket);
            return Either::Left(ready(answer));
        }
        Ack::Disk | Ack::Store => {}
    }
    let confirmed = state.batches.wait_durable(ticket, ack);
    Either::Right(
        async move {
            match confirm(state, confirmed, ack).await {
                Ok(()) => answer,
                Err(error) => error.answer(&Method::POST),
            }
        }
        .boxed(),
    )
}

/// It is counted by now, so an error means "counted: unknown".
async fn confirm(
    state: &State,
    confirmed: impl Future<Output = Result<(), AckError>>,
    ack: Ack,
) -> Result<(), ApiError> {
    if ack == Ack::Store {
        let patience = Duration::from_millis(state.options.store_ack_timeout_ms);
        match tokio::time::timeout(patience, confirmed).await {
            Ok(confirmed) => confirmed.map_err(|_| ApiError::NotConfirmed),
            Err(_) => Err(ApiError::StoreAckTimeout),
        }
    } else {
        confirmed.await.map_err(|_| ApiError::NotConfirmed)
    }
}
