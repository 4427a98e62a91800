//! The shapes of settings that are objects or enums.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use deserr::{DeserializeError, Deserr, ErrorKind, ValuePointerRef, take_cf_content};
use milli_core::AttributePatterns;
use milli_core::update::Setting;
use serde::{Deserialize, Serialize};

use crate::engine::locales::Locale;
use crate::errors::of;
use crate::validate::InBody;

/// `typoTolerance`.
#[derive(Debug, Default, Serialize, Deserialize, Deserr)]
#[serde(rename_all = "camelCase")]
#[deserr(error = InBody<of::InvalidSettingsTypoTolerance>, rename_all = camelCase, deny_unknown_fields)]
pub(crate) struct TypoTolerance {
    #[serde(default, skip_serializing_if = "Setting::is_not_set")]
    #[deserr(default)]
    pub(crate) enabled: Setting<bool>,
    #[serde(default, skip_serializing_if = "Setting::is_not_set")]
    #[deserr(default)]
    pub(crate) min_word_size_for_typos: Setting<MinWordSize>,
    #[serde(default, skip_serializing_if = "Setting::is_not_set")]
    #[deserr(default)]
    pub(crate) disable_on_words: Setting<BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "Setting::is_not_set")]
    #[deserr(default)]
    pub(crate) disable_on_attributes: Setting<BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "Setting::is_not_set")]
    #[deserr(default)]
    pub(crate) disable_on_numbers: Setting<bool>,
}

/// `typoTolerance.minWordSizeForTypos`.
#[derive(Debug, Default, Serialize, Deserialize, Deserr)]
#[serde(rename_all = "camelCase")]
#[deserr(error = InBody<of::InvalidSettingsTypoTolerance>, rename_all = camelCase, deny_unknown_fields,
    validate = in_order -> InBody<of::InvalidSettingsTypoTolerance>)]
pub(crate) struct MinWordSize {
    #[serde(default, skip_serializing_if = "Setting::is_not_set")]
    #[deserr(default)]
    pub(crate) one_typo: Setting<u8>,
    #[serde(default, skip_serializing_if = "Setting::is_not_set")]
    #[deserr(default)]
    pub(crate) two_typos: Setting<u8>,
}

fn in_order<E: DeserializeError>(
    sizes: MinWordSize,
    location: ValuePointerRef,
) -> Result<MinWordSize, E> {
    if let (Setting::Set(one), Setting::Set(two)) = (&sizes.one_typo, &sizes.two_typos)
        && one > two
    {
        let error: ErrorKind<std::convert::Infallible> = ErrorKind::Unexpected {
            msg: format!(
                "`minWordSizeForTypos` setting is invalid. `oneTypo` and `twoTypos` fields should be between `0` \
                 and `255`, and `twoTypos` should be greater or equals to `oneTypo` but found `oneTypo: {one}` \
                 and twoTypos: {two}`."
            ),
        };
        return Err(take_cf_content(E::error(None, error, location)));
    }
    Ok(sizes)
}

/// `faceting`.
#[derive(Debug, Default, Serialize, Deserialize, Deserr)]
#[serde(rename_all = "camelCase")]
#[deserr(error = InBody<of::InvalidSettingsFaceting>, rename_all = camelCase, deny_unknown_fields)]
pub(crate) struct Faceting {
    #[serde(default, skip_serializing_if = "Setting::is_not_set")]
    #[deserr(default)]
    pub(crate) max_values_per_facet: Setting<usize>,
    #[serde(default, skip_serializing_if = "Setting::is_not_set")]
    #[deserr(default)]
    pub(crate) sort_facet_values_by: Setting<BTreeMap<String, FacetOrder>>,
}

/// The order of a facet's values.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, Deserr)]
#[serde(rename_all = "camelCase")]
#[deserr(rename_all = camelCase)]
pub(crate) enum FacetOrder {
    /// By the value's text.
    Alpha,
    /// By count, the most frequent first.
    Count,
}

/// `pagination`.
#[derive(Debug, Default, Serialize, Deserialize, Deserr)]
#[serde(rename_all = "camelCase")]
#[deserr(error = InBody<of::InvalidSettingsPagination>, rename_all = camelCase, deny_unknown_fields)]
pub(crate) struct Pagination {
    #[serde(default, skip_serializing_if = "Setting::is_not_set")]
    #[deserr(default)]
    pub(crate) max_total_hits: Setting<NonZeroUsize>,
}

/// One of `localizedAttributes`.
#[derive(Debug, Serialize, Deserialize, Deserr)]
#[serde(rename_all = "camelCase")]
#[deserr(error = InBody<of::InvalidSettingsLocalizedAttributes>, rename_all = camelCase, deny_unknown_fields)]
pub(crate) struct Localized {
    pub(crate) attribute_patterns: AttributePatterns,
    pub(crate) locales: Vec<Locale>,
}

/// `proximityPrecision`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, Deserr)]
#[serde(rename_all = "camelCase")]
#[deserr(rename_all = camelCase)]
pub(crate) enum ProximityPrecision {
    /// By the distance between words.
    ByWord,
    /// By whether the words are in the same attribute.
    ByAttribute,
}

/// `prefixSearch`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, Deserr)]
#[serde(rename_all = "camelCase")]
#[deserr(rename_all = camelCase)]
pub(crate) enum PrefixSearch {
    /// Prefixes are prepared when documents are indexed.
    IndexingTime,
    /// Only whole words match.
    Disabled,
}
