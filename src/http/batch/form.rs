//! In which form a batch comes, by its headers and, where those do not say, by its first bytes.

use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};

use crate::http::answer::ApiError;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Document,
    Lines,
    /// Either: the first bytes tell. `navigator.sendBeacon` sends texts as `text/plain`, since a page
    /// may do so without asking first, and curl calls what it sends a form.
    Sniffed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    Plain,
    Gzip,
}

const SNIFFED: [&str; 3] = ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"];
const LINES: [&str; 5] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "text/x-ndjson"];

impl Form {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Self::Sniffed) };
        // Parameters say nothing here: JSON is UTF-8.
        let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        let media_type = media_type.trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/json" => Ok(Self::Document),
            known if LINES.contains(&known) => Ok(Self::Lines),
            "" => Ok(Self::Sniffed),
            known if SNIFFED.contains(&known) => Ok(Self::Sniffed),
            _ => Err(ApiError::BadContentType),
        }
    }

    /// What the beginning of a body tells; `None` when it is too short to tell. A document begins
    /// with a bracket, or with an object whose first field is `events`; anything else is lines.
    pub(super) fn sniff(beginning: &[u8]) -> Option<Self> {
        const EVENTS: &[u8] = b"\"events\"";
        let beginning = beginning.trim_ascii_start();
        match beginning.first()? {
            b'[' => Some(Self::Document),
            b'{' => {
                let field = beginning[1..].trim_ascii_start();
                let length = field.len().min(EVENTS.len());
                match field[..length] == EVENTS[..length] {
                    true if length < EVENTS.len() => None,
                    true => Some(Self::Document),
                    false => Some(Self::Lines),
                }
            }
            _ => Some(Self::Lines),
        }
    }
}

impl Encoding {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut values = headers.get_all(CONTENT_ENCODING).into_iter();
        let Some(value) = values.next() else { return Ok(Self::Plain) };
        let known = |name: &str| value.as_bytes().eq_ignore_ascii_case(name.as_bytes());
        match (values.next(), known("gzip") || known("x-gzip"), known("identity") || value.is_empty()) {
            (None, true, _) => Ok(Self::Gzip),
            (None, _, true) => Ok(Self::Plain),
            _ => Err(ApiError::BadContentEncoding),
        }
    }
}

/// The length of the body as it is sent, where the client says it beforehand.
pub(super) fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hyper::header::HeaderValue;

    use super::*;

    fn form(content_type: &str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::try_from(content_type).unwrap());
        Form::of(&headers).ok()
    }

    #[test]
    fn the_content_type_tells_the_form() {
        assert_eq!(form("application/json; charset=utf-8"), Some(Form::Document));
        assert_eq!(form("Application/X-NDJSON"), Some(Form::Lines));
        assert_eq!(form("application/jsonl"), Some(Form::Lines));
        assert_eq!(form("text/plain;charset=UTF-8"), Some(Form::Sniffed));
        assert_eq!(form("text/html"), None);
        assert_eq!(form("multipart/form-data; boundary=x"), None);
        assert_eq!(Form::of(&HeaderMap::new()).ok(), Some(Form::Sniffed));
    }

    #[test]
    fn the_first_bytes_tell_the_form_as_soon_as_they_can() {
        for (text, form) in [
            (" \n[", Some(Form::Document)),
            ("{\n \"events\"", Some(Form::Document)),
            ("{\"event\":", Some(Form::Lines)),
            ("{}", Some(Form::Lines)),
            ("\"a", Some(Form::Lines)),
            ("a=b", Some(Form::Lines)),
            ("", None),
            (" ", None),
            ("{ ", None),
            ("{\"event", None),
        ] {
            assert_eq!(Form::sniff(text.as_bytes()), form, "{text}");
        }
    }
}
