//! A line of an access log, in the Common or the Combined Log Format:
//! `HOST IDENT USER [10/Oct/2000:13:55:36 -0700] "GET /page HTTP/1.1" 200 2326 "REFERRER" "AGENT"`.

use std::borrow::Cow;

use chrono::DateTime;
use memchr::{memchr_iter, memchr2, memmem};
use percent_encoding::percent_decode;

use super::reason::Reason;
use super::time;
use crate::domain::{Hour, NameError};

/// `10/Oct/2000:13:55:36 -0700`.
const STAMP_BYTES: usize = 26;
/// What follows the time, up to the request.
const AFTER_STAMP: &[u8] = b"] \"";

/// What is counted of a request.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Entry<'l> {
    pub(super) hour: Hour,
    pub(super) method: Cow<'l, str>,
    /// Without the query, percent-decoded.
    pub(super) path: Result<String, NameError>,
    pub(super) status: u16,
}

/// `whole`: the referrer and the agent must be there.
pub(super) fn parse(line: &[u8], whole: bool, now: i64) -> Result<Entry<'_>, Reason> {
    let (stamp, rest) = stamp(line)?;
    let end = closing_quote(rest).ok_or(Reason::Unreadable)?;
    let status = status(&rest[end + 1..], whole).ok_or(Reason::Unreadable)?;
    let hour = time::hour_of(stamp, now)?;
    let (method, target) = request(unescaped(&rest[..end])).ok_or(Reason::Request)?;
    let path = percent_decode(path_of(&target)).decode_utf8();
    let path = path.map(Cow::into_owned).map_err(|_| NameError::NotUtf8);
    Ok(Entry { hour, method, path, status })
}

/// The time, in seconds since 1970, and what follows the quote that opens the request. A user's name may
/// hold brackets, so the first pair that holds a time is taken.
fn stamp(line: &[u8]) -> Result<(i64, &[u8]), Reason> {
    let mut reason = Reason::Unreadable;
    for at in memchr_iter(b'[', line) {
        // Looked for nearby only: a line of nothing but brackets costs no more than any other.
        let near = &line[at + 1..(at + 2 + STAMP_BYTES + AFTER_STAMP.len()).min(line.len())];
        let Some(length) = memmem::find(near, AFTER_STAMP) else { continue };
        match seconds(&near[..length]) {
            Some(seconds) => return Ok((seconds, &line[at + 1 + length + AFTER_STAMP.len()..])),
            None => reason = Reason::Time,
        }
    }
    Err(reason)
}

fn seconds(stamp: &[u8]) -> Option<i64> {
    // Else chrono would take a year of two digits for one of the Roman Empire.
    let text = std::str::from_utf8(stamp).ok().filter(|text| text.len() == STAMP_BYTES)?;
    DateTime::parse_from_str(text, "%d/%b/%Y:%H:%M:%S %z").ok().map(|time| time.timestamp())
}

/// Where the text ends that a quote has opened. A backslash takes the next byte's meaning away.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// The status, if what follows the request is as it should be: ` 200 2326`, perhaps with ` "…" "…"` after it.
fn status(after: &[u8], whole: bool) -> Option<u16> {
    let after = after.strip_prefix(b" ")?;
    let (status, after) = after.split_at_checked(3)?;
    let after = after.strip_prefix(b" ")?;
    let length = after.iter().position(|byte| *byte == b' ').unwrap_or(after.len());
    let (size, mut after) = after.split_at(length);
    let is_size = size == b"-" || (!size.is_empty() && size.iter().all(u8::is_ascii_digit));
    if whole {
        for _ in 0..2 {
            let quoted = after.strip_prefix(b" \"")?;
            after = &quoted[closing_quote(quoted)? + 1..];
        }
    }
    let digits = std::str::from_utf8(status).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits?.parse().ok().filter(|_| is_size)
}

/// Without the escapes of Apache and nginx: `\"`, `\\`, `\n`, `\xHH`.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        let Some((&escaped, after)) = rest.split_first() else { break };
        rest = after;
        let mut code = [0];
        plain.push(match escaped {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' if rest.get(..2).is_some_and(|digits| hex::decode_to_slice(digits, &mut code).is_ok()) => {
                rest = &rest[2..];
                code[0]
            }
            other => other,
        });
    }
    Cow::Owned(plain)
}

/// Method and target of `GET /page HTTP/1.1`. Anybody may send anything to a server: TLS to a port without
/// it, or nothing.
fn request(request: Cow<'_, [u8]>) -> Option<(Cow<'_, str>, Cow<'_, [u8]>)> {
    let length = request.iter().position(|byte| *byte == b' ')?;
    let is_method = (1..=32).contains(&length) && request[..length].iter().all(u8::is_ascii_uppercase);
    // A path may hold spaces, and a request of HTTP/0.9 names no version.
    let end = memmem::rfind(&request, b" HTTP/").filter(|end| *end > length).unwrap_or(request.len());
    let target = length + 1..end.max(length + 1);
    if !is_method || target.is_empty() {
        return None;
    }
    Some(match request {
        Cow::Borrowed(bytes) => (String::from_utf8_lossy(&bytes[..length]), Cow::Borrowed(&bytes[target])),
        Cow::Owned(bytes) => {
            let method = String::from_utf8_lossy(&bytes[..length]).into_owned();
            (Cow::Owned(method), Cow::Owned(bytes[target].to_vec()))
        }
    })
}

