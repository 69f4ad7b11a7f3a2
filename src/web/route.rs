//! A table of routes: it decides which handler answers, and tells 404 from 405 with `Allow`.

use hyper::Method;

use super::problem::Problem;

/// GET routes answer HEAD as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
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
pub(crate) struct Route<E> {
    pub(crate) verb: Verb,
    /// The segments of the path; one in braces takes any text.
    pub(crate) path: &'static [&'static str],
    /// Which handler answers.
    pub(crate) endpoint: E,
}

/// The segments in braces as they stand in the request, not yet percent-decoded.
pub(crate) type Parameters<'p> = [&'p str; 2];

impl<E> Route<E> {
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

/// The route of the table that answers.
///
/// # Errors
/// When no route has the path, or those that have it take other methods.
pub(crate) fn find<'p, E: Copy>(
    routes: &[Route<E>],
    method: &Method,
    path: &'p str,
) -> Result<(E, Parameters<'p>), Problem> {
    let (mut get, mut post) = (false, false);
    let mut room = [""; SEGMENTS_MAX];
    let segments = split(path, &mut room).ok_or(Problem::NotFound)?;
    for route in routes {
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
        (false, false) => Problem::NotFound,
        (true, false) => Problem::MethodNotAllowed { allow: "GET, HEAD, OPTIONS" },
        (false, true) => Problem::MethodNotAllowed { allow: "OPTIONS, POST" },
        (true, true) => Problem::MethodNotAllowed { allow: "GET, HEAD, OPTIONS, POST" },
    })
}
