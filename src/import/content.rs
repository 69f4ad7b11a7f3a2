//! The content of a log, byte by byte and line by line: how far it is read, and what stands for all of it so
//! far.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::LINE_BYTES_MAX;

/// Of the digest of a content.
pub(super) const DIGEST_BYTES: usize = 10;
const BUFFER_BYTES: usize = 128 << 10;

/// Hears how many bytes of a source are read.
pub type OnRead = Arc<dyn Fn(u64)>;

/// Where a log is read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    File(PathBuf),
    StandardInput,
}

impl Source {
    /// For people.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::StandardInput => "standard input".to_owned(),
        }
    }

    /// How many bytes there are, where that is known.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::File(path) => std::fs::metadata(path).ok().filter(|found| found.is_file()).map(|found| found.len()),
            Self::StandardInput => None,
        }
    }

    /// Whether it can be read again from its beginning.
    pub(super) fn is_repeatable(&self) -> bool {
        self.bytes().is_some()
    }

    /// Its content, inflated if it is compressed with gzip.
    pub(super) fn open(&self, on_read: &OnRead) -> io::Result<Content> {
        let source: Box<dyn Read> = match self {
            Self::File(path) => {
                let file = File::open(path)?;
                if file.metadata()?.is_dir() {
                    return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder; a file is expected"));
                }
                Box::new(file)
            }
            Self::StandardInput => Box::new(io::stdin()),
        };
        let mut source =
            BufReader::with_capacity(BUFFER_BYTES, Metered { source, read: 0, on_read: Arc::clone(on_read) });
        let mut magic = Vec::new();
        source.by_ref().take(6).read_to_end(&mut magic)?;
        let is = |known: &[u8]| magic.starts_with(known);
        if let Some(name) = [(&b"\x28\xb5\x2f\xfd"[..], "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")]
            .into_iter()
            .find_map(|(known, name)| is(known).then_some(name))
        {
            let advice = format!("it is compressed with {name}: decompress it and pipe it to `event-tracker import -`");
            return Err(io::Error::new(io::ErrorKind::InvalidData, advice));
        }
        let is_gzip = is(b"\x1f\x8b");
        let source = Cursor::new(magic).chain(source);
        if is_gzip {
            return Content::new(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(source))));
        }
        Content::new(Box::new(source))
    }
}

struct Metered {
    source: Box<dyn Read>,
    read: u64,
    on_read: OnRead,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.read += length as u64;
        (self.on_read)(self.read);
        Ok(length)
    }
}

/// A place in a content.
#[derive(Clone, Default)]
struct Place {
    offset: u64,
    /// Line ends before it.
    lines: u64,
    last: Option<u8>,
    hasher: Sha256,
}

impl Place {
    fn pass(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.last = bytes.last().copied().or(self.last);
        self.hasher.update(bytes);
    }
}

/// How a line ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LineEnd {
    Whole,
    /// Its first bytes are given, the rest is passed over.
    TooLong,
    /// With the content, or where [`Content::stop_at`] said.
    Open,
}

pub(super) struct Content {
    source: Box<dyn BufRead>,
    place: Place,
    before_line: Place,
    stop: Option<u64>,
    is_empty: bool,
    /// Without its end.
    first_line: Vec<u8>,
}

