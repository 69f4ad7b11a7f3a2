//! Start-up: what the journal holds becomes sealed batches again.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use super::commits::Commits;
use super::custody::Custody;
use super::mark::{self, Confirmed, Mark};
use super::renew::UNKNOWN;
use super::{Batches, OpenBatch, SealedBatch, Waiting};
use crate::counts::Counts;
use crate::domain::{BatchId, BatchSeq, Partitions, WriterId};
use crate::journal::files::{Files, remove_if_there};
use crate::journal::replay::{self, ReplayError, Replayed};
use crate::journal::reserve::{Reserve, is_full};
use crate::journal::segment::{Contents, Kind, Segment, file_name};
use crate::journal::{self, DataDir, Journal, SealedSegment};
use crate::names::Names;

#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("can't use {path}")]
    Io { path: std::path::PathBuf, source: io::Error },
}

/// What start-up found in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    pub batches: u64,
    pub records: u64,
    /// Sum of all counts found.
    pub counts: i128,
    /// Half-written bytes at the ends of segments, cut off.
    pub torn_bytes: u64,
    /// Bytes that could not be read (only with `journal.accept_damage`).
    pub damaged_bytes: u64,
    /// Segments that the full disk kept from being copied; they are delivered as they are.
    pub not_copied: u64,
}

impl Batches {
    /// Replays what the folder's journal holds into sealed batches that keep the writer and
    /// sequence they were born with, and opens the first batch of a new writer.
    ///
    /// Each segment found is copied into a new, synced file first: what replay could read may have
    /// been in the page cache only, and a torn end must not stay. Where the disk is too full for that,
    /// the batch is taken as it was read.
    ///
    /// # Errors
    /// See [`RecoverError`]. Nothing on disk has been changed when reading fails.
    pub fn recover(
        dir: &DataDir,
        options: journal::Options,
        names: Arc<Names>,
    ) -> Result<(Self, Recovered), RecoverError> {
        let files = &dir.journal;
        let io_error = |source| RecoverError::Io { path: files.path_of(""), source };
        let mark = read_mark(&*dir.root, options.accept_damage)?;
        let catalog = mark.catalog.unwrap_or(UNKNOWN);
        let is_confirmed =
            |id: BatchId| mark.confirmed.get(&id.writer).is_some_and(|confirmed| id.seq <= confirmed.seq);
        let mut segments = replay::find_unconfirmed(&**files, is_confirmed)?;
        // Their names were not on disk when the power went, or they are a copy's. The store tells whether it
        // has exactly them.
        segments.pending.append(&mut segments.misnamed);
        segments.pending.sort_unstable();
        let mut replayed = Vec::new();
        for id in segments.pending {
            replayed.push(replay::replay(&**files, id, Kind::Pending, options.accept_damage)?);
        }

        // Copies that an earlier start did not finish.
        for name in files.list().map_err(io_error)?.iter().filter(|name| name.ends_with(".rewrite")) {
            remove_if_there(&**files, name).map_err(io_error)?;
        }
        let custody = Custody::new(dir, mark);
        note_committed(&custody, &**files, &segments.committed)?;
        let reserve = Arc::new(Reserve::find(Arc::clone(files)));
        let mut found = Recovered::default();
        let mut sealed: VecDeque<Arc<SealedBatch>> = VecDeque::new();
        let mut last: Option<(BatchId, i128)> = None;
        for segment in replayed {
            found.records += segment.records;
            found.torn_bytes += segment.torn_bytes;
            let mut kept = Ok(());
            if let Some(damage) = segment.damage {
                found.damaged_bytes += damage.unreadable_bytes;
                kept = keep_damaged(&**files, segment.id);
            }
            if segment.counts.is_empty() {
                if kept.is_ok() {
                    files.remove(&file_name(segment.id, Kind::Pending)).map_err(io_error)?;
                }
                continue;
            }
            let follows = last.filter(|(id, _)| BatchId { seq: id.seq.next(), ..*id } == segment.id);
            let base = segment.base.or(follows.map(|(_, through)| through));
            let base = base.or_else(|| (segment.id.seq == BatchSeq::FIRST).then_some(0));
            if let Some(base) = base {
                custody.note_base(segment.id, base);
                last = Some((segment.id, base + segment.total()));
            }
            let bytes = match kept.and_then(|()| rewrite(&**files, &segment, base)) {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(%error, "A segment can't be copied; it is delivered as it is");
                    found.not_copied += 1;
                    segment.length
                }
            };
            found.batches += 1;
            found.counts += segment.total();
            sealed.push_back(sealed_batch(&names, segment, bytes));
        }
        let writer = WriterId(files.random_bits().map_err(io_error)?);
        let id = BatchId { writer, seq: BatchSeq::FIRST };
        let first = match reserve.with(|| Segment::create(&**files, id, catalog)) {
            // What is here can be delivered, which may make room.
            Err(error) if is_full(&error) => Err(error),
            first => Ok(first.map_err(io_error)?),
        };
        files.sync_folder().map_err(io_error)?;
        let recovered_bytes = sealed.iter().map(|batch| batch.segment.bytes()).sum();
        let journal = Journal::start(Arc::clone(files), reserve, options, first, recovered_bytes).map_err(io_error)?;
        let counts = Arc::new(Counts::with_capacity(0));
        let commits = Arc::default();
        let batches = Self {
            writer,
            journal,
            names,
            partitions: Partitions::ONE,
            open: RwLock::new(OpenBatch { seq: BatchSeq::FIRST, counts, catalog }),
            waiting: Mutex::new(Waiting { sealed, commits, set_aside: BTreeSet::new() }),
            sealing: Mutex::new(0),
            ahead: Mutex::default(),
            commits: Commits::default(),
            custody,
            catalog: AtomicU64::new(catalog),
            tidying: Mutex::default(),
            changes: AtomicU64::new(0),
        };
        batches.custody.note_base(id, 0);
        Ok((batches, found))
    }
}

