//! What a data folder holds, read without taking part: also while a service uses it.

use std::io;
use std::path::Path;

use super::mark::Mark;
use crate::domain::BatchId;
use crate::journal::files::{Files, OsFiles};
use crate::journal::replay::{self, ReplayError, Replayed};
use crate::journal::segment::Kind;

/// The sums of the batches in a folder.
#[derive(Debug, Default)]
pub struct Inventory {
    pub mark: Mark,
    /// Batches that are not known to be in the store. That of a running service grows meanwhile.
    pub pending: Vec<(BatchId, i128)>,
    /// Committed batches that are kept.
    pub kept: Vec<(BatchId, i128)>,
    /// Batches in whose place the store holds others.
    pub differing: Vec<(BatchId, i128)>,
}

impl Inventory {
    /// `None`: there is no such folder.
    ///
    /// # Errors
    /// When the folder or a segment can't be read. Segments that a running service renames or deletes
    /// meanwhile are left out.
    pub fn read(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        let (root, journal) = match (OsFiles::open(data_dir), OsFiles::open(&data_dir.join("journal"))) {
            (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            (root, journal) => (root?, journal?),
        };
        let mark = Mark::read(&root)?;
        let found = replay::find(&journal)?;
        let mut inventory = Self { mark, ..Self::default() };
        for (ids, kind, sums) in [
            (found.pending, Kind::Pending, &mut inventory.pending),
            (found.committed, Kind::Committed, &mut inventory.kept),
            (found.differing, Kind::Differing, &mut inventory.differing),
        ] {
            for id in ids {
                let Some(replayed) = read(&journal, id, kind)? else { continue };
                sums.push((id, replayed.total()));
                if kind == Kind::Committed {
                    inventory.mark.note_committed(id, replayed.base, replayed.total());
                }
            }
        }
        Ok(Some(inventory))
    }
}

fn read(journal: &dyn Files, id: BatchId, kind: Kind) -> Result<Option<Replayed>, ReplayError> {
    match replay::replay(journal, id, kind, true) {
        Err(ReplayError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        replayed => replayed.map(Some),
    }
}
