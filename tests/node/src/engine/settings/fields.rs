//! Every setting: its name, its route, the shape of its value, and the error code for a wrong value.

use std::collections::{BTreeMap, BTreeSet};

use deserr::{Deserr, ErrorKind, IntoValue, ValueKind, ValuePointerRef};
use milli_core::FilterableAttributesRule;
use milli_core::update::{Setting, validate_embedding_settings};
use milli_core::vector::settings::EmbeddingSettings;
use serde::Serialize;
use serde_json::{Map, Value};

use super::rules::Rule;
use super::shapes::{
    Faceting, Localized, Pagination, PrefixSearch, ProximityPrecision, TypoTolerance,
};
use crate::errors::{ApiError, ApiResult, Code, Coded, of};
use crate::validate::{Format, InBody, Json};

/// How a setting is changed on its own route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// The value replaces the old one.
    Put,
    /// The value is merged into the old one.
    Patch,
}

/// One setting.
pub(crate) struct Field {
    /// Its name in the settings object.
    pub(crate) name: &'static str,
    /// Its route under `/settings/`.
    pub(crate) path: &'static str,
    /// How it is changed on its own route.
    pub(crate) verb: Verb,
    check: fn(Value, ValuePointerRef) -> ApiResult<Value>,
}

impl Field {
    const fn put(
        name: &'static str,
        path: &'static str,
        check: fn(Value, ValuePointerRef) -> ApiResult<Value>,
    ) -> Self {
        Field {
            name,
            path,
            verb: Verb::Put,
            check,
        }
    }

    const fn patch(
        name: &'static str,
        path: &'static str,
        check: fn(Value, ValuePointerRef) -> ApiResult<Value>,
    ) -> Self {
        Field {
            name,
            path,
            verb: Verb::Patch,
            check,
        }
    }
}

type Words = BTreeSet<String>;

/// All settings, in the protocol's order.
pub(crate) const FIELDS: [Field; 22] = [
    Field::put(
        "displayedAttributes",
        "displayed-attributes",
        shape::<Vec<String>, of::InvalidSettingsDisplayedAttributes>,
    ),
    Field::put(
        "searchableAttributes",
        "searchable-attributes",
        shape::<Vec<String>, of::InvalidSettingsSearchableAttributes>,
    ),
    Field::put(
        "filterableAttributes",
        "filterable-attributes",
        shape::<Vec<FilterableAttributesRule>, of::InvalidSettingsFilterableAttributes>,
    ),
    Field::put(
        "sortableAttributes",
        "sortable-attributes",
        shape::<Words, of::InvalidSettingsSortableAttributes>,
    ),
    Field::put("foreignKeys", "foreign-keys", foreign_keys),
    Field::put("rankingRules", "ranking-rules", ranking_rules),
    Field::put(
        "stopWords",
        "stop-words",
        shape::<Words, of::InvalidSettingsStopWords>,
    ),
    Field::put(
        "nonSeparatorTokens",
        "non-separator-tokens",
        shape::<Words, of::InvalidSettingsNonSeparatorTokens>,
    ),
    Field::put(
        "separatorTokens",
        "separator-tokens",
        shape::<Words, of::InvalidSettingsSeparatorTokens>,
    ),
    Field::put(
        "dictionary",
        "dictionary",
        shape::<Words, of::InvalidSettingsDictionary>,
    ),
    Field::put(
        "synonyms",
        "synonyms",
        shape::<BTreeMap<String, Vec<String>>, of::InvalidSettingsSynonyms>,
    ),
    Field::put(
        "distinctAttribute",
        "distinct-attribute",
        shape::<String, of::InvalidSettingsDistinctAttribute>,
    ),
    Field::put(
        "proximityPrecision",
        "proximity-precision",
        shape::<ProximityPrecision, of::InvalidSettingsProximityPrecision>,
    ),
    Field::patch(
        "typoTolerance",
        "typo-tolerance",
        shape::<TypoTolerance, of::InvalidSettingsTypoTolerance>,
    ),
    Field::patch(
        "faceting",
        "faceting",
        shape::<Faceting, of::InvalidSettingsFaceting>,
    ),
    Field::patch(
        "pagination",
        "pagination",
        shape::<Pagination, of::InvalidSettingsPagination>,
    ),
    Field::patch("embedders", "embedders", embedders),
    Field::put(
        "searchCutoffMs",
        "search-cutoff-ms",
        shape::<u64, of::InvalidSettingsSearchCutoffMs>,
    ),
    Field::put(
        "localizedAttributes",
        "localized-attributes",
        shape::<Vec<Localized>, of::InvalidSettingsLocalizedAttributes>,
    ),
    Field::put(
        "facetSearch",
        "facet-search",
        shape::<bool, of::InvalidSettingsFacetSearch>,
    ),
    Field::put(
        "prefixSearch",
        "prefix-search",
        shape::<PrefixSearch, of::InvalidSettingsPrefixSearch>,
    ),
    Field::patch("chat", "chat", chat),
];

