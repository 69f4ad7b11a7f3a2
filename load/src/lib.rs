//! The load tool of event-tracker: scripted traffic, and the check that acknowledged equals counted.
//!
//! What happens to one run, and the modules in reading order:
//!
//! 1. [`cli`] reads the command line. [`scenario`] (a TOML file) or [`replay`] (a web server's log)
//!    becomes a list of [`plan::Phase`]s: what to send ([`request`], names from [`names`]), when
//!    ([`schedule`]), over how many connections.
//! 2. [`run`] reads the service's totals, executes the phases one after another on worker threads,
//!    reads the totals again and lets [`verify`] compare the difference with what was acknowledged. Of several
//!    targets, nodes of one store, each must show the sum of all: [`agree`].
//! 3. A [`worker`] is one thread with one epoll loop. It starts each request at the time the schedule
//!    says (late ones at once, never skipped) on one of its [`connection`]s, matches the answers in
//!    order ([`response`]), judges them ([`verdict`]) and writes down latencies ([`tally`]) and what was
//!    acknowledged ([`ledger`]).
//! 4. [`report`] merges what the workers wrote down; [`picture`] draws it; [`cpu`] says what it cost
//!    the server.
//!
//! [`compare`] does that against several servers in turn ([`yardsticks`], one of them the
//! [`baseline`]), and prints a table of ratios.
//!
//! [`simulate`] sends nothing either: it plays real nodes on simulated machines, and [`check`] compares what they
//! show with what was done.
//!
//! [`torture`] starts the real program on a real store, sends to it, reads from it and does it harm, all at once;
//! the same [`check`] says whether anything was lost or doubled.
//!
//! [`fleet`] sends nothing: it runs many nodes in its own process and measures what they cost their database.
//!
//! [`attack`] starts the real program as well and misuses it as strangers on the open web do, while an honest client
//! says what it notices.
//!
//! Invariants:
//! - Latency is measured from the intended start. A request that could not be sent in time is an
//!   error in the report, never a gap in it.
//! - No request is ever sent twice. One whose answer was lost has an unknown outcome, which widens the
//!   interval that `verify` allows.
//! - Every run is bounded in time, and only loopback targets are accepted unless asked otherwise.

pub mod agree;
pub mod attack;
pub mod baseline;
pub mod check;
pub mod cli;
pub mod compare;
pub mod connection;
pub mod cpu;
pub mod fleet;
pub mod ledger;
pub mod names;
pub mod picture;
pub mod plan;
pub mod replay;
pub mod report;
pub mod request;
pub mod response;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod simulate;
pub mod table;
pub mod tally;
pub mod target;
pub mod torture;
pub mod verdict;
pub mod verify;
pub mod worker;
pub mod yardsticks;
