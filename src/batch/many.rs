//! Recording the increments of one request together.

use std::sync::atomic::Ordering;

use super::{Batches, RecordError, Ticket};
use crate::domain::{EventName, Hour};

/// What became of increments that were recorded together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedMany {
    /// Stands for all that were counted; `None` when none was.
    pub ticket: Option<Ticket>,
    /// Which of the increments were refused, by their number in the order given, and why. All others
    /// are counted.
    pub refused: Vec<(usize, RecordError)>,
}

impl Batches {
    /// Counts many increments of one hour: one record in the journal (more only beyond the size of
    /// one), one touch of each counter. Give every event once: what is refused is refused whole.
    /// Short and synchronous like [`Batches::record`].
    ///
    /// # Errors
    /// [`RecordError::JournalUnavailable`]; nothing was counted then.
    pub fn record_all<'e>(
        &self,
        hour: Hour,
        increments: impl IntoIterator<Item = (&'e EventName, u64)>,
    ) -> Result<RecordedMany, RecordError> {
        if !self.journal.takes_records() {
            return Err(RecordError::JournalUnavailable);
        }
        let open = self.open.read();
        let (mut admitted, mut refused) = (Vec::new(), Vec::new());
        for (number, (event, count)) in increments.into_iter().enumerate() {
            match self.names.admit_into(event, count, open.catalog) {
                Ok((name, _)) => admitted.push((name, event, count)),
                Err(why) => refused.push((number, why.into())),
            }
        }
        if admitted.is_empty() {
            return Ok(RecordedMany { ticket: None, refused });
        }
        let position = self.journal.append_all(hour, admitted.iter().map(|(_, event, n)| (event.as_str(), *n)))?;
        for (name, _, count) in admitted {
            open.counts.add(name, hour, count);
        }
        self.changes.fetch_add(1, Ordering::Release);
        Ok(RecordedMany { ticket: Some(Ticket { position, batch: open.seq }), refused })
    }
}
