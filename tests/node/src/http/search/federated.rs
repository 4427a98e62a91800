//! Federated search: the hits of several queries become one list, by their weighted scores.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::response::IntoResponse;
use milli_core::heed::{RoTxn, WithoutTls};
use milli_core::score_details::{ScoreDetails, WeightedScoreValue};
use milli_core::{Index, MatchingWords, OrderBy};
use roaring::RoaringBitmap;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::multi::{inside, restricted};
use super::shapes::{Federation, MergeFacets, SearchOfIndex};
use super::{Answer, Call, blocking};
use crate::auth::Grant;
use crate::engine::search::{
    DEFAULT_LIMIT, Facets, Found, HitMaker, Page, Prepared, Query, facets_of,
};
use crate::engine::settings::read::{max_total_hits, max_values_per_facet};
use crate::errors::{ApiError, ApiResult, Code};
use crate::node::Node;

/// One of the queries.
struct Part {
    uid: String,
    query: Query,
    weight: f64,
    position: usize,
}

pub(super) async fn answer(
    call: Call,
    grant: Grant,
    federation: Federation,
    queries: Vec<SearchOfIndex>,
) -> Answer {
    if federation.distinct.is_some() {
        return Err(ApiError::not_implemented("`federation.distinct`"));
    }
    if federation.show_performance_details {
        return Err(ApiError::not_implemented("`showPerformanceDetails`"));
    }
    if federation.personalize.is_some() {
        return Err(ApiError::not_implemented("`federation.personalize`"));
    }
    let mut parts = Vec::new();
    for (position, query) in queries.into_iter().enumerate() {
        parts.push(part(&grant, position, query).map_err(|error| inside(position, error))?);
    }
    let node = Arc::clone(&call.node);
    let _turn = call.node.turns.take().await?;
    let found = blocking(move || run(&node, &federation, &parts)).await?;
    Ok(Json(found).into_response())
}

fn part(grant: &Grant, position: usize, query: SearchOfIndex) -> ApiResult<Part> {
    let paging = [
        (query.limit.is_some(), "limit"),
        (query.offset.is_some(), "offset"),
        (query.page.is_some(), "page"),
        (query.hits_per_page.is_some(), "hitsPerPage"),
    ];
    if let Some((_, name)) = paging.iter().find(|(is_set, _)| *is_set) {
        return Err(ApiError::new(
            Code::InvalidMultiSearchQueryPagination,
            format!(
                "Using pagination options is not allowed in federated queries.\n - Hint: remove `{name}` from the \
                 query or remove `federation` from the request\n - Hint: pass `federation.limit` and \
                 `federation.offset` for pagination in federated search"
            ),
        ));
    }
    let uid = query.index_uid.0.clone();
    if let Some(facets) = &query.facets {
        return Err(ApiError::new(
            Code::InvalidMultiSearchQueryFacets,
            format!(
                "Using facet options is not allowed in federated queries.\n - Hint: remove `facets` from the query or \
                 remove `federation` from the request\n - Hint: pass `federation.facetsByIndex.{uid}: {facets:?}` for \
                 facets in federated search"
            ),
        ));
    }
    let options = query.federation_options.clone();
    if options
        .as_ref()
        .is_some_and(|options| options.remote.is_some())
    {
        return Err(ApiError::not_implemented("`federationOptions.remote`"));
    }
    let weight = options.as_ref().map_or(1.0, |options| options.weight.0);
    let position = options
        .and_then(|options| options.query_position)
        .unwrap_or(position);
    let query = restricted(grant, &uid, query.into_query())?;
    Ok(Part {
        uid,
        query,
        weight,
        position,
    })
}

/// A hit before it is made: where it comes from and what it weighs.
struct Candidate<'a> {
    part: usize,
    place: usize,
    document: u32,
    scores: &'a [ScoreDetails],
    weight: f64,
}

