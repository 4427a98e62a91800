//! Parses the vectors of an embedder: returns their lengths, or what is wrong with them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Why vectors can't be parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A value has the wrong type; the message.
    Kind(String),
    /// The engine has no message for this: it crashes.
    Crash,
}

/// The length of each vector in a list of vectors, or of the single vector.
pub(super) fn lengths(raw: &str, at: &str) -> Result<Vec<usize>, Wrong> {
    if let Ok(Some(lengths)) = serde_json::from_str::<Lists>(raw).map(Lists::lengths) {
        return Ok(lengths);
    }
    let value = serde_json::from_str::<Value>(raw).map_err(|_| Wrong::Crash)?;
    let all = match &value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(all) => all,
        other => return Err(kind(other, "null or an array", at)),
    };
    match all.first() {
        None => return Ok(Vec::new()),
        Some(Value::Array(_)) => {
            for (place, vector) in all.iter().enumerate() {
                let at = format!("{at}[{place}]");
                match vector {
                    Value::Array(numbers) => all_numbers(numbers, &at)?,
                    other => return Err(kind(other, "an array", &at)),
                }
            }
        }
        Some(Value::Number(_)) => all_numbers(all, at)?,
        Some(other) => return Err(kind(other, "a number or an array", &format!("{at}[0]"))),
    }
    // Valid vectors were handled above.
    Ok(Vec::new())
}

fn all_numbers(numbers: &[Value], at: &str) -> Result<(), Wrong> {
    for (place, number) in numbers.iter().enumerate() {
        if !number.is_number() {
            return Err(kind(number, "a number", &format!("{at}[{place}]")));
        }
    }
    Ok(())
}

fn kind(found: &Value, expected: &str, at: &str) -> Wrong {
    if holds_object(found) {
        return Wrong::Crash;
    }
    let described = match found {
        Value::Null => "null".to_owned(),
        found => {
            let kind = match found {
                Value::Bool(_) => "a boolean",
                Value::Number(number) if number.is_u64() => "a positive integer",
                Value::Number(number) if number.is_i64() => "a negative integer",
                Value::Number(_) => "a number",
                Value::String(_) => "a string",
                _ => "an array",
            };
            format!("{kind}: `{found}`")
        }
    };
    Wrong::Kind(format!(
        "Invalid value type at `{at}`: expected {expected}, but found {described}"
    ))
}

fn holds_object(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(all) => all.iter().any(holds_object),
        _ => false,
    }
}

/// Valid vectors, parsed without keeping them.
enum Lists {
    One(usize),
    Several(Vec<usize>),
    Nothing,
    Wrong,
}

impl Lists {
    fn lengths(self) -> Option<Vec<usize>> {
        match self {
            Self::One(length) => Some(vec![length]),
            Self::Several(lengths) => Some(lengths),
            Self::Nothing => Some(Vec::new()),
            Self::Wrong => None,
        }
    }
}

impl<'de> Deserialize<'de> for Lists {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut lists = Self::Nothing;
        for item in deserializer.deserialize_seq(Items)? {
            lists = match (lists, item) {
                (Self::Nothing, Item::Number) => Self::One(1),
                (Self::One(length), Item::Number) => Self::One(length + 1),
                (Self::Nothing, Item::List(length)) => Self::Several(vec![length]),
                (Self::Several(mut lengths), Item::List(length)) => {
                    lengths.push(length);
                    Self::Several(lengths)
                }
                _ => return Ok(Self::Wrong),
            };
        }
        Ok(lists)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Number,
    /// A list of numbers, with its length.
    List(usize),
    Other,
}

struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<Item>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneItem)
    }
}

struct OneItem;

impl<'de> Visitor<'de> for OneItem {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a list")
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Item, E> {
        Ok(Item::Number)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Item, E> {
        Ok(Item::Number)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Item, E> {
        Ok(Item::Number)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
        let (mut length, mut is_right) = (0, true);
        while let Some(item) = list.next_element::<Item>()? {
            length += 1;
            is_right &= item == Item::Number;
        }
        Ok(match is_right {
            true => Item::List(length),
            false => Item::Other,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Item, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Item::Other)
    }
}
