//! Compares two answers. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

/// How close an answer is to one node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same documents in the same order, the same totals and facets.
    Same,
    /// The same, except that documents of equal rank are in another order.
    SameButTies,
    /// Different in the named part.
    Different(&'static str),
}

impl Verdict {
    pub(super) fn is_same(&self) -> bool {
        !matches!(self, Self::Different(_))
    }
}

/// Compares the parts that a person would look at.
pub(super) fn judge(
    merged: &Value,
    alone: &Value,
    primary_key: &str,
    sorted_by: &[&str],
) -> Verdict {
    for field in ["estimatedTotalHits", "totalHits", "totalPages"] {
        if merged.get(field) != alone.get(field) {
            return Verdict::Different("total");
        }
    }
    for field in ["facetDistribution", "facetStats"] {
        // Compared as text, since the order of a facet's values is part of the answer.
        if merged.get(field).map(Value::to_string) != alone.get(field).map(Value::to_string) {
            return Verdict::Different("facets");
        }
    }
    let hits = |answer: &Value| answer["hits"].as_array().cloned().unwrap_or_default();
    let (merged, alone) = (hits(merged), hits(alone));
    let ids = |hits: &[Value]| {
        hits.iter()
            .map(|hit| hit[primary_key].to_string())
            .collect::<Vec<_>>()
    };
    if ids(&merged) == ids(&alone) {
        return Verdict::Same;
    }
    // Documents have equal rank if their scores (to nine digits) and their sort values are equal.
    let rank = |hit: &Value| {
        let score = (hit["_rankingScore"].as_f64().unwrap_or_default() * 1e9).round();
        sorted_by.iter().fold(score.to_string(), |rank, field| {
            format!("{rank} {}", hit[*field])
        })
    };
    if !merged.iter().map(rank).eq(alone.iter().map(rank)) {
        return Verdict::Different("order");
    }
    // The limit may cut the last group anywhere.
    let last = alone.last().map(rank);
    let settled = |hits: &[Value]| {
        let whole = hits.iter().filter(|hit| Some(rank(hit)) != last);
        whole
            .map(|hit| (rank(hit), hit[primary_key].to_string()))
            .collect::<BTreeSet<_>>()
    };
    if settled(&merged) == settled(&alone) {
        Verdict::SameButTies
    } else {
        Verdict::Different("documents")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(hits: &[(u32, f64)], total: u32) -> Value {
        let hits: Vec<_> = hits
            .iter()
            .map(|(id, score)| json!({ "id": id, "_rankingScore": score }))
            .collect();
        json!({ "hits": hits, "estimatedTotalHits": total })
    }

    #[test]
    fn equal_answers_are_the_same() {
        let one = answer(&[(1, 0.9), (2, 0.8)], 2);
        assert_eq!(judge(&one, &one, "id", &[]), Verdict::Same);
    }

    #[test]
    fn only_ties_may_change_places() {
        let one = answer(&[(1, 0.9), (2, 0.9), (3, 0.5)], 9);
        assert_eq!(
            judge(&answer(&[(2, 0.9), (1, 0.9), (3, 0.5)], 9), &one, "id", &[]),
            Verdict::SameButTies
        );
        assert_eq!(
            judge(&answer(&[(1, 0.9), (2, 0.9), (4, 0.5)], 9), &one, "id", &[]),
            Verdict::SameButTies
        );
        assert_eq!(
            judge(&answer(&[(1, 0.9), (4, 0.9), (3, 0.5)], 9), &one, "id", &[]),
            Verdict::Different("documents")
        );
        assert_eq!(
            judge(&answer(&[(1, 0.9), (3, 0.5), (2, 0.9)], 9), &one, "id", &[]),
            Verdict::Different("order")
        );
    }

    #[test]
    fn sort_values_are_part_of_the_rank() {
        let hits = |ids: [u32; 2]| json!({ "hits": ids.map(|id| json!({ "id": id, "_rankingScore": 1.0, "votes": id })) });
        assert_eq!(
            judge(&hits([1, 2]), &hits([2, 1]), "id", &[]),
            Verdict::SameButTies
        );
        assert_eq!(
            judge(&hits([1, 2]), &hits([2, 1]), "id", &["votes"]),
            Verdict::Different("order")
        );
    }

    #[test]
    fn totals_and_facets_are_compared() {
        let one = answer(&[(1, 0.9)], 9);
        assert_eq!(
            judge(&answer(&[(1, 0.9)], 8), &one, "id", &[]),
            Verdict::Different("total")
        );
        let mut faceted = one.clone();
        faceted["facetDistribution"] = json!({ "genre": { "a": 1, "b": 2 } });
        assert_eq!(
            judge(&one, &faceted, "id", &[]),
            Verdict::Different("facets")
        );
        let mut turned = one.clone();
        turned["facetDistribution"] = json!({ "genre": { "b": 2, "a": 1 } });
        assert_eq!(
            judge(&turned, &faceted, "id", &[]),
            Verdict::Different("facets")
        );
    }
}
