//! Work that many threads do again and again, and that can be halted as a whole.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Open: work may begin. Owned by the world; each piece of work holds a [`Pass`].
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_open: bool,
    is_over: bool,
    busy: usize,
}

/// One piece of work under way.
pub struct Pass<'a>(&'a Gate);

impl Gate {
    /// Waits until it is open; `None` when it never will be again.
    pub fn enter(&self) -> Option<Pass<'_>> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| !state.is_open && !state.is_over);
        if state.is_over {
            return None;
        }
        state.busy += 1;
        Some(Pass(self))
    }

    /// Waits, but not longer than it is open.
    pub fn sleep(&self, time: Duration) {
        let mut state = self.state.lock();
        let until = Instant::now() + time;
        while state.is_open && !self.changed.wait_until(&mut state, until).timed_out() {}
    }

    pub fn open(&self) {
        self.state.lock().is_open = true;
        self.changed.notify_all();
    }

    /// Lets nothing begin any more and waits until all that is under way has ended; `false` if it does not.
    #[must_use]
    pub fn close(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        state.is_open = false;
        self.changed.notify_all();
        let until = Instant::now() + patience;
        self.changed.wait_while_until(&mut state, |state| state.busy > 0, until);
        state.busy == 0
    }

    /// It will never be open again.
    pub fn end(&self) {
        let mut state = self.state.lock();
        (state.is_open, state.is_over) = (false, true);
        self.changed.notify_all();
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.state.lock().busy -= 1;
        self.0.changed.notify_all();
    }
}
