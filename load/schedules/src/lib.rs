//! The counting core of the service, and the gate that holds answers back, compiled once more: the files here are
//! those of the service, by symbolic links, but locks, atomics and threads are those of `shuttle`, whose scheduler
//! decides at each of them which thread goes on. The schedules are in `tests`.
//!
//! The maps of the counters keep their own locks: within one of those nothing else is done, so whether others go on
//! in between makes no difference.

// The unit tests of the sources belong to the service, and need more than is here.
#![cfg(not(test))]
#![allow(dead_code, reason = "the rest of the service uses what is not used here")]

extern crate primitives as parking_lot;
extern crate primitives as std;

// A thread of a schedule is a worker of the service, with what that has for itself.
#[macro_use]
mod local;

pub mod batch;
pub mod counts;
pub mod domain;
pub mod journal;
pub mod names;
pub mod server;
