//! What befalls a node: one fault after the other, drawn from the seed.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;

use super::figures::Fact;
use super::node::Node;
use super::outages;
use super::process::copy_folder;
use super::proxy::{KillAt, Link};
use super::world::World;

/// How long a node that was asked to stop may take.
pub const STOP_MAX: Duration = Duration::from_secs(30);
/// How long a moment is waited for at which a node is to be killed.
const MOMENT_MAX: Duration = Duration::from_millis(1_500);

/// One fault after the other until there is nothing more to do.
pub fn befall(world: &Arc<World>, node: &Arc<Node>, mut random: StdRng) {
    loop {
        world.gate.sleep(Duration::from_millis(random.random_range(200..2_500)));
        let Some(_pass) = world.enter(node) else { return };
        look_after(world, node);
        strike(world, node, &mut random);
    }
}

/// A process that has ended by itself is started again.
pub fn look_after(world: &World, node: &Node) {
    if node.runs() && node.wait(Duration::ZERO).is_some() {
        world.observed.figures.note(Fact::Deaths);
        world.observed.ended(node.number, false);
    }
    if !node.runs() {
        world.start(node);
    }
}

fn strike(world: &Arc<World>, node: &Arc<Node>, random: &mut StdRng) {
    let figures = &world.observed.figures;
    let ms = |random: &mut StdRng, most: u64| Duration::from_millis(random.random_range(0..most));
    let is_original = !node.is_copy;
    let may_fill = is_original && world.has_disks && !world.goes_back.load(Ordering::Relaxed);
    match random.random_range(0..100) {
        0..30 => kill(world, node, None),
        30..45 => kill_at_commit(world, node, random),
        45..53 => {
            let before = node.segments();
            let until = Instant::now() + MOMENT_MAX;
            while Instant::now() < until && node.segments() == before {
                std::thread::sleep(Duration::from_micros(300));
            }
            kill(world, node, Some(Fact::KillsAtSegment));
        }
        53..63 => {
            kill(world, node, None);
            std::thread::sleep(ms(random, 80));
            kill(world, node, Some(Fact::KillsInStart));
        }
        63..67 => stop(world, node),
        67..80 if node.freeze() => {
            figures.note(Fact::Freezes);
            std::thread::sleep(ms(random, 600));
            node.thaw();
        }
        80..85 => run_short_of_files(world, node, random),
        85..90 if may_fill => fill_disk(world, node, random),
        90..94 if is_original => copy(world, node, random),
        _ => {
            let Some(proxy) = &node.proxy else { return set_back(world, node) };
            figures.note(Fact::Silences);
            proxy.set(if random.random() { Link::Silent } else { Link::Closed });
            std::thread::sleep(ms(random, 900));
            proxy.set(Link::Open);
        }
    }
}

/// `kill -9`; `false` if it was gone already.
fn end(world: &World, node: &Node) -> bool {
    let was_there = node.kill();
    if was_there {
        world.observed.figures.note(Fact::Kills);
    }
    world.observed.ended(node.number, false);
    was_there
}

/// `kill -9`, and another process on the same folder.
fn kill(world: &World, node: &Node, how: Option<Fact>) {
    if end(world, node) {
        how.into_iter().for_each(|how| world.observed.figures.note(how));
    }
    world.start(node);
}

/// At a moment that only its proxy sees.
fn kill_at_commit(world: &World, node: &Node, random: &mut StdRng) {
    let Some(proxy) = &node.proxy else { return kill(world, node, None) };
    proxy.arm(Some(if random.random() { KillAt::Commit } else { KillAt::Committed }));
    let is_dead = node.wait(MOMENT_MAX).is_some();
    proxy.arm(None);
    if is_dead {
        world.observed.figures.note(Fact::Kills);
        world.observed.ended(node.number, false);
        world.start(node);
    } else {
        kill(world, node, None);
    }
}

/// SIGTERM: it takes its leave.
fn stop(world: &World, node: &Node) {
    node.terminate();
    let observed = &world.observed;
    match node.wait(STOP_MAX) {
        Some(status) => {
            observed.figures.note(if status.success() { Fact::Stops } else { Fact::Deaths });
            observed.ended(node.number, status.success());
        }
        None => {
            observed.wrong(format!("node {} does not stop in {} s", node.number, STOP_MAX.as_secs()));
            node.kill();
            observed.ended(node.number, false);
        }
    }
    world.start(node);
}

/// It may open no more files, or a few.
fn run_short_of_files(world: &World, node: &Node, random: &mut StdRng) {
    let Some(open) = node.open_files() else { return };
    let Some(before) = node.limit_files(open + random.random_range(0..6)) else { return };
    world.observed.figures.note(Fact::Shortages);
    std::thread::sleep(Duration::from_millis(random.random_range(50..700)));
    node.limit_files(before);
}

/// Its file system has no room any more, or little.
fn fill_disk(world: &World, node: &Node, random: &mut StdRng) {
    let ballast = node.place.join("ballast");
    let Ok(mut file) = std::fs::File::create(&ballast) else { return };
    let block = vec![1; 1 << 20];
    // Until nothing fits any more: that it fails in the end is the point.
    while file.write_all(&block).is_ok() {}
    let left = random.random_range(0..5) * 16 * 1024;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let _ = file.set_len(size.saturating_sub(left));
    world.observed.figures.note(Fact::DisksFull);
    std::thread::sleep(Duration::from_millis(random.random_range(50..1_000)));
    let _ = std::fs::remove_file(&ballast);
}

/// What is on the disk at one moment is copied, and a process started on the copy.
fn copy(world: &Arc<World>, node: &Arc<Node>, random: &mut StdRng) {
    let left = world.copies.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if left.is_err() {
        return;
    }
    let copied = if node.proxy.is_some() { copy_beside(world, node, random.random()) } else { replace(world, node) };
    match copied {
        Ok(()) => world.observed.figures.note(Fact::Copies),
        Err(error) => world.observed.wrong(format!("the folder of node {} can't be copied: {error:#}", node.number)),
    }
}

/// The original goes on beside the copy.
fn copy_beside(world: &Arc<World>, node: &Arc<Node>, alive: bool) -> anyhow::Result<()> {
    let place = world.place()?;
    if alive {
        // Nothing changes meanwhile: the copy is of one moment.
        node.freeze();
    } else {
        end(world, node);
    }
    let copied = copy_folder(&node.data_dir(), &place.join("data"));
    if alive {
        node.thaw();
    } else {
        world.start(node);
    }
    copied?;
    let copy = world.node(place, true)?;
    world.start(&copy);
    Ok(())
}

/// The file of the store is what it was at the last rest. Once in a round: what was there before is kept by the node
/// only for a time.
fn set_back(world: &World, node: &Node) {
    let may_go_back = world.goes_back.load(Ordering::Relaxed) && outages::is_file_saved(node);
    if world.observed.era() > 0 || !may_go_back {
        return kill(world, node, None);
    }
    end(world, node);
    world.observed.went_back();
    world.observed.figures.note(Fact::Restores);
    if let Err(error) = outages::set_file_back(node) {
        world.observed.wrong(format!("the store can't be set back: {error}"));
    }
    world.start(node);
}

/// The copy takes the place of the original, since nobody else may use the store.
fn replace(world: &World, node: &Node) -> anyhow::Result<()> {
    end(world, node);
    let (data, copy) = (node.data_dir(), node.place.join("copy"));
    copy_folder(&data, &copy)?;
    std::fs::remove_dir_all(&data)?;
    std::fs::rename(&copy, &data)?;
    world.start(node);
    Ok(())
}
