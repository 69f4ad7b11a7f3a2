//! One item of a batch: a text, or an object with `event` and perhaps `count`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::domain::NUM_MAX;

/// What an item says, as far as it can be counted.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Item<'b> {
    Count(Cow<'b, str>, u64),
    Flawed(Flaw),
}

/// Why an item says nothing that could be counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Flaw {
    NotJson,
    Unreadable,
    NotAnItem,
    NoEvent,
    BadCount,
    Twice,
    /// A field that no item has; the first of them. Long names are cut.
    UnknownField(String),
}

/// So much of an unknown field's name is told.
const FIELD_CHARS_MAX: usize = 64;

impl Flaw {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::BadCount => "bad_count",
            Self::UnknownField(_) => "bad_field",
            Self::NotJson | Self::Unreadable | Self::NotAnItem | Self::NoEvent | Self::Twice => "bad_item",
        }
    }

    /// The code, a colon and the detail.
    pub(super) fn reason(&self) -> String {
        let detail = match self {
            Self::NotJson => "the line is not JSON",
            Self::Unreadable => "a text in it is not Unicode, or a number too large",
            Self::NotAnItem => "a text, or an object with `event` and perhaps `count`, is expected",
            Self::NoEvent => "the object has no text `event`",
            Self::BadCount => "`count` is a whole number from 1 to 1000000000",
            Self::Twice => "`event` or `count` occurs more than once",
            Self::UnknownField(name) => {
                let name = name.escape_debug();
                return format!("{}: an item has no field `{name}`, only `event` and perhaps `count`", self.code());
            }
        };
        format!("{}: {detail}", self.code())
    }

    fn unknown_field(name: &str) -> Self {
        Self::UnknownField(name.chars().take(FIELD_CHARS_MAX).collect())
    }
}

/// Any JSON value, as far as items are concerned.
enum Value<'b> {
    Text(Cow<'b, str>),
    Whole(u64),
    Object(Item<'b>),
    Other,
}

impl<'b> Deserialize<'b> for Item<'b> {
    fn deserialize<D: Deserializer<'b>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Text(event) => Self::Count(event, 1),
            Value::Object(item) => item,
            Value::Whole(_) | Value::Other => Self::Flawed(Flaw::NotAnItem),
        })
    }
}

impl<'b> Deserialize<'b> for Value<'b> {
    fn deserialize<D: Deserializer<'b>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'b> Visitor<'b> for ValueVisitor {
    type Value = Value<'b>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'b str) -> Result<Value<'b>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'b>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'b>, E> {
        Ok(Value::Whole(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'b>, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'b>, E> {
        Ok(Value::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'b>, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value<'b>, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut elements: A) -> Result<Value<'b>, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    /// A field of another name is a flaw: ignored, a misspelt `count` would count one.
    fn visit_map<A: MapAccess<'b>>(self, mut fields: A) -> Result<Value<'b>, A::Error> {
        let (mut event, mut count, mut twice, mut unknown) = (None, None, false, None);
        while let Some(name) = fields.next_key::<Value<'b>>()? {
            match name {
                Value::Text(name) if name == "event" => twice |= event.replace(fields.next_value()?).is_some(),
                Value::Text(name) if name == "count" => twice |= count.replace(fields.next_value()?).is_some(),
                name => {
                    if let Value::Text(name) = &name
                        && unknown.is_none()
                    {
                        unknown = Some(Flaw::unknown_field(name));
                    }
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        if let Some(flaw) = unknown {
            return Ok(Value::Object(Item::Flawed(flaw)));
        }
        Ok(Value::Object(match (event, count) {
            _ if twice => Item::Flawed(Flaw::Twice),
            (Some(Value::Text(event)), None) => Item::Count(event, 1),
            (Some(Value::Text(event)), Some(Value::Whole(count @ 1..=NUM_MAX))) => Item::Count(event, count),
            (Some(Value::Text(_)), Some(_)) => Item::Flawed(Flaw::BadCount),
            _ => Item::Flawed(Flaw::NoEvent),
        }))
    }
}

/// Reads the item at the start of `bytes` if it is written as nearly all are: a name of printable
/// ASCII without escapes, `event` before `count`, nothing else. Gives the item and its length. What
/// it reads, the general parser reads as the same; what it does not read is left to that one.
pub(super) fn usual(bytes: &[u8]) -> Option<(&str, u64, usize)> {
    let (event, mut at) = match bytes.first()? {
        b'"' => {
            let (event, end) = plain_text(bytes, 0)?;
            return Some((event, 1, end));
        }
        b'{' => {
            let at = expect(bytes, spaces(bytes, 1), b"\"event\"")?;
            let at = expect(bytes, spaces(bytes, at), b":")?;
            plain_text(bytes, spaces(bytes, at))?
        }
        _ => return None,
    };
    at = spaces(bytes, at);
    let mut count = 1;
    if bytes.get(at) == Some(&b',') {
        at = expect(bytes, spaces(bytes, at + 1), b"\"count\"")?;
        at = expect(bytes, spaces(bytes, at), b":")?;
        (count, at) = whole_number(bytes, spaces(bytes, at))?;
        at = spaces(bytes, at);
    }
    Some((event, count, expect(bytes, at, b"}")?))
}

fn spaces(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at) == Some(&b' ') {
        at += 1;
    }
    at
}

fn expect(bytes: &[u8], at: usize, token: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(token).then_some(at + token.len())
}

fn plain_text(bytes: &[u8], at: usize) -> Option<(&str, usize)> {
    let text = expect(bytes, at, b"\"")?;
    let length = bytes[text..].iter().position(|b| !matches!(b, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'))?;
    let end = text + length;
    Some((std::str::from_utf8(&bytes[text..end]).ok()?, expect(bytes, end, b"\"")?))
}

/// 1 to [`NUM_MAX`], of at most ten digits. What may follow it, the caller looks at.
fn whole_number(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    if !matches!(bytes.get(at)?, b'1'..=b'9') {
        return None;
    }
    let digits = bytes[at..].iter().take(11).take_while(|b| b.is_ascii_digit()).count();
    let number = bytes[at..at + digits].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    (number <= NUM_MAX).then_some((number, at + digits))
}
