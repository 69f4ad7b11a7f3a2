//! What the journal's callers and its own thread share: the buffer, the active file, and who may
//! write to it. The rules of failure live here, so that no caller can forget them.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::files::{FileHandle, Files};
use super::segment::{HEADER_BYTES, Segment};
use super::sync::SyncQueue;
use super::{Options, Position, record};
use crate::domain::{BatchId, BatchSeq, WriterId};

const WRITE_PATIENCE: Duration = Duration::from_micros(50);
/// By how much a file grows ahead of what is written: some thousand records, which sync in less than
/// a millisecond.
const ROOM_BYTES: u64 = 256 << 10;
/// Room that may stay behind the end of a segment: less than a next segment in its file is going to take.
const LEFT_BYTES_MAX: u64 = 64 << 10;
/// What a stalled journal with an empty buffer tries to write: as much as a small group of records.
const PROBE: [u8; 4096] = [0; 4096];
/// Whoever appends beyond this writes, so that the buffer stays small whatever nobody waits for.
pub(super) const BUFFER_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum State {
    Healthy,
    Stalled,
    Poisoned,
}

pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    /// Where the next record will stand in the active segment.
    pub(super) offset: u64,
    pub(super) end: Position,
    pub(super) seed: record::Seed,
}

impl Buffer {
    /// The sum of its counts.
    pub(super) fn unwritten(&self) -> u64 {
        record::sum(&self.bytes, self.seed, self.offset - self.bytes.len() as u64)
    }
}

/// The active segment; [`Turn`] is the right to write to it.
pub(super) struct Active {
    pub(super) id: BatchId,
    /// `None`: the disk refused a new one, the journal is stalled until it gives one.
    pub(super) file: Option<Arc<dyn FileHandle>>,
    /// Length of the part that is known to be good.
    pub(super) length: u64,
    /// How far the file reaches: behind `length` there may be zeros.
    pub(super) room: u64,
    /// How much of the file is on disk, and how much of that its own records say.
    pub(super) synced: u64,
    pub(super) noted: u64,
    /// Positions of its beginning and of its end.
    pub(super) begins: Position,
    pub(super) written: Position,
    /// Taken in turn with the buffer's own, so that neither is allocated anew for each write.
    pub(super) spare: Vec<u8>,
}

/// Holds the active segment. Who finds it taken waits for [`Shared::wrote`], so every turn ends by
/// letting go first and notifying then.
pub(super) struct Turn<'a> {
    active: Option<MutexGuard<'a, Active>>,
    wrote: &'a Notify,
}

impl Deref for Turn<'_> {
    type Target = Active;
    #[expect(clippy::expect_used, reason = "only Drop takes the guard out")]
    fn deref(&self) -> &Active {
        self.active.as_ref().expect("held until dropped")
    }
}

impl DerefMut for Turn<'_> {
    #[expect(clippy::expect_used, reason = "only Drop takes the guard out")]
    fn deref_mut(&mut self) -> &mut Active {
        self.active.as_mut().expect("held until dropped")
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.active.take();
        self.wrote.notify_waiters();
    }
}

impl Active {
    fn none() -> Self {
        let id = BatchId { writer: WriterId([0; 16]), seq: BatchSeq(0) };
        let (written, spare) = (Position(0), Vec::new());
        Self { id, file: None, length: 0, room: 0, synced: 0, noted: 0, begins: written, written, spare }
    }

    fn beginning(segment: Segment, written: Position, spare: Vec<u8>) -> Self {
        Self {
            id: segment.id,
            file: Some(segment.file),
            length: HEADER_BYTES,
            room: segment.room,
            synced: 0,
            noted: 0,
            begins: written,
            written,
            spare,
        }
    }

    /// Goes on in another segment, empty but for its header.
    pub(super) fn begin(&mut self, segment: Segment) {
        *self = Self::beginning(segment, self.written, std::mem::take(&mut self.spare));
    }

    /// Where one sync follows another, the file grows ahead, by zeros: a sync of bytes within a file
    /// need not write the file's new length, too, which makes it half as long.
    pub(super) fn make_room(&mut self) {
        if self.length + ROOM_BYTES / 2 > self.room {
            let from = self.room.max(self.length);
            let zeros = vec![0; ROOM_BYTES as usize];
            // If the disk is full, the next write will say so.
            let made = self.file.as_ref().is_some_and(|file| file.write_at(&zeros, from).is_ok());
            self.room = if made { from + ROOM_BYTES } else { self.length };
        }
    }

    /// Cuts off room that was not used, where it is worth it. Zeros that stay are no harm: replay knows them.
    pub(super) fn give_room_back(&mut self) {
        if self.room > self.length + LEFT_BYTES_MAX
            && let Some(file) = &self.file
        {
            let _ = file.set_length(self.length);
        }
    }
}

