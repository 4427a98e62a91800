//! Parameters in a JSON body or in a query string.

use std::borrow::Cow;

use serde_json::{Map, Value};
use weft_routing::filters::asked::filter_of_text;

/// A search's parameters, in the form in which they came and are sent on.
#[derive(Debug, Clone, PartialEq)]
pub enum Carrier {
    /// `POST`: a JSON object.
    Body(Map<String, Value>),
    /// `GET`: names and values, decoded.
    Query(Vec<(String, String)>),
}

/// The parameters as they are sent to a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardRequest {
    /// A body.
    Body(Vec<u8>),
    /// A query string.
    Query(String),
}

impl Carrier {
    /// From a body; `None` if it isn't a JSON object.
    pub fn from_body(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().map(Self::Body)
    }

    /// From a query string's pairs.
    pub fn from_query<'a, N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<Cow<'a, str>>,
        V: Into<Cow<'a, str>>,
    {
        Self::Query(
            pairs
                .into_iter()
                .map(|(n, v)| (n.into().into_owned(), v.into().into_owned()))
                .collect(),
        )
    }

    /// The parameters as a JSON text, if they came in a body.
    pub fn to_body(&self) -> Option<Vec<u8>> {
        match self {
            Self::Body(members) => serde_json::to_vec(members).ok(),
            Self::Query(_) => None,
        }
    }

    /// The parameters as a query string, if they came in one.
    pub fn to_query(&self) -> Option<String> {
        match self {
            Self::Body(_) => None,
            Self::Query(pairs) => Some(
                form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(pairs)
                    .finish(),
            ),
        }
    }

    /// The parameters, ready to be sent on.
    pub fn to_request(&self) -> ShardRequest {
        match self {
            Self::Body(members) => {
                ShardRequest::Body(serde_json::to_vec(members).unwrap_or_default())
            }
            Self::Query(_) => ShardRequest::Query(self.to_query().unwrap_or_default()),
        }
    }