fn run(node: &Node, federation: &Federation, parts: &[Part]) -> ApiResult<Value> {
    let start = Instant::now();
    let wanted = page_of(federation);
    let mut indexes: BTreeMap<&str, Index> = BTreeMap::new();
    for (place, part) in parts.iter().enumerate() {
        indexes.insert(
            &part.uid,
            node.indexes
                .get(&part.uid)
                .map_err(|error| inside(place, error))?,
        );
    }
    let mut rtxns: BTreeMap<&str, RoTxn<'_, WithoutTls>> = BTreeMap::new();
    for (uid, index) in &indexes {
        rtxns.insert(uid, index.read_txn()?);
    }
    let mut found = Vec::new();
    for (place, part) in parts.iter().enumerate() {
        let (Some(index), Some(rtxn)) =
            (indexes.get(part.uid.as_str()), rtxns.get(part.uid.as_str()))
        else {
            continue;
        };
        let page = Page {
            offset: 0,
            limit: wanted.offset.saturating_add(wanted.limit),
            most: usize::MAX,
        };
        let result = super::check_features(node, &part.query).and_then(|()| {
            Prepared::new(&part.uid, index, rtxn, &part.query, Some(page), true)?.run()
        });
        found.push(result.map_err(|error| inside(place, error))?);
    }
    let words = found
        .iter_mut()
        .map(|found| std::mem::take(&mut found.result.matching_words))
        .collect();
    let chosen = merge(parts, &found, wanted);
    let hits = make_hits(parts, &indexes, &rtxns, words, &chosen)?;
    let mut answer = Map::new();
    answer.insert("hits".to_owned(), json!(hits));
    answer.insert(
        "processingTimeMs".to_owned(),
        json!(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)),
    );
    let candidates = candidates_of(parts, &found);
    let mut total = 0;
    for (uid, documents) in &candidates {
        if let (Some(index), Some(rtxn)) = (indexes.get(uid), rtxns.get(uid)) {
            total += usize::try_from(documents.len())
                .unwrap_or(usize::MAX)
                .min(max_total_hits(index, rtxn)?);
        }
    }
    show_page(&mut answer, federation, wanted, total);
    show_facets(&mut answer, federation, node, &candidates)?;
    answer.insert("requestUid".to_owned(), json!(Uuid::now_v7()));
    if found.iter().any(|found| found.semantic_hits.is_some()) {
        let is_semantic = |candidate: &&Candidate| {
            candidate
                .scores
                .iter()
                .any(|score| matches!(score, ScoreDetails::Vector(_)))
        };
        answer.insert(
            "semanticHitCount".to_owned(),
            json!(chosen.iter().filter(is_semantic).count()),
        );
    }
    Ok(Value::Object(answer))
}

fn page_of(federation: &Federation) -> Page {
    let most = usize::MAX;
    if federation.page.or(federation.hits_per_page).is_none() {
        return Page {
            offset: federation.offset,
            limit: federation.limit,
            most,
        };
    }
    let limit = federation.hits_per_page.unwrap_or(DEFAULT_LIMIT);
    match federation.page.unwrap_or(1).checked_sub(1) {
        Some(before) => Page {
            offset: limit.saturating_mul(before),
            limit,
            most,
        },
        None => Page {
            offset: 0,
            limit: 0,
            most,
        },
    }
}

fn show_page(answer: &mut Map<String, Value>, federation: &Federation, page: Page, total: usize) {
    if federation.page.or(federation.hits_per_page).is_some() {
        let pages = if page.limit == 0 {
            0
        } else {
            total.div_ceil(page.limit)
        };
        answer.insert(
            "hitsPerPage".to_owned(),
            json!(federation.hits_per_page.unwrap_or(DEFAULT_LIMIT)),
        );
        answer.insert("page".to_owned(), json!(federation.page.unwrap_or(1)));
        answer.insert("totalPages".to_owned(), json!(pages));
        answer.insert("totalHits".to_owned(), json!(total));
    } else {
        answer.insert("limit".to_owned(), json!(page.limit));
        answer.insert("offset".to_owned(), json!(page.offset));
        answer.insert("estimatedTotalHits".to_owned(), json!(total));
    }
}

/// The hits of all queries in one order, each document of an index once.
fn merge<'a>(parts: &[Part], found: &'a [Found], page: Page) -> Vec<Candidate<'a>> {
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

fn weighted(candidate: &Candidate) -> f64 {
    ScoreDetails::global_score(candidate.scores.iter()) * candidate.weight
}

fn make_hits(
    parts: &[Part],
    indexes: &BTreeMap<&str, Index>,
    rtxns: &BTreeMap<&str, RoTxn<'_, WithoutTls>>,
    words: Vec<MatchingWords>,
    chosen: &[Candidate],
) -> ApiResult<Vec<Value>> {
    let mut hits: BTreeMap<(usize, usize), Value> = BTreeMap::new();
    for (number, (part, words)) in parts.iter().zip(words).enumerate() {
        let mine: Vec<&Candidate> = chosen
            .iter()
            .filter(|candidate| candidate.part == number)
            .collect();
        let (Some(index), Some(rtxn)) =
            (indexes.get(part.uid.as_str()), rtxns.get(part.uid.as_str()))
        else {
            continue;
        };
        let maker = HitMaker::new(index, rtxn, &part.query)?;
        let documents: Vec<u32> = mine.iter().map(|candidate| candidate.document).collect();
        let scores: Vec<Vec<ScoreDetails>> = mine
            .iter()
            .map(|candidate| candidate.scores.to_vec())
            .collect();
        let made = maker.make_some(words, &documents, &scores)?;
        for (candidate, mut hit) in mine.into_iter().zip(made) {
            let federation = json!({
                "indexUid": part.uid,
                "queriesPosition": part.position,
                "weightedRankingScore": weighted(candidate),
            });
            hit.insert("_federation".to_owned(), federation);
            hits.insert((number, candidate.place), Value::Object(hit));
        }
    }
    Ok(chosen
        .iter()
        .filter_map(|candidate| hits.remove(&(candidate.part, candidate.place)))
        .collect())
}

