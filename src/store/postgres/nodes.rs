//! The live nodes.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::client::{Client, Param};
use super::rows::{column, time, time_or_none};
use crate::domain::WriterId;
use crate::store::nodes::LIVE;
use crate::store::{NodeId, NodeReport, NodeSeen, StoreError};

/// What the last node says is lost in a crash of the database, and said again a moment later: nobody waits
/// for the disk or for a standby.
pub(super) const UNSAFE: &str = "set local synchronous_commit = off";

pub(super) async fn note(client: &Client, report: &NodeReport) -> Result<(), StoreError> {
    let (writer, node) = (report.writer.0.as_slice(), report.node.0.as_slice());
    let started = report.started.as_secs_f64();
    let (last_commit, waiting) =
        (report.last_commit.map(|ago| ago.as_secs_f64()), report.waiting.map(|ago| ago.as_secs_f64()));
    let live = LIVE.as_secs_f64();
    let params: [Param<'_>; 9] = [
        (&writer, Type::BYTEA),
        (&node, Type::BYTEA),
        (&report.host, Type::TEXT),
        (&report.address, Type::TEXT),
        (&report.version, Type::TEXT),
        (&started, Type::FLOAT8),
        (&last_commit, Type::FLOAT8),
        (&waiting, Type::FLOAT8),
        (&live, Type::FLOAT8),
    ];
    client.query_typed_one(include_str!("node_note.sql"), &params).await.map(|_| ())
}

pub(super) async fn forget(client: &Client, writer: WriterId) -> Result<(), StoreError> {
    let writer = writer.0.as_slice();
    client.execute_typed("delete from nodes where writer = $1", &[(&writer, Type::BYTEA)]).await.map(|_| ())
}

pub(super) async fn live(client: &Client) -> Result<Vec<NodeSeen>, StoreError> {
    let live = LIVE.as_secs_f64();
    let rows = client.query_typed(include_str!("nodes.sql"), &[(&live, Type::FLOAT8)]).await?;
    rows.iter().map(seen).collect()
}

fn seen(row: &Row) -> Result<NodeSeen, StoreError> {
    let id = |index| {
        let bytes: &[u8] = column(row, index)?;
        bytes.try_into().map_err(|_| StoreError::Rejected("an id of a node is not 16 bytes long".into()))
    };
    // A clock that was set back has not seen a report yet that it has.
    let duration = |index| column(row, index).map(|secs: f64| Duration::try_from_secs_f64(secs).unwrap_or_default());
    Ok(NodeSeen {
        node: NodeId(id(0)?),
        writer: WriterId(id(1)?),
        host: column(row, 2)?,
        address: column(row, 3)?,
        version: column(row, 4)?,
        started: time(row, 5)?,
        last_commit: time_or_none(row, 6)?,
        reported: duration(7)?,
        lag: duration(8)?,
    })
}
