//! Which web pages may call the API (CORS).
//!
//! The headers are put on every answer to a page of another site, failures included, in the one
//! place that all answers pass: a browser hides an answer without them from the page, and a refusal
//! that can't be read can't be understood. Credentials are never allowed, and the admin pages are
//! never shared. A POST without `Origin` pays for one look at its headers.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, Method, Request};
use warp::reply::Response;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
const HEADERS: HeaderValue =
    HeaderValue::from_static("accept, authorization, content-encoding, content-type, if-none-match");
const EXPOSED: HeaderValue = HeaderValue::from_static("etag, retry-after, allow");
/// How long a browser need not ask again, in seconds: a day. Some take less.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("86400");
const ANY: HeaderValue = HeaderValue::from_static("*");

/// Who may read answers.
#[derive(Debug)]
pub(crate) enum Cors {
    Any,
    Listed(Vec<HeaderValue>),
}

/// What one answer gets.
#[derive(Debug, PartialEq)]
pub(crate) struct Stamp {
    allowed: Option<HeaderValue>,
    /// The answer is another one for another origin.
    varies: bool,
    preflight: bool,
}

/// Whether a browser asks for leave to send another request.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl Cors {
    /// `origins` as the configuration has them: `*`, or exact origins.
    pub(crate) fn new(origins: &[String]) -> Self {
        if origins.iter().any(|origin| origin == "*") {
            return Self::Any;
        }
        Self::Listed(origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok()).collect())
    }

    /// What to put on the answer to `request`. Boxed, since it is copied with every request and
    /// mostly absent.
    pub(crate) fn stamp<B>(&self, request: &Request<B>) -> Option<Box<Stamp>> {
        let origin = request.headers().get(ORIGIN);
        // A read without `Origin`, as of an `<img>`, may fill a cache that serves a page of another site.
        if origin.is_none() && request.method() == Method::POST {
            return None;
        }
        let (allowed, varies) = match self {
            Self::Any => (Some(ANY), false),
            Self::Listed(origins) => (origin.filter(|origin| origins.contains(origin)).cloned(), !origins.is_empty()),
        };
        let preflight = allowed.is_some() && is_preflight(request.method(), request.headers());
        (allowed.is_some() || varies).then(|| Box::new(Stamp { allowed, varies, preflight }))
    }

    /// The lines for an answer that is given without reading the request, each with its end: where
    /// several origins are allowed there is no telling which it would be.
    pub(crate) fn unread(&self) -> String {
        match self {
            Self::Any => "access-control-allow-origin: *\r\n".into(),
            Self::Listed(origins) => match origins.as_slice() {
                [only] => only.to_str().map_or_else(
                    |_| String::new(),
                    |only| format!("access-control-allow-origin: {only}\r\nvary: origin\r\n"),
                ),
                _ => String::new(),
            },
        }
    }
}

impl Stamp {
    pub(crate) fn put(self, response: &mut Response) {
        let headers = response.headers_mut();
        if self.varies {
            // The answer may vary by more.
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(allowed) = self.allowed else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.preflight {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
        } else {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stamp(origins: &[&str], method: &str, path: &str, origin: Option<&str>) -> Option<Box<Stamp>> {
        let origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
        let request = Request::builder().method(method).uri(path);
        let request = origin.into_iter().fold(request, |request, origin| request.header(ORIGIN, origin));
        Cors::new(&origins).stamp(&request.body(()).unwrap())
    }

    #[test]
    fn what_may_be_cached_is_the_same_or_says_that_it_varies_where_no_origin_came() {
        let listed = ["https://a.example"];
        let bare = Some(Box::new(Stamp { allowed: None, varies: true, preflight: false }));
        assert_eq!(stamp(&listed, "GET", "/api/events/unique", None), bare);
        assert_eq!(stamp(&listed, "GET", "/api/events/unique", Some("https://b.example")), bare);
        assert_eq!(stamp(&listed, "POST", "/api/events/a", None), None);
        let any = Some(Box::new(Stamp { allowed: Some(ANY), varies: false, preflight: false }));
        assert_eq!(stamp(&["*"], "GET", "/api/events/unique", None), any);
        assert_eq!(stamp(&["*"], "POST", "/api/events/a", None), None);
        assert_eq!(stamp(&[], "GET", "/api/events/unique", Some("https://a.example")), None);
    }
}
