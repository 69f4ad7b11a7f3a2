//! Connections without a network. They check that an answer is safe when it leaves.

use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;

use crate::batch::{Batches, Ticket};

#[derive(Default)]
struct Gathered {
    /// The tickets of the answers that wait here.
    answers: Vec<Ticket>,
    left: usize,
    turn: u64,
    /// Of the connection, which hears when its client sends more.
    waker: Option<Waker>,
}

struct Shared {
    batches: &'static Batches,
    gathered: Mutex<Gathered>,
}

impl Shared {
    /// Lets the answers go.
    ///
    /// # Panics
    /// When one of them is not safe yet.
    fn send(&self, gathered: &mut Gathered) {
        for ticket in gathered.answers.drain(..) {
            assert!(self.batches.is_written(ticket), "an answer has left before its count was in the journal");
            gathered.left += 1;
        }
    }
}

pub(super) struct Outlet {
    shared: Arc<Shared>,
}

pub(super) struct Loan {
    shared: Arc<Shared>,
    turn: u64,
}

impl Loan {
    pub(super) fn send(&self) -> bool {
        let mut gathered = self.shared.gathered.lock();
        let is_lent = gathered.turn == self.turn;
        if is_lent {
            self.shared.send(&mut gathered);
            let waker = gathered.waker.take();
            drop(gathered);
            // The client has its answer, and sends the next request.
            waker.into_iter().for_each(Waker::wake);
        }
        is_lent
    }
}

impl Outlet {
    pub(super) fn new(batches: &'static Batches) -> Self {
        Self { shared: Arc::new(Shared { batches, gathered: Mutex::default() }) }
    }

    pub(super) fn hear(&self, cx: &Context<'_>) {
        self.shared.gathered.lock().waker = Some(cx.waker().clone());
    }

    pub(super) fn gather(&self, ticket: Ticket) {
        self.shared.gathered.lock().answers.push(ticket);
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.shared.gathered.lock().answers.is_empty()
    }

    /// How many answers have left.
    pub(super) fn left(&self) -> usize {
        self.shared.gathered.lock().left
    }

    pub(super) fn lend(&self) -> Loan {
        Loan { shared: Arc::clone(&self.shared), turn: self.shared.gathered.lock().turn }
    }

    pub(super) fn take_back(&self) {
        self.shared.gathered.lock().turn += 1;
    }

    pub(super) fn send(&self) {
        self.shared.send(&mut self.shared.gathered.lock());
    }
}
