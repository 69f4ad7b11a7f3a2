//! The commit: ledger first, then the catalog's lock, then rows, then totals, in one transaction.

use futures_util::future::{BoxFuture, try_join};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio_postgres::types::Type;

use super::careful;
use super::change::{book_overtaken, share_landing};
use super::client::{Client, Param};
use super::error::is_about_rows;
use super::rows::column;
use super::session::Session;
use crate::domain::HourlyCount;
use crate::store::admin::Landing;
use crate::store::columns::{
    EventDelta, batch_total, event_deltas, ledger_entry, stored_count, stored_hour, stored_seq,
};
use crate::store::{Commit, CommitRequest, StoreError, aside};

/// Rows in one statement: enough to make round trips cheap, few enough for any statement time-out.
pub(super) const CHUNK_ROWS: usize = 10_000;
/// The database always has the next one at hand; more would only take memory.
const STATEMENTS_UNDER_WAY: usize = 3;

/// What became of a commit, and how many rows were set aside for it.
pub(super) type Committed = (Commit, usize);

/// Why a part of the rows is not in.
pub(super) enum Failure {
    /// The database does not want a row of it.
    Row(String),
    Other(StoreError),
}

impl Failure {
    /// Of a value that the database has no room for.
    pub(super) fn of_value(error: StoreError) -> Self {
        match error {
            StoreError::Rejected(reason) => Self::Row(reason),
            error => Self::Other(error),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let is_row = error.code().is_some_and(is_about_rows);
        match StoreError::from(error) {
            StoreError::Rejected(reason) if is_row => Self::Row(reason),
            error => Self::Other(error),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Row(reason) => Self::Rejected(reason),
            Failure::Other(error) => error,
        }
    }
}

/// Any error leaves the transaction open or broken: the caller must drop the session.
pub(super) async fn commit(session: &Session, begin: &str, request: &CommitRequest) -> Result<Committed, StoreError> {
    let client = &session.client;
    let (stands, landing) = advance(session, begin, request).await?;
    if let Some(stands) = stands {
        return Ok((stands, 0));
    }
    let (rows, overtaken) = landing.of(&request.rows);
    book_overtaken(client, &overtaken, request.id).await?;
    let written = match write(client, &rows).await {
        // A constraint may also be checked only now.
        Ok(()) => client.commit().await.map_err(Failure::of_value),
        failed => failed,
    };
    match written {
        Ok(()) => Ok((Commit::Applied, 0)),
        // Again from the beginning: nothing of it is in, and the transaction is of no use any more.
        Err(Failure::Row(_)) => commit_carefully(session, begin, request).await,
        Err(Failure::Other(error)) => Err(error),
    }
}

async fn commit_carefully(session: &Session, begin: &str, request: &CommitRequest) -> Result<Committed, StoreError> {
    let client = &session.client;
    client.batch_execute("rollback").await?;
    let (stands, landing) = advance(session, begin, request).await?;
    if let Some(stands) = stands {
        return Ok((stands, 0));
    }
    let (rows, overtaken) = landing.of(&request.rows);
    book_overtaken(client, &overtaken, request.id).await?;
    let search = careful::write(client, &rows).await?;
    if !search.refused.is_empty() {
        careful::set_aside(client, request.id, &search).await?;
    }
    client.commit().await?;
    aside::tell(request.id, &search.refused);
    Ok((Commit::Applied, search.refused.len()))
}

/// Begins the transaction and moves the ledger. `Some`: it stands elsewhere, and the transaction has ended.
async fn advance(
    session: &Session,
    begin: &str,
    request: &CommitRequest,
) -> Result<(Option<Commit>, Landing<'static>), StoreError> {
    let client = &session.client;
    session.begin(begin).await?;
    let ledger = Ledger::new(client, request)?;
    // Both are sent at once; they are executed in this order. A commit that holds the ledger's row may still
    // have to wait for the catalog's lock.
    let landing = share_landing(client, request.catalog);
    let (advanced, landing) = try_join(ledger.begin_or_advance(), landing).await?;
    let stands = if advanced { None } else { ledger.stand().await? };
    Ok((stands, landing))
}

async fn write(client: &Client, rows: &[HourlyCount]) -> Result<(), Failure> {
    let deltas = event_deltas(rows).map_err(Failure::of_value)?;
    let writes = rows.chunks(CHUNK_ROWS).map(Write::Rows).chain(deltas.chunks(CHUNK_ROWS).map(Write::Totals));
    // The next statements are under way while one is executed; should one fail, so do those behind it. COMMIT
    // is not among them: see `Client::commit`.
    let statements: Vec<BoxFuture<'_, _>> = writes.map(|write| write.run(client.driver()).boxed()).collect();
    let mut answers = stream::iter(statements).buffered(STATEMENTS_UNDER_WAY);
    loop {
        let answer = client.in_time(async { Ok::<_, StoreError>(answers.try_next().await) }).await;
        if answer.map_err(Failure::Other)??.is_none() {
            return Ok(());
        }
    }
}

/// The ledger's row of one writer, about to go to one batch.
struct Ledger<'a> {
    client: &'a Client,
    writer: &'a [u8],
    seq: i64,
    after: i64,
    /// Decimal, since a sum of many 64-bit counts may exceed 64 bits.
    total: String,
    digest: &'a [u8],
}

