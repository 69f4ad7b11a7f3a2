//! No answer leaves before what it acknowledges is where it was asked for: in the journal, or in the store.
//!
//! Handlers do not wait one by one: each answer comes with its [`Debt`], and the connection waits once before it
//! sends all the answers it has gathered. When the journal fails at the gate, or the store takes too long, one answer
//! says that it is unknown what is counted, and the connection is closed.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::TryFutureExt;
use parking_lot::Mutex;

use super::wire::{Loan, Outlet};
use crate::batch::{AckError, Batches, Ticket};
use crate::domain::Ack;

/// What must have happened before one answer may leave.
#[derive(Clone, Copy, Debug)]
pub struct Debt {
    pub ticket: Ticket,
    pub ack: Ack,
}

/// What must have happened before the gathered answers may leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    /// Later tickets stand for earlier ones, but for this: the store may not take the batch of an earlier one.
    first: Ticket,
    last: Ticket,
    /// The strongest that was asked for.
    ack: Ack,
}

impl From<Debt> for Owed {
    fn from(Debt { ticket, ack }: Debt) -> Self {
        Self { first: ticket, last: ticket, ack }
    }
}

impl Owed {
    pub(super) fn and(earlier: Option<Self>, later: Self) -> Self {
        earlier.map_or(later, |earlier| Self { first: earlier.first, ack: earlier.ack.max(later.ack), ..later })
    }
}

/// Why answers can't leave as they are: of nothing that they acknowledge it is known whether it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unconfirmed {
    /// The journal has failed, or the store has not taken the batch.
    Failed,
    /// The commit takes too long.
    StoreLate,
}

impl From<AckError> for Unconfirmed {
    fn from(_: AckError) -> Self {
        Self::Failed
    }
}

/// Small enough that some clients have their answers while others are still being read; large enough
/// that a write, which takes as long as reading from a socket, is shared by several.
const GROUP_MAX: usize = 8;

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

enum Joined {
    Waits,
    Leads(Lead),
    /// No more are to join: time to write.
    Completes(Lead),
}

impl Group {
    fn join(ticket: Ticket, outlet: &Outlet, cx: &Context<'_>) -> Joined {
        GROUP.with_borrow_mut(|group| {
            match &mut *group.members.lock() {
                Some(members) if members.len() + 2 < GROUP_MAX => {
                    members.push(Member { ticket, loan: outlet.lend(), waker: cx.waker().clone() });
                    return Joined::Waits;
                }
                Some(_) => return Joined::Completes(Lead(Arc::clone(group))),
                None => {}
            }
            *group = Arc::new(Group { members: Mutex::new(Some(Vec::new())) });
            Joined::Leads(Lead(Arc::clone(group)))
        })
    }
}

impl Lead {
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
    /// How long a commit is waited for.
    store_patience: Duration,
    /// What the gathered answers acknowledge.
    owed: Option<Owed>,
    waiting: Waiting,
}

enum Waiting {
    No,
    /// As the first of a group, for every other connection that is ready to take its turn; as one of
    /// the others, for the first.
    ForOthers(Ticket, Option<Lead>),
    /// For every other connection that is ready to take its turn: one sync or commit is for all of them.
    ForTurn(Owed),
    /// For somebody else's write, or for the store.
    ForOutcome(Pin<Box<dyn Future<Output = Result<(), Unconfirmed>> + Send>>),
    ForSync {
        ticket: Ticket,
        registered: Option<u64>,
    },
}

impl Gate {
    pub(super) fn new(batches: &'static Batches, store_patience: Duration) -> Self {
        Self { batches, store_patience, owed: None, waiting: Waiting::No }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !matches!(self.waiting, Waiting::No)
    }

    /// Lets the answers that are gathered wait for this as well.
    pub(super) fn owe(&mut self, owed: Owed) {
        self.owed = Some(Owed::and(self.owed, owed));
    }

