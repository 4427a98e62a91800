//! The order of hits that come from several queries.

use std::cmp::Ordering;
use std::collections::HashSet;

use milli_core::score_details::{ScoreDetails, WeightedScoreValue};
use serde_json::Value;

use super::Part;
use crate::engine::search::{Found, Page};

/// A hit before it is made: where it comes from and what it weighs.
pub(super) struct Candidate<'a> {
    pub(super) part: usize,
    pub(super) place: usize,
    pub(super) document: u32,
    pub(super) scores: &'a [ScoreDetails],
    weight: f64,
}

/// The hits of all queries in one order, each document of an index once.
pub(super) fn merge<'a>(parts: &[Part], found: &'a [Found], page: Page) -> Vec<Candidate<'a>> {
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
    let is_new = |candidate: &Candidate| {
        parts
            .get(candidate.part)
            .is_some_and(|part| seen.insert((part.uid.as_str(), candidate.document)))
    };
    candidates
        .into_iter()
        .filter(is_new)
        .skip(page.offset)
        .take(page.limit)
        .collect()
}

/// Which of two hits is better, rule by rule; hits whose rules can't be compared, by their scores as a whole.
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

/// Numbers before texts, both before what has no value, whichever way is sorted.
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

/// A hit's score, by the weight of its query.
pub(super) fn weighted(candidate: &Candidate) -> f64 {
    ScoreDetails::global_score(candidate.scores.iter()) * candidate.weight
}
