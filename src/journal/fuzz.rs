//! Whatever is in a file of the journal, its parsers neither panic nor take more than there is.

use bolero::check;

use super::record::{Record, decode, encode_all, encode_end, encode_synced, expected_bytes, sum};
use super::segment::{self, Header, read_header};
use crate::domain::{BatchId, BatchSeq, Hour, WriterId};
use crate::mangled::{Edit, mangled};

const ID: BatchId = BatchId { writer: WriterId([7; 16]), seq: BatchSeq(1) };

fn layout() -> segment::Layout {
    match read_header(&[], ID) {
        Header::Invalid(layout) | Header::Valid(layout) => layout,
        Header::NewerVersion(version) => panic!("nothing is of version {version}"),
    }
}

fn records() -> Vec<u8> {
    let (seed, mut bytes) = (layout().seed, Vec::new());
    let hour = Hour::MAX;
    let names = ["a", "b/c", "ä"];
    encode_all(&mut bytes, seed, 0, hour, names.map(|name| (name, 3)));
    let offset = bytes.len() as u64;
    encode_synced(&mut bytes, seed, offset, 17);
    let offset = bytes.len() as u64;
    encode_end(&mut bytes, seed, offset);
    bytes
}

#[test]
fn records_of_any_bytes_take_no_more_than_there_is() {
    let (seed, right) = (layout().seed, records());
    check!().with_type::<(u8, Vec<Edit>)>().for_each(|(which, edits)| {
        let bytes = mangled(&[&right, b""], *which, edits);
        let (mut rest, mut offset) = (&bytes[..], 0);
        while let Some((record, length)) = decode(rest, seed, offset) {
            assert!(length <= rest.len() && expected_bytes(rest) == Some(length));
            if let Record::Counts { counts, .. } = record {
                assert!(counts.len() <= length);
            }
            (rest, offset) = (&rest[length..], offset + length as u64);
        }
        let _ = sum(&bytes, seed, 0);
    });
}

#[test]
fn headers_and_names_of_files_may_be_anything() {
    let name = segment::file_name(ID, segment::Kind::Committed);
    check!().with_type::<(u8, Vec<Edit>)>().for_each(|(which, edits)| {
        let bytes = mangled(&[name.as_bytes(), b"EVTJOURN\x03\0\0\0"], *which, edits);
        let _ = read_header(&bytes, ID);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((id, kind)) = segment::parse_file_name(&text) {
            assert_eq!(segment::file_name(id, kind), text);
        }
    });
}
