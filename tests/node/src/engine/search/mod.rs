//! Searching: from a query to the hits that a client sees.

mod facets;
mod format;
mod hits;
mod run;
mod scores;
mod similar;

pub(crate) use facets::{FacetQuery, Facets, facet_search, facets_of};
pub(crate) use hits::HitMaker;
pub(crate) use run::{Found, Page, Prepared, parse_filter};
pub(crate) use similar::{SimilarQuery, similar};

use std::collections::{BTreeSet, HashSet};

use milli_core::TermsMatchingStrategy;
use serde_json::Value;

use super::locales::Locale;

/// The number of hits on a page by default.
pub(crate) const DEFAULT_LIMIT: usize = 20;

/// A search, independent of the route by which it came.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub(crate) struct Query {
    pub(crate) q: Option<String>,
    pub(crate) offset: Option<usize>,
    pub(crate) limit: Option<usize>,
    pub(crate) page: Option<usize>,
    pub(crate) hits_per_page: Option<usize>,
    pub(crate) attributes_to_retrieve: Option<BTreeSet<String>>,
    pub(crate) attributes_to_crop: Option<Vec<String>>,
    pub(crate) crop_length: usize,
    pub(crate) crop_marker: String,
    pub(crate) attributes_to_highlight: Option<HashSet<String>>,
    pub(crate) highlight_pre_tag: String,
    pub(crate) highlight_post_tag: String,
    pub(crate) show_matches_position: bool,
    pub(crate) filter: Option<Value>,
    pub(crate) sort: Option<Vec<String>>,
    pub(crate) distinct: Option<String>,
    pub(crate) facets: Option<Vec<String>>,
    pub(crate) matching_strategy: TermsMatchingStrategy,
    pub(crate) attributes_to_search_on: Option<Vec<String>>,
    pub(crate) ranking_score_threshold: Option<f64>,
    pub(crate) locales: Option<Vec<Locale>>,
    pub(crate) hybrid: Option<Hybrid>,
    pub(crate) vector: Option<Vec<f32>>,
    pub(crate) retrieve_vectors: bool,
    pub(crate) show_ranking_score: bool,
    pub(crate) show_ranking_score_details: bool,
    pub(crate) show_performance_details: bool,
}

/// The semantic part of a search.
#[derive(Debug, Clone)]
pub(crate) struct Hybrid {
    /// The semantic share of the search: 0 for none, 1 for all.
    pub(crate) ratio: f32,
    /// The embedder's name.
    pub(crate) embedder: String,
}

impl Query {
    /// Adds a filter that every hit must match in addition to the query's own filter.
    pub(crate) fn restrict(&mut self, rule: Option<Value>) {
        let as_list = |filter: Value| match filter {
            Value::Array(list) => list,
            filter => vec![filter],
        };
        self.filter = match (self.filter.take(), rule) {
            (Some(filter), Some(rule)) => {
                Some(Value::Array([as_list(filter), as_list(rule)].concat()))
            }
            (filter, rule) => filter.or(rule),
        };
    }

    /// True if pages are numbered and the number of hits is exact.
    pub(crate) fn is_paged(&self) -> bool {
        self.page.or(self.hits_per_page).is_some()
    }
}
