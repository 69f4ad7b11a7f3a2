//! A body on its way in: inflated, measured, and parsed as far as its form allows.

use std::io::{self, Write};
use std::pin::pin;

use bytes::Buf;
use flate2::write::MultiGzDecoder;
use futures_util::{Stream, StreamExt};

use super::form::{self, Encoding, Form};
use super::parse::{self, Lines, NotABatch};
use super::tally::Tally;
use crate::http::answer::ApiError;

/// A document longer than this is parsed off the threads that serve: it takes a millisecond or so.
const PARSED_HERE_BYTES_MAX: usize = 256 * 1024;
/// Compressed bytes that are inflated at one go: they may be a thousand times as many.
const INFLATED_AT_ONCE_BYTES: usize = 1024;

/// Where the bytes go.
pub(super) enum Sink {
    /// They are read because the connection goes on after them.
    Nowhere,
    /// The first bytes: they are looked at before they go on.
    Beginning(Form, Vec<u8>),
    /// Parsed when it is whole: an error at its end means that nothing is counted.
    Document(Vec<u8>),
    Lines(Lines),
}

impl Sink {
    pub(super) fn new(form: Form) -> Self {
        Self::Beginning(form, Vec::new())
    }

    fn push(&mut self, piece: &[u8]) {
        match self {
            Self::Nowhere => {}
            Self::Document(bytes) => bytes.extend_from_slice(piece),
            Self::Lines(lines) => lines.push(piece),
            // Mostly all of it comes at once, and need not be copied.
            Self::Beginning(form, beginning) if beginning.is_empty() => match form.settle(piece, false) {
                Some(form) => self.begin(form, piece),
                None => beginning.extend_from_slice(piece),
            },
            Self::Beginning(_, beginning) => {
                beginning.extend_from_slice(piece);
                self.settle(false);
            }
        }
    }

    /// Ends the beginning, if it tells enough or `is_all` there is.
    fn settle(&mut self, is_all: bool) {
        let Self::Beginning(form, beginning) = self else { return };
        let Some(form) = form.settle(beginning, is_all) else { return };
        let beginning = std::mem::take(beginning);
        self.begin(form, &beginning);
    }

    fn begin(&mut self, form: Form, beginning: &[u8]) {
        *self = match form {
            Form::Document => Self::Document(Vec::new()),
            Form::Lines | Form::Sniffed => Self::Lines(Lines::default()),
        };
        self.push(form::without_mark(beginning));
    }

    pub(super) async fn finish(mut self) -> Result<Tally, ApiError> {
        let parse = |bytes: Vec<u8>| {
            let mut tally = Tally::default();
            parse::document(&bytes, &mut tally).map(|()| tally)
        };
        self.settle(true);
        let tally = match self {
            Self::Nowhere | Self::Beginning(..) => Err(NotABatch("the body is not read")),
            Self::Lines(lines) => lines.finish(),
            Self::Document(bytes) if bytes.len() <= PARSED_HERE_BYTES_MAX => parse(bytes),
            Self::Document(bytes) => match tokio::task::spawn_blocking(move || parse(bytes)).await {
                Ok(parsed) => parsed,
                Err(_) => return Err(ApiError::Panicked),
            },
        };
        tally.map_err(|NotABatch(why)| ApiError::NotABatch { why })
    }
}

/// Lets at most so many bytes through.
struct Limited {
    sink: Sink,
    left: usize,
    exceeded: bool,
}

impl Write for Limited {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(piece.len()) {
            Some(left) => self.left = left,
            None => {
                self.exceeded = true;
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        self.sink.push(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes the whole body in; at most `bytes_max`, inflated. Nothing may be counted unless it succeeds.
pub(super) async fn read<B: Buf, E>(
    frames: impl Stream<Item = Result<B, E>>,
    encoding: Encoding,
    bytes_max: usize,
    sink: Sink,
) -> Result<Sink, ApiError> {
    let mut frames = pin!(frames);
    let mut limited = Limited { sink, left: bytes_max, exceeded: false };
    let too_large = || ApiError::BodyTooLarge { bytes_max };
    if encoding == Encoding::Plain {
        while let Some(frame) = frames.next().await {
            let mut frame = frame.map_err(|_| ApiError::BodyBroken)?;
            while frame.has_remaining() {
                let piece = frame.chunk();
                limited.write_all(piece).map_err(|_| too_large())?;
                frame.advance(piece.len());
            }
        }
        return Ok(limited.sink);
    }
    let mut inflating = MultiGzDecoder::new(limited);
    let refused = |inflating: &MultiGzDecoder<Limited>| {
        if inflating.get_ref().exceeded { too_large() } else { ApiError::BadGzip }
    };
    let mut compressed_left = bytes_max;
    while let Some(frame) = frames.next().await {
        let mut frame = frame.map_err(|_| ApiError::BodyBroken)?;
        while frame.has_remaining() {
            let piece = frame.chunk();
            let piece = &piece[..piece.len().min(INFLATED_AT_ONCE_BYTES)];
            let length = piece.len();
            // Any number of empty members inflates to nothing.
            compressed_left = compressed_left.checked_sub(length).ok_or_else(too_large)?;
            inflating.write_all(piece).map_err(|_| refused(&inflating))?;
            frame.advance(length);
            tokio::task::coop::consume_budget().await;
        }
    }
    inflating.try_finish().map_err(|_| refused(&inflating))?;
    inflating.finish().map(|limited| limited.sink).map_err(|_| ApiError::BadGzip)
}
