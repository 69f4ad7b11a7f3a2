//! A store that is cut into partitions: a batch that only some of them have, one of them that went back, and
//! the settings that do not fit. What every store promises is tried in partitions by the contract.

use std::path::Path;
use std::sync::Arc;

use event_tracker::domain::{Ack, Day, EventName, Hour, HourRange, Partitions};
use event_tracker::node::{Drained, Node};
use event_tracker::store::{self, Options, Store, StoreError};
use tokio_postgres::Client;

use crate::harness::node::{node, options, record};
use crate::harness::postgres::Cluster;
use crate::harness::{Backend, PARTITIONS, PATIENCE, TestApp, eventually};
use crate::store_contract::{Bench, Kind, balanced_books, batch, open_in, request, rows};

const HOUR: u32 = 480_000;

/// A database of its own, and nodes on it.
struct Stage {
    database: String,
    events: Vec<String>,
}

impl Stage {
    async fn new() -> Self {
        let partitions = Partitions::new(PARTITIONS).unwrap();
        // One event in each partition.
        let in_partition = |partition| {
            let name = |number| format!("event {number}");
            (0..).map(name).find(|name| partitions.of(&EventName::parse(name).unwrap()) == partition).unwrap()
        };
        let events = partitions.all().map(in_partition).collect();
        Self { database: Cluster::shared().create_database().await, events }
    }

    async fn store(&self) -> Arc<dyn Store> {
        let (url, partitions) = (Cluster::shared().url(&self.database), PARTITIONS);
        let options = Options { url, partitions, lock_timeout_ms: 200, ..Options::default() };
        store::open(&options, Path::new("unused")).await.unwrap()
    }

    async fn node(&self, folder: &Path) -> Node {
        let node = node(folder, self.store().await, options());
        node.meet_store().await.unwrap();
        node
    }

    async fn client(&self) -> Client {
        Cluster::shared().connect(&self.database).await
    }

    /// From then on no commit reaches a partition, until the session ends.
    async fn close_off(&self, partition: u16) -> Client {
        let client = self.client().await;
        let lock = format!("begin; lock table public_partition_{partition}.ledger in exclusive mode");
        client.batch_execute(&lock).await.unwrap();
        client
    }

    /// One more in each partition, with all reads exact before, meanwhile and after.
    fn count_everywhere(&self, node: &Node, count: u64) {
        self.events.iter().for_each(|event| record(node, event, HOUR, count));
    }

