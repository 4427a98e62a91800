//! Facets of a search's results, and search among the values of one facet.

use std::collections::BTreeMap;

use milli_core::heed::RoTxn;
use milli_core::{
    AttributePatterns, FacetValueHit, Index, PatternMatch, SearchForFacetValues, UserError,
};
use roaring::RoaringBitmap;
use serde_json::{Value, json};

use super::{Prepared, Query};
use crate::engine::settings::read::max_values_per_facet;
use crate::errors::{ApiError, ApiResult, Code};

/// `facetDistribution` and `facetStats`.
pub(crate) struct Facets {
    /// The values of each facet and how many documents have them, in the order of the settings.
    pub(crate) distribution: BTreeMap<String, Vec<(String, u64)>>,
    /// The least and the greatest number of each facet that has numbers.
    pub(crate) stats: BTreeMap<String, (f64, f64)>,
}

impl Facets {
    /// The distribution in the form that clients see.
    pub(crate) fn distribution_view(&self) -> Value {
        let view = self.distribution.iter().map(|(facet, values)| {
            let values = values
                .iter()
                .map(|(value, count)| (value.clone(), Value::from(*count)));
            (facet.clone(), Value::Object(values.collect()))
        });
        Value::Object(view.collect())
    }

    /// The stats in the form that clients see.
    pub(crate) fn stats_view(&self) -> Value {
        let view = self
            .stats
            .iter()
            .map(|(facet, (min, max))| (facet.clone(), json!({ "min": min, "max": max })));
        Value::Object(view.collect())
    }
}

/// Counts the values of some facets in some documents; `*` means all facets.
pub(crate) fn facets_of(
    index: &Index,
    rtxn: &RoTxn,
    names: &[String],
    candidates: RoaringBitmap,
    most: Option<usize>,
) -> ApiResult<Facets> {
    let orders = index.sort_facet_values_by(rtxn)?;
    let mut facets = index.facets_distribution(rtxn);
    let names = expanded(index, rtxn, names)?;
    facets.facets(names.iter().map(|name| (name.as_str(), orders.get(name))));
    let most = match most {
        Some(most) => most,
        None => max_values_per_facet(index, rtxn)?,
    };
    facets
        .candidates(candidates)
        .max_values_per_facet(most)
        .default_order_by(orders.get("*"));
    let distribution = facets.execute().map_err(facet_error)?;
    let stats = facets.compute_stats()?;
    let distribution = distribution
        .into_iter()
        .map(|(facet, values)| (facet, values.into_iter().collect()));
    Ok(Facets {
        distribution: distribution.collect(),
        stats,
    })
}

/// The facets that match some names, in which `*` is a wildcard.
fn expanded(index: &Index, rtxn: &RoTxn, names: &[String]) -> ApiResult<Vec<String>> {
    let mut expanded = Vec::new();
    for name in names {
        if !name.contains('*') {
            expanded.push(name.clone());
            continue;
        }
        let pattern = AttributePatterns::from(vec![name.clone()]);
        let before = expanded.len();
        let facets = all_facets(index, rtxn)?;
        expanded.extend(
            facets
                .into_iter()
                .filter(|facet| pattern.match_str(facet) == PatternMatch::Match),
        );
        if expanded.len() == before && name != "*" {
            // Matches nothing. The engine's own error says it better.
            expanded.push(name.clone());
        }
    }
    Ok(expanded)
}

fn all_facets(index: &Index, rtxn: &RoTxn) -> ApiResult<Vec<String>> {
    let rules = index.filterable_attributes_rules(rtxn)?;
    let fields = index.fields_ids_map(rtxn)?;
    let is_facet = |name: &&str| {
        let rule = rules
            .iter()
            .find(|rule| rule.match_str(name) == PatternMatch::Match);
        rule.is_some_and(|rule| rule.features().is_filterable())
    };
    Ok(fields
        .iter()
        .map(|(_, name)| name)
        .filter(is_facet)
        .map(str::to_owned)
        .collect())
}

fn facet_error(error: milli_core::Error) -> ApiError {
    let milli_core::Error::UserError(UserError::InvalidFacetsDistribution {
        invalid_facets_name,
        valid_patterns,
        matching_rule_indices,
    }) = &error
    else {
        return error.into();
    };
    if !matching_rule_indices.is_empty() {
        return error.into();
    }
    let (what, are) = if invalid_facets_name.len() == 1 {
        ("Pattern", "is")
    } else {
        ("Patterns", "are")
    };
    let invalid: Vec<&str> = invalid_facets_name.iter().map(String::as_str).collect();
    let valid: Vec<&str> = valid_patterns.iter().map(String::as_str).collect();
    let known = if valid.is_empty() {
        "This index does not have configured filterable attributes.".to_owned()
    } else {
        format!(
            "Available filterable attributes patterns are: `{}`.",
            valid.join(", ")
        )
    };
    ApiError::new(
        Code::InvalidSearchFacets,
        format!(
            "Invalid facet distribution: {what} `{}` {are} not filterable. {known}",
            invalid.join(", ")
        ),
    )
}

/// A search among the values of a facet.
#[derive(Debug, Clone)]
pub(crate) struct FacetQuery {
    /// The facet.
    pub(crate) facet: String,
    /// The approximate beginning of the values.
    pub(crate) text: Option<String>,
    /// The search whose documents are counted.
    pub(crate) query: Query,
    /// True if every document that matches the words is counted, even if the search would leave it out.
    pub(crate) exhaustive: bool,
}

/// Finds values of a facet.
pub(crate) fn facet_search(
    uid: &str,
    index: &Index,
    rtxn: &RoTxn,
    wanted: &FacetQuery,
) -> ApiResult<Vec<FacetValueHit>> {
    if !index.facet_search(rtxn)? {
        return Err(ApiError::new(
            Code::FacetSearchDisabled,
            "The facet search is disabled for this index",
        ));
    }
    let mut prepared = Prepared::new(uid, index, rtxn, &wanted.query, None, false)?;
    prepared.search.exhaustive_number_hits(wanted.exhaustive);
    let is_hybrid = prepared.is_hybrid();
    let mut values = SearchForFacetValues::new(wanted.facet.clone(), prepared.search, is_hybrid);
    if let Some(text) = &wanted.text {
        values.query(text);
    }
    values.max_values(max_values_per_facet(index, rtxn)?);
    if let Some(locales) = &wanted.query.locales {
        values.locales(
            locales
                .iter()
                .filter_map(|locale| locale.language())
                .collect(),
        );
    }
    Ok(values.execute()?)
}
