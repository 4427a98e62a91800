//! Facet counts of several shards as one node would list them.
//!
//! Counts are summed; then the index's `sortFacetValuesBy` and `maxValuesPerFacet` are applied once. A node lists a
//! facet's numbers before its strings; strings in the order of their normalised form; numbers by value where it had more
//! than [`BY_VALUE_ABOVE`] candidates, and as text where it had fewer. A shard's list is cut at `maxValuesPerFacet` too:
//! that loses nothing where the shard cuts in the order of the whole (each of the first `n` of all is among the first
//! `n` of its shard); where it may lose something, [`MergedFacets::uncertain`] says so.
//!
//! Pure: functions of values.

pub mod by_count;
pub mod gaps;
mod read;

use std::cmp::Ordering;

use hashbrown::{HashMap, HashSet};
use unicode_normalization::UnicodeNormalization;

pub use read::{Counts, Distribution, FacetStats, Stats};

use super::settings::{FacetOrder, FacetSettings};

/// With at most so many candidates a node lists numbers in the order of their text.
pub const BY_VALUE_ABOVE: u64 = 3000;

/// One shard's part.
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
    /// By facet, ascending; values in the order to show.
    pub distribution: Distribution,
    /// By facet, ascending.
    pub stats: Stats,
    /// Facets of which a shard's list was cut in another order than the whole one's, so that a value or a part of its
    /// count may be missing.
    pub uncertain: Vec<String>,
}

/// Merges the shards' facets. `candidates` is the number of documents that the search found on all shards, as far as
/// it is known.
pub fn merge_facets(
    shards: &[ShardFacets<'_>],
    settings: &FacetSettings,
    candidates: u64,
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
        let (values, certain) = merge_values(
            &lists,
            settings.order(name),
            settings.max_values,
            numeric,
            candidates,
        );
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

/// A facet's whole counts, from a second round.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    /// The facet.
    pub facet: String,
    /// Its values, in the order to show.
    pub counts: Counts,
    /// False where a value may still be missing.
    pub certain: bool,
}

/// A value with what orders it.
struct Entry<'a> {
    text: &'a str,
    /// Other spellings of the same value (`Maintainers`, `maintainers`), with their counts. One node shows the spelling of
    /// the document that came first, which shards can't know: the most frequent one is the likeliest.
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
    candidates: u64,
) -> (Counts, bool) {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (text, count) in lists.iter().flat_map(|list| &list.0) {
        let number = if numeric { as_number(text) } else { None };
        let normalised = normalise(text);
        let key = if number.is_some() {
            format!("\u{0}{text}")
        } else {
            normalised.clone()
        };
        let place = *places.entry(key).or_insert_with(|| {
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
    for entry in &mut entries {
        let likeliest = entry.spellings.iter().rev().max_by_key(|(_, count)| *count);
        entry.text = likeliest.map_or(entry.text, |(text, _)| text);
    }
    let counted: u64 = entries.iter().map(|entry| entry.count).sum();
    let by_value = candidates.max(counted) > BY_VALUE_ABOVE
        || lists.iter().any(|list| shows_order_by_value(list));
    entries.sort_by(|a, b| compare_entries(a, b, order, by_value));
    let cut = |list: &&&Counts| list.0.len() >= max_values;
    let certain = match order {
        FacetOrder::Alpha => {
            !(numeric
                && by_value
                && lists
                    .iter()
                    .filter(cut)
                    .any(|list| !shows_order_by_value(list)))
        }
        FacetOrder::Count => {
            nothing_can_be_missing(lists, &entries, max_values)
                || !lists.iter().any(|list| cut(&list))
        }
    };
    let values = entries
        .into_iter()
        .take(max_values)
        .map(|entry| (entry.text.to_owned(), entry.count));
    (Counts(values.collect()), certain)
}

/// True where no cut list by count can have hidden a shown value, or a part of its count: a value that a cut list
/// doesn't hold was counted there as often as the list's last value at most.
fn nothing_can_be_missing(lists: &[&Counts], entries: &[Entry<'_>], max_values: usize) -> bool {
    let cut: Vec<(HashSet<String>, u64)> = lists
        .iter()
        .filter(|list| list.0.len() >= max_values)
        .map(|list| {
            let known = list.0.iter().map(|(text, _)| normalise(text)).collect();
            (known, list.0.last().map_or(0, |(_, count)| *count))
        })
        .collect();
    let missing = |entry: &Entry<'_>| -> u64 {
        cut.iter()
            .filter(|(known, _)| !known.contains(&entry.normalised))
            .map(|(_, last)| last)
            .sum()
    };
    let unseen: u64 = cut.iter().map(|(_, last)| last).sum();
    let (shown, others) = entries.split_at(max_values.min(entries.len()));
    let least = shown.last().map_or(0, |entry| entry.count);
    unseen < least
        && shown.iter().all(|entry| missing(entry) == 0)
        && others
            .iter()
            .all(|entry| entry.count + missing(entry) < least)
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
        // Equal counts: greatest value first, as the engine's heap gives them.
        FacetOrder::Count => b.count.cmp(&a.count).then_with(|| values(b, a)),
    })
}

/// A number that is written as the engine writes numbers.
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

/// True where the numbers stand in the order of their values and that isn't the order of their texts: a list that is in both
/// orders may be cut in either.
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
