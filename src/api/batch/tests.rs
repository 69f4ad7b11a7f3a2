#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::super::item::usual;
use super::*;
use crate::domain::{EventName, NUM_MAX};

/// What a batch came to, for comparing.
#[derive(Debug, PartialEq)]
struct Outcome {
    sums: BTreeMap<String, u64>,
    accepted: u64,
    /// Index and code of each rejected item.
    rejected: Vec<(u64, String)>,
}

fn outcome(tally: &Tally) -> Outcome {
    let rejected = tally.errors().iter();
    let rejected: Vec<_> = rejected.map(|error| (error.index, error.code.to_owned())).collect();
    assert!(tally.errors().iter().all(|error| error.reason.starts_with(&format!("{}: ", error.code))));
    assert_eq!(rejected.len() as u64, tally.rejected());
    let sums = tally.increments().map(|(event, count)| (event.to_string(), count)).collect();
    Outcome { sums, accepted: tally.accepted(), rejected }
}

/// The same by way of a tree of values, for one item. What is ignored must have no texts that only
/// look like such: a tree has to decode them, and the parsers need not.
///
/// `None` stands for a line that is not JSON.
fn refer(outcome: &mut Outcome, item: Option<&Value>) {
    let index = outcome.accepted + outcome.rejected.len() as u64;
    let read = match item {
        Some(item) if item.to_string().contains(NO_TEXT) => Err("bad_item"),
        Some(Value::String(event)) => Ok((event, 1)),
        Some(Value::Object(fields)) if fields.keys().any(|name| name != "event" && name != "count") => Err("bad_field"),
        Some(Value::Object(fields)) => match (fields.get("event"), fields.get("count")) {
            (Some(Value::String(event)), None) => Ok((event, 1)),
            (Some(Value::String(event)), Some(count)) => {
                count.as_u64().filter(|count| (1..=NUM_MAX).contains(count)).map(|n| (event, n)).ok_or("bad_count")
            }
            _ => Err("bad_item"),
        },
        _ => Err("bad_item"),
    };
    let named = read.and_then(|(event, n)| EventName::parse(event).map(|name| (name, n)).map_err(|_| "bad_name"));
    match named {
        Ok((name, count)) => {
            *outcome.sums.entry(name.to_string()).or_default() += count;
            outcome.accepted += 1;
        }
        Err(code) => outcome.rejected.push((index, code.to_owned())),
    }
}

fn nothing() -> Outcome {
    Outcome { sums: BTreeMap::new(), accepted: 0, rejected: Vec::new() }
}

/// A tree can't hold what is no text, and the item that holds it is rejected by itself. This stands
/// for it; no name in these tests has it.
const NO_TEXT: &str = "\u{ffff}";

fn tree(text: &[u8]) -> Option<Value> {
    let chunks = text.utf8_chunks();
    let text: String =
        chunks.flat_map(|part| [part.valid(), if part.invalid().is_empty() { "" } else { NO_TEXT }]).collect();
    serde_json::from_str(&text).ok()
}

fn reference_document(text: &[u8]) -> Option<Outcome> {
    let document = tree(text)?;
    let items = match &document {
        Value::Object(fields) => fields.get("events")?,
        other => other,
    };
    let mut outcome = nothing();
    items.as_array()?.iter().for_each(|item| refer(&mut outcome, Some(item)));
    Some(outcome)
}

fn reference_lines(text: &[u8]) -> Option<Outcome> {
    let mut outcome = nothing();
    let mut any_json = false;
    for line in text.split(|b| *b == b'\n') {
        if line.iter().all(|b| b" \t\r".contains(b)) {
            continue;
        }
        let item = tree(line);
        any_json |= item.is_some();
        refer(&mut outcome, item.as_ref());
    }
    any_json.then_some(outcome)
}

fn parsed_document(text: &[u8]) -> Option<Outcome> {
    let mut tally = Tally::default();
    document(text, &mut tally).ok()?;
    Some(outcome(&tally))
}

fn parsed_lines(text: &[u8], piece_bytes: usize) -> Option<Outcome> {
    let mut lines = Lines::default();
    text.chunks(piece_bytes).for_each(|piece| lines.push(piece));
    Some(outcome(&lines.finish().ok()?))
}

