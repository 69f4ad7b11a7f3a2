//! Whatever is in a log, each of its lines is counted or skipped.

use bolero::check;

use super::line;
use super::options::{Format, Methods, Options, Statuses, Template};
use crate::domain::NUM_MAX;
use crate::mangled::{Edit, mangled};

const LINES: [&[u8]; 5] = [
    br#"::1 - - [17/May/2015:10:05:03 +0000] "GET /a%20b?c HTTP/1.1" 200 17 "-" "Agent \"x\"""#,
    br#"host - ann [29/Feb/2016:23:59:60 -1200] "\x16\x03 /\\ HTTP/1.1" 304 -"#,
    br#"{"event":"a","count":3.0,"time":"2015-05-17T10:05:03.5+02:00"}"#,
    br#"{"time":1431857103,"event":"\ud83d\ude00","count":1000000000}"#,
    br#""login""#,
];

#[test]
fn a_line_of_any_bytes_is_counted_or_skipped() {
    let formats = [Format::Auto, Format::Common, Format::Combined, Format::Json];
    let options = formats.map(|format| Options {
        format,
        event: Template::parse("{method}{status}{path}").unwrap_or_else(|why| panic!("{why}")),
        prefix: String::new(),
        methods: Methods::parse("any").unwrap_or_else(|why| panic!("{why}")),
        statuses: Statuses::parse("any").unwrap_or_else(|why| panic!("{why}")),
        assets: true,
    });
    check!().with_type::<(u8, u8, Vec<Edit>, i64)>().for_each(|(which, format, edits, now)| {
        let bytes = mangled(&LINES, *which, edits);
        if let Ok((_, _, count)) = line::read(&bytes, &options[usize::from(*format) % 4], *now) {
            assert!((1..=NUM_MAX).contains(&count));
        }
    });
}
