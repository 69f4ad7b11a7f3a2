//! How the vocabulary looks in the columns of both databases, and back.

use super::StoreError;
use crate::domain::{BatchSeq, EventName, EventTotal, Hour, HourlyCount};

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
    let unreadable = || StoreError::Rejected("the store holds a row that this program never writes".into());
    Ok(HourlyCount {
        event: EventName::parse(event).map_err(|_| unreadable())?,
        hour: u32::try_from(hour).ok().and_then(Hour::from_number).ok_or_else(unreadable)?,
        count: u64::try_from(count).map_err(|_| unreadable())?,
    })
}

/// Sums sorted rows per event; the result is sorted as they are.
pub(super) fn event_deltas(rows: &[HourlyCount]) -> Result<Vec<EventDelta<'_>>, StoreError> {
    let sorted = rows.is_sorted_by(|a, b| (&a.event, a.hour) < (&b.event, b.hour));
    debug_assert!(sorted, "a batch is sorted by event bytes, then hour, and names no counter twice");
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

/// Reads back a row of the all-time totals.
pub(super) fn event_total(event: &str, count: i64) -> Result<EventTotal, StoreError> {
    let HourlyCount { event, count, .. } = hourly_count(event, 0, count)?;
    Ok(EventTotal { event, count })
}