    /// Ready when what the gathered answers acknowledge has happened. What is not sent by then is to
    /// be sent by the caller. Unless the connection is `alone`, others may send for it, and it is not
    /// woken afterwards.
    pub(super) fn poll(&mut self, outlet: &Outlet, alone: bool, cx: &mut Context<'_>) -> Poll<Result<(), Unconfirmed>> {
        let batches = self.batches;
        loop {
            match &mut self.waiting {
                Waiting::No => {
                    let Some(owed) = self.owed.take() else { return Poll::Ready(Ok(())) };
                    let ticket = owed.last;
                    if owed.ack > Ack::Journal {
                        self.waiting = Waiting::ForTurn(owed);
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    } else if batches.is_written(ticket) {
                        return Poll::Ready(Ok(()));
                    } else {
                        // Who is alone must not join: being in a group would mean being sent for.
                        let joined = (!alone).then(|| Group::join(ticket, outlet, cx));
                        let lead = match joined {
                            None => None,
                            Some(Joined::Leads(lead)) => Some(lead),
                            Some(Joined::Completes(lead)) => {
                                self.waiting = Waiting::ForOthers(ticket, Some(lead));
                                continue;
                            }
                            Some(Joined::Waits) => {
                                self.waiting = Waiting::ForOthers(ticket, None);
                                return Poll::Pending;
                            }
                        };
                        self.waiting = Waiting::ForOthers(ticket, lead);
                        cx.waker().wake_by_ref();
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
                        Some(written) => return self.pass(written.map_err(Unconfirmed::from)),
                        None => {
                            let written = batches.wait_durable(ticket, Ack::Journal);
                            self.waiting = Waiting::ForOutcome(Box::pin(written.map_err(Unconfirmed::from)));
                        }
                    }
                }
                Waiting::ForTurn(Owed { first, last, ack: Ack::Store }) => {
                    let stored = stored(batches, *first, *last, self.store_patience);
                    self.waiting = Waiting::ForOutcome(Box::pin(stored));
                }
                Waiting::ForTurn(Owed { last, .. }) => {
                    self.waiting = Waiting::ForSync { ticket: *last, registered: None };
                }
                Waiting::ForOutcome(outcome) => {
                    let outcome = std::task::ready!(outcome.as_mut().poll(cx));
                    return self.pass(outcome);
                }
                Waiting::ForSync { ticket, registered } => {
                    let synced = std::task::ready!(batches.poll_synced(*ticket, registered, cx));
                    return self.pass(synced.map_err(Unconfirmed::from));
                }
            }
        }
    }

    fn pass(&mut self, held: Result<(), Unconfirmed>) -> Poll<Result<(), Unconfirmed>> {
        self.waiting = Waiting::No;
        Poll::Ready(held)
    }
}

