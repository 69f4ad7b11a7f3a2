//! Whatever is in a path, a name, a number, a day or a range is read or refused.

use bolero::check;

use super::{Day, EventName, Hour, HourRange, NUM_MAX, WriterId, parse_num};
use crate::mangled::{Edit, mangled};

#[test]
fn names_numbers_days_and_ranges_may_be_any_text() {
    let texts: [&[u8]; 6] =
        [b"20260228", b"2026022823", b"18446744073709551615", "resource/ä%2F".as_bytes(), b"2026-02-28T23", b"00ff"];
    check!().with_type::<(u8, u8, Vec<Edit>)>().for_each(|(which, other, edits)| {
        let [text, end] = [which, other].map(|which| mangled(&texts, *which, edits));
        let [text, end] = [&text, &end].map(|text| String::from_utf8_lossy(text));
        if let Ok(name) = EventName::parse(&text) {
            assert_eq!(name.as_str(), text);
        }
        assert!(parse_num(&text).is_none_or(|num| (1..=NUM_MAX).contains(&num)));
        if let Some(day) = Day::parse(&text) {
            assert_eq!(Day::parse(&day.to_string()), Some(day));
        }
        if let Ok(range) = HourRange::parse(Some(&text), Some(&end)) {
            assert!(range.first <= range.last && range.last <= Hour::MAX);
        }
        if let Some(writer) = WriterId::parse(&text) {
            assert_eq!(WriterId::parse(&writer.to_string()), Some(writer));
        }
    });
}
