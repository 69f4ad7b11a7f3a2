//! A `#` in the target of a request. hyper cuts it off with what follows, so that a client which forgot to
//! encode it would count another event. It is found in the bytes on their way to hyper, and made a byte
//! that hyper refuses.

/// What stands for `#`, for hyper: no target may hold it.
const REFUSED: u8 = 0;
const METHODS: [&[u8]; 8] = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"];
const METHOD_BYTES_MAX: usize = 7;

/// Where in a line the bytes of one connection have come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Line {
    #[default]
    Start,
    /// So many bytes, which may be the beginning of a method.
    Method([u8; METHOD_BYTES_MAX], usize),
    /// A method and a space.
    Space,
    Target,
    Rest,
}

impl Line {
    /// Takes the next bytes. `true`: in some of them was the target of a request with a `#`, which is no `#`
    /// any more.
    ///
    /// Lines of bodies are not told from those of heads. None that can be counted begins like a request line.
    pub(super) fn refuse_fragment(&mut self, bytes: &mut [u8]) -> bool {
        // Mostly there is none, and all lines are whole.
        if memchr::memchr(b'#', bytes).is_none() {
            let last = memchr::memrchr(b'\n', bytes).map(|at| at + 1);
            if last.is_some() {
                *self = Self::Start;
            }
            bytes[last.unwrap_or(0)..].iter().for_each(|byte| self.take(*byte));
            return false;
        }
        let mut found = false;
        for byte in bytes {
            self.take(*byte);
            if *byte == b'#' && *self == Self::Target {
                *byte = REFUSED;
                found = true;
            }
        }
        found
    }

    fn take(&mut self, byte: u8) {
        *self = match (*self, byte) {
            (_, b'\n') => Self::Start,
            (Self::Start, b'\r') => Self::Start,
            (Self::Start, b'A'..=b'Z') => {
                let mut method = [0; METHOD_BYTES_MAX];
                method[0] = byte;
                Self::Method(method, 1)
            }
            (Self::Method(mut method, length), b'A'..=b'Z') if length < METHOD_BYTES_MAX => {
                method[length] = byte;
                Self::Method(method, length + 1)
            }
            (Self::Method(method, length), b' ') if METHODS.contains(&&method[..length]) => Self::Space,
            (Self::Space, b'/' | b'h' | b'H') => Self::Target,
            (Self::Target, b' ') => Self::Rest,
            (Self::Target, _) => Self::Target,
            _ => Self::Rest,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pieces of this length: whether one was found, and what came through.
    fn passed(text: &str, piece: usize) -> (bool, Vec<u8>) {
        let mut bytes = text.as_bytes().to_vec();
        let mut line = Line::default();
        let found: Vec<bool> = bytes.chunks_mut(piece).map(|piece| line.refuse_fragment(piece)).collect();
        (found.contains(&true), bytes)
    }

    #[test]
    fn a_hash_in_a_target_is_found_however_the_bytes_come() {
        for text in [
            "POST /api/events/a#b HTTP/1.1\r\n",
            "\r\nGET /#?q HTTP/1.1\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b# HTTP/1.1\r\n",
            "OPTIONS http://x/#\r\n",
        ] {
            for piece in 1..text.len() + 1 {
                let (found, bytes) = passed(text, piece);
                assert!(found && !bytes.contains(&b'#'), "{text:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_hash_anywhere_else_passes_unchanged() {
        for text in [
            "GET /a HTTP/1.1\r\nReferer: http://x/#top\r\nX-Color: #fff\r\n\r\n",
            "POST /api/events HTTP/1.1\r\n\r\n[\"a#b\"]",
            "\"a#b\"\n{\"event\":\"POST /#\"}\nPOSTING /#\nPOST a#\n",
        ] {
            for piece in 1..text.len() + 1 {
                assert_eq!(passed(text, piece), (false, text.as_bytes().to_vec()), "pieces of {piece}");
            }
        }
    }
}
