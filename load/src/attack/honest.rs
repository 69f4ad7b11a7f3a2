//! The honest client: it counts at a steady pace and reads a little, from an address of its own, and notes how long
//! it waits, from the moment at which it meant to send.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::Utc;

use super::client::Client;
use super::victim::Victim;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
const COUNT_EVERY: Duration = Duration::from_millis(5);
const READ_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Honest {
    stop: Arc<AtomicBool>,
    counts: JoinHandle<(Vec<u64>, u64)>,
    reads: JoinHandle<(Vec<u64>, u64)>,
}

pub(super) struct Noticed {
    pub(super) count_us: u64,
    pub(super) read_us: u64,
    pub(super) failed: u64,
    pub(super) memory_bytes: u64,
}

impl Honest {
    pub(super) fn start(to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let read = format!("/api/events/histogram/honest/{}?format=json", Utc::now().format("%Y%m%d"));
        let counts = paced(to, COUNT_EVERY, &stop, |client| client.post("/api/events/honest", "", ""));
        let reads = paced(to, READ_EVERY, &stop, move |client| client.get(&read));
        Self { stop, counts, reads }
    }

    /// What it notices within the time, and what the node takes meanwhile.
    pub(super) fn measured(self, lasts: Duration, victim: &Victim) -> Noticed {
        let until = Instant::now() + lasts;
        let mut memory_bytes = 0;
        while Instant::now() < until {
            memory_bytes = memory_bytes.max(victim.memory());
            std::thread::sleep(Duration::from_millis(50));
        }
        self.stop.store(true, Ordering::Relaxed);
        let (counts, count_failures) = self.counts.join().unwrap_or_default();
        let (reads, read_failures) = self.reads.join().unwrap_or_default();
        let (count_us, read_us) = (p99(counts), p99(reads));
        Noticed { count_us, read_us, failed: count_failures + read_failures, memory_bytes }
    }
}

/// How long each took, in microseconds, and how many failed.
fn paced(
    to: SocketAddr,
    every: Duration,
    stop: &Arc<AtomicBool>,
    request: impl Fn(&mut Client) -> std::io::Result<u16> + Send + 'static,
) -> JoinHandle<(Vec<u64>, u64)> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let (mut took, mut failed, mut client) = (Vec::new(), 0, None);
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // A connection that has made room while it was idle is no failure, as with any HTTP client.
            let mut attempts = 0;
            let status = loop {
                attempts += 1;
                let was_kept = client.is_some();
                let answered = match client.as_mut() {
                    Some(client) => request(client),
                    None => Client::connect(to, Some(ADDRESS)).and_then(|new| request(client.insert(new))),
                };
                if answered.is_err() {
                    client = None;
                }
                match answered {
                    Err(_) if was_kept && attempts == 1 => {}
                    answered => break answered,
                }
            };
            took.push(due.elapsed().as_micros() as u64);
            failed += u64::from(!status.is_ok_and(|status| (200..300).contains(&status)));
            due += every;
        }
        (took, failed)
    })
}

fn p99(mut took: Vec<u64>) -> u64 {
    took.sort_unstable();
    took.get((took.len() * 99 / 100).min(took.len().saturating_sub(1))).copied().unwrap_or(0)
}
