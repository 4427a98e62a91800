//! Handles refusals of a shard because none of its documents ever had a field that other shards' documents have.
//!
//! Such a shard is asked again without the field, since it has nothing to find there. A field that every shard lacks is
//! refused, as on a node that lacks it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Map, Value};
use weft_routing::operation::{Operation, classify};

use super::{Ask, Reader};
use crate::upstream::{NodeAnswer, UpstreamError};

/// How often a shard is asked again. If it lacks more than that, its refusal stands.
const MOST_ROUNDS: usize = 100;

/// The outcome of a request, and how long it took.
type Answered = (Result<NodeAnswer, UpstreamError>, Duration);

/// What a shard lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lack {
    /// An attribute (or pattern of attributes) to search on, in this index.
    Attribute { index: String, name: String },
    /// Places to sort documents by.
    Place,
}

/// The answers. A shard that lacked something is represented by its answer to the request without it.
pub(super) async fn without_what_is_lacking(
    reader: &Reader<'_>,
    asks: &[Ask],
    mut results: Vec<Answered>,
) -> Vec<Answered> {
    let mut asked: Vec<Ask> = asks.to_vec();
    let mut lacking: Vec<Vec<Lack>> = vec![Vec::new(); asks.len()];
    let mut refusals: Vec<(Lack, NodeAnswer)> = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let mut again = Vec::new();
        for (at, (ask, (result, _))) in asked.iter_mut().zip(&results).enumerate() {
            let Some((lack, refusal)) = lack_of(ask, result) else {
                continue;
            };
            let Some(without) = ask.without(&lack) else {
                continue;
            };
            *ask = without;
            refusals.push((lack.clone(), refusal.clone()));
            if let Some(lacking) = lacking.get_mut(at) {
                lacking.push(lack);
            }
            again.push(at);
        }
        if again.is_empty() {
            break;
        }
        let asked_again = again.iter().filter_map(|at| asked.get(*at));
        let answers = join_all(asked_again.map(|ask| reader.answer(ask))).await;
        for (at, (answer, took)) in again.into_iter().zip(answers) {
            if let Some((old, old_took)) = results.get_mut(at) {
                *old = answer;
                *old_took += took;
            }
        }
    }
    refuse_what_all_lack(asks, &lacking, refusals, results)
}

/// Restores the refusal if every shard that was asked for a field lacks it.
fn refuse_what_all_lack(
    asks: &[Ask],
    lacking: &[Vec<Lack>],
    refusals: Vec<(Lack, NodeAnswer)>,
    mut results: Vec<Answered>,
) -> Vec<Answered> {
    let has = |lack: &Lack| {
        asks.iter()
            .zip(lacking)
            .zip(&results)
            .any(|((ask, lacking), (result, _))| {
                let accepted = result
                    .as_ref()
                    .is_ok_and(|answer| answer.status.is_success());
                accepted && !lacking.contains(lack) && ask.without(lack).is_some()
            })
    };
    let Some((lack, _)) = refusals.iter().find(|(lack, _)| !has(lack)) else {
        return results;
    };
    let said = refusals.iter().filter(|(other, _)| other == lack);
    let said: Vec<&NodeAnswer> = said.map(|(_, refusal)| refusal).collect();
    let at = lacking.iter().position(|lacking| lacking.contains(lack));
    let answers_well = |at: &usize| {
        results.get(*at).is_some_and(|(result, _)| {
            result
                .as_ref()
                .is_ok_and(|answer| answer.status.is_success())
        })
    };
    if let Some((at, refusal)) = at.filter(answers_well).zip(with_all_names(&said))
        && let Some((result, _)) = results.get_mut(at)
    {
        *result = Ok(refusal);
    }
    results
}

/// The text before the attribute's name in a refusal.
const BEFORE_NAME: &str = "Attribute `";
const AFTER_NAME: &str = "` is not searchable.";

/// What the shard lacks, according to its refusal.
fn lack_of<'a>(
    ask: &Ask,
    result: &'a Result<NodeAnswer, UpstreamError>,
) -> Option<(Lack, &'a NodeAnswer)> {
    let answer = result.as_ref().ok()?;
    if answer.status != StatusCode::BAD_REQUEST {
        return None;
    }
    let error: Value = serde_json::from_slice(&answer.body).ok()?;
    let message = error.get("message")?.as_str()?;
    let lack = match error.get("code")?.as_str()? {
        "invalid_search_attributes_to_search_on" => {
            let (before, rest) = message.split_once(BEFORE_NAME)?;
            let (name, _) = rest.split_once(AFTER_NAME)?;
            Lack::Attribute {
                index: ask.index_at(before)?,
                name: name.to_owned(),
            }
        }
        "invalid_document_sort" if message.contains("Attribute `_geo` is not sortable.") => {
            Lack::Place
        }
        _ => return None,
    };
    Some((lack, answer))
}

