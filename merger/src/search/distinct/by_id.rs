//! Fetches values that hits don't show, by the documents' ids: a list of documents shows all fields, even those that aren't displayed.

use http::Method;
use serde_json::{Value, json};
use weft_routing::placement::ShardId;

use super::values::{Values, values_at};
use crate::search::SearchError;
use crate::search::merge::{Merged, Source};
use crate::search::one_index::ShardHits;
use crate::search::plan::Plan;
use crate::search::scatter::{Ask, Outcome, Reader};

/// Documents as a shard lists them.
pub(in crate::search) type Documents = Vec<Value>;

/// The most documents asked for in one request.
const AT_ONCE: usize = 1000;
/// The most documents asked for in all. Beyond this, facet counts aren't corrected for documents that were left out.
const MOST: usize = 20_000;

/// The documents that a merge left out: their shard and their id.
pub(in crate::search) fn losers(
    merged: &Merged<'_>,
    lists: &[ShardHits],
) -> Option<Vec<(ShardId, String)>> {
    if merged.losers.len() > MOST {
        return None;
    }
    let loser = |(source, id): &(usize, Option<&[u8]>)| {
        let id = std::str::from_utf8((*id)?).ok()?.to_owned();
        Some((lists.get(*source)?.shard, id))
    };
    merged.losers.iter().map(loser).collect()
}

/// The distinct attribute's values of all hits in `lists` whose values aren't known yet.
///
/// # Errors
/// A shard gave no answer, or one that can't be read.
pub(in crate::search) async fn values_of_hidden(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    lists: &[ShardHits],
    known: &mut Values,
) -> Result<(), SearchError> {
    let (Some(path), Some(key)) = (plan.distinct.as_deref(), plan.primary_key.as_deref()) else {
        return Ok(());
    };
    let mut wanted = Vec::new();
    for list in lists {
        let unreadable = |error| list.unreadable(error);
        for page in &list.pages {
            let mut source = Source::new(vec![page.hits()], false);
            source.advance(&plan.interest).map_err(unreadable)?;
            while let Some(head) = source.take() {
                let id = head.id().filter(|id| !known.contains_key(*id));
                let id = id.and_then(|id| std::str::from_utf8(id).ok());
                wanted.extend(id.map(|id| (list.shard, id.to_owned())));
                source.advance(&plan.interest).map_err(unreadable)?;
            }
        }
    }
    let fields = [key.to_owned(), path.to_owned()];
    for document in fetch(reader, index, &wanted, &fields).await? {
        if let Some(id) = id_of(&document, key) {
            known.insert(id.into_bytes(), values_at(path, &document));
        }
    }
    // A document that was deleted in the meantime has no value.
    for (_, id) in wanted {
        known.entry(id.into_bytes()).or_default();
    }
    Ok(())
}

/// Fetches documents by their ids, with some of their fields.
///
/// # Errors
/// A shard gave no answer.
pub(in crate::search) async fn fetch(
    reader: &Reader<'_>,
    index: &str,
    wanted: &[(ShardId, String)],
    fields: &[String],
) -> Result<Documents, SearchError> {
    let mut shards: Vec<ShardId> = wanted.iter().map(|(shard, _)| *shard).collect();
    shards.sort_unstable();
    shards.dedup();
    let mut asks = Vec::new();
    for shard in shards {
        let of_shard = wanted.iter().filter(|(known, _)| *known == shard);
        let ids: Vec<&String> = of_shard.map(|(_, id)| id).collect();
        for ids in ids.chunks(AT_ONCE) {
            let body = json!({"ids": ids, "fields": fields, "limit": ids.len()});
            asks.push(Ask {
                shard,
                method: Method::POST,
                path_and_query: format!("/indexes/{index}/documents/fetch"),
                body: Some(serde_json::to_vec(&body).unwrap_or_default().into()),
            });
        }
    }
    if asks.is_empty() {
        return Ok(Vec::new());
    }
    // The client's key may allow searches only.
    let Outcome::Answers(gathered) = reader.on_own_authority().gather(asks).await? else {
        return Ok(Vec::new());
    };
    let mut documents = Vec::with_capacity(wanted.len());
    for reply in &gathered.replies {
        let answer = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
        if let Some(Value::Array(results)) = answer.get("results") {
            documents.extend(results.iter().cloned());
        }
    }
    Ok(documents)
}

fn id_of(document: &Value, key: &str) -> Option<String> {
    match document.get(key)? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}
