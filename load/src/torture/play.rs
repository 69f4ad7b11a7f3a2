//! The threads of a world: they write, read and do harm in rounds, and rest after each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::node::Node;
use super::world::World;
use super::{faults, outages, reads, rest, traffic};

const WRITERS: usize = 3;
const READERS: usize = 2;
/// Longer than any answer, fault or start takes.
const HALT_MAX: Duration = Duration::from_secs(90);
/// Folders that are copied in one round.
const COPIES: usize = 2;

/// What a thread does with a node.
type Work = Box<dyn FnOnce(&Arc<World>, &Arc<Node>) + Send>;

/// All threads of one world, and nothing else is in them. [`Crew::end`] ends them.
pub struct Crew {
    world: Arc<World>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    #[must_use]
    pub fn of(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), threads: Vec::new() }
    }

    /// Plays rounds until they are all played, it is time, or something is wrong.
    ///
    /// # Errors
    /// When it can't be halted, or does not come to rest.
    pub fn play(&mut self, until: Instant, stop: &AtomicBool, told: &dyn Fn()) -> anyhow::Result<()> {
        let world = Arc::clone(&self.world);
        let (shared, random) = (Arc::clone(&world), StdRng::seed_from_u64(world.seed));
        self.threads.push(std::thread::spawn(move || outages::befall(&shared, random)));
        let mut drawn = StdRng::seed_from_u64(!world.seed);
        for _ in 0..world.settings.rounds {
            world.goes_back.store(drawn.random(), Ordering::Relaxed);
            world.copies.store(COPIES, Ordering::Relaxed);
            world.weather.is_rough.store(true, Ordering::Relaxed);
            world.gate.open();
            let ends = until.min(Instant::now() + world.settings.round);
            while Instant::now() < ends && !stop.load(Ordering::Relaxed) && !world.observed.is_wrong() {
                let newcomers = std::mem::take(&mut *world.newcomers.lock());
                newcomers.iter().for_each(|node| self.employ(node));
                std::thread::sleep(Duration::from_millis(50));
                told();
            }
            ensure!(world.gate.close(HALT_MAX), "something does not end in {} s", HALT_MAX.as_secs());
            world.weather.is_rough.store(false, Ordering::Relaxed);
            rest::come_to_rest(&world)?;
            if Instant::now() >= until || stop.load(Ordering::Relaxed) || world.observed.is_wrong() {
                break;
            }
            rest::save(&world)?;
        }
        Ok(())
    }

    /// Threads that write to a node, read from it, and do it harm.
    fn employ(&mut self, node: &Arc<Node>) {
        let (writers, readers) = if node.is_copy { (1, 1) } else { (WRITERS, READERS) };
        let seed = self.world.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let random = |part: usize| StdRng::seed_from_u64(seed.wrapping_add((node.number * 100 + part) as u64));
        let mut spawn = |work: Work| {
            let (world, node) = (Arc::clone(&self.world), Arc::clone(node));
            self.threads.push(std::thread::spawn(move || work(&world, &node)));
        };
        for writer in 0..writers {
            let random = random(writer);
            spawn(Box::new(move |world, node| traffic::write(world, node, random)));
        }
        for reader in 0..readers {
            let random = random(20 + reader);
            spawn(Box::new(move |world, node| reads::read(world, node, random)));
        }
        let random = random(40);
        spawn(Box::new(traffic::fence));
        spawn(Box::new(move |world, node| faults::befall(world, node, random)));
    }

    /// Ends all processes of the nodes, and all threads.
    pub fn end(self) {
        let world = self.world;
        world.gate.end();
        for node in world.nodes() {
            node.retired.store(true, Ordering::Relaxed);
            node.kill();
        }
        for thread in self.threads {
            if thread.join().is_err() {
                world.observed.wrong("a thread of this program has panicked".to_owned());
            }
        }
    }
}
