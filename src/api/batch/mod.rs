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

use super::Api;
use super::ingest::{acknowledge, requested_ack};
use crate::batch::Ticket;
use crate::domain::{Ack, Hour};
use crate::server::Answer;
use crate::web::pace::Pace;
use crate::web::problem::{Problem, success};
use crate::web::query_string::RawQuery;

mod body;
mod form;
#[cfg(test)]
mod fuzz;
mod item;
mod parse;
mod tally;

use body::Sink;
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

/// Answers one request. What its answer waits for is among the extensions.
pub(super) async fn take<B: Buf, E>(
    api: &'static Api,
    headers: HeaderMap,
    query: Option<RawQuery>,
    frames: impl Stream<Item = Result<B, E>> + Send,
) -> Response {
    match count(api, &headers, query.as_ref(), frames).await {
        Ok(Answer { mut response, debt }) => {
            debt.map(|debt| response.extensions_mut().insert(debt));
            response
        }
        Err(problem) => problem.answer(&Method::POST),
    }
}

async fn count<B: Buf, E>(
    api: &'static Api,
    headers: &HeaderMap,
    query: Option<&RawQuery>,
    frames: impl Stream<Item = Result<B, E>> + Send,
) -> Result<Answer, Problem> {
    let bytes_max = api.options.body_bytes_max;
    if form::announced_bytes(headers).is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(Problem::BodyTooLarge { bytes_max });
    }
    let wanted = wanted(api, headers, query);
    // What is refused by its headers is read all the same: the connection goes on after it.
    let (encoding, sink) = match &wanted {
        Ok((form, encoding, _)) => (*encoding, Sink::new(*form)),
        Err(_) => (Encoding::Plain, Sink::Nowhere),
    };
    let patience = Duration::from_millis(api.options.header_timeout_ms);
    let (sink, room) = body::read(frames, encoding, bytes_max, sink, api.room(), Pace::new(patience)).await?;
    let (_, _, ack) = wanted?;
    let (ticket, answer) = record(api, sink.finish().await?)?;
    drop(room);
    Ok(match ticket {
        Some(ticket) => acknowledge(api, ticket, ack, answer),
        None => answer.into(),
    })
}

fn wanted(api: &Api, headers: &HeaderMap, query: Option<&RawQuery>) -> Result<(Form, Encoding, Ack), Problem> {
    let ack = query.map(requested_ack).transpose()?.flatten().unwrap_or(api.ack);
    Ok((Form::of(headers)?, Encoding::of(headers)?, ack))
}

fn record(api: &Api, mut tally: Tally) -> Result<(Option<Ticket>, Response), Problem> {
    let hour = Hour::containing((api.clock)());
    let recorded = api.batches.record_all(hour, tally.increments())?;
    tally.refuse(&recorded.refused);
    let outcome = tally.outcome();
    if outcome.accepted == 0 && outcome.rejected > 0 {
        return Err(Problem::NothingAccepted(outcome));
    }
    Ok((recorded.ticket, success(&outcome)))
}
