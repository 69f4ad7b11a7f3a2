//! One line of StatsD: `name:3|c`, perhaps with a sample rate `|@0.1`, tags `|#…`, and fields of DogStatsD.

use super::refusal::Refusal;
use crate::domain::{EventName, NUM_MAX};

/// The name and what it is counted by. The name ends with the first colon; after it may stand several counts,
/// with colons between them, which are added up.
pub(super) fn parse(line: &[u8]) -> Result<(EventName, u64), Refusal> {
    let line = std::str::from_utf8(line).map_err(|_| Refusal::Malformed)?;
    // Events and service checks of DogStatsD.
    if line.starts_with("_e{") || line.starts_with("_sc|") {
        return Err(Refusal::Kind);
    }
    let (name, rest) = line.split_once(':').ok_or(Refusal::Malformed)?;
    let mut fields = rest.split('|');
    let (Some(counts), Some(kind)) = (fields.next(), fields.next()) else { return Err(Refusal::Malformed) };
    match kind {
        "c" => {}
        "g" | "ms" | "h" | "d" | "s" | "m" => return Err(Refusal::Kind),
        _ => return Err(Refusal::Malformed),
    }
    let mut rate = 1.0;
    for field in fields {
        match field.as_bytes().first() {
            Some(b'@') => rate = sample_rate(&field[1..]).ok_or(Refusal::Rate)?,
            // Tags, the container, the time: there is nothing to count them by.
            Some(b'#' | b'c' | b'T' | b'e') => {}
            _ => return Err(Refusal::Malformed),
        }
    }
    let mut sum: u64 = 0;
    for count in counts.split(':') {
        sum = sum.saturating_add(whole(count)?);
    }
    let count = if rate < 1.0 { scaled(sum, rate) } else { sum };
    if count > NUM_MAX {
        return Err(Refusal::TooLarge);
    }
    if count == 0 {
        return Err(Refusal::Zero);
    }
    Ok((EventName::parse(name).map_err(|_| Refusal::Name)?, count))
}

fn sample_rate(text: &str) -> Option<f64> {
    text.parse().ok().filter(|rate| *rate > 0.0 && *rate <= 1.0)
}

/// Rounded to the nearest whole number. Beyond [`NUM_MAX`] it is refused anyway.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
fn scaled(count: u64, rate: f64) -> u64 {
    (count as f64 / rate).round() as u64
}

/// Some clients write `3.0`.
fn whole(text: &str) -> Result<u64, Refusal> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(digits) = digits.strip_prefix('-') {
        let is_number = digits.starts_with(|first: char| first.is_ascii_digit()) && digits.parse::<f64>().is_ok();
        return Err(if is_number { Refusal::Negative } else { Refusal::Malformed });
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if !is_digits(whole) || !is_digits(fraction) {
        return Err(Refusal::Malformed);
    }
    if fraction.bytes().any(|digit| digit != b'0') {
        return Err(Refusal::Fraction);
    }
    whole.parse().map_err(|_| Refusal::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_with_their_rate_and_without_their_tags() {
        for (line, name, count) in [
            ("page:3|c", "page", 3),
            ("page:1|c|@0.1", "page", 10),
            ("page:2|c|@0.3", "page", 7),
            ("page:1|c|@1", "page", 1),
            ("page:1|c|#env:prod,x|c:abc|T1700000000", "page", 1),
            ("page:1|c|#a|@0.5", "page", 2),
            ("page:1.0|c", "page", 1),
            ("page:+2|c", "page", 2),
            ("page:1:2:3|c", "page", 6),
            ("a/b é.x:1000000000|c", "a/b é.x", 1_000_000_000),
        ] {
            let (event, counted) = parse(line.as_bytes()).unwrap_or_else(|why| panic!("{line}: {why:?}"));
            assert_eq!((event.as_str(), counted), (name, count), "{line}");
        }
    }

    #[test]
    fn everything_else_is_refused_for_a_reason() {
        for (line, why) in [
            ("", Refusal::Malformed),
            ("page", Refusal::Malformed),
            ("page:3", Refusal::Malformed),
            ("page:|c", Refusal::Malformed),
            ("page:x|c", Refusal::Malformed),
            ("page:1e3|c", Refusal::Malformed),
            ("page:--1|c", Refusal::Malformed),
            ("page:1|counter", Refusal::Malformed),
            ("page:1|c|x", Refusal::Malformed),
            ("page:1|c|", Refusal::Malformed),
            ("shop:page:1:x|c", Refusal::Malformed),
            ("page:1|g", Refusal::Kind),
            ("page:+1|g", Refusal::Kind),
            ("page:320|ms", Refusal::Kind),
            ("page:320|ms|@0.1", Refusal::Kind),
            ("users:765|s", Refusal::Kind),
            ("size:1|h", Refusal::Kind),
            ("_e{5,4}:title|text", Refusal::Kind),
            ("_sc|name|0", Refusal::Kind),
            ("page:-1|c", Refusal::Negative),
            ("page:1.5|c", Refusal::Fraction),
            ("page:0|c", Refusal::Zero),
            ("page:1000000001|c", Refusal::TooLarge),
            ("page:99999999999999999999|c", Refusal::TooLarge),
            ("page:1|c|@0.0000000001", Refusal::TooLarge),
            ("page:1|c|@0", Refusal::Rate),
            ("page:1|c|@2", Refusal::Rate),
            ("page:1|c|@nan", Refusal::Rate),
            ("page:1|c|@", Refusal::Rate),
            (":1|c", Refusal::Name),
            ("..:1|c", Refusal::Name),
            ("a\u{7}:1|c", Refusal::Name),
        ] {
            assert_eq!(parse(line.as_bytes()).err(), Some(why), "{line}");
        }
        assert_eq!(parse(b"\xff:1|c").err(), Some(Refusal::Malformed));
        assert_eq!(parse(format!("{}:1|c", "x".repeat(256)).as_bytes()).err(), Some(Refusal::Name));
    }
}
