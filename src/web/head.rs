//! What RFC 9112 asks of the head of a request and hyper does not look at: the host and the form of the target.

use hyper::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::uri::{Authority, Scheme};
use hyper::{HeaderMap, Method, Request, Uri, Version};

use super::problem::{Problem, Unread};

/// Checks the target and the host. A target in absolute form, as proxies get it, is made a path, and its host takes
/// the place of the header.
///
/// # Errors
/// When the target is neither, or the request does not say for which host it is.
pub(crate) fn check<B>(request: &mut Request<B>) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(HOST).into_iter();
    let is_named = match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host.as_bytes()),
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    };
    if !is_named {
        return Err(Problem::Unread(Unread::BadHost));
    }
    // warp's path filters panic on a target that has no path (`CONNECT host:port`).
    let uri = request.uri();
    if request.method() == Method::CONNECT || !uri.path().starts_with('/') {
        return Err(Problem::BadTarget);
    }
    if uri.scheme().is_none() { Ok(()) } else { make_path(request) }
}

fn make_path<B>(request: &mut Request<B>) -> Result<(), Problem> {
    let uri = request.uri();
    if !uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS) {
        return Err(Problem::BadTarget);
    }
    let host = uri.authority().map(Authority::as_str).filter(|host| is_host(host.as_bytes()));
    let host = host.and_then(|host| HeaderValue::from_str(host).ok()).ok_or(Problem::Unread(Unread::BadHost))?;
    let path = uri.path_and_query().cloned().ok_or(Problem::BadTarget)?;
    *request.uri_mut() = Uri::from(path);
    request.headers_mut().insert(HOST, host);
    Ok(())
}

/// Whether it is a host, perhaps with a port. Empty is allowed: it stands for a target that has none.
fn is_host(host: &[u8]) -> bool {
    // A name or an address; `[` and `]` are for IPv6, and nothing may hide a user, a path or a list here.
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_~:[]%!$&'()*+;=".contains(byte);
    host.len() <= HOST_BYTES_MAX && host.iter().all(is_allowed)
}

/// The longest name has 253 bytes, and a port follows.
const HOST_BYTES_MAX: usize = 260;

/// Whether a body comes as it is or chunked, and in no other way: hyper only looks at the last of several codings.
pub(crate) fn has_plain_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).into_iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn checked(target: &str, hosts: &[&str], version: Version) -> Result<(String, Option<String>), Problem> {
        let request = Request::builder().uri(target).version(version);
        let mut request = hosts.iter().fold(request, |request, host| request.header(HOST, *host)).body(()).unwrap();
        check(&mut request)?;
        let host = request.headers().get(HOST).map(|host| host.to_str().unwrap().to_owned());
        Ok((request.uri().to_string(), host))
    }

    #[test]
    fn a_target_in_absolute_form_is_its_path_at_its_host() {
        let made = |target| checked(target, &["other"], Version::HTTP_11).unwrap();
        assert_eq!(made("http://x:80/a%2Fb?c=d"), ("/a%2Fb?c=d".into(), Some("x:80".into())));
        assert_eq!(made("HTTPS://x"), ("/".into(), Some("x".into())));
        assert_eq!(made("/a"), ("/a".into(), Some("other".into())));
        for target in ["ftp://x/a", "*", "x:80"] {
            assert!(matches!(checked(target, &["x"], Version::HTTP_11), Err(Problem::BadTarget)), "{target}");
        }
        let bad = checked("http://u@x/a", &["x"], Version::HTTP_11);
        assert!(matches!(bad, Err(Problem::Unread(Unread::BadHost))), "{bad:?}");
    }

    #[test]
    fn there_is_one_host_and_it_is_one() {
        for host in ["x", "x:8000", "[::1]:80", "127.0.0.1", "a_b.example.", "", "xn--bcher-kva.example"] {
            assert!(checked("/", &[host], Version::HTTP_11).is_ok(), "{host:?}");
        }
        let long = "x".repeat(261);
        for hosts in [&["a", "a"][..], &[], &["a b"], &["a/b"], &["u@a"], &["a,b"], &["a#b"], &["\"a"], &[&long]] {
            assert!(checked("/", hosts, Version::HTTP_11).is_err(), "{hosts:?}");
        }
        assert!(checked("/", &[], Version::HTTP_10).is_ok());
        assert!(checked("/", &["a b"], Version::HTTP_10).is_err());
    }
}