impl Content {
    fn new(mut source: Box<dyn BufRead>) -> io::Result<Self> {
        let mut head = Vec::new();
        source.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut head)?;
        let (is_empty, first_line) = (head.is_empty(), without_end(&head).to_vec());
        let source = Box::new(Cursor::new(head).chain(source));
        Ok(Self { source, place: Place::default(), before_line: Place::default(), stop: None, is_empty, first_line })
    }

    /// What tells most logs apart; at most [`LINE_BYTES_MAX`] of it.
    pub(super) fn first_line(&self) -> &[u8] {
        &self.first_line
    }

    pub(super) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// How many bytes were read.
    pub(super) fn offset(&self) -> u64 {
        self.place.offset
    }

    /// How many lines have ended so far.
    pub(super) fn lines(&self) -> u64 {
        self.place.lines
    }

    /// Stands for everything that was read.
    pub(super) fn digest(&self) -> [u8; DIGEST_BYTES] {
        let hash = self.place.hasher.clone().finalize();
        std::array::from_fn(|index| hash[index])
    }

    /// Whether the last line that was read has no end yet.
    pub(super) fn is_within_line(&self) -> bool {
        self.place.last.is_some_and(|last| last != b'\n')
    }

    /// Reads up to a place, and says whether the content goes so far.
    pub(super) fn skip_to(&mut self, offset: u64) -> io::Result<bool> {
        while self.place.offset < offset {
            let bytes = self.source.fill_buf()?;
            let length = bytes.len().min(usize::try_from(offset - self.place.offset).unwrap_or(usize::MAX));
            if length == 0 {
                return Ok(false);
            }
            self.place.pass(&bytes[..length]);
            self.source.consume(length);
        }
        Ok(true)
    }

    /// Until further notice the content ends there.
    pub(super) fn stop_at(&mut self, offset: Option<u64>) {
        self.stop = offset;
    }

    /// The next line, without its end. `None`: there is none.
    pub(super) fn next_line(&mut self, line: &mut Vec<u8>) -> io::Result<Option<LineEnd>> {
        line.clear();
        self.before_line = self.place.clone();
        loop {
            let bytes = self.source.fill_buf()?;
            let left = self.stop.map_or(u64::MAX, |stop| stop.saturating_sub(self.place.offset));
            let bytes = &bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            if bytes.is_empty() {
                let is_nothing = self.place.offset == self.before_line.offset;
                let is_long = self.place.offset - self.before_line.offset > LINE_BYTES_MAX as u64;
                return Ok((!is_nothing).then_some(if is_long { LineEnd::TooLong } else { LineEnd::Open }));
            }
            let end = memchr::memchr(b'\n', bytes);
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            // One more than fits tells that it does not.
            line.extend_from_slice(&piece[..piece.len().min(LINE_BYTES_MAX + 1 - line.len())]);
            let length = end.map_or(bytes.len(), |end| end + 1);
            self.place.pass(&bytes[..length]);
            self.source.consume(length);
            if end.is_some() {
                let is_long = line.len() > LINE_BYTES_MAX;
                line.truncate(without_end(line).len());
                return Ok(Some(if is_long { LineEnd::TooLong } else { LineEnd::Whole }));
            }
        }
    }

    /// The last line counts as not read. Nothing more can be read then.
    pub(super) fn give_back_line(&mut self) {
        self.place = self.before_line.clone();
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    fn content(bytes: &[u8]) -> Content {
        Content::new(Box::new(BufReader::with_capacity(7, Cursor::new(bytes.to_vec())))).unwrap()
    }

    fn lines(content: &mut Content) -> Vec<(String, LineEnd)> {
        let (mut line, mut lines) = (Vec::new(), Vec::new());
        while let Some(end) = content.next_line(&mut line).unwrap() {
            lines.push((String::from_utf8_lossy(&line).into_owned(), end));
        }
        lines
    }

    #[test]
    fn lines_end_with_lf_or_crlf_and_the_last_one_perhaps_not() {
        let mut read = content(b"first line\r\n\nlast");
        assert_eq!(read.first_line(), b"first line");
        let expected = [("first line", LineEnd::Whole), ("", LineEnd::Whole), ("last", LineEnd::Open)];
        assert_eq!(lines(&mut read), expected.map(|(line, end)| (line.to_owned(), end)));
        assert_eq!((read.offset(), read.lines(), read.is_within_line()), (17, 2, true));
        let mut read = content(b"first line\r\n\nlast");
        while read.next_line(&mut Vec::new()).unwrap() != Some(LineEnd::Open) {}
        read.give_back_line();
        assert_eq!((read.offset(), read.lines(), read.is_within_line()), (17 - 4, 2, false));
        assert_eq!(read.digest(), {
            let mut other = content(b"first line\r\n\nother");
            assert!(other.skip_to(13).unwrap());
            other.digest()
        });
        assert_eq!(lines(&mut content(b"")), []);
    }

    #[test]
    fn a_long_line_is_passed_over_without_being_kept() {
        let long = [vec![b'x'; LINE_BYTES_MAX + 1], b"\nshort".to_vec()].concat();
        let mut read = content(&long);
        let mut line = Vec::new();
        assert_eq!(read.next_line(&mut line).unwrap(), Some(LineEnd::TooLong));
        assert!(line.capacity() < 4 * LINE_BYTES_MAX);
        assert_eq!(read.next_line(&mut line).unwrap(), Some(LineEnd::Open));
        assert_eq!(line, b"short");
        let mut read = content(&long[..LINE_BYTES_MAX]);
        assert_eq!(read.next_line(&mut line).unwrap(), Some(LineEnd::Open));
    }

    #[test]
    fn a_content_may_end_earlier_for_a_while() {
        let mut read = content(b"one\ntwo\n");
        read.stop_at(Some(6));
        assert_eq!(lines(&mut read), [("one".to_owned(), LineEnd::Whole), ("tw".to_owned(), LineEnd::Open)]);
        read.stop_at(None);
        assert_eq!(lines(&mut read), [("o".to_owned(), LineEnd::Whole)]);
        assert!(!read.skip_to(9).unwrap());
    }
}