fn names() -> impl Strategy<Value = String> {
    let names = prop_oneof!["[a-c]{1,2}", "[ -~]{0,6}", "\\PC{0,4}", "\u{0}|\\.|\\.\\."];
    names.prop_map(|name| serde_json::to_string(&name).unwrap())
}

/// An item as people and programs write it, or nearly one. No line breaks.
fn items() -> impl Strategy<Value = String> {
    let counts = prop::sample::select(vec![
        "1",
        "7",
        "42",
        "1000000000",
        "1000000001",
        "99999999999",
        "18446744073709551616",
        "0",
        "-1",
        "1.0",
        "1e3",
        "5.",
        "007",
        "\"5\"",
        "null",
        "true",
        "[]",
        "{}",
        "",
    ]);
    let other = prop::sample::select(vec![
        "5",
        "-5",
        "1.5",
        "null",
        "true",
        "[]",
        "[\"a\"]",
        "{}",
        "{\"event\":5}",
        "{\"event\":{\"event\":\"a\"}}",
        "{\"count\":5}",
        "nul",
        "",
        "\"a",
        "\"\\u0041\"",
        "{\"event\":\"a\",}",
        "{\"event\" \"a\"}",
        "'a'",
        "{\"e\\u0076ent\":\"a\"}",
        "\"a\" \"b\"",
        "{\"event\":\"a\",\"count\":5,\"time\":[1,{\"event\":2}]}",
    ]);
    let spaces = || prop::sample::select(vec!["", "", " ", "  ", "\t", "\r"]);
    prop_oneof![
        3 => names(),
        2 => (names(), spaces()).prop_map(|(name, s)| format!("{{{s}\"event\"{s}:{s}{name}{s}}}")),
        4 => (names(), counts.clone(), spaces(), spaces())
            .prop_map(|(name, count, s, t)| format!("{{{s}\"event\":{t}{name},{t}\"count\":{t}{count}{s}}}")),
        1 => (names(), counts).prop_map(|(name, count)| format!("{{\"count\":{count},\"id\":null,\"event\":{name}}}")),
        2 => other.prop_map(ToOwned::to_owned),
    ]
}

/// One byte replaced, or none.
fn damaged(text: String, damage: Option<(prop::sample::Index, u8)>) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    if let (Some((at, byte)), false) = (damage, bytes.is_empty()) {
        let at = at.index(bytes.len());
        bytes[at] = byte;
    }
    bytes
}

