//! `_formatted` and `_matchesPosition`: highlighted and cropped attributes, and the positions of matching words.

use std::collections::BTreeMap;

use milli_core::tokenizer::Language;
use milli_core::{
    FormatOptions, LocalizedAttributesRule, MatchBounds, MatcherBuilder, Object, PatternMatch,
};
use serde_json::Value;

use super::Query;
use crate::engine::select::{for_each_leaf, is_within, select};

/// How each attribute is formatted.
pub(crate) struct Formats {
    options: BTreeMap<String, FormatOptions>,
    locales: Option<Vec<Language>>,
    localized: Vec<LocalizedAttributesRule>,
}

/// The positions of matching words, by attribute.
pub(crate) type Matches = BTreeMap<String, Vec<MatchBounds>>;

impl Formats {
    /// Reads the formatting parameters of a query. `displayed` holds all attributes that may be shown, `retrieved` those
    /// that the hit shows.
    pub(crate) fn of(
        query: &Query,
        displayed: &[String],
        retrieved: &[String],
        localized: Vec<LocalizedAttributesRule>,
    ) -> Formats {
        let mut options: BTreeMap<String, FormatOptions> = BTreeMap::new();
        let everywhere = |name: &str| -> Vec<&String> {
            displayed
                .iter()
                .filter(|attribute| name == "*" || attribute.as_str() == name)
                .collect()
        };
        for name in query.attributes_to_highlight.iter().flatten() {
            for attribute in everywhere(name) {
                options.entry(attribute.clone()).or_default().highlight = true;
            }
        }
        // A length given for an attribute overrides the general one.
        let mut crops: Vec<(&str, usize)> = query
            .attributes_to_crop
            .iter()
            .flatten()
            .map(|text| crop_of(text, query.crop_length))
            .collect();
        crops.sort_by_key(|(name, _)| *name == "*");
        for (name, length) in crops {
            for attribute in everywhere(name) {
                options
                    .entry(attribute.clone())
                    .or_default()
                    .crop
                    .get_or_insert(length);
            }
        }
        if !options.is_empty() {
            for attribute in retrieved {
                options.entry(attribute.clone()).or_default();
            }
        }
        let locales = query.locales.as_ref();
        let locales = locales.map(|locales| {
            locales
                .iter()
                .filter_map(|locale| locale.language())
                .collect()
        });
        Formats {
            options,
            locales,
            localized,
        }
    }

    /// True if hits have `_formatted`.
    pub(crate) fn are_wanted(&self) -> bool {
        !self.options.is_empty()
    }

    /// Formats a document; with `position`, also returns the positions of matching words.
    pub(crate) fn apply(
        &self,
        mut document: Object,
        builder: &MatcherBuilder,
        position: bool,
    ) -> (Object, Matches) {
        let mut matches = Matches::new();
        for_each_leaf(&mut document, &mut |path, indices, value| {
            let options = self.options_of(path);
            let text = match value {
                Value::String(text) => std::mem::take(text),
                Value::Number(number) => number.to_string(),
                _ => return,
            };
            let locales = self.locales_of(path);
            let mut matcher = builder.build(&text, locales);
            if position {
                let found = matcher.matches(indices);
                if !found.is_empty() {
                    matches.entry(path.to_owned()).or_default().extend(found);
                }
            }
            *value = match options {
                Some(options) => Value::String(matcher.format(options).into_owned()),
                None if value.is_number() => return,
                None => Value::String(text),
            };
        });
        let names: Vec<&str> = self.options.keys().map(String::as_str).collect();
        (select(&document, &names), matches)
    }

    fn options_of(&self, path: &str) -> Option<FormatOptions> {
        let concerned = self
            .options
            .iter()
            .filter(|(name, _)| is_within(path, name) || is_within(name, path));
        concerned
            .map(|(_, options)| *options)
            .reduce(FormatOptions::merge)
    }

    fn locales_of(&self, path: &str) -> Option<&[Language]> {
        self.locales.as_deref().or_else(|| {
            let rule = self
                .localized
                .iter()
                .find(|rule| rule.attribute_patterns.match_str(path) == PatternMatch::Match);
            rule.map(|rule| rule.locales.as_slice())
        })
    }
}

fn crop_of(text: &str, general: usize) -> (&str, usize) {
    match text.split_once(':') {
        Some((name, length)) => (name, length.parse().unwrap_or(general)),
        None => (text, general),
    }
}
