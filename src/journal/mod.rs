//! The local log: what was acknowledged at level `journal` or `disk` stands here before the answer
//! goes out, and stays until its batch is in the store.
//!
//! Appending only copies into a buffer. Whoever needs its record in the file writes the whole
//! buffer, so one write serves all who wait; one thread syncs for all who wait for the disk. This
//! module owns the failure protocol:
//! - A write that fails leaves no damage behind: the file is cut back to its last good length, the
//!   bytes stay in the buffer, and the journal is [`Health::Stalled`] until a retry succeeds.
//! - The first sync that fails is final: Linux reports such an error once and then calls the pages
//!   clean, so the journal is [`Health::Poisoned`], nobody gets an acknowledgement any more, and
//!   the process has to end. Start-up copies what can be read into new files. The folder's own sync is
//!   no exception.
//! - A file or folder that was deleted or moved away stalls the journal: a restart would not find what
//!   is written there.
//!
//!   (PostgreSQL wiki, "Fsync Errors"; Rebello et al., "Can Applications Recover from fsync
//!   Failures?", ATC 2020.)

mod data_dir;
pub mod files;
#[cfg(test)]
mod fuzz;
mod options;
pub mod record;
pub mod replay;
pub mod reserve;
mod sealed;
pub mod segment;
mod shared;
mod sync;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

pub use data_dir::{DataDir, OpenError};
use files::Files;
pub use options::Options;
use record::Seed;
use reserve::Reserve;
pub use sealed::{Rotated, SealedSegment};
use segment::{HEADER_BYTES, Kind, Segment, file_name};
use shared::{BUFFER_BYTES_MAX, Buffer, Shared, State};
use sync::Unsynced;

use crate::domain::{BatchId, Hour};

/// Bytes appended since the start, over all segments: what a record's end is known by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position(u64);

/// The journal took no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal can't be written")]
pub struct Unavailable;

/// Whether records can be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    Healthy,
    /// Not now: the disk is full or refuses writes, or `journal.bytes_max` is reached.
    Stalled(String),
    /// Never again in this process.
    Poisoned(String),
}

pub struct Journal {
    shared: Arc<Shared>,
    reserve: Arc<Reserve>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Journal {
    /// Begins with `segment` as the active one; `recovered_bytes` are in older segments. An error in its
    /// place is what the disk said: then the journal is stalled until [`Journal::resume`].
    ///
    /// # Errors
    /// When the thread that syncs can't be started.
    pub fn start(
        files: Arc<dyn Files>,
        reserve: Arc<Reserve>,
        options: Options,
        segment: io::Result<Segment>,
        recovered_bytes: u64,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(files, options, segment, recovered_bytes));
        let background = Arc::clone(&shared);
        let thread = || std::thread::Builder::new().name("journal".into()).spawn(move || background.run());
        let thread = options.own_thread.then(thread).transpose()?;
        Ok(Self { shared, reserve, thread })
    }

    /// Takes the sum of all earlier batches of the writer into the active segment.
    pub fn append_base(&self, base: i128) {
        // Without it, a comparison with the store after a crash knows less; no count depends on it.
        let _ = self.append_encoded(|bytes, seed, offset| record::encode_base(bytes, seed, offset, base));
    }

    /// Takes one record into the buffer. Short and synchronous; nothing is in the file yet.
    ///
    /// # Errors
    /// When the journal is not healthy or full; then the record is not taken.
    pub fn append<'a>(
        &self,
        hour: Hour,
        counts: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Result<Position, Unavailable> {
        self.append_encoded(|bytes, seed, offset| record::encode_counts(bytes, seed, offset, hour, counts))
    }

    /// Takes any number of counters, all or none: in one record, as long as they fit into one.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_all<'a>(
        &self,
        hour: Hour,
        counts: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> Result<Position, Unavailable> {
        self.append_encoded(|bytes, seed, offset| record::encode_all(bytes, seed, offset, hour, counts))
    }

