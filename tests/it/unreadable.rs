//! A sector that the disk can't read any more.

use std::path::Path;

use event_tracker::batch::RecoverError;
use event_tracker::domain::{Ack, EventName, Hour};
use event_tracker::journal::replay::ReplayError;
use event_tracker::node::{Node, Options};

use crate::harness::faulty_files::Plan;
use crate::harness::node::{now, options, record, sqlite};

const COUNTS: u32 = 400;
/// Within the second block of a segment that is longer than that.
const UNREADABLE: u64 = 5_000;

fn accepting(accept_damage: bool) -> Options {
    let mut options = options();
    options.journal.accept_damage = accept_damage;
    options
}

async fn count_and_die(data: &Path) {
    let plan = Plan::healthy();
    let store = sqlite(data.parent().unwrap()).await;
    let (node, _) = Node::recover(plan.folder(data), store, accepting(false), now()).unwrap();
    for number in 0..COUNTS {
        record(&node, "login", 490_000 + number, 1);
    }
    let last = node.batches.record(&EventName::parse("last").unwrap(), Hour::MAX, 1).unwrap();
    node.batches.wait_durable(last.ticket, Ack::Disk).await.unwrap();
    plan.die();
}

#[tokio::test]
async fn an_unreadable_sector_is_named_and_skipped_where_damage_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    count_and_die(&data).await;
    let plan = Plan::healthy();
    plan.make_unreadable(".journal", UNREADABLE);
    let store = sqlite(folder.path()).await;
    let recovered = Node::recover(plan.folder(&data), store.clone(), accepting(false), now());
    let error = recovered.err().expect("it starts as if nothing was");
    let RecoverError::Replay(ReplayError::Unreadable { path, offset, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(*offset, UNREADABLE / 4096 * 4096);
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()) && text.contains("byte 4096"), "{text}");
    assert!(path.exists(), "{}", path.display());

    let (node, recovered) = Node::recover(plan.folder(&data), store, accepting(true), now()).unwrap();
    assert!((4000..4200).contains(&recovered.damaged_bytes), "{recovered:?}");
    let lost = i128::from(COUNTS) + 1 - recovered.counts;
    assert!((100..200).contains(&lost), "{recovered:?}");
    assert!(path.with_extension("journal.damaged").exists(), "what is readable of it is kept to be looked at");
    node.meet_store().await.unwrap();
    node.flusher.flush().await.unwrap();
    assert_eq!(node.store.audit().await.unwrap().rows, recovered.counts);
}
