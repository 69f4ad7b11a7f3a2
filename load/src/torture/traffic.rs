//! What is sent to a node all the time: counts of every form, and now and then one that waits for the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_tracker::domain::Ack;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::http::{Answer, Client, post_json, request};
use super::node::Node;
use super::observed::{HOT, Observed};
use super::sums::Charge;
use super::world::World;
use crate::check::Outcome;
use crate::scenario::AckLevel;

/// How often a writer may count a name of its own. They stay in the store, and each read shows them all.
const TAG_INTERVAL: Duration = Duration::from_millis(250);
const FENCE_INTERVAL: Duration = Duration::from_millis(400);
/// Between requests of one writer, at most: the machine is for commits, faults and reads as well.
const REST_MAX: Duration = Duration::from_millis(3);
/// Between looks for a process to send to.
const PAUSE: Duration = Duration::from_millis(5);

/// What an answer says of what was asked for. `wrong`: it breaks the contract.
fn judge(answer: Option<&Answer>, ack: Ack, items: Option<u64>) -> Result<Outcome, String> {
    #[derive(serde::Deserialize)]
    struct Body {
        status: bool,
        counted: Option<String>,
        response: Option<serde_json::Value>,
    }
    let Some(answer) = answer else { return Ok(Outcome::Unknown) };
    let body = || serde_json::from_slice::<Body>(&answer.body);
    match (answer.status, body()) {
        (200 | 201, Ok(Body { status: true, response, .. })) => {
            let accepted = response.as_ref().and_then(|response| response.get("accepted")?.as_u64());
            if items.is_some() && accepted != items {
                return Err(format!("a batch of {items:?} was taken as {accepted:?}"));
            }
            Ok(Outcome::Acknowledged(ack))
        }
        (408 | 500.., Ok(Body { status: false, counted: Some(counted), .. })) => match counted.as_str() {
            "no" => Ok(Outcome::NotCounted),
            "unknown" => Ok(Outcome::Unknown),
            other => Err(format!("counted is {other:?}")),
        },
        (status, _) => Err(format!("HTTP {status}: {}", String::from_utf8_lossy(&answer.body))),
    }
}

/// Sends to one node until there is nothing more to do.
pub fn write(world: &Arc<World>, node: &Arc<Node>, mut random: StdRng) {
    let mut client = Client::default();
    let mut tagged = Instant::now();
    while let Some(_pass) = world.enter(node) {
        let Some(address) = node.reach(&mut client) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        let observed = &world.observed;
        let round = observed.round();
        let has_tag = tagged.elapsed() > TAG_INTERVAL;
        if has_tag {
            tagged = Instant::now();
        }
        let tag = has_tag.then(|| (observed.tag(), random.random_range(1..1_000)));
        let (message, charges, items) = message(world.ack, round, tag.as_ref(), &mut random);
        let sent = observed.send((node.number, address.life), charges, tag.as_ref().map(|(name, n)| (&**name, *n)));
        let answer = client.exchange(&message);
        let outcome = judge(answer.as_ref(), world.ack.into(), items).unwrap_or_else(|wrong| {
            observed.wrong(format!("node {} answers a count: {wrong}", node.number));
            Outcome::Unknown
        });
        observed.answered(&sent, outcome);
        let rest = if outcome == Outcome::NotCounted { PAUSE } else { REST_MAX.mul_f64(random.random()) };
        std::thread::sleep(rest);
    }
}

/// The bytes of one request, what it counts of shared names, and how many items it has if it is a batch.
fn message(
    ack: AckLevel,
    round: u64,
    tag: Option<&(String, u64)>,
    random: &mut StdRng,
) -> (Vec<u8>, Vec<Charge>, Option<u64>) {
    // The level that the node has by itself is asked for without a word half of the time.
    let level = if ack != AckLevel::Store && random.random() { String::new() } else { format!("?ack={}", ack.name()) };
    let share = random.random_range(0..10_usize);
    let mut charge = |most: u64| Charge { event: random.random_range(0..HOT), count: random.random_range(1..=most) };
    if share < 2 {
        let charges: Vec<Charge> = (0..5 + share * 40).map(|_| charge(100)).collect();
        let item = |name: &str, count: u64| format!(r#"{{"event":"{name}","count":{count}}}"#);
        let hot = charges.iter().map(|charge| item(&Observed::hot(round, charge.event), charge.count));
        let items: Vec<String> = hot.chain(tag.map(|(name, count)| item(name, *count))).collect();
        let message = post_json(&format!("/api/events{level}"), &format!("[{}]", items.join(",")));
        return (message, charges, Some(items.len() as u64));
    }
    if let Some((name, count)) = tag {
        return (request("POST", &format!("/api/events/{name}/{count}{level}")), Vec::new(), None);
    }
    let Charge { event, count } = charge(1_000);
    let name = Observed::hot(round, event);
    if share < 6 {
        let charge = Charge { event, count: 1 };
        return (request("POST", &format!("/api/events/{name}{level}")), vec![charge], None);
    }
    (request("POST", &format!("/api/events/{name}/{count}{level}")), vec![Charge { event, count }], None)
}

/// Counts at level `store` from time to time: when that is acknowledged, all before it is in the store.
pub fn fence(world: &Arc<World>, node: &Arc<Node>) {
    let mut client = Client::default();
    loop {
        world.gate.sleep(FENCE_INTERVAL);
        let Some(_pass) = world.enter(node) else { return };
        fence_once(world, node, &mut client);
    }
}

/// Counts one at level `store`; whether that was acknowledged.
pub fn fence_once(world: &World, node: &Node, client: &mut Client) -> bool {
    let Some(address) = node.reach(client) else {
        std::thread::sleep(PAUSE);
        return false;
    };
    let observed = &world.observed;
    let process = (node.number, address.life);
    let (waiting, name) = (observed.fence(process), observed.tag());
    let sent = observed.send(process, Vec::new(), Some((&name, 1)));
    let answer = client.exchange(&request("POST", &format!("/api/events/{name}?ack=store")));
    let outcome = judge(answer.as_ref(), Ack::Store, None).unwrap_or_else(|wrong| {
        observed.wrong(format!("node {} answers a count: {wrong}", node.number));
        Outcome::Unknown
    });
    observed.answered(&sent, outcome);
    let has_passed = outcome == Outcome::Acknowledged(Ack::Store);
    if has_passed {
        observed.passed(waiting);
    }
    has_passed
}
