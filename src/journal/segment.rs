//! One file of the journal: a header, then records. It belongs to exactly one batch, and its name
//! says which.

use std::io;
use std::sync::Arc;

use super::files::{FileHandle, Files, remove_if_there};
use super::record::{self, FORMAT_VERSION, Seed};
use crate::domain::{BatchId, BatchSeq, Hour, WriterId};

const MAGIC: &[u8; 8] = b"EVTJOURN";

/// magic 8, version 4, writer 16, seq 8, catalog 8, crc32 of all that 4.
pub const HEADER_BYTES: u64 = 48;
/// Version 1 had no catalog.
pub(super) const HEADER_BYTES_V1: u64 = 40;
/// What the seed of the records' checksums is made of: it follows from the file's name, so that
/// records behind a damaged header can still be read.
const SEED_BYTES: usize = 36;

/// As much of a file is used anew: to be written over once more than needed.
const RECYCLED_BYTES_MAX: u64 = 64 << 10;

/// Records of a rewritten segment are cut at this payload size.
const REWRITE_RECORD_BYTES: usize = 1 << 20;

/// A segment open for appending.
pub struct Segment {
    pub id: BatchId,
    pub file: Arc<dyn FileHandle>,
    pub seed: Seed,
    /// How far the file reaches: behind what is written there are zeros.
    pub room: u64,
}

/// What a file of the journal's folder is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Its batch is not known to be in the store.
    Pending,
    /// Its batch is in the store. Kept for a while, to be delivered again should the store lose it.
    Committed,
    /// The store holds another batch under its identity. Kept until somebody has looked.
    Differing,
}

impl Kind {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Pending, "journal"), (Self::Committed, "committed"), (Self::Differing, "differing")];
}

/// `{writer}-{seq}.{kind}`: sorts by writer, then by sequence.
#[must_use]
pub fn file_name(id: BatchId, kind: Kind) -> String {
    let extension = Kind::ALL.iter().find(|(known, _)| *known == kind).map_or("", |(_, extension)| extension);
    format!("{}-{:020}.{extension}", id.writer, id.seq.0)
}

/// The inverse of [`file_name`]; `None` for any other file.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<(BatchId, Kind)> {
    let (stem, extension) = name.rsplit_once('.')?;
    let (kind, _) = *Kind::ALL.iter().find(|(_, known)| *known == extension)?;
    let (writer, seq) = stem.split_once('-')?;
    let id = BatchId { writer: WriterId::parse(writer)?, seq: BatchSeq(seq.parse().ok()?) };
    (file_name(id, kind) == name).then_some((id, kind))
}

fn header(id: BatchId, catalog: u64) -> ([u8; HEADER_BYTES as usize], Seed) {
    let mut bytes = [0; HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..28].copy_from_slice(&id.writer.0);
    bytes[28..36].copy_from_slice(&id.seq.0.to_le_bytes());
    bytes[36..44].copy_from_slice(&catalog.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..44]);
    bytes[44..].copy_from_slice(&checksum.to_le_bytes());
    (bytes, seed(id, FORMAT_VERSION))
}

fn seed(id: BatchId, version: u32) -> Seed {
    let mut bytes = [0; SEED_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[12..28].copy_from_slice(&id.writer.0);
    bytes[28..].copy_from_slice(&id.seq.0.to_le_bytes());
    Seed(crc32fast::hash(&bytes))
}

/// What the first bytes of a file say.
#[derive(PartialEq, Eq, Debug)]
pub enum Header {
    Valid(Layout),
    /// Shorter than a header or damaged; what it would have said.
    Invalid(Layout),
    /// Written by a later version of this program.
    NewerVersion(u32),
}

/// How the rest of the file is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub version: u32,
    /// Where the records begin.
    pub header_bytes: u64,
    pub seed: Seed,
    /// The version of the catalog that was known when the batch was opened; `None` in version 1.
    pub catalog: Option<u64>,
}

/// Checks the header of the file that is named after `id`; `bytes` are its first [`HEADER_BYTES`], or
/// all it has.
#[must_use]
pub fn read_header(bytes: &[u8], id: BatchId) -> Header {
    let number = |range: std::ops::Range<usize>| bytes.get(range).unwrap_or_default();
    let version = number(8..12).try_into().map_or(0, u32::from_le_bytes);
    let ours = bytes.starts_with(MAGIC);
    if ours && version == 1 {
        let seed = seed(id, 1);
        let layout = Layout { version, header_bytes: HEADER_BYTES_V1, seed, catalog: None };
        // In version 1 the seed was the header's checksum.
        let is_valid = number(12..28) == id.writer.0
            && number(28..36) == id.seq.0.to_le_bytes()
            && number(36..40) == seed.0.to_le_bytes();
        return if is_valid { Header::Valid(layout) } else { Header::Invalid(layout) };
    }
    let catalog = number(36..44).try_into().map_or(0, u64::from_le_bytes);
    let (expected, seed) = header(id, catalog);
    let layout = Layout { version: FORMAT_VERSION, header_bytes: HEADER_BYTES, seed, catalog: Some(catalog) };
    if number(0..HEADER_BYTES as usize) == expected {
        Header::Valid(layout)
    } else if ours && version > FORMAT_VERSION {
        Header::NewerVersion(version)
    } else {
        Header::Invalid(Layout { catalog: Some(0), ..layout })
    }
}