    #[inline]
    fn append_encoded(&self, encode: impl FnOnce(&mut Vec<u8>, Seed, u64)) -> Result<Position, Unavailable> {
        let mut buffer = self.shared.buffer.lock();
        if !self.takes_records() {
            return Err(Unavailable);
        }
        let Buffer { bytes, offset, seed, .. } = &mut *buffer;
        let before = bytes.len();
        encode(bytes, *seed, *offset);
        let length = (bytes.len() - before) as u64;
        let backlog = bytes.len();
        buffer.offset += length;
        buffer.end.0 += length;
        let end = buffer.end;
        self.shared.appended.store(end.0, Ordering::Release);
        drop(buffer);
        if backlog > BUFFER_BYTES_MAX
            && let Some(mut turn) = self.shared.try_turn()
        {
            self.shared.write(&mut turn);
        }
        Ok(end)
    }

    #[must_use]
    pub fn takes_records(&self) -> bool {
        self.shared.state() == State::Healthy && !self.shared.is_full()
    }

    /// For who does not wait: sees to it that the record reaches the file soon.
    pub fn write_behind(&self) {
        if !self.shared.unattended.load(Ordering::Relaxed) && !self.shared.unattended.swap(true, Ordering::Relaxed) {
            let _queue = self.shared.queue.lock();
            self.shared.wake.notify_one();
        }
    }

    /// Whether the record that ends at `position` is in the file.
    #[must_use]
    pub fn is_written(&self, position: Position) -> bool {
        self.shared.is_written(position)
    }

    /// Writes for all who wait, unless somebody else is long at it: then `None`, and
    /// [`Journal::wait_written`] waits. Else whether the record that ends at `position` is in the file.
    pub fn try_write(&self, position: Position) -> Option<Result<(), Unavailable>> {
        if !self.shared.is_written(position) {
            let mut turn = self.shared.turn_soon()?;
            if !self.shared.is_written(position) {
                self.shared.write(&mut turn);
            }
        }
        Some(if self.shared.is_written(position) { Ok(()) } else { Err(Unavailable) })
    }

    /// Does what is to be done now of that which a thread of its own does else, see [`Options::own_thread`].
    pub fn attend(&self) {
        self.shared.attend(false);
    }

    /// Waits until the record that ends at `position` is in the file.
    ///
    /// # Errors
    /// When the journal fails first; whether the record survives a crash is unknown then.
    pub async fn wait_written(&self, position: Position) -> Result<(), Unavailable> {
        let shared = &*self.shared;
        if shared.is_written(position) {
            return Ok(());
        }
        // Group commit without a timer: let every request that is ready now append first. The task
        // that is polled next then writes for all of them.
        tokio::task::yield_now().await;
        loop {
            if shared.is_written(position) {
                return Ok(());
            }
            if shared.state() != State::Healthy || shared.is_abandoned(position) {
                return Err(Unavailable);
            }
            if let Some(mut turn) = shared.try_turn() {
                shared.write(&mut turn);
                continue;
            }
            // Another thread has its turn. Either it has let go by now, or its notice is still to come.
            let mut wrote = std::pin::pin!(shared.wrote.notified());
            wrote.as_mut().enable();
            if shared.is_written(position) || !shared.active.is_locked() || shared.state() != State::Healthy {
                continue;
            }
            wrote.await;
        }
    }

    /// Waits until the record that ends at `position` is on disk.
    ///
    /// # Errors
    /// As [`Journal::wait_written`], and when the sync fails.
    pub async fn wait_synced(&self, position: Position) -> Result<(), Unavailable> {
        let mut registered = None;
        std::future::poll_fn(|cx| self.poll_synced(position, &mut registered, cx)).await
    }

