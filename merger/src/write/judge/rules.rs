//! The part of an index's settings that decides whether the engine accepts a document, and where it is read from.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::tasks::ask_primary;
use crate::write::Context;

/// How many indexes' rules are cached; beyond that, the cache is cleared.
const MOST_INDEXES: usize = 10_000;

/// The settings that documents are judged by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::write) struct Rules {
    engine: Engine,
    /// Whether the engine parses `_geo`.
    pub(super) geo: bool,
    geojson: bool,
    /// Sorted by name.
    pub(super) embedders: Vec<Embedder>,
}

/// An embedder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Embedder {
    pub(super) name: String,
    /// The required length of its vectors, if the settings define it.
    pub(super) dimensions: Option<usize>,
    /// Whether only clients provide its vectors.
    pub(super) user_provided: bool,
}

/// Which engine judges, as far as versions differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Engine {
    /// `_geojson` is an ordinary field, and vectors that are `null` count as no vectors.
    UpTo1_15,
    /// The version isn't known: whatever versions treat differently is not judged.
    #[default]
    Unknown,
    /// `_geojson` is checked, and vectors that are `null` count as not given.
    From1_50,
}

impl Engine {
    fn of_version(version: &str) -> Self {
        let mut numbers = version.split(['.', '-']).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(1)), Some(Ok(0..=15))) => Self::UpTo1_15,
            (Some(Ok(1)), Some(Ok(50..))) => Self::From1_50,
            _ => Self::Unknown,
        }
    }
}

impl Rules {
    /// Reads the rules from the answer to `GET …/settings`, and the engine's version.
    pub(super) fn of(settings: &Map<String, Value>, version: &str) -> Self {
        let lists = |name: &str, field: &str| {
            let listed = settings.get(name).and_then(Value::as_array);
            listed.is_some_and(|listed| listed.iter().any(|one| one.as_str() == Some(field)))
        };
        let embedders = settings.get("embedders").and_then(Value::as_object);
        let mut embedders: Vec<Embedder> = embedders
            .into_iter()
            .flatten()
            .map(|(name, embedder)| Embedder {
                name: name.clone(),
                dimensions: embedder
                    .get("dimensions")
                    .and_then(Value::as_u64)
                    .and_then(|dimensions| usize::try_from(dimensions).ok()),
                user_provided: embedder.get("source").and_then(Value::as_str)
                    == Some("userProvided"),
            })
            .collect();
        embedders.sort_by(|one, two| one.name.cmp(&two.name));
        Self {
            engine: Engine::of_version(version),
            geo: lists("filterableAttributes", "_geo") || lists("sortableAttributes", "_geo"),
            geojson: lists("filterableAttributes", "_geojson"),
            embedders,
        }
    }

    /// Whether these settings refuse nothing that others would accept.
    fn is_plain(&self) -> bool {
        !self.geo && !self.geojson && self.embedders.is_empty()
    }

    pub(super) fn judges_geojson(&self) -> bool {
        self.geojson && self.engine == Engine::From1_50
    }

    pub(super) fn wants_vectors(&self) -> bool {
        self.user_provided().next().is_some()
    }

    /// The embedders whose vectors only clients provide, by position.
    pub(super) fn user_provided(&self) -> impl Iterator<Item = usize> {
        let all = self.embedders.iter().enumerate();
        all.filter(|(_, embedder)| embedder.user_provided)
            .map(|(place, _)| place)
    }

    pub(super) fn engine(&self) -> Engine {
        self.engine
    }

    pub(super) fn name(&self, embedder: usize) -> &str {
        let embedder = self.embedders.get(embedder);
        embedder.map_or("", |embedder| embedder.name.as_str())
    }
}

/// The rules of indexes, cached until any settings change.
#[derive(Debug, Default)]
pub(in crate::write) struct Known {
    rules: Mutex<HashMap<String, (u64, Arc<Rules>)>>,
}

impl Known {
    /// The current rules of an index; the default rules, which hold for any settings, while a change of its settings is under
    /// way.
    pub(in crate::write) async fn now(&self, ctx: &Context, uid: &str) -> Arc<Rules> {
        let revision = ctx.settings.revision();
        let remembered = {
            let known = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(uid).cloned()
        };
        let rules = match remembered {
            Some((then, rules)) if then == revision => rules,
            _ => {
                let (rules, is_whole) = read(ctx, uid).await;
                let rules = Arc::new(rules);
                if is_whole {
                    let mut known = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
                    if known.len() >= MOST_INDEXES {
                        known.clear();
                    }
                    known.insert(uid.to_owned(), (revision, Arc::clone(&rules)));
                }
                rules
            }
        };
        // Most indexes have plain rules, for which the search among all open tasks isn't needed.
        if rules.is_plain() || !ctx.tasks.changes_settings(uid, None) {
            return rules;
        }
        Arc::default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    pkg_version: String,
}

/// Reads the rules; also returns whether everything that they depend on is known.
async fn read(ctx: &Context, uid: &str) -> (Rules, bool) {
    let settings = match ctx.settings.get(uid).await {
        Ok(Some(settings)) => settings,
        Ok(None) => return (Rules::default(), true),
        Err(error) => {
            tracing::warn!(index = uid, %error, "what documents are judged by can't be read");
            return (Rules::default(), false);
        }
    };
    let rules = Rules::of(&settings, "");
    if !rules.geojson && !rules.wants_vectors() {
        return (rules, true);
    }
    let Some(shard) = ctx.cluster.shards().into_iter().next() else {
        return (rules, false);
    };
    let version = ask_primary::<Version>(ctx, shard, "/version".to_owned()).await;
    match version {
        Ok(Some(version)) => (Rules::of(&settings, &version.pkg_version), true),
        _ => (rules, false),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_are_read_from_settings() {
        let settings = json!({
            "filterableAttributes": [{"attributePatterns": ["_geo"]}, "genre"],
            "sortableAttributes": ["_geo"],
            "embedders": {"b": {"source": "userProvided", "dimensions": 3}, "a": {"source": "openAi"}}
        });
        let rules = Rules::of(settings.as_object().unwrap(), "1.50.0");
        assert!(rules.geo && !rules.judges_geojson() && rules.wants_vectors());
        let read: Vec<_> = rules
            .embedders
            .iter()
            .map(|one| (one.name.as_str(), one.dimensions, one.user_provided))
            .collect();
        assert_eq!(read, [("a", None, false), ("b", Some(3), true)]);
        assert!(Rules::of(&Map::new(), "1.50.0").is_plain());
    }

    #[test]
    fn engines_are_told_by_their_versions() {
        assert_eq!(Engine::of_version("1.15.1-weft-node"), Engine::UpTo1_15);
        assert_eq!(Engine::of_version("1.50.0"), Engine::From1_50);
        assert_eq!(Engine::of_version("1.30.2"), Engine::Unknown);
        assert_eq!(Engine::of_version(""), Engine::Unknown);
    }
}
