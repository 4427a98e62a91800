//! Runs a query on the engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use milli_core::heed::RoTxn;
use milli_core::score_details::ScoringStrategy;
use milli_core::vector::Embedder;
use milli_core::{
    AscDesc, AscDescError, Filter, Index, Search, SearchResult, SortError, TimeBudget, UserError,
};
use serde_json::Value;

use super::{DEFAULT_LIMIT, Hybrid, Query};
use crate::engine::embedders;
use crate::engine::settings::read::max_total_hits;
use crate::errors::{ApiError, ApiResult, Code};

/// The time limit for ranking one search, unless the index sets another.
const CUTOFF: Duration = Duration::from_millis(1500);
/// The time limit for a service to make a query's vector.
const EMBEDDING_DEADLINE: Duration = Duration::from_secs(3);

/// The part of the hits that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    /// The number of hits to skip.
    pub(crate) offset: usize,
    /// The most hits.
    pub(crate) limit: usize,
}

impl Page {
    /// The part that a query asks for, within its index's limit.
    pub(crate) fn of(query: &Query, most: usize) -> Page {
        let (offset, limit) = if query.is_paged() {
            let limit = query.hits_per_page.unwrap_or(DEFAULT_LIMIT);
            // Page 0 has no hits.
            match query.page.unwrap_or(1).checked_sub(1) {
                Some(before) => (limit.saturating_mul(before), limit),
                None => (0, 0),
            }
        } else {
            (
                query.offset.unwrap_or(0),
                query.limit.unwrap_or(DEFAULT_LIMIT),
            )
        };
        let offset = offset.min(most);
        Page {
            offset,
            limit: limit.min(most - offset),
        }
    }
}

/// What the engine found.
pub(crate) struct Found {
    /// The documents with their scores, and the set of all that match.
    pub(crate) result: SearchResult,
    /// How many hits the semantic part gave; `None` if there was no semantic part.
    pub(crate) semantic_hits: Option<u32>,
}

impl Found {
    /// How many documents match. Like the server, this ignores the limit up to which pages reach.
    pub(crate) fn total(&self) -> usize {
        usize::try_from(self.result.candidates.len()).unwrap_or(usize::MAX)
    }
}

/// A parsed query, ready to run.
pub(crate) struct Prepared<'a> {
    uid: &'a str,
    /// The engine's search.
    pub(crate) search: Search<'a>,
    semantic: Semantic,
}

enum Semantic {
    Nothing,
    All,
    Part(f32),
}

impl<'a> Prepared<'a> {
    /// Parses a query. Any error in it is found here or in [`Prepared::run`].
    ///
    /// `page` replaces the query's own part of the hits; with `detailed`, scores are kept even if the query doesn't ask for them.
    pub(crate) fn new(
        uid: &'a str,
        index: &'a Index,
        rtxn: &'a RoTxn<'a>,
        query: &'a Query,
        page: Option<Page>,
        detailed: bool,
    ) -> ApiResult<Prepared<'a>> {
        let page = match page {
            Some(page) => page,
            None => Page::of(query, max_total_hits(index, rtxn)?),
        };
        let mut search = index.search(rtxn);
        search.time_budget(budget(index, rtxn)?);
        let semantic = set_words_and_vector(&mut search, index, rtxn, query)?;
        search
            .terms_matching_strategy(query.matching_strategy)
            .offset(page.offset)
            .limit(page.limit);
        search.exhaustive_number_hits(query.is_paged());
        let scored = detailed
            || query.show_ranking_score
            || query.show_ranking_score_details
            || query.ranking_score_threshold.is_some();
        search.scoring_strategy(if scored {
            ScoringStrategy::Detailed
        } else {
            ScoringStrategy::Skip
        });
        if let Some(threshold) = query.ranking_score_threshold {
            search.ranking_score_threshold(threshold);
        }
        if let Some(attributes) = &query.attributes_to_search_on {
            search.searchable_attributes(attributes);
        }
        if let Some(distinct) = &query.distinct {
            search.distinct(distinct.clone());
        }
        if let Some(filter) = &query.filter
            && let Some(filter) = parse_filter(filter, Code::InvalidSearchFilter)?
        {
            search.filter(filter);
        }
        if let Some(sort) = &query.sort {
            search.sort_criteria(parse_sort(sort)?);
        }
        if let Some(locales) = &query.locales {
            search.locales(
                locales
                    .iter()
                    .filter_map(|locale| locale.language())
                    .collect(),
            );
        }
        Ok(Prepared {
            uid,
            search,
            semantic,
        })
    }

    /// Runs the query.
    pub(crate) fn run(&self) -> ApiResult<Found> {
        let found = match self.semantic {
            Semantic::Nothing => self.search.execute().map(|result| (result, None)),
            Semantic::All => self.search.execute().map(|result| {
                let hits = u32::try_from(result.document_scores.len()).unwrap_or(u32::MAX);
                (result, Some(hits))
            }),
            Semantic::Part(ratio) => self.search.execute_hybrid(ratio),
        };
        let (result, semantic_hits) = found.map_err(|error| ApiError::of_index(self.uid, error))?;
        Ok(Found {
            result,
            semantic_hits,
        })
    }

    /// True if vectors are used.
    pub(crate) fn is_hybrid(&self) -> bool {
        !matches!(self.semantic, Semantic::Nothing)
    }
}