/// Checks the body of `PATCH …/settings`: the change, in the protocol's order.
pub(crate) fn check_all(body: Value) -> ApiResult<Map<String, Value>> {
    let fields = match body {
        Value::Object(fields) => fields,
        actual => {
            let error = ErrorKind::IncorrectValueKind {
                actual: actual.into_value(),
                accepted: &[ValueKind::Map],
            };
            return Err(ApiError::new(
                Code::BadRequest,
                Json::sentence(error, ValuePointerRef::Origin),
            ));
        }
    };
    let mut checked = Map::new();
    for (name, value) in fields {
        let Some(field) = FIELDS.iter().find(|field| field.name == name) else {
            let accepted: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
            let error: ErrorKind<Value> = ErrorKind::UnknownKey {
                key: &name,
                accepted: &accepted,
            };
            return Err(ApiError::new(
                Code::BadRequest,
                Json::sentence(error, ValuePointerRef::Origin),
            ));
        };
        let value = check(field, value, ValuePointerRef::Origin.push_key(field.name))?;
        checked.insert(name, value);
    }
    let in_order = FIELDS
        .iter()
        .filter_map(|field| Some((field.name.to_owned(), checked.remove(field.name)?)));
    Ok(in_order.collect())
}

/// Checks the body of one setting's own route.
pub(crate) fn check_one(field: &Field, body: Value) -> ApiResult<Map<String, Value>> {
    let value = check(field, body, ValuePointerRef::Origin)?;
    Ok(Map::from_iter([(field.name.to_owned(), value)]))
}

/// The change that resets everything.
pub(crate) fn reset_all() -> Map<String, Value> {
    FIELDS
        .iter()
        .map(|field| (field.name.to_owned(), Value::Null))
        .collect()
}

fn check(field: &Field, value: Value, location: ValuePointerRef) -> ApiResult<Value> {
    if value.is_null() {
        Ok(Value::Null)
    } else {
        (field.check)(value, location)
    }
}

fn read<T, C>(value: Value, location: ValuePointerRef) -> ApiResult<T>
where
    T: Deserr<InBody<C>>,
    C: Coded,
{
    T::deserialize_from_value(value.into_value(), location).map_err(ApiError::from)
}

fn shape<T, C>(value: Value, location: ValuePointerRef) -> ApiResult<Value>
where
    T: Deserr<InBody<C>> + Serialize,
    C: Coded,
{
    Ok(serde_json::to_value(read::<T, C>(value, location)?)?)
}

fn ranking_rules(value: Value, location: ValuePointerRef) -> ApiResult<Value> {
    let rules = read::<Vec<Rule>, of::InvalidSettingsRankingRules>(value, location)?;
    let has = |name: &str| rules.iter().any(|rule| rule.0 == name);
    if has("attribute") && (has("attributeRank") || has("wordPosition")) {
        return Err(ApiError::new(
            Code::InvalidSettingsRankingRules,
            "Mixed usage of the attribute, attributeRank, and wordPosition ranking rules. You must either use the \
             attribute ranking rule alone or the attributeRank and wordPosition ranking rules.",
        ));
    }
    Ok(serde_json::to_value(rules)?)
}

fn embedders(value: Value, location: ValuePointerRef) -> ApiResult<Value> {
    type Embedders = BTreeMap<String, Setting<EmbeddingSettings>>;
    let embedders = read::<Embedders, of::InvalidSettingsEmbedders>(value, location)?;
    for (name, settings) in &embedders {
        validate_embedding_settings(settings.clone(), name)?;
    }
    Ok(serde_json::to_value(embedders)?)
}

fn foreign_keys(_: Value, _: ValuePointerRef) -> ApiResult<Value> {
    Err(ApiError::not_implemented("the setting `foreignKeys`"))
}

fn chat(_: Value, _: ValuePointerRef) -> ApiResult<Value> {
    Err(ApiError::not_implemented("the setting `chat`"))
}
