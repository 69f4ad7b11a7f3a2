//! Everything comes to rest: nothing fails any more, all is in the store, and then all must agree exactly.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use event_tracker::domain::HourRange;
use event_tracker::store::{self, HourlyQuery};

use super::faults::{STOP_MAX, look_after};
use super::figures::Fact;
use super::http::{Answer, Client, request};
use super::node::Node;
use super::observed::{Row, STALENESS};
use super::world::World;
use super::{outages, reads, traffic};

/// How long it may take until everything is in the store.
const REST_MAX: Duration = Duration::from_secs(120);
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// # Errors
/// When it does not, or can't be read.
pub fn come_to_rest(world: &World) -> anyhow::Result<()> {
    if let Some(postgres) = &world.postgres {
        postgres.start()?;
        postgres.wait_until_ready()?;
    }
    let until = Instant::now() + REST_MAX;
    while world.weather.late.load(std::sync::atomic::Ordering::SeqCst) > 0 {
        ensure!(Instant::now() < until, "a request that is late never arrives");
        std::thread::sleep(PAUSE);
    }
    for node in world.nodes() {
        deliver(world, &node, until)?;
    }
    // Copies of one folder may deliver for each other.
    let nodes = world.nodes();
    let mut books = None;
    for node in &nodes {
        let audited = node.audit(&world.store_url(node))?;
        ensure!(audited.pending == 0, "node {} has {} counts that wait at rest", node.number, audited.pending);
        if !audited.balanced {
            world.observed.wrong(format!("the books do not balance: {audited:?}"));
        }
        if audited.missing != 0 {
            world.observed.wrong(format!("node {} misses {} counts", node.number, audited.missing));
        }
        if node.has_panicked() {
            world.observed.wrong(format!("a process of node {} has panicked", node.number));
        }
        books = Some(audited.rows);
    }
    // Older than anything that a node may know of the others.
    std::thread::sleep(STALENESS);
    let held = held(world, nodes.first().context("there is no node")?)?;
    let sum = held.values().map(|count| i128::from(*count)).sum::<i128>();
    if books != Some(sum) {
        world.observed.wrong(format!("the books say {books:?}, and the rows are {sum}"));
    }
    for node in &nodes {
        compare(world, node, &held)?;
    }
    world.observed.settle(&held);
    world.observed.figures.note(Fact::Rests);
    for node in nodes.iter().filter(|node| node.is_copy) {
        end(world, node);
        world.retire(node);
    }
    Ok(())
}

/// Waits until all that a node has acknowledged is in the store.
fn deliver(world: &World, node: &Node, until: Instant) -> anyhow::Result<()> {
    let mut client = Client::default();
    loop {
        look_after(world, node);
        let passes = traffic::fence_once(world, node, &mut client);
        if passes && node.audit(&world.store_url(node)).is_ok_and(|audited| audited.pending == 0) {
            return Ok(());
        }
        if Instant::now() > until {
            let audited = node.audit(&world.store_url(node));
            bail!("node {} does not come to rest: its last count passed: {passes}, {audited:?}", node.number);
        }
        std::thread::sleep(PAUSE);
    }
}

/// What the store holds, asked directly.
fn held(world: &World, node: &Node) -> anyhow::Result<BTreeMap<Row, u64>> {
    let options = store::Options { url: world.store_url(node), ..store::Options::default() };
    let rows = world.block_on(async {
        let store = store::open_for_audit(&options, &node.data_dir()).await?;
        let query = HourlyQuery { range: HourRange::ALL, names: Vec::new(), rows_max: usize::MAX };
        let rows = store.hourly(query, Vec::new()).await;
        store.close().await;
        anyhow::Ok(rows?)
    });
    let rows = rows.context("the store can't be read")?.value.into_iter();
    Ok(rows.map(|row| ((row.event.as_str().to_owned(), row.hour), row.count)).collect())
}

/// At rest a node shows what the store holds.
fn compare(world: &World, node: &Node, held: &BTreeMap<Row, u64>) -> anyhow::Result<()> {
    let mut client = Client::default();
    let mut get = |target: &str| -> anyhow::Result<Answer> {
        let address = node.reach(&mut client);
        address.with_context(|| format!("node {} can't be reached at rest", node.number))?;
        let answer = client.exchange(&request("GET", target)).filter(|answer| answer.status == 200);
        answer.with_context(|| format!("node {} does not answer GET {target} at rest", node.number))
    };
    let observed = &world.observed;
    let mut totals: HashMap<String, u64> = HashMap::new();
    for ((name, _), count) in held {
        *totals.entry(name.clone()).or_default() += count;
    }
    let ready = get("/readyz")?;
    if memchr::memmem::find(&ready.body, b"missing").is_some() {
        observed.wrong(format!("node {} is {}", node.number, String::from_utf8_lossy(&ready.body)));
    }
    // A name that was taken and refused later may be shown without a count.
    match reads::totals(&get(reads::UNIQUE)?) {
        Ok(mut shown) => {
            shown.retain(|_, count| *count > 0);
            let differs = |name: &&String| shown.get(*name) != totals.get(*name);
            let differing: Vec<_> = shown.keys().chain(totals.keys()).filter(differs).take(5).collect();
            for name in differing {
                let (shown, held) = (shown.get(name), totals.get(name));
                observed.wrong(format!("at rest node {} shows {shown:?} of {name}, held are {held:?}", node.number));
            }
        }
        Err(error) => observed.wrong(format!("unique of node {} at rest: {error}", node.number)),
    }
    match reads::rows(&get(&reads::range(world.begins))?) {
        Ok(shown) if shown == *held => {}
        Ok(_) => observed.wrong(format!("at rest the range of node {} is not what the store holds", node.number)),
        Err(error) => observed.wrong(format!("range of node {} at rest: {error}", node.number)),
    }
    Ok(())
}

/// Ends a process that has nothing to do any more.
fn end(world: &World, node: &Node) {
    node.terminate();
    let status = node.wait(STOP_MAX);
    if !status.is_some_and(|status| status.success()) {
        world.observed.wrong(format!("node {} does not stop at rest: {status:?}", node.number));
        node.kill();
    }
    world.observed.ended(node.number, status.is_some_and(|status| status.success()));
}

/// Keeps the store as it is now, so that it can go back to it.
///
/// # Errors
/// When it can't be copied or started again.
pub fn save(world: &World) -> anyhow::Result<()> {
    match &world.postgres {
        Some(postgres) => postgres.save(),
        None => {
            for node in world.nodes() {
                end(world, &node);
                outages::save_file(&node)?;
                world.start(&node);
            }
            Ok(())
        }
    }
}
