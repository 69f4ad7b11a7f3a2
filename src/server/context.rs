//! What belongs to one connection beside its bytes.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::gate::{Debt, Owed};
use crate::domain::Hour;

/// What belongs to one connection and what its requests share. All of it is used by one task; the atomic and the lock
/// are for the type system.
pub struct ConnectionContext {
    peer: IpAddr,
    /// The hour that counts of the present poll are stamped with: one look at the clock serves all requests that came
    /// together.
    hour: AtomicU32,
    /// What the answers wait for that were made in the present poll.
    owed: Mutex<Option<Owed>>,
}

const NO_HOUR: u32 = u32::MAX;

impl ConnectionContext {
    pub(super) fn new(peer: IpAddr) -> Self {
        Self { peer, hour: AtomicU32::new(NO_HOUR), owed: Mutex::default() }
    }

    /// The other end of the connection.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The hour in which the requests of the present poll have arrived.
    #[must_use]
    pub fn hour(&self, clock: impl FnOnce() -> SystemTime) -> Hour {
        Hour::from_number(self.hour.load(Ordering::Relaxed)).unwrap_or_else(|| {
            let hour = Hour::containing(clock());
            self.hour.store(hour.number(), Ordering::Relaxed);
            hour
        })
    }

    /// To be called before every poll of the connection.
    pub(super) fn begin_poll(&self) {
        self.hour.store(NO_HOUR, Ordering::Relaxed);
    }

    pub(super) fn owe(&self, debt: Debt) {
        let mut owed = self.owed.lock();
        *owed = Some(Owed::and(*owed, debt.into()));
    }

    pub(super) fn take_owed(&self) -> Option<Owed> {
        self.owed.lock().take()
    }
}
