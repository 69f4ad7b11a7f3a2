//! Entity tags and `If-None-Match`: who polls what has not changed is told so in a few bytes.

use hyper::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH};
use hyper::{HeaderMap, StatusCode};
use warp::reply::Response;

/// Whether the client holds the content with this tag, as `If-None-Match` compares it: weakly.
/// `tag` is the text between the quotes.
pub(crate) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| {
            let opaque = known.strip_prefix("W/").unwrap_or(known);
            known == "*" || opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(tag)
        })
}

/// The 304, still without its tag.
pub(crate) fn not_modified() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// What a tag stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stands {
    /// For these very bytes.
    ForContent,
    /// For a version of all counts, taken before they were read: the answer may hold some that came in
    /// between. So it says by `W/` that answers with one tag may differ.
    ForVersion,
}

/// Gives the answer its tag, and asks caches to come back with it each time.
pub(crate) fn tagged(mut response: Response, tag: &str, stands: Stands) -> Response {
    let weak = match stands {
        Stands::ForContent => "",
        Stands::ForVersion => "W/",
    };
    if let Ok(value) = HeaderValue::try_from(format!("{weak}\"{tag}\"")) {
        response.headers_mut().insert(ETAG, value);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn if_none_match_is_a_list_compared_weakly() {
        let known = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::try_from(value).unwrap());
            is_known(&headers, "a-1")
        };
        for value in ["\"a-1\"", "\"other\", W/\"a-1\"", "*", " \"a-1\" "] {
            assert!(known(value), "{value}");
        }
        for value in ["a-1", "\"\"", "\"a-10\"", "\"A-1\"", ""] {
            assert!(!known(value), "{value}");
        }
        assert!(!is_known(&HeaderMap::new(), "a-1"));
    }
}
