//! The demo's searches.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use weft_cluster::Api;
use weft_cluster::data::DataSet;

/// A search, and the fields of its hits that are shown.
pub(super) struct Search {
    pub(super) about: &'static str,
    pub(super) parameters: Value,
    /// Fields that the search sorts by: documents with different values in them don't have equal rank.
    pub(super) sorted_by: &'static [&'static str],
}

/// An answer, and the time that it took.
pub(super) struct Answer {
    pub(super) body: Value,
    pub(super) took: Duration,
}

/// The searches for a data set.
pub(super) fn of(set: &DataSet) -> Vec<Search> {
    let search = |about, parameters| Search {
        about,
        parameters,
        sorted_by: &[],
    };
    let sorted = |sorted_by, about, parameters| Search {
        about,
        parameters,
        sorted_by,
    };
    match set.index {
        "movies" => vec![
            search("two words", json!({ "q": "star wars" })),
            search("a typo", json!({ "q": "godfahter" })),
            search(
                "a filter and facets",
                json!({ "q": "love", "filter": "rating > 7", "facets": ["genre", "mpaa", "rating"] }),
            ),
            sorted(
                &["votes"],
                "sorted, without a query",
                json!({ "q": "", "sort": ["votes:desc"] }),
            ),
            search(
                "the third page",
                json!({ "q": "the", "page": 3, "hitsPerPage": 5 }),
            ),
        ],
        "airports" => vec![
            sorted(
                &["_geoDistance"],
                "the nearest to Times Square",
                json!({ "q": "", "sort": ["_geoPoint(40.758,-73.9855):asc"] }),
            ),
            search(
                "within 80 km of San Francisco, by state",
                json!({ "q": "international", "filter": "_geoRadius(37.7749,-122.4194,80000)", "facets": ["state"] }),
            ),
        ],
        _ => vec![
            search("two words", json!({ "q": "video editor" })),
            search("a typo", json!({ "q": "imgae viewer" })),
            search(
                "facets",
                json!({ "q": "python library", "facets": ["section", "priority"] }),
            ),
            sorted(
                &["installed_size"],
                "the largest games",
                json!({ "q": "", "filter": "section = games", "sort": ["installed_size:desc"] }),
            ),
            search("a word that isn't finished", json!({ "q": "postgr" })),
        ],
    }
}

impl Search {
    pub(super) async fn run(&self, api: &Api, set: &DataSet) -> Result<Answer> {
        let mut parameters = self.parameters.clone();
        parameters["showRankingScore"] = true.into();
        if parameters.get("page").is_none() {
            parameters["limit"] = 5.into();
        }
        let began = Instant::now();
        let reply = api
            .post(&format!("/indexes/{}/search", set.index), &parameters)
            .await?;
        let took = began.elapsed();
        if reply.status != 200 {
            bail!(
                "the search for {} answers {}: {}",
                self.parameters,
                reply.status,
                reply.text
            );
        }
        Ok(Answer {
            body: reply.body,
            took,
        })
    }
}
