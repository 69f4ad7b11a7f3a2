//! No answer leaves before what it acknowledges is in the journal.
//!
//! Where `journal` is the default level, handlers do not wait for it one by one: they [`owe`] it, and
//! the connection waits once before it sends all the answers it has gathered. When the journal fails
//! at the gate, one answer says that it is unknown what is counted, and the connection is closed.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::batch::{AckError, Batches, Ticket};
use crate::domain::Ack;

thread_local! {
    /// What the handlers owe that ran in the present poll of a connection. They run on its stack, so
    /// this needs no way through hyper and warp, which would cost an allocation for every request.
    static OWED: Cell<Option<Ticket>> = const { Cell::new(None) };
}

/// Lets the answer to the present request wait at the gate until the journal holds `ticket`.
pub(super) fn owe(ticket: Ticket) {
    OWED.set(Some(ticket));
}

pub(super) struct Gate {
    batches: &'static Batches,
    /// The last of what the gathered answers acknowledge.
    owed: Option<Ticket>,
    waiting: Waiting,
}

enum Waiting {
    No,
    /// For every other connection that is ready to take its turn first: the next to be polled then
    /// writes for all.
    ForOthers(Ticket),
    /// For somebody else's write.
    ForWrite(Pin<Box<dyn Future<Output = Result<(), AckError>> + Send>>),
}

impl Gate {
    pub(super) fn new(batches: &'static Batches) -> Self {
        Self { batches, owed: None, waiting: Waiting::No }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !matches!(self.waiting, Waiting::No)
    }

    /// Takes over what the handlers owe. To be called after every poll of the connection.
    pub(super) fn collect(&mut self) {
        // Later tickets stand for earlier ones.
        if let Some(ticket) = OWED.take() {
            self.owed = Some(ticket);
        }
    }

    /// Ready when the journal holds what the gathered answers acknowledge.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AckError>> {
        let batches = self.batches;
        loop {
            match &mut self.waiting {
                Waiting::No => {
                    let Some(ticket) = self.owed.take() else { return Poll::Ready(Ok(())) };
                    if batches.is_written(ticket) {
                        return Poll::Ready(Ok(()));
                    }
                    self.waiting = Waiting::ForOthers(ticket);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Waiting::ForOthers(ticket) => {
                    let ticket = *ticket;
                    if let Some(written) = batches.try_write(ticket) {
                        self.waiting = Waiting::No;
                        return Poll::Ready(written);
                    }
                    self.waiting = Waiting::ForWrite(Box::pin(batches.wait_durable(ticket, Ack::Journal)));
                }
                Waiting::ForWrite(write) => {
                    let written = std::task::ready!(write.as_mut().poll(cx));
                    self.waiting = Waiting::No;
                    return Poll::Ready(written);
                }
            }
        }
    }
}
