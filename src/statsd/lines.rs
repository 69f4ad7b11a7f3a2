//! Lines out of a stream that arrives in pieces, with a bound on what is kept of an unfinished one.

use super::refusal::Refusal;

/// A name, a count and generous tags.
pub(super) const LINE_BYTES_MAX: usize = 8 << 10;

#[derive(Default)]
pub(super) struct Lines {
    unfinished: Vec<u8>,
    /// The unfinished line is too long: the rest of it is passed over.
    is_too_long: bool,
}

impl Lines {
    /// Hands over each line that ends in `bytes`, or why there is none.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut on_line: impl FnMut(Result<&[u8], Refusal>)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let piece = &bytes[..end];
            bytes = &bytes[end + 1..];
            if self.is_too_long || self.unfinished.len() + piece.len() > LINE_BYTES_MAX {
                on_line(Err(Refusal::TooLong));
            } else if self.unfinished.is_empty() {
                on_line(Ok(piece));
            } else {
                self.unfinished.extend_from_slice(piece);
                on_line(Ok(&self.unfinished));
            }
            self.unfinished.clear();
            self.is_too_long = false;
        }
        if self.is_too_long || self.unfinished.len() + bytes.len() > LINE_BYTES_MAX {
            self.is_too_long = true;
            self.unfinished.clear();
        } else {
            self.unfinished.extend_from_slice(bytes);
        }
    }

    /// The stream has ended. `whole`: the sender has closed it, so what has no end is a line, too.
    pub(super) fn finish(self, whole: bool, on_line: impl FnOnce(Result<&[u8], Refusal>)) {
        if self.is_too_long {
            on_line(Err(Refusal::TooLong));
        } else if !self.unfinished.is_empty() {
            on_line(if whole { Ok(&self.unfinished) } else { Err(Refusal::Unfinished) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Line = Result<Vec<u8>, Refusal>;

    fn read(pieces: &[&[u8]], whole: bool) -> Vec<Line> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| found.push(line.map(<[u8]>::to_vec)));
            assert!(lines.unfinished.capacity() <= 2 * LINE_BYTES_MAX);
        }
        lines.finish(whole, |line| found.push(line.map(<[u8]>::to_vec)));
        found
    }

    #[test]
    fn lines_in_pieces_are_the_same_lines() {
        let expected: Vec<Line> = [&b"a:1|c"[..], b"", b"b:2|c"].map(|line| Ok(line.to_vec())).into();
        assert_eq!(read(&[b"a:1|c\n\nb:2|c"], true), expected);
        assert_eq!(read(&[b"a:", b"1|c", b"\n", b"\nb:2|c\n"], true), expected);
        assert_eq!(read(&[b"a:1|c\nb:2"], false), [Ok(b"a:1|c".to_vec()), Err(Refusal::Unfinished)]);
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory_and_the_next_one_is_read() {
        let long = vec![b'x'; 5_000];
        let pieces = [&long[..], &long, &long, b"\na:1|c\n", &long, &long];
        assert_eq!(read(&pieces, true), [Err(Refusal::TooLong), Ok(b"a:1|c".to_vec()), Err(Refusal::TooLong)]);
        let just = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(read(&[&just, b"\n"], true), [Ok(just.clone())]);
        assert_eq!(read(&[&just, b"x\n"], true), [Err(Refusal::TooLong)]);
    }
}
