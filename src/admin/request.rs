//! One request to the dashboard as its pages see it: parameters, form, cookies, and whether it may
//! change anything.

use std::net::IpAddr;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderName, ORIGIN, USER_AGENT};
use hyper::{HeaderMap, Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What http hands over.
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    /// The other end of the connection.
    pub peer: IpAddr,
    pub body: Bytes,
}

/// Most parameters of a query or of a form. Pages look each of theirs up, so many cost time.
pub(super) const PARAMETERS_MAX: usize = 32;

/// Decoded names and values of a query or a form. The first of a name counts.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().take(PARAMETERS_MAX).collect())
    }

    pub(super) fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Trimmed; empty where absent.
    pub(super) fn get(&self, name: &str) -> &str {
        self.given(name).unwrap_or_default()
    }

    /// Trimmed.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim())
    }

    /// For passwords: every space counts.
    pub(super) fn exact(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Request {
    pub(super) fn query(&self) -> Parameters {
        Parameters::parse(self.uri.query().unwrap_or_default().as_bytes())
    }

    pub(super) fn form(&self) -> Parameters {
        Parameters::parse(&self.body)
    }

    /// Whether the query or the form has more than [`PARAMETERS_MAX`].
    pub(super) fn has_too_many_parameters(&self) -> bool {
        let are_too_many = |text: &[u8]| url::form_urlencoded::parse(text).nth(PARAMETERS_MAX).is_some();
        are_too_many(self.uri.query().unwrap_or_default().as_bytes()) || (!self.has_json() && are_too_many(&self.body))
    }

    /// Whether the body says that it is JSON.
    pub(super) fn has_json(&self) -> bool {
        self.header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"))
    }

    pub(super) fn is_api(&self) -> bool {
        self.uri.path().starts_with("/api/")
    }

    pub(super) fn header(&self, name: impl hyper::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        let cookies = self.headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        let (scheme, secret) = self.header(AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    }

    /// The browser's own description, at most 200 characters.
    pub(super) fn agent(&self) -> String {
        self.header(USER_AGENT).unwrap_or("unknown").chars().take(200).collect()
    }

    pub(super) fn came_by_tls(&self, trust_proxy: bool) -> bool {
        trust_proxy && self.header("x-forwarded-proto").is_some_and(|proto| proto.eq_ignore_ascii_case("https"))
    }

    /// Behind a proxy, the address that it saw, which it appends to what the client claims.
    pub(super) fn client(&self, trust_proxy: bool) -> IpAddr {
        let claimed = || {
            let mut values = self.headers.get_all("x-forwarded-for").into_iter();
            values.next_back()?.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
        };
        trust_proxy.then(claimed).flatten().unwrap_or(self.peer)
    }

    /// Whether the request was made by a page of this very site, as only the browser can say: by
    /// `Sec-Fetch-Site`, or by an `Origin` that is the host the request is for.
    pub(super) fn is_same_origin(&self) -> bool {
        const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
        if let Some(site) = self.headers.get(SEC_FETCH_SITE) {
            return site == "same-origin";
        }
        let origin = self.header(ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        origin.is_some() && origin == self.header(HOST)
    }
}

/// What may stand in a path segment or a query value as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~').remove(b'.');

/// `text` for a path segment or a query value.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let (uri, peer) = ("/admin".parse().unwrap(), "127.0.0.1".parse().unwrap());
        Request { method: Method::POST, uri, headers: map, peer, body: Bytes::new() }
    }

    #[test]
    fn only_the_site_itself_may_change_something() {
        let host = ("host", "tracker.example:8000");
        let allowed = |headers: &[(&str, &str)]| request(headers).is_same_origin();
        assert!(allowed(&[host, ("origin", "http://tracker.example:8000")]));
        assert!(allowed(&[host, ("origin", "https://tracker.example:8000")]), "TLS may end at a proxy");
        assert!(allowed(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(!allowed(&[host]), "nobody says where it comes from");
        assert!(!allowed(&[host, ("origin", "null")]));
        assert!(!allowed(&[host, ("origin", "http://evil.example")]));
        assert!(!allowed(&[host, ("origin", "http://tracker.example:8000.evil.example")]));
        for site in ["same-site", "cross-site", "none", ""] {
            let headers = [host, ("sec-fetch-site", site), ("origin", "http://tracker.example:8000")];
            assert!(!allowed(&headers), "{site}");
        }
    }

    #[test]
    fn a_proxy_is_believed_only_where_it_is_trusted_and_only_its_own_word() {
        let spoofed = request(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-proto", "https")]);
        assert_eq!(spoofed.client(true).to_string(), "2.2.2.2");
        assert_eq!(spoofed.client(false).to_string(), "127.0.0.1");
        assert!(spoofed.came_by_tls(true));
        assert!(!spoofed.came_by_tls(false));
    }

    #[test]
    fn cookies_are_found_in_any_of_the_headers_and_by_their_whole_name() {
        let request = request(&[("cookie", "xsession=1; session=2"), ("cookie", "theme=dark")]);
        assert_eq!(request.cookie("session"), Some("2"));
        assert_eq!(request.cookie("theme"), Some("dark"));
        assert_eq!(request.cookie("the"), None);
    }

    #[test]
    fn any_event_name_survives_a_path() {
        for name in ["a/b?c#d%2F", "..x", "<svg onload=1>", "日本 \u{202e}", "a+b&c=d"] {
            let encoded = encoded(name);
            assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_~.%".contains(&b)), "{encoded}");
            let event = crate::domain::EventName::from_path_segment(&encoded).unwrap();
            assert_eq!(event.as_str(), name);
        }
    }
}
