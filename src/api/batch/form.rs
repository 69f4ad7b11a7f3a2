//! In which form a batch comes, by its headers and, where those do not say, by its first bytes.

use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};

use super::parse;
use crate::web::problem::Problem;

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

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Longer than the line of any item: what has no line end by then is a document.
const SNIFFED_BYTES_MAX: usize = 8 * 1024;

impl Form {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Self::Sniffed) };
        // Parameters say nothing here: JSON is UTF-8.
        let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        let media_type = media_type.trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/json" => Ok(Self::Document),
            known if LINES.contains(&known) => Ok(Self::Lines),
            "" => Ok(Self::Sniffed),
            known if SNIFFED.contains(&known) => Ok(Self::Sniffed),
            _ => Err(Problem::BadContentType),
        }
    }

    /// What the beginning of a body tells; `None` when it is too short to tell, unless it `is_all`.
    /// `[` begins a document. An object does, too, unless its line is a whole one without `events`:
    /// an item. Anything else is lines.
    pub(super) fn settle(self, beginning: &[u8], is_all: bool) -> Option<Self> {
        if !is_all && BYTE_ORDER_MARK.starts_with(beginning) {
            return None;
        }
        let text = parse::without_blanks(without_mark(beginning));
        let is_enough = beginning.len() >= SNIFFED_BYTES_MAX;
        let of_line = |line| if parse::is_line(line) { Self::Lines } else { Self::Document };
        match (self, text.first()) {
            (Self::Document | Self::Lines, _) => Some(self),
            (Self::Sniffed, None) => (is_all || is_enough).then_some(Self::Lines),
            (Self::Sniffed, Some(b'[')) => Some(Self::Document),
            (Self::Sniffed, Some(b'{')) => match memchr::memchr(b'\n', &text[..text.len().min(SNIFFED_BYTES_MAX)]) {
                Some(end) => Some(of_line(&text[..end])),
                None if is_enough => Some(Self::Document),
                None => is_all.then(|| of_line(text)),
            },
            (Self::Sniffed, Some(_)) => Some(Self::Lines),
        }
    }
}

/// Some editors begin files with it; it says nothing in UTF-8.
pub(super) fn without_mark(beginning: &[u8]) -> &[u8] {
    beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(beginning)
}

impl Encoding {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(CONTENT_ENCODING).into_iter();
        let Some(value) = values.next() else { return Ok(Self::Plain) };
        let known = |name: &str| value.as_bytes().eq_ignore_ascii_case(name.as_bytes());
        match (values.next(), known("gzip") || known("x-gzip"), known("identity") || value.is_empty()) {
            (None, true, _) => Ok(Self::Gzip),
            (None, _, true) => Ok(Self::Plain),
            _ => Err(Problem::BadContentEncoding),
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
    fn the_beginning_tells_the_form_as_soon_as_it_can() {
        let (document, lines) = (Some(Form::Document), Some(Form::Lines));
        let long = format!("{{\"sent\":\"{}", "x".repeat(SNIFFED_BYTES_MAX));
        for (text, early, late) in [
            (" \n[", document, document),
            ("\u{feff}[", document, document),
            ("{\n \"events\"", document, document),
            ("{\"events\":[]", None, document),
            ("{\"sent\":1,\"events\":[\"a\"]}", None, document),
            ("{\"sent\":1,\"events\":[\"a\"]}\n", document, document),
            ("{\"event\":\"a\"}", None, lines),
            ("{\"event\":\"a\"}\r\n{", lines, lines),
            ("{\"name\":\"a\"}\n{\"event\":", lines, lines),
            ("{\"event\":\"\\ud83d\"}\n", lines, lines),
            (long.as_str(), document, document),
            ("\"a", lines, lines),
            ("a=b", lines, lines),
            ("", None, lines),
            (" ", None, lines),
            ("{ ", None, document),
        ] {
            assert_eq!(Form::Sniffed.settle(text.as_bytes(), false), early, "{text}");
            assert_eq!(Form::Sniffed.settle(text.as_bytes(), true), late, "{text}");
        }
        for form in [Form::Document, Form::Lines, Form::Sniffed] {
            assert_eq!(form.settle(b"\xef\xbb", false), None, "it may be the mark");
        }
        assert_eq!(Form::Document.settle(b"\"", false), document);
    }
}
