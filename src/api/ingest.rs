//! Counting: parse, stamp the hour once, record, owe the durability asked for, answer.

use hyper::StatusCode;
use warp::reply::Response;

use super::Api;
use crate::batch::{Recorded, Ticket};
use crate::domain::{Ack, EventName, Hour, parse_num};
use crate::server::{Answer, Debt};
use crate::web::problem::{Problem, json};
use crate::web::query_string::{Parameters, RawQuery};

const CREATED: &str = r#"{"status":true,"response":201}"#;
/// HTTP 204 may not carry a body, so the number is in the envelope and the status is 200.
const KNOWN: &str = r#"{"status":true,"response":204}"#;

/// `POST /api/events/{event}`
pub(super) fn one(
    api: &Api,
    event: &str,
    query: Option<&RawQuery>,
    hour: impl FnOnce() -> Hour,
) -> Result<Answer, Problem> {
    let event = EventName::from_path_segment(event).map_err(Problem::NotCountable)?;
    let (recorded, ack) = count(api, &event, 1, query, hour)?;
    Ok(acknowledge(api, recorded.ticket, ack, json(StatusCode::CREATED, CREATED)))
}

/// `POST /api/events/{event}/{num}`
pub(super) fn many(
    api: &Api,
    event: &str,
    num: &str,
    query: Option<&RawQuery>,
    hour: impl FnOnce() -> Hour,
) -> Result<Answer, Problem> {
    let event = EventName::from_path_segment(event).map_err(Problem::NotCountableMany)?;
    let num = parse_num(num).ok_or(Problem::BadNum)?;
    let (recorded, ack) = count(api, &event, num, query, hour)?;
    let response = if recorded.first_seen { json(StatusCode::CREATED, CREATED) } else { json(StatusCode::OK, KNOWN) };
    Ok(acknowledge(api, recorded.ticket, ack, response))
}

fn count(
    api: &Api,
    event: &EventName,
    count: u64,
    query: Option<&RawQuery>,
    hour: impl FnOnce() -> Hour,
) -> Result<(Recorded, Ack), Problem> {
    let ack = match query {
        None => api.ack,
        Some(query) => requested_ack(query)?.unwrap_or(api.ack),
    };
    Ok((api.batches.record(event, hour(), count)?, ack))
}

pub(super) fn requested_ack(query: &RawQuery) -> Result<Option<Ack>, Problem> {
    let parameters = Parameters::parse(Some(query))?;
    parameters.get("ack").map(|text| Ack::parse(text).ok_or(Problem::BadAck)).transpose()
}

/// `answer`, which leaves when what `ack` names has happened.
pub(super) fn acknowledge(api: &Api, ticket: Ticket, ack: Ack, response: Response) -> Answer {
    let debt = match ack {
        Ack::Memory => {
            api.batches.write_behind();
            None
        }
        _ => Some(Debt { ticket, ack }),
    };
    Answer { response, debt }
}
