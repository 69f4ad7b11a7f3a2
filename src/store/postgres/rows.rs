//! Statements that read, and the small pieces that all statements share.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use futures_util::future::{try_join, try_join3};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use super::client::{Client, Param};
use crate::domain::{EventName, EventTotal, HourRange, HourlyCount, Sum, SumBy, SumOf, WriterId};
use crate::rows::{Row as _, merge, sums_of, totals_of};
use crate::store::columns::{
    event_name, event_total, exact_sum, hour, hourly_count, ledger_entry, stored_hour, unsigned, writer_id,
};
use crate::store::{Books, HourlyQuery, LedgerPosition, StoreError};

pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, StoreError> {
    row.try_get(index)
        .map_err(|_| StoreError::Rejected("a column of the store has another type than this program gave it".into()))
}

/// The column's time, with microseconds.
pub(super) fn time(row: &Row, index: usize) -> Result<DateTime<Utc>, StoreError> {
    column::<SystemTime>(row, index).map(DateTime::from)
}

pub(super) fn time_or_none(row: &Row, index: usize) -> Result<Option<DateTime<Utc>>, StoreError> {
    Ok(column::<Option<SystemTime>>(row, index)?.map(DateTime::from))
}

pub(super) async fn position(client: &Client, writers: &[WriterId]) -> Result<LedgerPosition, StoreError> {
    let asked: Vec<&[u8]> = writers.iter().map(|writer| writer.0.as_slice()).collect();
    let sql = include_str!("ledger_position.sql");
    let row = client.query_typed_one(sql, &[(&asked, Type::BYTEA_ARRAY)]).await?;
    let (version, catalog) = (unsigned(column(&row, 0)?)?, unsigned(column(&row, 1)?)?);
    let total = exact_sum(column(&row, 2)?)?;
    let mut position = LedgerPosition { version, catalog, total, ..LedgerPosition::default() };
    let (found, last_seqs): (Vec<&[u8]>, Vec<i64>) = (column(&row, 3)?, column(&row, 4)?);
    let (totals, digests): (Vec<&str>, Vec<Option<&[u8]>>) = (column(&row, 5)?, column(&row, 6)?);
    for (writer, ((last_seq, total), digest)) in found.into_iter().zip(last_seqs.into_iter().zip(totals).zip(digests)) {
        position.applied.insert(writer_id(writer)?, ledger_entry(last_seq, total, digest)?);
    }
    Ok(position)
}

/// At most `rows_max + 1` folded rows, with what is not folded added to them; more than `rows_max` tell
/// the caller that there are too many.
pub(super) async fn hourly(client: &Client, query: &HourlyQuery) -> Result<Vec<HourlyCount>, StoreError> {
    let (first, last) = (stored_hour(query.range.first), stored_hour(query.range.last));
    let limit = i64::try_from(query.rows_max).unwrap_or(i64::MAX).saturating_add(1);
    let names: Vec<&str> = query.names.iter().map(EventName::as_str).collect();
    let mut params: Vec<Param<'_>> = vec![(&first, Type::INT4), (&last, Type::INT4), (&limit, Type::INT8)];
    let (folded, which) = if names.is_empty() {
        (include_str!("hourly_all.sql"), Unfolded::All)
    } else {
        params.push((&names, Type::TEXT_ARRAY));
        (include_str!("hourly_event.sql"), Unfolded::Named(&names))
    };
    let unfolded = unfolded(client, query.range, which);
    let (folded, unfolded) = try_join(hourly_rows(client, folded, &params), unfolded).await?;
    Ok(if unfolded.is_empty() { folded } else { merge(&folded, unfolded) })
}

async fn hourly_rows(client: &Client, sql: &str, params: &[Param<'_>]) -> Result<Vec<HourlyCount>, StoreError> {
    let mut rows = Vec::new();
    let on_row = |row: &Row| {
        rows.push(hourly_count(column(row, 0)?, column(row, 1)?, column(row, 2)?)?);
        Ok(())
    };
    client.each_row(sql, params, on_row).await?;
    Ok(rows)
}

enum Unfolded<'a> {
    All,
    Named(&'a Vec<&'a str>),
    /// Without deleted events.
    Shown,
}

