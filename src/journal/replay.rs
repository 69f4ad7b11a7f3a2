//! Reading segments back at start-up.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::record::{self, Record, Seed};
use super::segment::{self, HEADER_BYTES, Header};
use crate::domain::{BatchId, EventName, Hour};

/// A segment that was found in the folder, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replayed {
    pub id: BatchId,
    pub path: PathBuf,
    /// Sum of its records, by hour and event. Empty: nothing was counted in this batch.
    pub counts: BTreeMap<(Hour, EventName), u64>,
    pub records: u64,
    /// Bytes of a half-written record at the end, without zeros behind it. Nothing in them was acknowledged at level
    /// `journal` before a crash of the process, or at level `disk` before a power cut.
    pub torn_bytes: u64,
    pub damage: Option<Damage>,
}

/// Bytes that were complete once and can't be read: valid records follow them.
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
    Damaged { path: PathBuf, damage: Damage, records: u64, sum: u128 },
}

/// Reads all segments of a folder, ordered by writer and sequence. Changes nothing on disk.
///
/// # Errors
/// See [`ReplayError`]. Damage is an error unless `accept_damage`.
pub fn replay(dir: &Path, accept_damage: bool) -> Result<Vec<Replayed>, ReplayError> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir).map_err(|source| io_error(dir, source))? {
        let entry = entry.map_err(|source| io_error(dir, source))?;
        ids.extend(entry.file_name().to_str().and_then(segment::parse_file_name));
    }
    ids.sort_unstable();
    for pair in ids.windows(2) {
        // Segments are discarded in order, so those of one writer that are left are contiguous.
        if pair[0].writer == pair[1].writer && pair[0].seq.next() != pair[1].seq {
            let missing = BatchId { seq: pair[0].seq.next(), ..pair[0] };
            return Err(ReplayError::Missing { path: dir.join(segment::file_name(missing)) });
        }
    }
    ids.into_iter().map(|id| replay_segment(dir, id, accept_damage)).collect()
}

fn replay_segment(dir: &Path, id: BatchId, accept_damage: bool) -> Result<Replayed, ReplayError> {
    let path = dir.join(segment::file_name(id));
    let bytes = fs::read(&path).map_err(|source| io_error(&path, source))?;
    let mut replayed = Replayed { id, path, counts: BTreeMap::new(), records: 0, torn_bytes: 0, damage: None };
    match segment::read_header(&bytes, id) {
        Header::Valid(seed) => read_records(&bytes, seed, &mut replayed),
        Header::NewerVersion(version) => return Err(ReplayError::NewerVersion { path: replayed.path, version }),
        // A segment is used only after its header has been synced: a file that ends before its
        // header does was never used, a longer one was and is damaged.
        Header::Invalid(_) if bytes.len() as u64 <= HEADER_BYTES => replayed.torn_bytes = bytes.len() as u64,
        Header::Invalid(seed) => {
            replayed.damage = Some(Damage { offset: 0, unreadable_bytes: HEADER_BYTES });
            read_records(&bytes, seed, &mut replayed);
        }
    }
    match replayed.damage {
        Some(damage) if !accept_damage => {
            let sum = replayed.counts.values().map(|count| u128::from(*count)).sum();
            Err(ReplayError::Damaged { path: replayed.path, damage, records: replayed.records, sum })
        }
        _ => Ok(replayed),
    }
}

fn read_records(bytes: &[u8], seed: Seed, replayed: &mut Replayed) {
    let mut offset = HEADER_BYTES as usize;
    while offset < bytes.len() {
        match record::decode(&bytes[offset..], seed, offset as u64) {
            Some((Record::Counts { hour, counts }, length)) => {
                for (event, count) in counts {
                    *replayed.counts.entry((hour, event)).or_insert(0) += count;
                }
                replayed.records += 1;
                offset += length;
            }
            Some((Record::End, length)) => offset += length,
            None => {
                let next =
                    (offset + 1..bytes.len()).find(|&next| record::decode(&bytes[next..], seed, next as u64).is_some());
                let unreadable_bytes = (next.unwrap_or(bytes.len()) - offset) as u64;
                match next {
                    // The first damage is the one to report; later ones add to its size.
                    Some(next) => {
                        let damage =
                            replayed.damage.get_or_insert(Damage { offset: offset as u64, unreadable_bytes: 0 });
                        damage.unreadable_bytes += unreadable_bytes;
                        offset = next;
                    }
                    None => {
                        // Zeros at the end are room that was never used.
                        let torn = bytes[offset..].iter().rposition(|byte| *byte != 0);
                        replayed.torn_bytes = torn.map_or(0, |last| last as u64 + 1);
                        break;
                    }
                }
            }
        }
    }
}

fn io_error(path: &Path, source: io::Error) -> ReplayError {
    ReplayError::Io { path: path.to_owned(), source }
}
