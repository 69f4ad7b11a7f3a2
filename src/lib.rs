//! event-tracker counts events exactly once and reads them exactly.
//!
//! # The one idea
//! **One batch = one journal segment = one entry in the store's log.** A batch is *open* (takes
//! increments), then *sealed* (immutable for ever, also across restarts), then *committed*: its counts and
//! its ledger entry are in the store, in one transaction, and its segment is discarded. Its identity, a
//! random writer and a sequence number, is in the segment's name and in the ledger. Exactly-once flushing,
//! crash recovery and exact reads are the same mechanism.
//!
//! # One POST
//! A connection ([`server`]) hands its request to the [`site`], the site to the [`api`]. That parses the name, stamps
//! the [`domain::Hour`] once and calls [`batch::Batches::record`].
//! Under the open batch's *shared* guard, without an `.await`, that admits the name ([`names`]),
//! copies a record into the journal's buffer ([`journal`]) and adds to the counter ([`counts`]); a
//! client that disconnects can't leave the two apart. The connection gathers its answers and passes
//! a gate before it sends them: the journal's file must hold what they acknowledge. One write serves
//! all connections that are ready, one sync all requests that wait for the disk.
//!
//! # One flush
//! [`flusher`] takes the *exclusive* guard just long enough to swap in a new batch and segment, so
//! the cut is atomic over all shards. Then [`store::Store::commit`]: one statement advances the ledger from
//! the batch before this one, which decides who wins, and appends the rows to the log (PostgreSQL; the
//! embedded store has one writer and adds them up at once). Nothing shared is locked, so nodes do not wait
//! for each other.
//! Any failure leaves the batch as it is: the same batch again. The ledger keeps a digest of the last
//! batch, so "already there" is believed only of the same contents; a batch that differs is set aside and
//! reported, never discarded. A committed segment is kept for ten minutes.
//!
//! # One fold
//! [`folder`] adds what the log has gathered to the counts that are stored row by row; whichever node gets
//! the lock does it for all. Every read adds what is not folded yet, from the snapshot that the rest is
//! from, so a fold changes no answer. Entries are kept for ten minutes after it, for readers and for
//! batches that are delivered twice.
//!
//! # A store that goes back
//! [`reconcile`] compares every ledger position that is read anywhere with what was confirmed before.
//! Lower means that the store lost commits: kept lists are void, kept segments wait for their commits
//! again, and what nobody has any more is missing, in numbers, until an administrator accepts it. The
//! file `STORE` ([`batch::Mark`]) lets a restarted node know as well.
//!
//! # One GET
//! [`query`] takes what is pending *first*, with its identities; *then* it gets rows with the ledger
//! position of the one snapshot they come from; then it adds each pending batch unless that position
//! includes it. [`committed`] keeps such rows and brings them forward by what was committed since, here
//! and elsewhere, so polling costs the store one small query at most every 100 ms. Counts are stored under
//! the name that they were counted with: [`catalog`] shows renamed events as one and hides deleted ones,
//! and a read whose rows and catalog are not of one moment is repeated.
//!
//! # Several nodes
//! Nodes share the store and nothing else. Each reports there every few seconds that it lives ([`presence`]),
//! for people only: no count hangs on it. The file `NODE` in its folder says who it is, so a restart is no
//! second node.
//!
//! # Other ways in
//! [`import`] counts logs: a log is a writer of its own whose batches are numbered by their place in the log, so it
//! needs no journal, and the ledger says how far it is. [`statsd`] takes counters by UDP and TCP and records them
//! like a POST.
//!
//! # Start and stop
//! [`node::Node`] is all of this as one value; [`app`], the commands and every test build that one.
//! [`app`]: lock the folder and make it private ([`private`]), replay segments into sealed batches, begin
//! a new writer, serve at once even if the store is down, as many clients as open files allow
//! ([`descriptors`]). At stop, by whatever signal ([`signals`]): not ready, stop accepting, finish
//! requests, flush with a deadline, sync; what could not be flushed stays in the journal. Nothing of
//! this waits for the log ([`telemetry`]).
//!
//! # Invariants
//! 1. An increment acknowledged at a level survives every fault that the level names, once.
//! 2. A sealed batch never changes, and is never merged with another. It is let go only when the store
//!    is known to hold exactly it.
//! 3. A pending copy is dropped only by the ledger position that came with the rows.
//! 4. The first sync error, the folder's included, is final for the process; start-up copies into new
//!    files.
//! 5. After a failed write nothing is written behind the damage.
//! 6. Limits on names and counts are stricter than any store's: no row can poison a batch.
//! 7. No guard of the map or of the open batch lives across an `.await`.
//! 8. The books balance: folded rows + unfolded entries + removed = ledger, at every moment
//!    (`event-tracker audit`).
//!
//! # Where this departs from the usual, and why
//! - Recovery rewrites every segment it finds into a new, synced file: what could be read may have
//!   been in the page cache only. Segments note how far they were synced: unreadable bytes before that
//!   are damage and refused, behind it they are what a power cut may leave.
//! - A journal that can't be written refuses counts, but what is counted goes to the store all the
//!   same: a batch may be sealed without its segment.
//! - Acknowledgement `journal` waits at the connection, not in the handler: pipelined requests share
//!   one journal write and one answer.
//! - Renames are resolved by reads alone: a rename is one row of the catalog, no history moves, and undoing
//!   it leaves every count where it was counted.
//! - A correction is booked among the changes of administrators and as a removal, with the fold's lock held,
//!   and is no entry of the log: counts there are never negative, which keeps every reader of it simple.
//! - A partition is a schema and not a column: a transaction's `search_path` says in which one it is, no
//!   statement names it, and each partition has copies of what its statements need of the catalog. A batch is
//!   one unit everywhere but in the store; a position says what each partition has of it.
//! - What can't be undone hangs on no node's clock, nor on one look at the store's: a purge is marked as
//!   due first and done some time later. It leaves a mark, so that counts of before it, wherever they are
//!   in flight, are booked as removed and do not bring the event back.
//!
//! Modules, in reading order:

pub mod domain;

#[cfg(test)]
mod mangled;

pub mod names;

pub mod counts;

pub mod journal;

pub mod blocking;

pub mod batch;

pub mod rows;

pub mod store;

pub mod reconcile;

pub mod flusher;

pub mod folder;

pub mod catalog;

pub mod shared;

pub mod committed;

pub mod query;

pub mod presence;

pub mod node;

pub mod import;

pub mod statsd;

pub mod histogram;

pub mod web;

pub mod server;

pub mod api;

pub mod admin;

pub mod site;

pub mod signals;

pub mod descriptors;

pub mod private;

pub mod app;

pub mod config;

pub mod telemetry;

pub mod commands;
