//! A system clock before 1970 and hyper, which panics at the first request that a thread serves then:
//! it can't write such a date, and keeps the last one that it could write for each thread.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::SystemTime;

use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use warp::reply::Response;

thread_local! {
    /// Whether hyper has a date on this thread.
    static KNOWN: Cell<bool> = const { Cell::new(false) };
}

/// Whether the clock says a time that can be written as a date.
pub(super) fn is_writable() -> bool {
    SystemTime::now() >= SystemTime::UNIX_EPOCH
}

/// Whether hyper can be polled on this thread. To be asked before each poll.
pub(super) fn is_known() -> bool {
    KNOWN.get() || {
        let known = is_writable();
        KNOWN.set(known);
        known
    }
}

/// Has hyper look at the clock, so that this thread serves requests also when the clock is set to
/// before 1970 later. To be called when a thread begins.
pub fn learn_date() {
    if is_known() {
        let answer = service_fn(async |_| Ok::<_, Infallible>(Response::default()));
        // It comes to its end at once.
        let connection = pin!(Builder::new().serve_connection(TokioIo::new(tokio::io::empty()), answer));
        let _ = connection.poll(&mut Context::from_waker(Waker::noop()));
    }
}