/// Where damage is accepted, nothing is better than no start.
fn read_mark(root: &dyn Files, accept_damage: bool) -> Result<Mark, RecoverError> {
    match Mark::read(root) {
        Err(error) if accept_damage => {
            tracing::error!(%error, "What the store has confirmed can't be read: a loss there may go unnoticed");
            Ok(Mark::default())
        }
        read => read.map_err(|source| RecoverError::Io { path: root.path_of(mark::NAME), source }),
    }
}

/// Kept segments go oldest first, and the names of writers say nothing of their age: what the process before this one
/// has committed is needed first by a store that goes back.
fn note_kept(custody: &Custody, files: &dyn Files, committed: &[BatchId]) {
    let mut of_writers = Vec::new();
    for of_writer in committed.chunk_by(|a, b| a.writer == b.writer) {
        let mut newest = None;
        let mut segments = Vec::with_capacity(of_writer.len());
        for id in of_writer {
            let file = files.open(&file_name(*id, Kind::Committed));
            newest = newest.max(file.as_ref().ok().and_then(|file| file.modified().ok()?));
            segments.push((*id, file.and_then(|file| file.length()).unwrap_or(0)));
        }
        of_writers.push((newest, segments));
    }
    of_writers.sort_by_key(|(newest, _)| *newest);
    for (id, bytes) in of_writers.into_iter().flat_map(|(_, segments)| segments) {
        custody.note_kept(id, bytes);
    }
}

/// The committed segments tell how far the store has confirmed each writer, which the mark may not say yet.
fn note_committed(custody: &Custody, files: &dyn Files, committed: &[BatchId]) -> Result<(), ReplayError> {
    note_kept(custody, files, committed);
    for of_writer in committed.chunk_by(|a, b| a.writer == b.writer) {
        let (Some(newest), known) = (of_writer.last(), custody.known(of_writer[0].writer)) else { continue };
        let (after, mut total) = match known {
            Some(Confirmed { seq, total: Some(total), .. }) => (seq, Some(total)),
            // The newest one says what was before it.
            _ => (BatchSeq(newest.seq.0 - 1), None),
        };
        for id in of_writer.iter().filter(|id| id.seq > after) {
            // What is damaged here is in the store: there is nothing to refuse.
            let replayed = replay::replay(files, *id, Kind::Committed, true).ok();
            let before = total.or_else(|| replayed.as_ref()?.base);
            let before = before.or_else(|| (id.seq == BatchSeq::FIRST).then_some(0));
            total = before.zip(replayed).map(|(before, replayed)| before + replayed.total());
        }
        if newest.seq > after {
            custody.confirm_found(newest.writer, newest.seq, total);
        }
    }
    Ok(())
}

fn rewrite(files: &dyn Files, segment: &Replayed, base: Option<i128>) -> io::Result<u64> {
    let counts: Vec<_> = segment.counts.iter().map(|((hour, event), count)| (event.as_str(), *hour, *count)).collect();
    let catalog = segment.catalog.unwrap_or(u64::MAX);
    let contents = Contents { catalog, base, counts: &counts, ended: true };
    Ok(Segment::rewrite(files, segment.id, &contents)?.1)
}

fn sealed_batch(names: &Names, segment: Replayed, bytes: u64) -> Arc<SealedBatch> {
    let counts = Counts::with_capacity(segment.counts.len());
    for ((hour, event), count) in &segment.counts {
        counts.add(names.learn(event, *count), *hour, *count);
    }
    Arc::new(SealedBatch {
        id: segment.id,
        // Version 1 did not tell: then its counts are taken as they would have been by it.
        catalog: segment.catalog.unwrap_or(u64::MAX),
        counts: Arc::new(counts),
        total: OnceLock::new(),
        digest: OnceLock::new(),
        segment: SealedSegment::new(segment.id, bytes),
        end: None,
        unwritten: AtomicU64::new(0),
        incomplete: AtomicBool::new(false),
        retired: AtomicBool::new(false),
        stored: AtomicBool::new(false),
    })
}

/// Copies what is readable of a damaged segment beside it, for somebody to look at.
fn keep_damaged(files: &dyn Files, id: BatchId) -> io::Result<()> {
    let name = file_name(id, Kind::Pending);
    let damaged = format!("{name}.damaged");
    remove_if_there(files, &damaged)?;
    let (from, to) = (files.open(&name)?, files.create(&damaged)?);
    let (mut piece, mut offset, length) = (vec![0; 4096], 0, from.length()?);
    while offset < length {
        // A block that can't be read is a hole in the copy.
        if let Ok(count @ 1..) = from.read_at(&mut piece, offset) {
            to.write_at(&piece[..count], offset)?;
            offset += count as u64;
        } else {
            offset += piece.len() as u64;
        }
    }
    to.sync()
}
