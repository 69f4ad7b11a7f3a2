//! Another batch stands in the store under the identity of ours.
//!
//! Only the process that began a writer ever appends to that writer's batches. So all versions of a
//! batch are prefixes of one another: a copy of the data folder, taken while the batch was open, has the
//! shorter one. Whichever was delivered first is in the store. What the store lacks of ours is then the
//! difference of two sums: ours through the ledger's last batch, and the ledger's.

use std::sync::Arc;

use super::{FlushError, Flusher, run_blocking};
use crate::batch::SealedBatch;
use crate::domain::Digest;
use crate::store::LedgerEntry;

impl Flusher {
    /// `found` stands at or past `batch`, and is not known to hold exactly it.
    pub(super) async fn settle_differing(
        &self,
        batch: &Arc<SealedBatch>,
        found: &LedgerEntry,
    ) -> Result<(), FlushError> {
        let writer = batch.id.writer;
        if found.last_seq > batch.id.seq && writer == self.batches.writer() {
            // The sums can be compared once ours reach as far as the ledger's.
            let batches = Arc::clone(&self.batches);
            run_blocking(move || batches.seal_behind()).await?;
        }
        let through = self.batches.sealed_through(writer, found.last_seq);
        let is_comparable = through.last().is_some_and(|last| last.id.seq == found.last_seq);
        let Some(last) = through.last().filter(|_| is_comparable) else {
            // A process that goes on with a later batch has settled this one: it holds the whole of it.
            let is_ours = writer == self.batches.writer();
            let in_question = if is_ours { batch.total() } else { 0 };
            return self.set_aside(batch, in_question, found).await;
        };
        let digest = Digest::of(&self.batches.sealed_rows(last));
        let is_same = found.digest.is_none_or(|found| found == digest);
        let ours = self.batches.total_through(last);
        let all = || through.iter().map(|batch| batch.total()).sum::<i128>();
        let missing = match ours {
            Some(ours) => (ours - found.total).max(0),
            None if is_same => 0,
            None => all(),
        };
        if is_same && missing == 0 {
            for batch in &through {
                tracing::info!(batch.writer = %writer, batch.seq = batch.id.seq.0, "A batch was in the store already");
                let rows = self.batches.sealed_rows(batch).into();
                let total = (batch.id == last.id).then_some(found.total);
                self.discard(batch, rows, total).await?;
            }
            return Ok(());
        }
        let mut missing = missing;
        for batch in &through {
            self.set_aside(batch, std::mem::take(&mut missing), found).await?;
        }
        Ok(())
    }

    async fn set_aside(&self, batch: &Arc<SealedBatch>, missing: i128, found: &LedgerEntry) -> Result<(), FlushError> {
        tracing::error!(
            batch.writer = %batch.id.writer,
            batch.seq = batch.id.seq.0,
            ledger.last_seq = found.last_seq.0,
            counts = %batch.total(),
            missing = %missing,
            "The store holds another batch under this one's identity: a copy of this data folder was delivered by another node; the segment stays in the journal's folder"
        );
        let (batches, sealed) = (Arc::clone(&self.batches), Arc::clone(batch));
        let found = (found.last_seq, found.total);
        run_blocking(move || batches.set_aside(&sealed, missing, found)).await?;
        self.health.note_missing(self.batches.mark().missing());
        Ok(())
    }
}
