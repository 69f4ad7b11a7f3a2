//! A line of JSON: an item as the API takes it.

use std::borrow::Cow;

use chrono::DateTime;
use serde::Deserialize;

use super::reason::Reason;
use super::time;
use crate::domain::{Hour, HourRange, NUM_MAX};

/// A reason, and what is wrong where the parser can tell.
pub(super) type Flaw = (Reason, Option<String>);

/// Whole numbers may be written `3.0`, as some languages do.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Whole(i64),
    Number(f64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<'l> {
    #[serde(borrow)]
    event: Cow<'l, str>,
    count: Option<Value>,
    time: Option<Value>,
}

/// Name, hour and count. `now`, in seconds since 1970: the time of an item without one.
pub(super) fn parse(line: &[u8], now: i64) -> Result<(Cow<'_, str>, Hour, u64), Flaw> {
    let item: Object<'_> = if line.first() == Some(&b'"') {
        Object { event: Cow::Owned(serde_json::from_slice(line).map_err(flaw)?), count: None, time: None }
    } else {
        serde_json::from_slice(line).map_err(flaw)?
    };
    let count = item.count.as_ref().map_or(Some(1), count).ok_or((Reason::Count, None))?;
    let hour = match &item.time {
        None => time::hour_of(now, now),
        Some(value) => hour(value, now),
    };
    Ok((item.event, hour.map_err(|reason| (reason, None))?, count))
}

fn flaw(error: serde_json::Error) -> Flaw {
    match error.classify() {
        serde_json::error::Category::Data => (Reason::Item, Some(error.to_string())),
        _ => (Reason::Unreadable, None),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the number is whole and within the range")]
fn count(value: &Value) -> Option<u64> {
    let whole = match value {
        Value::Whole(number) => *number,
        Value::Number(number) if number.fract() == 0.0 && number.abs() <= NUM_MAX as f64 => *number as i64,
        _ => return None,
    };
    u64::try_from(whole).ok().filter(|count| (1..=NUM_MAX).contains(count))
}

/// RFC 3339, `YYYYMMDDHH`, or seconds since 1970.
#[expect(clippy::cast_possible_truncation, reason = "what is out of range is in no hour either")]
fn hour(value: &Value, now: i64) -> Result<Hour, Reason> {
    match value {
        Value::Whole(seconds) => time::hour_of(*seconds, now),
        Value::Number(seconds) => time::hour_of(seconds.floor() as i64, now),
        Value::Text(text) if text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            let hour = HourRange::parse(Some(text), Some(text)).map_err(|_| Reason::Time)?.first;
            time::hour_of(hour.start().timestamp(), now)
        }
        Value::Text(text) => {
            let time = DateTime::parse_from_rfc3339(text).map_err(|_| Reason::Time)?;
            time::hour_of(time.timestamp(), now)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_500_000_000;

    fn read(line: &str) -> Result<(String, String, u64), Reason> {
        let read = parse(line.as_bytes(), NOW).map_err(|(reason, _)| reason);
        read.map(|(event, hour, count)| (event.into_owned(), hour.to_string(), count))
    }

    #[test]
    fn items_are_those_of_the_api() {
        let item = |event: &str, hour: &str, count| Ok((event.to_owned(), hour.to_owned(), count));
        assert_eq!(read(r#""login""#), item("login", "2017071402", 1));
        assert_eq!(read(r#"{"event":"login"}"#), item("login", "2017071402", 1));
        assert_eq!(read(r#"{"count":3.0,"event":"a\u00e4","time":0}"#), item("aä", "1970010100", 3));
        assert_eq!(read(r#"{"event":"a","time":3599.9}"#), item("a", "1970010100", 1));
        assert_eq!(read(r#"{"event":"a","time":"2015051710"}"#), item("a", "2015051710", 1));
        assert_eq!(read(r#"{"event":"a","time":"2015-05-17T10:05:03+02:00"}"#), item("a", "2015051708", 1));
    }

    #[test]
    fn what_is_no_item_is_refused_for_a_reason() {
        for (line, reason) in [
            ("{", Reason::Unreadable),
            ("{}", Reason::Item),
            (r#"{"event":7}"#, Reason::Item),
            (r#"{"event":"a","num":7}"#, Reason::Item),
            (r#"{"event":"a","event":"b"}"#, Reason::Item),
            (r#"{"event":"a","count":0}"#, Reason::Count),
            (r#"{"event":"a","count":-1}"#, Reason::Count),
            (r#"{"event":"a","count":1.5}"#, Reason::Count),
            (r#"{"event":"a","count":"1"}"#, Reason::Count),
            (r#"{"event":"a","count":1000000001}"#, Reason::Count),
            (r#"{"event":"a","count":1e300}"#, Reason::Count),
            (r#"{"event":"a","time":-1}"#, Reason::TooEarly),
            (r#"{"event":"a","time":1e300}"#, Reason::Future),
            (r#"{"event":"a","time":1500000301}"#, Reason::Future),
            (r#"{"event":"a","time":"yesterday"}"#, Reason::Time),
            (r#"{"event":"a","time":"2015051724"}"#, Reason::Time),
        ] {
            assert_eq!(read(line), Err(reason), "{line}");
        }
        let (_, detail) = parse(br#"{"event":"a","num":7}"#, NOW).err().unzip();
        assert!(detail.flatten().is_some_and(|detail| detail.contains("`num`")));
    }
}
