//! Reading segments back.
//!
//! A power cut keeps any subset of the pages written since the last sync, so unreadable bytes with
//! valid records behind them are legal there: they are a torn tail, and the valid records are kept.
//! Before the last noted sync ([`Record::Synced`]) nothing may be missing: that is damage. Segments of
//! version 1 noted no syncs; in them, whatever has valid records behind it counts as damage.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::files::{FileHandle, Files};
use super::record::{self, FRAME_BYTES, Record};
use super::segment::{self, HEADER_BYTES, Header, Kind, Layout};
use crate::domain::{BatchId, BatchSeq, EventName, Hour};

/// A segment that was found in the folder, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replayed {
    pub id: BatchId,
    /// Sum of its records, by hour and event. Empty: nothing was counted in this batch.
    pub counts: BTreeMap<(Hour, EventName), u64>,
    pub records: u64,
    /// As in [`Layout::catalog`].
    pub catalog: Option<u64>,
    /// The sum of all earlier batches of the writer, if it was noted.
    pub base: Option<i128>,
    /// Bytes that never reached the disk as a whole, without zeros behind them. Nothing in them was acknowledged at
    /// level `journal` before a crash of the process, or at level `disk` before a power cut.
    pub torn_bytes: u64,
    pub damage: Option<Damage>,
    pub length: u64,
}

impl Replayed {
    #[must_use]
    pub fn total(&self) -> i128 {
        self.counts.values().map(|count| i128::from(*count)).sum()
    }
}

/// Bytes that were complete once and can't be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where the first unreadable byte stands.
    pub offset: u64,
    pub unreadable_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("can't read the journal {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the journal segment {path} can't be read at byte {offset}: copy it to a disk that can be read, \
         or set journal.accept_damage = true to go on with what is readable"
    )]
    Unreadable { path: PathBuf, offset: u64, source: io::Error },
    #[error(
        "the journal segment {path} was written by a newer version of this program (format {version}): start that version"
    )]
    NewerVersion { path: PathBuf, version: u32 },
    #[error("the journal segment {path} is missing although later ones of the same writer are there: put it back")]
    Missing { path: PathBuf },
    #[error(
        "the journal segment {path} is damaged: {} bytes from byte {} on can't be read, {records} records with {sum} counts can. \
         Put back an undamaged copy, or set journal.accept_damage = true to go on with what is readable",
        .damage.unreadable_bytes, .damage.offset
    )]
    Damaged { path: PathBuf, damage: Damage, records: u64, sum: i128 },
}

/// The segments of a folder, each kind ordered by writer and sequence.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub pending: Vec<BatchId>,
    pub committed: Vec<BatchId>,
    pub differing: Vec<BatchId>,
    /// Committed ones that have the names of pending ones.
    pub misnamed: Vec<BatchId>,
}

/// Lists the segments of a folder. Changes nothing.
///
/// # Errors
/// When the folder can't be read, or a segment is missing between others that wait for their commits.
pub fn find(files: &dyn Files) -> Result<Found, ReplayError> {
    find_unconfirmed(files, |_| false)
}

/// The same, where segments are known to be committed whatever their names say: a power cut may bring an
/// earlier name back.
///
/// # Errors
/// As [`find`].
pub fn find_unconfirmed(files: &dyn Files, is_confirmed: impl Fn(BatchId) -> bool) -> Result<Found, ReplayError> {
    let mut found = Found::default();
    let names = files.list().map_err(|source| ReplayError::Io { path: files.path_of(""), source })?;
    for (id, kind) in names.iter().filter_map(|name| segment::parse_file_name(name)) {
        match kind {
            Kind::Pending if is_confirmed(id) => found.misnamed.push(id),
            Kind::Pending => found.pending.push(id),
            Kind::Committed => found.committed.push(id),
            Kind::Differing => found.differing.push(id),
        }
    }
    found.pending.sort_unstable();
    found.committed.sort_unstable();
    found.differing.sort_unstable();
    for pair in found.pending.windows(2) {
        // Segments leave in order, so those of one writer that wait are contiguous.
        if pair[0].writer != pair[1].writer {
            continue;
        }
        // But a power cut may undo the renaming of one and not that of the next.
        let is_retired = |id: &BatchId| found.committed.contains(id) || found.differing.contains(id);
        let mut between = (pair[0].seq.0 + 1..pair[1].seq.0).map(|seq| BatchId { seq: BatchSeq(seq), ..pair[0] });
        if let Some(missing) = between.find(|id| !is_retired(id)) {
            return Err(ReplayError::Missing { path: files.path_of(&segment::file_name(missing, Kind::Pending)) });
        }
    }
    Ok(found)
}

