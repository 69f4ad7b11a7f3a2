//! Whatever arrives, each line is counted or refused, and lines in pieces are the same lines.

use bolero::check;

use super::lines::Lines;
use super::parse::parse;
use crate::domain::NUM_MAX;
use crate::mangled::{Edit, mangled};

const LINES: [&[u8]; 4] =
    [b"page:3|c|@0.1|#a:b,c", b"a/b:1:2:3|c\nusers:7|s\n", "ä:+4.0|c|T1700000000\r\n".as_bytes(), b"_e{1,1}:a|b"];

#[test]
fn a_line_of_any_bytes_is_counted_or_refused() {
    check!().with_type::<(u8, Vec<Edit>, u8)>().for_each(|(which, edits, piece)| {
        let bytes = mangled(&LINES, *which, edits);
        if let Ok((_, count)) = parse(&bytes) {
            assert!((1..=NUM_MAX).contains(&count));
        }
        let read = |piece_bytes: usize| {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for piece in bytes.chunks(piece_bytes) {
                lines.push(piece, |line| found.push(line.map(<[u8]>::to_vec)));
            }
            lines.finish(true, |line| found.push(line.map(<[u8]>::to_vec)));
            found
        };
        assert_eq!(read(usize::from(*piece) + 1), read(bytes.len().max(1)));
    });
}
