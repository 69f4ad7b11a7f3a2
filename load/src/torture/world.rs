//! A store, the nodes on it, and what is known of them: one world, drawn from one seed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use event_tracker::domain::Hour;
use parking_lot::Mutex;

use super::figures::{Fact, Figures};
use super::gate::{Gate, Pass};
use super::node::{Node, Service};
use super::observed::Observed;
use super::postgres::Postgres;
use super::process::{self, Sweeper, Victim};
use super::proxy::{Proxy, Weather};
use crate::scenario::AckLevel;

/// Room for what a node keeps for a store that goes back, and for a copy of it.
const DISK: &str = "size=256m";

/// What a run was asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    pub is_postgres: bool,
    pub nodes: usize,
    pub service: Service,
    pub round: Duration,
    pub rounds: usize,
}

pub struct World {
    pub ack: AckLevel,
    /// The first hour in which it may count.
    pub begins: Hour,
    pub gate: Gate,
    pub observed: Observed,
    pub postgres: Option<Postgres>,
    pub weather: Arc<Weather>,
    /// Whether each node has a small file system of its own.
    pub has_disks: bool,
    /// Whether the store may go back in this round. A disk that is full takes what a node keeps for that, so no disk is
    /// filled then.
    pub goes_back: AtomicBool,
    /// How many folders may still be copied in this round.
    pub copies: AtomicUsize,
    /// Nodes that nobody has anything to do with yet.
    pub newcomers: Mutex<Vec<Arc<Node>>>,
    pub settings: Settings,
    pub seed: u64,
    folder: PathBuf,
    sweeper: Arc<Sweeper>,
    nodes: Mutex<Vec<Arc<Node>>>,
    numbers: AtomicUsize,
    runtime: tokio::runtime::Runtime,
}

impl World {
    /// With its nodes, started.
    ///
    /// # Errors
    /// When the store or a node can't be started.
    pub fn create(
        settings: &Settings,
        seed: u64,
        folder: &Path,
        figures: &Arc<Figures>,
        sweeper: &Arc<Sweeper>,
    ) -> anyhow::Result<Arc<Self>> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().context("can't start the runtime")?;
        let postgres = settings.is_postgres.then(|| Postgres::create(&folder.join("postgres"), sweeper)).transpose()?;
        let late = AtomicUsize::new(0);
        let mut world = Self {
            ack: settings.service.ack,
            begins: Hour::containing(SystemTime::now()),
            gate: Gate::default(),
            observed: Observed::new(Arc::clone(figures)),
            postgres,
            weather: Arc::new(Weather { is_rough: AtomicBool::new(false), late, figures: Arc::clone(figures) }),
            has_disks: process::is_root(),
            goes_back: AtomicBool::new(false),
            copies: AtomicUsize::new(0),
            settings: settings.clone(),
            folder: folder.to_owned(),
            sweeper: Arc::clone(sweeper),
            nodes: Mutex::default(),
            numbers: AtomicUsize::new(0),
            seed,
            newcomers: Mutex::default(),
            runtime,
        };
        let mut places = Vec::new();
        for _ in 0..settings.nodes {
            let place = world.place()?;
            world.has_disks = world.has_disks && mount(&place, sweeper);
            places.push(place);
        }
        let world = Arc::new(world);
        for place in places {
            let node = world.node(place, false)?;
            node.start(0)?;
        }
        figures.note(Fact::Worlds);
        Ok(world)
    }

    /// A folder for what holds a data folder.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn place(&self) -> anyhow::Result<PathBuf> {
        let place = self.folder.join(format!("place-{}", self.numbers.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&place).with_context(|| format!("can't make {}", place.display()))?;
        Ok(place)
    }

    /// A node on a data folder in that place. Not started.
    ///
    /// # Errors
    /// When its proxy can't listen.
    pub fn node(self: &Arc<Self>, place: PathBuf, is_copy: bool) -> anyhow::Result<Arc<Node>> {
        let mut nodes = self.nodes.lock();
        let number = nodes.iter().map(|node| node.number + 1).max().unwrap_or(0);
        let victim = Victim::default();
        let proxy = match &self.postgres {
            Some(postgres) => {
                let weather = Arc::clone(&self.weather);
                let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(number as u64) << 20;
                Some(self.runtime.block_on(Proxy::start(postgres.port(), victim.clone(), weather, seed))?)
            }
            None => None,
        };
        let url = proxy.as_ref().map_or_else(|| sqlite_url(&place), |proxy| Postgres::url(proxy.port()));
        let connected = (url, proxy, victim);
        let service = self.settings.service.clone();
        let node = Arc::new(Node::new(number, is_copy, place, service, connected, &self.sweeper));
        nodes.push(Arc::clone(&node));
        self.newcomers.lock().push(Arc::clone(&node));
        Ok(node)
    }

    /// Waits until work on a node may begin; `None` when there will be none any more.
    pub fn enter(&self, node: &Node) -> Option<Pass<'_>> {
        self.gate.enter().filter(|_| !node.is_retired())
    }

    /// Starts a process on its data folder.
    pub fn start(&self, node: &Node) {
        if let Err(error) = node.start(self.observed.life(node.number)) {
            self.observed.wrong(format!("node {}: {error:#}", node.number));
        }
    }

    #[must_use]
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().clone()
    }

    /// It will not be started again, and its folder is not needed any more.
    pub fn retire(&self, node: &Node) {
        node.retired.store(true, Ordering::Relaxed);
        let _ = std::fs::remove_dir_all(&node.place);
        self.nodes.lock().retain(|other| other.number != node.number);
    }

    /// The address of the store, without a proxy.
    #[must_use]
    pub fn store_url(&self, node: &Node) -> String {
        self.postgres.as_ref().map_or_else(|| sqlite_url(&node.place), |postgres| Postgres::url(postgres.port()))
    }

    /// Any future, on the runtime of the proxies.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

fn sqlite_url(place: &Path) -> String {
    format!("sqlite:{}", place.join("events.sqlite").display())
}

/// A small file system. Only root may mount one.
fn mount(place: &Path, sweeper: &Sweeper) -> bool {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]).arg(place).output();
    let is_mounted = mounted.is_ok_and(|output| output.status.success());
    if is_mounted {
        sweeper.mounted(place);
    }
    is_mounted
}
