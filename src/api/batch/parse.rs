//! From bytes to a tally: JSON documents (`[…]` or `{"events":[…]}`), and lines with an item each.
//!
//! A document is walked here, element by element, and each element read by one parser: so both forms
//! share what an item is, and no list of items is ever built. serde_json decides what is JSON; the
//! walk only knows brackets, commas and blanks.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::item::{self, Flaw, Item};
use super::tally::Tally;

/// The body is no batch at all, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NotABatch(pub(super) &'static str);

const NOT_A_DOCUMENT: NotABatch = NotABatch("the body is not JSON");
const NOT_A_LIST: NotABatch = NotABatch("an array of items, or an object whose `events` is one, is expected");

/// Reads a whole JSON document.
pub(super) fn document(bytes: &[u8], into: &mut Tally) -> Result<(), NotABatch> {
    let mut rest = Rest { bytes };
    match rest.peek() {
        Some(b'[') => rest.array(into)?,
        Some(b'{') => rest.wrapper(into)?,
        // It may be JSON or not: it is nothing to count.
        _ => return Err(NOT_A_LIST),
    }
    if rest.peek().is_some() { Err(NOT_A_DOCUMENT) } else { Ok(()) }
}

/// What of a document is still to be read.
struct Rest<'b> {
    bytes: &'b [u8],
}

impl<'b> Rest<'b> {
    /// The next byte that is no blank; what was before it is gone.
    fn peek(&mut self) -> Option<u8> {
        self.bytes = without_blanks(self.bytes);
        self.bytes.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let next = self.peek()?;
        self.bytes = &self.bytes[1..];
        Some(next)
    }

    fn value<T: Deserialize<'b>>(&mut self) -> Result<T, NotABatch> {
        let mut values = serde_json::Deserializer::from_slice(self.bytes).into_iter();
        let Some(Ok(value)) = values.next() else { return Err(NOT_A_DOCUMENT) };
        self.bytes = &self.bytes[values.byte_offset()..];
        Ok(value)
    }

    /// An item that has the shape of JSON and can't be read is flawed by itself: `JSON.stringify`
    /// writes half an emoji where a text was cut.
    fn item(&mut self) -> Result<Item<'b>, NotABatch> {
        self.value().or_else(|_| self.value::<IgnoredAny>().map(|_| Item::Flawed(Flaw::Unreadable)))
    }

    /// Reads `open element, element … close`, without or with elements.
    fn sequence(
        &mut self,
        close: u8,
        mut element: impl FnMut(&mut Self) -> Result<(), NotABatch>,
    ) -> Result<(), NotABatch> {
        self.next();
        if self.peek() == Some(close) {
            self.next();
            return Ok(());
        }
        loop {
            self.peek();
            element(self)?;
            match self.next() {
                Some(b',') => {}
                Some(end) if end == close => return Ok(()),
                _ => return Err(NOT_A_DOCUMENT),
            }
        }
    }

    fn array(&mut self, into: &mut Tally) -> Result<(), NotABatch> {
        self.sequence(b']', |rest| {
            if let Some((event, count, length)) = item::usual(rest.bytes) {
                into.add(event, count);
                rest.bytes = &rest.bytes[length..];
                return Ok(());
            }
            take(rest.item()?, into);
            Ok(())
        })
    }

    /// Fields of other names are ignored.
    fn wrapper(&mut self, into: &mut Tally) -> Result<(), NotABatch> {
        let mut found = false;
        self.sequence(b'}', |rest| {
            let name: String = rest.value()?;
            if rest.next() != Some(b':') {
                return Err(NOT_A_DOCUMENT);
            }
            let next = rest.peek();
            if name != "events" {
                return rest.value::<IgnoredAny>().map(|_| ());
            }
            if found || next != Some(b'[') {
                return Err(NOT_A_LIST);
            }
            found = true;
            rest.array(into)
        })?;
        if found { Ok(()) } else { Err(NOT_A_LIST) }
    }
}

/// Whether an object that begins a body stands for itself, as an item or a failed one, and is not
/// (the beginning of) a document.
pub(super) fn is_line(text: &[u8]) -> bool {
    // With `event` it is an item that has a field too many.
    #[derive(Deserialize)]
    struct Fields {
        event: Option<IgnoredAny>,
        events: Option<IgnoredAny>,
    }
    match read(text) {
        Ok(Item::Count(..)) => true,
        Ok(Item::Flawed(_)) => {
            serde_json::from_slice(text).map_or(true, |Fields { event, events }| event.is_some() || events.is_none())
        }
        Err(_) => false,
    }
}

/// Reads a text that is one item, to its end.
fn read(text: &[u8]) -> Result<Item<'_>, NotABatch> {
    let mut rest = Rest { bytes: text };
    let item = rest.item()?;
    if rest.peek().is_some() { Err(NOT_A_DOCUMENT) } else { Ok(item) }
}

pub(super) fn without_blanks(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|b| is_blank(**b)).count();
    &bytes[blanks..]
}

/// What JSON and HTTP alike take for nothing.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn take(item: Item<'_>, into: &mut Tally) {
    match item {
        Item::Count(event, count) => into.add(&event, count),
        Item::Flawed(flaw) => into.reject_flawed(&flaw),
    }
}

/// Reads lines as they arrive, in pieces cut anywhere. Empty lines are no items.
#[derive(Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// Whether any line was JSON.
    any_json: bool,
    tally: Tally,
}

impl Lines {
    pub(super) fn push(&mut self, mut piece: &[u8]) {
        if !self.begun.is_empty() {
            let Some(end) = memchr::memchr(b'\n', piece) else { return self.begun.extend_from_slice(piece) };
            let mut line = std::mem::take(&mut self.begun);
            line.extend_from_slice(&piece[..end]);
            self.line(&line);
            // Its room serves the next one.
            line.clear();
            self.begun = line;
            piece = &piece[end + 1..];
        }
        while let Some(length) = self.usual_line(piece) {
            piece = &piece[length..];
        }
        self.begun.extend_from_slice(piece);
    }

    /// Takes the line at the start of `piece`, if it is there to its end, and gives its length.
    fn usual_line(&mut self, piece: &[u8]) -> Option<usize> {
        // An item holds no line break, so its end is where a search for that would end.
        if let Some((event, count, length)) = item::usual(piece)
            && piece.get(length) == Some(&b'\n')
        {
            self.any_json = true;
            self.tally.add(event, count);
            return Some(length + 1);
        }
        let end = memchr::memchr(b'\n', piece)?;
        self.line(&piece[..end]);
        Some(end + 1)
    }

    fn line(&mut self, line: &[u8]) {
        if without_blanks(line).is_empty() {
            return;
        }
        match read(line) {
            Ok(item) => {
                self.any_json = true;
                take(item, &mut self.tally);
            }
            Err(_) => self.tally.reject_flawed(&Flaw::NotJson),
        }
    }

    /// The last line may lack its end.
    pub(super) fn finish(mut self) -> Result<Tally, NotABatch> {
        let last = std::mem::take(&mut self.begun);
        self.line(&last);
        if self.any_json { Ok(self.tally) } else { Err(NotABatch("no line of the body is JSON")) }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
