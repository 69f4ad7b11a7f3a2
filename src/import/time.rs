//! Which hour a time of a log belongs to.

use super::reason::Reason;
use crate::domain::Hour;

/// A clock may be ahead by so much.
pub(super) const FUTURE_MAX_S: i64 = 300;

/// Both in seconds since 1970.
pub(super) fn hour_of(seconds: i64, now: i64) -> Result<Hour, Reason> {
    if seconds > now.saturating_add(FUTURE_MAX_S) {
        return Err(Reason::Future);
    }
    let number = u32::try_from(seconds.div_euclid(3600)).map_err(|_| Reason::TooEarly)?;
    Hour::from_number(number).ok_or(Reason::Future)
}
