//! Facets of a federated search: by index, or merged.

use std::collections::BTreeMap;

use milli_core::heed::RoTxn;
use milli_core::{Index, OrderBy};
use roaring::RoaringBitmap;
use serde_json::{Map, Value, json};

use super::super::shapes::{Federation, MergeFacets};
use crate::engine::search::{Facets, facets_of};
use crate::engine::settings::read::max_values_per_facet;
use crate::errors::{ApiError, ApiResult, Code};
use crate::node::Node;

/// Adds the requested facets to the answer.
pub(super) fn show_facets(
    answer: &mut Map<String, Value>,
    federation: &Federation,
    node: &Node,
    candidates: &BTreeMap<&str, RoaringBitmap>,
) -> ApiResult<()> {
    let mut all: Vec<(String, Facets)> = Vec::new();
    let mut order = Orders::default();
    for (uid, names) in &federation.facets_by_index {
        let Some(names) = names else { continue };
        let inside = |error: ApiError| {
            let mut error = error.prefixed(&format!("Inside `.federation.facetsByIndex.{uid}`: "));
            if !candidates.contains_key(uid.as_str()) {
                error.message += &format!("\n - Note: index `{uid}` is not used in queries");
            }
            error.status = 400;
            error
        };
        let index = node.indexes.get(uid).map_err(inside)?;
        let rtxn = index.read_txn()?;
        let documents = candidates.get(uid.as_str()).cloned().unwrap_or_default();
        let most = federation
            .merge_facets
            .as_ref()
            .and_then(|merge| merge.max_values_per_facet);
        let facets = facets_of(&index, &rtxn, names, documents, most).map_err(inside)?;
        if federation.merge_facets.is_some() {
            order.learn(uid, &index, &rtxn, &facets)?;
        }
        all.push((uid.clone(), facets));
    }
    match &federation.merge_facets {
        Some(merge) if !all.is_empty() => {
            let (distribution, stats) = merged(all, &order, merge);
            answer.insert("facetDistribution".to_owned(), distribution);
            answer.insert("facetStats".to_owned(), stats);
        }
        None if !all.is_empty() => {
            let views = all.into_iter().map(|(uid, facets)| {
                (uid, json!({ "distribution": facets.distribution_view(), "stats": facets.stats_view() }))
            });
            answer.insert("facetsByIndex".to_owned(), Value::Object(views.collect()));
        }
        _ => {}
    }
    Ok(())
}

/// How the indexes order the values of each facet. The order must be the same in all of them.
#[derive(Default)]
struct Orders {
    by_facet: BTreeMap<String, (String, OrderBy)>,
    most: Option<usize>,
}

impl Orders {
    fn learn(&mut self, uid: &str, index: &Index, rtxn: &RoTxn, facets: &Facets) -> ApiResult<()> {
        let orders = index.sort_facet_values_by(rtxn)?;
        let most = max_values_per_facet(index, rtxn)?;
        self.most = Some(self.most.map_or(most, |known| known.min(most)));
        for facet in facets.distribution.keys() {
            let order = orders.get(facet);
            let (previous_uid, previous) = self
                .by_facet
                .entry(facet.clone())
                .or_insert_with(|| (uid.to_owned(), order));
            if *previous != order {
                return Err(ApiError::new(
                    Code::InvalidMultiSearchFacetOrder,
                    format!(
                        "Inconsistent order for values in facet `{facet}`: index `{previous_uid}` orders {previous}, \
                         but index `{uid}` orders {order}.\n - Hint: Remove `federation.mergeFacets` or change \
                         `faceting.sortFacetValuesBy` to be consistent in settings."
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn merged(all: Vec<(String, Facets)>, orders: &Orders, merge: &MergeFacets) -> (Value, Value) {
    let mut sums: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut stats: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (_, facets) in all {
        for (facet, values) in facets.distribution {
            let sums = sums.entry(facet).or_default();
            for (value, count) in values {
                *sums.entry(value).or_default() += count;
            }
        }
        for (facet, (min, max)) in facets.stats {
            let known = stats.entry(facet).or_insert((min, max));
            *known = (known.0.min(min), known.1.max(max));
        }
    }
    let most = merge
        .max_values_per_facet
        .or(orders.most)
        .unwrap_or(usize::MAX);
    let mut distribution = BTreeMap::new();
    for (facet, sums) in sums {
        let mut values: Vec<(String, u64)> = sums.into_iter().collect();
        if orders
            .by_facet
            .get(&facet)
            .is_some_and(|(_, order)| *order == OrderBy::Count)
        {
            values.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        }
        values.truncate(most);
        distribution.insert(facet, values);
    }
    let facets = Facets {
        distribution,
        stats,
    };
    (facets.distribution_view(), facets.stats_view())
}
