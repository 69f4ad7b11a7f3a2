//! The vocabulary. Parsing lives here; nothing invalid gets past it.
//!
//! Every type is a proof: who holds an [`EventName`], an [`Hour`] or a count made by [`parse_num`]
//! need not check it again, and no store, journal or page can be upset by it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

pub use partitions::{Partitions, join_deltas};

#[cfg(test)]
mod fuzz;
mod partitions;

/// Longest event name, in bytes of UTF-8 after decoding. Far below PostgreSQL's limit for an index
/// row (about 2,700 bytes), so that no name can poison a batch.
pub const EVENT_NAME_BYTES_MAX: usize = 255;

/// Largest `num` one increment may carry.
pub const NUM_MAX: u64 = 1_000_000_000;

/// Largest all-time total of one event. The stores keep signed 64-bit sums; the distance of 2^60 to
/// their limit is room for what other nodes add before this one hears of it.
pub const TOTAL_MAX: u64 = i64::MAX as u64 - (1 << 60);

/// The identity of an event: 1 to [`EVENT_NAME_BYTES_MAX`] bytes of UTF-8 without control
/// characters, not `.` or `..`. Kept byte for byte and compared bytewise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EventName(CompactString);

/// Why a text is no [`EventName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the event name is empty")]
    Empty,
    #[error("the event name is longer than {EVENT_NAME_BYTES_MAX} bytes")]
    TooLong,
    #[error("the event name holds a control character")]
    ControlCharacter,
    #[error("`.` and `..` are not event names")]
    Dots,
    #[error("the event name is not valid UTF-8 after percent-decoding")]
    NotUtf8,
}

/// Control characters are one byte below 0x20, 0x7f, or U+0080..=U+009F: two bytes, led by 0xC2.
const MAY_BEGIN_CONTROL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[0x7f] = true;
    table[0xc2] = true;
    table
};

impl EventName {
    /// # Errors
    /// See [`NameError`]; the text is refused, never mended.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > EVENT_NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if text == "." || text == ".." {
            return Err(NameError::Dots);
        }
        // All bytes are looked at without a branch for each: hardly any name holds one of these.
        let suspect = text.bytes().fold(false, |suspect, byte| suspect | MAY_BEGIN_CONTROL[usize::from(byte)]);
        if suspect && text.chars().any(char::is_control) {
            return Err(NameError::ControlCharacter);
        }
        Ok(Self(CompactString::from(text)))
    }

    /// Parses one path segment as it stands in a request: percent-decoded exactly once.
    ///
    /// # Errors
    /// As [`EventName::parse`]; also when the decoded bytes are not UTF-8.
    pub fn from_path_segment(segment: &str) -> Result<Self, NameError> {
        if !segment.as_bytes().contains(&b'%') {
            return Self::parse(segment);
        }
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8().map_err(|_| NameError::NotUtf8)?;
        Self::parse(&decoded)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for EventName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = CompactString::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_str())
    }
}

/// Parses `{num}`: ASCII digits only, 1 to [`NUM_MAX`]. Leading zeros are digits.
#[must_use]
pub fn parse_num(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|num| (1..=NUM_MAX).contains(num))
}

/// One hour, UTC: hours since 1970-01-01T00. Years 1970 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(u32);

impl Hour {
    /// 9999-12-31T23.
    pub const MAX: Self = Self(70_389_527);

