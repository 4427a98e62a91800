//! What shards counted of documents that one node would have left out, because another shard has a better document of the
//! same distinct value.
//!
//! Pure: functions of values.

use hashbrown::HashMap;
use serde_json::Value;

use super::{Counts, FacetStats, Part, Stats, as_number};
use crate::search::distinct::values_at;

/// By how much each of a facet's values was counted too high.
#[derive(Debug, Default)]
pub(super) struct Lost(HashMap<String, u64>);

impl Lost {
    /// From the left-out documents, for one facet.
    pub(super) fn of(facet: &str, documents: &[Value]) -> Self {
        let mut lost: HashMap<String, u64> = HashMap::new();
        for value in documents
            .iter()
            .flat_map(|document| values_at(facet, document))
        {
            let key = match value.split_at_checked(1) {
                Some(("n", number)) => format!("\u{0}{number}"),
                Some((_, text)) => text.to_owned(),
                None => continue,
            };
            *lost.entry(key).or_default() += 1;
        }
        Self(lost)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By how much a value was counted too high.
    pub(super) fn count(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Corrects a facet's least and greatest number for the left-out documents, if the lists hold all numbers.
    pub(super) fn bound(&self, stats: &mut Stats, facet: &str, lists: &[&Counts], most: usize) {
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for list in lists {
            let part = Part::new(list, true, most);
            if part.hides(true) {
                return;
            }
            for (text, count) in part.values(true) {
                *sums.entry(text).or_default() += count;
            }
        }
        let left = sums
            .iter()
            .filter(|(text, count)| **count > self.count(&format!("\u{0}{text}")));
        let mut left = left.filter_map(|(text, _)| as_number(text));
        let first = left.next();
        let bounds = first.map(|first| {
            let one = FacetStats {
                min: first,
                max: first,
            };
            left.fold(one, |known, number| FacetStats {
                min: known.min.min(number),
                max: known.max.max(number),
            })
        });
        match bounds {
            Some(bounds) => {
                let known = stats.0.iter_mut().find(|(name, _)| name == facet);
                known.into_iter().for_each(|(_, known)| *known = bounds);
            }
            None => stats.0.retain(|(name, _)| name != facet),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::search::facets::{Distribution, ShardFacets, merge_facets};
    use crate::search::settings::FacetSettings;

    #[test]
    fn documents_that_were_left_out_are_not_counted_nor_do_they_bound_anything() {
        let counts = |list: &[(&str, u64)]| {
            let list = list
                .iter()
                .map(|(text, count)| ((*text).to_owned(), *count));
            Distribution(vec![("f".to_owned(), Counts(list.collect()))])
        };
        let stats = |min, max| Stats(vec![("f".to_owned(), FacetStats { min, max })]);
        let (a, b) = (
            counts(&[("1", 2), ("3", 1), ("Red", 4)]),
            counts(&[("2.5", 1), ("red", 1)]),
        );
        let (x, y) = (stats(1.0, 3.0), stats(2.5, 2.5));
        let shards = [(&a, &x), (&b, &y)].map(|(distribution, stats)| ShardFacets {
            distribution,
            stats,
        });
        let losers = [
            json!({"f": [3, "RED", 3]}),
            json!({"f": [1, "red"]}),
            json!({"g": 1}),
        ];
        let merged = merge_facets(&shards, &FacetSettings::default(), 9, &losers);
        assert_eq!(
            merged.distribution,
            counts(&[("1", 1), ("2.5", 1), ("Red", 3)])
        );
        assert_eq!(merged.stats, stats(1.0, 2.5));
        assert!(merged.uncertain.is_empty());
    }
}
