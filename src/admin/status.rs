//! Whether the numbers can be trusted: what is pending, store, journal, and the balance of the books.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use warp::reply::Response;

use super::State;
use super::answer::{Failure, see_other, success};
use super::session::Who;
use super::view::grouped;
use crate::store::{Books, NodeSeen, Outage, OutageKind, StoreError};

/// Adding up the books costs the store all its rows, so it is done this rarely, and only while
/// somebody looks.
const BOOKS_INTERVAL: Duration = Duration::from_secs(300);
/// How old the list of nodes may be.
const NODES_INTERVAL: Duration = Duration::from_secs(4);
/// A page waits so long for them.
const BOOKS_PATIENCE: Duration = Duration::from_millis(150);
/// A flush that is late by so much is worth a colour.
const LATE: Duration = Duration::from_secs(30);

/// When the books were added up, and what came out.
type Sight = (Instant, Result<Books, StoreError>);

/// When the live nodes were asked for, and who they are.
type Nodes = (Instant, Result<Vec<NodeSeen>, StoreError>);

/// The last sights of the store.
#[derive(Default)]
pub(super) struct Kept {
    books: Mutex<Option<Sight>>,
    nodes: Mutex<Option<Nodes>>,
    running: Arc<tokio::sync::Mutex<()>>,
}

/// `good`, `warn`, `bad` or `unknown`, which are colours too, and a few words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Light {
    pub(super) state: &'static str,
    pub(super) text: String,
}

impl Light {
    fn new(state: &'static str, text: impl Into<String>) -> Self {
        Self { state, text: text.into() }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Status {
    /// Occurrences that are counted but not yet in the store.
    pub(super) pending: u64,
    pub(super) flush: Light,
    pub(super) store: Light,
    pub(super) journal: Light,
    pub(super) books: Light,
    pub(super) nodes: Light,
    /// Counts that the store has confirmed and lacks by now.
    pub(super) missing: i128,
}

impl Status {
    pub(super) fn pending_text(&self) -> String {
        grouped(self.pending)
    }

    pub(super) fn lights(&self) -> [(&'static str, &'static str, &Light); 5] {
        [
            ("flush", "Flush", &self.flush),
            ("store", "Store", &self.store),
            ("journal", "Journal", &self.journal),
            ("books", "Books", &self.books),
            ("nodes", "Nodes", &self.nodes),
        ]
    }
}

impl State {
    pub(super) fn status(&'static self) -> Status {
        let pending = self.batches.pending().total();
        let store = self.query.store_status();
        let lag = store.last_commit.map(|commit| commit.elapsed());
        let flush = match lag {
            _ if pending == 0 => Light::new("good", "nothing waits"),
            _ if store.refused_writers > 0 => Light::new("bad", "a batch is refused: see the log"),
            Some(lag) if lag > LATE => Light::new("warn", format!("late: last one {} s ago", lag.as_secs())),
            Some(lag) => Light::new("good", format!("last one {} s ago", lag.as_secs())),
            None if store.reachable() => Light::new("good", "the first one is due"),
            None => Light::new("warn", "none yet"),
        };
        let (label, missing) = (self.store.label(), store.missing);
        let store = match &store.outage {
            None if store.missing == 0 => Light::new("good", label),
            None => Light::new("bad", store.to_string()),
            Some(Outage { kind: OutageKind::Unreachable, since, .. }) => {
                Light::new("bad", format!("unreachable for {} s: {label}", since.elapsed().as_secs()))
            }
            Some(_) => Light::new("bad", store.to_string()),
        };
        let journal = match self.batches.journal_healthy() {
            Ok(()) => Light::new("good", "writable"),
            Err(_) => Light::new("bad", "cannot be written: nothing is counted"),
        };
        Status { pending, flush, store, journal, books: self.books(), nodes: self.nodes(), missing }
    }

    fn nodes(&'static self) -> Light {
        match &*self.status.nodes.lock() {
            _ if !self.store.is_shared() => Light::new("good", "this one"),
            Some((_, Ok(nodes))) => match nodes.iter().filter(|seen| seen.is_copied(nodes)).count() {
                0 => Light::new("good", format!("{} live", nodes.len())),
                copied => Light::new("warn", format!("{} live, {copied} of them on copied data folders", nodes.len())),
            },
            Some((_, Err(_))) => Light::new("unknown", "could not be read"),
            None => Light::new("unknown", "being asked for"),
        }
    }

    /// Those that were live at the last look; none where only one can be.
    pub(super) fn live_nodes(&self) -> Vec<NodeSeen> {
        match &*self.status.nodes.lock() {
            Some((_, Ok(nodes))) => nodes.clone(),
            _ => Vec::new(),
        }
    }

    fn books(&'static self) -> Light {
        match &*self.status.books.lock() {
            None => Light::new("unknown", "being added up"),
            Some((at, Ok(books))) if books.balance() => {
                Light::new("good", format!("balance ({})", minutes(at.elapsed())))
            }
            Some((_, Ok(_))) => Light::new("bad", "do not balance: run event-tracker audit"),
            Some((_, Err(_))) => Light::new("unknown", "could not be read"),
        }
    }

    /// Asks the store for what the lights say of it, if that was long ago, without making anybody wait
    /// for long.
    pub(super) async fn look_at_store(&'static self) {
        self.look_at_nodes().await;
        self.look_at_books().await;
    }

    pub(super) async fn look_at_nodes(&'static self) {
        let is_fresh = self.status.nodes.lock().as_ref().is_some_and(|(at, _)| at.elapsed() < NODES_INTERVAL);
        if is_fresh || !self.store.is_shared() {
            return;
        }
        if let Ok(nodes) = tokio::time::timeout(BOOKS_PATIENCE, self.node.presence.nodes()).await {
            *self.status.nodes.lock() = Some((Instant::now(), nodes));
        }
    }

    pub(super) async fn look_at_books(&'static self) {
        let is_fresh = |kept: &Option<Sight>| kept.as_ref().is_some_and(|(at, _)| at.elapsed() < BOOKS_INTERVAL);
        if is_fresh(&self.status.books.lock()) {
            return;
        }
        let Ok(running) = Arc::clone(&self.status.running).try_lock_owned() else { return };
        let work = tokio::spawn(async move {
            let books = self.store.audit().await;
            *self.status.books.lock() = Some((Instant::now(), books));
            drop(running);
        });
        let _ = tokio::time::timeout(BOOKS_PATIENCE, work).await;
    }
}

/// `POST /admin/store/accept`
pub(super) async fn accept(state: &State, who: &Who) -> Result<Response, Failure> {
    accept_store(state, who).await?;
    Ok(see_other("/admin"))
}

/// `POST /api/v1/admin/store/accept`
pub(super) async fn accept_for_program(state: &State, who: &Who) -> Result<Response, Failure> {
    let missing = accept_store(state, who).await?;
    Ok(success(&json!({ "accepted": missing })))
}

/// Gives how many missing counts are not reported any more.
async fn accept_store(state: &State, who: &Who) -> Result<i128, StoreError> {
    let missing = state.node.missing();
    state.node.accept_store().await?;
    tracing::warn!(who = who.name(), %missing, "The store was accepted as it is");
    Ok(missing)
}

fn minutes(age: Duration) -> String {
    match age.as_secs() / 60 {
        0 => "just now".into(),
        minutes => format!("{minutes} min ago"),
    }
}