impl Segment {
    /// Creates the empty segment of a batch; file and folder are synced before it is used, so that
    /// no acknowledged record can stand in a file that a power cut forgets. Each identity is used once, so
    /// a file of this name was left behind by an attempt that failed.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn create(files: &dyn Files, id: BatchId, catalog: u64) -> io::Result<Self> {
        let name = file_name(id, Kind::Pending);
        let file = match files.create(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_if_there(files, &name)?;
                files.create(&name)?
            }
            created => created?,
        };
        let (header, seed) = header(id, catalog);
        let written = file.write_at(&header, 0).and_then(|()| file.sync());
        if let Err(error) = written {
            let _ = files.remove(&name);
            return Err(error);
        }
        Ok(Self { id, file, seed, room: HEADER_BYTES })
    }

    /// The same in the file `spare`, which nobody needs any more. It keeps its number and its blocks: to make and
    /// to free those costs a file system more than to write over them, most of all where one file follows another
    /// (ext4 without a journal looks at every file number that was freed within minutes).
    ///
    /// Nothing of the old contents stays, and the new name is given last: a file of that name with another
    /// header would pass for a damaged segment.
    ///
    /// # Errors
    /// When the disk says no; then `spare` may be gone.
    pub fn recycle(files: &dyn Files, spare: &str, id: BatchId, catalog: u64) -> io::Result<Self> {
        let name = file_name(id, Kind::Pending);
        let aside = format!("{name}.rewrite");
        files.rename(spare, &aside)?;
        let (header, seed) = header(id, catalog);
        let written = files.open(&aside).and_then(|file| {
            let length = file.length()?;
            if length > RECYCLED_BYTES_MAX {
                file.set_length(RECYCLED_BYTES_MAX)?;
            }
            let room = length.clamp(HEADER_BYTES, RECYCLED_BYTES_MAX);
            let mut bytes = vec![0; usize::try_from(room).map_err(io::Error::other)?];
            bytes[..header.len()].copy_from_slice(&header);
            file.write_at(&bytes, 0)?;
            file.sync()?;
            files.rename(&aside, &name)?;
            Ok(Self { id, file, seed, room })
        });
        written.inspect_err(|_| drop(files.remove(&aside)))
    }

    /// Writes a complete segment that holds just `contents` and puts it in the place of the batch's
    /// segment, if there is one: written aside, synced, renamed. The folder is still to be synced.
    /// Returns the segment and its length in bytes.
    ///
    /// # Errors
    /// When the disk says no; then the old segment stands as it was.
    pub fn rewrite(files: &dyn Files, id: BatchId, contents: &Contents<'_>) -> io::Result<(Self, u64)> {
        let (header, seed) = header(id, contents.catalog);
        let mut bytes = header.to_vec();
        let offset = |bytes: &Vec<u8>| bytes.len() as u64;
        if let Some(base) = contents.base {
            let at = offset(&bytes);
            record::encode_base(&mut bytes, seed, at, base);
        }
        for of_hour in contents.counts.chunk_by(|a, b| a.1 == b.1) {
            for chunk in of_hour.chunks(REWRITE_RECORD_BYTES / 300) {
                let entries = chunk.iter().map(|(event, _, count)| (*event, *count));
                let at = offset(&bytes);
                record::encode_counts(&mut bytes, seed, at, chunk[0].1, entries);
            }
        }
        if contents.ended {
            let at = offset(&bytes);
            record::encode_end(&mut bytes, seed, at);
        }
        let aside = format!("{}.rewrite", file_name(id, Kind::Pending));
        remove_if_there(files, &aside)?;
        let placed = files.create(&aside).and_then(|file| {
            file.write_at(&bytes, 0)?;
            file.sync()?;
            let synced = offset(&bytes);
            record::encode_synced(&mut bytes, seed, synced, synced);
            file.write_at(&bytes[synced as usize..], synced)?;
            files.rename(&aside, &file_name(id, Kind::Pending))?;
            Ok(file)
        });
        match placed {
            Ok(file) => Ok((Self { id, file, seed, room: offset(&bytes) }, offset(&bytes))),
            Err(error) => {
                let _ = files.remove(&aside);
                Err(error)
            }
        }
    }
}

/// What a rewritten segment holds.
pub struct Contents<'a> {
    /// As in [`Layout::catalog`].
    pub catalog: u64,
    pub base: Option<i128>,
    /// Sorted by hour.
    pub counts: &'a [(&'a str, Hour, u64)],
    /// Nothing will be appended.
    pub ended: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;

    #[test]
    fn file_names_are_read_back_and_others_are_not_taken_for_one() {
        let id = BatchId { writer: WriterId([0xab; 16]), seq: BatchSeq(42) };
        for (kind, _) in Kind::ALL {
            assert_eq!(parse_file_name(&file_name(id, kind)), Some((id, kind)));
        }
        let name = file_name(id, Kind::Pending);
        for other in ["LOCK", "x.journal", &name.to_uppercase(), &format!("{name}~"), &name.replace("0042", "42")] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_is_valid_for_its_own_batch_only() {
        let id = BatchId { writer: WriterId([1; 16]), seq: BatchSeq(1) };
        let (mut bytes, _) = header(id, 7);
        assert!(matches!(read_header(&bytes, id), Header::Valid(layout) if layout.catalog == Some(7)));
        assert!(matches!(read_header(&bytes, BatchId { seq: BatchSeq(2), ..id }), Header::Invalid(_)));
        assert!(matches!(read_header(&bytes[..47], id), Header::Invalid(_)));
        bytes[8] = 3;
        assert_eq!(read_header(&bytes, id), Header::NewerVersion(3));
    }
}
