//! Reading answers: HTTP/1.1 heads by httparse, bodies with a length or in chunks; and, for the
//! comparison with Redis, single-line RESP replies.

use std::borrow::Cow;
use std::ops::Range;

/// More headers than any server of the comparison sends.
const HEADERS_MAX: usize = 64;

/// One complete answer at the beginning of a buffer; ranges are offsets into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Bytes of the buffer that belong to this answer.
    pub len: usize,
    /// The server will close the connection after this answer.
    pub close: bool,
    pub etag: Option<Range<usize>>,
    body: Range<usize>,
    chunked: bool,
}

/// The bytes are no answer that could be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Response {
    /// Parses the answer at the beginning of `buffer`; `None` while it is incomplete.
    ///
    /// # Errors
    /// If no further bytes could make it an answer, or if its body would only end with the
    /// connection (a server that keeps connections alive has no reason to do that).
    pub fn parse(buffer: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let head_len = match head.parse(buffer) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Malformed),
        };
        let status = head.code.ok_or(Malformed)?;
        let mut content_length = None;
        let mut chunked = false;
        let mut close = head.version == Some(0);
        let mut etag = None;
        for header in head.headers.iter() {
            // Lengths first: comparing them is far cheaper than comparing names.
            match header.name.len() {
                14 if header.name.eq_ignore_ascii_case("content-length") => {
                    let text = std::str::from_utf8(header.value).map_err(|_| Malformed)?;
                    content_length = Some(text.trim().parse::<usize>().map_err(|_| Malformed)?);
                }
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                    chunked = header.value.eq_ignore_ascii_case(b"chunked");
                }
                10 if header.name.eq_ignore_ascii_case("connection") => {
                    close = header.value.eq_ignore_ascii_case(b"close");
                }
                4 if header.name.eq_ignore_ascii_case("etag") => {
                    let start = header.value.as_ptr() as usize - buffer.as_ptr() as usize;
                    etag = Some(start..start + header.value.len());
                }
                _ => {}
            }
        }
        let no_body = status < 200 || status == 204 || status == 304;
        let body_len = match content_length {
            _ if no_body => 0,
            _ if chunked => match chunked_len(&buffer[head_len..])? {
                Some(len) => len,
                None => return Ok(None),
            },
            Some(len) => len,
            None => return Err(Malformed),
        };
        let len = head_len.checked_add(body_len).ok_or(Malformed)?;
        if buffer.len() < len {
            return Ok(None);
        }
        Ok(Some(Self { status, len, close, etag, body: head_len..len, chunked: chunked && !no_body }))
    }

    /// One reply of Redis: a line that begins with `:` (a number), `+` (a word) or `-` (an error).
    /// Its status is 200 or 500.
    ///
    /// # Errors
    /// If it is another kind of reply.
    pub fn parse_resp(buffer: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(end) = memchr::memchr(b'\n', buffer) else { return Ok(None) };
        let status = match buffer[0] {
            b':' | b'+' => 200,
            b'-' => 500,
            _ => return Err(Malformed),
        };
        Ok(Some(Self { status, len: end + 1, close: false, etag: None, body: 1..end, chunked: false }))
    }

    /// The body, with chunks put together. `buffer` is the one that was parsed.
    #[must_use]
    pub fn body<'a>(&self, buffer: &'a [u8]) -> Cow<'a, [u8]> {
        let raw = buffer.get(self.body.clone()).unwrap_or_default();
        if !self.chunked {
            return Cow::Borrowed(raw);
        }
        let mut whole = Vec::with_capacity(raw.len());
        let mut rest = raw;
        while let Ok(Some((line_len, size))) = chunk_size(rest) {
            if size == 0 {
                break;
            }
            whole.extend_from_slice(rest.get(line_len..line_len + size).unwrap_or_default());
            rest = rest.get(line_len + size + 2..).unwrap_or_default();
        }
        Cow::Owned(whole)
    }
}

/// Length of a chunked body with its framing and trailers; `None` while it is incomplete.
fn chunked_len(body: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut at = 0;
    loop {
        let Some((line_len, size)) = chunk_size(&body[at..])? else { return Ok(None) };
        at += line_len;
        if size == 0 {
            break;
        }
        at = at.checked_add(size).and_then(|at| at.checked_add(2)).ok_or(Malformed)?;
        match body.get(at - 2..at) {
            Some(b"\r\n") => {}
            Some(_) => return Err(Malformed),
            None => return Ok(None),
        }
    }
    // Trailers, usually none: lines up to an empty one.
    loop {
        let Some(line_len) = memchr::memchr(b'\n', &body[at..]).map(|end| end + 1) else { return Ok(None) };
        at += line_len;
        if line_len <= 2 {
            return Ok(Some(at));
        }
    }
}

/// Length of the line that gives a chunk's size, and that size.
fn chunk_size(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    match httparse::parse_chunk_size(bytes) {
        Ok(httparse::Status::Complete((line_len, size))) => {
            Ok(Some((line_len, usize::try_from(size).map_err(|_| Malformed)?)))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(Malformed),
    }
}
