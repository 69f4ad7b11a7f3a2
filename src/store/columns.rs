//! How the vocabulary looks in the columns of both databases, and back.

use chrono::{DateTime, SecondsFormat, Utc};

use super::{LedgerEntry, StoreError};
use crate::domain::{BatchSeq, Digest, EventName, EventTotal, Hour, HourlyCount, WriterId};

/// The sum of a batch's counts, for the ledger.
pub(super) fn batch_total(rows: &[HourlyCount]) -> i128 {
    rows.iter().map(|row| i128::from(row.count)).sum()
}

/// What a batch adds to one event's totals.
pub(super) struct EventDelta<'a> {
    pub(super) event: &'a str,
    pub(super) count: i64,
    pub(super) first_hour: i32,
    pub(super) last_hour: i32,
}

/// The database's form of a count: signed, 64 bits.
pub(super) fn stored_count(count: u64) -> Result<i64, StoreError> {
    i64::try_from(count).map_err(|_| StoreError::Rejected("a count exceeds 64 signed bits".into()))
}

/// The database's form of an hour; the year 9999 is far below the limit of 32 signed bits.
pub(super) fn stored_hour(hour: Hour) -> i32 {
    i32::try_from(hour.number()).unwrap_or(i32::MAX)
}

/// Reads back what [`stored_count`] and [`stored_hour`] wrote.
pub(super) fn hourly_count(event: &str, hour: i32, count: i64) -> Result<HourlyCount, StoreError> {
    let count = u64::try_from(count).map_err(|_| unreadable())?;
    Ok(HourlyCount { event: event_name(event)?, hour: self::hour(hour)?, count })
}

/// Sums sorted rows per event; the result is sorted as they are.
pub(super) fn event_deltas(rows: &[HourlyCount]) -> Result<Vec<EventDelta<'_>>, StoreError> {
    debug_assert!(
        rows.is_sorted_by(|a, b| (&a.event, a.hour) < (&b.event, b.hour)),
        "a batch is sorted by event bytes, then hour, and names no counter twice"
    );
    rows.chunk_by(|a, b| a.event == b.event)
        .map(|same| {
            let total = u64::try_from(batch_total(same)).unwrap_or(u64::MAX);
            Ok(EventDelta {
                event: same[0].event.as_str(),
                count: stored_count(total)?,
                first_hour: stored_hour(same[0].hour),
                last_hour: stored_hour(same[same.len() - 1].hour),
            })
        })
        .collect()
}

/// The database's form of a batch number.
pub(super) fn stored_seq(seq: BatchSeq) -> Result<i64, StoreError> {
    i64::try_from(seq.0).map_err(|_| StoreError::Rejected("the batch number exceeds 64 signed bits".into()))
}

/// Reads back a number that the database keeps signed but that is never negative.
pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Rejected("the store's ledger holds a negative number".into()))
}

/// Reads back an exact sum, which the stores give as decimal text.
pub(super) fn exact_sum(text: &str) -> Result<i128, StoreError> {
    text.parse().map_err(|_| StoreError::Rejected("the store's books hold a sum that is no whole number".into()))
}

/// Reads back a writer's row of the ledger.
pub(super) fn ledger_entry(last_seq: i64, total: &str, digest: Option<&[u8]>) -> Result<LedgerEntry, StoreError> {
    let digest = digest.map(<[u8; 16]>::try_from).transpose().map_err(|_| unreadable())?.map(Digest);
    Ok(LedgerEntry { last_seq: BatchSeq(unsigned(last_seq)?), total: exact_sum(total)?, digest })
}

/// Reads back a row of the all-time totals.
pub(super) fn event_total(event: &str, count: i64, first_hour: i32, last_hour: i32) -> Result<EventTotal, StoreError> {
    let HourlyCount { event, count, hour: first_hour } = hourly_count(event, first_hour, count)?;
    Ok(EventTotal { event, count, first_hour, last_hour: hour(last_hour)? })
}

/// Reads back a writer's 16 bytes.
pub(super) fn writer_id(bytes: &[u8]) -> Result<WriterId, StoreError> {
    let bytes = bytes.try_into();
    bytes.map(WriterId).map_err(|_| StoreError::Rejected("a writer's id is not 16 bytes long".into()))
}

/// Reads back a name.
pub(super) fn event_name(text: &str) -> Result<EventName, StoreError> {
    EventName::parse(text).map_err(|_| unreadable())
}

/// Reads back what [`stored_hour`] wrote.
pub(super) fn hour(number: i32) -> Result<Hour, StoreError> {
    u32::try_from(number).ok().and_then(Hour::from_number).ok_or_else(unreadable)
}

pub(super) fn unreadable() -> StoreError {
    StoreError::Rejected("the store holds a row that this program never writes".into())
}

/// Text that sorts as the times do; microseconds, as PostgreSQL keeps them.
pub(super) fn stored_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Reads back what [`stored_time`] wrote.
pub(super) fn read_time(text: &str) -> Result<DateTime<Utc>, StoreError> {
    DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).map_err(|_| unreadable())
}

/// The same where there may be none.
pub(super) fn text_time(text: Option<String>) -> Result<Option<DateTime<Utc>>, StoreError> {
    text.as_deref().map(read_time).transpose()
}
