//! Searching a facet's values: each shard gets the same request, and their counts are summed.

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use weft_routing::placement::ShardId;

use super::degraded::Degraded;
use super::explain::Explanation;
use super::facets::normalise;
use super::request::Carrier;
use super::respond::Writer;
use super::scan::Malformed;
use super::scatter::{Ask, Outcome, Reader};
use super::settings::{FacetOrder, FacetSettings};
use super::{SearchError, where_it_is};
use crate::answer::Answer;

/// A value and how many documents have it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub(super) struct FacetHit {
    value: String,
    count: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    facet_hits: Vec<FacetHit>,
    facet_query: Option<Box<RawValue>>,
    processing_time_ms: u64,
}

/// Searches a facet's values on `shards`.
pub(super) async fn search(
    reader: &Reader<'_>,
    path: &str,
    carrier: &Carrier,
    settings: &FacetSettings,
    shards: &[ShardId],
) -> Result<Answer, SearchError> {
    let asks = shards
        .iter()
        .map(|shard| Ask::new(*shard, path, carrier))
        .collect();
    let gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, _) => return Ok(answer),
        Outcome::Answers(gathered) => gathered,
    };
    let _merging = reader.phase("merge");
    let mut lists = Vec::with_capacity(gathered.replies.len());
    for reply in &gathered.replies {
        let wire: Wire =
            serde_json::from_slice(&reply.body).map_err(|_| SearchError::Unreadable {
                shard: reply.shard,
                error: Malformed { at: 0 },
            })?;
        lists.push(wire);
    }
    let facet = carrier.text("facetName").flatten().unwrap_or_default();
    let mut writer = Writer::new(1024);
    let hits = merge_hits(
        lists.iter().map(|wire| wire.facet_hits.as_slice()),
        settings.order(facet),
        settings.max_values,
    );
    writer.member("facetHits", &hits);
    writer.member(
        "facetQuery",
        &lists.first().and_then(|wire| wire.facet_query.as_ref()),
    );
    writer.member(
        "processingTimeMs",
        &lists
            .iter()
            .map(|wire| wire.processing_time_ms)
            .max()
            .unwrap_or(0),
    );
    let degraded = Degraded::new(&gathered.missing, shards.len());
    writer.optional("degraded", degraded.as_ref());
    if reader.explain {
        let mut explanation = Explanation {
            why: where_it_is(shards, reader.index_shards),
            ..Explanation::default()
        };
        explanation.add(&gathered, |_| (0, settings.max_values));
        writer.member("explain", &explanation);
    }
    let answer = Answer::json_bytes(StatusCode::OK, writer.finish());
    Ok(degraded.map_or(answer.clone(), |degraded| degraded.on(answer)))
}

/// Sums, orders and cuts the values. When ordered by value, the first values of all are among the first of each shard; when
/// ordered by count, this has the same limits as facets.
fn merge_hits<'a>(
    lists: impl Iterator<Item = &'a [FacetHit]>,
    order: FacetOrder,
    max_values: usize,
) -> Vec<FacetHit> {
    let mut merged: Vec<(String, FacetHit)> = Vec::new();
    let mut places = hashbrown::HashMap::new();
    for hit in lists.flatten() {
        let normalised = normalise(&hit.value);
        let place = *places.entry(normalised.clone()).or_insert_with(|| {
            merged.push((
                normalised,
                FacetHit {
                    value: hit.value.clone(),
                    count: 0,
                },
            ));
            merged.len() - 1
        });
        if let Some((_, known)) = merged.get_mut(place) {
            known.count += hit.count;
        }
    }
    match order {
        FacetOrder::Alpha => merged.sort_by(|(a, _), (b, _)| a.cmp(b)),
        FacetOrder::Count => {
            merged.sort_by(|(_, a), (_, b)| (b.count, &b.value).cmp(&(a.count, &a.value)))
        }
    }
    merged
        .into_iter()
        .take(max_values)
        .map(|(_, hit)| hit)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_and_ordered_as_the_settings_say() {
        let list = |pairs: &[(&str, u64)]| -> Vec<FacetHit> {
            pairs
                .iter()
                .map(|(value, count)| FacetHit {
                    value: (*value).to_owned(),
                    count: *count,
                })
                .collect()
        };
        let lists = [list(&[("a", 1), ("C", 3)]), list(&[("b", 2), ("c", 1)])];
        let merged = |order, max| merge_hits(lists.iter().map(Vec::as_slice), order, max);
        assert_eq!(
            merged(FacetOrder::Alpha, 9),
            list(&[("a", 1), ("b", 2), ("C", 4)])
        );
        assert_eq!(merged(FacetOrder::Count, 2), list(&[("C", 4), ("b", 2)]));
    }
}