/// The refusal with the searchable attributes of all shards, as one node would list them.
fn with_all_names(said: &[&NodeAnswer]) -> Option<NodeAnswer> {
    const HIDDEN: &str = "<..hidden-attributes>";
    let first = *said.first()?;
    let mut error: Value = serde_json::from_slice(&first.body).ok()?;
    let message = error.get("message")?.as_str()?.to_owned();
    let Some((head, _, tail)) = listed(&message) else {
        return Some(first.clone());
    };
    let mut names: Vec<String> = Vec::new();
    for answer in said {
        let error: Value = serde_json::from_slice(&answer.body).ok()?;
        let message = error.get("message")?.as_str()?.to_owned();
        let (_, list, _) = listed(&message)?;
        names.extend(list.split(", ").map(str::to_owned));
    }
    names.sort_by(|a, b| (a == HIDDEN, a).cmp(&(b == HIDDEN, b)));
    names.dedup();
    names.retain(|name| !name.is_empty());
    let message = format!("{head}{}{tail}", names.join(", "));
    error
        .as_object_mut()?
        .insert("message".to_owned(), message.into());
    Some(NodeAnswer {
        body: Bytes::from(error.to_string()),
        ..first.clone()
    })
}

/// A refusal's text before, in and after its list of attributes.
fn listed(message: &str) -> Option<(&str, &str, &str)> {
    const LIST: &str = "Available searchable attributes are: `";
    let start = message.find(LIST)? + LIST.len();
    let end = start + message.get(start..)?.rfind('`')?;
    Some((
        message.get(..start)?,
        message.get(start..end)?,
        message.get(end..)?,
    ))
}

impl Ask {
    /// The index that a refusal is about, if its text begins with `before`.
    fn index_at(&self, before: &str) -> Option<String> {
        let asked = classify(self.method.as_str(), &self.path_and_query).ok()?;
        if asked.operation != Operation::MultiSearch {
            return asked.index.map(std::borrow::Cow::into_owned);
        }
        let (_, rest) = before.split_once(".queries[")?;
        let (place, _) = rest.split_once(']')?;
        let body: Value = serde_json::from_slice(self.body.as_deref()?).ok()?;
        let query = body.get("queries")?.get(place.parse::<usize>().ok()?)?;
        Some(query.get("indexUid")?.as_str()?.to_owned())
    }

    /// The same request without what the shard lacks; `None` if the request doesn't contain it.
    fn without(&self, lack: &Lack) -> Option<Self> {
        let asked = classify(self.method.as_str(), &self.path_and_query).ok()?;
        let own = asked.index.as_deref().unwrap_or_default();
        match (asked.operation, lack) {
            (Operation::MultiSearch, Lack::Attribute { index, name }) => self.change_body(|body| {
                let queries = body.get_mut("queries").and_then(Value::as_array_mut);
                let mut changed = false;
                for query in queries
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_object_mut)
                {
                    let is_there = query.get("indexUid").is_some_and(|uid| uid == index);
                    changed |= is_there && search_elsewhere(query, name);
                }
                changed
            }),
            (Operation::SearchPost | Operation::FacetSearch, Lack::Attribute { index, name })
                if index == own =>
            {
                self.change_body(|body| search_elsewhere(body, name))
            }
            (Operation::SearchGet, Lack::Attribute { index, name }) if index == own => {
                let mut body = super::super::request::body_of_query(asked.query)?;
                search_elsewhere(&mut body, name).then(|| self.as_body(&body))
            }
            (Operation::FetchDocuments, Lack::Place) => self.change_body(|body| {
                let sort = body.get_mut("sort").and_then(Value::as_array_mut);
                sort.is_some_and(|sort| {
                    let before = sort.len();
                    sort.retain(|criterion| !criterion.as_str().is_some_and(is_by_place));
                    sort.len() < before
                })
            }),
            (Operation::ListDocuments, Lack::Place) => self.without_places(asked.query),
            _ => None,
        }
    }

    pub(super) fn change_body(
        &self,
        change: impl FnOnce(&mut Map<String, Value>) -> bool,
    ) -> Option<Self> {
        let mut body: Map<String, Value> = serde_json::from_slice(self.body.as_deref()?).ok()?;
        change(&mut body).then(|| Self {
            body: serde_json::to_vec(&body).ok().map(Bytes::from),
            ..self.clone()
        })
    }

    /// The request as a `POST` with this body.
    pub(super) fn as_body(&self, body: &Map<String, Value>) -> Self {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        Self {
            shard: self.shard,
            method: Method::POST,
            path_and_query: path.to_owned(),
            body: serde_json::to_vec(body).ok().map(Bytes::from),
        }
    }

    fn without_places(&self, query: &str) -> Option<Self> {
        let mut pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let (_, sort) = pairs.iter_mut().find(|(name, _)| name == "sort")?;
        let mut criteria = super::super::request::sort_of_query(sort);
        let before = criteria.len();
        criteria.retain(|criterion| !is_by_place(criterion));
        if criteria.len() == before {
            return None;
        }
        *sort = criteria.join(",");
        pairs.retain(|(name, value)| name != "sort" || !value.is_empty());
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        let mut query = form_urlencoded::Serializer::new(String::new());
        Some(Self {
            path_and_query: format!("{path}?{}", query.extend_pairs(pairs).finish()),
            ..self.clone()
        })
    }
}

fn is_by_place(criterion: &str) -> bool {
    criterion.trim_start().starts_with("_geoPoint(")
}

/// Removes an attribute from the attributes to search on. If none is left, the words are searched for nowhere.
fn search_elsewhere(query: &mut Map<String, Value>, name: &str) -> bool {
    let list = query
        .get_mut("attributesToSearchOn")
        .and_then(Value::as_array_mut);
    list.is_some_and(|list| {
        let before = list.len();
        list.retain(|attribute| attribute != name);
        list.len() < before
    })
}

#[cfg(test)]
mod tests;
