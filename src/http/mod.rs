//! The HTTP service: warp filters behind an accept loop of our own. Only what nearly every request is, a
//! POST that says all in its target, is answered before them ([`count`]).
//!
//! Reading order: this file (the route table and who answers what), `answer` and `envelope` (every
//! success and every error as bytes), the endpoint groups `ingest`, `batch`, `read`, `picture`, `nodes`, `health`,
//! and then the transport: `service` (around one request), `connection` and `wire` (around one connection),
//! `date`, `server`.
//!
//! Routing reads one table, [`ROUTES`]: it decides which endpoint answers, it tells 404 from 405
//! with `Allow`, and it is what the API's description is checked against. No filter ever rejects:
//! warp ranks rejections by numbers of its own, and then one route's bad request surfaces as
//! another's 405.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use tokio::sync::Semaphore;
use warp::Filter;
use warp::path::FullPath;
use warp::reply::Response;

use crate::admin;
use crate::batch::Batches;
use crate::domain::Ack;
use crate::node::{Clock, Node};
use crate::presence::Presence;
use crate::query::Query;

mod accept;
mod answer;
mod batch;
mod conditional;
mod connection;
mod cors;
mod date;
mod envelope;
mod gate;
mod health;
mod ingest;
mod nodes;
mod options;
mod picture;
mod query_string;
mod read;
mod server;
mod service;
mod wire;

use answer::ApiError;
pub use batch::countable_items;
pub use date::learn_date;
pub use options::Options;
use query_string::RawQuery;
pub use server::{listen, serve};

/// What the endpoints work with. It lives as long as the process (`Box::leak`), so that a request
/// borrows it without touching a reference count that all cores share.
pub struct State {
    batches: Arc<Batches>,
    query: Arc<Query>,
    presence: Arc<Presence>,
    /// Answers whatever [`admin::is_ours`] says.
    admin: &'static admin::State,
    /// The level of acknowledgement of requests that ask for none.
    ack: Ack,
    options: Options,
    clock: Clock,
    draining: AtomicBool,
    renders: Semaphore,
    /// Bytes that bodies being read may still take.
    bodies: Semaphore,
    pictures: moka::sync::Cache<picture::Tag, Bytes>,
    listings: read::Listings,
    cors: cors::Cors,
}

impl State {
    #[must_use]
    pub fn new(node: &Arc<Node>, admin: &'static admin::State, ack: Ack, options: Options) -> Self {
        let renders = Semaphore::new(options.renders_max.max(1));
        let bodies = Semaphore::new(options.bodies_bytes_max);
        let cors = cors::Cors::new(&options.cors_origins);
        Self {
            batches: Arc::clone(&node.batches),
            query: Arc::clone(&node.query),
            presence: Arc::clone(&node.presence),
            admin,
            ack,
            options,
            clock: Arc::clone(&node.clock),
            draining: AtomicBool::new(false),
            renders,
            bodies,
            pictures: picture::cache(),
            listings: read::cache(),
            cors,
        }
    }

    /// Gives back the memory of what nobody has asked for lately.
    pub fn forget_idle(&self) {
        self.pictures.run_pending_tasks();
        self.listings.run_pending_tasks();
        self.query.forget_idle();
        self.admin.forget_idle();
    }

    /// From now on `/readyz` says 503. [`serve`] does it by itself when it is told to drain; call it
    /// earlier to let load balancers look away before the listener closes.
    pub fn begin_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// Which handler answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endpoint {
    CountOne,
    CountMany,
    Batch,
    Range,
    Totals,
    Histogram,
    Nodes,
    Live,
    Ready,
    Home,
}

/// GET routes answer HEAD as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    Get,
    Post,
}

impl Verb {
    fn takes(self, method: &Method) -> bool {
        match self {
            Self::Get => method == Method::GET || method == Method::HEAD,
            Self::Post => method == Method::POST,
        }
    }
}

/// One line of the route table.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub verb: Verb,
    /// The segments of the path; one in braces takes any text.
    pub path: &'static [&'static str],
    pub endpoint: Endpoint,
}

/// All routes, the busiest first.
pub const ROUTES: [Route; 10] = [
    Route { verb: Verb::Post, path: &["api", "events", "{event}"], endpoint: Endpoint::CountOne },
    Route { verb: Verb::Post, path: &["api", "events", "{event}", "{num}"], endpoint: Endpoint::CountMany },
    Route { verb: Verb::Post, path: &["api", "events"], endpoint: Endpoint::Batch },
    Route { verb: Verb::Get, path: &["api", "events"], endpoint: Endpoint::Range },
    Route { verb: Verb::Get, path: &["api", "events", "unique"], endpoint: Endpoint::Totals },
    Route { verb: Verb::Get, path: &["api", "events", "histogram", "{event}", "{day}"], endpoint: Endpoint::Histogram },
    Route { verb: Verb::Get, path: &["api", "v1", "nodes"], endpoint: Endpoint::Nodes },
    Route { verb: Verb::Get, path: &["livez"], endpoint: Endpoint::Live },
    Route { verb: Verb::Get, path: &["readyz"], endpoint: Endpoint::Ready },
    Route { verb: Verb::Get, path: &[], endpoint: Endpoint::Home },
];

