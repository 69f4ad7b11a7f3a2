//! Clients that post side by side, and the account of what they know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::{Answer, TestApp, eventually};

/// What the clients know of each event.
#[derive(Default)]
pub struct Tally(Mutex<BTreeMap<String, Known>>);

#[derive(Clone, Default, Debug)]
struct Known {
    /// Sum of all acknowledged counts.
    acknowledged: u64,
    /// Counts that were sent and not answered: each is in once or not at all.
    unanswered: Vec<u64>,
    answers: u64,
}

impl Tally {
    fn sending(&self, event: &str, num: u64) {
        self.0.lock().entry(event.to_owned()).or_default().unanswered.push(num);
    }

    /// `counted`: what the answer says; `None` when it says that it does not know.
    fn answered(&self, event: &str, num: u64, counted: Option<bool>) {
        let mut tally = self.0.lock();
        let known = tally.get_mut(event).unwrap();
        known.answers += 1;
        let Some(counted) = counted else { return };
        let at = known.unanswered.iter().position(|sent| *sent == num).unwrap();
        known.unanswered.swap_remove(at);
        if counted {
            known.acknowledged += num;
        }
    }

    /// Posts once and keeps account of it. Gives the answer, if there was one.
    pub async fn post(
        &self,
        client: &reqwest::Client,
        url: &str,
        event: &str,
        num: u64,
        query: &str,
    ) -> Option<Answer> {
        self.sending(event, num);
        let sent = client.post(format!("{url}/api/events/{event}/{num}{query}")).send().await;
        let answer = Answer::of(sent.ok()?).await.ok()?;
        let counted = match answer.status {
            200 | 201 => Some(true),
            _ => match answer.counted().as_deref() {
                Some("no") => Some(false),
                Some(_) => None,
                None => panic!("it says neither: {answer:?}"),
            },
        };
        self.answered(event, num, counted);
        Some(answer)
    }

    /// What was acknowledged so far, by event.
    pub fn acknowledged(&self) -> BTreeMap<String, u64> {
        self.0.lock().iter().map(|(event, known)| (event.clone(), known.acknowledged)).collect()
    }

    /// What was sent so far, by event.
    pub fn sent(&self) -> BTreeMap<String, u64> {
        let tally = self.0.lock();
        let sum = |known: &Known| known.acknowledged + known.unanswered.iter().sum::<u64>();
        tally.iter().map(|(event, known)| (event.clone(), sum(known))).collect()
    }

    /// Known to have been counted, or taken away, by somebody else.
    pub fn adjust(&self, event: &str, by: i128) {
        let mut tally = self.0.lock();
        let known = tally.entry(event.to_owned()).or_default();
        known.acknowledged = u64::try_from(i128::from(known.acknowledged) + by).unwrap();
    }

    /// Takes events together that share their counts: `group` gives the name of the whole.
    pub fn regroup(&self, group: impl Fn(&str) -> &str) {
        let mut tally = self.0.lock();
        for (event, known) in std::mem::take(&mut *tally) {
            let whole = tally.entry(group(&event).to_owned()).or_default();
            whole.acknowledged += known.acknowledged;
            whole.unanswered.extend(known.unanswered);
            whole.answers += known.answers;
        }
    }

    pub fn answers(&self) -> u64 {
        self.0.lock().values().map(|known| known.answers).sum()
    }

    /// Checks that each total is what was acknowledged and, of what was never answered, each count
    /// once or not at all; takes the totals as known from then on. Counts are random and large, so
    /// nothing lost or doubled can pass for another sum.
    #[track_caller]
    pub fn settle(&self, totals: &BTreeMap<String, u64>) {
        let mut tally = self.0.lock();
        for (event, known) in tally.iter_mut() {
            let total = totals.get(event).copied().unwrap_or_default();
            let mut possible = vec![known.acknowledged];
            assert!(known.unanswered.len() <= 16, "too many to tell: {event}: {known:?}");
            for num in &known.unanswered {
                possible.extend(possible.clone().iter().map(|sum| sum + num));
            }
            assert!(possible.contains(&total), "{event} stands at {total}, {known:?}");
            known.acknowledged = total;
            known.unanswered.clear();
        }
        let foreign: Vec<_> = totals.keys().filter(|event| !tally.contains_key(*event)).collect();
        assert!(foreign.is_empty(), "nobody sent {foreign:?}");
    }
}

/// Clients that post one after another, until told to stop or cut off by the end of the program.
pub struct Traffic {
    clients: JoinSet<()>,
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
    before: u64,
}

impl Traffic {
    /// Every client counts on an event of its own and on one that all share. `query` may ask for an
    /// acknowledgement level.
    pub fn start(app: &TestApp, tally: &Arc<Tally>, clients: u64, query: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut traffic = Self { clients: JoinSet::new(), stop, tally: Arc::clone(tally), before: tally.answers() };
        for number in 0..clients {
            let (http, url) = (app.client(), app.url(""));
            let (stop, tally) = (Arc::clone(&traffic.stop), Arc::clone(tally));
            let mut random = StdRng::seed_from_u64(number + 1000 * tally.answers());
            traffic.clients.spawn(async move {
                let own = format!("client-{number}");
                while !stop.load(Ordering::Relaxed) {
                    let event = if random.random_bool(0.5) { "shared" } else { &own };
                    let num = random.random_range(1..=1_000_000);
                    if tally.post(&http, &url, event, num, query).await.is_none() {
                        return;
                    }
                }
            });
        }
        traffic
    }

    /// Waits until so many posts have been answered since the start.
    pub async fn answered(&self, posts: u64) {
        eventually("posts to be answered", async || self.tally.answers() >= self.before + posts).await;
    }

    /// Lets each client finish its post.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.cut_off().await;
    }

    /// Waits for all clients to notice that the program is gone.
    pub async fn cut_off(mut self) {
        while let Some(client) = self.clients.join_next().await {
            client.unwrap();
        }
    }
}
