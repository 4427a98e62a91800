//! Facets of a federated search: by index, or merged over indexes.

use serde_json::Value;

use super::Federated;
use super::lists::Losers;
use crate::search::answer::{FacetsByIndex, IndexFacets, Rest};
use crate::search::facets::{Counts, Distribution, ShardFacets, Stats, merge_facets};
use crate::search::respond::Writer;
use crate::search::settings::FacetOrder;

/// Writes `facetsByIndex`, or with `mergeFacets` `facetDistribution` and `facetStats`.
pub(super) fn write(
    writer: &mut Writer,
    search: &Federated,
    rests: &[&Rest],
    (found, losers): (u64, &Losers),
) {
    let by_index = by_index(search, rests, found, losers);
    let Some(merging) = search
        .federation
        .get("mergeFacets")
        .filter(|merging| !merging.is_null())
    else {
        if !by_index.is_empty() {
            writer.member("facetsByIndex", &by_index);
        }
        return;
    };
    if by_index.is_empty() {
        return;
    }
    let most = merging
        .get("maxValuesPerFacet")
        .and_then(Value::as_u64)
        .and_then(|most| usize::try_from(most).ok());
    let merged = over_indexes(search, &by_index, most.unwrap_or(usize::MAX));
    writer.member("facetDistribution", &merged.distribution);
    writer.member("facetStats", &merged.stats);
}

/// The facets that the answers contain for an index.
pub(super) fn names(rests: &[&Rest], index: &str) -> Vec<String> {
    let told = rests
        .iter()
        .filter_map(|rest| rest.facets_by_index.as_ref()?.get(index));
    let mut names: Vec<String> = told
        .flat_map(|facets| facets.distribution.0.iter().map(|(name, _)| name.clone()))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn by_index(search: &Federated, rests: &[&Rest], found: u64, losers: &Losers) -> FacetsByIndex {
    let all: Vec<&FacetsByIndex> = rests
        .iter()
        .filter_map(|rest| rest.facets_by_index.as_ref())
        .collect();
    let mut uids: Vec<&String> = all.iter().flat_map(|by_index| by_index.keys()).collect();
    uids.sort_unstable();
    uids.dedup();
    let merge = |uid: &String| {
        let parts: Vec<ShardFacets<'_>> = all
            .iter()
            .filter_map(|by_index| by_index.get(uid))
            .map(|facets| ShardFacets {
                distribution: &facets.distribution,
                stats: &facets.stats,
            })
            .collect();
        let merged = merge_facets(
            &parts,
            &search.settings(uid).facets,
            found,
            losers.get(uid).map_or(&[], Vec::as_slice),
        );
        (
            uid.clone(),
            IndexFacets {
                distribution: merged.distribution,
                stats: merged.stats,
            },
        )
    };
    uids.into_iter().map(merge).collect()
}

/// Merges over indexes as a node does: by the values' own text, or by count.
fn over_indexes(search: &Federated, by_index: &FacetsByIndex, most: usize) -> IndexFacets {
    let mut values: std::collections::BTreeMap<
        String,
        (FacetOrder, std::collections::BTreeMap<String, u64>),
    > = std::collections::BTreeMap::new();
    let mut stats: std::collections::BTreeMap<String, crate::search::facets::FacetStats> =
        std::collections::BTreeMap::new();
    for (uid, facets) in by_index {
        let settings = search.settings(uid);
        for (facet, counts) in &facets.distribution.0 {
            let (_, known) = values
                .entry(facet.clone())
                .or_insert_with(|| (settings.facets.order(facet), Default::default()));
            for (value, count) in &counts.0 {
                *known.entry(value.clone()).or_default() += count;
            }
        }
        for (facet, own) in &facets.stats.0 {
            let known = stats.entry(facet.clone()).or_insert(*own);
            known.min = known.min.min(own.min);
            known.max = known.max.max(own.max);
        }
    }
    let distribution = values.into_iter().map(|(facet, (order, counts))| {
        let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
        if order == FacetOrder::Count {
            counts.sort_by(|(_, a), (_, b)| b.cmp(a));
        }
        counts.truncate(most);
        (facet, Counts(counts))
    });
    IndexFacets {
        distribution: Distribution(distribution.collect()),
        stats: Stats(stats.into_iter().collect()),
    }
}