async fn stored(batches: &Batches, first: Ticket, last: Ticket, patience: Duration) -> Result<(), Unconfirmed> {
    match tokio::time::timeout(patience, batches.wait_stored(first, last)).await {
        Ok(stored) => Ok(stored?),
        Err(_) => Err(Unconfirmed::StoreLate),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::poll_fn;
    use std::pin::pin;

    use hyper::rt::Write;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::wire::{Wire, wire};
    use super::*;
    use crate::domain::{Digest, EventName, Hour};
    use crate::journal::{DataDir, Options};
    use crate::names::{Limits, Names};

    /// A connection whose answer waits at its gate.
    struct Waits {
        client: TcpStream,
        outlet: Outlet,
        _wire: Wire,
        gate: Gate,
    }

    impl Waits {
        async fn with_an_answer(batches: &'static Batches) -> (Self, Ticket) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut wire, outlet) = wire(listener.accept().await.unwrap().0);
            let event = EventName::parse("login").unwrap();
            let ticket = batches.record(&event, Hour::from_number(400_000).unwrap(), 1).unwrap().ticket;
            poll_fn(|cx| pin!(&mut wire).poll_write(cx, b"HTTP/1.1 201 Created")).await.unwrap();
            let mut gate = Gate::new(batches, Duration::MAX);
            gate.owe(Debt { ticket, ack: Ack::Journal }.into());
            (Self { client, outlet, _wire: wire, gate }, ticket)
        }

        async fn poll(&mut self) -> Poll<Result<(), Unconfirmed>> {
            poll_fn(|cx| Poll::Ready(self.gate.poll(&self.outlet, false, cx))).await
        }
    }

    fn batches(dir: &tempfile::TempDir) -> &'static Batches {
        let names = Arc::new(Names::new(Limits { events_max: 10 }));
        let folder = DataDir::lock(dir.path()).unwrap();
        Box::leak(Box::new(Batches::recover(&folder, Options::default(), names).unwrap().0))
    }

    #[tokio::test]
    async fn the_first_of_a_group_writes_and_sends_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let batches = batches(&dir);
        let (mut first, _) = Waits::with_an_answer(batches).await;
        assert!(first.poll().await.is_pending());
        let (mut other, ticket) = Waits::with_an_answer(batches).await;
        assert!(other.poll().await.is_pending());
        assert_eq!(first.poll().await, Poll::Ready(Ok(())));
        assert!(batches.is_written(ticket));
        assert!(!other.outlet.has_bytes(), "the other's answer is sent, without a turn of its own");
        other.client.readable().await.unwrap();
        assert_eq!(other.poll().await, Poll::Ready(Ok(())));
    }

    #[tokio::test]
    async fn nothing_is_sent_for_who_joins_after_the_write_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let batches = batches(&dir);
        let (mut first, _) = Waits::with_an_answer(batches).await;
        assert!(first.poll().await.is_pending());
        // What the first waits for is written by somebody else, and then another one counts.
        batches.journal().write_all().unwrap();
        let (mut other, ticket) = Waits::with_an_answer(batches).await;
        assert!(other.poll().await.is_pending());
        assert_eq!(first.poll().await, Poll::Ready(Ok(())));
        assert!(other.outlet.has_bytes() || batches.is_written(ticket), "an answer left before its count was safe");
    }

    #[tokio::test]
    async fn answers_fail_when_the_batch_of_any_of_them_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let batches = batches(&dir);
        let (mut waits, _) = Waits::with_an_answer(batches).await;
        let event = EventName::parse("login").unwrap();
        let record = || batches.record(&event, Hour::from_number(400_000).unwrap(), 1).unwrap();
        let mut owe_one = || waits.gate.owe(Debt { ticket: record().ticket, ack: Ack::Store }.into());
        // The first in a batch, the second in the next one, of the answers to one connection.
        owe_one();
        batches.seal().unwrap();
        let first = batches.oldest_sealed(&[]).unwrap();
        owe_one();
        assert!(waits.poll().await.is_pending() && waits.poll().await.is_pending());
        batches
            .settle(&first, (first.id.seq, 9), Some(Digest::of(&[])), &crate::batch::Rest::Unknown, batches.epoch())
            .unwrap();
        assert!(waits.poll().await.is_pending(), "the second is still open");
        batches.seal().unwrap();
        let second = batches.oldest_sealed(&[]).unwrap();
        batches.discard(&second, batches.sealed_rows(&second).into(), batches.epoch()).unwrap();
        assert_eq!(waits.poll().await, Poll::Ready(Err(Unconfirmed::Failed)));
    }

    #[tokio::test]
    async fn what_was_gathered_after_joining_is_not_sent_for_the_connection() {
        let dir = tempfile::tempdir().unwrap();
        let batches = batches(&dir);
        let (mut first, _) = Waits::with_an_answer(batches).await;
        assert!(first.poll().await.is_pending());
        let (mut other, _) = Waits::with_an_answer(batches).await;
        assert!(other.poll().await.is_pending());
        // It takes a turn of its own before the first does, and gathers another answer.
        assert_eq!(other.poll().await, Poll::Ready(Ok(())));
        assert_eq!(first.poll().await, Poll::Ready(Ok(())));
        assert!(other.outlet.has_bytes(), "what is gathered by now may wait for another count");
    }
}
