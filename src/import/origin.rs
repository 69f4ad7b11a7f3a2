//! How far a log was imported before.
//!
//! A log is a writer of the store like any other. Its identity is made of the log's first line, and the number
//! of a batch is the place in the content that the batch ends at: so the ledger says how far the log is
//! counted, and moves in the transaction that counts. In place of the digest of a batch's rows the ledger
//! keeps that of the whole content up to there, and of the options: so another log that begins with the same
//! line is told from this one, and gets the next identity.

use sha2::{Digest as _, Sha256};

use super::content::{Content, DIGEST_BYTES};
use super::{ImportError, Options, Source};
use crate::domain::{Digest, WriterId};
use crate::store::{LedgerPosition, Store, StoreError};

/// Logs that begin with the same line.
const CANDIDATES_MAX: usize = 64;
const ASKED_AT_ONCE: usize = 8;

/// A place that the ledger knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Mark {
    offset: u64,
    digest: [u8; 16],
}

/// One import that began with the same line.
struct Candidate {
    writer: WriterId,
    /// Where all partitions of the store are.
    start: u64,
    /// Where each of them is, in order.
    marks: Vec<Mark>,
}

/// Where an import goes on.
pub(super) struct Origin {
    pub(super) writer: WriterId,
    /// The content is read up to here, and no further.
    pub(super) start: u64,
    /// Here batches must end, since some partitions of the store have these already.
    pub(super) ends: Vec<u64>,
}

/// Of the content and the options.
pub(super) fn digest(content: &Content, options: &Options) -> Digest {
    let mut digest = [0; 16];
    digest[..DIGEST_BYTES].copy_from_slice(&content.digest());
    digest[DIGEST_BYTES..].copy_from_slice(&options.digest());
    Digest(digest)
}

fn writer(first_line: &[u8], number: usize) -> WriterId {
    let mut hasher = Sha256::new();
    hasher.update(b"event-tracker: an imported log");
    hasher.update((number as u64).to_le_bytes());
    hasher.update(first_line);
    let hash = hasher.finalize();
    WriterId(std::array::from_fn(|index| hash[index]))
}

/// The imports that began with this line, and the identity of the next one.
async fn candidates(store: &dyn Store, first_line: &[u8]) -> Result<(Vec<Candidate>, WriterId), ImportError> {
    let mut found = Vec::new();
    while found.len() < CANDIDATES_MAX {
        let numbers = found.len()..found.len() + ASKED_AT_ONCE;
        let writers: Vec<WriterId> = numbers.map(|number| writer(first_line, number)).collect();
        let position = super::patiently(|| store.position(writers.clone())).await?;
        for writer in writers {
            match candidate(store, &position, writer)? {
                Some(candidate) => found.push(candidate),
                None => return Ok((found, writer)),
            }
        }
    }
    Err(ImportError::TooManyAlike(CANDIDATES_MAX))
}

fn candidate(store: &dyn Store, position: &LedgerPosition, writer: WriterId) -> Result<Option<Candidate>, StoreError> {
    let entries = store.partitions().all().map(|partition| position.applied_in(partition).get(&writer));
    let entries: Vec<_> = entries.collect();
    let marks = entries.iter().flatten().map(|entry| {
        let digest = entry.digest.ok_or_else(|| StoreError::Rejected("an import without a digest".into()))?;
        Ok(Mark { offset: entry.last_seq.0, digest: digest.0 })
    });
    let mut marks = marks.collect::<Result<Vec<_>, StoreError>>()?;
    marks.sort_unstable();
    marks.dedup();
    let start = entries.iter().map(|entry| entry.map_or(0, |entry| entry.last_seq.0)).min().unwrap_or(0);
    Ok((!marks.is_empty()).then_some(Candidate { writer, start, marks }))
}

/// Finds out where to go on, and reads the content up to there. `reopen` gives it from its beginning.
pub(super) async fn find(
    store: &dyn Store,
    source: &Source,
    content: &mut Content,
    options: &Options,
    another: bool,
    reopen: impl Fn() -> std::io::Result<Content>,
) -> Result<Origin, ImportError> {
    let (mut alike, new) = candidates(store, content.first_line()).await?;
    let (mut has_other_options, mut longest) = (false, 0);
    let found = loop {
        // The nearest place that the ledger knows of any of them.
        let next = alike.iter().flat_map(|candidate| candidate.marks.iter().map(|mark| mark.offset));
        let Some(next) = next.filter(|offset| *offset > content.offset()).min() else { break None };
        if !content.skip_to(next)? {
            longest =
                alike.iter().filter_map(|candidate| candidate.marks.last()).map(|mark| mark.offset).max().unwrap_or(0);
            break None;
        }
        let here = digest(content, options).0;
        alike.retain(|candidate| {
            candidate.marks.iter().filter(|mark| mark.offset == next).all(|mark| {
                has_other_options |= mark.digest[..DIGEST_BYTES] == here[..DIGEST_BYTES] && mark.digest != here;
                mark.digest == here
            })
        });
        if let Some(at) = alike.iter().position(|candidate| candidate.marks.last().is_some_and(|m| m.offset == next)) {
            break Some(alike.swap_remove(at));
        }
    };
    let (writer, start, marks) = match found {
        Some(Candidate { writer, start, marks }) => (writer, start, marks),
        None if has_other_options && !another => return Err(ImportError::OtherOptions),
        None if longest > 0 && !another => {
            return Err(ImportError::Shorter { bytes: content.offset(), before: longest });
        }
        None => (new, 0, Vec::new()),
    };
    if content.offset() > start {
        if !source.is_repeatable() {
            return Err(ImportError::NotRepeatable);
        }
        *content = reopen()?;
        if !content.skip_to(start)? {
            return Err(ImportError::Changed);
        }
    }
    let ends = marks.into_iter().map(|mark| mark.offset).filter(|offset| *offset > start).collect();
    Ok(Origin { writer, start, ends })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_the_same_writer_for_every_version_of_this_program() {
        assert_eq!(writer(b"first", 0).to_string(), "7661b5cc65ab3d5ee1c513583bf1674d");
        assert_ne!(writer(b"first", 1), writer(b"first", 0));
        assert_ne!(writer(b"other", 0), writer(b"first", 0));
    }
}
