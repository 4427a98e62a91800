//! The order of hits that come from several queries.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use milli_core::Object;
use milli_core::score_details::{ScoreDetails, WeightedScoreValue};
use serde_json::Value;

use super::Part;
use crate::engine::search::{Found, Page};
use crate::engine::select::select;
use crate::errors::ApiResult;

/// A hit before it is formatted: its origin and its weight.
pub(super) struct Candidate<'a> {
    pub(super) part: usize,
    pub(super) place: usize,
    pub(super) document: u32,
    pub(super) scores: &'a [ScoreDetails],
    weight: f64,
}

/// The page's hits, and the documents that aren't counted, because a better hit has their distinct value.
type Chosen<'a> = (Vec<Candidate<'a>>, Vec<(&'a str, u32)>);

/// The hits of all queries in one order: each document of an index once, and at most `most` of each index. `values` returns
/// a document's distinct values.
pub(super) fn merge<'a>(
    parts: &'a [Part],
    found: &'a [Found],
    page: Page,
    most: &BTreeMap<&str, usize>,
    values: impl Fn(&str, u32) -> ApiResult<Vec<String>>,
) -> ApiResult<Chosen<'a>> {
    let mut candidates: Vec<Candidate<'a>> = Vec::new();
    for (number, (part, found)) in parts.iter().zip(found).enumerate() {
        let documents = found
            .result
            .documents_ids
            .iter()
            .zip(&found.result.document_scores);
        candidates.extend(
            documents
                .enumerate()
                .map(|(place, (document, scores))| Candidate {
                    part: number,
                    place,
                    document: *document,
                    scores,
                    weight: part.weight,
                }),
        );
    }
    candidates.sort_by(|left, right| compare(right, left));
    let mut seen: HashSet<(&str, u32)> = HashSet::new();
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    let mut met: HashSet<String> = HashSet::new();
    let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let Some(part) = parts.get(candidate.part) else {
            continue;
        };
        let uid = part.uid.as_str();
        let taken = taken.entry(uid).or_default();
        if *taken >= most.get(uid).copied().unwrap_or(0) || !seen.insert((uid, candidate.document))
        {
            continue;
        }
        let values = values(uid, candidate.document)?;
        if values.iter().any(|value| met.contains(value)) {
            left_out.push((uid, candidate.document));
            continue;
        }
        met.extend(values);
        *taken += 1;
        chosen.push(candidate);
    }
    let chosen = chosen.into_iter().skip(page.offset).take(page.limit);
    Ok((chosen.collect(), left_out))
}

/// A document's values at a path, as facets count them.
pub(super) fn values_at(document: &Object, path: &str) -> Vec<String> {
    fn collect(value: &Value, values: &mut Vec<String>) {
        match value {
            Value::Array(elements) => elements.iter().for_each(|element| collect(element, values)),
            Value::String(text) => values.push(milli_core::normalize_facet(text)),
            Value::Number(number) => values.push(number.to_string()),
            Value::Bool(truth) => values.push(truth.to_string()),
            Value::Null | Value::Object(_) => {}
        }
    }
    let selected = select(document, &[path]);
    let mut values = Vec::new();
    let mut level: Vec<&Value> = selected.values().collect();
    while let Some(value) = level.pop() {
        match value {
            Value::Object(members) => level.extend(members.values()),
            value => collect(value, &mut values),
        }
    }
    values
}

/// Compares two hits rule by rule. If their rules can't be compared, their whole scores decide.
fn compare(left: &Candidate, right: &Candidate) -> Ordering {
    use WeightedScoreValue as W;
    let values = |candidate: &Candidate| {
        ScoreDetails::weighted_score_values(candidate.scores.iter(), candidate.weight)
            .collect::<Vec<_>>()
    };
    let as_a_whole = || {
        weighted(left)
            .partial_cmp(&weighted(right))
            .unwrap_or(Ordering::Equal)
    };
    let (lefts, rights) = (values(left), values(right));
    for (left, right) in lefts.iter().zip(&rights) {
        let order = match (left, right) {
            (
                W::WeightedScore(left) | W::VectorSort(left),
                W::WeightedScore(right) | W::VectorSort(right),
            ) => {
                if (left - right).abs() <= f64::EPSILON {
                    Ordering::Equal
                } else {
                    left.partial_cmp(right).unwrap_or(Ordering::Equal)
                }
            }
            (
                W::Sort { asc, value: left },
                W::Sort {
                    asc: same,
                    value: right,
                },
            ) if asc == same => {
                let order = compare_values(left, right, *asc);
                if *asc { order.reverse() } else { order }
            }
            (
                W::GeoSort {
                    asc,
                    distance: left,
                },
                W::GeoSort {
                    asc: same,
                    distance: right,
                },
            ) if asc == same => match (left, right) {
                (Some(left), Some(right)) => {
                    let order = left.partial_cmp(right).unwrap_or(Ordering::Equal);
                    if *asc { order.reverse() } else { order }
                }
                (left, right) => left.is_some().cmp(&right.is_some()),
            },
            _ => return as_a_whole(),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    lefts.len().cmp(&rights.len())
}

/// Numbers come before texts, and documents without a value come last, in both sort directions.
fn compare_values(left: &Value, right: &Value, ascending: bool) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        _ => 2,
    };
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left
            .as_f64()
            .partial_cmp(&right.as_f64())
            .unwrap_or(Ordering::Equal),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        _ if ascending => rank(left).cmp(&rank(right)),
        _ => rank(right).cmp(&rank(left)),
    }
}

/// A hit's score, multiplied by the weight of its query.
pub(super) fn weighted(candidate: &Candidate) -> f64 {
    ScoreDetails::global_score(candidate.scores.iter()) * candidate.weight
}
