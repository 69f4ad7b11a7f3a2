//! Whatever is in the body of a batch, it is read to its end, and lines that arrive in pieces are the same lines.

use bolero::check;

use super::parse::{Lines, document};
use super::tally::Tally;
use crate::mangled::{Edit, mangled};

const DOCUMENTS: [&[u8]; 4] = [
    br#"{"events":["a",{"event":"b","count":7},{"event":"c"}]}"#,
    br#"["a",{"count":1000000000,"event":"\u00e4\ud83d\ude00"},{"event":"a","count":0}]"#,
    b"{\"events\":[{\"event\":\"a\",\"count\":1,\"x\":[[[]]]},null,-1.5e3,true]}",
    b"\"a\"\n{\"event\":\"b\",\"count\":2}\r\n\n{\"event\":\"c\"",
];

#[test]
fn a_document_of_any_bytes_is_read_or_refused() {
    check!().with_type::<(u8, Vec<Edit>)>().for_each(|(which, edits)| {
        let mut tally = Tally::default();
        let bytes = mangled(&DOCUMENTS, *which, edits);
        if document(&bytes, &mut tally).is_ok() {
            assert!(tally.accepted() + tally.rejected() <= bytes.len() as u64);
        }
    });
}

#[test]
fn lines_in_pieces_are_the_same_lines() {
    check!().with_type::<(u8, Vec<Edit>, u8)>().for_each(|(which, edits, piece)| {
        let bytes = mangled(&DOCUMENTS, *which, edits);
        let read = |piece_bytes: usize| {
            let mut lines = Lines::default();
            bytes.chunks(piece_bytes).for_each(|piece| lines.push(piece));
            lines.finish().ok().map(|tally| (tally.accepted(), tally.rejected(), tally.increments().count()))
        };
        assert_eq!(read(usize::from(*piece) + 1), read(bytes.len().max(1)));
    });
}
