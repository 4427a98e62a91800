//! Facet counts of several shards as one node would list them.
//!
//! Counts are summed; then the index's `sortFacetValuesBy` and `maxValuesPerFacet` are applied once. A node lists a facet's
//! numbers before its strings. Strings are ordered by their normalised form; numbers by value if there were more than
//! [`BY_VALUE_ABOVE`] candidates, and otherwise by their text. A shard's list is cut at `maxValuesPerFacet` too. That loses
//! nothing if the shard cuts in the order of the merged list (each of the first `n` of all is among the first `n` of its
//! shard); where it may lose something, [`MergedFacets::uncertain`] says so.
//!
//! Pure: functions of values.

pub mod by_count;
pub mod gaps;
mod lost;
mod read;

use std::cmp::Ordering;

use hashbrown::{HashMap, HashSet};
use lost::Lost;
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

pub use read::{Counts, Distribution, FacetStats, Stats};

use super::settings::{FacetOrder, FacetSettings};

/// With at most this many candidates, a node lists numbers in the order of their text.
pub const BY_VALUE_ABOVE: u64 = 3000;

/// One shard's facets.
#[derive(Debug, Clone, Copy)]
pub struct ShardFacets<'a> {
    /// `facetDistribution`.
    pub distribution: &'a Distribution,
    /// `facetStats`.
    pub stats: &'a Stats,
}

/// The merged facets.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct MergedFacets {
    /// By facet, ascending; each facet's values in the order in which they are shown.
    pub distribution: Distribution,
    /// By facet, ascending.
    pub stats: Stats,
    /// Facets that a shard cut in another order than that of the merged list: a value, or a part of its count, may be missing.
    pub uncertain: Vec<String>,
}

/// Merges the shards' facets. `candidates` is the number of documents that the search found on all shards, as far as it is
/// known. `losers` are documents that shards counted and one node wouldn't have counted.
pub fn merge_facets(
    shards: &[ShardFacets<'_>],
    settings: &FacetSettings,
    candidates: u64,
    losers: &[Value],
) -> MergedFacets {
    let mut merged = MergedFacets {
        stats: merge_stats(shards),
        ..MergedFacets::default()
    };
    let mut names: Vec<&str> = shards
        .iter()
        .flat_map(|shard| shard.distribution.0.iter().map(|(name, _)| name.as_str()))
        .collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let lists: Vec<&Counts> = shards
            .iter()
            .filter_map(|shard| shard.distribution.get(name))
            .collect();
        let numeric = merged.stats.0.iter().any(|(facet, _)| facet == name);
        let lost = Lost::of(name, losers);
        let (values, certain) = merge_values(
            &lists,
            settings.order(name),
            settings.max_values,
            numeric,
            (candidates, &lost),
        );
        if numeric && !lost.is_empty() {
            lost.bound(&mut merged.stats, name, &lists, settings.max_values);
        }
        if !certain {
            merged.uncertain.push(name.to_owned());
        }
        merged.distribution.0.push((name.to_owned(), values));
    }
    merged
}

fn merge_stats(shards: &[ShardFacets<'_>]) -> Stats {
    let mut stats: Vec<(String, FacetStats)> = Vec::new();
    for (name, shard) in shards.iter().flat_map(|shard| &shard.stats.0) {
        match stats.binary_search_by(|(known, _)| known.cmp(name)) {
            Ok(at) => {
                if let Some((_, known)) = stats.get_mut(at) {
                    known.min = known.min.min(shard.min);
                    known.max = known.max.max(shard.max);
                }
            }
            Err(at) => stats.insert(at, (name.clone(), *shard)),
        }
    }
    Stats(stats)
}

/// A facet's complete counts, from a second round.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    /// The facet.
    pub facet: String,
    /// Its values, in the order in which they are shown.
    pub counts: Counts,
    /// False if a value may still be missing.
    pub certain: bool,
}

/// A value, with what it is ordered by.
struct Entry<'a> {
    text: &'a str,
    /// Other spellings of the same value (`Maintainers`, `maintainers`), with their counts. One node shows the spelling of
    /// the document that arrived first. Shards can't know that one, so the most frequent spelling is used as the likeliest.
    spellings: Vec<(&'a str, u64)>,
    number: Option<f64>,
    normalised: String,
    count: u64,
}

