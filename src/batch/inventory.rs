//! What a data folder holds, read without taking part: also while a service uses it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::mark::Mark;
use crate::domain::{BatchId, BatchSeq, WriterId};
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
            let mut newest: BTreeMap<WriterId, (BatchSeq, Option<i128>)> = BTreeMap::new();
            for id in ids {
                let Some(replayed) = read(&journal, id, kind)? else { continue };
                let base = replayed.base.or_else(|| (id.seq == BatchSeq::FIRST).then_some(0));
                newest.insert(id.writer, (id.seq, base.map(|base| base + replayed.total())));
                sums.push((id, replayed.total()));
            }
            if kind == Kind::Committed {
                // The mark is written rarely; these tell how far the store has confirmed since.
                for (writer, (seq, total)) in newest {
                    if inventory.mark.confirmed.get(&writer).is_none_or(|known| known.seq < seq) {
                        inventory.mark.confirm(writer, seq, total);
                    }
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
