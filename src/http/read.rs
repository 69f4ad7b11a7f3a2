//! Reading counts as JSON: hours of a range, and all-time totals.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use serde::Serialize;
use warp::Reply;
use warp::reply::Response;

use super::State;
use super::answer::{ApiError, JSON, json};
use super::query_string::{Parameters, RawQuery};
use crate::domain::{EventName, Hour, HourRange};

/// Answers are written in pieces of about this size; one that fits into a single piece is sent with
/// its length.
const CHUNK_BYTES: usize = 64 * 1024;

/// `GET /api/events?start_date=…&end_date=…`
pub(super) async fn range(state: &State, query: Option<RawQuery>) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Row {
        date: Hour,
        event: EventName,
        count: u64,
    }
    let parameters = Parameters::parse(query.as_ref())?;
    let range = HourRange::parse(parameters.get("start_date"), parameters.get("end_date"))?;
    let rows = state.query.hourly(range, state.options.range_rows_max).await?;
    Ok(listing(rows.into_iter().map(|row| Row { date: row.hour, event: row.event, count: row.count })))
}

/// `GET /api/events/unique`
pub(super) async fn totals(state: &State) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Row {
        event: EventName,
        count: u64,
    }
    let totals = state.query.totals().await?;
    Ok(listing(totals.into_iter().map(|total| Row { event: total.event, count: total.count })))
}

fn listing<R: Serialize + Send + Sync + 'static>(rows: impl Iterator<Item = R> + Send + Sync + 'static) -> Response {
    let mut chunks = chunks(rows);
    let first = chunks.next().unwrap_or_default();
    let Some(second) = chunks.next() else { return json(StatusCode::OK, first) };
    let chunks = [first, second].into_iter().chain(chunks).map(Ok::<_, Infallible>);
    let mut response = warp::reply::stream(stream::iter(chunks)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// `{"status":true,"response":[[row],[row]]}`: a list of one-element lists, as the original service
/// answers.
fn chunks<R: Serialize>(rows: impl Iterator<Item = R>) -> impl Iterator<Item = Bytes> {
    let mut rows = rows.peekable();
    let mut opening: &[u8] = br#"{"status":true,"response":["#;
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let mut chunk = Vec::with_capacity(if rows.peek().is_some() { CHUNK_BYTES + 1024 } else { 64 });
        chunk.extend_from_slice(std::mem::take(&mut opening));
        while chunk.len() < CHUNK_BYTES {
            let Some(row) = rows.next() else { break };
            // Writing a row of texts and numbers into memory cannot fail.
            let _ = serde_json::to_writer(&mut chunk, &[row]);
            if rows.peek().is_some() {
                chunk.push(b',');
            }
        }
        if rows.peek().is_none() {
            chunk.extend_from_slice(b"]}");
            done = true;
        }
        Some(Bytes::from(chunk))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rows: Vec<u32>) -> String {
        chunks(rows.into_iter()).map(|chunk| String::from_utf8_lossy(&chunk).into_owned()).collect()
    }

    #[test]
    fn a_listing_is_a_list_of_one_element_lists() {
        assert_eq!(text(vec![]), r#"{"status":true,"response":[]}"#);
        assert_eq!(text(vec![7]), r#"{"status":true,"response":[[7]]}"#);
        assert_eq!(text(vec![7, 8]), r#"{"status":true,"response":[[7],[8]]}"#);
    }

    #[test]
    fn a_long_listing_comes_in_bounded_pieces_that_join_to_one_document() {
        let numbers: Vec<u32> = (0..100_000).collect();
        assert!(chunks(numbers.clone().into_iter()).all(|chunk| chunk.len() < CHUNK_BYTES + 64));
        assert!(chunks(numbers.clone().into_iter()).count() > 5);
        let document: serde_json::Value = serde_json::from_str(&text(numbers)).unwrap_or_default();
        assert_eq!(document["response"].as_array().map(Vec::len), Some(100_000));
    }
}
