//! The API: counting, reading, and what says whether the node works.
//!
//! Reading order: `routes` (who answers what), this file, then the endpoints: `ingest` and `batch` (counting), `read`
//! and `picture`, `nodes`, `health`. A POST that says all in its target, which nearly every request is, is answered
//! without warp's filters ([`Api::count`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use warp::Filter;
use warp::path::FullPath;
use warp::reply::Response;

use crate::batch::Batches;
use crate::domain::{Ack, Hour};
use crate::node::{Clock, Node};
use crate::presence::Presence;
use crate::query::Query;
use crate::server::{Answer, ConnectionContext};
use crate::web::cors;
use crate::web::options::Options;
use crate::web::problem::Problem;
use crate::web::query_string::RawQuery;
use crate::web::room::{Bodies, Room};

mod accept;
mod batch;
mod health;
mod ingest;
mod nodes;
mod picture;
mod read;
mod routes;
mod turns;

pub use batch::countable_items;
pub(crate) use routes::{BATCHES, counts_by_path, is_behind_alias, takes_body};
use routes::{Endpoint, find, find_counting};
use turns::Turns;

/// Connections for reading that lists leave to pictures and to the dashboard.
const CONNECTIONS_LEFT: usize = 2;

/// What the endpoints work with. It lives as long as the process (`Box::leak`), so that a request
/// borrows it without touching a reference count that all cores share.
pub struct Api {
    batches: Arc<Batches>,
    query: Arc<Query>,
    presence: Arc<Presence>,
    /// The level of acknowledgement of requests that ask for none.
    ack: Ack,
    options: Options,
    clock: Clock,
    draining: AtomicBool,
    renders: Turns,
    /// Lists that are being read. Some connections to the store are left to others.
    lists: Turns,
    bodies: Bodies,
    pictures: moka::sync::Cache<picture::Tag, Bytes>,
    listings: read::Listings,
}

impl Api {
    #[must_use]
    pub fn new(node: &Arc<Node>, ack: Ack, options: Options) -> Self {
        let renders = Turns::new(options.renders_max);
        let lists = Turns::new(node.store.read_connections().saturating_sub(CONNECTIONS_LEFT));
        let bodies = Bodies::new(options.bodies_bytes_max);
        node.query.lists().limit(options.lists_bytes_max);
        Self {
            batches: Arc::clone(&node.batches),
            query: Arc::clone(&node.query),
            presence: Arc::clone(&node.presence),
            ack,
            options,
            clock: Arc::clone(&node.clock),
            draining: AtomicBool::new(false),
            renders,
            lists,
            bodies,
            pictures: picture::cache(),
            listings: read::cache(),
        }
    }

    /// Gives back the memory of what nobody has asked for lately.
    pub fn forget_idle(&self) {
        self.pictures.run_pending_tasks();
        self.listings.run_pending_tasks();
        self.query.forget_idle();
    }

    /// What nearly every request asks for: to count by its path and a query, without a body. The answer is there
    /// at once. `None` when the path is of another route, or of none. Without a context the request has arrived now.
    pub(crate) fn count(
        &self,
        path: &str,
        query: Option<&RawQuery>,
        context: Option<&ConnectionContext>,
    ) -> Option<Answer> {
        let hour = || match context {
            Some(context) => context.hour(|| (self.clock)()),
            None => Hour::containing((self.clock)()),
        };
        let counted = match find_counting(path)? {
            (Endpoint::CountOne, [event, _]) => ingest::one(self, event, query, hour),
            (_, [event, num]) => ingest::many(self, event, num, query, hour),
        };
        Some(counted.unwrap_or_else(|problem| problem.answer(&Method::POST).into()))
    }

    /// The share of one body in what all may hold.
    pub(crate) fn room(&'static self) -> Room {
        Room::new(&self.bodies)
    }

    /// From now on `/readyz` says 503.
    pub fn begin_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// Batches: their answers have their debts among the extensions, since warp's filters give responses only.
pub(crate) fn batches(api: &'static Api) -> impl Filter<Extract = (impl warp::Reply,), Error = warp::Rejection> + Copy {
    warp::header::headers_cloned()
        .and(warp::ext::optional::<RawQuery>())
        .and(warp::body::stream())
        .then(move |headers, query, body| batch::take(api, headers, query, body))
}

/// Everything else.
pub(crate) fn others(api: &'static Api) -> impl Filter<Extract = (impl warp::Reply,), Error = Infallible> + Copy {
    warp::method()
        .and(warp::path::full())
        .and(warp::ext::optional::<RawQuery>())
        .and(warp::header::headers_cloned())
        .then(move |method, path, query, headers| look(api, method, path, query, headers))
}

const NO_BODY: &str = "the request has no body";

async fn look(
    api: &'static Api,
    method: Method,
    path: FullPath,
    query: Option<RawQuery>,
    headers: HeaderMap,
) -> Response {
    let answer = match find(&method, path.as_str()) {
        // The headers of the answer say the rest. Any path: a page shall be able to read its 404.
        _ if cors::is_preflight(&method, &headers) => Ok(no_content()),
        Err(Problem::MethodNotAllowed { allow }) if method == Method::OPTIONS => {
            let mut answer = no_content();
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            Ok(answer)
        }
        Ok((Endpoint::Range, _)) => read::range(api, query, &headers).await,
        Ok((Endpoint::Totals, _)) => read::totals(api, &headers).await,
        Ok((Endpoint::Histogram, [event, day])) => picture::histogram(api, event, day, query, &headers).await,
        Ok((Endpoint::Nodes, _)) => nodes::live(api).await,
        Ok((Endpoint::Live, _)) => Ok(health::live()),
        Ok((Endpoint::Ready, _)) => health::ready(api),
        Ok((Endpoint::Home, _)) => Ok(health::home()),
        // The first two have been answered by `Api::count`, or refused for their body.
        Ok((Endpoint::CountOne | Endpoint::CountMany | Endpoint::Batch, _)) => Err(Problem::NotABatch { why: NO_BODY }),
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
