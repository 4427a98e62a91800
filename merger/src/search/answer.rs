//! Reads a shard's answer to a search: where its hits begin, and the members beside them.

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::facets::{Distribution, Stats};
use super::scan::{Malformed, Members};

/// A shard's answer, read once, when it comes.
#[derive(Debug)]
pub struct ShardAnswer {
    /// The whole JSON text.
    pub text: Bytes,
    /// The byte where the array of hits begins.
    pub hits_at: usize,
    /// Every member except the hits.
    pub rest: Rest,
}

/// The members of a search answer beside its hits. Each kind of search has only some of them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rest {
    /// `query`, as text.
    pub query: Option<Box<RawValue>>,
    /// `id`, of a search for similar documents.
    pub id: Option<Box<RawValue>>,
    /// `queryVector`.
    pub query_vector: Option<Box<RawValue>>,
    /// `queryVectors`, of a federated search.
    pub query_vectors: Option<Box<RawValue>>,
    /// `processingTimeMs`.
    pub processing_time_ms: u64,
    /// `limit`.
    pub limit: Option<u64>,
    /// `offset`.
    pub offset: Option<u64>,
    /// `estimatedTotalHits`.
    pub estimated_total_hits: Option<u64>,
    /// `hitsPerPage`.
    pub hits_per_page: Option<u64>,
    /// `page`.
    pub page: Option<u64>,
    /// `totalPages`.
    pub total_pages: Option<u64>,
    /// `totalHits`.
    pub total_hits: Option<u64>,
    /// `facetDistribution`.
    pub facet_distribution: Option<Distribution>,
    /// `facetStats`.
    pub facet_stats: Option<Stats>,
    /// `facetsByIndex`, of a federated search.
    pub facets_by_index: Option<FacetsByIndex>,
    /// `requestUid`.
    pub request_uid: Option<Box<RawValue>>,
    /// `metadata`.
    pub metadata: Option<Box<RawValue>>,
    /// `performanceDetails`.
    pub performance_details: Option<Box<RawValue>>,
    /// `semanticHitCount`.
    pub semantic_hit_count: Option<u64>,
}

/// `facetsByIndex`.
pub type FacetsByIndex = std::collections::BTreeMap<String, IndexFacets>;

/// One index's facets in a federated search.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, serde::Serialize)]
pub struct IndexFacets {
    /// Values and counts.
    pub distribution: Distribution,
    /// The least and the greatest number of each numeric facet.
    pub stats: Stats,
}

impl Rest {
    /// How many documents the shard found, up to the index's `maxTotalHits`.
    pub fn total(&self) -> u64 {
        self.total_hits.or(self.estimated_total_hits).unwrap_or(0)
    }
}

/// Members that can follow the array of hits.
const AFTER_HITS: [&[u8]; 3] = [b"],\"query\":", b"],\"processingTimeMs\":", b"],\"id\":"];

impl ShardAnswer {
    /// Reads an answer, without looking at its hits where possible: a node writes the hits first, so the rest is found from
    /// the end of the text (a quote inside a string would be escaped).
    ///
    /// # Errors
    /// The text isn't a search answer.
    pub fn read(text: Bytes) -> Result<Self, Malformed> {
        let (hits_at, rest) = read_from_end(&text).map_or_else(|| read_all(&text), Ok)?;
        Ok(Self {
            text,
            hits_at,
            rest,
        })
    }

    /// The text, and where its array of hits begins.
    pub fn hits(&self) -> (&[u8], usize) {
        (&self.text, self.hits_at)
    }
}

fn read_from_end(text: &[u8]) -> Option<(usize, Rest)> {
    const BEFORE_HITS: &[u8] = b"{\"hits\":";
    text.strip_prefix(BEFORE_HITS)?;
    for pattern in AFTER_HITS {
        let Some(end) = memmem::rfind(text, pattern) else {
            continue;
        };
        let mut rest = b"{".to_vec();
        rest.extend_from_slice(text.get(end + 2..)?);
        if let Ok(rest) = serde_json::from_slice(&rest) {
            return Some((BEFORE_HITS.len(), rest));
        }
    }
    None
}

fn read_all(text: &[u8]) -> Result<(usize, Rest), Malformed> {
    let mut members = Members::new(text, 0);
    let mut rest = vec![b'{'];
    let mut hits_at = None;
    while let Some(member) = members.next()? {
        if member.key == b"hits" {
            hits_at = Some(member.value.start);
            continue;
        }
        if rest.len() > 1 {
            rest.push(b',');
        }
        rest.extend_from_slice(text.get(member.start..member.value.end).unwrap_or_default());
    }
    rest.push(b'}');
    let rest = serde_json::from_slice(&rest).map_err(|_| Malformed { at: members.at() })?;
    let hits_at = hits_at.ok_or(Malformed { at: members.at() })?;
    Ok((hits_at, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_found_behind_any_hits() {
        let hits = [
            "[]",
            r#"[{"a":["x"],"query":"inner","processingTimeMs":7}]"#,
            r#"[{"a":"],\"query\":"},{"b":[[1],"],"]}]"#,
        ];
        for hits in hits {
            let text = format!(
                r#"{{"hits":{hits},"query":"a],\"query\":b","processingTimeMs":3,"limit":20,"offset":0,"estimatedTotalHits":12,"facetDistribution":{{"x":{{"],":2,"a":1}}}},"facetStats":{{"n":{{"min":1.0,"max":2.5}}}},"requestUid":"u"}}"#
            );
            let answer = ShardAnswer::read(text.clone().into()).unwrap();
            assert!(read_from_end(text.as_bytes()).is_some());
            assert_eq!(&text[answer.hits_at..answer.hits_at + hits.len()], hits);
            assert_eq!(answer.rest.total(), 12);
            assert_eq!(answer.rest.processing_time_ms, 3);
            let distribution = answer.rest.facet_distribution.unwrap();
            assert_eq!(
                distribution.get("x").unwrap().0,
                [("],".to_owned(), 2), ("a".to_owned(), 1)]
            );
        }
    }

    #[test]
    fn hits_may_stand_anywhere() {
        let text =
            br#"{"indexUid":"a","query":"","hits":[{"x":1}],"processingTimeMs":0,"totalHits":1}"#;
        let answer = ShardAnswer::read(Bytes::from_static(text)).unwrap();
        assert_eq!(text.get(answer.hits_at), Some(&b'['));
        assert_eq!(answer.rest.total(), 1);
        assert!(ShardAnswer::read(Bytes::from_static(b"{}")).is_err());
        assert!(ShardAnswer::read(Bytes::from_static(b"no")).is_err());
    }
}
