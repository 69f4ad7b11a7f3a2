//! The bytes of one record: `length: u32 | crc32: u32 | payload`, little-endian.
//!
//! The checksum covers length and payload and is seeded with the segment's identity and the
//! record's offset, so bytes of another file or place never pass for a record.

use crate::domain::{EventName, Hour};

/// Version of the format; a segment's header carries it. Version 2 added [`Record::Synced`] and
/// [`Record::Base`].
pub const FORMAT_VERSION: u32 = 2;

/// Longest payload. Bounds what replay believes before it has checked a checksum.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// Bytes before the payload.
pub const FRAME_BYTES: usize = 8;

const KIND_COUNTS: u8 = 1;
const KIND_END: u8 = 2;
const KIND_SYNCED: u8 = 3;
const KIND_BASE: u8 = 4;

/// The kind and the hour of a `Counts` payload.
const COUNTS_HEAD_BYTES: usize = 5;
/// What a counter takes besides its name: the name's length and the count.
const COUNTER_BYTES: usize = 9;

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// Increments of one request (or of a snapshot), all in one hour.
    Counts { hour: Hour, counts: Vec<(EventName, u64)> },
    /// The segment was sealed here; no counts follow.
    End,
    /// All bytes before this offset of the segment were on disk when this was written. What can't be
    /// read before it is damage; what can't be read behind it never reached the disk.
    Synced(u64),
    /// The sum of all batches of this writer before this one.
    Base(i128),
}

/// Seeds the checksums of one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(pub u32);

impl Seed {
    fn checksum(self, offset: u64, length: [u8; 4], payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        // Together: each update has a cost of its own.
        let mut head = [0; 12];
        head[..8].copy_from_slice(&offset.to_le_bytes());
        head[8..].copy_from_slice(&length);
        hasher.update(&head);
        hasher.update(payload);
        hasher.finalize()
    }
}

/// Appends one `Counts` record to `bytes`; it will stand at `offset` of its segment.
pub fn encode_counts<'a>(
    bytes: &mut Vec<u8>,
    seed: Seed,
    offset: u64,
    hour: Hour,
    counts: impl IntoIterator<Item = (&'a str, u64)>,
) {
    encode(bytes, seed, offset, |bytes| {
        bytes.push(KIND_COUNTS);
        bytes.extend_from_slice(&hour.number().to_le_bytes());
        for (event, count) in counts {
            // An EventName is at most 255 bytes long.
            bytes.push(event.len() as u8);
            bytes.extend_from_slice(event.as_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
        }
    });
}

/// Appends as few `Counts` records as hold all of `counts`; the first will stand at `offset`.
pub fn encode_all<'a>(
    bytes: &mut Vec<u8>,
    seed: Seed,
    offset: u64,
    hour: Hour,
    counts: impl IntoIterator<Item = (&'a str, u64)>,
) {
    let start = bytes.len();
    let mut counts = counts.into_iter().peekable();
    while counts.peek().is_some() {
        let mut payload_bytes = COUNTS_HEAD_BYTES;
        let fitting = std::iter::from_fn(|| {
            counts.next_if(|(event, _)| {
                payload_bytes += COUNTER_BYTES + event.len();
                payload_bytes <= PAYLOAD_BYTES_MAX
            })
        });
        let offset = offset + (bytes.len() - start) as u64;
        encode_counts(bytes, seed, offset, hour, fitting);
    }
}

/// Appends the record that ends a sealed segment.
pub fn encode_end(bytes: &mut Vec<u8>, seed: Seed, offset: u64) {
    encode(bytes, seed, offset, |bytes| bytes.push(KIND_END));
}

/// Appends the note that the segment's first `synced` bytes are on disk.
pub fn encode_synced(bytes: &mut Vec<u8>, seed: Seed, offset: u64, synced: u64) {
    encode(bytes, seed, offset, |bytes| {
        bytes.push(KIND_SYNCED);
        bytes.extend_from_slice(&synced.to_le_bytes());
    });
}

/// Appends the sum of all earlier batches of the segment's writer.
pub fn encode_base(bytes: &mut Vec<u8>, seed: Seed, offset: u64, base: i128) {
    encode(bytes, seed, offset, |bytes| {
        bytes.push(KIND_BASE);
        bytes.extend_from_slice(&base.to_le_bytes());
    });
}

fn encode(bytes: &mut Vec<u8>, seed: Seed, offset: u64, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; FRAME_BYTES]);
    payload(bytes);
    let payload_start = start + FRAME_BYTES;
    debug_assert!(bytes.len() - payload_start <= PAYLOAD_BYTES_MAX);
    let length = ((bytes.len() - payload_start) as u32).to_le_bytes();
    let checksum = seed.checksum(offset, length, &bytes[payload_start..]);
    bytes[start..start + 4].copy_from_slice(&length);
    bytes[start + 4..payload_start].copy_from_slice(&checksum.to_le_bytes());
}

