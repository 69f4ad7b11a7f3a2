//! How often passwords may be tried: by account, and by the address that tries. Working sessions
//! are not concerned: who confirms a change by the password is counted by the session.
//!
//! An attempt counts as failed from its beginning, so that many at once don't slip through; success
//! takes that back. Kept in the memory of this node: a restart forgives, and each node counts for itself.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Failures after which one has to wait, and the longest wait. Each account: 5, and then one attempt
/// a minute at most after a few, which makes fewer than 100 in any hour, whoever else signs in meanwhile.
const ACCOUNT: Limit = Limit { free: 5, wait_max: Duration::from_secs(60) };
/// Several people may share an address.
const ADDRESS: Limit = Limit { free: 20, wait_max: Duration::from_secs(60) };
/// Failures this old are forgotten.
const MEMORY: Duration = Duration::from_secs(3600);
/// Accounts and addresses remembered, each; when there are more, the oldest are forgotten.
const ENTRIES_MAX: usize = 10_000;

#[derive(Clone, Copy)]
struct Limit {
    free: u32,
    wait_max: Duration,
}

impl Limit {
    /// The pause after so many failures: none, then 1, 2, 4, … seconds.
    fn wait(self, failures: u32) -> Duration {
        match failures.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(more) => Duration::from_secs(1_u64.checked_shl(more.min(32)).unwrap_or(u64::MAX)).min(self.wait_max),
        }
    }
}

struct Failures {
    count: u32,
    last: Instant,
}

struct Tally<K> {
    limit: Limit,
    failures: HashMap<K, Failures>,
}

impl<K: Hash + Eq + Clone> Tally<K> {
    fn new(limit: Limit) -> Self {
        Self { limit, failures: HashMap::new() }
    }

    /// How long `key` still has to wait.
    fn wait(&self, key: &K, now: Instant) -> Duration {
        let Some(failures) = self.failures.get(key) else { return Duration::ZERO };
        let passed = now.saturating_duration_since(failures.last);
        if passed >= MEMORY { Duration::ZERO } else { self.limit.wait(failures.count).saturating_sub(passed) }
    }

    fn add(&mut self, key: K, now: Instant) {
        if self.failures.len() >= ENTRIES_MAX && !self.failures.contains_key(&key) {
            self.failures.retain(|_, failures| now.saturating_duration_since(failures.last) < MEMORY);
            while self.failures.len() >= ENTRIES_MAX {
                let oldest = self.failures.iter().min_by_key(|(_, failures)| failures.last).map(|(key, _)| key.clone());
                let Some(oldest) = oldest else { break };
                self.failures.remove(&oldest);
            }
        }
        let failures = self.failures.entry(key).or_insert(Failures { count: 0, last: now });
        if now.saturating_duration_since(failures.last) >= MEMORY {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }

    fn take_back(&mut self, key: &K) {
        if let Some(failures) = self.failures.get_mut(key) {
            failures.count = failures.count.saturating_sub(1);
        }
    }
}

struct Tallies {
    accounts: Tally<String>,
    addresses: Tally<IpAddr>,
}

pub struct Throttle(Mutex<Tallies>);

impl Default for Throttle {
    fn default() -> Self {
        Self(Mutex::new(Tallies { accounts: Tally::new(ACCOUNT), addresses: Tally::new(ADDRESS) }))
    }
}

impl Throttle {
    /// Begins an attempt, which counts as failed until [`Throttle::take_back`].
    ///
    /// # Errors
    /// How long to wait; the attempt must not be made.
    pub fn begin(&self, account: &str, address: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let mut tallies = self.0.lock();
        let (account, address) = (account_key(account), address.map(network));
        let wait_address = address.map_or(Duration::ZERO, |address| tallies.addresses.wait(&address, now));
        let wait = tallies.accounts.wait(&account, now).max(wait_address);
        if !wait.is_zero() {
            return Err(wait);
        }
        tallies.accounts.add(account, now);
        if let Some(address) = address {
            tallies.addresses.add(address, now);
        }
        Ok(())
    }

