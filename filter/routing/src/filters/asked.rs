//! A search, as far as it tells which shards can match, and how many of them must be asked.
//!
//! A search that can match on one shard only is sent there as it came, by the merger and, where the index lies by a field, by the
//! filter. So only what is certain counts: if a shard's answer may depend on what other shards know, all of them are asked.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::tenant::{TenantRules, joined};
use super::{prune, unequal};
use crate::placement::{ShardId, SlotMap};

/// The longest filter by which a search is sent to a shard without the merger, in bytes of its texts: a long one is work for
/// which all of a worker's requests would wait.
pub const MAX_DIRECT_FILTER_BYTES: usize = 4096;

/// The parameters of a search that matter here. Shards must be asked alike, so parameters of which a node sees another value
/// than the one that is read here can't be judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked<'a> {
    /// `filter`; `None` if there is none.
    pub filter: Option<Cow<'a, Value>>,
    /// True with `attributesToSearchOn`: which attributes there are, a shard knows of its own documents alone.
    pub searches_on: bool,
    /// True with the matching strategy `frequency`: words are dropped by how many documents of the whole index have them.
    pub by_frequency: bool,
}

/// The members of a body that matter. One that comes twice isn't read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    filter: Value,
    #[serde(default)]
    attributes_to_search_on: Value,
    #[serde(default)]
    matching_strategy: Value,
}

impl Asked<'static> {
    /// The search of a query string; `None` if it can't be judged.
    #[must_use]
    pub fn of_query(query: &str) -> Option<Self> {
        let mut asked = Self::default();
        let mut seen = [false; 3];
        for (name, text) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "filter" => 0,
                "attributesToSearchOn" => 1,
                "matchingStrategy" => 2,
                _ => continue,
            };
            if std::mem::replace(seen.get_mut(place)?, true) {
                return None;
            }
            match place {
                0 => asked.filter = Some(Cow::Owned(filter_of_text(&text))),
                1 => asked.searches_on = true,
                _ => asked.by_frequency = text == FREQUENCY,
            }
        }
        Some(asked)
    }

    /// The search of a JSON body; `None` if it can't be judged.
    #[must_use]
    pub fn of_body(body: &[u8]) -> Option<Self> {
        if body.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        let body: Body = serde_json::from_str(std::str::from_utf8(body).ok()?).ok()?;
        Some(Self {
            filter: (!body.filter.is_null()).then_some(Cow::Owned(body.filter)),
            searches_on: !body.attributes_to_search_on.is_null(),
            by_frequency: body.matching_strategy == FREQUENCY,
        })
    }
}

/// The matching strategy that counts documents.
pub const FREQUENCY: &str = "frequency";

/// A filter in a query string: JSON if it can be read as such, and otherwise plain text.
#[must_use]
pub fn filter_of_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

impl Asked<'_> {
    /// The shards that can match, if the search's filter or that of its tenant token restricts them; `None` if any shard must be
    /// asked. `primary_key` is the field with the ids, if it is known.
    #[must_use]
    pub fn shards(
        &self,
        index_uid: &str,
        rules: Option<&TenantRules>,
        slots: &SlotMap,
        primary_key: Option<&str>,
    ) -> Option<Vec<ShardId>> {
        // While the strategy changes, a document's shard depends on where it was, too.
        let by = match (slots.change(), slots.field()) {
            (Some(_), _) => return None,
            (None, Some(field)) => field.as_str(),
            (None, None) => primary_key?,
        };
        let filter = self.whole_filter(index_uid, rules)?;
        let may_lack_fields = self.searches_on
            || unequal::stands_in(&filter)
            || rules.is_some_and(TenantRules::compare);
        if may_lack_fields || self.by_frequency {
            return None;
        }
        prune::shards_of(&filter, by, slots)
    }

    /// The only shard that can match, of an index that lies by a field. By ids nothing is told here: a filter that hasn't heard
    /// yet that an index was made anew with another primary key would ask the wrong shard.
    #[must_use]
    pub fn only_shard(
        &self,
        index_uid: &str,
        rules: Option<&TenantRules>,
        slots: &SlotMap,
    ) -> Option<ShardId> {
        slots.field()?;
        if length(&*self.whole_filter(index_uid, rules)?) > MAX_DIRECT_FILTER_BYTES {
            return None;
        }
        match *self.shards(index_uid, rules, slots, None)? {
            [only] => Some(only),
            _ => None,
        }
    }

    /// What must hold: the search's own filter and its token's.
    fn whole_filter(&self, index_uid: &str, rules: Option<&TenantRules>) -> Option<Cow<'_, Value>> {
        let own = self.filter.as_ref().filter(|filter| !filter.is_null());
        let rule = rules.and_then(|rules| rules.filter_of(index_uid));
        match (own, rule) {
            (None, None) => None,
            (Some(own), None) => Some(Cow::Borrowed(&**own)),
            (own, Some(rule)) => Some(Cow::Owned(joined(own.map(|own| &**own), rule))),
        }
    }
}

/// The length of all texts of a filter.
fn length(filter: &Value) -> usize {
    match filter {
        Value::String(text) => text.len(),
        Value::Array(elements) => elements.iter().map(length).sum(),
        _ => 0,
    }
}
