//! For load balancers and for people who open the address in a browser.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue};
use serde::Serialize;
use warp::Reply;
use warp::reply::Response;

use super::Api;
use super::routes::ROUTES;
use crate::web::problem::{Problem, success};
use crate::web::route::Verb;

/// `GET /livez`: the process works.
pub(super) fn live() -> Response {
    uncached(success(&"alive"))
}

/// `GET /readyz`: whether to send traffic here. A store that is down is told but does not make the
/// node unready, since it can still count.
pub(super) fn ready(api: &Api) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Ready {
        journal: &'static str,
        store: String,
    }
    if api.draining.load(Ordering::Relaxed) {
        return Err(Problem::Unready { why: "draining" });
    }
    // What exactly fails may name paths: that is for the log, where the journal puts it.
    if api.batches.journal_healthy().is_err() {
        return Err(Problem::Unready { why: "the journal cannot be written" });
    }
    let store = api.query.store_status().to_string();
    Ok(uncached(success(&Ready { journal: "writable", store })))
}

pub(super) fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `GET /`: what this is, and every route of the table.
pub(super) fn home() -> Response {
    let mut rows = String::new();
    for route in &ROUTES {
        let verb = match route.verb {
            Verb::Get => "GET",
            Verb::Post => "POST",
        };
        // Writing into a String cannot fail.
        let _ = writeln!(rows, "<li><code>{verb} /{}</code></li>", route.path.join("/"));
    }
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>event-tracker</title></head>\
         <body><h1>event-tracker</h1><p>Counts events exactly once and reads them exactly. <a href=\"/admin\">Dashboard</a></p>\
         <ul>\n{rows}</ul></body></html>\n"
    );
    let mut response = warp::reply::html(page).into_response();
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    response
}
