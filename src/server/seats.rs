//! Who is connected: a place for each connection, few enough for one client, and how a place comes free when
//! there is none: the connection that has waited longest for its client ends.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::watch::Signals;

/// Looking for the longest waiting ones takes a look at all, so that a hundredth of them has to go at once.
const ROOM_PART: usize = 100;

/// After a look at all that found no idle one, those who come are refused without a look for so long: otherwise they
/// would keep a core busy.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// How long a new client waits for a place that was just made free. Ending an idle connection takes no time, and
/// the next client waits meanwhile.
const ROOM_PATIENCE: Duration = Duration::from_millis(50);

/// One client as far as an address tells: of IPv6, it has a whole network of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

pub(super) struct Seats {
    free: Arc<Semaphore>,
    max: usize,
    /// Of one client. 0: any number.
    per_client_max: usize,
    taken: Mutex<Taken>,
    numbers: AtomicU64,
}

#[derive(Default)]
struct Taken {
    /// But for those that have been told to go.
    connections: HashMap<u64, (IpAddr, Arc<Signals>)>,
    clients: HashMap<IpAddr, Client>,
    /// No look for idle ones of all before this: the last one found none.
    look_after: Option<Instant>,
}

#[derive(Default)]
struct Client {
    connections: usize,
    /// As in [`Taken`], for this client.
    look_after: Option<Instant>,
}

impl Taken {
    fn remove(&mut self, number: u64) {
        let Some((network, _)) = self.connections.remove(&number) else { return };
        if let Some(client) = self.clients.get_mut(&network) {
            client.connections -= 1;
            if client.connections == 0 {
                self.clients.remove(&network);
            }
        }
    }

    fn look_after(&mut self, network: Option<IpAddr>) -> Option<&mut Option<Instant>> {
        match network {
            None => Some(&mut self.look_after),
            Some(network) => self.clients.get_mut(&network).map(|client| &mut client.look_after),
        }
    }
}

/// The place of one connection, until it is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    pub(super) signals: Arc<Signals>,
    _permit: OwnedSemaphorePermit,
}

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    All,
    /// This client has its share.
    Client,
}

impl Seats {
    pub(super) fn new(max: usize, per_client_max: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(max)),
            max,
            per_client_max,
            taken: Mutex::default(),
            numbers: AtomicU64::new(0),
        })
    }

    /// A place for a new connection. Where there is none, some that wait for their client have to go.
    ///
    /// # Errors
    /// When all connections, or all of this client, are busy.
    pub(super) async fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Seat, Full> {
        let network = network(peer);
        let of_client = || self.taken.lock().clients.get(&network).map_or(0, |client| client.connections);
        if self.per_client_max > 0 && of_client() >= self.per_client_max && self.make_room(Some(network)) == 0 {
            return Err(Full::Client);
        }
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if self.make_room(None) == 0 => return Err(Full::All),
            Err(_) => match tokio::time::timeout(ROOM_PATIENCE, Arc::clone(&self.free).acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                _ => return Err(Full::All),
            },
        };
        let (number, signals) = (self.numbers.fetch_add(1, Ordering::Relaxed), Arc::<Signals>::default());
        let mut taken = self.taken.lock();
        taken.connections.insert(number, (network, Arc::clone(&signals)));
        taken.clients.entry(network).or_default().connections += 1;
        Ok(Seat { seats: Arc::clone(self), number, signals, _permit: permit })
    }

    /// Has the connections end whose time to send something is up first: of one client or of all. Gives how many.
    fn make_room(&self, network: Option<IpAddr>) -> usize {
        let (mut taken, now) = (self.taken.lock(), Instant::now());
        if taken.look_after(network).is_some_and(|after| after.is_some_and(|after| now < after)) {
            return 0;
        }
        let mut waiting: Vec<_> = taken
            .connections
            .iter()
            .filter(|(_, (of, _))| network.is_none_or(|network| network == *of))
            .filter_map(|(number, (_, signals))| signals.head_deadline.get().map(|until| (until, *number)))
            .collect();
        let max = if network.is_some() { self.per_client_max } else { self.max };
        let wanted = (max / ROOM_PART).max(1).min(waiting.len());
        if wanted == 0 {
            taken.look_after(network).into_iter().for_each(|after| *after = Some(now + LOOK_PAUSE));
            return 0;
        }
        waiting.select_nth_unstable_by_key(wanted - 1, |(until, _)| *until);
        for (_, number) in &waiting[..wanted] {
            if let Some((_, signals)) = taken.connections.get(number) {
                signals.make_room.notify_one();
            }
            taken.remove(*number);
        }
        wanted
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_ipv6_client_is_its_network_and_ipv4_is_ipv4_in_any_form() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
    }
}
