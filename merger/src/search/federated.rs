//! Several searches with one list of hits: `POST /multi-search` with `federation`.
//!
//! Each shard carries out the federated search on what it holds, for all hits up to the page's end, with details. The lists
//! are merged by the same criteria as on one node: weighted scores, recomputed on the scale of all shards, and sort values.

mod admit;
mod facets;
mod lists;
mod respond;
mod weighed;

#[cfg(test)]
mod properties;

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use weft_routing::placement::ShardId;

use super::SearchError;
use super::degraded::Degraded;
use super::explain::Explanation;
use super::hit::{Added, Interest, strippable};
use super::merge::Window;
use super::multi_search::{Query, asks, rename_positions};
use super::request::{Carrier, Paging};
use super::scatter::{Ask, Outcome, Reader};
use super::settings::MergeSettings;
use crate::answer::Answer;

/// A federated search.
pub(super) struct Federated {
    federation: Map<String, Value>,
    paging: Paging,
    /// `distinct` of the federation: applies to the hits of all queries together.
    distinct: Option<String>,
    /// For each query, its distinct attribute, and whether its hits don't show that attribute.
    paths: Vec<(Option<String>, bool)>,
    queries: Vec<Query>,
    weights: Vec<f64>,
    interests: Vec<Interest>,
}

impl Federated {
    /// Reads the federation's own parameters; `None` if a node must judge them.
    pub(super) fn read(federation: Map<String, Value>, queries: Vec<Query>) -> Option<Self> {
        let carrier = Carrier::Body(federation);
        let paging = Paging::new(
            carrier.count("offset")?,
            carrier.count("limit")?,
            carrier.count("page")?,
            carrier.count("hitsPerPage")?,
        );
        let distinct = carrier.text("distinct")?.map(str::to_owned);
        let Carrier::Body(federation) = carrier else {
            return None;
        };
        let mut weights = Vec::with_capacity(queries.len());
        let mut interests = Vec::with_capacity(queries.len());
        let mut paths = Vec::with_capacity(queries.len());
        for query in &queries {
            let Carrier::Body(members) = &query.plan.search.carrier else {
                return None;
            };
            let weight = members
                .get("federationOptions")
                .and_then(|options| options.get("weight"));
            weights.push(weight.map_or(Some(1.0), Value::as_f64)?);
            let path = distinct.as_ref().or(query.plan.distinct.as_ref()).cloned();
            let hides = path
                .as_deref()
                .is_some_and(|path| query.settings.hides(path));
            let mut strip = strippable(
                &more_attributes(query, path.as_ref()),
                query.plan.search.retrieve.as_deref().unwrap_or_default(),
            );
            paths.push((path, hides));
            strip.push("_federation".to_owned());
            let formats = query.plan.interest.formats.clone();
            interests.push(Interest {
                pick: Some("_federation".to_owned()),
                id: query.primary_key.clone(),
                strip,
                added: Added {
                    score: query.plan.search.show_score,
                    details: true,
                    formatted: !formats.is_empty(),
                },
                formats,
                ..Interest::default()
            });
        }
        Some(Self {
            federation,
            paging,
            distinct,
            paths,
            queries,
            weights,
            interests,
        })
    }

    fn window(&self) -> Window {
        self.paging.window(usize::MAX)
    }

    /// The body for a shard that holds the indexes of the queries at `places`, and of no others.
    fn body(&self, places: &[usize]) -> Value {
        let mut federation = self.federation.clone();
        let end = self.window().end();
        match self.paging {
            Paging::Offset { .. } => {
                federation.insert("offset".to_owned(), Value::from(0));
                federation.insert("limit".to_owned(), Value::from(end));
            }
            Paging::Page { page: 0, .. } => {}
            Paging::Page { .. } => {
                federation.insert("page".to_owned(), Value::from(1));
                federation.insert("hitsPerPage".to_owned(), Value::from(end));
            }
        }
        federation.shift_remove("mergeFacets");
        if let Some(Value::Object(facets)) = federation.get_mut("facetsByIndex") {
            let elsewhere = |uid: &String| {
                let mut queries = self.queries.iter().enumerate();
                queries.any(|(place, query)| query.index == *uid && !places.contains(&place))
            };
            facets.retain(|uid, _| !elsewhere(uid));
        }
        let queries: Vec<Value> = places
            .iter()
            .filter_map(|place| self.query_body(*place))
            .collect();
        json!({ "federation": federation, "queries": queries })
    }

    fn query_body(&self, place: usize) -> Option<Value> {
        let query = self.queries.get(place)?;
        let mut carrier = query.plan.search.carrier.clone();
        carrier.set_true("showRankingScoreDetails");
        let (path, _) = self.paths.get(place)?;
        for name in more_attributes(query, path.as_ref()) {
            carrier.push("attributesToRetrieve", &name);
        }
        match carrier {
            Carrier::Body(members) => Some(Value::Object(members)),
            Carrier::Query(_) => None,
        }
    }

