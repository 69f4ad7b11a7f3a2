//! The log, for reads that catch up.

use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::client::{Client, Param};
use super::rows::column;
use crate::domain::{BatchId, BatchSeq, Delta, HourlyCount};
use crate::store::columns::{event_name, exact_sum, hour, stored_seq, unsigned, writer_id};
use crate::store::{LedgerPosition, StoreError};

/// More entries than this are read as slowly as everything.
const ENTRIES_MAX: i64 = 400_000;

/// The entries of the log behind `known`, of one snapshot, as far as they are few enough.
pub(super) async fn since(client: &Client, partition: u16, known: &LedgerPosition) -> Result<Vec<Delta>, StoreError> {
    let known = known.applied_in(partition);
    let writers: Vec<&[u8]> = known.keys().map(|writer| writer.0.as_slice()).collect();
    let seqs = known.values().map(|entry| stored_seq(entry.last_seq)).collect::<Result<Vec<_>, _>>()?;
    let params: [Param<'_>; 3] = [(&writers, Type::BYTEA_ARRAY), (&seqs, Type::INT8_ARRAY), (&ENTRIES_MAX, Type::INT8)];
    let mut deltas = Vec::new();
    let on_row = |row: &Row| {
        deltas.push(read_back(row, partition)?);
        Ok(())
    };
    client.each_row(include_str!("log_since.sql"), &params, on_row).await?;
    Ok(deltas)
}

/// The sum of a writer's entries behind one.
pub(super) async fn total_behind(client: &Client, id: BatchId) -> Result<i128, StoreError> {
    let (writer, seq) = (id.writer.0.as_slice(), stored_seq(id.seq)?);
    let sql = "select cast(coalesce(sum(total), 0) as text) from deltas where writer = $1 and seq > $2";
    exact_sum(column(&client.query_typed_one(sql, &[(&writer, Type::BYTEA), (&seq, Type::INT8)]).await?, 0)?)
}

/// One entry of the log of a partition.
pub(super) async fn delta(client: &Client, partition: u16, id: BatchId) -> Result<Option<Delta>, StoreError> {
    let (writer, seq) = (id.writer.0.as_slice(), stored_seq(id.seq)?);
    let sql = "select writer, seq, after, catalog, cast(total as text), events, hours, counts from deltas
         where writer = $1 and seq = $2";
    let row = client.query_typed_opt(sql, &[(&writer, Type::BYTEA), (&seq, Type::INT8)]).await?;
    row.as_ref().map(|row| read_back(row, partition)).transpose()
}

/// What a commit appended.
fn read_back(row: &Row, partition: u16) -> Result<Delta, StoreError> {
    let seq = |index| Ok::<_, StoreError>(BatchSeq(unsigned(column(row, index)?)?));
    let (events, hours): (Vec<&str>, Vec<i32>) = (column(row, 5)?, column(row, 6)?);
    let counts: Vec<i64> = column(row, 7)?;
    let entries = events.into_iter().zip(hours).zip(counts);
    let rows = entries.map(|((event, number), count)| {
        Ok(HourlyCount { event: event_name(event)?, hour: hour(number)?, count: unsigned(count)? })
    });
    Ok(Delta {
        id: BatchId { writer: writer_id(column(row, 0)?)?, seq: seq(1)? },
        partition,
        after: seq(2)?,
        catalog: unsigned(column(row, 3)?)?,
        total: exact_sum(column(row, 4)?)?,
        rows: rows.collect::<Result<Arc<[_]>, StoreError>>()?,
    })
}
