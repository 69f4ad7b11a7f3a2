//! A connection uses the gate here in the way that the service's connections do, without HTTP.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::gate::{Debt, Gate};
use super::wire::Outlet;
use crate::batch::Batches;
use crate::domain::{Ack, EventName, Hour};

/// Counts one `times` times, and waits for each answer before it counts again. Gives how many answers have left.
///
/// # Panics
/// When an answer leaves that acknowledges what is not safe.
pub async fn connection(batches: &'static Batches, event: EventName, hour: Hour, times: usize) -> usize {
    let outlet = Outlet::new(batches);
    let mut gate = Gate::new(batches, Duration::MAX);
    for _ in 0..times {
        let mut counted = false;
        poll_fn(|cx| {
            outlet.hear(cx);
            let at_gate = gate.is_waiting();
            if !at_gate && !counted {
                counted = true;
                if let Ok(recorded) = batches.record(&event, hour, 1) {
                    gate.owe(Debt { ticket: recorded.ticket, ack: Ack::Journal }.into());
                    outlet.gather(recorded.ticket);
                }
            }
            if at_gate || outlet.has_answers() {
                match gate.poll(&outlet, false, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => outlet.send(),
                    Poll::Ready(Err(_)) => {}
                }
            }
            Poll::Ready(())
        })
        .await;
    }
    outlet.left()
}
