//! The file `STORE` in the data folder: which database the journal belongs to, and what that database
//! has confirmed. With it a restarted node knows when the database has lost what it had confirmed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use crate::domain::{BatchId, BatchSeq, WriterId};
use crate::journal::files::{self, Files};
use crate::journal::reserve::Reserve;

pub(super) const NAME: &str = "STORE";
const FIRST_LINE: &str = "event-tracker store 2";
/// Writers of earlier starts that are remembered; of older ones, a loss goes unnoticed.
const WRITERS_MAX: usize = 100;

/// How far the store has confirmed the batches of one writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Confirmed {
    pub seq: BatchSeq,
    /// The sum of all batches through `seq`; `None`: they were begun by a version that did not keep it.
    pub total: Option<i128>,
    /// Counts its confirmations up: the writers with the highest were seen last.
    pub order: u64,
}

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// [`None`]: the node has never met its store.
    pub identity: Option<String>,
    /// The version of its catalog that the node knew last.
    pub catalog: Option<u64>,
    pub confirmed: BTreeMap<WriterId, Confirmed>,
    /// Acknowledged counts that the store is known to lack and nobody can deliver, by writer, until an
    /// administrator has confirmed that they are gone.
    pub missing: BTreeMap<WriterId, i128>,
}

impl Mark {
    /// # Errors
    /// When there is a file and it can't be read.
    pub fn read(files: &dyn Files) -> io::Result<Self> {
        let contents = files::read_small(files, NAME)?.unwrap_or_default();
        Ok(Self::parse(&String::from_utf8_lossy(&contents)))
    }

    /// Writes the file anew.
    ///
    /// # Errors
    /// The disk's; then the file says what it said before.
    pub fn write(&self, files: &dyn Files, reserve: &Reserve) -> io::Result<()> {
        let text = self.text();
        reserve.with(|| files::replace(files, NAME, text.as_bytes()))
    }

    /// All counts that are missing.
    #[must_use]
    pub fn missing(&self) -> i128 {
        self.missing.values().sum()
    }

    pub(super) fn confirm(&mut self, writer: WriterId, seq: BatchSeq, total: Option<i128>) {
        let order = self.confirmed.values().map(|confirmed| confirmed.order).max().unwrap_or(0);
        let order = match self.confirmed.get(&writer) {
            Some(known) if known.order == order => order,
            _ => order + 1,
        };
        self.confirmed.insert(writer, Confirmed { seq, total, order });
        if self.confirmed.len() > WRITERS_MAX {
            let oldest = self.confirmed.iter().min_by_key(|(_, confirmed)| confirmed.order);
            if let Some(writer) = oldest.map(|(writer, _)| *writer) {
                self.confirmed.remove(&writer);
            }
        }
    }

    /// Changes how many counts of a writer are missing. No more can come back than are missing.
    pub(super) fn add_missing(&mut self, writer: WriterId, change: i128) {
        let missing = self.missing.entry(writer).or_default();
        *missing = missing.saturating_add(change).max(0);
        if *missing == 0 {
            self.missing.remove(&writer);
        }
    }

    /// Takes note of a committed segment, of each writer in order: the mark is written rarely, and these tell
    /// how far the store has confirmed since. `base`: what the segment says was before it, which counts only
    /// where the mark says nothing.
    pub(super) fn note_committed(&mut self, id: BatchId, base: Option<i128>, total: i128) {
        let known = self.confirmed.get(&id.writer).copied();
        if known.is_some_and(|known| known.seq >= id.seq) {
            return;
        }
        let before = known.and_then(|known| known.total).or(base);
        let before = before.or_else(|| (id.seq == BatchSeq::FIRST).then_some(0));
        self.confirm(id.writer, id.seq, before.map(|before| before + total));
    }

    fn text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        if let Some(identity) = &self.identity {
            let _ = writeln!(text, "identity {identity}");
        }
        if let Some(catalog) = self.catalog {
            let _ = writeln!(text, "catalog {catalog}");
        }
        let mut writers: Vec<_> = self.confirmed.iter().collect();
        writers.sort_unstable_by_key(|(_, confirmed)| confirmed.order);
        for (writer, Confirmed { seq, total, .. }) in writers {
            let total = total.map_or_else(|| "-".to_owned(), |total| total.to_string());
            let _ = writeln!(text, "confirmed {writer} {} {total}", seq.0);
        }
        for (writer, count) in &self.missing {
            let _ = writeln!(text, "missing {writer} {count}");
        }
        text
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let mut mark = Self::default();
        match lines.next() {
            Some(FIRST_LINE) => {}
            // Version 1 was the identity alone.
            Some(identity) if !identity.trim().is_empty() => mark.identity = Some(identity.trim().to_owned()),
            _ => return mark,
        }
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["identity", identity] => mark.identity = Some((*identity).to_owned()),
                ["catalog", version] => mark.catalog = version.parse().ok(),
                ["confirmed", writer, seq, total] => {
                    if let (Some(writer), Ok(seq)) = (WriterId::parse(writer), seq.parse()) {
                        mark.confirm(writer, BatchSeq(seq), total.parse().ok());
                    }
                }
                ["missing", writer, count] => {
                    if let (Some(writer), Ok(count)) = (WriterId::parse(writer), count.parse()) {
                        mark.missing.insert(writer, count);
                    }
                }
                // A later version may say more.
                _ => {}
            }
        }
        mark
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;
    use crate::mangled::{Edit, mangled};

    #[test]
    fn what_is_written_is_read_back_and_version_1_is_the_identity_alone() {
        let mut mark = Mark { identity: Some("abcd".into()), catalog: Some(4), ..Mark::default() };
        mark.confirm(WriterId([1; 16]), BatchSeq(7), Some(1000));
        mark.confirm(WriterId([2; 16]), BatchSeq(1), None);
        mark.missing.insert(WriterId([1; 16]), 12);
        assert_eq!(Mark::parse(&mark.text()), mark);
        assert_eq!(Mark::parse("abcd\n"), Mark { identity: Some("abcd".into()), ..Mark::default() });
        assert_eq!(Mark::parse(""), Mark::default());
    }

    #[test]
    fn a_mark_of_any_text_is_read_and_then_stays_as_it_is() {
        let text = "event-tracker store 2\nidentity ab\nconfirmed 07070707070707070707070707070707 3 -\nmissing x 1";
        let first = format!("{FIRST_LINE}\nidentity ab\ncatalog 7\nconfirmed {} 3 -\n", WriterId([7; 16]));
        bolero::check!().with_type::<(u8, Vec<Edit>)>().for_each(|(which, edits)| {
            let bytes = mangled(&[text.as_bytes(), first.as_bytes()], *which, edits);
            let mark = Mark::parse(&String::from_utf8_lossy(&bytes));
            if mark.identity.as_deref().is_none_or(|identity| !identity.contains(char::is_whitespace)) {
                assert_eq!(Mark::parse(&mark.text()), mark);
            }
        });
    }

    #[test]
    fn the_writers_that_were_confirmed_last_are_remembered() {
        let mut mark = Mark::default();
        let writer = |number: u8| WriterId([number; 16]);
        for number in 0..=u8::try_from(WRITERS_MAX).unwrap() {
            mark.confirm(writer(number), BatchSeq(1), Some(1));
            mark.confirm(writer(0), BatchSeq(u64::from(number)), Some(1));
        }
        assert_eq!(mark.confirmed.len(), WRITERS_MAX);
        assert!(mark.confirmed.contains_key(&writer(0)) && !mark.confirmed.contains_key(&writer(1)));
    }
}