    /// [`Journal::wait_synced`] for who can't keep a future. `registered` is `None` at the first
    /// call, and the task must stay the same.
    pub fn poll_synced(
        &self,
        position: Position,
        registered: &mut Option<u64>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Unavailable>> {
        self.shared.poll_synced(position, registered, cx)
    }

    /// Ends the active segment and goes on in `next`. To be called while nobody appends.
    ///
    /// The end is safe on disk once [`Journal::wait_synced`] has seen its position. There is none where
    /// the file does not hold all that was appended: the journal could not be written, so nothing in
    /// the difference was acknowledged at level `journal`. Without a `next` the journal is stalled until
    /// [`Journal::resume`].
    pub fn rotate(&self, next: Option<Segment>) -> Rotated {
        let shared = &*self.shared;
        let mut active = shared.turn();
        shared.write(&mut active);
        let mut buffer = shared.buffer.lock();
        let is_whole = shared.state() == State::Healthy && buffer.end == active.written;
        let segment = SealedSegment::new(active.id, active.length);
        let (mut end, mut unwritten) = (None, 0);
        if is_whole && let Some(file) = active.file.clone() {
            let mut end_mark = Vec::new();
            record::encode_end(&mut end_mark, buffer.seed, buffer.offset);
            let length = end_mark.len() as u64;
            // A full disk must not keep the batch from the store, and the mark tells only that nothing follows.
            let marked = self.reserve.with(|| file.write_at(&end_mark, active.length)).is_ok();
            if marked {
                buffer.end.0 += length;
                active.length += length;
                segment.bytes.store(active.length, Ordering::Relaxed);
                shared.bytes.fetch_add(length, Ordering::Relaxed);
            }
            active.room = active.room.max(active.length + if marked { 0 } else { length });
            active.give_room_back();
            shared.queue.lock().sealed.push(Unsynced { file, length: active.length, seed: buffer.seed });
            end = Some(buffer.end);
        } else {
            unwritten = buffer.unwritten();
            shared.abandon(&mut buffer);
        }
        active.written = buffer.end;
        shared.appended.store(buffer.end.0, Ordering::Release);
        shared.written.store(buffer.end.0, Ordering::Release);
        match next {
            Some(next) => self.install(&mut active, &mut buffer, next),
            None => {
                active.file = None;
                drop(buffer);
                shared.note_stalled("the disk gives no new segment");
            }
        }
        Rotated { segment, end, unwritten }
    }

    fn install(&self, active: &mut shared::Active, buffer: &mut Buffer, segment: Segment) {
        (buffer.offset, buffer.seed) = (HEADER_BYTES, segment.seed);
        active.begin(segment);
        self.shared.bytes.fetch_add(HEADER_BYTES, Ordering::Relaxed);
        self.shared.note_healthy();
    }

    /// Goes on after [`Journal::rotate`] without a next segment. To be called while nobody appends.
    pub fn resume(&self, segment: Segment) {
        let mut active = self.shared.turn();
        let mut buffer = self.shared.buffer.lock();
        self.install(&mut active, &mut buffer, segment);
    }

    /// Whether there is no segment to append to.
    #[must_use]
    pub fn lacks_segment(&self) -> bool {
        self.shared.turn().file.is_none()
    }

    /// Whether the active segment's file has a name.
    ///
    /// # Errors
    /// When the disk does not tell.
    pub fn is_active_linked(&self) -> io::Result<bool> {
        let file = self.shared.turn().file.clone();
        file.map_or(Ok(true), |file| file.is_linked())
    }

    /// Goes on in `snapshot` as [`Journal::replace_active`] does, whether or not the active one could be
    /// written: the snapshot holds what is in the buffer, too. To be called while nobody appends.
    pub fn restart_active(&self, snapshot: Segment, length: u64) {
        {
            let mut active = self.shared.turn();
            let mut buffer = self.shared.buffer.lock();
            buffer.bytes.clear();
            active.written = buffer.end;
            self.shared.written.store(buffer.end.0, Ordering::Release);
        }
        self.replace_active(snapshot, length);
        self.shared.note_healthy();
    }

    /// The sum of the counts that wait in the buffer, in no file.
    #[must_use]
    pub fn unwritten(&self) -> u64 {
        let _active = self.shared.turn();
        self.shared.buffer.lock().unwritten()
    }

    /// Whether it can be written and synced, as far as is known.
    #[must_use]
    pub fn is_working(&self) -> bool {
        self.shared.state() == State::Healthy
    }

    /// Puts `snapshot`, a rewritten segment of the same batch that holds all that was appended so
    /// far in `length` bytes on disk, in the place of the active one. To be called while nobody
    /// appends and after [`Journal::write_all`].
    pub fn replace_active(&self, snapshot: Segment, length: u64) {
        let shared = &*self.shared;
        let mut active = shared.turn();
        let mut buffer = shared.buffer.lock();
        shared.bytes.fetch_sub(active.length, Ordering::Relaxed);
        shared.bytes.fetch_add(length, Ordering::Relaxed);
        active.file = Some(snapshot.file);
        (active.length, active.room) = (length, length);
        (active.synced, active.noted) = (length, length);
        buffer.offset = length;
        buffer.seed = snapshot.seed;
    }

    /// Writes all that was appended so far.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn write_all(&self) -> Result<(), Unavailable> {
        let mut active = self.shared.turn();
        self.shared.write(&mut active);
        if self.shared.state() == State::Healthy && self.shared.buffer.lock().end == active.written {
            Ok(())
        } else {
            Err(Unavailable)
        }
    }

