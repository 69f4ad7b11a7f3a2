//! The journal's own thread: it syncs for all who wait for the disk, writes what nobody waits for, and
//! tries again when the journal is stalled.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::files::FileHandle;
use super::shared::{Shared, State};
use super::{Position, Unavailable, record};

/// How long a record that nobody waits for may stay in the buffer.
const WRITE_BEHIND: Duration = Duration::from_millis(20);
/// How often a stalled journal tries again.
const STALL_RETRY: Duration = Duration::from_millis(250);

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
    pub(super) sealed: Vec<Unsynced>,
    pub(super) closing: bool,
}

/// A whole sealed file, its length and the seed of its records.
pub(super) struct Unsynced {
    pub(super) file: Arc<dyn FileHandle>,
    pub(super) length: u64,
    pub(super) seed: record::Seed,
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

impl Shared {
    /// Asks for a sync and is ready when it has reached `position`, or failed. `registered` is `None`
    /// at the first call.
    pub(super) fn poll_synced(
        &self,
        position: Position,
        registered: &mut Option<u64>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Unavailable>> {
        if self.is_synced(position.0) {
            return Poll::Ready(Ok(()));
        }
        let mut queue = self.queue.lock();
        // Looked at with the lock that `release` takes afterwards, so that nobody is left behind.
        if self.is_synced(position.0) {
            return Poll::Ready(Ok(()));
        }
        if self.is_abandoned(position) {
            return Poll::Ready(Err(Unavailable));
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
    pub(super) fn fail_waiting(&self) {
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
            self.attend(closing);
            if closing {
                return;
            }
        }
    }

    /// One turn of it.
    pub(super) fn attend(&self, closing: bool) {
        if self.unattended.swap(false, Ordering::Relaxed) || self.state() == State::Stalled || closing {
            let mut turn = self.turn();
            self.write(&mut turn);
            if self.state() == State::Stalled && self.buffer.lock().bytes.is_empty() {
                self.probe(&mut turn);
            }
        }
        if self.state() == State::Healthy && self.is_behind(&self.queue.lock()) {
            self.sync();
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
        let requested = self.queue.lock().requested;
        let mut turn = self.turn();
        // Mostly nobody waits for the first records of a segment when its predecessor is to be committed.
        let (file, length, through) = if requested <= turn.begins.0 {
            (None, 0, turn.begins)
        } else {
            self.write(&mut turn);
            if turn.synced > 0 {
                turn.make_room();
            }
            (turn.file.clone(), turn.length, turn.written)
        };
        drop(turn);
        let sealed = std::mem::take(&mut self.queue.lock().sealed);
        // Oldest first: a record may be called durable only when all before it are.
        let files = sealed.iter().map(|sealed| &sealed.file).chain(&file);
        for file in files {
            if let Err(error) = file.sync() {
                self.poison(&format!("a sync failed: {error}"));
                return;
            }
        }
        for Unsynced { file, length, seed } in sealed {
            let mut note = Vec::new();
            record::encode_synced(&mut note, seed, length, length);
            // Without it, damage in this file would pass for a torn tail; the counts are safe as they are.
            let _ = file.write_at(&note, length);
        }
        let mut turn = self.turn();
        if let (Some(synced), Some(active)) = (&file, &turn.file)
            && Arc::ptr_eq(synced, active)
        {
            turn.synced = length;
        }
        drop(turn);
        self.synced.fetch_max(through.0, Ordering::Release);
        let group = self.release(through.0);
        let now = Instant::now();
        self.queue.lock().hold = (group > 1).then(|| Hold { until: now + (2 * (now - began)).min(HOLD_MAX), group });
    }
}
