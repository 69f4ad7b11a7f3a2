//! The way between a node and the store: it takes time, loses requests and answers, and what a node has given
//! up may still arrive.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use event_tracker::domain::{BatchId, Delta, EventName, EventTotal, HourRange, HourlyCount, Sum, SumBy, WriterId};
use event_tracker::store::admin::{
    AccountChange, AdminKey, AdminStore, Catalog, Change, Changed, LoggedChange, Session, Superuser,
};
use event_tracker::store::memory::MemoryStore;
use event_tracker::store::{
    Books, Commit, CommitRequest, Folded, HourlyQuery, LedgerPosition, NodeReport, NodeSeen, Since, Snapshot, Store,
    StoreError,
};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A node gives up a request after this time.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long after that it may still arrive.
pub const LATE_MAX: Duration = Duration::from_secs(20);

/// How well it works.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Weather {
    /// The longest time that a request or an answer takes, in milliseconds.
    pub delay_ms_max: u64,
    /// Probability of each.
    pub request_lost: f64,
    pub answer_lost: f64,
    /// The node gives up, and the request arrives up to so many milliseconds later.
    pub zombie: f64,
    pub zombie_ms_max: u64,
}

impl Weather {
    pub const FAIR: Self = Self { delay_ms_max: 3, request_lost: 0.0, answer_lost: 0.0, zombie: 0.0, zombie_ms_max: 0 };
    pub const DOWN: Self = Self { request_lost: 1.0, ..Self::FAIR };
}

/// What has happened on the way, for the figures.
#[derive(Clone, Copy, Default, Debug)]
pub struct Traffic {
    pub commits: u64,
    pub answers_lost: u64,
    pub zombies: u64,
}

impl Traffic {
    pub fn add(&mut self, other: Self) {
        self.commits += other.commits;
        self.answers_lost += other.answers_lost;
        self.zombies += other.zombies;
    }
}

/// Shared by all wires of one simulation.
pub struct Network {
    state: Mutex<State>,
}

struct State {
    weather: Weather,
    random: SmallRng,
    traffic: Traffic,
}

enum Fate {
    Arrives { there: Duration, back: Duration },
    RequestLost,
    AnswerLost { there: Duration },
    Zombie { there: Duration },
}

impl Network {
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        let random = SmallRng::seed_from_u64(seed);
        Arc::new(Self { state: Mutex::new(State { weather: Weather::FAIR, random, traffic: Traffic::default() }) })
    }

    pub fn set(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.state.lock().traffic
    }

    fn fate(&self, is_commit: bool) -> Fate {
        let mut state = self.state.lock();
        let State { weather, random, traffic } = &mut *state;
        let mut takes = |ms_max: u64| Duration::from_micros(random.random_range(0..=ms_max * 1_000));
        let (there, back) = (takes(weather.delay_ms_max), takes(weather.delay_ms_max));
        let late = takes(weather.zombie_ms_max);
        let dice: f64 = random.random();
        let counts = u64::from(is_commit);
        traffic.commits += counts;
        if dice < weather.request_lost {
            Fate::RequestLost
        } else if dice < weather.request_lost + weather.answer_lost {
            traffic.answers_lost += counts;
            Fate::AnswerLost { there }
        } else if dice < weather.request_lost + weather.answer_lost + weather.zombie {
            traffic.zombies += counts;
            Fate::Zombie { there: PATIENCE + late }
        } else {
            Fate::Arrives { there, back }
        }
    }
}

/// One node's way to the store.
pub struct Wire {
    store: Arc<MemoryStore>,
    network: Arc<Network>,
    /// Whether the process does.
    lives: Arc<AtomicBool>,
}

impl Wire {
    #[must_use]
    pub fn new(store: MemoryStore, network: Arc<Network>, lives: Arc<AtomicBool>) -> Self {
        Self { store: Arc::new(store), network, lives }
    }

    /// A dead process does nothing more.
    async fn while_it_lives(&self) {
        if !self.lives.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// A node that dies takes nothing back that is under way: so it is a task of its own.
    async fn send<T, F>(&self, is_commit: bool, work: impl FnOnce(Arc<MemoryStore>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.store));
        self.while_it_lives().await;
        let lost = |what: &str| Err(StoreError::Unavailable(format!("{what} within the time for it")));
        match self.network.fate(is_commit) {
            Fate::RequestLost => {
                tokio::time::sleep(PATIENCE).await;
                lost("nothing was heard")
            }
            Fate::Arrives { there, back } => {
                let done = tokio::spawn(async move {
                    tokio::time::sleep(there).await;
                    work.await
                });
                let done = done.await;
                tokio::time::sleep(back).await;
                self.while_it_lives().await;
                done.unwrap_or_else(|_| lost("the store ended"))
            }
            Fate::AnswerLost { there } | Fate::Zombie { there } => {
                drop(tokio::spawn(async move {
                    tokio::time::sleep(there).await;
                    let _ = work.await;
                }));
                tokio::time::sleep(PATIENCE).await;
                lost("no answer came")
            }
        }
    }
}