impl<'a> Ledger<'a> {
    fn new(client: &'a Client, request: &'a CommitRequest) -> Result<Self, StoreError> {
        let CommitRequest { id, after, digest, rows, .. } = request;
        let (seq, after) = (stored_seq(id.seq)?, stored_seq(*after)?);
        let total = batch_total(rows).to_string();
        Ok(Self { client, writer: &id.writer.0, seq, after, total, digest: &digest.0 })
    }

    /// Whether the row stood where it should, and now stands at the batch.
    async fn advance(&self) -> Result<bool, StoreError> {
        let params: [Param<'_>; 5] = [
            (&self.writer, Type::BYTEA),
            (&self.seq, Type::INT8),
            (&self.total, Type::TEXT),
            (&self.digest, Type::BYTEA),
            (&self.after, Type::INT8),
        ];
        Ok(self.client.execute_typed(include_str!("ledger_advance.sql"), &params).await? == 1)
    }

    /// The statement that waits for a zombie of the same batch, before anything else is locked.
    async fn begin_or_advance(&self) -> Result<bool, StoreError> {
        if self.after == 0 { self.begin().await } else { self.advance().await }
    }

    /// The row does not stand where it should. `None`: now it does stand at the batch. Else the
    /// transaction has ended.
    async fn stand(&self) -> Result<Option<Commit>, StoreError> {
        let sql = include_str!("ledger_lock.sql");
        let row = self.client.query_typed_opt(sql, &[(&self.writer, Type::BYTEA)]).await?;
        let entry = row.map(|row| ledger_entry(column(&row, 0)?, column(&row, 1)?, column(&row, 2)?)).transpose()?;
        let last_seq = entry.as_ref().map_or(Ok(0), |entry| stored_seq(entry.last_seq))?;
        // The batch before this one was committed by a zombie between our two looks; the row is locked now.
        if entry.is_some() && last_seq == self.after && self.advance().await? {
            return Ok(None);
        }
        if last_seq >= self.seq {
            // The caller may discard the batch on our word.
            let sql = include_str!("ledger_touch.sql");
            self.client.execute_typed(sql, &[(&self.writer, Type::BYTEA)]).await?;
            self.client.commit().await?;
        } else {
            self.client.batch_execute("rollback").await?;
        }
        Ok(Some(Commit::Stands(entry)))
    }

    async fn begin(&self) -> Result<bool, StoreError> {
        let params: [Param<'_>; 4] = [
            (&self.writer, Type::BYTEA),
            (&self.seq, Type::INT8),
            (&self.total, Type::TEXT),
            (&self.digest, Type::BYTEA),
        ];
        Ok(self.client.execute_typed(include_str!("ledger_begin.sql"), &params).await? == 1)
    }
}

/// One statement: a chunk of rows.
pub(super) enum Write<'a> {
    Rows(&'a [HourlyCount]),
    Totals(&'a [EventDelta<'a>]),
}

impl Write<'_> {
    pub(super) async fn run(self, client: &tokio_postgres::Client) -> Result<(), Failure> {
        match self {
            Self::Rows(rows) => {
                let events: Vec<&str> = rows.iter().map(|row| row.event.as_str()).collect();
                let hours: Vec<i32> = rows.iter().map(|row| stored_hour(row.hour)).collect();
                let counts = rows.iter().map(|row| stored_count(row.count)).collect::<Result<Vec<i64>, _>>();
                let counts = counts.map_err(Failure::of_value)?;
                let params: [Param<'_>; 3] =
                    [(&events, Type::TEXT_ARRAY), (&hours, Type::INT4_ARRAY), (&counts, Type::INT8_ARRAY)];
                client.execute_typed(include_str!("hourly_upsert.sql"), &params).await?;
            }
            Self::Totals(deltas) => {
                let events: Vec<&str> = deltas.iter().map(|delta| delta.event).collect();
                let counts: Vec<i64> = deltas.iter().map(|delta| delta.count).collect();
                let first_hours: Vec<i32> = deltas.iter().map(|delta| delta.first_hour).collect();
                let last_hours: Vec<i32> = deltas.iter().map(|delta| delta.last_hour).collect();
                let params: [Param<'_>; 4] = [
                    (&events, Type::TEXT_ARRAY),
                    (&counts, Type::INT8_ARRAY),
                    (&first_hours, Type::INT4_ARRAY),
                    (&last_hours, Type::INT4_ARRAY),
                ];
                client.execute_typed(include_str!("totals_upsert.sql"), &params).await?;
            }
        }
        Ok(())
    }
}
