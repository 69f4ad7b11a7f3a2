//! When the counts of a deleted event may be removed for good.
//!
//! That can't be taken back, so it hangs neither on the clock of a node nor on one look at the store's:
//! a purge that looks due is marked with the store's time, and is done only when the store's clock has
//! gone on for a while and it is still due. A clock that jumps ahead and back again removes nothing.

use chrono::{DateTime, TimeDelta, Utc};

/// The longest time between the mark and the purge.
const WAIT_MAX: TimeDelta = TimeDelta::hours(1);

/// How long a purge is remembered for counts that are in flight.
pub const REMEMBERED: TimeDelta = TimeDelta::days(30);

/// The mark that a deleted event has from `now` on: `None` while its grace is not over. A mark of a time
/// that is still to come was made by a clock that was wrong.
pub fn due_since(
    deleted_at: DateTime<Utc>,
    marked: Option<DateTime<Utc>>,
    grace: TimeDelta,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let over = deleted_at.checked_add_signed(grace)?;
    (over <= now).then(|| marked.filter(|marked| *marked <= now).unwrap_or(now))
}

/// Whether the purge may happen now.
pub fn is_ripe(deleted_at: DateTime<Utc>, marked: Option<DateTime<Utc>>, grace: TimeDelta, now: DateTime<Utc>) -> bool {
    due_since(deleted_at, marked, grace, now).is_some_and(|since| now - since >= grace.min(WAIT_MAX))
}

/// A deleted event, and whether its mark has to be written anew.
pub struct Deleted<E> {
    pub event: E,
    pub deleted_at: DateTime<Utc>,
    pub marked: Option<DateTime<Utc>>,
}

impl<E> Deleted<E> {
    /// The mark as it has to be, if it is another one now.
    pub fn mark(&self, grace: TimeDelta, now: DateTime<Utc>) -> Option<Option<DateTime<Utc>>> {
        let due_since = due_since(self.deleted_at, self.marked, grace, now);
        (due_since != self.marked).then_some(due_since)
    }

    pub fn is_ripe(&self, grace: TimeDelta, now: DateTime<Utc>) -> bool {
        is_ripe(self.deleted_at, self.marked, grace, now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    #[test]
    fn a_purge_is_ripe_an_hour_after_it_was_marked() {
        let grace = TimeDelta::hours(24);
        assert_eq!(due_since(at(0), None, grace, at(24 * 60 - 1)), None);
        assert_eq!(due_since(at(0), None, grace, at(24 * 60)), Some(at(24 * 60)));
        assert!(!is_ripe(at(0), None, grace, at(24 * 60)));
        let marked = Some(at(24 * 60 + 5));
        assert_eq!(due_since(at(0), marked, grace, at(25 * 60)), marked);
        assert!(!is_ripe(at(0), marked, grace, at(25 * 60)));
        assert!(is_ripe(at(0), marked, grace, at(25 * 60 + 5)));
    }

    #[test]
    fn a_mark_of_a_time_to_come_or_of_what_is_not_due_any_more_is_cleared() {
        let grace = TimeDelta::hours(24);
        assert_eq!(due_since(at(0), Some(at(48 * 60)), grace, at(25 * 60)), Some(at(25 * 60)));
        assert_eq!(due_since(at(0), Some(at(48 * 60)), grace, at(60)), None);
        assert!(!is_ripe(at(0), Some(at(48 * 60)), grace, at(60)));
    }

    #[test]
    fn a_short_grace_waits_no_longer_than_itself() {
        assert!(is_ripe(at(0), None, TimeDelta::zero(), at(0)));
        assert!(!is_ripe(at(0), Some(at(10)), TimeDelta::minutes(10), at(19)));
        assert!(is_ripe(at(0), Some(at(10)), TimeDelta::minutes(10), at(20)));
    }
}
