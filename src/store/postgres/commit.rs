//! The commit: the ledger moves and the batch is appended to the log, in one statement.

use tokio_postgres::types::Type;

use super::careful;
use super::client::{Client, Param};
use super::rows::column;
use super::session::Session;
use crate::domain::HourlyCount;
use crate::store::aside::{self, Refused};
use crate::store::columns::{batch_total, ledger_entry, stored_count, stored_hour, stored_seq};
use crate::store::{Commit, CommitRequest, StoreError};

/// What became of a commit, and how many rows were set aside for it.
pub(super) type Committed = (Commit, usize);

/// Of what a batch holds for a partition. Any error leaves the transaction open or broken: the caller must drop
/// the session.
pub(super) async fn commit(
    session: &Session,
    begin: &str,
    partition: u16,
    request: &CommitRequest,
) -> Result<Committed, StoreError> {
    let client = &session.client;
    let Fitting { rows, refused } = Fitting::of(&request.rows);
    let entry = Entry::new(client, request, &rows)?;
    session.begin_in(begin, partition).await?;
    // The statement that waits for a zombie of the same batch, before anything else is locked.
    let is_appended = if request.after.0 == 0 { entry.begin().await? } else { entry.append().await? };
    if !is_appended && let Some(stands) = entry.stand().await? {
        return Ok((stands, 0));
    }
    if !refused.is_empty() {
        careful::set_aside(client, request.id, &refused).await?;
    }
    client.commit().await?;
    aside::tell(request.id, &refused);
    Ok((Commit::Applied, refused.len()))
}

/// The rows of a batch that the log has room for, and the others: its counts have 63 bits.
struct Fitting<'a> {
    rows: Vec<&'a HourlyCount>,
    refused: Vec<Refused<'a>>,
}

impl<'a> Fitting<'a> {
    fn of(rows: &'a [HourlyCount]) -> Self {
        let (mut fitting, mut refused) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            match stored_count(row.count) {
                Ok(_) => fitting.push(row),
                Err(error) => refused.push(Refused { row, reason: error.to_string() }),
            }
        }
        Self { rows: fitting, refused }
    }
}

/// One entry of the log, about to be appended.
struct Entry<'a> {
    client: &'a Client,
    writer: &'a [u8],
    seq: i64,
    after: i64,
    catalog: i64,
    /// Decimal, since a sum of many 64-bit counts may exceed 64 bits.
    total: String,
    digest: &'a [u8],
    events: Vec<&'a str>,
    hours: Vec<i32>,
    counts: Vec<i64>,
}

impl<'a> Entry<'a> {
    fn new(client: &'a Client, request: &'a CommitRequest, rows: &[&'a HourlyCount]) -> Result<Self, StoreError> {
        let CommitRequest { id, after, digest, catalog, .. } = request;
        Ok(Self {
            client,
            writer: &id.writer.0,
            seq: stored_seq(id.seq)?,
            after: stored_seq(*after)?,
            catalog: i64::try_from(*catalog).unwrap_or(i64::MAX),
            total: batch_total(&request.rows).to_string(),
            digest: &digest.0,
            events: rows.iter().map(|row| row.event.as_str()).collect(),
            hours: rows.iter().map(|row| stored_hour(row.hour)).collect(),
            counts: rows.iter().map(|row| stored_count(row.count)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the ledger stood where it should, and now stands at the batch.
    async fn run(&self, sql: &str) -> Result<bool, StoreError> {
        let params: [Param<'_>; 9] = [
            (&self.writer, Type::BYTEA),
            (&self.seq, Type::INT8),
            (&self.total, Type::TEXT),
            (&self.digest, Type::BYTEA),
            (&self.after, Type::INT8),
            (&self.catalog, Type::INT8),
            (&self.events, Type::TEXT_ARRAY),
            (&self.hours, Type::INT4_ARRAY),
            (&self.counts, Type::INT8_ARRAY),
        ];
        Ok(self.client.execute_typed(sql, &params).await? == 1)
    }

    async fn append(&self) -> Result<bool, StoreError> {
        self.run(include_str!("ledger_append.sql")).await
    }

    async fn begin(&self) -> Result<bool, StoreError> {
        self.run(include_str!("ledger_begin.sql")).await
    }

    /// The ledger's row does not stand where it should. `None`: now it does stand at the batch. Else the
    /// transaction has ended.
    async fn stand(&self) -> Result<Option<Commit>, StoreError> {
        let writer: [Param<'_>; 1] = [(&self.writer, Type::BYTEA)];
        let row = self.client.query_typed_opt(include_str!("ledger_lock.sql"), &writer).await?;
        let entry = row.map(|row| ledger_entry(column(&row, 0)?, column(&row, 1)?, column(&row, 2)?)).transpose()?;
        let last_seq = entry.as_ref().map_or(Ok(0), |entry| stored_seq(entry.last_seq))?;
        // Its writer is not live any more, or the batch before this one was committed by a zombie between
        // our two looks; the row is locked now.
        if entry.is_some() && last_seq == self.after {
            self.client.execute_typed(include_str!("ledger_revive.sql"), &writer).await?;
            if self.append().await? {
                return Ok(None);
            }
        }
        if last_seq >= self.seq {
            // The caller may discard the batch on our word.
            self.client.execute_typed(include_str!("ledger_touch.sql"), &writer).await?;
            self.client.commit().await?;
        } else {
            self.client.batch_execute("rollback").await?;
        }
        Ok(Some(Commit::Stands(entry)))
    }
}
