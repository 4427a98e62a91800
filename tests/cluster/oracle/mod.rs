//! The oracle: sends the same requests to one node and to a cluster with the same documents, and checks whether a client
//! could tell the answers apart.
//!
//! What must be equal: the sequence of ranking scores and of sort values or distances; the documents of every group of
//! equal hits that lies completely within the page (one node orders equal hits by the time of their insertion, which shards
//! can't know); totals; facets with their order and stats; the status and code of errors. The pages together must equal the whole list.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::data::DataSet;
use crate::{Api, HarnessError};

mod compare;
mod moving;
mod pages;
mod variants;

pub use compare::{Verdict, compare};
pub use moving::{RIGHT, RIGHT_OR_AT_REST, ask_while_moving};
pub use pages::{PagesVerdict, check_pages};
pub use variants::{Variant, refused, variants};

/// One line of the table: one kind of search, over all queries.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    /// The kind of search.
    pub variant: String,
    /// The number of requests.
    pub asked: usize,
    /// For each part that is compared, how many answers were equal to one node's.
    pub same: BTreeMap<&'static str, usize>,
    /// Some queries whose answers differ, with the difference.
    pub examples: Vec<(String, String)>,
}

impl Row {
    /// The share of answers whose part `what` equals one node's; `None` if it wasn't compared.
    #[allow(clippy::cast_precision_loss, reason = "thousands at most")]
    pub fn share(&self, what: &str) -> Option<f64> {
        let same = *self.same.get(what)?;
        Some(same as f64 / self.asked.max(1) as f64)
    }
}

/// The most examples per row.
const EXAMPLES: usize = 12;

/// Sends every query as one kind of search to `one` and `many`.
///
/// # Errors
/// There is no answer.
pub async fn ask(
    one: &Api,
    many: &Api,
    set: &DataSet,
    variant: &Variant,
    queries: &[String],
) -> Result<Row, HarnessError> {
    let mut row = Row {
        variant: variant.name.to_owned(),
        ..Row::default()
    };
    for query in queries {
        let (path, body) = request(set, variant, query);
        let (alone, merged) = tokio::try_join!(one.post(&path, &body), many.post(&path, &body))?;
        let verdict = compare(
            (alone.status, &alone.body),
            (merged.status, &merged.body),
            &variant.parameters,
            set.primary_key,
        );
        row.asked += 1;
        for (what, same) in &verdict.compared {
            *row.same.entry(what).or_default() += usize::from(*same);
        }
        if let Some(difference) = verdict.difference
            && row.examples.len() < EXAMPLES
        {
            row.examples.push((query.clone(), difference));
        }
    }
    Ok(row)
}

/// The path and the body of one kind of search with a query.
fn request(set: &DataSet, variant: &Variant, query: &str) -> (String, Value) {
    let mut body = Map::new();
    body.insert("q".to_owned(), json!(query));
    body.insert("showRankingScore".to_owned(), json!(true));
    body.insert("showRankingScoreDetails".to_owned(), json!(true));
    if variant.federated {
        body.insert("indexUid".to_owned(), json!(set.index));
        let body = json!({"federation": variant.parameters, "queries": [body]});
        return ("/multi-search".to_owned(), body);
    }
    let more = variant.parameters.as_object().cloned();
    body.extend(more.unwrap_or_default());
    let path = format!("/indexes/{}/search", set.index);
    (path, Value::Object(body))
}

/// Sends requests that a node refuses: status and code must be the node's.
///
/// # Errors
/// There is no answer.
pub async fn ask_refused(one: &Api, many: &Api, set: &DataSet) -> Result<Row, HarnessError> {
    let path = format!("/indexes/{}/search", set.index);
    let mut row = Row {
        variant: "errors".to_owned(),
        ..Row::default()
    };
    for body in refused() {
        let (alone, merged) = tokio::try_join!(one.post(&path, &body), many.post(&path, &body))?;
        let verdict = |reply: &crate::Reply| (reply.status, reply.body.get("code").cloned());
        let same = verdict(&alone) == verdict(&merged);
        row.asked += 1;
        *row.same.entry("status and code").or_default() += usize::from(same);
        if !same {
            row.examples.push((body.to_string(), merged.text));
        }
    }
    Ok(row)
}

