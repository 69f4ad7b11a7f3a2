//! No answer leaves before what it acknowledges is in the journal.
//!
//! Handlers do not wait for the journal one by one: they [`owe`] it, and the connection waits once
//! before it sends all the answers it has gathered. When the journal fails at the gate, one answer
//! says that it is unknown what is counted, and the connection is closed.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::wire::{Loan, Outlet};
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

/// Connections whose answers leave together: the first of them waits until every other one that is
/// ready has had its turn, then writes the journal once and sends for all. So the others need not be
/// woken just to send.
#[derive(Default)]
struct Group {
    /// `None`: too late to join.
    members: Mutex<Option<Vec<Member>>>,
}

struct Member {
    ticket: Ticket,
    loan: Loan,
    waker: Waker,
}

thread_local! {
    /// The group that connections polled by this thread may join.
    static GROUP: RefCell<Arc<Group>> = RefCell::default();
}

/// The first of a group. When it is gone, the others are woken and look after themselves.
struct Lead(Arc<Group>);

impl Lead {
    /// `None`: the connection has joined a group that has a leader.
    fn or_join(ticket: Ticket, outlet: &Outlet, cx: &Context<'_>) -> Option<Self> {
        GROUP.with_borrow_mut(|group| {
            if let Some(members) = &mut *group.members.lock() {
                members.push(Member { ticket, loan: outlet.lend(), waker: cx.waker().clone() });
                return None;
            }
            *group = Arc::new(Group { members: Mutex::new(Some(Vec::new())) });
            Some(Self(Arc::clone(group)))
        })
    }

    fn close(&self) -> Vec<Member> {
        self.0.members.lock().take().unwrap_or_default()
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.close().into_iter().for_each(|member| member.waker.wake());
    }
}

pub(super) struct Gate {
    batches: &'static Batches,
    /// The last of what the gathered answers acknowledge.
    owed: Option<Owed>,
    waiting: Waiting,
}

enum Waiting {
    No,
    /// As the first of a group, for every other connection that is ready to take its turn; as one of
    /// the others, for the first.
    ForOthers(Ticket, Option<Lead>),
    /// For somebody else's write.
    ForWrite(Pin<Box<dyn Future<Output = Result<(), AckError>> + Send>>),
    /// For the disk, once every other connection that is ready has had its turn.
    ForSync {
        ticket: Ticket,
        yielded: bool,
        registered: Option<u64>,
    },
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

    /// Ready when the journal holds what the gathered answers acknowledge. They may be sent by then;
    /// else they are to be sent by the caller.
    pub(super) fn poll(&mut self, outlet: &Outlet, cx: &mut Context<'_>) -> Poll<Result<(), AckError>> {
        let batches = self.batches;
        loop {
            match &mut self.waiting {
                Waiting::No => {
                    let Some(Owed { ticket, synced }) = self.owed.take() else { return Poll::Ready(Ok(())) };
                    if synced {
                        self.waiting = Waiting::ForSync { ticket, yielded: false, registered: None };
                    } else if batches.is_written(ticket) {
                        return Poll::Ready(Ok(()));
                    } else {
                        let lead = Lead::or_join(ticket, outlet, cx);
                        if lead.is_some() {
                            cx.waker().wake_by_ref();
                        }
                        self.waiting = Waiting::ForOthers(ticket, lead);
                        return Poll::Pending;
                    }
                }
                Waiting::ForOthers(ticket, lead) => {
                    let ticket = *ticket;
                    outlet.take_back();
                    let members = lead.take().map(|lead| lead.close()).unwrap_or_default();
                    // The last has mostly appended last, so the write for it is everybody's.
                    let last = members.last().map_or(ticket, |member| member.ticket);
                    let _ = batches.try_write(last);
                    for Member { ticket, loan, waker } in members {
                        if !batches.is_written(ticket) || !loan.send() {
                            waker.wake();
                        }
                    }
                    match batches.try_write(ticket) {
                        Some(written) => return self.pass(written),
                        None => {
                            self.waiting = Waiting::ForWrite(Box::pin(batches.wait_durable(ticket, Ack::Journal)));
                        }
                    }
                }
                Waiting::ForWrite(write) => {
                    let written = std::task::ready!(write.as_mut().poll(cx));
                    return self.pass(written);
                }
                Waiting::ForSync { yielded: yielded @ false, .. } => {
                    *yielded = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Waiting::ForSync { ticket, registered, .. } => {
                    let synced = std::task::ready!(batches.poll_synced(*ticket, registered, cx));
                    return self.pass(synced);
                }
            }
        }
    }

    fn pass(&mut self, held: Result<(), AckError>) -> Poll<Result<(), AckError>> {
        self.waiting = Waiting::No;
        Poll::Ready(held)
    }
}
