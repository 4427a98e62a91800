//! Which shards a search can match at all, according to its filter.
//!
//! [`super::parse`] reads a filter as far as it compares one field, [`super::region`] says which values can match it, and here these
//! become shards: by hash, if the values are certain ids; by range, also if they are all ids from one to another; by field, if they
//! are certain values of the routing field.
//!
//! Only what is certain is left out. A node compares texts by their normal form (lower case, without white space around them)
//! and numbers as 64-bit floats; `id = 42` matches the number and the text, and `id > 42` matches larger numbers and also
//! larger texts. A filter that can't be read here, `NOT`, `!=` and conditions on other fields can match anywhere.
//!
//! Pure: functions of values.

use std::collections::BTreeSet;

use super::parse::Filter;
use super::region::{Numbers, Region, Texts};
use crate::document_id::DocumentId;
use crate::placement::{ShardId, SlotMap};
use crate::slot::Slot;
use crate::strategy::{IdKey, IdRange, Strategy};
use crate::value::RoutingValue;
use serde_json::Value;

/// The most ids that are looked at. More ids are likely to be spread over all shards.
const MOST_IDS: usize = 1000;
/// The most intervals that are held against every range.
const MOST_INTERVALS: usize = 16;
/// The most letters of an id for which each is tried in both cases.
const MOST_LETTERS: usize = 4;

/// The shards that can hold documents that match `filter`; `None` if any shard may. `by` is the field that tells where a document
/// lies: the routing field, or the primary key.
pub(super) fn shards_of(filter: &Value, by: &str, slots: &SlotMap) -> Option<Vec<ShardId>> {
    // A dot reaches into nested objects, which can be written in more than one way.
    if by.contains('.') {
        return None;
    }
    let region = Region::of(&Filter::read(filter)?, by)?;
    let mut shards = Found {
        slots,
        shards: BTreeSet::new(),
        ids: 0,
        intervals: 0,
    };
    for numbers in &region.numbers {
        shards.numbers(numbers)?;
    }
    for texts in &region.texts {
        shards.texts(texts)?;
    }
    let shards = shards.shards;
    // A filter that matches nothing is still judged by a node.
    (!shards.is_empty()).then(|| shards.into_iter().collect())
}

/// The shards that were found so far. Its functions return `None` if any shard may have matches.
struct Found<'a> {
    slots: &'a SlotMap,
    shards: BTreeSet<ShardId>,
    ids: usize,
    intervals: usize,
}

impl Found<'_> {
    fn numbers(&mut self, numbers: &Numbers) -> Option<()> {
        if let Some(number) = numbers.integer() {
            let number = number.to_string();
            return match self.slots.field() {
                Some(_) => self.value(&number),
                None => self.id(&number),
            };
        }
        if numbers.is_fraction() {
            return Some(());
        }
        self.ranges(|range| {
            let (least, most) = integers(range)?;
            #[allow(clippy::cast_precision_loss, reason = "as the engine does")]
            let holds = least as f64 <= numbers.to && most as f64 >= numbers.from;
            Some(holds)
        })
    }

    fn texts(&mut self, texts: &Texts) -> Option<()> {
        if self.slots.field().is_some() {
            return self.value(texts.only()?);
        }
        if let Some(spellings) = texts.only().and_then(spellings) {
            for id in spellings {
                self.id(&id)?;
            }
            return Some(());
        }
        self.ranges(|range| {
            let written = integers(range).is_some_and(|ends| texts.hold_integers(ends));
            let other = others(range).is_some_and(|(from, to)| texts.hold_others(from, to));
            Some(written || other)
        })
    }

    /// Adds the owner of a document. A text that no document can have as its id adds nothing.
    fn id(&mut self, text: &str) -> Option<()> {
        self.ids += 1;
        if let Ok(id) = DocumentId::from_text(text) {
            self.shards.insert(self.slots.shard_of(&id)?);
        }
        (self.ids <= MOST_IDS).then_some(())
    }

    /// Adds the owner of the documents with a value. A value that no document can have adds nothing.
    fn value(&mut self, text: &str) -> Option<()> {
        self.ids += 1;
        if let Ok(value) = RoutingValue::from_text(text) {
            self.shards.insert(self.slots.shard_of_value(&value));
        }
        (self.ids <= MOST_IDS).then_some(())
    }

    /// Adds the owners of the ranges that may hold matches.
    fn ranges(&mut self, may_hold: impl Fn(&IdRange<'_>) -> Option<bool>) -> Option<()> {
        self.intervals += 1;
        let Strategy::Range(ranges) = self.slots.strategy() else {
            return None;
        };
        if self.intervals > MOST_INTERVALS {
            return None;
        }
        for range in ranges.iter() {
            if may_hold(&range).unwrap_or(false) {
                let slots = range.first.0..range.first.0.saturating_add(range.slots);
                let owners = slots.map(|slot| self.slots.shard_of_slot(Slot(slot)));
                self.shards.extend(owners);
            }
        }
        Some(())
    }
}

/// The least and the largest integer in a range of ids; `None` if it has none.
fn integers(range: &IdRange<'_>) -> Option<(i128, i128)> {
    let least = match range.from {
        None => i128::from(i64::MIN),
        Some(IdKey::Integer(number)) => *number,
        Some(IdKey::Text(_)) => return None,
    };
    let most = match range.to {
        Some(IdKey::Integer(number)) => number - 1,
        None | Some(IdKey::Text(_)) => i128::from(u64::MAX),
    };
    (least <= most).then_some((least, most))
}

/// The ends of what a range has of ids that aren't integers, the upper one exclusive; `None` if it has none.
fn others<'a>(range: &IdRange<'a>) -> Option<(&'a str, Option<&'a str>)> {
    let from = match range.from {
        Some(IdKey::Text(text)) => text,
        None | Some(IdKey::Integer(_)) => "",
    };
    match range.to {
        None => Some((from, None)),
        Some(IdKey::Text(text)) => Some((from, Some(text))),
        Some(IdKey::Integer(_)) => None,
    }
}

/// All ids with this normal form; `None` if they are too many.
fn spellings(normal: &str) -> Option<Vec<String>> {
    let letters = normal.bytes().filter(u8::is_ascii_lowercase).count();
    if letters > MOST_LETTERS {
        return None;
    }
    let mut found = vec![String::with_capacity(normal.len())];
    for letter in normal.chars() {
        let upper = letter.to_ascii_uppercase();
        if upper != letter {
            let others: Vec<String> = found.iter().map(|text| format!("{text}{upper}")).collect();
            found.iter_mut().for_each(|text| text.push(letter));
            found.extend(others);
        } else {
            found.iter_mut().for_each(|text| text.push(letter));
        }
    }
    Some(found)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