    /// Makes the segment of a coming batch, ready to be rotated to: of the file `spare`, if there is one.
    ///
    /// # Errors
    /// When the disk refuses it. The journal is poisoned when the folder can't be synced.
    pub fn prepare(&self, id: BatchId, catalog: u64, spare: Option<&str>) -> io::Result<Segment> {
        let files = self.files();
        // A restart would not find what is written elsewhere.
        files.check_in_place()?;
        let recycled = spare.and_then(|spare| Segment::recycle(files, spare, id, catalog).ok());
        let segment = match recycled {
            Some(segment) => segment,
            None => self.reserve.with(|| Segment::create(files, id, catalog))?,
        };
        if let Err(error) = self.sync_folder() {
            let _ = files.remove(&file_name(id, Kind::Pending));
            return Err(error);
        }
        Ok(segment)
    }

    /// Whether a segment that was prepared some time ago is where a restart would look for it.
    #[must_use]
    pub fn is_ready(&self, segment: &Segment) -> bool {
        self.is_working()
            && self.files().check_in_place().is_ok()
            && segment.file.is_linked().is_ok_and(|linked| linked)
    }

    /// Makes the names of the folder's files durable.
    ///
    /// # Errors
    /// The disk's; the journal is poisoned then.
    pub fn sync_folder(&self) -> io::Result<()> {
        self.shared.sync_folder()
    }

    /// Gives a sealed segment the name of another kind; it then takes no room of the journal.
    ///
    /// # Errors
    /// When it still has its name afterwards.
    pub fn retire(&self, segment: &SealedSegment, kind: Kind) -> io::Result<()> {
        match self.files().rename(&file_name(segment.id, Kind::Pending), &file_name(segment.id, kind)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                self.note_length(segment, 0);
                Ok(())
            }
        }
    }

    /// Stalls the journal when its folder is not where a restart would look for it.
    pub fn check_in_place(&self) {
        self.shared.check_in_place();
    }

    /// Room that is kept free for when the disk is full.
    #[must_use]
    pub fn reserve(&self) -> &Reserve {
        &self.reserve
    }

    /// Takes note that the file of a sealed segment is `length` bytes long now.
    pub fn note_length(&self, segment: &SealedSegment, length: u64) {
        let before = segment.bytes.swap(length, Ordering::Relaxed);
        self.shared.bytes.fetch_add(length, Ordering::Relaxed);
        self.shared.bytes.fetch_sub(before, Ordering::Relaxed);
    }

    /// Position of the end of what was appended.
    #[must_use]
    pub fn end(&self) -> Position {
        Position(self.shared.appended.load(Ordering::Acquire))
    }

    /// Bytes in the active segment's file.
    #[must_use]
    pub fn active_bytes(&self) -> u64 {
        self.shared.turn().length
    }

    /// Bytes in all segments' files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    #[must_use]
    pub fn files(&self) -> &dyn Files {
        &*self.shared.files
    }

    #[must_use]
    pub fn health(&self) -> Health {
        match self.shared.state() {
            State::Healthy if self.shared.is_full() => {
                Health::Stalled("the segments together have reached journal.bytes_max".into())
            }
            State::Healthy => Health::Healthy,
            State::Stalled => Health::Stalled(self.shared.reason.lock().clone()),
            State::Poisoned => Health::Poisoned(self.shared.reason.lock().clone()),
        }
    }

    /// Returns once the journal is poisoned, with the reason.
    pub async fn poisoned(&self) -> String {
        self.shared.poisoned.cancelled().await;
        self.shared.reason.lock().clone()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.queue.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
