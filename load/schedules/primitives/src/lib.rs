//! The standard library and `parking_lot`, with locks, atomics and threads of `shuttle`: at each of them its
//! scheduler decides which thread goes on. For sources that are compiled once more to be tested, see
//! `event-schedules`; of `parking_lot` there is what they use.
//!
//! Time does not pass in a schedule. A wait with a time limit is over at once, which is a schedule that the real one
//! allows, too.

pub use std::*;

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

pub mod sync {
    //! As in the standard library.

    pub use std::sync::*;

    pub mod atomic {
        //! As in the standard library, but all are sequentially consistent: weaker orders are not tried.

        pub use shuttle::sync::atomic::*;
    }
}

pub mod thread {
    //! As in the standard library.

    pub use shuttle::thread::*;
}

const POISONED: &str = "a thread has panicked, which ends the schedule";

/// As in `parking_lot`.
#[derive(Default, Debug)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

/// As in `parking_lot`.
pub struct MutexGuard<'a, T> {
    mutex: &'a shuttle::sync::Mutex<T>,
    held: Option<shuttle::sync::MutexGuard<'a, T>>,
}

#[expect(clippy::expect_used, reason = "a schedule may fail by panicking, and only a wait takes the guard out")]
impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: &self.0, held: Some(self.0.lock().expect(POISONED)) }
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok().map(|held| MutexGuard { mutex: &self.0, held: Some(held) })
    }

    pub fn try_lock_for(&self, _: Duration) -> Option<MutexGuard<'_, T>> {
        self.try_lock()
    }

    pub fn is_locked(&self) -> bool {
        self.0.try_lock().is_err()
    }

    pub fn into_inner(self) -> T {
        self.0.into_inner().expect(POISONED)
    }
}

#[expect(clippy::expect_used, reason = "only a wait takes the guard out, and puts one back")]
impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("held until dropped")
    }
}

#[expect(clippy::expect_used, reason = "only a wait takes the guard out, and puts one back")]
impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("held until dropped")
    }
}

/// As in `parking_lot`.
#[derive(Default, Debug)]
pub struct Condvar(shuttle::sync::Condvar);

/// As in `parking_lot`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitTimeoutResult;

impl WaitTimeoutResult {
    #[must_use]
    pub fn timed_out(self) -> bool {
        true
    }
}

#[expect(clippy::expect_used, reason = "a schedule may fail by panicking, and only a wait takes the guard out")]
impl Condvar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect("held until dropped");
        guard.held = Some(self.0.wait(held).expect(POISONED));
    }

    /// Lets others go on, without the lock.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> WaitTimeoutResult {
        drop(guard.held.take());
        shuttle::thread::yield_now();
        guard.held = Some(guard.mutex.lock().expect(POISONED));
        WaitTimeoutResult
    }

    /// As [`Condvar::wait_for`].
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) -> WaitTimeoutResult {
        self.wait_for(guard, Duration::ZERO)
    }
}

/// As in `parking_lot`.
#[derive(Default, Debug)]
pub struct RwLock<T>(shuttle::sync::RwLock<T>);

pub type RwLockReadGuard<'a, T> = shuttle::sync::RwLockReadGuard<'a, T>;
pub type RwLockWriteGuard<'a, T> = shuttle::sync::RwLockWriteGuard<'a, T>;

#[expect(clippy::expect_used, reason = "a schedule may fail by panicking")]
impl<T> RwLock<T> {
    pub fn new(value: T) -> Self {
        Self(shuttle::sync::RwLock::new(value))
    }

    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().expect(POISONED)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().expect(POISONED)
    }
}
