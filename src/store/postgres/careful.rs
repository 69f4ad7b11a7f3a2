//! The fold of a batch of which the database refuses a row: everything else goes in.

use tokio_postgres::types::Type;

use super::change;
use super::client::{Client, Param};
use super::fold::add;
use crate::domain::{BatchId, HourlyCount};
use crate::store::StoreError;
use crate::store::aside::{Failure, Refused, Search, amount, removal_reason};
use crate::store::columns::{stored_hour, stored_seq};

/// In an open transaction that checks constraints at once, so that one tells which row it does not want.
pub(super) async fn write<'a>(client: &Client, rows: &'a [HourlyCount]) -> Result<Search<'a>, StoreError> {
    let mut search = Search::of(rows, rows.len().max(1));
    while let Some(part) = search.next_part() {
        client.batch_execute("savepoint part").await?;
        match client.in_time(async { Ok::<_, StoreError>(add(client.driver(), part).await) }).await? {
            Ok(()) => client.batch_execute("release part").await?,
            Err(Failure::Row(reason)) => {
                client.batch_execute("rollback to part; release part").await?;
                search.note_refused(part, reason)?;
            }
            Err(Failure::Other(error)) => return Err(error),
        }
    }
    Ok(search)
}

pub(super) async fn set_aside(client: &Client, id: BatchId, refused: &[Refused<'_>]) -> Result<(), StoreError> {
    let (writer, seq) = (id.writer.0.as_slice(), stored_seq(id.seq)?);
    let events: Vec<&str> = refused.iter().map(|refused| refused.row.event.as_str()).collect();
    let hours: Vec<i32> = refused.iter().map(|refused| stored_hour(refused.row.hour)).collect();
    let counts: Vec<String> = refused.iter().map(|refused| refused.row.count.to_string()).collect();
    let reasons: Vec<&str> = refused.iter().map(|refused| refused.reason.as_str()).collect();
    let params: [Param<'_>; 6] = [
        (&writer, Type::BYTEA),
        (&seq, Type::INT8),
        (&events, Type::TEXT_ARRAY),
        (&hours, Type::INT4_ARRAY),
        (&counts, Type::TEXT_ARRAY),
        (&reasons, Type::TEXT_ARRAY),
    ];
    client.execute_typed(include_str!("set_aside.sql"), &params).await?;
    change::write_removal(client, amount(refused), &removal_reason(id, refused.len())).await
}