fn damage() -> impl Strategy<Value = Option<(prop::sample::Index, u8)>> {
    prop::option::weighted(0.3, (any::<prop::sample::Index>(), prop::sample::select(b"[]{},:\"\\ \n15a\x00".to_vec())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_document_is_what_a_tree_of_values_says(
        items in prop::collection::vec(items(), 0..6),
        separator in prop::sample::select(vec![",", " ,\n ", ", "]),
        frame in prop::sample::select(vec![
            ("[", "]"), (" [ ", "\n]\r\n"), ("{\"events\":[", "]}"), ("{ \"a\" : [{}] , \"events\" : [", "] , \"b\":\"c\" }"),
            ("{\"e\\u0076ents\":[", "]}"), ("", ""),
        ]),
        damage in damage(),
    ) {
        let text = damaged([frame.0, &items.join(separator), frame.1].concat(), damage);
        prop_assert_eq!(parsed_document(&text), reference_document(&text), "{:?}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn lines_are_what_a_tree_of_values_says_wherever_they_are_cut(
        items in prop::collection::vec(items(), 0..8),
        end in prop::sample::select(vec!["\n", "\r\n", " \n", "\n\n"]),
        is_ended in any::<bool>(),
        piece_bytes in 1usize..200,
        damage in damage(),
    ) {
        let text = items.join(end) + if is_ended { end } else { "" };
        let text = damaged(text, damage);
        prop_assert_eq!(
            parsed_lines(&text, piece_bytes), reference_lines(&text), "{:?}", String::from_utf8_lossy(&text)
        );
    }

    #[test]
    fn what_is_read_the_short_way_is_read_the_same_by_serde(item in items(), rest in "[,\\] \n}\"0-9]{0,3}", damage in damage()) {
        let text = damaged(item + &rest, damage);
        if let Some((event, count, length)) = usual(&text) {
            let read: Item<'_> = serde_json::from_slice(&text[..length]).unwrap();
            prop_assert_eq!(read, Item::Count(event.into(), count));
        }
    }

    #[test]
    fn no_bytes_make_parsing_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (parsed_document(&bytes), parsed_lines(&bytes, 7), usual(&bytes));
    }
}

#[test]
fn items_as_programs_write_them_are_read_the_short_way() {
    for (text, expected) in [
        (r#""login","x"#, Some(("login", 1, 7))),
        (r#"{"event":"login"}"#, Some(("login", 1, 17))),
        (r#"{"event":"resource/209","count":12}]"#, Some(("resource/209", 12, 35))),
        (r#"{"event": "a b", "count": 1000000000}"#, Some(("a b", 1_000_000_000, 37))),
        (r#"{ "event" : "a" , "count" : 2 }"#, Some(("a", 2, 31))),
        (r#"{"event":"a","count":1000000001}"#, None),
        (r#"{"event":"a","count":0}"#, None),
        (r#"{"event":"a","count":1.5}"#, None),
        (r#"{"event":"a\n"}"#, None),
        (r#"{"event":"é"}"#, None),
        (r#"{"event":"a""#, None),
    ] {
        assert_eq!(usual(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn what_is_no_text_or_no_number_is_rejected_by_itself() {
    for odd in [b"\"a\xff\"".as_slice(), b"{\"event\":\"\xc3\"}", b"\"\\ud83d\"", b"{\"event\":\"a\",\"count\":1e999}"]
    {
        for read in [
            parsed_document(&[b"[\"a\",", odd, b",\"b\"]"].concat()),
            parsed_lines(&[b"\"a\"\n", odd, b"\n\"b\""].concat(), 100),
        ] {
            let read = read.unwrap();
            assert_eq!((read.accepted, read.rejected.as_slice()), (2, [(1, "bad_item".to_owned())].as_slice()));
        }
    }
    for broken in ["[\"a\",\"\\x\"]", "[\"a\",1e]", "[\"a\",\"b]"] {
        assert_eq!(parsed_document(broken.as_bytes()), None, "{broken}");
    }
}

#[test]
fn only_a_list_of_items_is_a_document() {
    for text in ["[[\"a\"]]", "[{\"event\":[\"a\"]}]"] {
        assert_eq!(parsed_document(text.as_bytes()).unwrap().rejected, [(0, "bad_item".to_owned())], "{text}");
    }
    for text in ["{\"event\":[\"a\"]}", "{\"events\":5,\"a\":[\"a\"]}", "5", "\"a\"", "{}", ""] {
        assert_eq!(parsed_document(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_field_given_twice_is_an_error() {
    let mut tally = Tally::default();
    let text = br#"[{"event":"a","event":"b"},{"event":"a","count":1,"count":1},{"event":"a","x":1,"x":1}]"#;
    document(text, &mut tally).unwrap();
    assert_eq!((tally.accepted(), tally.rejected()), (0, 3));
    assert_eq!(
        tally.errors().iter().map(|error| error.code).collect::<Vec<_>>(),
        ["bad_item", "bad_item", "bad_field"]
    );
    assert!(document(br#"{"events":[],"events":[]}"#, &mut tally).is_err());
}

#[test]
fn an_unknown_field_is_refused_by_its_name_wherever_it_stands() {
    for (item, field) in [
        (r#"{"event":"a","num":5}"#, "num"),
        (r#"{"Count":5,"event":"a"}"#, "Count"),
        (r#"{"event":"a","count":5,"time":[1,{"event":2}]}"#, "time"),
        (r#"{"event":"a","events":["b"]}"#, "events"),
        (r#"{"id":"x"}"#, "id"),
        (r#"{"event":"a","\n`":1}"#, "\\n`"),
    ] {
        let mut of_lines = Lines::default();
        of_lines.push(item.as_bytes());
        let mut of_document = Tally::default();
        document(format!("[{item}]").as_bytes(), &mut of_document).unwrap();
        for tally in [of_lines.finish().unwrap(), of_document] {
            let [error] = tally.errors() else { panic!("{item}: {:?}", tally.errors()) };
            assert_eq!(error.code, "bad_field", "{item}");
            assert!(error.reason.contains(&format!("no field `{field}`")), "{item}: {}", error.reason);
            assert!(is_line(item.as_bytes()), "{item}");
        }
    }
}
