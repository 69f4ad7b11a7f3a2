//! The routes of the API. The table decides which endpoint answers, and it is what the API's description is checked
//! against. No filter ever rejects: warp ranks rejections by numbers of its own, and then one route's bad request
//! surfaces as another's 405.

use hyper::Method;

use crate::web::problem::Problem;
use crate::web::route::{self, Parameters, Route, Verb};

/// Which handler answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint {
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

/// All routes, the busiest first.
pub(super) const ROUTES: [Route<Endpoint>; 10] = [
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

pub(super) fn find<'p>(method: &Method, path: &'p str) -> Result<(Endpoint, Parameters<'p>), Problem> {
    match method {
        &Method::POST => find_counting(path).map_or_else(|| route::find(&ROUTES, method, path), Ok),
        _ => route::find(&ROUTES, method, path),
    }
}

/// The two counting routes, which nearly every request is for, found without going through the table.
pub(super) fn find_counting(path: &str) -> Option<(Endpoint, Parameters<'_>)> {
    let rest = path.strip_prefix("/api/events/").filter(|rest| !rest.is_empty())?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let Some(slash) = memchr::memchr(b'/', rest.as_bytes()) else {
        return Some((Endpoint::CountOne, [rest, ""]));
    };
    let (event, num) = (&rest[..slash], &rest[slash + 1..]);
    memchr::memchr(b'/', num.as_bytes()).is_none().then_some((Endpoint::CountMany, [event, num]))
}

/// Where batches go.
pub(crate) const BATCHES: &str = "/api/events";

/// Whether a request is one for [`BATCHES`], where `alias` is another name for that.
pub(crate) fn is_behind_alias(alias: &str, method: &Method, path: &str) -> bool {
    let takes = method == Method::POST || method == Method::OPTIONS;
    takes && path.strip_prefix(alias).is_some_and(|rest| rest.is_empty() || rest == "/")
}

/// Whether the answer depends on the request's body.
pub(crate) fn takes_body(method: &Method, path: &str) -> bool {
    matches!(find(method, path), Ok((Endpoint::Batch, _)))
}

/// Whether the path says all that is counted.
pub(crate) fn counts_by_path(method: &Method, path: &str) -> bool {
    matches!(find(method, path), Ok((Endpoint::CountOne | Endpoint::CountMany, _)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_short_way_to_the_counting_routes_leads_where_the_table_does(rest in "[a/%0-9]{0,8}") {
            for path in [format!("/api/events{rest}"), format!("/api/events/{rest}"), rest] {
                if let Some(found) = find_counting(&path) {
                    let any = route::find(&ROUTES, &Method::POST, &path);
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
            Err(Problem::MethodNotAllowed { allow }) => Some(allow),
            Err(Problem::NotFound) => None,
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
    fn an_alias_stands_for_batches_and_for_nothing_else() {
        let post = |path| is_behind_alias("/c", &Method::POST, path);
        assert!(post("/c") && post("/c/"));
        assert!(!["/c/login", "/cc", "/", "/api/events"].into_iter().any(post));
        assert!(!["/c", "/c/"].into_iter().any(|path| is_behind_alias("/c", &Method::GET, path)));
        assert_eq!(found(&Method::POST, BATCHES).0, Endpoint::Batch);
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
