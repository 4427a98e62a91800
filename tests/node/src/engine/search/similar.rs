//! Documents whose vectors are close to a document's vector.

use milli_core::heed::RoTxn;
use milli_core::{Index, Similar, UserError};
use serde_json::Value;

use super::run::{Found, parse_filter};
use crate::engine::embedders;
use crate::engine::settings::read::max_total_hits;
use crate::errors::{ApiError, ApiResult, Code};

/// A search for similar documents.
#[derive(Debug, Clone)]
pub(crate) struct SimilarQuery {
    /// The document's id.
    pub(crate) id: String,
    /// The embedder whose vectors are compared.
    pub(crate) embedder: String,
    /// The number of hits to skip.
    pub(crate) offset: usize,
    /// The most hits.
    pub(crate) limit: usize,
    /// A filter that hits must match.
    pub(crate) filter: Option<Value>,
    /// The score that hits must reach.
    pub(crate) threshold: Option<f64>,
}

/// Finds the documents whose vectors are closest to a document's vector.
pub(crate) fn similar(index: &Index, rtxn: &RoTxn, query: &SimilarQuery) -> ApiResult<Found> {
    let embedders = embedders::of_index(index, rtxn)?;
    let (embedder, _, quantized) = embedders.get(&query.embedder).ok_or_else(|| {
        milli_core::Error::from(UserError::InvalidSimilarEmbedder(query.embedder.clone()))
    })?;
    let internal = index
        .external_documents_ids()
        .get(rtxn, &query.id)?
        .ok_or_else(|| {
            ApiError::new(
                Code::NotFoundSimilarId,
                format!("Document `{}` not found.", query.id),
            )
        })?;
    let most = max_total_hits(index, rtxn)?;
    let offset = query.offset.min(most);
    let mut similar = Similar::new(
        internal,
        offset,
        query.limit.min(most - offset),
        index,
        rtxn,
        query.embedder.clone(),
        embedder,
        quantized,
    );
    if let Some(filter) = &query.filter
        && let Some(filter) = parse_filter(filter, Code::InvalidSimilarFilter)?
    {
        similar.filter(filter);
    }
    if let Some(threshold) = query.threshold {
        similar.ranking_score_threshold(threshold);
    }
    let result = similar.execute().map_err(|error| {
        let error = ApiError::from(error);
        if error.code == Code::InvalidSearchFilter.name() {
            error.with_code(Code::InvalidSimilarFilter)
        } else {
            error
        }
    })?;
    Ok(Found {
        result,
        semantic_hits: None,
    })
}
