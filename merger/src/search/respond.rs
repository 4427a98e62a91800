//! The merged answer, written as a node writes one: the same members in the same order.

use serde::Serialize;
use serde_json::Value;

use super::answer::Rest;
use super::facets::{Filled, MergedFacets, ShardFacets, merge_facets};
use super::hit::Interest;
use super::merge::{Merged, Placed, is_semantic};
use super::performance::{self, Times};
use super::plan::Plan;
use super::rank::{
    Rank, corrected_details, part_details, rebuild_details, rebuild_score, write_number,
};
use super::request::Paging;
use super::scan::Malformed;
use super::settings::MergeSettings;

/// A search answer that is being written: an open JSON object.
#[derive(Debug)]
pub struct Writer {
    text: Vec<u8>,
}

impl Writer {
    /// A new object with room for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let mut text = Vec::with_capacity(capacity);
        text.push(b'{');
        Self { text }
    }

    /// Begins a member with its name and the colon. The caller must write the value next.
    pub fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if self.text.len() > 1 {
            self.text.push(b',');
        }
        self.text.push(b'"');
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":");
        &mut self.text
    }

    /// Adds a member with any value.
    pub fn member(&mut self, name: &str, value: &impl Serialize) {
        let value = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
        self.name(name).extend_from_slice(&value);
    }

    /// Adds a member if there is a value.
    pub fn optional(&mut self, name: &str, value: Option<&impl Serialize>) {
        if let Some(value) = value {
            self.member(name, value);
        }
    }

    /// Closes the object and returns the text.
    pub fn finish(mut self) -> Vec<u8> {
        self.text.push(b'}');
        self.text
    }
}

/// The totals that one node would give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// The number of documents found, whatever `maxTotalHits` allows to be shown.
    pub total: u64,
}

/// What further rounds found out about a search.
#[derive(Debug, Clone, Copy, Default)]
pub struct Findings<'a> {
    /// Facets whose complete counts are known.
    pub facets: &'a [Filled],
    /// Documents that shards counted and one node wouldn't have counted, with the values that facets count.
    pub losers: &'a [Value],
    /// How long the search took so far.
    pub times: Times,
}

/// Writes the answer to one search, except for its last members: the caller may add some and must finish it. `rests` are
/// the shards' answers without their hits. Returns the facets that may lack something.
///
/// # Errors
/// A hit isn't the one that was read before.
pub fn write_search(
    writer: &mut Writer,
    plan: &Plan,
    settings: &MergeSettings,
    rests: &[&Rest],
    merged: &Merged<'_>,
    findings: &Findings<'_>,
) -> Result<Vec<String>, Malformed> {
    write_hits(
        writer.name("hits"),
        &merged.hits,
        (plan.search.show_score, plan.search.show_details),
        &plan.interest,
    )?;
    let first = rests.first().copied();
    writer.optional("query", first.and_then(|rest| rest.query.as_ref()));
    writer.optional(
        "queryVector",
        first.and_then(|rest| rest.query_vector.as_ref()),
    );
    writer.member(
        "processingTimeMs",
        &rests
            .iter()
            .map(|rest| rest.processing_time_ms)
            .max()
            .unwrap_or(0),
    );
    let found: u64 = rests.iter().map(|rest| rest.total()).sum();
    // Subtracts the documents that two shards hold at the same time, if both copies were seen.
    let twins = merged.twins;
    let duplicates = u64::try_from(merged.duplicates + twins).unwrap_or(0);
    // `maxTotalHits` limits what can be reached, not what is counted; a node does the same.
    let total = found.saturating_sub(duplicates);
    write_paging(writer, plan.search.paging, total);
    let mut uncertain = Vec::new();
    // If the list of facets is empty, a node leaves these members out.
    if rests.iter().any(|rest| rest.facet_distribution.is_some()) {
        let mut facets = merged_facets(rests, settings, found, findings.losers);
        for Filled {
            facet: name,
            counts: whole,
            certain,
        } in findings.facets
        {
            if *certain {
                facets.uncertain.retain(|uncertain| uncertain != name);
            }
            if let Some((_, counts)) = facets
                .distribution
                .0
                .iter_mut()
                .find(|(known, _)| known == name)
            {
                *counts = whole.clone();
            }
        }
        writer.member("facetDistribution", &facets.distribution);
        writer.member("facetStats", &facets.stats);
        uncertain = facets.uncertain;
    }
    writer.optional(
        "requestUid",
        first.and_then(|rest| rest.request_uid.as_ref()),
    );
    writer.optional("metadata", first.and_then(|rest| rest.metadata.as_ref()));
    let details = rests
        .iter()
        .filter_map(|rest| rest.performance_details.as_deref());
    writer.optional(
        "performanceDetails",
        performance::details(details, findings.times).as_ref(),
    );
    if rests.iter().any(|rest| rest.semantic_hit_count.is_some()) {
        writer.member(
            "semanticHitCount",
            &merged
                .hits
                .iter()
                .filter(|hit| is_semantic(&hit.head.ranks))
                .count(),
        );
    }
    Ok(uncertain)
}

