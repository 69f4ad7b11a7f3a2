//! A Citus cluster that runs already: `CITUS_URL` is that of its coordinator. And one of a test's own, whose
//! workers may be killed and frozen.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::{Client, NoTls};

use super::postgres::Cluster;

/// As a cluster needs them; connections of the workers are those of the coordinator and some.
const SETTINGS: &[&str] = &["shared_preload_libraries=citus", "max_connections=300", "max_prepared_transactions=300"];

/// A coordinator, which holds no partition, and two workers.
pub struct Machines {
    pub coordinator: Cluster,
    pub workers: [Cluster; 2],
}

impl Machines {
    /// Started. Needs Citus among PostgreSQL's extensions.
    pub async fn start() -> Self {
        let machine = || Cluster::private_with(SETTINGS);
        let start = move || Self { coordinator: machine(), workers: [machine(), machine()] };
        let machines = tokio::task::spawn_blocking(start).await.unwrap();
        let client = machines.coordinator.connect("postgres").await;
        for machine in [&machines.coordinator].into_iter().chain(&machines.workers) {
            machine
                .connect("postgres")
                .await
                .batch_execute("create extension citus")
                .await
                .expect("Citus is installed");
        }
        let port = machines.coordinator.port();
        for sql in [
            format!("select citus_set_coordinator_host('127.0.0.1', {port})"),
            format!("select citus_add_node('127.0.0.1', {})", machines.workers[0].port()),
            format!("select citus_add_node('127.0.0.1', {})", machines.workers[1].port()),
            format!("select citus_set_node_property('127.0.0.1', {port}, 'shouldhaveshards', false)"),
        ] {
            client.batch_execute(&sql).await.unwrap();
        }
        machines
    }
}

fn coordinator() -> String {
    std::env::var("CITUS_URL").expect("CITUS_URL names the coordinator of a Citus cluster: load/citus.sh starts one")
}

/// The URL of a store in this schema.
pub fn url(schema: &str) -> String {
    format!("{}?options=-csearch_path%3D{schema}", coordinator())
}

/// A session in this schema.
pub async fn connect(schema: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&coordinator(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("set search_path to {schema}")).await.unwrap();
    client
}

/// An empty schema, which stays until the cluster is gone.
pub async fn create_schema() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let schema = format!("test_{}_{number}", std::process::id());
    connect("public").await.batch_execute(&format!("create schema {schema}")).await.unwrap();
    schema
}
