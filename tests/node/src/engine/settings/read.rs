//! The settings of an index, as clients see them.

use std::collections::{BTreeMap, BTreeSet};

use milli_core::heed::RoTxn;
use milli_core::update::Setting;
use milli_core::vector::settings::EmbeddingSettings;
use milli_core::{DEFAULT_VALUES_PER_FACET, Index, OrderBy};
use serde_json::{Map, Value, json};

use super::rules;
use super::shapes::Localized;
use crate::engine::indexes::IndexRecord;
use crate::engine::locales::Locale;
use crate::errors::ApiResult;

/// The most hits that pages reach, unless set.
pub(crate) const DEFAULT_MAX_TOTAL_HITS: usize = 1000;

/// All settings, with their defaults.
pub(crate) fn all(
    index: &Index,
    rtxn: &RoTxn,
    record: &IndexRecord,
) -> ApiResult<Map<String, Value>> {
    let listed = |names: Vec<String>| {
        if names.is_empty() {
            vec!["*".to_owned()]
        } else {
            names
        }
    };
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let displayed = listed(index.displayed_fields(rtxn)?.map(owned).unwrap_or_default());
    let searchable = listed(
        index
            .user_defined_searchable_fields(rtxn)?
            .map(owned)
            .unwrap_or_default(),
    );
    let sortable: BTreeSet<String> = index.sortable_fields(rtxn)?.into_iter().collect();
    let rules = record
        .ranking_rules
        .clone()
        .unwrap_or_else(|| rules::DEFAULT.map(str::to_owned).to_vec());
    let words = |words: Option<BTreeSet<String>>| words.unwrap_or_default();
    let settings = json!({
        "displayedAttributes": displayed,
        "searchableAttributes": searchable,
        "filterableAttributes": index.filterable_attributes_rules(rtxn)?,
        "sortableAttributes": sortable,
        "rankingRules": rules,
        "stopWords": index.stop_words(rtxn)?.map(|words| words.stream().into_strs()).transpose().unwrap_or_default().unwrap_or_default(),
        "nonSeparatorTokens": words(index.non_separator_tokens(rtxn)?),
        "separatorTokens": words(index.separator_tokens(rtxn)?),
        "dictionary": words(index.dictionary(rtxn)?),
        "synonyms": index.user_defined_synonyms(rtxn)?,
        "distinctAttribute": index.distinct_field(rtxn)?,
        "proximityPrecision": index.proximity_precision(rtxn)?.unwrap_or_default(),
        "typoTolerance": typo_tolerance(index, rtxn)?,
        "faceting": faceting(index, rtxn)?,
        "pagination": { "maxTotalHits": max_total_hits(index, rtxn)? },
        "embedders": embedders(index, rtxn)?,
        "searchCutoffMs": index.search_cutoff(rtxn)?,
        "localizedAttributes": localized(index, rtxn)?,
        "facetSearch": index.facet_search(rtxn)?,
        "prefixSearch": index.prefix_search(rtxn)?.unwrap_or_default(),
    });
    Ok(match settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    })
}

/// The most hits that pages reach.
pub(crate) fn max_total_hits(index: &Index, rtxn: &RoTxn) -> ApiResult<usize> {
    let most = index.pagination_max_total_hits(rtxn)?;
    Ok(most
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(DEFAULT_MAX_TOTAL_HITS))
}

/// The most values that a facet shows.
pub(crate) fn max_values_per_facet(index: &Index, rtxn: &RoTxn) -> ApiResult<usize> {
    let most = index.max_values_per_facet(rtxn)?;
    Ok(most
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(DEFAULT_VALUES_PER_FACET))
}

fn typo_tolerance(index: &Index, rtxn: &RoTxn) -> ApiResult<Value> {
    let words = match index.exact_words(rtxn)? {
        Some(words) => words.stream().into_strs().unwrap_or_default(),
        None => Vec::new(),
    };
    let attributes: BTreeSet<&str> = index.exact_attributes(rtxn)?.into_iter().collect();
    Ok(json!({
        "enabled": index.authorize_typos(rtxn)?,
        "minWordSizeForTypos": {
            "oneTypo": index.min_word_len_one_typo(rtxn)?,
            "twoTypos": index.min_word_len_two_typos(rtxn)?,
        },
        "disableOnWords": words,
        "disableOnAttributes": attributes,
        "disableOnNumbers": index.disabled_typos_terms(rtxn)?.disable_on_numbers,
    }))
}

fn faceting(index: &Index, rtxn: &RoTxn) -> ApiResult<Value> {
    let orders: BTreeMap<String, &str> = index
        .sort_facet_values_by(rtxn)?
        .into_iter()
        .map(|(facet, order)| {
            let order = match order {
                OrderBy::Lexicographic => "alpha",
                OrderBy::Count => "count",
            };
            (facet, order)
        })
        .collect();
    Ok(
        json!({ "maxValuesPerFacet": max_values_per_facet(index, rtxn)?, "sortFacetValuesBy": orders }),
    )
}

fn embedders(index: &Index, rtxn: &RoTxn) -> ApiResult<BTreeMap<String, Value>> {
    let mut embedders = BTreeMap::new();
    for config in index.embedding_configs(rtxn)? {
        let mut settings = EmbeddingSettings::from(config.config);
        if let Setting::Set(key) = &mut settings.api_key {
            *key = hidden(key);
        }
        embedders.insert(config.name, serde_json::to_value(settings)?);
    }
    Ok(embedders)
}

/// A secret, of which at most the first letters are shown.
fn hidden(secret: &str) -> String {
    let (shown, dots) = match secret.len() {
        0..10 => (0, "XXX..."),
        10..20 => (2, "XXXX..."),
        20..30 => (3, "XXXXX..."),
        _ => (5, "XXXXXX..."),
    };
    let shown: String = secret.chars().take(shown).collect();
    shown + dots
}

fn localized(index: &Index, rtxn: &RoTxn) -> ApiResult<Option<Vec<Localized>>> {
    let rules = index.localized_attributes_rules(rtxn)?;
    Ok(rules.map(|rules| {
        rules
            .into_iter()
            .map(|rule| Localized {
                attribute_patterns: rule.attribute_patterns,
                locales: rule.locales.into_iter().map(Locale::of).collect(),
            })
            .collect()
    }))
}
