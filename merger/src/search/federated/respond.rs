//! The answer to a federated search, written as a node writes one.

use serde_json::Value;

use super::lists::{FederatedHit, Losers};
use super::weighed::Merged;
use super::{Federated, facets};
use crate::search::answer::Rest;
use crate::search::merge::is_semantic;
use crate::search::performance::{self, Times};
use crate::search::rank::{rebuild_details, write_number};
use crate::search::respond::{Writer, write_paging};
use crate::search::scan::Malformed;

/// The outcome of a merge.
pub(super) struct Outcome<'a> {
    pub(super) merged: Merged<FederatedHit<'a>>,
    /// How many documents the shards found.
    pub(super) found: u64,
    /// How many of them were looked at.
    pub(super) known: u64,
    /// Documents that facets count and one node's facets wouldn't.
    pub(super) losers: Losers,
    pub(super) times: Times,
}

impl Outcome<'_> {
    /// How many documents one node would have found: `maxTotalHits` limits what is shown, not what is counted. If distinct
    /// values are counted and not all hits were looked at, the rest is assumed to hold the same share of duplicates.
    fn total(&self, search: &Federated) -> u64 {
        let twins = u64::try_from(self.merged.twins).unwrap_or(u64::MAX);
        let duplicates = u64::try_from(self.merged.duplicates.len()).unwrap_or(u64::MAX);
        let duplicates = match search.counts_distinct() && self.known > 0 {
            true => u128::from(duplicates) * u128::from(self.found) / u128::from(self.known),
            false => u128::from(duplicates),
        };
        let duplicates = u64::try_from(duplicates).unwrap_or(u64::MAX);
        self.found.saturating_sub(duplicates.saturating_add(twins))
    }
}

/// Writes the answer, except for its last members: the caller may add some and must finish it.
///
/// # Errors
/// A hit isn't the one that was read before.
pub(super) fn respond(
    search: &Federated,
    rests: &[&Rest],
    outcome: &Outcome<'_>,
) -> Result<Writer, Malformed> {
    let mut writer = Writer::new(4096);
    write_hits(&mut writer, search, &outcome.merged.hits)?;
    write_rest(&mut writer, search, rests, outcome);
    Ok(writer)
}

fn write_hits(
    writer: &mut Writer,
    search: &Federated,
    hits: &[FederatedHit<'_>],
) -> Result<(), Malformed> {
    let out = writer.name("hits");
    out.push(b'[');
    for (at, hit) in hits.iter().enumerate() {
        let (Some(query), Some(interest)) = (
            search.queries.get(hit.query),
            search.interests.get(hit.query),
        ) else {
            continue;
        };
        if at > 0 {
            out.push(b',');
        }
        if hit.head.span.write_open(hit.head.text, interest, out)? {
            out.push(b',');
        }
        let weight = search.weights.get(hit.query).copied().unwrap_or(1.0);
        let mut note = hit.note.clone();
        note.insert("queriesPosition".to_owned(), Value::from(hit.query));
        note.insert(
            "weightedRankingScore".to_owned(),
            Value::from(hit.score * weight),
        );
        out.extend_from_slice(b"\"_federation\":");
        out.extend_from_slice(&serde_json::to_vec(&note).unwrap_or_default());
        if query.plan.search.show_score {
            out.extend_from_slice(b",\"_rankingScore\":");
            write_number(hit.score, out);
        }
        let details = hit
            .head
            .span
            .details
            .clone()
            .and_then(|range| hit.head.text.get(range));
        if let Some(details) = details.filter(|_| query.plan.search.show_details) {
            out.extend_from_slice(b",\"_rankingScoreDetails\":");
            match hit.max_typos {
                Some(max) => rebuild_details(details, max, out)?,
                None => out.extend_from_slice(details),
            }
        }
        out.push(b'}');
    }
    out.push(b']');
    Ok(())
}

fn write_rest(writer: &mut Writer, search: &Federated, rests: &[&Rest], outcome: &Outcome<'_>) {
    let first = rests.first();
    writer.optional(
        "queryVectors",
        first.and_then(|rest| rest.query_vectors.as_ref()),
    );
    let slowest = rests
        .iter()
        .map(|rest| rest.processing_time_ms)
        .max()
        .unwrap_or(0);
    writer.member("processingTimeMs", &slowest);
    write_paging(writer, search.paging, outcome.total(search));
    facets::write(writer, search, rests, (outcome.found, &outcome.losers));
    writer.optional(
        "requestUid",
        first.and_then(|rest| rest.request_uid.as_ref()),
    );
    writer.optional("metadata", first.and_then(|rest| rest.metadata.as_ref()));
    if rests.iter().any(|rest| rest.semantic_hit_count.is_some()) {
        let semantic = outcome.merged.hits.iter();
        let semantic = semantic.filter(|hit| is_semantic(&hit.head.ranks)).count();
        writer.member("semanticHitCount", &semantic);
    }
    let details = rests
        .iter()
        .filter_map(|rest| rest.performance_details.as_deref());
    writer.optional(
        "performanceDetails",
        performance::details(details, outcome.times).as_ref(),
    );
}
