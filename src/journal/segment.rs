//! One file of the journal: a header, then records. It belongs to exactly one batch, and its name
//! says which.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::record::{self, FORMAT_VERSION, Seed};
use crate::domain::{BatchId, BatchSeq, Hour, WriterId};

const MAGIC: &[u8; 8] = b"EVTJOURN";

/// magic 8, version 4, writer 16, seq 8, crc32 of all that 4.
pub const HEADER_BYTES: u64 = 40;

/// Records of a snapshot are cut at this payload size.
const SNAPSHOT_RECORD_BYTES: usize = 1 << 20;

/// A segment open for appending.
pub struct Segment {
    pub id: BatchId,
    pub path: PathBuf,
    pub file: File,
    pub seed: Seed,
}

/// `{writer}-{seq}.journal`: sorts by writer, then by sequence.
#[must_use]
pub fn file_name(id: BatchId) -> String {
    format!("{}-{:020}.journal", id.writer, id.seq.0)
}

/// The inverse of [`file_name`]; `None` for any other file.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<BatchId> {
    let (writer, seq) = name.strip_suffix(".journal")?.split_once('-')?;
    let id = BatchId { writer: WriterId::parse(writer)?, seq: BatchSeq(seq.parse().ok()?) };
    (file_name(id) == name).then_some(id)
}

/// The header of a segment, and the seed of its records' checksums.
fn header(id: BatchId) -> ([u8; HEADER_BYTES as usize], Seed) {
    let mut bytes = [0; HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..28].copy_from_slice(&id.writer.0);
    bytes[28..36].copy_from_slice(&id.seq.0.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..36]);
    bytes[36..].copy_from_slice(&checksum.to_le_bytes());
    (bytes, Seed(checksum))
}

/// What the first bytes of a file say.
#[derive(PartialEq, Eq, Debug)]
pub enum Header {
    Valid(Seed),
    /// Shorter than a header or damaged; the seed it would have given.
    Invalid(Seed),
    /// Written by a later version of this program.
    NewerVersion(u32),
}

/// Checks the header of the file that is named after `id`.
#[must_use]
pub fn read_header(bytes: &[u8], id: BatchId) -> Header {
    let (expected, seed) = header(id);
    if bytes.get(..HEADER_BYTES as usize) == Some(expected.as_slice()) {
        return Header::Valid(seed);
    }
    let version = bytes.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    if bytes.starts_with(MAGIC) && version > FORMAT_VERSION {
        Header::NewerVersion(version)
    } else {
        Header::Invalid(seed)
    }
}

impl Segment {
    /// Creates the empty segment of a batch; file and folder are synced before it is used, so that
    /// no acknowledged record can stand in a file that a power cut forgets.
    ///
    /// # Errors
    /// When the file exists already or the disk says no.
    pub fn create(dir: &Path, id: BatchId) -> io::Result<Self> {
        let path = dir.join(file_name(id));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let (header, seed) = header(id);
        let written = file.write_all_at(&header, 0).and_then(|()| file.sync_all()).and_then(|()| sync_dir(dir));
        if let Err(error) = written {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self { id, path, file, seed })
    }

    /// Writes a complete segment that holds just `counts` (sorted by hour) and puts it in the place
    /// of the batch's segment, if there is one: written aside, synced, renamed, folder synced.
    /// `ended`: nothing will be appended. Returns the segment and its length in bytes.
    ///
    /// # Errors
    /// When the disk says no; then the old segment stands as it was.
    pub fn rewrite(dir: &Path, id: BatchId, counts: &[(&str, Hour, u64)], ended: bool) -> io::Result<(Self, u64)> {
        let (header, seed) = header(id);
        let mut bytes = header.to_vec();
        for of_hour in counts.chunk_by(|a, b| a.1 == b.1) {
            for chunk in of_hour.chunks(SNAPSHOT_RECORD_BYTES / 300) {
                let offset = bytes.len() as u64;
                let entries = chunk.iter().map(|(event, _, count)| (*event, *count));
                record::encode_counts(&mut bytes, seed, offset, chunk[0].1, entries);
            }
        }
        if ended {
            let offset = bytes.len() as u64;
            record::encode_end(&mut bytes, seed, offset);
        }
        let path = dir.join(file_name(id));
        let aside = path.with_extension("rewrite");
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&aside)?;
        let placed =
            file.write_all_at(&bytes, 0).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&aside, &path));
        if let Err(error) = placed {
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        sync_dir(dir)?;
        Ok((Self { id, path, file, seed }, bytes.len() as u64))
    }
}

/// Makes the names in a folder durable.
///
/// # Errors
/// When the folder can't be opened or synced.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;

    #[test]
    fn file_names_are_read_back_and_others_are_not_taken_for_one() {
        let id = BatchId { writer: WriterId([0xab; 16]), seq: BatchSeq(42) };
        let name = file_name(id);
        assert_eq!(parse_file_name(&name), Some(id));
        for other in ["LOCK", "x.journal", &name.to_uppercase(), &format!("{name}~"), &name.replace("0042", "42")] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_is_valid_for_its_own_batch_only() {
        let id = BatchId { writer: WriterId([1; 16]), seq: BatchSeq(1) };
        let (mut bytes, seed) = header(id);
        assert_eq!(read_header(&bytes, id), Header::Valid(seed));
        assert_eq!(
            read_header(&bytes, BatchId { seq: BatchSeq(2), ..id }),
            Header::Invalid(header(BatchId { seq: BatchSeq(2), ..id }).1)
        );
        assert_eq!(read_header(&bytes[..39], id), Header::Invalid(seed));
        bytes[8] = 2;
        assert_eq!(read_header(&bytes, id), Header::NewerVersion(2));
    }
}