/// The segments in braces as they stand in the request, not yet percent-decoded.
type Parameters<'p> = [&'p str; 2];

impl Route {
    fn matches<'p>(&self, segments: &[&'p str]) -> Option<Parameters<'p>> {
        if segments.len() != self.path.len() {
            return None;
        }
        let mut parameters = [""; 2];
        let mut found = 0;
        for (expected, segment) in self.path.iter().zip(segments) {
            if expected.starts_with('{') {
                parameters[found] = segment;
                found += 1;
            } else if segment != expected {
                return None;
            }
        }
        Some(parameters)
    }
}

/// As many segments as the longest route has.
const SEGMENTS_MAX: usize = 5;

/// Splits a path in `room`; `None` if no route can have it.
fn split<'s, 'p>(path: &'p str, room: &'s mut [&'p str; SEGMENTS_MAX]) -> Option<&'s [&'p str]> {
    let path = path.strip_prefix('/')?;
    if path.is_empty() {
        return Some(&[]);
    }
    // The slash of `/` itself is no trailing one: `//` has an empty segment.
    let path = if path == "/" { path } else { path.strip_suffix('/').unwrap_or(path) };
    let mut length = 0;
    for segment in path.split('/') {
        *room.get_mut(length)? = segment;
        length += 1;
    }
    Some(&room[..length])
}

fn find<'p>(method: &Method, path: &'p str) -> Result<(Endpoint, Parameters<'p>), ApiError> {
    match method {
        &Method::POST => find_counting(path).map_or_else(|| find_any(method, path), Ok),
        _ => find_any(method, path),
    }
}

/// The two counting routes, which nearly every request is for, found without going through the table.
fn find_counting(path: &str) -> Option<(Endpoint, Parameters<'_>)> {
    let rest = path.strip_prefix("/api/events/")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let Some(slash) = memchr::memchr(b'/', rest.as_bytes()) else {
        return (!rest.is_empty()).then_some((Endpoint::CountOne, [rest, ""]));
    };
    let (event, num) = (&rest[..slash], &rest[slash + 1..]);
    memchr::memchr(b'/', num.as_bytes()).is_none().then_some((Endpoint::CountMany, [event, num]))
}

fn find_any<'p>(method: &Method, path: &'p str) -> Result<(Endpoint, Parameters<'p>), ApiError> {
    let (mut get, mut post) = (false, false);
    let mut room = [""; SEGMENTS_MAX];
    let segments = split(path, &mut room).ok_or(ApiError::NotFound)?;
    for route in &ROUTES {
        let Some(parameters) = route.matches(segments) else { continue };
        if route.verb.takes(method) {
            return Ok((route.endpoint, parameters));
        }
        match route.verb {
            Verb::Get => get = true,
            Verb::Post => post = true,
        }
    }
    Err(match (get, post) {
        (false, false) => ApiError::NotFound,
        (true, false) => ApiError::MethodNotAllowed { allow: "GET, HEAD, OPTIONS" },
        (false, true) => ApiError::MethodNotAllowed { allow: "OPTIONS, POST" },
        (true, true) => ApiError::MethodNotAllowed { allow: "GET, HEAD, OPTIONS, POST" },
    })
}

/// Whether the answer depends on the request's body.
fn takes_body(method: &Method, path: &str) -> bool {
    matches!(find(method, path), Ok((Endpoint::Batch, _)))
}

/// Whether the path says all that is counted.
fn counts_by_path(method: &Method, path: &str) -> bool {
    matches!(find(method, path), Ok((Endpoint::CountOne | Endpoint::CountMany, _)))
}

/// Batches.
fn batches(state: &'static State) -> impl Filter<Extract = (impl warp::Reply,), Error = warp::Rejection> + Copy {
    warp::header::headers_cloned()
        .and(warp::ext::optional::<RawQuery>())
        .and(warp::body::stream())
        .then(move |headers, query, body| batch::take(state, headers, query, body))
}

/// Everything else.
fn others(state: &'static State) -> impl Filter<Extract = (impl warp::Reply,), Error = Infallible> + Copy {
    warp::method()
        .and(warp::path::full())
        .and(warp::ext::optional::<RawQuery>())
        .and(warp::header::headers_cloned())
        .then(move |method, path, query, headers| look(state, method, path, query, headers))
}

/// What nearly every request asks for: to count by its path and a query, without a body. The answer is there
/// at once. `None` when the path is of another route, or of none.
fn count(state: &State, path: &str, query: Option<&RawQuery>) -> Option<Response> {
    let counted = match find_counting(path)? {
        (Endpoint::CountOne, [event, _]) => ingest::one(state, event, query),
        (_, [event, num]) => ingest::many(state, event, num, query),
    };
    Some(counted.unwrap_or_else(|error| error.answer(&Method::POST)))
}