/// Reads one segment. Changes nothing on disk.
///
/// # Errors
/// See [`ReplayError`]. Damage is an error unless `accept_damage`, and so are bytes that the disk
/// can't read.
pub fn replay(files: &dyn Files, id: BatchId, kind: Kind, accept_damage: bool) -> Result<Replayed, ReplayError> {
    let name = segment::file_name(id, kind);
    let io_error = |source| ReplayError::Io { path: files.path_of(&name), source };
    let file = files.open(&name).map_err(io_error)?;
    let length = file.length().map_err(io_error)?;
    let mut reader = Reader::new(file, length, accept_damage);
    let (replayed, newer) = read_file(&mut reader, id).map_err(|source| match reader.failed_at {
        Some(offset) => ReplayError::Unreadable { path: files.path_of(&name), offset, source },
        None => io_error(source),
    })?;
    if let Some(version) = newer {
        return Err(ReplayError::NewerVersion { path: files.path_of(&name), version });
    }
    match replayed.damage {
        Some(damage) if !accept_damage => Err(ReplayError::Damaged {
            path: files.path_of(&name),
            damage,
            records: replayed.records,
            sum: replayed.total(),
        }),
        _ => Ok(replayed),
    }
}

/// What it holds, and the version of its format if this program does not know that.
fn read_file(reader: &mut Reader, id: BatchId) -> io::Result<(Replayed, Option<u32>)> {
    let length = reader.length;
    let mut replayed = Replayed {
        id,
        counts: BTreeMap::new(),
        records: 0,
        catalog: None,
        base: None,
        torn_bytes: 0,
        damage: None,
        length,
    };
    let first = reader.bytes(0, HEADER_BYTES as usize)?.to_vec();
    match segment::read_header(&first, id) {
        Header::NewerVersion(version) => return Ok((replayed, Some(version))),
        // A segment is used only after its header has been synced: a file that ends before its
        // header does was never used, a longer one was and is damaged.
        Header::Invalid(layout) if length <= layout.header_bytes => replayed.torn_bytes = length,
        Header::Invalid(layout) => {
            replayed.catalog = layout.catalog;
            read_records(reader, layout, vec![(0, layout.header_bytes)], &mut replayed)?;
        }
        Header::Valid(layout) => {
            replayed.catalog = layout.catalog;
            read_records(reader, layout, Vec::new(), &mut replayed)?;
        }
    }
    Ok((replayed, None))
}

/// `gaps`: what could not be read so far, as offset and length.
fn read_records(
    reader: &mut Reader,
    layout: Layout,
    mut gaps: Vec<(u64, u64)>,
    replayed: &mut Replayed,
) -> io::Result<()> {
    let damaged_header = !gaps.is_empty();
    let (mut offset, mut synced, mut last_valid) = (layout.header_bytes, 0, layout.header_bytes);
    while offset < reader.length {
        let Some((record, length)) = reader.record(offset, layout)? else {
            let next = reader.next_record(offset + 1, layout)?;
            gaps.push((offset, next.unwrap_or(reader.length) - offset));
            offset = next.unwrap_or(reader.length);
            continue;
        };
        match record {
            Record::Counts { hour, counts } => {
                for (event, count) in counts {
                    *replayed.counts.entry((hour, event)).or_insert(0) += count;
                }
                replayed.records += 1;
            }
            Record::End => {}
            Record::Synced(through) => synced = synced.max(through),
            Record::Base(base) => replayed.base = Some(base),
        }
        offset += length;
        last_valid = offset;
    }
    if layout.version == 1 {
        // Whatever has valid records behind it was complete once.
        synced = last_valid;
    }
    if reader.length < synced {
        gaps.push((reader.length, synced - reader.length));
    }
    for (start, length) in gaps {
        let is_damage = start < synced || reader.is_unreadable(start, length) || (damaged_header && start == 0);
        if is_damage {
            let damage = replayed.damage.get_or_insert(Damage { offset: start, unreadable_bytes: 0 });
            damage.unreadable_bytes += length;
        } else {
            replayed.torn_bytes += reader.written_bytes(start, length)?;
        }
    }
    Ok(())
}