fn merged_facets(
    rests: &[&Rest],
    settings: &MergeSettings,
    found: u64,
    losers: &[Value],
) -> MergedFacets {
    let parts: Vec<_> = rests
        .iter()
        .filter_map(|rest| {
            rest.facet_distribution
                .as_ref()
                .zip(rest.facet_stats.as_ref())
        })
        .collect();
    let parts: Vec<_> = parts
        .into_iter()
        .map(|(distribution, stats)| ShardFacets {
            distribution,
            stats,
        })
        .collect();
    merge_facets(&parts, &settings.facets, found, losers)
}

/// Writes the members for paging, as the client asked for it, and the totals.
pub fn write_paging(writer: &mut Writer, paging: Paging, total: u64) {
    match paging {
        Paging::Offset { offset, limit } => {
            writer.member("limit", &limit);
            writer.member("offset", &offset);
            writer.member("estimatedTotalHits", &total);
        }
        Paging::Page { page, per_page } => {
            writer.member("hitsPerPage", &per_page);
            writer.member("page", &page);
            let per_page = u64::try_from(per_page).unwrap_or(u64::MAX);
            writer.member(
                "totalPages",
                &if per_page == 0 {
                    0
                } else {
                    total.div_ceil(per_page)
                },
            );
            writer.member("totalHits", &total);
        }
    }
}

/// Writes an array of hits, with the scores and details that the client asked for.
pub(super) fn write_hits(
    out: &mut Vec<u8>,
    hits: &[Placed<'_>],
    (show_score, show_details): (bool, bool),
    interest: &Interest,
) -> Result<(), Malformed> {
    out.push(b'[');
    for (at, hit) in hits.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let mut comma = hit.head.span.write_open(hit.head.text, interest, out)?;
        if show_score && let Some(score) = hit.head.score {
            write_score(out, hit, score, comma);
            comma = true;
        }
        if show_details
            && let Some(details) = hit
                .head
                .span
                .details
                .clone()
                .and_then(|range| hit.head.text.get(range))
        {
            out.extend_from_slice(if comma {
                b",\"_rankingScoreDetails\":"
            } else {
                b"\"_rankingScoreDetails\":"
            });
            let corrected = corrected(hit, details);
            let details = corrected.as_deref().unwrap_or(details);
            let in_part = in_part(hit, details);
            let details = in_part.as_deref().unwrap_or(details);
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

/// The details with the verdict on exactness that one node would have given.
fn corrected(hit: &Placed<'_>, details: &[u8]) -> Option<Vec<u8>> {
    let verdict = hit.head.ranks.iter().find_map(|rank| match rank {
        Rank::Exactness { words, max, .. } if hit.head.corrected => Some((*words, *max)),
        _ => None,
    });
    verdict.and_then(|(words, max)| corrected_details(details, words, max))
}

/// The details with the verdict on words that one node would have given, if the shard saw a part of the query.
fn in_part(hit: &Placed<'_>, details: &[u8]) -> Option<Vec<u8>> {
    if hit.head.in_part {
        part_details(details, &hit.head.ranks)
    } else {
        None
    }
}

fn write_score(out: &mut Vec<u8>, hit: &Placed<'_>, score: f64, comma: bool) {
    out.extend_from_slice(if comma {
        b",\"_rankingScore\":"
    } else {
        b"\"_rankingScore\":"
    });
    let rebuilt = hit
        .max_typos
        .map_or(score, |max| rebuild_score(score, &hit.head.ranks, max));
    write_number(rebuilt, out);
}