pub(super) struct Shared {
    pub(super) files: Arc<dyn Files>,
    pub(super) options: Options,
    pub(super) buffer: Mutex<Buffer>,
    pub(super) active: Mutex<Active>,
    /// Positions of the ends of what was appended and of what is in the file; the truth is in
    /// `buffer` and `active`, these are for looking at without a lock.
    pub(super) appended: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) wrote: Notify,
    pub(super) synced: AtomicU64,
    pub(super) poisoned: CancellationToken,
    pub(super) queue: Mutex<SyncQueue>,
    pub(super) wake: Condvar,
    /// Somebody appended and does not wait.
    pub(super) unattended: AtomicBool,
    pub(super) state: AtomicU8,
    pub(super) reason: Mutex<String>,
    /// Bytes of all segments that wait for their commits.
    pub(super) bytes: AtomicU64,
    /// Stretches of positions whose records no file will ever hold: a batch was sealed while the
    /// journal could not be written. Mostly none.
    abandoned: Mutex<Vec<(Position, Position)>>,
    has_abandoned: AtomicBool,
}

impl Shared {
    /// Begins with an empty `segment` as the active one; `recovered_bytes` are in older segments.
    pub(super) fn new(
        files: Arc<dyn Files>,
        options: Options,
        segment: io::Result<Segment>,
        recovered_bytes: u64,
    ) -> Self {
        let seed = segment.as_ref().map_or(record::Seed(0), |segment| segment.seed);
        let buffer = Buffer { bytes: Vec::new(), offset: HEADER_BYTES, end: Position(0), seed };
        let stalled = segment.as_ref().err().map(|error| format!("the disk gives no new segment: {error}"));
        if let Some(reason) = &stalled {
            tracing::error!(reason, "The journal can't be written: POSTs are refused until it can");
        }
        let state = if stalled.is_none() { State::Healthy } else { State::Stalled };
        let active =
            segment.map_or_else(|_| Active::none(), |segment| Active::beginning(segment, Position(0), Vec::new()));
        Self {
            files,
            options,
            buffer: Mutex::new(buffer),
            active: Mutex::new(active),
            appended: AtomicU64::new(0),
            written: AtomicU64::new(0),
            wrote: Notify::new(),
            synced: AtomicU64::new(0),
            poisoned: CancellationToken::new(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            unattended: AtomicBool::new(false),
            state: AtomicU8::new(state as u8),
            reason: Mutex::new(stalled.unwrap_or_default()),
            bytes: AtomicU64::new(recovered_bytes + if state == State::Healthy { HEADER_BYTES } else { 0 }),
            abandoned: Mutex::default(),
            has_abandoned: AtomicBool::new(false),
        }
    }

    pub(super) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Healthy,
            1 => State::Stalled,
            _ => State::Poisoned,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.options.bytes_max
    }

    pub(super) fn is_written(&self, position: Position) -> bool {
        self.written.load(Ordering::Acquire) >= position.0 && !self.is_abandoned(position)
    }

    /// Whether no file will ever hold the record that ends at `position`.
    pub(super) fn is_abandoned(&self, position: Position) -> bool {
        self.has_abandoned.load(Ordering::Acquire)
            && self.abandoned.lock().iter().any(|(after, through)| *after < position && position <= *through)
    }

    /// Gives up what is in the buffer: its counts are in a batch that is sealed without it. Nobody syncs
    /// what is in the file, either, so nothing of that may be called durable later.
    pub(super) fn abandon(&self, buffer: &mut Buffer) {
        buffer.bytes.clear();
        let synced = Position(self.synced.load(Ordering::Acquire));
        if synced < buffer.end {
            let mut abandoned = self.abandoned.lock();
            match abandoned.last_mut() {
                Some((_, through)) if *through >= synced => *through = buffer.end,
                _ => abandoned.push((synced, buffer.end)),
            }
            self.has_abandoned.store(true, Ordering::Release);
        }
    }

    pub(super) fn is_synced(&self, position: u64) -> bool {
        self.synced.load(Ordering::Acquire) >= position && !self.is_abandoned(Position(position))
    }

