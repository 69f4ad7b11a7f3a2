//! What the worker threads run.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, Transaction, params};

use crate::domain::{EventTotal, HourRange, HourlyCount, Sum, SumBy, SumOf, WriterId};
use crate::store::columns::{
    event_name, event_total, exact_sum, hour, hourly_count, ledger_entry, stored_hour, unsigned,
};
use crate::store::{Books, HourlyQuery, LedgerEntry, LedgerPosition, StoreError};

pub(super) fn entry(snapshot: &Transaction<'_>, writer: WriterId) -> Result<Option<LedgerEntry>, StoreError> {
    let mut statement = snapshot.prepare_cached("select last_seq, total, digest from ledger where writer = ?1")?;
    let mut rows = statement.query([writer.0])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (total, digest): (String, Option<Vec<u8>>) = (row.get(1)?, row.get(2)?);
    ledger_entry(row.get(0)?, &total, digest.as_deref()).map(Some)
}

pub(super) fn position(snapshot: &Transaction<'_>, writers: &[WriterId]) -> Result<LedgerPosition, StoreError> {
    let catalog: i64 = snapshot.prepare_cached("select version from catalog_state")?.query_row([], |row| row.get(0))?;
    let catalog = unsigned(catalog)?;
    let mut position = LedgerPosition { version: catalog, catalog, ..LedgerPosition::default() };
    let mut ledger = snapshot.prepare_cached("select last_seq, total from ledger")?;
    let mut rows = ledger.query([])?;
    while let Some(row) = rows.next()? {
        position.version += unsigned(row.get(0)?)?;
        position.total += exact_sum(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?;
    }
    for writer in writers {
        if let Some(entry) = entry(snapshot, *writer)? {
            position.applied.insert(*writer, entry);
        }
    }
    Ok(position)
}

pub(super) fn hourly(snapshot: &Transaction<'_>, query: &HourlyQuery) -> Result<Vec<HourlyCount>, StoreError> {
    let (first, last) = (stored_hour(query.range.first), stored_hour(query.range.last));
    let limit = i64::try_from(query.rows_max).unwrap_or(i64::MAX).saturating_add(1);
    let rows = if query.names.is_empty() {
        snapshot
            .prepare_cached(include_str!("hourly_all.sql"))?
            .query_and_then(params![first, last, limit], read_hourly)?
            .collect::<Result<Vec<_>, _>>()?
    } else {
        let names = serde_json::to_string(&query.names)
            .map_err(|error| StoreError::Rejected(format!("names can't be asked for: {error}")))?;
        snapshot
            .prepare_cached(include_str!("hourly_event.sql"))?
            .query_and_then(params![first, last, limit, names], read_hourly)?
            .collect::<Result<Vec<_>, _>>()?
    };
    if rows.len() > query.rows_max {
        return Err(StoreError::TooManyRows { rows_max: query.rows_max });
    }
    Ok(rows)
}

fn read_hourly(row: &Row<'_>) -> Result<HourlyCount, StoreError> {
    let event = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
    hourly_count(event, row.get(1)?, row.get(2)?)
}

pub(super) fn totals(snapshot: &Transaction<'_>) -> Result<Vec<EventTotal>, StoreError> {
    let mut totals = Vec::new();
    each_total(snapshot, |total| {
        totals.push(total);
        true
    })?;
    Ok(totals)
}

/// Ends early when `on_total` says that nobody wants more.
pub(super) fn each_total(
    snapshot: &Transaction<'_>,
    mut on_total: impl FnMut(EventTotal) -> bool,
) -> Result<(), StoreError> {
    let sql = "select event, total, first_hour, last_hour from event_totals order by event";
    let mut statement = snapshot.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let event = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        if !on_total(event_total(event, row.get(1)?, row.get(2)?, row.get(3)?)?) {
            break;
        }
    }
    Ok(())
}

/// One pass over the rows in the order they are stored in: grouping them by hour in SQL would sort them.
pub(super) fn sums(snapshot: &Transaction<'_>, range: HourRange, by: SumBy) -> Result<Vec<Sum>, StoreError> {
    let mut statement = snapshot.prepare_cached(include_str!("sums.sql"))?;
    let mut rows = statement.query(params![stored_hour(range.first), stored_hour(range.last)])?;
    let mut hours: BTreeMap<i32, u64> = BTreeMap::new();
    let mut events: Vec<Sum> = Vec::new();
    let mut last_event = String::new();
    while let Some(row) = rows.next()? {
        let count = unsigned(row.get(2)?)?;
        if by == SumBy::Hour {
            let of_hour = hours.entry(row.get(1)?).or_default();
            *of_hour = add(*of_hour, count);
            continue;
        }
        let event = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        match events.last_mut() {
            Some(sum) if event == last_event => sum.count = add(sum.count, count),
            _ => {
                event.clone_into(&mut last_event);
                events.push(Sum { of: SumOf::Event(event_name(event)?), count });
            }
        }
    }
    let hours = hours.into_iter().map(|(number, count)| Ok(Sum { of: SumOf::Hour(hour(number)?), count }));
    hours.chain(events.into_iter().map(Ok)).collect()
}

fn add(sum: u64, count: u64) -> u64 {
    sum.saturating_add(count).min(i64::MAX.unsigned_abs())
}

pub(super) fn books(snapshot: &Transaction<'_>) -> Result<Books, StoreError> {
    let halves = |row: &Row<'_>, index| -> rusqlite::Result<i128> {
        let (upper, lower): (i64, i64) = (row.get(index)?, row.get(index + 1)?);
        Ok((i128::from(upper) << 32) + i128::from(lower))
    };
    let (rows, totals, removed) = snapshot
        .query_row(include_str!("books.sql"), [], |row| Ok((halves(row, 0)?, halves(row, 2)?, halves(row, 4)?)))?;
    let ledger = snapshot
        .prepare("select total from ledger")?
        .query_and_then([], |row| exact_sum(&row.get::<_, String>(0)?))?
        .sum::<Result<i128, StoreError>>()?;
    // There are no other sums of hours here.
    Ok(Books { rows, totals, hours: rows, removed, ledger })
}

pub(super) fn identity(connection: &Connection) -> Result<String, StoreError> {
    let identity: [u8; 16] = connection.query_row("select identity from store_identity", [], |row| row.get(0))?;
    Ok(hex::encode(identity))
}
