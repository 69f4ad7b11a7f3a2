//! What the journal's callers and its own thread share: the buffer, the active file, and who may
//! write to it. The rules of failure live here, so that no caller can forget them.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use super::segment::{HEADER_BYTES, Segment};
use super::{Options, Position, record};

/// How long a record that nobody waits for may stay in the buffer.
const WRITE_BEHIND: Duration = Duration::from_millis(20);
/// How often a stalled journal tries again.
const STALL_RETRY: Duration = Duration::from_millis(250);
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

/// The active segment; [`Turn`] is the right to write to it.
pub(super) struct Active {
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    /// Length of the part that is known to be good.
    pub(super) length: u64,
    /// Position of its end.
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

#[derive(Default)]
pub(super) struct SyncQueue {
    pub(super) requested: u64,
    /// Sealed files whose last bytes have not been synced yet, oldest first.
    pub(super) sealed: Vec<Arc<File>>,
    pub(super) closing: bool,
}

pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) buffer: Mutex<Buffer>,
    pub(super) active: Mutex<Active>,
    /// Positions of the ends of what was appended and of what is in the file; the truth is in
    /// `buffer` and `active`, these are for looking at without a lock.
    pub(super) appended: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) wrote: Notify,
    pub(super) synced: watch::Sender<u64>,
    pub(super) queue: Mutex<SyncQueue>,
    pub(super) wake: Condvar,
    /// Somebody appended and does not wait.
    pub(super) unattended: AtomicBool,
    pub(super) state: AtomicU8,
    pub(super) reason: Mutex<String>,
    /// Bytes of all segments.
    pub(super) bytes: AtomicU64,
}

impl Shared {
    /// Begins with an empty `segment` as the active one; `recovered_bytes` are in older segments.
    pub(super) fn new(dir: PathBuf, options: Options, segment: Segment, recovered_bytes: u64) -> Self {
        let buffer = Buffer { bytes: Vec::new(), offset: HEADER_BYTES, end: Position(0), seed: segment.seed };
        let active = Active {
            path: segment.path,
            file: Arc::new(segment.file),
            length: HEADER_BYTES,
            written: Position(0),
            spare: Vec::new(),
        };
        Self {
            dir,
            options,
            buffer: Mutex::new(buffer),
            active: Mutex::new(active),
            appended: AtomicU64::new(0),
            written: AtomicU64::new(0),
            wrote: Notify::new(),
            synced: watch::Sender::new(0),
            queue: Mutex::default(),
            wake: Condvar::new(),
            unattended: AtomicBool::new(false),
            state: AtomicU8::new(State::Healthy as u8),
            reason: Mutex::default(),
            bytes: AtomicU64::new(recovered_bytes + HEADER_BYTES),
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
        self.written.load(Ordering::Acquire) >= position.0
    }

    pub(super) fn turn(&self) -> Turn<'_> {
        Turn { active: Some(self.active.lock()), wrote: &self.wrote }
    }

    pub(super) fn try_turn(&self) -> Option<Turn<'_>> {
        Some(Turn { active: Some(self.active.try_lock()?), wrote: &self.wrote })
    }

    /// Writes the whole buffer at the end of the active segment.
    pub(super) fn write(&self, active: &mut Active) {
        let mut bytes = std::mem::take(&mut active.spare);
        std::mem::swap(&mut bytes, &mut self.buffer.lock().bytes);
        if self.state() == State::Poisoned || bytes.is_empty() {
            active.spare = bytes;
            return;
        }
        match active.file.write_all_at(&bytes, active.length) {
            Ok(()) => {
                active.length += bytes.len() as u64;
                active.written.0 += bytes.len() as u64;
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                self.written.store(active.written.0, Ordering::Release);
                bytes.clear();
                bytes.shrink_to(BUFFER_BYTES_MAX);
                active.spare = bytes;
                if self.state() == State::Stalled {
                    self.state.store(State::Healthy as u8, Ordering::Release);
                    tracing::info!("The journal can be written again");
                }
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

    /// After a failed write: no half-written record may stay before what is written later.
    pub(super) fn stall(&self, active: &Active, error: &io::Error) {
        if let Err(truncating) = active.file.set_len(active.length) {
            self.poison(&format!("after a failed write ({error}) the segment can't be cut back: {truncating}"));
        } else if self.state() == State::Healthy {
            tracing::error!(%error, "The journal can't be written: POSTs are refused until it can");
            *self.reason.lock() = error.to_string();
            self.state.store(State::Stalled as u8, Ordering::Release);
            self.synced.send_modify(|_| ());
            self.wake.notify_one();
        }
    }

    pub(super) fn poison(&self, reason: &str) {
        tracing::error!(reason, "The journal is poisoned");
        *self.reason.lock() = reason.to_owned();
        self.state.store(State::Poisoned as u8, Ordering::Release);
        self.synced.send_modify(|_| ());
        self.wrote.notify_waiters();
    }

    pub(super) fn request_sync(&self, position: Position) {
        let mut queue = self.queue.lock();
        if queue.requested < position.0 {
            queue.requested = position.0;
            self.wake.notify_one();
        }
    }

    /// The journal's own thread: syncs for who waits, writes for who does not, retries when stalled.
    pub(super) fn run(&self) {
        loop {
            let closing = self.wait_for_work();
            if self.unattended.swap(false, Ordering::Relaxed) || self.state() == State::Stalled || closing {
                self.write(&mut self.turn());
            }
            if self.state() == State::Healthy && *self.synced.borrow() < self.queue.lock().requested {
                self.sync();
            }
            if closing {
                return;
            }
        }
    }

    fn wait_for_work(&self) -> bool {
        let mut queue = self.queue.lock();
        loop {
            let state = self.state();
            if queue.closing || (state == State::Healthy && *self.synced.borrow() < queue.requested) {
                return queue.closing;
            }
            if state == State::Stalled {
                self.wake.wait_for(&mut queue, STALL_RETRY);
                return queue.closing;
            }
            if self.unattended.load(Ordering::Relaxed) {
                // Let more come together; a request to sync cuts it short.
                self.wake.wait_for(&mut queue, WRITE_BEHIND);
                return queue.closing;
            }
            self.wake.wait(&mut queue);
        }
    }

    fn sync(&self) {
        let mut turn = self.turn();
        self.write(&mut turn);
        let (file, through) = (Arc::clone(&turn.file), turn.written);
        drop(turn);
        let sealed = std::mem::take(&mut self.queue.lock().sealed);
        // Oldest first: a record may be called durable only when all before it are.
        for file in sealed.iter().chain([&file]) {
            if let Err(error) = file.sync_data() {
                self.poison(&format!("a sync failed: {error}"));
                return;
            }
        }
        self.synced.send_replace(through.0);
    }
}
