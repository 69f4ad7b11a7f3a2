//! The viewer's time zone. Counts are kept by UTC hour; each such hour belongs to the local hour
//! and day in which it begins, so in zones whose offset is no whole hour the cut is up to 45 minutes
//! beside midnight, which pages say.

use chrono::{DateTime, Datelike, LocalResult, NaiveDate, NaiveTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

use crate::domain::{Hour, HourRange};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Zone(Tz);

impl Default for Zone {
    fn default() -> Self {
        Self(Tz::UTC)
    }
}

impl Zone {
    /// An IANA name such as `Europe/Berlin`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        name.parse().ok().map(Self)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// All names to choose from.
    pub fn names() -> impl Iterator<Item = &'static str> {
        chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).filter(|name| name.contains('/') || *name == "UTC")
    }

    #[must_use]
    pub fn local(self, at: DateTime<Utc>) -> DateTime<Tz> {
        at.with_timezone(&self.0)
    }

    /// Such as `25 Aug 2026, 20:00`.
    #[must_use]
    pub fn time(self, at: DateTime<Utc>) -> String {
        self.local(at).format("%-d %b %Y, %H:%M").to_string()
    }

    /// The hour in a format with its time; with the offset where clocks show that time twice.
    #[must_use]
    pub fn label(self, hour: Hour, format: &str) -> String {
        let local = self.local(hour.start());
        let is_twice = matches!(self.0.from_local_datetime(&local.naive_local()), LocalResult::Ambiguous(..));
        let offset = if is_twice { format!(" ({})", self.offset(hour.start())) } else { String::new() };
        format!("{}{offset}", local.format(format))
    }

    /// Such as `UTC+05:30`.
    #[must_use]
    pub fn offset(self, at: DateTime<Utc>) -> String {
        match self.local(at).offset().fix().local_minus_utc() {
            0 => "UTC".into(),
            _ => format!("UTC{}", self.local(at).format("%:z")),
        }
    }

    /// Whether UTC hours are local hours.
    #[must_use]
    pub fn cuts_hours(self, at: DateTime<Utc>) -> bool {
        self.local(at).offset().fix().local_minus_utc() % 3600 != 0
    }

    #[must_use]
    pub fn day_of(self, hour: Hour) -> NaiveDate {
        self.local(hour.start()).date_naive()
    }

    /// 0 to 23, and the days from Monday, which is 0.
    #[must_use]
    pub fn hour_and_weekday(self, hour: Hour) -> (usize, usize) {
        let local = self.local(hour.start());
        (local.hour() as usize, local.weekday().num_days_from_monday() as usize)
    }

    /// The hours that begin on this local day: 24, or 23 and 25 when clocks change.
    #[must_use]
    pub fn hours_of(self, day: NaiveDate) -> HourRange {
        let first = self.first_hour(day);
        let next = day.succ_opt().map_or(Hour::MAX, |next| self.first_hour(next));
        HourRange { first, last: next.plus(-1).max(first) }
    }

    /// The first hour that begins on the day. Where clocks skip midnight, the day begins later; some
    /// places have even skipped a whole day.
    fn first_hour(self, day: NaiveDate) -> Hour {
        let midnight = day.and_time(NaiveTime::MIN);
        let start = (0..=48)
            .find_map(|hour| self.0.from_local_datetime(&(midnight + TimeDelta::hours(hour))).earliest())
            .map_or_else(|| midnight.and_utc(), |local| local.with_timezone(&Utc));
        let hour = Hour::containing(start);
        if hour.start() < start { hour.plus(1) } else { hour }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hours(zone: &str, day: &str) -> (String, String) {
        let range = Zone::parse(zone).unwrap().hours_of(day.parse().unwrap());
        (range.first.to_string(), range.last.to_string())
    }

    fn pair(first: &str, last: &str) -> (String, String) {
        (first.into(), last.into())
    }

    #[test]
    fn a_local_day_is_the_utc_hours_that_begin_on_it() {
        assert_eq!(hours("UTC", "2024-05-01"), pair("2024050100", "2024050123"));
        assert_eq!(hours("America/New_York", "2024-05-01"), pair("2024050104", "2024050203"));
        assert_eq!(hours("Asia/Kolkata", "2024-05-01"), pair("2024043019", "2024050118"));
    }

    #[test]
    fn days_on_which_clocks_change_have_23_or_25_hours() {
        let count = |day: &str| {
            let range = Zone::parse("Europe/Berlin").unwrap().hours_of(day.parse().unwrap());
            range.last.number() - range.first.number() + 1
        };
        assert_eq!(count("2024-03-31"), 23);
        assert_eq!(count("2024-10-27"), 25);
        assert_eq!(count("2024-10-28"), 24);
    }

    #[test]
    fn the_hour_that_clocks_show_twice_is_told_apart() {
        let first = Hour::containing("2024-10-26T23:00:00Z".parse::<DateTime<Utc>>().unwrap());
        let zone = Zone::parse("Europe/Berlin").unwrap();
        let labels: Vec<_> = (0..4).map(|hours| zone.label(first.plus(hours), "%H:%M")).collect();
        assert_eq!(labels, ["01:00", "02:00 (UTC+02:00)", "02:00 (UTC+01:00)", "03:00"]);
    }

    #[test]
    fn every_hour_is_in_exactly_the_day_it_is_said_to_be_in() {
        for zone in ["UTC", "Asia/Kathmandu", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia"] {
            let zone = Zone::parse(zone).unwrap();
            let start = Hour::containing("2011-12-25T00:00:00Z".parse::<DateTime<Utc>>().unwrap());
            for hour in (0..24 * 20).map(|hours| start.plus(hours)) {
                assert!(zone.hours_of(zone.day_of(hour)).contains(hour), "{zone:?} {hour}");
            }
        }
    }
}
