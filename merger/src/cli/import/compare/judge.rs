//! Whether two answers to a search are alike, as a client would see them. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

/// Scores that differ by less are equal: both servers print them with more digits than they mean.
const EPSILON: f64 = 1e-9;

/// What is equal in two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The same documents in the same order.
    pub(super) hits: bool,
    /// The same sequence of scores.
    pub(super) scores: bool,
    /// The same documents, leaving out the order of those with the same score.
    pub(super) same: bool,
    /// The same number of hits in all.
    pub(super) totals: bool,
    /// The same facets; `None` if none were asked for.
    pub(super) facets: Option<bool>,
}

impl Verdict {
    /// Compares the answer of one server with another's. Answers of a query that was refused have a `code`.
    pub(super) fn of(one: &Value, many: &Value, request: &Value, primary_key: &str) -> Self {
        if one.get("code").is_some() || many.get("code").is_some() {
            let equal = one.get("code") == many.get("code");
            return Self {
                hits: equal,
                scores: equal,
                same: equal,
                totals: equal,
                facets: None,
            };
        }
        let (a, b) = (hits(one, primary_key), hits(many, primary_key));
        let ids = |hits: &[Hit]| hits.iter().map(|hit| hit.id.clone()).collect::<Vec<_>>();
        let scores = a.len() == b.len()
            && a.iter()
                .zip(&b)
                .all(|(one, other)| (one.score - other.score).abs() < EPSILON);
        let equal = ids(&a) == ids(&b);
        let total = |name: &str| one.get(name) == many.get(name);
        let asks = request
            .get("facets")
            .is_some_and(|facets| !facets.is_null());
        let facets = || {
            ["facetDistribution", "facetStats"]
                .iter()
                .all(|name| one.get(*name) == many.get(*name))
        };
        Self {
            hits: equal,
            scores,
            same: equal || scores && groups(&a, request) == groups(&b, request),
            totals: total("estimatedTotalHits") && total("totalHits"),
            facets: asks.then(facets),
        }
    }

    /// Whether nothing differs but the order of equal hits.
    pub(super) fn is_alike(self) -> bool {
        self.same && self.scores && self.totals && self.facets != Some(false)
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Hit {
    id: String,
    score: f64,
}

fn hits(answer: &Value, primary_key: &str) -> Vec<Hit> {
    let hits = answer.get("hits").and_then(Value::as_array);
    let hit = |hit: &Value| {
        let id = hit
            .as_object()
            .and_then(|fields| super::super::digest::id_in(fields, primary_key));
        Hit {
            id: id.unwrap_or_default(),
            score: hit
                .get("_rankingScore")
                .and_then(Value::as_f64)
                .unwrap_or(-1.0),
        }
    };
    hits.into_iter().flatten().map(hit).collect()
}

/// The ids of each group of equal hits. The last group, and the first of a later page, may have members on other pages; of those
/// only the size is compared.
fn groups(hits: &[Hit], request: &Value) -> Vec<(usize, BTreeSet<String>)> {
    let number = |name: &str| request.get(name).and_then(Value::as_u64).unwrap_or(0);
    let begins_within = number("offset") > 0 || number("page") > 1;
    let size = [number("hitsPerPage"), number("limit")];
    let limit = size.into_iter().find(|size| *size > 0).unwrap_or(20);
    let is_full = hits.len() as u64 >= limit;
    let mut groups: Vec<(f64, usize, BTreeSet<String>)> = Vec::new();
    for hit in hits {
        match groups.last_mut() {
            Some((score, count, ids)) if (*score - hit.score).abs() < EPSILON => {
                *count += 1;
                ids.insert(hit.id.clone());
            }
            _ => groups.push((hit.score, 1, BTreeSet::from([hit.id.clone()]))),
        }
    }
    if is_full && let Some((.., ids)) = groups.last_mut() {
        ids.clear();
    }
    if begins_within && let Some((.., ids)) = groups.first_mut() {
        ids.clear();
    }
    groups
        .into_iter()
        .map(|(_, count, ids)| (count, ids))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(hits: &[(u64, f64)], total: u64) -> Value {
        let hits: Vec<Value> = hits
            .iter()
            .map(|(id, score)| json!({"id": id, "_rankingScore": score}))
            .collect();
        json!({"hits": hits, "estimatedTotalHits": total})
    }

    fn verdict(one: &Value, many: &Value) -> Verdict {
        Verdict::of(one, many, &json!({"limit": 3}), "id")
    }

    #[test]
    fn equal_answers_are_alike() {
        let one = answer(&[(1, 0.9), (2, 0.5)], 2);
        let found = verdict(&one, &one);
        assert!(found.is_alike() && found.hits && found.facets.is_none());
    }

    #[test]
    fn the_order_of_equal_hits_counts_for_hits_alone() {
        let one = answer(&[(1, 0.9), (2, 0.9)], 2);
        let found = verdict(&one, &answer(&[(2, 0.9), (1, 0.9)], 2));
        assert!(!found.hits && found.scores && found.same && found.is_alike());
    }

    #[test]
    fn other_documents_in_a_complete_group_are_a_difference() {
        let one = answer(&[(1, 0.9), (2, 0.5)], 2);
        let found = verdict(&one, &answer(&[(3, 0.9), (2, 0.5)], 2));
        assert!(found.scores && !found.same && !found.is_alike());
    }

    #[test]
    fn the_last_group_of_a_full_page_may_have_other_documents() {
        let one = answer(&[(1, 0.9), (2, 0.5), (3, 0.5)], 9);
        let found = verdict(&one, &answer(&[(1, 0.9), (4, 0.5), (3, 0.5)], 9));
        assert!(!found.hits && found.same);
        let shorter = answer(&[(1, 0.9), (2, 0.5)], 9);
        let found = verdict(&shorter, &answer(&[(1, 0.9), (4, 0.5)], 9));
        assert!(!found.same, "a page that isn't full shows whole groups");
    }

    #[test]
    fn scores_totals_and_facets_are_told_apart() {
        let one = answer(&[(1, 0.9)], 2);
        let found = verdict(&one, &answer(&[(1, 0.8)], 2));
        assert!(found.hits && !found.scores && !found.is_alike());
        let found = verdict(&one, &answer(&[(1, 0.9)], 3));
        assert!(found.hits && found.scores && !found.totals);
        let (mut a, mut b) = (one.clone(), one);
        a["facetDistribution"] = json!({"year": {"1979": 1}});
        b["facetDistribution"] = json!({"year": {"1979": 2}});
        let request = json!({"facets": ["year"]});
        assert_eq!(Verdict::of(&a, &b, &request, "id").facets, Some(false));
        assert_eq!(Verdict::of(&a, &a, &request, "id").facets, Some(true));
    }

    #[test]
    fn a_query_that_both_refuse_alike_is_equal() {
        let (one, other) = (json!({"code": "a"}), json!({"code": "b"}));
        assert!(verdict(&one, &one).is_alike());
        assert!(!verdict(&one, &other).is_alike());
        assert!(!verdict(&one, &answer(&[], 0)).is_alike());
    }
}
