//! No answer leaves before what it acknowledges is in the journal.
//!
//! Where `journal` is the default level, handlers do not wait for it one by one: the connection
//! does, once before it sends all the answers it has gathered. Answers to reads pass the same gate,
//! so what anybody has seen survives a crash of the process. When the journal fails at the gate, one
//! answer says that it is unknown what is counted, and the connection is closed.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::batch::{AckError, Batches, Ticket};
use crate::domain::Ack;

pub(super) struct Gate {
    /// `None`: the gate is open.
    batches: Option<&'static Batches>,
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
    pub(super) fn new(batches: Option<&'static Batches>) -> Self {
        Self { batches, waiting: Waiting::No }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !matches!(self.waiting, Waiting::No)
    }

    /// Ready when all that was counted so far is in the journal.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AckError>> {
        let Some(batches) = self.batches else { return Poll::Ready(Ok(())) };
        loop {
            match &mut self.waiting {
                Waiting::No => {
                    let Some(ticket) = batches.unwritten() else { return Poll::Ready(Ok(())) };
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
