//! What the journal's callers and its own thread share: the buffer, the active file, and who may
//! write to it. The rules of failure live here, so that no caller can forget them.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::segment::{HEADER_BYTES, Segment};
use super::{Options, Position, Unavailable, record};

/// How long a record that nobody waits for may stay in the buffer.
const WRITE_BEHIND: Duration = Duration::from_millis(20);
const WRITE_PATIENCE: Duration = Duration::from_micros(50);
/// By how much a file grows ahead of what is written: some thousand records, which sync in less than
/// a millisecond.
const ROOM_BYTES: u64 = 256 << 10;
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
    /// How far the file reaches: behind `length` there may be zeros.
    pub(super) room: u64,
    /// The file was synced since it became the active one.
    pub(super) synced: bool,
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

impl Active {
    /// Where one sync follows another, the file grows ahead, by zeros: a sync of bytes within a file
    /// need not write the file's new length, too, which makes it half as long.
    fn make_room(&mut self) {
        if self.length + ROOM_BYTES / 2 > self.room {
            let from = self.room.max(self.length);
            let zeros = vec![0; ROOM_BYTES as usize];
            // If the disk is full, the next write will say so.
            self.room = if self.file.write_all_at(&zeros, from).is_ok() { from + ROOM_BYTES } else { self.length };
        }
    }

    /// Cuts off room that was not used. Zeros that stay are no harm: replay knows them.
    pub(super) fn give_room_back(&mut self) {
        if self.room > self.length {
            let _ = self.file.set_len(self.length);
        }
    }
}

#[derive(Default)]
pub(super) struct SyncQueue {
    pub(super) requested: u64,
    /// Who waits, and for what.
    waiting: Vec<(u64, Waker)>,
    /// How often all who waited were told that the journal has failed.
    failures: u64,
    /// Before this, only a full group begins a sync.
    hold: Option<Hold>,
    /// Sealed files whose last bytes have not been synced yet, oldest first.
    pub(super) sealed: Vec<Arc<File>>,
    pub(super) closing: bool,
}

/// Longest rest between two syncs. A disk that takes longer gathers large groups by itself.
const HOLD_MAX: Duration = Duration::from_millis(1);

/// On a quick disk, syncs one right after the other would take most of a core for groups of a few
/// records. So after a group was released, the next sync begins when as many wait again, or after a
/// rest twice as long as the last sync took. Who was alone does not wait.
#[derive(Clone, Copy)]
struct Hold {
    until: Instant,
    group: usize,
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
    synced: AtomicU64,
    pub(super) poisoned: CancellationToken,
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
            room: HEADER_BYTES,
            synced: false,
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
            synced: AtomicU64::new(0),
            poisoned: CancellationToken::new(),
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

    /// Waits for its turn about as long as a write into the page cache takes, which costs less than to
    /// be woken.
    pub(super) fn turn_soon(&self) -> Option<Turn<'_>> {
        Some(Turn { active: Some(self.active.try_lock_for(WRITE_PATIENCE)?), wrote: &self.wrote })
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
    pub(super) fn stall(&self, active: &mut Active, error: &io::Error) {
        active.room = active.length;
        if let Err(truncating) = active.file.set_len(active.length) {
            self.poison(&format!("after a failed write ({error}) the segment can't be cut back: {truncating}"));
        } else if self.state() == State::Healthy {
            tracing::error!(%error, "The journal can't be written: POSTs are refused until it can");
            *self.reason.lock() = error.to_string();
            self.state.store(State::Stalled as u8, Ordering::Release);
            self.fail_waiting();
            self.wake.notify_one();
        }
    }

    pub(super) fn poison(&self, reason: &str) {
        tracing::error!(reason, "The journal is poisoned");
        *self.reason.lock() = reason.to_owned();
        self.state.store(State::Poisoned as u8, Ordering::Release);
        self.fail_waiting();
        self.wrote.notify_waiters();
        self.poisoned.cancel();
    }

    /// Asks for a sync and is ready when it has reached `position`, or failed. `registered` is `None`
    /// at the first call.
    pub(super) fn poll_synced(
        &self,
        position: Position,
        registered: &mut Option<u64>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Unavailable>> {
        if self.synced.load(Ordering::Acquire) >= position.0 {
            return Poll::Ready(Ok(()));
        }
        let mut queue = self.queue.lock();
        // Looked at with the lock that `release` takes afterwards, so that nobody is left behind.
        if self.synced.load(Ordering::Acquire) >= position.0 {
            return Poll::Ready(Ok(()));
        }
        // Nobody wakes again who was told of a failure, even if the journal is healthy by now.
        if self.state() != State::Healthy || registered.is_some_and(|failures| failures != queue.failures) {
            return Poll::Ready(Err(Unavailable));
        }
        if registered.is_none() {
            *registered = Some(queue.failures);
            queue.waiting.push((position.0, cx.waker().clone()));
            queue.requested = queue.requested.max(position.0);
            // Between the first and a full group, the journal's thread waits for time to pass.
            let waiting = queue.waiting.len();
            if waiting == 1 || queue.hold.is_none_or(|hold| waiting >= hold.group) {
                self.wake.notify_one();
            }
        }
        Poll::Pending
    }

    /// Has all who wait for a sync hear that the journal has failed.
    fn fail_waiting(&self) {
        let waiting = {
            let mut queue = self.queue.lock();
            queue.failures += 1;
            std::mem::take(&mut queue.waiting)
        };
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Wakes who waits for something up to `position`; returns how many.
    fn release(&self, position: u64) -> usize {
        let released: Vec<_> = self.queue.lock().waiting.extract_if(.., |(waits, _)| *waits <= position).collect();
        let group = released.len();
        released.into_iter().for_each(|(_, waker)| waker.wake());
        group
    }

    /// The journal's own thread: syncs for who waits, writes for who does not, retries when stalled.
    pub(super) fn run(&self) {
        loop {
            let closing = self.wait_for_work();
            if self.unattended.swap(false, Ordering::Relaxed) || self.state() == State::Stalled || closing {
                self.write(&mut self.turn());
            }
            if self.state() == State::Healthy && self.is_behind(&self.queue.lock()) {
                self.sync();
            }
            if closing {
                return;
            }
        }
    }

    fn is_behind(&self, queue: &SyncQueue) -> bool {
        self.synced.load(Ordering::Relaxed) < queue.requested
    }

    fn wait_for_work(&self) -> bool {
        let mut queue = self.queue.lock();
        loop {
            let state = self.state();
            if queue.closing {
                return true;
            }
            if state == State::Healthy && self.is_behind(&queue) {
                match queue.hold {
                    Some(Hold { until, group }) if queue.waiting.len() < group => {
                        if self.wake.wait_until(&mut queue, until).timed_out() {
                            queue.hold = None;
                        }
                        continue;
                    }
                    _ => return false,
                }
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
        let began = Instant::now();
        let mut turn = self.turn();
        self.write(&mut turn);
        if std::mem::replace(&mut turn.synced, true) {
            turn.make_room();
        }
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
        self.synced.store(through.0, Ordering::Release);
        let group = self.release(through.0);
        let now = Instant::now();
        self.queue.lock().hold = (group > 1).then(|| Hold { until: now + (2 * (now - began)).min(HOLD_MAX), group });
    }
}