fn merge_values(
    lists: &[&Counts],
    order: FacetOrder,
    max_values: usize,
    numeric: bool,
    (candidates, lost): (u64, &Lost),
) -> (Counts, bool) {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (text, count) in lists.iter().flat_map(|list| &list.0) {
        let number = if numeric { as_number(text) } else { None };
        let normalised = normalise(text);
        let place = *places
            .entry(key_of(text, number.is_some()))
            .or_insert_with(|| {
                entries.push(Entry {
                    text,
                    spellings: Vec::new(),
                    number,
                    normalised,
                    count: 0,
                });
                entries.len() - 1
            });
        if let Some(entry) = entries.get_mut(place) {
            entry.count += count;
            match entry.spellings.iter_mut().find(|(known, _)| known == text) {
                Some((_, known)) => *known += count,
                None => entry.spellings.push((text, *count)),
            }
        }
    }
    let counted_before = entries.len();
    for entry in &mut entries {
        entry.count -= lost
            .count(&key_of(entry.text, entry.number.is_some()))
            .min(entry.count);
        let likeliest = entry.spellings.iter().rev().max_by_key(|(_, count)| *count);
        entry.text = likeliest.map_or(entry.text, |(text, _)| text);
    }
    entries.retain(|entry| entry.count > 0);
    let dropped = entries.len() < counted_before;
    let counted: u64 = entries.iter().map(|entry| entry.count).sum();
    let by_value = candidates.max(counted) > BY_VALUE_ABOVE
        || lists.iter().any(|list| shows_order_by_value(list));
    entries.sort_by(|a, b| compare_entries(a, b, order, by_value));
    let (numbers, strings) =
        entries.split_at(entries.iter().take_while(|e| e.number.is_some()).count());
    let by_levels = by_value || order == FacetOrder::Count;
    let shown = shown(numbers.len(), strings.len(), max_values, by_levels);
    let parts: Vec<Part<'_>> = lists
        .iter()
        .map(|list| Part::new(list, numeric, max_values))
        .collect();
    let in_another_order = |part: &Part<'_>| part.hides(true) && !shows_order_by_value(part.list);
    let certain = match order {
        // After a value that was left out, the next one may lie beyond the end of a cut list.
        _ if dropped
            && parts
                .iter()
                .any(|part| part.hides(true) || part.hides(false)) =>
        {
            false
        }
        _ if shown.all_strings && parts.iter().any(|part| part.hides(false)) => false,
        FacetOrder::Alpha => !(numeric && by_value && parts.iter().any(in_another_order)),
        FacetOrder::Count => {
            nothing_can_be_missing(&parts, numbers, shown.numbers, true)
                && nothing_can_be_missing(&parts, strings, shown.strings, false)
        }
    };
    let values = numbers
        .iter()
        .take(shown.numbers)
        .chain(strings.iter().take(shown.strings));
    let values = values.map(|entry| (entry.text.to_owned(), entry.count));
    (Counts(values.collect()), certain)
}

/// The key under which two spellings are the same value.
fn key_of(text: &str, is_number: bool) -> String {
    match is_number {
        true => format!("\u{0}{text}"),
        false => normalise(text),
    }
}

/// How many of a facet's values a node shows.
struct Shown {
    numbers: usize,
    strings: usize,
    /// True if strings aren't cut.
    all_strings: bool,
}

/// A node that goes through all of a facet's values (always when ordered by count; with many candidates when ordered by
/// value) stops only when it has listed exactly `max_values`: if the numbers alone are that many, all strings follow.
fn shown(numbers: usize, strings: usize, max_values: usize, by_levels: bool) -> Shown {
    let shown_numbers = match max_values {
        0 if by_levels => numbers,
        most => numbers.min(most),
    };
    let all_strings = by_levels && shown_numbers >= max_values;
    Shown {
        numbers: shown_numbers,
        strings: match all_strings {
            true => strings,
            false => strings.min(max_values - shown_numbers),
        },
        all_strings,
    }
}

/// A shard's list, and the position where its numbers end.
struct Part<'a> {
    list: &'a Counts,
    numbers: usize,
    max_values: usize,
}

