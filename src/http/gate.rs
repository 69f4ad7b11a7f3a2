//! No answer leaves before what it acknowledges is in the journal.
//!
//! Handlers do not wait for the journal one by one: they [`owe`] it, and the connection waits once
//! before it sends all the answers it has gathered. When the journal fails at the gate, one answer
//! says that it is unknown what is counted, and the connection is closed.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::batch::{AckError, Batches, Ticket};
use crate::domain::Ack;

thread_local! {
    /// What the handlers owe that ran in the present poll of a connection. They run on its stack, so
    /// this needs no way through hyper and warp, which would cost an allocation for every request.
    static OWED: Cell<Option<Owed>> = const { Cell::new(None) };
}

/// What must be in the journal before the gathered answers may leave.
#[derive(Clone, Copy)]
struct Owed {
    ticket: Ticket,
    /// On disk, too.
    synced: bool,
}

impl Owed {
    /// Both: later tickets stand for earlier ones.
    fn and(earlier: Option<Self>, later: Self) -> Self {
        Self { synced: later.synced || earlier.is_some_and(|earlier| earlier.synced), ..later }
    }
}

/// Lets the answer to the present request wait at the gate until the journal's file holds `ticket`,
/// and is `synced` if that is asked for.
pub(super) fn owe(ticket: Ticket, synced: bool) {
    OWED.set(Some(Owed::and(OWED.get(), Owed { ticket, synced })));
}

pub(super) struct Gate {
    batches: &'static Batches,
    /// The last of what the gathered answers acknowledge.
    owed: Option<Owed>,
    waiting: Waiting,
}

enum Waiting {
    No,
    /// For every other connection that is ready to take its turn first: the next to be polled then
    /// writes for all.
    ForOthers(Owed),
    /// For somebody else's write.
    ForWrite(Pin<Box<dyn Future<Output = Result<(), AckError>> + Send>>),
    /// For the disk.
    ForSync(Ticket, Option<u64>),
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
        if let Some(owed) = OWED.take() {
            self.owed = Some(Owed::and(self.owed, owed));
        }
    }

    /// Ready when the journal holds what the gathered answers acknowledge.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AckError>> {
        let batches = self.batches;
        loop {
            match &mut self.waiting {
                Waiting::No => {
                    let Some(owed) = self.owed.take() else { return Poll::Ready(Ok(())) };
                    if !owed.synced && batches.is_written(owed.ticket) {
                        return Poll::Ready(Ok(()));
                    }
                    self.waiting = Waiting::ForOthers(owed);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Waiting::ForOthers(Owed { ticket, synced: true }) => {
                    self.waiting = Waiting::ForSync(*ticket, None);
                }
                Waiting::ForOthers(Owed { ticket, synced: false }) => {
                    let ticket = *ticket;
                    if let Some(written) = batches.try_write(ticket) {
                        self.waiting = Waiting::No;
                        return Poll::Ready(written);
                    }
                    self.waiting = Waiting::ForWrite(Box::pin(batches.wait_durable(ticket, Ack::Journal)));
                }
                Waiting::ForSync(ticket, registered) => {
                    let synced = std::task::ready!(batches.poll_synced(*ticket, registered, cx));
                    self.waiting = Waiting::No;
                    return Poll::Ready(synced);
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
