//! A Citus cluster that runs already: `CITUS_URL` is that of its coordinator.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::{Client, NoTls};

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
