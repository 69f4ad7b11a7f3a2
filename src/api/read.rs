//! Reading counts as JSON: hours of a range, and all-time totals.
//!
//! Dashboards poll these. The tag of an answer is the version of all counts, which is known without
//! reading any: who has the current one is told so at once, and all others share one written body, also
//! while counts change so fast that each of them would find another version.

use std::convert::Infallible;
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{HeaderMap, StatusCode};
use moka::sync::Cache;
use serde::Serialize;
use warp::Reply;
use warp::reply::Response;

use super::Api;
use crate::domain::{EventName, Hour, HourRange};
use crate::query::lists::{Held, Reader, bytes_of};
use crate::query::{DataVersion, StoreError, yielding};
use crate::rows::Row;
use crate::shared::Shared;
use crate::web::conditional::{Stands, is_known, not_modified, tagged};
use crate::web::problem::{JSON, Problem, json};
use crate::web::query_string::{Parameters, RawQuery};

/// An answer up to this size is sent whole, with its length, and kept; a longer one is written while
/// it is sent, in pieces.
const WHOLE_BYTES_MAX: usize = 2 << 20;
const PIECE_BYTES: usize = 64 * 1024;

/// Bodies kept, in bytes.
const CACHE_BYTES_MAX: u64 = 16 << 20;
/// A body that nobody asked for so long is given back.
const CACHE_IDLE: Duration = Duration::from_secs(60);

/// The last answer to each query (`None`: the totals).
pub(super) type Listings = Cache<Option<HourRange>, Arc<Shared<Result<Written, StoreError>>>>;

#[derive(Clone)]
pub(super) struct Written {
    version: DataVersion,
    /// `None`: it is longer than what is kept.
    body: Option<Bytes>,
}

pub(super) fn cache() -> Listings {
    let weigh = |_: &Option<HourRange>, shared: &Arc<Shared<Result<Written, StoreError>>>| {
        let length = |written: &Written| written.body.as_ref().map_or(0, Bytes::len);
        let bytes = shared.peek(|last| last.as_ref().map_or(0, length)).unwrap_or(0);
        u32::try_from(bytes + 256).unwrap_or(u32::MAX)
    };
    Cache::builder().weigher(weigh).max_capacity(CACHE_BYTES_MAX).time_to_idle(CACHE_IDLE).build()
}

/// `GET /api/events?start_date=…&end_date=…`
pub(super) async fn range(api: &Api, query: Option<RawQuery>, headers: &HeaderMap) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Row {
        date: Hour,
        event: EventName,
        count: u64,
    }
    let parameters = Parameters::parse(query.as_ref())?;
    let range = HourRange::parse(parameters.get("start_date"), parameters.get("end_date"))?;
    listing(api, Some(range), headers, || async move {
        // On the heap, since any answer's future has room for it, and most are answered without.
        let rows = Box::pin(api.query.hourly(range, api.options.range_rows_max)).await?;
        let held = hold(api, &rows).map_err(|error| match fitting(api, &rows) {
            Some(rows_max) => StoreError::TooManyRows { rows_max },
            None => error,
        })?;
        Ok((held, rows.into_iter().map(|row| Row { date: row.hour, event: row.event, count: row.count })))
    })
    .await
}

/// `GET /api/events/unique`
pub(super) async fn totals(api: &Api, headers: &HeaderMap) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Row {
        event: EventName,
        count: u64,
    }
    listing(api, None, headers, || async move {
        let totals = Box::pin(api.query.totals()).await?;
        let held = hold(api, &totals)?;
        Ok((held, totals.into_iter().map(|total| Row { event: total.event, count: total.count })))
    })
    .await
}

fn hold<T: Row>(api: &Api, rows: &[T]) -> Result<Held, StoreError> {
    hold_bytes(api, bytes_of(rows))
}

/// Where there is no room, what is only kept goes first.
fn hold_bytes(api: &Api, bytes: usize) -> Result<Held, StoreError> {
    let hold = || api.query.lists().hold(Reader::Anybody, bytes);
    hold().or_else(|_| {
        api.listings.invalidate_all();
        api.listings.run_pending_tasks();
        hold()
    })
}

/// How many such rows there is room for, where even without any other list there is none for all.
fn fitting<T: Row>(api: &Api, rows: &[T]) -> Option<usize> {
    let (bytes, max) = (bytes_of(rows), api.query.lists().max(Reader::Anybody));
    (bytes > max).then(|| rows.len() * (max / 1024) / (bytes / 1024).max(1))
}