const NO_BODY: &str = "the request has no body";

async fn look(
    state: &'static State,
    method: Method,
    path: FullPath,
    query: Option<RawQuery>,
    headers: HeaderMap,
) -> Response {
    let answer = match find(&method, path.as_str()) {
        // The headers of the answer say the rest. Any path: a page shall be able to read its 404.
        _ if cors::is_preflight(&method, &headers) => Ok(no_content()),
        Err(ApiError::MethodNotAllowed { allow }) if method == Method::OPTIONS => {
            let mut answer = no_content();
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            Ok(answer)
        }
        Ok((Endpoint::Range, _)) => read::range(state, query, &headers).await,
        Ok((Endpoint::Totals, _)) => read::totals(state, &headers).await,
        Ok((Endpoint::Histogram, [event, day])) => picture::histogram(state, event, day, query, &headers).await,
        Ok((Endpoint::Nodes, _)) => nodes::live(state).await,
        Ok((Endpoint::Live, _)) => Ok(health::live()),
        Ok((Endpoint::Ready, _)) => health::ready(state),
        Ok((Endpoint::Home, _)) => Ok(health::home()),
        Ok((Endpoint::CountOne, [event, _])) => ingest::one(state, event, query.as_ref()),
        Ok((Endpoint::CountMany, [event, num])) => ingest::many(state, event, num, query.as_ref()),
        Ok((Endpoint::Batch, _)) => Err(ApiError::NotABatch { why: NO_BODY }),
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| error.answer(&method))
}

fn no_content() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_short_way_to_the_counting_routes_leads_where_the_table_does(rest in "[a/%0-9]{0,8}") {
            for path in [format!("/api/events{rest}"), format!("/api/events/{rest}"), rest] {
                if let Some(found) = find_counting(&path) {
                    let any = find_any(&Method::POST, &path);
                    proptest::prop_assert_eq!(any.ok(), Some(found), "{}", path);
                }
            }
        }
    }

    fn found<'p>(method: &Method, path: &'p str) -> (Endpoint, Parameters<'p>) {
        find(method, path).unwrap()
    }

    fn allow(method: &Method, path: &str) -> Option<&'static str> {
        match find(method, path) {
            Err(ApiError::MethodNotAllowed { allow }) => Some(allow),
            Err(ApiError::NotFound) => None,
            other => panic!("{path} is answered: {other:?}"),
        }
    }

    #[test]
    fn routing_words_are_event_names_for_post_and_routes_for_get() {
        assert_eq!(found(&Method::POST, "/api/events/unique"), (Endpoint::CountOne, ["unique", ""]));
        assert_eq!(found(&Method::GET, "/api/events/unique").0, Endpoint::Totals);
        assert_eq!(found(&Method::HEAD, "/api/events/unique").0, Endpoint::Totals);
        assert_eq!(found(&Method::POST, "/api/events/histogram/20200101").0, Endpoint::CountMany);
    }

    #[test]
    fn one_trailing_slash_is_accepted_and_an_empty_segment_is_an_empty_name() {
        assert_eq!(found(&Method::POST, "/api/events/a/"), (Endpoint::CountOne, ["a", ""]));
        assert_eq!(found(&Method::POST, "/api/events/a/5/"), (Endpoint::CountMany, ["a", "5"]));
        assert_eq!(found(&Method::POST, "/api/events//5"), (Endpoint::CountMany, ["", "5"]));
        assert_eq!(found(&Method::POST, "/api/events//"), (Endpoint::CountOne, ["", ""]));
        assert_eq!(found(&Method::GET, "/api/events/").0, Endpoint::Range);
        assert_eq!(found(&Method::GET, "/").0, Endpoint::Home);
        assert_eq!(allow(&Method::GET, "//"), None);
    }

    #[test]
    fn an_encoded_slash_does_not_split_a_segment() {
        assert_eq!(found(&Method::POST, "/api/events/a%2Fb"), (Endpoint::CountOne, ["a%2Fb", ""]));
    }

    #[test]
    fn a_known_path_with_another_method_names_the_methods_it_takes() {
        assert_eq!(allow(&Method::POST, "/api/events/histogram/x/20200101"), Some("GET, HEAD, OPTIONS"));
        assert_eq!(allow(&Method::GET, "/api/events/foo"), Some("OPTIONS, POST"));
        assert_eq!(allow(&Method::PUT, "/api/events/unique"), Some("GET, HEAD, OPTIONS, POST"));
        assert_eq!(allow(&Method::PUT, "/api/events"), Some("GET, HEAD, OPTIONS, POST"));
        assert_eq!(allow(&Method::OPTIONS, "/livez"), Some("GET, HEAD, OPTIONS"));
        assert_eq!(allow(&Method::POST, "/api/events/a/b/c"), None);
        assert_eq!(allow(&Method::GET, "/api"), None);
    }
}