#[async_trait]
impl Store for Wire {
    async fn commit(&self, request: CommitRequest) -> Result<Commit, StoreError> {
        self.send(true, |store| async move { store.commit(request).await }).await
    }

    async fn fold(&self) -> Result<Option<Folded>, StoreError> {
        self.send(false, |store| async move { store.fold().await }).await
    }

    async fn fold_after(&self, rest: Duration) -> Result<Option<Folded>, StoreError> {
        self.send(false, move |store| async move { store.fold_after(rest).await }).await
    }

    fn expect(&self, identity: Option<String>) {
        self.store.expect(identity);
    }

    async fn hourly(
        &self,
        query: HourlyQuery,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<HourlyCount>>, StoreError> {
        self.send(false, |store| async move { store.hourly(query, writers).await }).await
    }

    async fn totals(&self, writers: Vec<WriterId>) -> Result<Snapshot<Vec<EventTotal>>, StoreError> {
        self.send(false, |store| async move { store.totals(writers).await }).await
    }

    async fn each_total(
        &self,
        writers: Vec<WriterId>,
        on_total: &mut (dyn FnMut(EventTotal) + Send),
    ) -> Result<LedgerPosition, StoreError> {
        let Snapshot { value, position } = self.totals(writers).await?;
        value.into_iter().for_each(on_total);
        Ok(position)
    }

    async fn sums(
        &self,
        range: HourRange,
        by: SumBy,
        writers: Vec<WriterId>,
    ) -> Result<Snapshot<Vec<Sum>>, StoreError> {
        self.send(false, move |store| async move { store.sums(range, by, writers).await }).await
    }

    async fn position(&self, writers: Vec<WriterId>) -> Result<LedgerPosition, StoreError> {
        self.send(false, |store| async move { store.position(writers).await }).await
    }

    async fn since(&self, known: LedgerPosition, writers: Vec<WriterId>) -> Result<Since, StoreError> {
        self.send(false, |store| async move { store.since(known, writers).await }).await
    }

    async fn delta(&self, id: BatchId) -> Result<Option<Delta>, StoreError> {
        self.send(false, move |store| async move { store.delta(id).await }).await
    }

    async fn audit(&self) -> Result<Books, StoreError> {
        self.send(false, |store| async move { store.audit().await }).await
    }

    async fn identity(&self) -> Result<String, StoreError> {
        self.send(false, |store| async move { store.identity().await }).await
    }

    async fn close(&self) {}

    async fn note_node(&self, report: NodeReport) -> Result<(), StoreError> {
        self.store.note_node(report).await
    }

    async fn forget_node(&self, writer: WriterId) -> Result<(), StoreError> {
        self.store.forget_node(writer).await
    }

    async fn nodes(&self) -> Result<Vec<NodeSeen>, StoreError> {
        self.store.nodes().await
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn label(&self) -> String {
        self.store.label()
    }
}

#[async_trait]
impl AdminStore for Wire {
    async fn catalog(&self) -> Result<Catalog, StoreError> {
        self.send(false, |store| async move { store.catalog().await }).await
    }

    async fn change(&self, change: Change, who: &str, at: DateTime<Utc>) -> Result<Changed, StoreError> {
        let who = who.to_owned();
        self.send(false, move |store| async move { store.change(change, &who, at).await }).await
    }

    async fn due_purges(&self, grace: TimeDelta) -> Result<Vec<EventName>, StoreError> {
        self.send(false, move |store| async move { store.due_purges(grace).await }).await
    }

    async fn changes(
        &self,
        events: Vec<EventName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<LoggedChange>, StoreError> {
        self.send(false, move |store| async move { store.changes(events, before, limit).await }).await
    }

    async fn superusers(&self) -> Result<Vec<Superuser>, StoreError> {
        self.store.superusers().await
    }

    async fn change_account(&self, change: AccountChange, who: &str, at: DateTime<Utc>) -> Result<bool, StoreError> {
        self.store.change_account(change, who, at).await
    }

    async fn add_session(&self, session: Session, password_hash: &str, sessions_max: u32) -> Result<bool, StoreError> {
        self.store.add_session(session, password_hash, sessions_max).await
    }

    async fn session(
        &self,
        id_hash: [u8; 32],
        now: DateTime<Utc>,
        idle_since: DateTime<Utc>,
    ) -> Result<Option<Session>, StoreError> {
        self.store.session(id_hash, now, idle_since).await
    }

    async fn touch_session(&self, id_hash: [u8; 32], now: DateTime<Utc>) -> Result<(), StoreError> {
        self.store.touch_session(id_hash, now).await
    }

    async fn end_session(&self, id_hash: [u8; 32]) -> Result<(), StoreError> {
        self.store.end_session(id_hash).await
    }

    async fn admin_keys(&self) -> Result<Vec<AdminKey>, StoreError> {
        self.store.admin_keys().await
    }

    async fn use_admin_key(&self, secret_hash: [u8; 32], now: DateTime<Utc>) -> Result<Option<AdminKey>, StoreError> {
        self.store.use_admin_key(secret_hash, now).await
    }
}