async fn listing<R, I, F>(
    api: &Api,
    key: Option<HourRange>,
    headers: &HeaderMap,
    read: impl Fn() -> F,
) -> Result<Response, Problem>
where
    F: Future<Output = Result<(Held, I), StoreError>>,
    R: Serialize + Send + Sync + 'static,
    I: Iterator<Item = R> + Send + Sync + 'static,
{
    let version = api.query.version().await?;
    let tag = version.to_string();
    if is_known(headers, &tag) {
        return Ok(tagged(not_modified(), &tag, Stands::ForVersion));
    }
    let begin = || async {
        let (held, rows) = read().await?;
        let mut listing = Listing::new(rows);
        listing.held = Some(held);
        let first = yielding(listing.rows.size_hint().0, || listing.piece(WHOLE_BYTES_MAX));
        let first = whole(api, first)?;
        Ok::<_, StoreError>((first, listing))
    };
    let shared = api.listings.get_with(key, Arc::default);
    let is_current = |last: &Result<Written, StoreError>| last.as_ref().is_ok_and(|last| last.version == version);
    let kept = shared.peek(|last| is_current(last).then(|| last.as_ref().ok().and_then(|last| last.body.clone())));
    if let Some(body) = kept.flatten().flatten() {
        return Ok(tagged(in_pieces(body), &tag, Stands::ForVersion));
    }
    let _turn = api.lists.take().await?;
    let mut begun = None;
    let make = async {
        // Before the rows: they may be newer than their tag says, then the next poll gets them again.
        let (version, (first, listing)) = api.query.with_version(&begin).await?;
        let body = listing.done.then(|| first.clone());
        begun = Some((first, listing));
        Ok(Written { version, body })
    };
    let Written { version, body } = shared.get(is_current, make).await?;
    if begun.is_some() {
        // So that it is weighed with what is in it now.
        api.listings.insert(key, shared);
    }
    let response = match body {
        Some(body) => in_pieces(body),
        None => {
            let (first, rest) = match begun {
                Some(begun) => begun,
                None => begin().await?,
            };
            let pieces = pieces_of(first).chain(rest).map(Ok::<_, Infallible>);
            let mut response = warp::reply::stream(stream::iter(pieces)).into_response();
            response.headers_mut().insert(CONTENT_TYPE, JSON);
            response
        }
    };
    Ok(tagged(response, &version.to_string(), Stands::ForVersion))
}

/// The text of a list, which takes its bytes until the last answer with it is sent.
fn whole(api: &Api, text: Bytes) -> Result<Bytes, StoreError> {
    struct Owned {
        text: Bytes,
        _held: Held,
    }
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            &self.text
        }
    }
    let held = hold_bytes(api, text.len())?;
    Ok(Bytes::from_owner(Owned { text, _held: held }))
}

fn pieces_of(text: Bytes) -> impl Iterator<Item = Bytes> + Send + Sync {
    (0..text.len()).step_by(PIECE_BYTES).map(move |at| text.slice(at..text.len().min(at + PIECE_BYTES)))
}

/// hyper copies what it is given at one go, and that copy is nobody's share.
fn in_pieces(text: Bytes) -> Response {
    if text.len() <= PIECE_BYTES {
        return json(StatusCode::OK, text);
    }
    let length = text.len();
    let mut response = warp::reply::stream(stream::iter(pieces_of(text).map(Ok::<_, Infallible>))).into_response();
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

/// Writes `{"status":true,"response":[[row],[row]]}`: a list of one-element lists, as the original
/// service answers.
struct Listing<I: Iterator> {
    rows: Peekable<I>,
    opening: &'static [u8],
    done: bool,
    /// Of the rows.
    held: Option<Held>,
}

impl<R: Serialize, I: Iterator<Item = R>> Listing<I> {
    fn new(rows: I) -> Self {
        Self { rows: rows.peekable(), opening: br#"{"status":true,"response":["#, done: false, held: None }
    }

    /// The next rows, about `bytes_max` long.
    fn piece(&mut self, bytes_max: usize) -> Bytes {
        let expected = 64 + self.rows.size_hint().0.saturating_mul(64);
        let mut piece = Vec::with_capacity(expected.min(PIECE_BYTES + 1024));
        piece.extend_from_slice(std::mem::take(&mut self.opening));
        while piece.len() < bytes_max {
            let Some(row) = self.rows.next() else { break };
            // Writing a row of texts and numbers into memory cannot fail.
            let _ = serde_json::to_writer(&mut piece, &[row]);
            if self.rows.peek().is_some() {
                piece.push(b',');
            }
        }
        if self.rows.peek().is_none() {
            piece.extend_from_slice(b"]}");
            self.done = true;
            self.held = None;
        }
        Bytes::from(piece)
    }
}

impl<R: Serialize, I: Iterator<Item = R>> Iterator for Listing<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        (!self.done).then(|| self.piece(PIECE_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rows: Vec<u32>) -> String {
        Listing::new(rows.into_iter()).map(|piece| String::from_utf8_lossy(&piece).into_owned()).collect()
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
        let pieces: Vec<Bytes> = Listing::new(numbers.clone().into_iter()).collect();
        assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.len() < PIECE_BYTES + 64));
        let document: serde_json::Value = serde_json::from_str(&text(numbers)).unwrap_or_default();
        assert_eq!(document["response"].as_array().map(Vec::len), Some(100_000));
    }
}
