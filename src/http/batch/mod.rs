//! `POST /api/events`: many events in one request.
//!
//! The body is taken in and added up first, one sum for each distinct event, and recorded at once at
//! its end: so a body that is too long, breaks off or is no batch counts nothing. Each item stands by
//! itself: one that can't be counted does not keep the others from it.
//!
//! Reading order: this file (one request), `form` (what comes), `body` (bytes on their way in),
//! `parse` and `item` (what they say), `tally` (what it comes to).

use std::time::Duration;

use bytes::Buf;
use futures_util::Stream;
use hyper::{HeaderMap, Method};
use warp::reply::Response;

use super::State;
use super::answer::{ApiError, success};
use super::ingest::{acknowledge, requested_ack};
use super::query_string::RawQuery;
use crate::batch::Ticket;
use crate::domain::{Ack, Hour};

mod body;
mod form;
#[cfg(test)]
mod fuzz;
mod item;
mod parse;
mod tally;

use body::{Room, Sink};
use form::{Encoding, Form};
use tally::Tally;

/// How many items of a body can be counted, for benchmarks: finding that out is what a batch costs
/// before it is recorded.
#[must_use]
pub fn countable_items(body: &[u8], is_lines: bool) -> u64 {
    let tally = if is_lines {
        let mut lines = parse::Lines::default();
        lines.push(body);
        lines.finish()
    } else {
        let mut tally = Tally::default();
        parse::document(body, &mut tally).map(|()| tally)
    };
    tally.map_or(0, |tally| tally.accepted())
}

/// Answers one request.
pub(super) async fn take<B: Buf, E>(
    state: &'static State,
    headers: HeaderMap,
    query: Option<RawQuery>,
    frames: impl Stream<Item = Result<B, E>> + Send,
) -> Response {
    match count(state, &headers, query.as_ref(), frames).await {
        Ok(answer) => answer,
        Err(error) => error.answer(&Method::POST),
    }
}

async fn count<B: Buf, E>(
    state: &'static State,
    headers: &HeaderMap,
    query: Option<&RawQuery>,
    frames: impl Stream<Item = Result<B, E>> + Send,
) -> Result<Response, ApiError> {
    let bytes_max = state.options.body_bytes_max;
    if form::announced_bytes(headers).is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(ApiError::BodyTooLarge { bytes_max });
    }
    let wanted = wanted(state, headers, query);
    // What is refused by its headers is read all the same: the connection goes on after it.
    let (encoding, sink) = match &wanted {
        Ok((form, encoding, _)) => (*encoding, Sink::new(*form)),
        Err(_) => (Encoding::Plain, Sink::Nowhere),
    };
    let patience = Duration::from_millis(state.options.header_timeout_ms);
    let room = Room::new(&state.bodies);
    let read = tokio::time::timeout(patience, body::read(frames, encoding, bytes_max, sink, room));
    let (sink, room) = read.await.map_err(|_| ApiError::BodyTimeout)??;
    let (_, _, ack) = wanted?;
    let (ticket, answer) = record(state, sink.finish().await?)?;
    drop(room);
    Ok(match ticket {
        Some(ticket) => acknowledge(state, ticket, ack, answer),
        None => answer,
    })
}

fn wanted(state: &State, headers: &HeaderMap, query: Option<&RawQuery>) -> Result<(Form, Encoding, Ack), ApiError> {
    let ack = query.map(requested_ack).transpose()?.flatten().unwrap_or(state.ack);
    Ok((Form::of(headers)?, Encoding::of(headers)?, ack))
}

fn record(state: &State, mut tally: Tally) -> Result<(Option<Ticket>, Response), ApiError> {
    let hour = Hour::containing((state.clock)());
    let recorded = state.batches.record_all(hour, tally.increments())?;
    tally.refuse(&recorded.refused);
    let outcome = tally.outcome();
    if outcome.accepted == 0 && outcome.rejected > 0 {
        return Err(ApiError::NothingAccepted(outcome));
    }
    Ok((recorded.ticket, success(&outcome)))
}
