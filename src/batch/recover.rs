//! Start-up: what the journal holds becomes sealed batches again.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::{Batches, OpenBatch, RecentCommits, SealedBatch, Waiting};
use crate::counts::Counts;
use crate::domain::{BatchId, BatchSeq, WriterId};
use crate::journal::replay::{self, ReplayError};
use crate::journal::segment::Segment;
use crate::journal::{self, DataFolder, Journal, SealedSegment};
use crate::names::Names;

#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("can't write the journal folder {path}")]
    Io { path: std::path::PathBuf, source: io::Error },
}

/// What start-up found in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    pub batches: u64,
    pub records: u64,
    /// Sum of all counts found.
    pub counts: u128,
    /// Half-written bytes at the ends of segments, cut off.
    pub torn_bytes: u64,
    /// Bytes that could not be read (only with `journal.accept_damage`).
    pub damaged_bytes: u64,
}

impl Batches {
    /// Replays what the folder's journal holds into sealed batches that keep the writer and
    /// sequence they were born with, and opens the first batch of a new writer.
    ///
    /// Each segment found is copied into a new, synced file first: what replay could read may have
    /// been in the page cache only, and a torn end must not stay.
    ///
    /// # Errors
    /// See [`RecoverError`]. Nothing on disk has been changed when reading fails.
    pub fn recover(
        folder: &DataFolder,
        options: journal::Options,
        names: Arc<Names>,
    ) -> Result<(Self, Recovered), RecoverError> {
        let dir = folder.journal();
        let io_error = |source| RecoverError::Io { path: dir.clone(), source };
        let mut found = Recovered::default();
        let mut sealed = VecDeque::new();
        for segment in replay::replay(&dir, options.accept_damage)? {
            found.records += segment.records;
            found.torn_bytes += segment.torn_bytes;
            if let Some(damage) = segment.damage {
                found.damaged_bytes += damage.unreadable_bytes;
                std::fs::copy(&segment.path, segment.path.with_extension("damaged")).map_err(io_error)?;
            }
            if segment.counts.is_empty() {
                std::fs::remove_file(&segment.path).map_err(io_error)?;
                continue;
            }
            let rows: Vec<_> =
                segment.counts.iter().map(|((hour, event), count)| (event.as_str(), *hour, *count)).collect();
            let (_, bytes) = Segment::rewrite(&dir, segment.id, &rows, true).map_err(io_error)?;
            let counts = Counts::with_capacity(rows.len());
            for ((hour, event), count) in &segment.counts {
                counts.add(names.learn(event, *count), *hour, *count);
                found.counts += u128::from(*count);
            }
            found.batches += 1;
            sealed.push_back(Arc::new(SealedBatch {
                id: segment.id,
                counts: Arc::new(counts),
                segment: SealedSegment::new(segment.path, bytes),
                end: None,
            }));
        }
        let writer = WriterId::random().map_err(io_error)?;
        let first = Segment::create(&dir, BatchId { writer, seq: BatchSeq::FIRST }).map_err(io_error)?;
        let mut writers: Vec<_> =
            sealed.iter().map(|batch: &Arc<SealedBatch>| batch.id.writer).chain([writer]).collect();
        writers.dedup();
        let recovered_bytes = sealed.iter().map(|batch: &Arc<SealedBatch>| batch.segment.bytes()).sum();
        let journal = Journal::start(dir.clone(), options, first, recovered_bytes).map_err(io_error)?;
        let batches = Self {
            writer,
            journal,
            names,
            open: RwLock::new(OpenBatch { seq: BatchSeq::FIRST, counts: Arc::new(Counts::with_capacity(0)) }),
            waiting: Mutex::new(Waiting { sealed, commits: RecentCommits::default() }),
            sealing: Mutex::default(),
            committed: watch::Sender::new(BatchSeq(0)),
            writers,
            changes: AtomicU64::new(0),
            flush_requested: Notify::new(),
        };
        Ok((batches, found))
    }
}
