//! The ledger does not stand where a commit expected it.
//!
//! Mostly a commit whose answer was lost is in already. Else somebody else has moved the ledger. Only the
//! process that began a writer ever appends to that writer's batches. So all versions of a batch are
//! prefixes of one another: a copy of the data folder, taken while the batch was open, has the shorter one.
//! Whichever was delivered first is in the store, and what it lacks of the other is delivered after it.

use std::sync::Arc;

use super::{FlushError, Flusher};
use crate::batch::SealedBatch;
use crate::domain::BatchSeq;
use crate::reconcile::SettleError;
use crate::store::{LedgerEntry, StoreError};

impl Flusher {
    /// `found`: where the ledger stands; `epoch`: that of the batches before the store was asked.
    pub(super) async fn settle_standing(
        &self,
        batch: &Arc<SealedBatch>,
        found: Option<LedgerEntry>,
        epoch: u64,
    ) -> Result<(), FlushError> {
        let writer = batch.id.writer;
        let digest = found.and_then(|found| found.digest);
        let found = found.map_or((BatchSeq(0), 0), |found| (found.last_seq, found.total));
        if let Some(known) = self.batches.confirmed_of(writer).filter(|known| known.is_lost_at(found)) {
            self.reconciler.check_writer(writer, known, found, epoch).await;
            return Ok(());
        }
        if found.0 < batch.id.seq {
            return Ok(self.go_on_at(batch, found, epoch).await?);
        }
        self.reconciler.settle(batch, found, digest, epoch).await.map_err(|error| match error {
            SettleError::Store(error) => FlushError::Store(error),
            SettleError::Journal(error) => FlushError::Journal(error.to_string()),
        })
    }

    /// The ledger stands before this batch, and not where this node expected it.
    async fn go_on_at(&self, batch: &SealedBatch, found: (BatchSeq, i128), epoch: u64) -> Result<(), StoreError> {
        if self.batches.confirmed_before(batch).is_some_and(|before| found.0 < before) {
            tracing::error!(
                batch.writer = %batch.id.writer,
                batch.seq = batch.id.seq.0,
                ledger.last_seq = found.0.0,
                "The database lacks earlier batches of this writer: compare it with its backups"
            );
        }
        self.reconciler.go_on_at(batch.id.writer, found, epoch).await
    }
}
