//! Applies a checked change of settings to the engine.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use milli_core::order_by_map::OrderByMap;
use milli_core::proximity;
use milli_core::update::{IndexerConfig, Setting, Settings};
use milli_core::vector::settings::EmbeddingSettings;
use milli_core::{FilterableAttributesRule, Index, LocalizedAttributesRule, OrderBy};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::rules;
use super::shapes::{
    FacetOrder, Faceting, Localized, Pagination, PrefixSearch, ProximityPrecision, TypoTolerance,
};
use crate::errors::{ApiError, ApiResult};

/// Changes the settings of an index, in one transaction.
pub(crate) fn apply(
    uid: &str,
    index: &Index,
    config: &IndexerConfig,
    change: &Map<String, Value>,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> ApiResult<()> {
    let mut wtxn = index.write_txn()?;
    let mut settings = Settings::new(&mut wtxn, index, config);
    for (name, value) in change {
        set(&mut settings, name, value)?;
    }
    settings
        .execute(|_| (), interrupted)
        .map_err(|error| ApiError::of_index(uid, error))?;
    wtxn.commit()?;
    Ok(())
}

fn typed<T: DeserializeOwned>(value: &Value) -> ApiResult<Setting<T>> {
    Ok(match value {
        Value::Null => Setting::Reset,
        value => Setting::Set(serde_json::from_value(value.clone())?),
    })
}

macro_rules! give {
    ($settings:ident, $value:expr, $set:ident, $reset:ident) => {
        match $value {
            Setting::Set(value) => $settings.$set(value),
            Setting::Reset => $settings.$reset(),
            Setting::NotSet => {}
        }
    };
}

fn set(settings: &mut Settings, name: &str, value: &Value) -> ApiResult<()> {
    match name {
        "displayedAttributes" => give!(
            settings,
            unless_all(typed(value)?),
            set_displayed_fields,
            reset_displayed_fields
        ),
        "searchableAttributes" => {
            give!(
                settings,
                unless_all(typed(value)?),
                set_searchable_fields,
                reset_searchable_fields
            );
        }
        "filterableAttributes" => {
            let rules: Setting<Vec<FilterableAttributesRule>> = typed(value)?;
            give!(
                settings,
                rules,
                set_filterable_fields,
                reset_filterable_fields
            );
        }
        "sortableAttributes" => {
            let names: Setting<HashSet<String>> = typed(value)?;
            give!(settings, names, set_sortable_fields, reset_sortable_fields);
        }
        "rankingRules" => {
            let names: Setting<Vec<String>> = typed(value)?;
            let criteria = map(names, |names| rules::criteria(&names));
            give!(settings, criteria, set_criteria, reset_criteria);
        }
        "stopWords" => give!(
            settings,
            typed::<BTreeSet<String>>(value)?,
            set_stop_words,
            reset_stop_words
        ),
        "nonSeparatorTokens" => {
            give!(
                settings,
                typed(value)?,
                set_non_separator_tokens,
                reset_non_separator_tokens
            );
        }
        "separatorTokens" => give!(
            settings,
            typed(value)?,
            set_separator_tokens,
            reset_separator_tokens
        ),
        "dictionary" => give!(settings, typed(value)?, set_dictionary, reset_dictionary),
        "synonyms" => give!(settings, typed(value)?, set_synonyms, reset_synonyms),
        "distinctAttribute" => give!(
            settings,
            typed(value)?,
            set_distinct_field,
            reset_distinct_field
        ),
        "proximityPrecision" => {
            let precision = map(typed(value)?, |precision| match precision {
                ProximityPrecision::ByWord => proximity::ProximityPrecision::ByWord,
                ProximityPrecision::ByAttribute => proximity::ProximityPrecision::ByAttribute,
            });
            give!(
                settings,
                precision,
                set_proximity_precision,
                reset_proximity_precision
            );
        }
        "typoTolerance" => set_typo_tolerance(settings, typed(value)?),
        "faceting" => set_faceting(settings, typed(value)?),
        "pagination" => {
            let pagination = match typed::<Pagination>(value)? {
                Setting::Set(pagination) => pagination.max_total_hits,
                Setting::Reset => Setting::Reset,
                Setting::NotSet => Setting::NotSet,
            };
            let most = map(pagination, std::num::NonZeroUsize::get);
            give!(
                settings,
                most,
                set_pagination_max_total_hits,
                reset_pagination_max_total_hits
            );
        }
        "embedders" => {
            let embedders: Setting<BTreeMap<String, Setting<EmbeddingSettings>>> = typed(value)?;
            give!(
                settings,
                embedders,
                set_embedder_settings,
                reset_embedder_settings
            );
        }
        "searchCutoffMs" => give!(
            settings,
            typed(value)?,
            set_search_cutoff,
            reset_search_cutoff
        ),
        "localizedAttributes" => {
            let rules = map(typed::<Vec<Localized>>(value)?, |rules| {
                rules.into_iter().map(localized).collect()
            });
            give!(
                settings,
                rules,
                set_localized_attributes_rules,
                reset_localized_attributes_rules
            );
        }
        "facetSearch" => give!(
            settings,
            typed(value)?,
            set_facet_search,
            reset_facet_search
        ),
        "prefixSearch" => {
            let prefix = map(typed(value)?, |prefix| match prefix {
                PrefixSearch::IndexingTime => milli_core::index::PrefixSearch::IndexingTime,
                PrefixSearch::Disabled => milli_core::index::PrefixSearch::Disabled,
            });
            give!(settings, prefix, set_prefix_search, reset_prefix_search);
        }
        // `foreignKeys` and `chat` can only be reset, which changes nothing.
        _ => {}
    }
    Ok(())
}

fn map<T, U>(setting: Setting<T>, change: impl FnOnce(T) -> U) -> Setting<U> {
    match setting {
        Setting::Set(value) => Setting::Set(change(value)),
        Setting::Reset => Setting::Reset,
        Setting::NotSet => Setting::NotSet,
    }
}

/// A list that contains `*` means all attributes, which is the same as no list.
fn unless_all(names: Setting<Vec<String>>) -> Setting<Vec<String>> {
    match names {
        Setting::Set(names) if names.iter().any(|name| name == "*") => Setting::Reset,
        names => names,
    }
}

fn set_typo_tolerance(settings: &mut Settings, typo: Setting<TypoTolerance>) {
    let typo = match typo {
        Setting::Set(typo) => typo,
        Setting::Reset => TypoTolerance {
            enabled: Setting::Reset,
            min_word_size_for_typos: Setting::Reset,
            disable_on_words: Setting::Reset,
            disable_on_attributes: Setting::Reset,
            disable_on_numbers: Setting::Reset,
        },
        Setting::NotSet => return,
    };
    give!(
        settings,
        typo.enabled,
        set_autorize_typos,
        reset_authorize_typos
    );
    match typo.min_word_size_for_typos {
        Setting::Set(sizes) => {
            give!(
                settings,
                sizes.one_typo,
                set_min_word_len_one_typo,
                reset_min_word_len_one_typo
            );
            give!(
                settings,
                sizes.two_typos,
                set_min_word_len_two_typos,
                reset_min_word_len_two_typos
            );
        }
        Setting::Reset => {
            settings.reset_min_word_len_one_typo();
            settings.reset_min_word_len_two_typos();
        }
        Setting::NotSet => {}
    }
    give!(
        settings,
        typo.disable_on_words,
        set_exact_words,
        reset_exact_words
    );
    let attributes = map(typo.disable_on_attributes, |names| {
        names.into_iter().collect()
    });
    give!(
        settings,
        attributes,
        set_exact_attributes,
        reset_exact_attributes
    );
    give!(
        settings,
        typo.disable_on_numbers,
        set_disable_on_numbers,
        reset_disable_on_numbers
    );
}

fn set_faceting(settings: &mut Settings, faceting: Setting<Faceting>) {
    let faceting = match faceting {
        Setting::Set(faceting) => faceting,
        Setting::Reset => Faceting {
            max_values_per_facet: Setting::Reset,
            sort_facet_values_by: Setting::Reset,
        },
        Setting::NotSet => return,
    };
    give!(
        settings,
        faceting.max_values_per_facet,
        set_max_values_per_facet,
        reset_max_values_per_facet
    );
    let orders = map(faceting.sort_facet_values_by, |orders| {
        let orders = orders
            .into_iter()
            .map(|(facet, order)| (facet, order_by(order)));
        let mut orders: OrderByMap = orders.collect();
        let rest = orders.get("*");
        orders.insert("*".to_owned(), rest);
        orders
    });
    give!(
        settings,
        orders,
        set_sort_facet_values_by,
        reset_sort_facet_values_by
    );
}

fn order_by(order: FacetOrder) -> OrderBy {
    match order {
        FacetOrder::Alpha => OrderBy::Lexicographic,
        FacetOrder::Count => OrderBy::Count,
    }
}

fn localized(rule: Localized) -> LocalizedAttributesRule {
    LocalizedAttributesRule {
        attribute_patterns: rule.attribute_patterns,
        locales: rule
            .locales
            .iter()
            .filter_map(|locale| locale.language())
            .collect(),
    }
}