impl<'a> Part<'a> {
    fn new(list: &'a Counts, numeric: bool, max_values: usize) -> Self {
        let numbers = match numeric {
            true => list
                .0
                .iter()
                .take_while(|(text, _)| as_number(text).is_some())
                .count(),
            false => 0,
        };
        Self {
            list,
            numbers,
            max_values,
        }
    }

    fn values(&self, numbers: bool) -> &'a [(String, u64)] {
        let (first, rest) = self.list.0.split_at(self.numbers);
        if numbers { first } else { rest }
    }

    /// True if the shard may have values of this kind that its list doesn't hold.
    fn hides(&self, numbers: bool) -> bool {
        match numbers {
            true => self.numbers >= self.max_values,
            false => self.numbers < self.max_values && self.list.0.len() >= self.max_values,
        }
    }
}

/// The most that a shard can have counted a value that is missing from its cut list by count.
pub(super) fn most_hidden(list: &Counts, numeric: bool, max_values: usize) -> u64 {
    let part = Part::new(list, numeric, max_values);
    let least = |numbers| {
        let counts = part.values(numbers).iter().map(|(_, count)| *count);
        // A list that is full of numbers says nothing about strings.
        if part.hides(numbers) {
            counts.min().unwrap_or(u64::MAX)
        } else {
            0
        }
    };
    least(true).max(least(false))
}

/// True if no cut list by count can hide one of the first `shown` values of a kind, or a part of its count. A value that is
/// missing from a cut list has at most the count of the list's last value.
fn nothing_can_be_missing(
    parts: &[Part<'_>],
    entries: &[Entry<'_>],
    shown: usize,
    numbers: bool,
) -> bool {
    let cut: Vec<(HashSet<String>, u64)> = parts
        .iter()
        .filter(|part| part.hides(numbers))
        .map(|part| {
            let values = part.values(numbers);
            let known = values.iter().map(|(text, _)| normalise(text)).collect();
            (known, values.last().map_or(u64::MAX, |(_, count)| *count))
        })
        .collect();
    if cut.is_empty() || shown == 0 {
        return true;
    }
    let missing = |entry: &Entry<'_>| -> u64 {
        cut.iter()
            .filter(|(known, _)| !known.contains(&entry.normalised))
            .fold(0, |sum, (_, last)| sum.saturating_add(*last))
    };
    let unseen = cut
        .iter()
        .fold(0_u64, |sum, (_, last)| sum.saturating_add(*last));
    let (shown, others) = entries.split_at(shown.min(entries.len()));
    let least = shown.last().map_or(0, |entry| entry.count);
    unseen < least
        && shown.iter().all(|entry| missing(entry) == 0)
        && others
            .iter()
            .all(|entry| entry.count.saturating_add(missing(entry)) < least)
}

fn compare_entries(a: &Entry<'_>, b: &Entry<'_>, order: FacetOrder, by_value: bool) -> Ordering {
    let values = |a: &Entry<'_>, b: &Entry<'_>| match (a.number, b.number) {
        (Some(x), Some(y)) if by_value || order == FacetOrder::Count => x.total_cmp(&y),
        (Some(_), Some(_)) => a.text.cmp(b.text),
        _ => a.normalised.cmp(&b.normalised),
    };
    let numbers_first = b.number.is_some().cmp(&a.number.is_some());
    numbers_first.then_with(|| match order {
        FacetOrder::Alpha => values(a, b),
        // Equal counts: greatest value first, as in the engine's heap.
        FacetOrder::Count => b.count.cmp(&a.count).then_with(|| values(b, a)),
    })
}

/// The number, if the text is a number as the engine writes it.
fn as_number(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn numbers(list: &Counts) -> Vec<f64> {
    list.0
        .iter()
        .map_while(|(text, _)| as_number(text))
        .collect()
}

/// True if the numbers are in the order of their values and not also in the order of their texts: a list that is in both
/// orders may have been cut in either.
fn shows_order_by_value(list: &Counts) -> bool {
    let numbers = numbers(list);
    let texts = list.0.get(..numbers.len()).unwrap_or_default();
    numbers.is_sorted() && !texts.is_sorted_by(|(a, _), (b, _)| a <= b)
}

/// A facet string as the engine compares it: trimmed, decomposed (NFKD), in lower case.
pub fn normalise(text: &str) -> String {
    let text = text.trim();
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkd().collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests;