    /// The hour that contains `now`; a clock outside the years 1970 to 9999 is clamped to them.
    #[must_use]
    pub fn containing(now: impl Into<SystemTime>) -> Self {
        let since_1970 = now.into().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u32::try_from(since_1970.as_secs() / 3600).map_or(Self::MAX.0, |hours| hours.min(Self::MAX.0)))
    }

    /// Reads back what [`Hour::number`] gave; `None` beyond the year 9999.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        (number <= Self::MAX.0).then_some(Self(number))
    }

    /// Hours since 1970-01-01T00 UTC.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// 0 to 23.
    #[must_use]
    pub fn of_day(self) -> u32 {
        self.0 % 24
    }

    #[must_use]
    pub fn start(self) -> DateTime<Utc> {
        DateTime::from_timestamp(i64::from(self.0) * 3600, 0).unwrap_or_default()
    }

    /// `hours` later (earlier when negative), clamped to the representable years.
    #[must_use]
    pub fn plus(self, hours: i64) -> Self {
        let number = (i64::from(self.0) + hours).clamp(0, i64::from(Self::MAX.0));
        Self(u32::try_from(number).unwrap_or(0))
    }
}

/// `YYYYMMDDHH`, as the API writes hours: every row of a long answer has one, so it is written
/// without chrono's formatter.
impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = self.start().date_naive();
        let mut rest =
            date.year().unsigned_abs() * 1_000_000 + date.month() * 10_000 + date.day() * 100 + self.of_day();
        let mut digits = [b'0'; 10];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        f.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl fmt::Debug for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hour {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hour {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = CompactString::deserialize(deserializer)?;
        let hour = Some(text.as_str()).filter(|text| text.len() == 10).and_then(|text| parse_hour(text, 0));
        hour.ok_or_else(|| serde::de::Error::custom("an hour is expected: YYYYMMDDHH"))
    }
}

/// One day, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Day(Hour);

impl Day {
    #[must_use]
    pub fn containing(hour: Hour) -> Self {
        Self(Hour(hour.0 - hour.of_day()))
    }

    /// Parses `YYYYMMDD`: eight ASCII digits that name a real day of the years 1970 to 9999.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 8 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let date = NaiveDate::from_ymd_opt(text[..4].parse().ok()?, text[4..6].parse().ok()?, text[6..].parse().ok()?)?;
        let hours = date.and_hms_opt(0, 0, 0)?.and_utc().timestamp() / 3600;
        Some(Self(Hour::from_number(u32::try_from(hours).ok()?)?))
    }

    #[must_use]
    pub fn range(self) -> HourRange {
        HourRange { first: self.0, last: self.0.plus(23) }
    }

    #[must_use]
    pub fn date(self) -> NaiveDate {
        self.0.start().date_naive()
    }
}

/// `YYYYMMDD`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.start().format("%Y%m%d"))
    }
}

/// All hours from `first` through `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HourRange {
    pub first: Hour,
    pub last: Hour,
}

/// Why a pair of dates is no [`HourRange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("start_date is missing or no date: YYYYMMDD or YYYYMMDDHH is expected, in UTC")]
    Start,
    #[error("end_date is missing or no date: YYYYMMDD or YYYYMMDDHH is expected, in UTC")]
    End,
    #[error("start_date lies after end_date")]
    Reversed,
}

impl HourRange {
    pub const ALL: Self = Self { first: Hour(0), last: Hour::MAX };

    /// Parses the two dates of a query. Both take 8 or 10 digits: an 8-digit start begins at hour
    /// 00, an 8-digit end runs through hour 23.
    ///
    /// # Errors
    /// See [`RangeError`].
    pub fn parse(start: Option<&str>, end: Option<&str>) -> Result<Self, RangeError> {
        let first = start.and_then(|text| parse_hour(text, 0)).ok_or(RangeError::Start)?;
        let last = end.and_then(|text| parse_hour(text, 23)).ok_or(RangeError::End)?;
        if first > last { Err(RangeError::Reversed) } else { Ok(Self { first, last }) }
    }

    #[must_use]
    pub fn contains(&self, hour: Hour) -> bool {
        self.first <= hour && hour <= self.last
    }
}

fn parse_hour(text: &str, hour_of_bare_day: u32) -> Option<Hour> {
    let day = Day::parse(text.get(..8)?)?;
    let hour = match &text[8..] {
        "" => hour_of_bare_day,
        digits if digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    (hour < 24).then(|| day.0.plus(i64::from(hour)))
}

/// One accepted "+count" for one event in one hour. `count` is at least 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Increment {
    pub event: EventName,
    pub hour: Hour,
    pub count: u64,
}