/// Creates the index, sets it up and loads the documents. It adds settings that make totals comparable.
///
/// # Errors
/// A task failed, or there is no answer.
pub async fn load(api: &Api, set: &DataSet) -> Result<(), HarnessError> {
    const BATCH: usize = 10_000;
    let index = format!("/indexes/{}", set.index);
    let create = json!({"uid": set.index, "primaryKey": set.primary_key});
    api.succeed(&api.post("/indexes", &create).await?).await?;
    let mut settings = set.settings.clone();
    if let Some(settings) = settings.as_object_mut() {
        for name in ["filterableAttributes", "sortableAttributes"] {
            if let Some(Value::Array(attributes)) = settings.get_mut(name) {
                attributes.push(json!(variants::RARE));
            }
        }
        settings.insert("pagination".to_owned(), json!({"maxTotalHits": 100_000}));
        let by_count: serde_json::Map<String, Value> = compare::BY_COUNT
            .iter()
            .map(|facet| ((*facet).to_owned(), json!("count")))
            .collect();
        settings.insert(
            "faceting".to_owned(),
            json!({"sortFacetValuesBy": by_count}),
        );
    }
    let path = format!("{index}/settings");
    api.succeed(&api.json(reqwest::Method::PATCH, &path, &settings).await?)
        .await?;
    for from in (0..set.documents.len()).step_by(BATCH) {
        let ndjson = [("content-type", "application/x-ndjson")];
        let path = format!("{index}/documents");
        let sent = api
            .send(
                reqwest::Method::POST,
                &path,
                &ndjson,
                set.ndjson(from, BATCH),
            )
            .await?;
        api.succeed(&sent).await?;
    }
    let first = set
        .documents
        .first()
        .and_then(|document| document.get(set.primary_key));
    let rare = json!([{set.primary_key: first, variants::RARE: variants::ONLY_HERE}]);
    let path = format!("{index}/documents");
    let sent = api.json(reqwest::Method::PUT, &path, &rare).await?;
    api.succeed(&sent).await?;
    Ok(())
}

/// Queries for a data set: for Debian's packages, 500 queries as people type them; for other sets, queries made from the
/// documents' titles: whole titles, beginnings, unfinished last words and typos.
pub fn queries(set: &DataSet, count: usize) -> Vec<String> {
    if set.index == "packages" {
        let all: Vec<String> =
            serde_json::from_str(include_str!("queries-debian.json")).unwrap_or_default();
        return all.into_iter().take(count).collect();
    }
    let step = (set.documents.len() / count.max(1)).max(1);
    let titles = set
        .documents
        .iter()
        .step_by(step)
        .filter_map(|document| document.get(set.title)?.as_str());
    titles
        .zip(0..)
        .map(|(title, at)| as_typed(title, at))
        .take(count)
        .collect()
}

/// A title as somebody might type it; always the same for the same `place`.
fn as_typed(title: &str, place: usize) -> String {
    let words: Vec<&str> = title.split_whitespace().collect();
    let some = |count: usize| {
        words
            .iter()
            .take(count)
            .copied()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let letters: Vec<char> = some(2).chars().collect();
    match place % 5 {
        0 => some(1),
        1 => some(3),
        2 => letters
            .iter()
            .take(letters.len().saturating_sub(2).max(2))
            .collect(),
        3 if letters.len() > 5 => {
            let mut slipped = letters.clone();
            slipped.swap(2, 3);
            slipped.into_iter().collect()
        }
        _ => words.last().copied().unwrap_or_default().to_owned(),
    }
}

/// The value of a member, `null` if there is none.
fn member<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}