/// How many bytes the record at the start of `bytes` takes, if one stands there. `None`: none can.
/// Cheap, for looking for a record where any bytes may stand.
#[must_use]
pub fn expected_bytes(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let fits = match *bytes.get(FRAME_BYTES)? {
        KIND_COUNTS => length >= COUNTS_HEAD_BYTES,
        KIND_END => length == 1,
        KIND_SYNCED => length == 9,
        KIND_BASE => length == 17,
        _ => false,
    };
    (fits && length <= PAYLOAD_BYTES_MAX).then_some(FRAME_BYTES + length)
}

/// Reads the record at the start of `bytes`, which stand at `offset` of their segment, and says how
/// many bytes it took. `None`: no valid record stands here.
#[must_use]
pub fn decode(bytes: &[u8], seed: Seed, offset: u64) -> Option<(Record, usize)> {
    let length_bytes: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    let length = u32::from_le_bytes(length_bytes) as usize;
    if length == 0 || length > PAYLOAD_BYTES_MAX {
        return None;
    }
    let checksum = u32::from_le_bytes(bytes.get(4..FRAME_BYTES)?.try_into().ok()?);
    let payload = bytes.get(FRAME_BYTES..FRAME_BYTES + length)?;
    if seed.checksum(offset, length_bytes, payload) != checksum {
        return None;
    }
    Some((decode_payload(payload)?, FRAME_BYTES + length))
}

/// The sum of the counts in `bytes`, whole records of which the first stands at `offset`.
#[must_use]
pub fn sum(mut bytes: &[u8], seed: Seed, mut offset: u64) -> u64 {
    let mut sum = 0_u64;
    while let Some((record, length)) = decode(bytes, seed, offset) {
        if let Record::Counts { counts, .. } = record {
            sum = counts.iter().fold(sum, |sum, (_, count)| sum.saturating_add(*count));
        }
        (bytes, offset) = (&bytes[length..], offset + length as u64);
    }
    sum
}

fn decode_payload(payload: &[u8]) -> Option<Record> {
    match payload.split_first()? {
        (&KIND_COUNTS, rest) => {
            let (hour, mut rest) = rest.split_at_checked(4)?;
            let hour = Hour::from_number(u32::from_le_bytes(hour.try_into().ok()?))?;
            let mut counts = Vec::new();
            while let Some((&length, after)) = rest.split_first() {
                let (name, after) = after.split_at_checked(length as usize)?;
                let (count, after) = after.split_at_checked(8)?;
                let event = EventName::parse(std::str::from_utf8(name).ok()?).ok()?;
                counts.push((event, u64::from_le_bytes(count.try_into().ok()?)));
                rest = after;
            }
            Some(Record::Counts { hour, counts })
        }
        (&KIND_END, []) => Some(Record::End),
        (&KIND_SYNCED, offset) => Some(Record::Synced(u64::from_le_bytes(offset.try_into().ok()?))),
        (&KIND_BASE, base) => Some(Record::Base(i128::from_le_bytes(base.try_into().ok()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = EventName> {
        "[^\\p{Cc}]{1,60}".prop_filter_map("a name", |text| EventName::parse(&text).ok())
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            offset in any::<u64>(),
            hour in 0u32..=Hour::MAX.number(),
            counts in prop::collection::vec((names(), any::<u64>()), 0..20),
        ) {
            let hour = Hour::from_number(hour).unwrap();
            let mut bytes = Vec::new();
            encode_counts(&mut bytes, Seed(7), offset, hour, counts.iter().map(|(event, count)| (event.as_str(), *count)));
            let length = bytes.len();
            bytes.extend_from_slice(b"what follows");
            prop_assert_eq!(decode(&bytes, Seed(7), offset), Some((Record::Counts { hour, counts }, length)));
            prop_assert_eq!(decode(&bytes, Seed(8), offset), None);
            prop_assert_eq!(decode(&bytes, Seed(7), offset.wrapping_add(1)), None);
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes, Seed(0), 0);
            let _ = decode_payload(&bytes);
        }
    }

    #[test]
    fn counters_beyond_one_record_are_split_over_several_and_all_are_read_back() {
        let hour = Hour::from_number(494_000).unwrap();
        let name = "n".repeat(255);
        let fits = (PAYLOAD_BYTES_MAX - COUNTS_HEAD_BYTES) / (COUNTER_BYTES + 255);
        for (counters, records) in [(0, 0), (1, 1), (fits, 1), (fits + 1, 2), (2 * fits + 1, 3)] {
            let mut bytes = b"before".to_vec();
            encode_all(&mut bytes, Seed(3), 100, hour, (1..=counters as u64).map(|count| (name.as_str(), count)));
            let (mut at, mut found, mut read) = (6, 0, Vec::new());
            while at < bytes.len() {
                let (Record::Counts { counts, .. }, length) =
                    decode(&bytes[at..], Seed(3), 100 + at as u64 - 6).unwrap()
                else {
                    panic!("no counts")
                };
                read.extend(counts.into_iter().map(|(_, count)| count));
                (at, found) = (at + length, found + 1);
            }
            assert_eq!((found, read), (records, (1..=counters as u64).collect()));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        encode_counts(&mut bytes, Seed(1), 40, Hour::from_number(494_000).unwrap(), [("login", 3), ("logout", 1)]);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged, Seed(1), 40), None, "bit {bit}");
        }
    }
}