/// Reads a file piece by piece: a segment may be larger than memory.
struct Reader {
    file: Arc<dyn FileHandle>,
    length: u64,
    /// Skip what the disk can't read.
    skip_unreadable: bool,
    /// Blocks that the disk could not read; they read as zeros.
    unreadable: Vec<u64>,
    /// The first of them, if that is an error.
    failed_at: Option<u64>,
    /// Where `piece` stands in the file.
    start: u64,
    piece: Vec<u8>,
}

const PIECE_BYTES: usize = 1 << 20;
const BLOCK_BYTES: usize = 4096;

impl Reader {
    fn new(file: Arc<dyn FileHandle>, length: u64, skip_unreadable: bool) -> Self {
        Self { file, length, skip_unreadable, unreadable: Vec::new(), failed_at: None, start: 0, piece: Vec::new() }
    }

    /// `count` bytes from `offset` on; fewer where the file ends.
    fn bytes(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let count = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX).min(count);
        let end = offset + count as u64;
        if offset < self.start || end > self.start + self.piece.len() as u64 {
            let wanted = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.load(offset, wanted.min(count.max(PIECE_BYTES)))?;
        }
        let from = (offset - self.start) as usize;
        let to = (from + count).min(self.piece.len());
        Ok(self.piece.get(from..to).unwrap_or_default())
    }

    fn load(&mut self, offset: u64, count: usize) -> io::Result<()> {
        (self.start, self.piece) = (offset, vec![0; count]);
        let mut read = 0;
        while read < count {
            let at = offset + read as u64;
            match self.file.read_at(&mut self.piece[read..], at) {
                Ok(0) => {
                    self.piece.truncate(read);
                    self.length = at;
                    return Ok(());
                }
                Ok(length) => read += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // One bad sector fails the whole request, so the rest is asked for block by block.
                Err(_) => {
                    let end = (read + BLOCK_BYTES - at as usize % BLOCK_BYTES).min(count);
                    match self.file.read_at(&mut self.piece[read..end], at) {
                        Ok(length @ 1..) => read += length,
                        Err(error) if !self.skip_unreadable => {
                            self.failed_at = Some(at);
                            return Err(error);
                        }
                        _ => {
                            self.unreadable.push(at);
                            read = end;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, offset: u64, layout: Layout) -> io::Result<Option<(Record, u64)>> {
        let Some(length) = record::expected_bytes(self.bytes(offset, FRAME_BYTES + 1)?) else { return Ok(None) };
        if offset + length as u64 > self.length {
            return Ok(None);
        }
        let decoded = record::decode(self.bytes(offset, length)?, layout.seed, offset);
        Ok(decoded.map(|(record, length)| (record, length as u64)))
    }

    /// Where the next valid record stands, from `offset` on.
    fn next_record(&mut self, mut offset: u64, layout: Layout) -> io::Result<Option<u64>> {
        while offset < self.length {
            let piece = self.bytes(offset, BLOCK_BYTES)?;
            // A record begins with its length, which has a byte that is not zero within four.
            let zeros = piece.iter().take_while(|byte| **byte == 0).count() as u64;
            if zeros > 3 {
                offset += zeros - 3;
                continue;
            }
            if self.record(offset, layout)?.is_some() {
                return Ok(Some(offset));
            }
            offset += 1;
        }
        Ok(None)
    }

    fn is_unreadable(&self, start: u64, length: u64) -> bool {
        // A record may end in such a block: zeros may be what stood there.
        let end = |at: u64| at - at % BLOCK_BYTES as u64 + BLOCK_BYTES as u64;
        self.unreadable.iter().any(|at| *at < start + length && start < end(*at))
    }

    /// How many of these bytes stand before the last one that is not zero: zeros at the end are room
    /// that was never used.
    fn written_bytes(&mut self, start: u64, length: u64) -> io::Result<u64> {
        let mut written = 0;
        let mut offset = start;
        while offset < (start + length).min(self.length) {
            let count = PIECE_BYTES.min((start + length - offset) as usize);
            let piece = self.bytes(offset, count)?;
            if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
                written = offset - start + last as u64 + 1;
            }
            offset += piece.len().max(1) as u64;
        }
        Ok(written)
    }
}