/// How many times an event happened in one hour: a row of the store, or the like in memory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HourlyCount {
    pub event: EventName,
    pub hour: Hour,
    pub count: u64,
}

/// The all-time total of one event.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EventTotal {
    pub event: EventName,
    pub count: u64,
    /// The earliest hour it was counted in.
    pub first_hour: Hour,
    /// The latest hour it was counted in.
    pub last_hour: Hour,
}

/// What is summed up of a range.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SumBy {
    Hour,
    Event,
}

/// What a sum is of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SumOf {
    /// All events together, in this hour.
    Hour(Hour),
    /// This event, in a whole range of hours.
    Event(EventName),
}

/// A sum of hourly counts. Beyond 63 bits it is that limit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Sum {
    pub of: SumOf,
    pub count: u64,
}

/// Who wrote a batch: 128 random bits, new at every start, so that a cloned disk or a lost folder
/// can never collide with its former life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(pub [u8; 16]);

impl WriterId {
    /// Reads back the 32 hexadecimal digits of its `Display`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of a batch within its writer: 1, 2, 3 …
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchSeq(pub u64);

impl BatchSeq {
    pub const FIRST: Self = Self(1);

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for BatchSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The identity of a batch: producer id and sequence number, as in Kafka's idempotent producer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchId {
    pub writer: WriterId,
    pub seq: BatchSeq,
}

impl BatchId {
    /// The writer of what the store lacks of this batch, where a copy of it was delivered before it was
    /// complete. Every copy of the data folder gives the same one.
    #[must_use]
    pub fn of_rest(&self) -> WriterId {
        let mut hasher = Sha256::new();
        hasher.update(b"event-tracker: the rest of a batch");
        hasher.update(self.writer.0);
        hasher.update(self.seq.0.to_le_bytes());
        let hash = hasher.finalize();
        WriterId(std::array::from_fn(|index| hash[index]))
    }
}

/// One batch as it was committed, or what one partition got of it: an entry of the store's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delta {
    pub id: BatchId,
    /// Whose log it is in.
    pub partition: u16,
    /// Where the ledger of its writer stood before it.
    pub after: BatchSeq,
    /// The version of the catalog that its node knew before it counted the first of the rows.
    pub catalog: u64,
    /// What it added to the ledger's total.
    pub total: i128,
    /// Distinct, sorted by event bytes, then hour.
    pub rows: Arc<[HourlyCount]>,
}

/// Stands for the exact rows of a batch: SHA-256 over them, cut to 16 bytes. The ledger keeps that of
/// each writer's last batch, so that a retry is told from another batch of the same number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Each row in order: length of the name (one byte), name, hour (32 bits) and count (64 bits),
    /// both with the lowest byte first.
    #[must_use]
    pub fn of(rows: &[HourlyCount]) -> Self {
        let mut hasher = Sha256::new();
        for row in rows {
            let name = row.event.as_str().as_bytes();
            // Names have at most 255 bytes.
            hasher.update([u8::try_from(name.len()).unwrap_or(u8::MAX)]);
            hasher.update(name);
            hasher.update(row.hour.number().to_le_bytes());
            hasher.update(row.count.to_le_bytes());
        }
        let mut cut = [0; 16];
        cut.copy_from_slice(&hasher.finalize()[..16]);
        Self(cut)
    }
}

/// What must have happened before an increment is acknowledged, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// Counted in memory.
    Memory,
    /// Also written to the journal: survives `kill -9`.
    Journal,
    /// Also fdatasync'ed: survives power loss.
    Disk,
    /// Its batch is committed to the store.
    Store,
}

impl Ack {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "memory" => Some(Self::Memory),
            "journal" => Some(Self::Journal),
            "disk" => Some(Self::Disk),
            "store" => Some(Self::Store),
            _ => None,
        }
    }
}