/// What the log holds beside the folded rows of the same snapshot.
async fn unfolded(client: &Client, range: HourRange, which: Unfolded<'_>) -> Result<Vec<HourlyCount>, StoreError> {
    let (first, last) = (stored_hour(range.first), stored_hour(range.last));
    let mut params: Vec<Param<'_>> = vec![(&first, Type::INT4), (&last, Type::INT4)];
    let sql = match which {
        Unfolded::All => include_str!("unfolded_all.sql"),
        Unfolded::Shown => include_str!("unfolded_shown.sql"),
        Unfolded::Named(names) => {
            params.push((names, Type::TEXT_ARRAY));
            include_str!("unfolded_event.sql")
        }
    };
    hourly_rows(client, sql, &params).await
}

pub(super) async fn totals(client: &Client) -> Result<Vec<EventTotal>, StoreError> {
    let mut folded = Vec::new();
    let unfolded = unfolded(client, HourRange::ALL, Unfolded::All);
    let (unfolded, ()) = try_join(unfolded, each_folded_total(client, |total| folded.push(total))).await?;
    Ok(if unfolded.is_empty() { folded } else { merge(&folded, totals_of(&unfolded)) })
}

pub(super) async fn each_total(
    client: &Client,
    on_total: &mut (dyn FnMut(EventTotal) + Send),
) -> Result<(), StoreError> {
    let unfolded = totals_of(&unfolded(client, HourRange::ALL, Unfolded::All).await?);
    let mut unfolded = unfolded.into_iter().peekable();
    let on_folded = |mut total: EventTotal| {
        while let Some(earlier) = unfolded.next_if(|next| next.event < total.event) {
            on_total(earlier);
        }
        if let Some(same) = unfolded.next_if(|next| next.event == total.event) {
            total.absorb(&same);
        }
        on_total(total);
    };
    each_folded_total(client, on_folded).await?;
    unfolded.for_each(on_total);
    Ok(())
}

async fn each_folded_total(client: &Client, mut on_total: impl FnMut(EventTotal)) -> Result<(), StoreError> {
    let on_row = |row: &Row| {
        on_total(event_total(column(row, 0)?, column(row, 1)?, column(row, 2)?, column(row, 3)?)?);
        Ok(())
    };
    client.each_row(include_str!("totals.sql"), &[], on_row).await
}

/// Sums of a day of 100,000 events take 24 MB: with PostgreSQL's usual 4 MB they go through files, which takes
/// twice the processor time. It holds until the end of the transaction.
const SUMS_MEMORY: &str = "set local work_mem = '64MB'";

pub(super) async fn sums(client: &Client, range: HourRange, by: SumBy) -> Result<Vec<Sum>, StoreError> {
    let (first, last) = (stored_hour(range.first), stored_hour(range.last));
    let sql = match by {
        SumBy::Hour => include_str!("sums_by_hour.sql"),
        SumBy::Event => include_str!("sums_by_event.sql"),
    };
    let params: [Param<'_>; 2] = [(&first, Type::INT4), (&last, Type::INT4)];
    let unfolded = unfolded(client, range, Unfolded::Shown);
    let (memory, rows) = (client.batch_execute(SUMS_MEMORY), client.query_typed(sql, &params));
    let ((), rows, unfolded) = try_join3(memory, rows, unfolded).await?;
    let of = |row| match by {
        SumBy::Hour => Ok::<_, StoreError>(SumOf::Hour(hour(column(row, 0)?)?)),
        SumBy::Event => Ok(SumOf::Event(event_name(column(row, 0)?)?)),
    };
    let folded = rows.iter().map(|row| Ok(Sum { of: of(row)?, count: unsigned(column(row, 1)?)? }));
    let folded = folded.collect::<Result<Vec<_>, StoreError>>()?;
    Ok(merge(&folded, sums_of(unfolded.iter(), by)))
}

pub(super) async fn books(client: &Client) -> Result<Books, StoreError> {
    let row = client.query_typed_one(include_str!("books.sql"), &[]).await?;
    let sum = |index| exact_sum(column(&row, index)?);
    Ok(Books { rows: sum(0)?, totals: sum(1)?, hours: sum(2)?, removed: sum(3)?, ledger: sum(4)? })
}

pub(super) async fn identity(client: &Client) -> Result<String, StoreError> {
    let row = client.query_typed_one("select identity from store_identity", &[]).await?;
    Ok(hex::encode(column::<&[u8]>(&row, 0)?))
}