fn budget(index: &Index, rtxn: &RoTxn) -> ApiResult<TimeBudget> {
    Ok(TimeBudget::new(
        index
            .search_cutoff(rtxn)?
            .map_or(CUTOFF, Duration::from_millis),
    ))
}

/// Sets the search's words, its vector or both; returns the semantic share.
fn set_words_and_vector(
    search: &mut Search,
    index: &Index,
    rtxn: &RoTxn,
    query: &Query,
) -> ApiResult<Semantic> {
    let words = query.q.as_deref();
    let has_words = words.is_some_and(|words| !words.trim().is_empty());
    let Some(hybrid) = &query.hybrid else {
        if let Some(words) = words {
            search.query(words);
        }
        return Ok(Semantic::Nothing);
    };
    let (embedder, quantized) = embedder(index, rtxn, hybrid, query.vector.as_deref())?;
    let is_placeholder = !has_words && query.vector.is_none();
    if hybrid.ratio == 0.0 || is_placeholder {
        if let Some(words) = words {
            search.query(words);
        }
        return Ok(Semantic::Nothing);
    }
    if hybrid.ratio == 1.0 || !has_words {
        let vector = match &query.vector {
            Some(vector) => vector.clone(),
            None => embedder
                .embed_search(
                    words.unwrap_or_default(),
                    Some(Instant::now() + EMBEDDING_DEADLINE),
                )
                .map_err(|error| milli_core::Error::from(milli_core::vector::Error::from(error)))?,
        };
        search.semantic(hybrid.embedder.clone(), embedder, quantized, Some(vector));
        return Ok(Semantic::All);
    }
    search.query(words.unwrap_or_default());
    search.semantic(
        hybrid.embedder.clone(),
        embedder,
        quantized,
        query.vector.clone(),
    );
    Ok(Semantic::Part(hybrid.ratio))
}

fn embedder(
    index: &Index,
    rtxn: &RoTxn,
    hybrid: &Hybrid,
    vector: Option<&[f32]>,
) -> ApiResult<(Arc<Embedder>, bool)> {
    let embedders = embedders::of_index(index, rtxn)?;
    let (embedder, _, quantized) = embedders.get(&hybrid.embedder).ok_or_else(|| {
        milli_core::Error::from(UserError::InvalidSearchEmbedder(hybrid.embedder.clone()))
    })?;
    let expected = embedder.dimensions();
    match vector.map(<[f32]>::len) {
        Some(found) if found != expected => Err(milli_core::Error::from(
            UserError::InvalidVectorDimensions { expected, found },
        )
        .into()),
        _ => Ok((embedder, quantized)),
    }
}

/// Reads a filter in any of its forms; an empty filter is none.
pub(crate) fn parse_filter(filter: &Value, code: Code) -> ApiResult<Option<Filter<'_>>> {
    Filter::from_json(filter).map_err(|error| ApiError::from(error).with_code(code))
}

/// Reads sort criteria.
pub(crate) fn parse_sort(criteria: &[String]) -> ApiResult<Vec<AscDesc>> {
    let read = |text: &String| {
        text.parse().map_err(|error: AscDescError| {
            ApiError::from(milli_core::Error::from(UserError::SortError(
                SortError::from(error),
            )))
        })
    };
    criteria.iter().map(read).collect()
}
