//! Which nodes share the store, for who looks after them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use warp::reply::Response;

use super::Api;
use super::health::uncached;
use crate::web::problem::{Problem, success};

#[derive(Serialize)]
struct Line {
    /// The same after a restart.
    node: String,
    /// Another one after a restart.
    writer: String,
    address: String,
    host: String,
    version: String,
    started: DateTime<Utc>,
    last_commit: Option<DateTime<Utc>>,
    lag_ms: u64,
    reported_ms: u64,
    /// It is the one that answers.
    this: bool,
    /// Another live node has the same id: one of their data folders is a copy of the other.
    copied: bool,
}

/// `GET /api/v1/nodes`
pub(super) async fn live(api: &Api) -> Result<Response, Problem> {
    let nodes = api.presence.nodes().await?;
    let lines = nodes.iter().map(|seen| Line {
        node: seen.node.to_string(),
        writer: seen.writer.to_string(),
        address: seen.address.clone(),
        host: seen.host.clone(),
        version: seen.version.clone(),
        started: seen.started,
        last_commit: seen.last_commit,
        lag_ms: u64::try_from(seen.lag.as_millis()).unwrap_or(u64::MAX),
        reported_ms: u64::try_from(seen.reported.as_millis()).unwrap_or(u64::MAX),
        this: api.presence.is_this(seen),
        copied: seen.is_copied(&nodes),
    });
    Ok(uncached(success(&lines.collect::<Vec<_>>())))
}
