//! Some room on the disk that is kept free, for the few bytes without which a full disk could not be
//! emptied: a new segment's header, a segment's end, the note of what the store has confirmed.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::files::{Files, remove_if_there};

const NAME: &str = "RESERVE";
/// Enough for thousands of headers.
const BYTES: u64 = 256 << 10;
/// The reserve is taken back when the disk has this much room besides.
const FREE_BYTES_MIN: u64 = 4 * BYTES;

/// A file of zeros, given up when the disk is full and made again when it is not.
pub struct Reserve {
    files: Arc<dyn Files>,
    held: Mutex<bool>,
}

impl Reserve {
    /// Takes over the file of an earlier process. Call [`Reserve::restore`] to make one.
    #[must_use]
    pub fn find(files: Arc<dyn Files>) -> Self {
        let held = files.open(NAME).and_then(|file| file.length()).is_ok_and(|length| length >= BYTES);
        Self { files, held: Mutex::new(held) }
    }

    /// Does `work`; when the disk is full, gives up the reserve and does it once more.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn with<T>(&self, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if is_full(&error) && self.give_up() => work(),
            done => done,
        }
    }

    fn give_up(&self) -> bool {
        let mut held = self.held.lock();
        if *held && remove_if_there(&*self.files, NAME).is_ok() {
            *held = false;
            tracing::warn!("The disk is full: the journal uses its reserve");
            return true;
        }
        false
    }

    /// Makes the reserve if it is missing and there is room.
    pub fn restore(&self) {
        let mut held = self.held.lock();
        if *held || !self.files.free_bytes().is_ok_and(|free| free >= FREE_BYTES_MIN) {
            return;
        }
        let made = remove_if_there(&*self.files, NAME).and_then(|()| {
            let file = self.files.create(NAME)?;
            // Written, since a file of a length alone takes no room.
            file.write_at(&vec![0; BYTES as usize], 0)
        });
        match made {
            Ok(()) => *held = true,
            Err(_) => drop(self.files.remove(NAME)),
        }
    }
}

/// Whether the disk has no room, or its user may have no more.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