fn candidates_of<'a>(parts: &'a [Part], found: &[Found]) -> BTreeMap<&'a str, RoaringBitmap> {
    let mut candidates: BTreeMap<&str, RoaringBitmap> = BTreeMap::new();
    for (part, found) in parts.iter().zip(found) {
        *candidates.entry(&part.uid).or_default() |= &found.result.candidates;
    }
    candidates
}

fn show_facets(
    answer: &mut Map<String, Value>,
    federation: &Federation,
    node: &Node,
    candidates: &BTreeMap<&str, RoaringBitmap>,
) -> ApiResult<()> {
    let mut all: Vec<(String, Facets)> = Vec::new();
    let mut order = Orders::default();
    for (uid, names) in &federation.facets_by_index {
        let Some(names) = names else { continue };
        let inside = |error: ApiError| {
            error.prefixed(&format!("Inside `.federation.facetsByIndex.{uid}`: "))
        };
        let index = node.indexes.get(uid).map_err(inside)?;
        let rtxn = index.read_txn()?;
        let documents = candidates.get(uid.as_str()).cloned().unwrap_or_default();
        let most = federation
            .merge_facets
            .as_ref()
            .and_then(|merge| merge.max_values_per_facet);
        let facets = facets_of(&index, &rtxn, names, documents, most).map_err(inside)?;
        if federation.merge_facets.is_some() {
            order.learn(uid, &index, &rtxn, &facets)?;
        }
        all.push((uid.clone(), facets));
    }
    match &federation.merge_facets {
        Some(merge) if !all.is_empty() => {
            let (distribution, stats) = merged(all, &order, merge);
            answer.insert("facetDistribution".to_owned(), distribution);
            answer.insert("facetStats".to_owned(), stats);
        }
        None if !all.is_empty() => {
            let views = all.into_iter().map(|(uid, facets)| {
                (uid, json!({ "distribution": facets.distribution_view(), "stats": facets.stats_view() }))
            });
            answer.insert("facetsByIndex".to_owned(), Value::Object(views.collect()));
        }
        _ => {}
    }
    Ok(())
}

/// How the indexes order the values of each facet, which must be the same in all.
#[derive(Default)]
struct Orders {
    by_facet: BTreeMap<String, (String, OrderBy)>,
    most: Option<usize>,
}

impl Orders {
    fn learn(&mut self, uid: &str, index: &Index, rtxn: &RoTxn, facets: &Facets) -> ApiResult<()> {
        let orders = index.sort_facet_values_by(rtxn)?;
        let most = max_values_per_facet(index, rtxn)?;
        self.most = Some(self.most.map_or(most, |known| known.min(most)));
        for facet in facets.distribution.keys() {
            let order = orders.get(facet);
            let (previous_uid, previous) = self
                .by_facet
                .entry(facet.clone())
                .or_insert_with(|| (uid.to_owned(), order));
            if *previous != order {
                return Err(ApiError::new(
                    Code::InvalidMultiSearchFacetOrder,
                    format!(
                        "Inconsistent order for values in facet `{facet}`: index `{previous_uid}` orders {previous}, \
                         but index `{uid}` orders {order}.\n - Hint: Remove `federation.mergeFacets` or change \
                         `faceting.sortFacetValuesBy` to be consistent in settings."
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn merged(all: Vec<(String, Facets)>, orders: &Orders, merge: &MergeFacets) -> (Value, Value) {
    let mut sums: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut stats: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (_, facets) in all {
        for (facet, values) in facets.distribution {
            let sums = sums.entry(facet).or_default();
            for (value, count) in values {
                *sums.entry(value).or_default() += count;
            }
        }
        for (facet, (min, max)) in facets.stats {
            let known = stats.entry(facet).or_insert((min, max));
            *known = (known.0.min(min), known.1.max(max));
        }
    }
    let most = merge
        .max_values_per_facet
        .or(orders.most)
        .unwrap_or(usize::MAX);
    let mut distribution = BTreeMap::new();
    for (facet, sums) in sums {
        let mut values: Vec<(String, u64)> = sums.into_iter().collect();
        if orders
            .by_facet
            .get(&facet)
            .is_some_and(|(_, order)| *order == OrderBy::Count)
        {
            values.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        }
        values.truncate(most);
        distribution.insert(facet, values);
    }
    let facets = Facets {
        distribution,
        stats,
    };
    (facets.distribution_view(), facets.stats_view())
}
