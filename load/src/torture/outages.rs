//! What befalls the store: one fault after the other, drawn from the seed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rustix::process::Signal;

use super::figures::Fact;
use super::node::Node;
use super::postgres::Postgres;
use super::process::signal;
use super::world::World;

/// One fault after the other until there is nothing more to do.
pub fn befall(world: &Arc<World>, mut random: StdRng) {
    loop {
        world.gate.sleep(Duration::from_millis(random.random_range(300..2_500)));
        let Some(_pass) = world.gate.enter() else { return };
        // Once in a round: what was there before is kept by the nodes only for a time.
        let may_go_back = world.goes_back.load(Ordering::Relaxed) && world.observed.era() == 0;
        let may_go_back = may_go_back && random.random_bool(0.15);
        let struck = match &world.postgres {
            Some(postgres) if may_go_back && postgres.has_standby() && random.random() => {
                let lag = Duration::from_millis(random.random_range(0..600));
                let promoted = postgres.promote_standby(lag, || world.observed.went_back());
                promoted.inspect(|()| world.observed.figures.note(Fact::Promotions))
            }
            Some(postgres) if may_go_back && postgres.is_saved() => {
                world.observed.figures.note(Fact::Restores);
                postgres.set_back(|| world.observed.went_back())
            }
            Some(postgres) => strike(world, postgres, &mut random),
            None => Ok(()),
        };
        if let Err(error) = struck {
            world.observed.wrong(format!("{error:#}"));
        }
    }
}

fn strike(world: &World, postgres: &Postgres, random: &mut StdRng) -> anyhow::Result<()> {
    let figures = &world.observed.figures;
    let pause = Duration::from_millis(random.random_range(0..600));
    match random.random_range(0..100) {
        0..50 => {
            let Some(child) = postgres.child(random.random_range(0..1_000)) else { return Ok(()) };
            figures.note(Fact::FreezesOfStore);
            signal(child, Signal::STOP);
            std::thread::sleep(pause);
            signal(child, Signal::CONT);
        }
        50..72 => {
            figures.note(Fact::FreezesOfStore);
            let frozen = postgres.freeze();
            std::thread::sleep(pause);
            frozen.into_iter().for_each(|pid| signal(pid, Signal::CONT));
        }
        72..82 => {
            let Some(child) = postgres.child(random.random_range(0..1_000)) else { return Ok(()) };
            figures.note(Fact::BackendKills);
            // The server takes that for a crash and starts anew by itself.
            signal(child, Signal::KILL);
            postgres.wait_until_ready()?;
        }
        82..92 => {
            figures.note(Fact::StoreKills);
            postgres.kill()?;
            std::thread::sleep(pause);
            postgres.start()?;
        }
        _ => {
            figures.note(Fact::StoreStops);
            postgres.stop(false)?;
            postgres.start()?;
        }
    }
    Ok(())
}

const FILES: [&str; 3] = ["events.sqlite", "events.sqlite-wal", "events.sqlite-shm"];

fn saved(place: &Path) -> PathBuf {
    place.with_extension("saved")
}

/// Keeps a copy of the file of a node that does not run.
///
/// # Errors
/// When it can't be copied.
pub fn save_file(node: &Node) -> std::io::Result<()> {
    copy_files(&node.place, &saved(&node.place))
}

#[must_use]
pub fn is_file_saved(node: &Node) -> bool {
    saved(&node.place).exists()
}

/// Puts that copy back.
///
/// # Errors
/// When it can't be copied.
pub fn set_file_back(node: &Node) -> std::io::Result<()> {
    copy_files(&saved(&node.place), &node.place)
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for file in FILES {
        let (from, to) = (from.join(file), to.join(file));
        if to.exists() {
            std::fs::remove_file(&to)?;
        }
        if from.exists() {
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