    fn member(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Body(members) => members.get(name),
            Self::Query(_) => None,
        }
    }

    fn pair(&self, name: &str) -> Option<&str> {
        match self {
            Self::Body(_) => None,
            Self::Query(pairs) => pairs
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str()),
        }
    }

    /// True if the parameter is present and not `null`.
    pub fn has(&self, name: &str) -> bool {
        self.member(name).is_some_and(|value| !value.is_null()) || self.pair(name).is_some()
    }

    /// The filter as JSON; in a query string it is JSON if it can be read as such, and otherwise plain text.
    pub fn filter(&self) -> Option<Cow<'_, Value>> {
        if let Some(filter) = self.member("filter") {
            return Some(Cow::Borrowed(filter));
        }
        let text = self.pair("filter")?;
        Some(Cow::Owned(filter_of_text(text)))
    }

    /// A parameter as JSON, in the form that a body has.
    pub fn json(&self, name: &str) -> Option<Value> {
        if let Some(value) = self.member(name) {
            return Some(value.clone());
        }
        let text = self.pair(name)?;
        Some(match name {
            "attributesToRetrieve" => text.split(',').collect(),
            "filter" => return self.filter().map(Cow::into_owned),
            "rankingScoreThreshold" => Value::from(text.parse::<f64>().ok()?),
            "retrieveVectors"
            | "showRankingScore"
            | "showRankingScoreDetails"
            | "showPerformanceDetails" => Value::Bool(text.parse().ok()?),
            _ => Value::from(text),
        })
    }

    /// A whole number. The outer `None` means that it can't be read, the inner `None` that it is absent.
    pub fn count(&self, name: &str) -> Option<Option<usize>> {
        if let Some(value) = self.member(name) {
            // Only `page` and `hitsPerPage` may be null; a node judges the others.
            if value.is_null() && matches!(name, "page" | "hitsPerPage") {
                return Some(None);
            }
            return Some(Some(usize::try_from(value.as_u64()?).ok()?));
        }
        self.pair(name)
            .map_or(Some(None), |text| text.parse().ok().map(Some))
    }

    /// A string; `None` as for [`Carrier::count`].
    pub fn text(&self, name: &str) -> Option<Option<&str>> {
        match self.member(name) {
            None => Some(self.pair(name)),
            Some(Value::Null) => Some(None),
            Some(Value::String(text)) => Some(Some(text)),
            Some(_) => None,
        }
    }

    /// True or false; `None` as for [`Carrier::count`].
    pub fn truth(&self, name: &str) -> Option<Option<bool>> {
        match (self.member(name), self.pair(name)) {
            (Some(Value::Bool(truth)), _) => Some(Some(*truth)),
            (Some(_), _) => None,
            (None, Some(text)) => text.parse().ok().map(Some),
            (None, None) => Some(None),
        }
    }

    /// A number; `None` as for [`Carrier::count`].
    pub fn decimal(&self, name: &str) -> Option<Option<f64>> {
        match (self.member(name), self.pair(name)) {
            (Some(Value::Null), _) | (None, None) => Some(None),
            (Some(value), _) => value.as_f64().map(Some),
            (None, Some(text)) => text.parse().ok().map(Some),
        }
    }

    /// A list of strings (in a query string, separated by commas); `None` as for [`Carrier::count`].
    pub fn list(&self, name: &str) -> Option<Option<Vec<String>>> {
        match self.member(name) {
            None => Some(
                self.pair(name)
                    .map(|text| text.split(',').map(str::to_owned).collect()),
            ),
            Some(Value::Null) => Some(None),
            Some(Value::Array(elements)) => elements
                .iter()
                .map(|element| element.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .map(Some),
            Some(_) => None,
        }
    }

    /// The semantic ratio of a semantic search, where a node's default is one half; `None` as for [`Carrier::count`].
    pub fn semantic_ratio(&self) -> Option<Option<f64>> {
        const DEFAULT: f64 = 0.5;
        match self.member("hybrid") {
            Some(Value::Null) => Some(None),
            Some(Value::Object(hybrid)) => match hybrid.get("semanticRatio") {
                None | Some(Value::Null) => Some(Some(DEFAULT)),
                Some(ratio) => ratio.as_f64().map(Some),
            },
            Some(_) => None,
            None if self.pair("hybridEmbedder").is_some() => match self.pair("hybridSemanticRatio")
            {
                None => Some(Some(DEFAULT)),
                Some(text) => text.parse().ok().map(Some),
            },
            None => Some(None),
        }
    }

    fn set(&mut self, name: &str, value: Value) {
        match self {
            Self::Body(members) => {
                members.insert(name.to_owned(), value);
            }
            Self::Query(pairs) => {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                match pairs.iter_mut().find(|(known, _)| known == name) {
                    Some((_, old)) => *old = text,
                    None => pairs.push((name.to_owned(), text)),
                }
            }
        }
    }

    /// Sets a whole number.
    pub fn set_count(&mut self, name: &str, count: usize) {
        self.set(name, Value::from(count));
    }

    /// Sets a boolean to true.
    pub fn set_true(&mut self, name: &str) {
        self.set(name, Value::Bool(true));
    }

    /// Sets a string or any other JSON value.
    pub fn set_value(&mut self, name: &str, value: Value) {
        self.set(name, value);
    }

    /// Adds a string to a list.
    pub fn push(&mut self, name: &str, element: &str) {
        match self {
            Self::Body(members) => {
                let list = members
                    .entry(name)
                    .or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(elements) = list {
                    elements.push(Value::from(element));
                }
            }
            Self::Query(pairs) => match pairs.iter_mut().find(|(known, _)| known == name) {
                Some((_, list)) => {
                    list.push(',');
                    list.push_str(element);
                }
                None => pairs.push((name.to_owned(), element.to_owned())),
            },
        }
    }

    /// The same search from the first hit on, with nothing but `attributes` in its hits.
    pub fn bare(&self, attributes: &[String]) -> Self {
        const OF_PAGES: [&str; 12] = [
            "indexUid",
            "page",
            "hitsPerPage",
            "offset",
            "limit",
            "facets",
            "attributesToHighlight",
            "attributesToCrop",
            "showMatchesPosition",
            "retrieveVectors",
            "showPerformanceDetails",
            "attributesToRetrieve",
        ];
        let mut bare = self.clone();
        for name in OF_PAGES {
            bare.remove(name);
        }
        let value = match &bare {
            Self::Body(_) => Value::from(attributes.to_vec()),
            Self::Query(_) => Value::from(attributes.join(",")),
        };
        bare.set("attributesToRetrieve", value);
        bare
    }

    /// Adds a condition to the filter; `None` if the filter has a form to which nothing can be added.
    pub fn narrow(&mut self, condition: &str) -> Option<()> {
        let filter = match (self.json("filter"), &self) {
            (None | Some(Value::Null), _) => Value::from(condition),
            (Some(Value::String(own)), _) if own.trim().is_empty() => Value::from(condition),
            (Some(Value::String(own)), Self::Query(_)) => {
                // A query string may hold a list as JSON.
                if own.trim_start().starts_with('[') {
                    return None;
                }
                Value::from(format!("({own}) AND ({condition})"))
            }
            (Some(Value::Array(mut all)), _) => {
                all.push(Value::from(condition));
                Value::Array(all)
            }
            (Some(own @ Value::String(_)), _) => Value::from(vec![own, Value::from(condition)]),
            _ => return None,
        };
        self.set("filter", filter);
        Some(())
    }

    /// Removes a parameter.
    pub fn remove(&mut self, name: &str) {
        match self {
            Self::Body(members) => {
                members.shift_remove(name);
            }
            Self::Query(pairs) => pairs.retain(|(known, _)| known != name),
        }
    }
}