    /// The request for a shard's hits beyond the page, if distinct values are counted exactly: `take` hits with only what
    /// orders them and tells them apart.
    fn rest(&self, shard: ShardId, places: &[usize], path: &str, take: usize) -> Ask {
        let mut federation = Map::new();
        federation.insert("offset".to_owned(), Value::from(self.window().end()));
        federation.insert("limit".to_owned(), Value::from(take));
        if let Some(path) = &self.distinct {
            federation.insert("distinct".to_owned(), Value::from(path.as_str()));
        }
        let bare = |place: &usize| {
            let query = self.queries.get(*place)?;
            let (path, _) = self.paths.get(*place)?;
            let shown: Vec<String> = query.primary_key.iter().chain(path).cloned().collect();
            let mut carrier = query.plan.search.carrier.bare(&shown);
            carrier.set_value("indexUid", Value::from(query.index.as_str()));
            carrier.set_true("showRankingScoreDetails");
            match carrier {
                Carrier::Body(members) => Some(Value::Object(members)),
                Carrier::Query(_) => None,
            }
        };
        let queries: Vec<Value> = places.iter().filter_map(bare).collect();
        let body = json!({ "federation": federation, "queries": queries });
        Ask {
            shard,
            method: Method::POST,
            path_and_query: path.to_owned(),
            body: Some(serde_json::to_vec(&body).unwrap_or_default().into()),
        }
    }

    /// True if one node counts distinct values exactly.
    fn counts_distinct(&self) -> bool {
        matches!(self.paging, Paging::Page { .. })
            && self.paths.iter().any(|(path, _)| path.is_some())
    }

    /// The indexes, each once.
    fn indexes(&self) -> Vec<&str> {
        let mut indexes: Vec<&str> = self
            .queries
            .iter()
            .map(|query| query.index.as_str())
            .collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes
    }

    fn settings(&self, uid: &str) -> Arc<MergeSettings> {
        self.queries
            .iter()
            .find(|query| query.index == uid)
            .map_or_else(Arc::default, |query| Arc::clone(&query.settings))
    }
}

/// Carries out a federated search.
pub(super) async fn search(
    reader: &Reader<'_>,
    path: &str,
    search: &Federated,
    shares: &[(ShardId, Vec<usize>)],
) -> Result<Answer, SearchError> {
    let asks = asks(path, shares, |places| search.body(places));
    let gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, shard) => return Ok(rename_positions(answer, shard, shares)),
        Outcome::Answers(gathered) => gathered,
    };
    let mut explanation = Explanation {
        why: "each query goes to the shards that hold its index".to_owned(),
        ..Explanation::default()
    };
    explanation.add(&gathered, |_| (0, search.window().end()));
    let degraded = Degraded::new(&gathered.missing, shares.len());
    let lists = lists::of(reader, path, search, gathered, shares, &mut explanation).await?;
    let _merging = reader.phase("merge");
    let mut writer = lists::merged(reader, search, &lists).await?;
    writer.optional("degraded", degraded.as_ref());
    if reader.explain {
        writer.member("explain", &explanation);
    }
    let answer = Answer::json_bytes(StatusCode::OK, writer.finish());
    Ok(degraded.map_or(answer.clone(), |degraded| degraded.on(answer)))
}

/// What a query's hits must contain in addition to what the client asked for.
fn more_attributes(query: &Query, distinct: Option<&String>) -> Vec<String> {
    let Some(own) = &query.plan.search.retrieve else {
        return Vec::new();
    };
    let wanted = distinct.into_iter().chain(&query.primary_key);
    let is_missing = |name: &&String| !own.iter().any(|own| own == *name || own == "*");
    wanted.filter(is_missing).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::request::Search;

    #[test]
    fn a_shard_is_asked_for_facets_of_no_index_that_only_others_hold() {
        let query = |index: &str, shard: u16| {
            let search = json!({"indexUid": index}).as_object().cloned();
            let search = Search::read(Carrier::Body(search.unwrap())).unwrap();
            Query::new(
                index.to_owned(),
                search,
                None,
                Arc::default(),
                ShardId(shard),
            )
        };
        let federation = json!({
            "limit": 3, "offset": 2, "mergeFacets": {},
            "facetsByIndex": {"left": ["a"], "right": ["b"], "unasked": ["c"]},
        });
        let queries = vec![query("left", 1), query("right", 2)];
        let search = Federated::read(federation.as_object().cloned().unwrap(), queries).unwrap();
        let body = |places: &[usize]| search.body(places);
        assert_eq!(
            body(&[0]),
            json!({
                "federation": {"limit": 5, "offset": 0, "facetsByIndex": {"left": ["a"], "unasked": ["c"]}},
                "queries": [{"indexUid": "left", "showRankingScoreDetails": true}],
            })
        );
        assert_eq!(
            body(&[0, 1])["federation"]["facetsByIndex"],
            federation["facetsByIndex"]
        );
    }
}
