//! A body on its way in: inflated, measured, and parsed as far as its form allows.

use std::io::{self, Write};
use std::pin::pin;

use super::form::{self, Encoding, Form};
use super::parse::{self, Lines, NotABatch};
use super::tally::Tally;
use crate::web::pace::Pace;
use crate::web::problem::Problem;
use crate::web::room::Room;
use bytes::Buf;
use flate2::write::MultiGzDecoder;
use futures_util::Stream;

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

    pub(super) async fn finish(mut self) -> Result<Tally, Problem> {
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
                Err(_) => return Err(Problem::Panicked),
            },
        };
        tally.map_err(|NotABatch(why)| Problem::NotABatch { why })
    }
}

/// Lets at most so many bytes through.
struct Limited {
    sink: Sink,
    left: usize,
    exceeded: bool,
    room: Room,
    crowded_out: bool,
}

impl Limited {
    fn taken_in(self) -> Result<(Sink, Room), Problem> {
        if self.crowded_out { Err(Problem::TooManyBodies) } else { Ok((self.sink, self.room)) }
    }
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
        if !matches!(self.sink, Sink::Nowhere) && !self.room.take(piece.len()) {
            self.crowded_out = true;
            self.sink = Sink::Nowhere;
            self.room.give_back();
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
    room: Room,
    mut pace: Pace,
) -> Result<(Sink, Room), Problem> {
    let mut frames = pin!(frames);
    let mut limited = Limited { sink, left: bytes_max, exceeded: false, room, crowded_out: false };
    let too_large = || Problem::BodyTooLarge { bytes_max };
    if encoding == Encoding::Plain {
        while let Some(frame) = pace.next(&mut frames).await? {
            let mut frame = frame.map_err(|_| Problem::BodyBroken)?;
            pace.came(frame.remaining());
            while frame.has_remaining() {
                let piece = frame.chunk();
                limited.write_all(piece).map_err(|_| too_large())?;
                frame.advance(piece.len());
            }
        }
        return limited.taken_in();
    }
    let mut inflating = MultiGzDecoder::new(limited);
    let refused = |inflating: &MultiGzDecoder<Limited>| {
        if inflating.get_ref().exceeded { too_large() } else { Problem::BadGzip }
    };
    let mut compressed_left = bytes_max;
    while let Some(frame) = pace.next(&mut frames).await? {
        let mut frame = frame.map_err(|_| Problem::BodyBroken)?;
        pace.came(frame.remaining());
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
    inflating.finish().map_err(|_| Problem::BadGzip)?.taken_in()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::{FutureExt, StreamExt, stream};

    use super::*;
    use crate::web::room::{Bodies, SMALL_BYTES};

    fn room_for(bytes: usize) -> &'static Bodies {
        Box::leak(Box::new(Bodies::new(bytes)))
    }

    fn unhurried() -> Pace {
        Pace::new(Duration::from_secs(3_600))
    }

    async fn take(left: &'static Bodies, body: &str, form: Form) -> Result<Room, Problem> {
        let frames = stream::iter(body.as_bytes().chunks(1_000).map(Ok::<_, Infallible>));
        let (sink, room) =
            read(frames, Encoding::Plain, usize::MAX, Sink::new(form), Room::new(left), unhurried()).await?;
        sink.finish().await.map(|_| room)
    }

    #[tokio::test]
    async fn small_bodies_that_are_half_there_take_room_as_well() {
        let left = room_for(1_000_000);
        let mut parked: Vec<_> = (0..16)
            .map(|_| {
                let half = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'\n'; 60_000]))]);
                let half = half.chain(stream::pending());
                let sink = Sink::new(Form::Lines);
                Box::pin(read(half, Encoding::Plain, usize::MAX, sink, Room::new(left), unhurried()))
            })
            .collect();
        parked.iter_mut().for_each(|half| assert!(half.as_mut().now_or_never().is_none()));
        assert!(matches!(take(left, &"1\n".repeat(30_000), Form::Lines).await, Err(Problem::TooManyBodies)));
        drop(parked);
        assert!(take(left, &"1\n".repeat(30_000), Form::Lines).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_that_goes_on_is_taken_in_and_one_that_trickles_is_not() {
        let patience = Duration::from_secs(10);
        let pieces = |bytes: usize| {
            let pieces = stream::iter(0..100).then(move |_| async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                Ok::<_, Infallible>(Bytes::from(vec![b'\n'; bytes]))
            });
            let (sink, room) = (Sink::new(Form::Lines), Room::new(room_for(10_000_000)));
            read(pieces, Encoding::Plain, usize::MAX, sink, room, Pace::new(patience))
        };
        assert!(pieces(20_000).await.is_ok(), "it took 500 s");
        assert!(matches!(pieces(1_000).await, Err(Problem::BodyTimeout)));
    }

    #[tokio::test]
    async fn a_body_that_is_half_there_leaves_room_for_small_ones_only_until_it_is_gone() {
        for form in [Form::Document, Form::Lines] {
            let left = room_for(250_000);
            let [large, small] = [150_000, SMALL_BYTES].map(|bytes| match form {
                Form::Document => format!("[1{}]", " ".repeat(bytes - 3)),
                _ => format!("1{}", "\n".repeat(bytes - 1)),
            });
            let half = stream::iter([Ok::<_, Infallible>(Bytes::from(large[..140_000].to_owned()))]);
            let half = half.chain(stream::pending());
            let mut half =
                Box::pin(read(half, Encoding::Plain, usize::MAX, Sink::new(form), Room::new(left), unhurried()));
            assert!(half.as_mut().now_or_never().is_none());
            assert!(matches!(take(left, &large, form).await, Err(Problem::TooManyBodies)));
            assert!(take(left, &small, form).await.is_ok());
            drop(half);
            let held = take(left, &large, form).await.unwrap();
            assert!(matches!(take(left, &large, form).await, Err(Problem::TooManyBodies)));
            drop(held);
            assert!(take(left, &large, form).await.is_ok());
            assert_eq!(left.left(), 250_000);
        }
    }
}