/// The path of a target, without the query. A proxy's log has whole addresses.
fn path_of(target: &[u8]) -> &[u8] {
    let whole = [&b"http://"[..], b"https://"].iter().find_map(|scheme| target.strip_prefix(*scheme));
    let path = match whole {
        None => target,
        Some(rest) => match rest.iter().position(|byte| matches!(byte, b'/' | b'?')) {
            Some(at) if rest[at] == b'/' => &rest[at..],
            _ => b"/",
        },
    };
    &path[..path.iter().position(|byte| *byte == b'?').unwrap_or(path.len())]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn line(request: &str) -> String {
        format!(r#"::1 - ann [17/May/2015:10:05:03 +0200] "{request}" 200 17"#)
    }

    fn path(request: &str) -> Result<String, Reason> {
        parse(line(request).as_bytes(), false, NOW).map(|entry| entry.path.unwrap())
    }

    #[test]
    fn both_formats_are_read_and_the_zone_decides_the_hour() {
        let common = line("GET /a HTTP/1.1");
        let combined = format!(r#"{common} "https://a.example/\"x\"" "Agent [1] \"x\"""#);
        for (text, whole) in [(&common, false), (&combined, false), (&combined, true)] {
            let entry = parse(text.as_bytes(), whole, NOW).unwrap();
            assert_eq!((entry.hour.to_string().as_str(), &*entry.method, entry.status), ("2015051708", "GET", 200));
            assert_eq!(entry.path.unwrap(), "/a");
        }
        assert_eq!(parse(common.as_bytes(), true, NOW), Err(Reason::Unreadable));
    }

    #[test]
    fn the_path_is_without_its_query_and_percent_decoded_once() {
        for (request, expected) in [
            ("GET /caf%C3%A9?q=1 HTTP/1.1", "/café"),
            ("GET /a%252Fb HTTP/1.0", "/a%2Fb"),
            ("GET /a b HTTP/1.1", "/a b"),
            ("GET /old", "/old"),
            (r#"GET /say-\"hi\"\x21\\ HTTP/1.1"#, "/say-\"hi\"!\\"),
            ("GET http://a.example/x?y HTTP/1.1", "/x"),
            ("GET https://a.example?y=/z HTTP/1.1", "/"),
            ("OPTIONS * HTTP/1.1", "*"),
        ] {
            assert_eq!(path(request).as_deref(), Ok(expected), "{request}");
        }
        let broken = line("GET /%FF HTTP/1.1");
        assert_eq!(parse(broken.as_bytes(), false, NOW).unwrap().path, Err(NameError::NotUtf8));
    }

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        for request in ["-", "", r"\x16\x03\x01", "get /a HTTP/1.1", "GET  HTTP/1.1", "GET ", "GET"] {
            assert_eq!(path(request), Err(Reason::Request), "{request}");
        }
    }

    #[test]
    fn times_are_read_or_refused_for_a_reason() {
        let of = |stamp: &str| {
            let line = format!(r#"h - - [{stamp}] "GET /a HTTP/1.1" 200 1"#);
            parse(line.as_bytes(), false, NOW).map(|entry| entry.hour.to_string())
        };
        assert_eq!(of("31/Dec/1999:23:30:00 -0100").as_deref(), Ok("2000010100"));
        assert_eq!(of("30/Jun/2015:23:59:60 +0000").as_deref(), Ok("2015063023"));
        for stamp in ["17/May/15:10:05:03 +0000", "30/Feb/2015:10:05:03 +0000", "17/Mai/2015:10:05:03 +0000", ""] {
            assert_eq!(of(stamp), Err(Reason::Time), "{stamp}");
        }
        assert_eq!(of("31/Dec/1969:23:59:59 +0000"), Err(Reason::TooEarly));
        assert_eq!(of("01/Jan/1970:00:00:00 +0001"), Err(Reason::TooEarly));
        assert_eq!(of("15/Jan/2027:09:00:00 +0000"), Err(Reason::Future));
    }

    #[test]
    fn a_name_with_brackets_hides_no_time() {
        let line =
            br#"h - [x] "a\" [01/Jan/2001:00:00:00 +0000] \"" [17/May/2015:10:05:03 +0000] "GET /b HTTP/1.1" 200 1"#;
        assert_eq!(parse(line, false, NOW).unwrap().path.unwrap(), "/b");
        let brackets = [b'['; 60_000];
        assert_eq!(parse(&brackets, false, NOW), Err(Reason::Unreadable));
    }

    #[test]
    fn a_line_that_is_cut_off_is_unreadable_at_any_place_before_the_size() {
        let line = line("GET /a HTTP/1.1");
        for end in 0..line.len() - 2 {
            assert!(parse(&line.as_bytes()[..end], false, NOW).is_err(), "{end}");
        }
        assert!(parse(&line.as_bytes()[..line.len() - 1], false, NOW).is_ok(), "everything that counts is there");
    }
}