    /// The attempt was none, or it succeeded. What failed before still counts: neither is one's own
    /// account a way to try others' without end, nor do its owner's logins let others guess on.
    pub fn take_back(&self, account: &str, address: Option<IpAddr>) {
        let mut tallies = self.0.lock();
        tallies.accounts.take_back(&account_key(account));
        if let Some(address) = address {
            tallies.addresses.take_back(&network(address));
        }
    }
}

/// Names that no account can have share one entry for each beginning.
fn account_key(account: &str) -> String {
    account.chars().take(64).collect()
}

/// An IPv6 user owns a /64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many attempts a client gets through in `seconds` that tries ten times a second.
    fn attempts(throttle: &Throttle, start: Instant, seconds: u64, mut from: impl FnMut(u64) -> IpAddr) -> u32 {
        let tries = (0..seconds * 10).map(|tenth| (tenth, start + Duration::from_millis(tenth * 100)));
        tries.map(|(tenth, now)| u32::from(throttle.begin("ann", Some(from(tenth)), now).is_ok())).sum()
    }

    #[test]
    fn an_account_takes_at_most_100_failures_an_hour_from_however_many_addresses() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let spread = |tenth: u64| IpAddr::V4(u32::try_from(tenth).unwrap().into());
        let first_hour = attempts(&throttle, start, 3600, spread);
        assert!((50..=100).contains(&first_hour), "{first_hour}");
        let second_hour = attempts(&throttle, start + Duration::from_secs(3600), 3600, spread);
        assert!(second_hour <= 100, "{second_hour}");
    }

    #[test]
    fn the_logins_of_an_accounts_owner_let_nobody_guess_more_often() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let mut failures = 0;
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            if second % 10 == 0 && throttle.begin("ann", Some(address("10.0.0.1")), now).is_ok() {
                throttle.take_back("ann", Some(address("10.0.0.1")));
            }
            failures += u32::from(throttle.begin("ann", Some(address("10.0.0.2")), now).is_ok());
        }
        assert!(failures < 100, "{failures}");
    }

    #[test]
    fn attempts_that_run_at_the_same_time_count_too() {
        let throttle = Throttle::default();
        let now = Instant::now();
        let begun = (0..1000).filter(|_| throttle.begin("ann", Some(address("10.0.0.1")), now).is_ok()).count();
        assert_eq!(begun, 5);
    }

    #[test]
    fn an_address_is_slowed_down_whichever_accounts_it_tries() {
        let throttle = Throttle::default();
        let now = Instant::now();
        let begun =
            (0..1000).filter(|n| throttle.begin(&format!("user {n}"), Some(address("10.0.0.1")), now).is_ok()).count();
        assert_eq!(begun, 20);
        assert!(throttle.begin("ann", Some(address("10.0.0.2")), now).is_ok());
    }

    #[test]
    fn ipv6_addresses_of_one_network_are_one() {
        assert_eq!(network(address("2001:db8:1:2::1")), network(address("2001:db8:1:2:ffff::9")));
        assert_ne!(network(address("2001:db8:1:2::1")), network(address("2001:db8:1:3::1")));
        assert_eq!(network(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }

    #[test]
    fn success_is_no_failure_and_forgives_none() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for _ in 0..1000 {
            throttle.begin("ann", Some(address("10.0.0.1")), now).unwrap();
            throttle.take_back("ann", Some(address("10.0.0.1")));
        }
        for _ in 0..5 {
            throttle.begin("ann", Some(address("10.0.0.1")), now).unwrap();
        }
        assert_eq!(throttle.begin("ann", Some(address("10.0.0.1")), now), Err(Duration::from_secs(1)));
        let others =
            (0..1000).filter(|n| throttle.begin(&n.to_string(), Some(address("10.0.0.1")), now).is_ok()).count();
        assert_eq!(others, 15);
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest_first() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for n in 0..ENTRIES_MAX as u32 + 5 {
            let now = start + Duration::from_millis(u64::from(n));
            throttle.begin(&n.to_string(), Some(IpAddr::V4(n.into())), now).unwrap();
        }
        let tallies = throttle.0.lock();
        assert_eq!(tallies.accounts.failures.len(), ENTRIES_MAX);
        assert!(!tallies.accounts.failures.contains_key("0"));
    }
}
