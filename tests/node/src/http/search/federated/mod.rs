//! Federated search: merges the hits of several queries into one list, by their weighted scores.

mod facets;
mod order;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::response::IntoResponse;
use milli_core::heed::{RoTxn, WithoutTls};
use milli_core::score_details::ScoreDetails;
use milli_core::{Index, MatchingWords};
use roaring::RoaringBitmap;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::multi::{inside, restricted};
use super::shapes::{Federation, SearchOfIndex};
use super::{Answer, Call, blocking, check_features, took};
use crate::auth::Grant;
use crate::engine::documents::Reader;
use crate::engine::search::{DEFAULT_LIMIT, Found, HitMaker, Page, Prepared, Query};
use crate::engine::settings::read::max_total_hits;
use crate::errors::{ApiError, ApiResult, Code};
use crate::node::Node;
use facets::show_facets;
use order::{Candidate, merge, values_at, weighted};

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
    if federation.personalize.is_some() {
        return Err(ApiError::not_implemented("`federation.personalize`"));
    }
    let mut parts = Vec::new();
    for (position, query) in queries.into_iter().enumerate() {
        let part = part(&grant, position, query, &federation);
        parts.push(part.map_err(|error| inside(position, error))?);
    }
    let node = Arc::clone(&call.node);
    let _turn = call.node.turns.take().await?;
    let found = blocking(move || run(&node, &federation, &parts)).await?;
    Ok(Json(found).into_response())
}

fn part(
    grant: &Grant,
    position: usize,
    mut query: SearchOfIndex,
    federation: &Federation,
) -> ApiResult<Part> {
    if let Some(distinct) = &federation.distinct {
        if query.distinct.is_some() {
            return Err(ApiError::new(
                Code::InvalidMultiSearchDistinct,
                "Using `distinct` in a query is not allowed together with `federation.distinct`.",
            ));
        }
        query.distinct = Some(distinct.clone());
    }
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
    let mut most: BTreeMap<&str, usize> = BTreeMap::new();
    let paged = federation.page.or(federation.hits_per_page).is_some();
    for (place, part) in parts.iter().enumerate() {
        let (Some(index), Some(rtxn)) =
            (indexes.get(part.uid.as_str()), rtxns.get(part.uid.as_str()))
        else {
            continue;
        };
        // No index contributes more than its limit, or more than the page needs.
        let end = wanted.offset.saturating_add(wanted.limit);
        let limit = end.min(max_total_hits(index, rtxn)?);
        most.insert(&part.uid, limit);
        let page = Page { offset: 0, limit };
        let result = check_features(node, &part.query).and_then(|()| {
            let mut prepared =
                Prepared::new(&part.uid, index, rtxn, &part.query, Some(page), true)?;
            prepared.search.exhaustive_number_hits(paged);
            prepared.run()
        });
        found.push(result.map_err(|error| inside(place, error))?);
    }
    let words = found
        .iter_mut()
        .map(|found| std::mem::take(&mut found.result.matching_words))
        .collect();
    let mut readers = BTreeMap::new();
    for (uid, index) in &indexes {
        if let Some(rtxn) = rtxns.get(uid) {
            readers.insert(*uid, Reader::new(index, rtxn)?);
        }
    }
    let values = |uid: &str, document: u32| -> ApiResult<Vec<String>> {
        match (&federation.distinct, readers.get(uid)) {
            (Some(path), Some(reader)) => Ok(values_at(&reader.read(document, false)?, path)),
            _ => Ok(Vec::new()),
        }
    };
    let (chosen, left_out) = merge(parts, &found, wanted, &most, values)?;
    let hits = make_hits(parts, &indexes, &rtxns, words, &chosen)?;
    let mut answer = Map::new();
    answer.insert("hits".to_owned(), json!(hits));
    answer.insert(
        "processingTimeMs".to_owned(),
        json!(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)),
    );
    let mut candidates = candidates_of(parts, &found);
    for (uid, document) in left_out {
        candidates.entry(uid).or_default().remove(document);
    }
    let total = candidates.values().map(RoaringBitmap::len).sum::<u64>();
    let total = usize::try_from(total).unwrap_or(usize::MAX);
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
    if federation.show_performance_details {
        answer.insert("performanceDetails".to_owned(), took("search", start));
    }
    Ok(Value::Object(answer))
}

fn page_of(federation: &Federation) -> Page {
    if federation.page.or(federation.hits_per_page).is_none() {
        return Page {
            offset: federation.offset,
            limit: federation.limit,
        };
    }
    let limit = federation.hits_per_page.unwrap_or(DEFAULT_LIMIT);
    match federation.page.unwrap_or(1).checked_sub(1) {
        Some(before) => Page {
            offset: limit.saturating_mul(before),
            limit,
        },
        None => Page {
            offset: 0,
            limit: 0,
        },
    }
}

fn show_page(answer: &mut Map<String, Value>, federation: &Federation, page: Page, total: usize) {
    if federation.page.or(federation.hits_per_page).is_some() {
        let per_page = federation.hits_per_page.unwrap_or(DEFAULT_LIMIT);
        let pages = match per_page {
            0 => 0,
            per_page => total.div_ceil(per_page),
        };
        answer.insert("hitsPerPage".to_owned(), json!(per_page));
        answer.insert("page".to_owned(), json!(federation.page.unwrap_or(1)));
        answer.insert("totalPages".to_owned(), json!(pages));
        answer.insert("totalHits".to_owned(), json!(total));
    } else {
        answer.insert("limit".to_owned(), json!(page.limit));
        answer.insert("offset".to_owned(), json!(page.offset));
        answer.insert("estimatedTotalHits".to_owned(), json!(total));
    }
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
