//! Checks that pages add up: no document appears twice, none is lost, and together they equal one long page.

use serde_json::{Value, json};

use super::member;
use crate::data::DataSet;
use crate::{Api, HarnessError};

/// The result for the pages of one query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PagesVerdict {
    /// Ids that appear on two pages.
    pub twice: Vec<String>,
    /// True if the pages, one after the other, equal the long page.
    pub adds_up: bool,
}

/// Requests `pages` pages of `per_page` hits, and all of their hits at once.
///
/// # Errors
/// There is no answer.
pub async fn check_pages(
    api: &Api,
    set: &DataSet,
    query: &str,
    pages: usize,
    per_page: usize,
) -> Result<PagesVerdict, HarnessError> {
    let path = format!("/indexes/{}/search", set.index);
    let ids = |body: &Value| -> Vec<String> {
        let hits = member(body, "hits")
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        hits.iter()
            .map(|hit| member(hit, set.primary_key).to_string())
            .collect()
    };
    let long = api
        .post(&path, &json!({"q": query, "limit": pages * per_page}))
        .await?;
    let mut one_by_one: Vec<String> = Vec::new();
    let mut verdict = PagesVerdict::default();
    for page in 0..pages {
        // Alternates between page numbers and offsets: both count the same hits.
        let body = if page % 2 == 0 {
            json!({"q": query, "page": page + 1, "hitsPerPage": per_page})
        } else {
            json!({"q": query, "offset": page * per_page, "limit": per_page})
        };
        for id in ids(&api.post(&path, &body).await?.body) {
            if one_by_one.contains(&id) {
                verdict.twice.push(id.clone());
            }
            one_by_one.push(id);
        }
    }
    verdict.adds_up = one_by_one == ids(&long.body);
    Ok(verdict)
}
