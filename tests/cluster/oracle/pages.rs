//! Pages that add up: no document twice, none lost, and the same as one long page.

use serde_json::{Value, json};

use super::member;
use crate::data::DataSet;
use crate::{Api, HarnessError};

/// What became of the pages of one query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PagesVerdict {
    /// Ids that stand on two pages.
    pub twice: Vec<String>,
    /// True where the pages, one after the other, are the long page.
    pub adds_up: bool,
}

/// Asks for `pages` pages of `per_page` hits, and for all of them at once.
///
/// # Errors
/// No answer.
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
        // Every other page by number, the rest by offset: both count the same hits.
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