    /// Every read of the node says `count` for each event.
    async fn expect(&self, node: &Node, count: u64) {
        let expected: Vec<_> = self.events.iter().map(|event| (event.clone(), count)).collect();
        let mut expected = expected;
        expected.sort();
        let of = |event: &EventName| event.as_str().to_owned();
        let totals: Vec<_> = node.query.totals().await.unwrap().iter().map(|t| (of(&t.event), t.count)).collect();
        assert_eq!(totals, expected);
        let range = node.query.hourly(HourRange::ALL, 1_000).await.unwrap();
        assert_eq!(range.iter().map(|row| (of(&row.event), row.count)).collect::<Vec<_>>(), expected);
        let hours = node.query.hour_sums(HourRange::ALL).await.unwrap();
        assert_eq!(hours, [(Hour::from_number(HOUR).unwrap(), count * u64::from(PARTITIONS))]);
        let event = EventName::parse(&self.events[2]).unwrap();
        let day = node.query.day(&event, Day::containing(Hour::from_number(HOUR).unwrap())).await.unwrap().unwrap();
        assert_eq!(day.counts.iter().sum::<u64>(), count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_exact_while_only_some_partitions_have_a_batch() {
    let stage = Stage::new().await;
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (node, beside) = (stage.node(folder.path()).await, stage.node(other.path()).await);
    stage.count_everywhere(&node, 1);
    node.flusher.flush().await.unwrap();
    stage.expect(&node, 1).await;
    for partition in 0..PARTITIONS {
        let before = u64::from(partition) + 1;
        stage.count_everywhere(&node, 1);
        let locked = stage.close_off(partition).await;
        assert!(node.flusher.flush().await.is_err());
        // Kept lists and new ones; the other node sees what is in the store of each event.
        stage.expect(&node, before + 1).await;
        let seen = eventually_sum(&beside).await;
        assert_eq!(seen, (before + 1) * u64::from(PARTITIONS) - 1);
        drop(locked);
        eventually("the flush", async || node.flusher.flush().await.is_ok()).await;
        stage.expect(&node, before + 1).await;
    }
    eventually("the other node's reads", async || {
        eventually_sum(&beside).await == u64::from(PARTITIONS + 1) * u64::from(PARTITIONS)
    })
    .await;
    let books = balanced_books(&stage.store().await).await;
    assert_eq!(books.rows, i128::from(PARTITIONS + 1) * i128::from(PARTITIONS));
    assert_eq!((node.missing(), beside.missing()), (0, 0));
}

/// What a node sees in all, anew.
async fn eventually_sum(node: &Node) -> u64 {
    tokio::time::sleep(std::time::Duration::from_millis(110)).await;
    node.query.totals().await.unwrap().iter().map(|total| total.count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_while_only_some_partitions_have_its_batch_delivers_the_rest() {
    let stage = Stage::new().await;
    let folder = tempfile::tempdir().unwrap();
    for partition in 0..PARTITIONS {
        let node = stage.node(folder.path()).await;
        let before = u64::from(partition) * 2;
        stage.count_everywhere(&node, 2);
        node.batches.wait_durable(last_ticket(&node, &stage.events[0]), Ack::Journal).await.unwrap();
        let locked = stage.close_off(partition).await;
        assert!(node.flusher.flush().await.is_err());
        drop(node);
        let node = stage.node(folder.path()).await;
        // The ticket's own count is not among them.
        stage_sum(&stage, &node, before + 2, u64::from(partition) + 1).await;
        drop(locked);
        assert_eq!(node.drain(PATIENCE).await, Drained::Stored);
        node.store.close().await;
    }
    let expected = i128::from(PARTITIONS) * (2 * i128::from(PARTITIONS) + 1);
    assert_eq!(balanced_books(&stage.store().await).await.rows, expected);
}

/// One count more of an event, to wait for all that was counted before.
fn last_ticket(node: &Node, event: &str) -> event_tracker::batch::Ticket {
    let (event, hour) = (EventName::parse(event).unwrap(), Hour::from_number(HOUR).unwrap());
    node.batches.record(&event, hour, 1).unwrap().ticket
}

async fn stage_sum(stage: &Stage, node: &Node, each: u64, more: u64) {
    let sum: u64 = node.query.totals().await.unwrap().iter().map(|total| total.count).sum();
    assert_eq!(sum, each * stage.events.len() as u64 + more);
}

const TABLES: [&str; 7] =
    ["ledger", "deltas", "folded", "hourly_counts", "event_totals", "hour_totals", "retired_writers"];

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_went_back_gets_again_what_it_lost() {
    let stage = Stage::new().await;
    let folder = tempfile::tempdir().unwrap();
    let node = stage.node(folder.path()).await;
    stage.count_everywhere(&node, 1);
    node.flusher.flush().await.unwrap();
    node.store.fold().await.unwrap();
    let client = stage.client().await;
    let on_tables = async |sql: &str| {
        for table in TABLES {
            client.batch_execute(&sql.replace("TABLE", table)).await.unwrap();
        }
    };
    on_tables("create table saved_TABLE as select * from public_partition_1.TABLE").await;
    for _ in 0..3 {
        stage.count_everywhere(&node, 1);
        node.flusher.flush().await.unwrap();
        node.store.fold().await.unwrap();
    }
    stage.expect(&node, 4).await;
    on_tables("delete from public_partition_1.TABLE; insert into public_partition_1.TABLE select * from saved_TABLE")
        .await;
    eventually("the loss to be noticed and mended", async || {
        let _ = node.catalog.keep_current().await;
        let _ = node.query.totals().await;
        let _ = node.flusher.flush().await;
        node.query.totals().await.is_ok_and(|totals| totals.iter().all(|total| total.count == 4))
    })
    .await;
    stage.expect(&node, 4).await;
    eventually("all to be delivered", async || {
        let _ = node.flusher.flush().await;
        node.batches.is_settled()
    })
    .await;
    stage.expect(&node, 4).await;
    assert_eq!(node.missing(), 0);
    assert_eq!(balanced_books(&stage.store().await).await.rows, 4 * i128::from(PARTITIONS));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_deliver_different_batches_of_one_number_deliver_what_either_lacks() {
    // Of a copied folder: each partition takes the batch of whoever comes first.
    let bench = Bench::partitioned().await;
    let store = bench.store().await;
    let all: Vec<(String, u32, u64)> = (0..40).map(|number| (format!("event {number}"), 1, 2)).collect();
    let some: Vec<_> = all.iter().take(20).cloned().collect();
    let of = |rows_of: &[(String, u32, u64)]| {
        rows(rows_of.iter().map(|(event, hour, count)| (event.as_str(), *hour, *count)))
    };
    store.commit(request(batch(1, 1), of(&some))).await.unwrap();
    let stands = store.commit(request(batch(1, 1), of(&all))).await.unwrap();
    assert_eq!(stands, crate::store_contract::stands(1, 40, &of(&some)));
    let delta = store.delta(batch(1, 1)).await.unwrap().unwrap();
    assert_eq!((delta.total, delta.rows), (40, of(&some)));
    assert_eq!(store.delta(batch(1, 2)).await.unwrap(), None);
}

#[tokio::test]
async fn another_number_of_partitions_than_the_store_was_made_with_is_refused() {
    let bench = Bench::partitioned().await;
    let Bench::Postgres { database, kind } = &bench else { unreachable!() };
    assert_eq!(*kind, Kind::Partitioned);
    bench.store().await.identity().await.unwrap();
    for partitions in [1, 8] {
        let options = Options { url: Cluster::shared().url(database), partitions, ..Options::default() };
        let store = store::open(&options, Path::new("unused")).await.unwrap();
        let Err(StoreError::Refused(why)) = store.identity().await else { panic!("it was accepted") };
        assert!(why.contains(&format!("set store.partitions to {PARTITIONS}, not {partitions}")), "{why}");
    }
    let unpartitioned = Bench::postgres().await;
    unpartitioned.store().await.identity().await.unwrap();
    let Bench::Postgres { database, .. } = unpartitioned else { unreachable!() };
    let store = open_in(&Cluster::shared().url(&database), PARTITIONS).await;
    let Err(StoreError::Refused(why)) = store.identity().await else { panic!("it was accepted") };
    assert!(why.contains("made with 1 partitions"), "{why}");
}

#[tokio::test]
async fn sqlite_can_not_be_cut_into_partitions() {
    let mut app = TestApp::with(Backend::Sqlite).config("store.partitions", 2).build().await;
    let output = app.run(&["serve"]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("only PostgreSQL can be cut into partitions"), "{error}");
    app = TestApp::with(Backend::Sqlite).config("store.partitions", 65).build().await;
    let output = app.run(&["serve"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("64"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_tables_of_a_partition_are_those_of_a_store_that_is_whole() {
    const SHAPES: &str = "
        select relation.relname::text, string_agg(distinct concat_ws(' ', attribute.attname, format_type(attribute.atttypid, atttypmod),
                attribute.attnotnull, attribute.attcompression, pg_get_expr(defaults.adbin, defaults.adrelid)), ', ')
            || coalesce(relation.reloptions::text, '') || coalesce(toast.reloptions::text, '')
            || coalesce((select string_agg(distinct regexp_replace(pg_get_indexdef(indexrelid), '.* USING', ''), '; ')
                from pg_index where indrelid = relation.oid), '')
            || coalesce((select string_agg(pg_get_constraintdef(oid), '; ' order by pg_get_constraintdef(oid))
                from pg_constraint where conrelid = relation.oid), '')
        from pg_class as relation
        join pg_attribute as attribute on attribute.attrelid = relation.oid and attnum > 0 and not attisdropped
        left join pg_attrdef as defaults on defaults.adrelid = relation.oid and defaults.adnum = attnum
        left join pg_class as toast on toast.oid = relation.reltoastrelid
        where relation.relkind in ('r', 'v') and relation.relnamespace = to_regnamespace($1)
        group by relation.oid, relation.relname, relation.reloptions, toast.reloptions";
    let (whole, cut) = (Bench::postgres().await, Bench::partitioned().await);
    let mut shapes = Vec::new();
    for (bench, schema) in [(&whole, "public"), (&cut, "public_partition_3")] {
        bench.store().await.identity().await.unwrap();
        let shapes_of = bench.client().await.query(SHAPES, &[&schema]).await.unwrap();
        let shapes_of = shapes_of.iter().map(|row| (row.get::<_, String>(0), row.get::<_, String>(1)));
        shapes.push(shapes_of.collect::<std::collections::BTreeMap<_, _>>());
    }
    let in_partition: Vec<&String> = shapes[1].keys().collect();
    assert_eq!(in_partition.len(), 15, "{in_partition:?}");
    for (name, shape) in &shapes[1] {
        assert_eq!(Some(shape), shapes[0].get(name), "{name}");
    }
}