    pub(super) fn turn(&self) -> Turn<'_> {
        Turn { active: Some(self.active.lock()), wrote: &self.wrote }
    }

    pub(super) fn try_turn(&self) -> Option<Turn<'_>> {
        Some(Turn { active: Some(self.active.try_lock()?), wrote: &self.wrote })
    }

    /// Waits for its turn about as long as a write into the page cache takes, which costs less than to
    /// be woken.
    pub(super) fn turn_soon(&self) -> Option<Turn<'_>> {
        Some(Turn { active: Some(self.active.try_lock_for(WRITE_PATIENCE)?), wrote: &self.wrote })
    }

    /// Writes the whole buffer at the end of the active segment.
    pub(super) fn write(&self, active: &mut Active) {
        let Some(file) = active.file.clone() else { return };
        if self.state() == State::Poisoned {
            return;
        }
        let mut bytes = std::mem::take(&mut active.spare);
        self.take_buffer(active, &mut bytes);
        if bytes.is_empty() {
            active.spare = bytes;
            return;
        }
        let mut written = file.write_at(&bytes, active.length).and_then(|()| self.check_linked(&*file));
        if self.state() == State::Stalled {
            written = written.and_then(|()| self.files.check_in_place());
        }
        match written {
            Ok(()) => {
                active.length += bytes.len() as u64;
                active.written.0 += bytes.len() as u64;
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                self.written.store(active.written.0, Ordering::Release);
                bytes.clear();
                bytes.shrink_to(BUFFER_BYTES_MAX);
                active.spare = bytes;
                self.note_healthy();
            }
            Err(error) => {
                self.stall(active, &error);
                // What could not be written goes back in front of what has come since.
                let mut buffer = self.buffer.lock();
                bytes.append(&mut buffer.bytes);
                buffer.bytes = bytes;
            }
        }
    }

    /// Changes the buffer's bytes for the empty `bytes`, behind them a note of the last sync if the
    /// segment lacks it. The note costs no write of its own, so an idle journal stays idle.
    fn take_buffer(&self, active: &mut Active, bytes: &mut Vec<u8>) {
        let mut buffer = self.buffer.lock();
        if !buffer.bytes.is_empty() && active.synced > active.noted {
            let Buffer { bytes, offset, seed, .. } = &mut *buffer;
            let before = bytes.len();
            record::encode_synced(bytes, *seed, *offset, active.synced);
            let length = (bytes.len() - before) as u64;
            buffer.offset += length;
            buffer.end.0 += length;
            self.appended.store(buffer.end.0, Ordering::Release);
            active.noted = active.synced;
        }
        std::mem::swap(bytes, &mut buffer.bytes);
    }

    /// What is written to a file without a name is gone with the process.
    fn check_linked(&self, file: &dyn FileHandle) -> io::Result<()> {
        if file.is_linked()? { Ok(()) } else { Err(gone()) }
    }

    pub(super) fn note_healthy(&self) {
        if self.state() == State::Stalled {
            self.state.store(State::Healthy as u8, Ordering::Release);
            tracing::info!("The journal can be written again");
        }
    }

    /// A stalled journal with nothing to write finds out whether it could.
    pub(super) fn probe(&self, active: &mut Active) {
        let Some(file) = active.file.clone() else { return };
        let writable = file
            .write_at(&PROBE, active.length)
            .and_then(|()| file.set_length(active.length))
            .and_then(|()| self.check_linked(&*file))
            .and_then(|()| self.files.check_in_place());
        active.room = active.length;
        match writable {
            Ok(()) => self.note_healthy(),
            Err(error) => self.stall(active, &error),
        }
    }

    /// After a failed write: no half-written record may stay before what is written later.
    pub(super) fn stall(&self, active: &mut Active, error: &io::Error) {
        active.room = active.length;
        let cut = active.file.as_ref().map_or(Ok(()), |file| file.set_length(active.length));
        if let Err(truncating) = cut {
            self.poison(&format!("after a failed write ({error}) the segment can't be cut back: {truncating}"));
        } else {
            self.note_stalled(&error.to_string());
        }
    }

    pub(super) fn note_stalled(&self, reason: &str) {
        let first = self.state() == State::Healthy;
        if first {
            tracing::error!(reason, "The journal can't be written: POSTs are refused until it can");
        }
        if self.state() != State::Poisoned {
            reason.clone_into(&mut self.reason.lock());
            self.state.store(State::Stalled as u8, Ordering::Release);
        }
        if first {
            self.fail_waiting();
            self.wrote.notify_waiters();
            self.wake.notify_one();
        }
    }

    /// The segment, or the folder's path, is gone: a restart would find nothing of what is written.
    pub(super) fn check_in_place(&self) {
        if self.state() == State::Healthy
            && let Err(error) = self.files.check_in_place()
        {
            self.note_stalled(&format!("the data folder is gone: {error}"));
        }
    }

    /// Makes the names in the folder durable.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        self.files.sync_folder().inspect_err(|error| self.poison(&format!("a sync of the folder failed: {error}")))
    }

    pub(super) fn poison(&self, reason: &str) {
        if self.state() == State::Poisoned {
            return;
        }
        tracing::error!(reason, "The journal is poisoned");
        *self.reason.lock() = reason.to_owned();
        self.state.store(State::Poisoned as u8, Ordering::Release);
        self.fail_waiting();
        self.wrote.notify_waiters();
        self.poisoned.cancel();
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the segment's file was deleted")
}
