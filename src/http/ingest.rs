//! Counting: parse, stamp the hour once, record, wait for the durability asked for, answer.

use std::time::Duration;

use hyper::StatusCode;
use warp::reply::Response;

use super::State;
use super::answer::{ApiError, json};
use super::query_string::{Parameters, RawQuery};
use crate::batch::{Recorded, Ticket};
use crate::domain::{Ack, EventName, Hour, parse_num};

const CREATED: &str = r#"{"status":true,"response":201}"#;
/// HTTP 204 may not carry a body, so the number is in the envelope and the status is 200.
const KNOWN: &str = r#"{"status":true,"response":204}"#;

/// `POST /api/events/{event}`
pub(super) async fn one(state: &State, event: &str, query: Option<RawQuery>) -> Result<Response, ApiError> {
    let event = EventName::from_path_segment(event).map_err(ApiError::NotCountable)?;
    count(state, event, 1, query).await?;
    Ok(json(StatusCode::CREATED, CREATED))
}

/// `POST /api/events/{event}/{num}`
pub(super) async fn many(state: &State, event: &str, num: &str, query: Option<RawQuery>) -> Result<Response, ApiError> {
    let event = EventName::from_path_segment(event).map_err(ApiError::NotCountableMany)?;
    let num = parse_num(num).ok_or(ApiError::BadNum)?;
    let recorded = count(state, event, num, query).await?;
    Ok(if recorded.first_seen { json(StatusCode::CREATED, CREATED) } else { json(StatusCode::OK, KNOWN) })
}

async fn count(state: &State, event: EventName, count: u64, query: Option<RawQuery>) -> Result<Recorded, ApiError> {
    let ack = match query {
        None => state.ack,
        Some(query) => requested_ack(&query)?.unwrap_or(state.ack),
    };
    let hour = Hour::containing((state.clock)());
    let recorded = state.batches.record(&event, hour, count)?;
    acknowledge(state, recorded.ticket, ack).await?;
    Ok(recorded)
}

fn requested_ack(query: &RawQuery) -> Result<Option<Ack>, ApiError> {
    let parameters = Parameters::parse(Some(query))?;
    parameters.get("ack").map(|text| Ack::parse(text).ok_or(ApiError::BadAck)).transpose()
}

/// Waits until what `ack` names has happened. From here on an error means "counted: unknown".
async fn acknowledge(state: &State, ticket: Ticket, ack: Ack) -> Result<(), ApiError> {
    if ack <= Ack::Journal && state.is_gated() {
        return Ok(());
    }
    let confirmed = state.batches.wait_durable(ticket, ack);
    if ack == Ack::Store {
        let patience = Duration::from_millis(state.options.store_ack_timeout_ms);
        // Boxed: the timer of this rare level would otherwise grow every connection.
        match Box::pin(tokio::time::timeout(patience, confirmed)).await {
            Ok(confirmed) => confirmed.map_err(|_| ApiError::NotConfirmed),
            Err(_) => Err(ApiError::StoreAckTimeout),
        }
    } else {
        confirmed.await.map_err(|_| ApiError::NotConfirmed)
    }
}
