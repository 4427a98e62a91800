//! The note on an answer when a shard is missing from it.

use http::{HeaderName, HeaderValue};
use serde::Serialize;
use weft_routing::headers;
use weft_routing::placement::ShardId;

use crate::answer::Answer;

/// Which shards are missing from an answer, and how much of the index was searched.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Degraded {
    /// The shards that gave no answer.
    pub missing_shards: Vec<ShardId>,
    /// The part of the index that was searched, from 0 to 1, counted in shards.
    pub coverage: f64,
}

impl Degraded {
    /// The note, if there is anything to note.
    pub(super) fn new(missing: &[ShardId], asked: usize) -> Option<Self> {
        if missing.is_empty() {
            return None;
        }
        let mut missing_shards = missing.to_vec();
        missing_shards.sort_unstable();
        missing_shards.dedup();
        let answered = asked.saturating_sub(missing_shards.len());
        #[allow(
            clippy::cast_precision_loss,
            reason = "a share of at most 65,536 shards"
        )]
        let coverage = answered as f64 / asked.max(1) as f64;
        Some(Self {
            missing_shards,
            coverage: (coverage * 1e4).round() / 1e4,
        })
    }

    /// The note as a header: `shards=2; coverage=0.67`.
    pub(super) fn on(&self, mut answer: Answer) -> Answer {
        let shards: Vec<String> = self
            .missing_shards
            .iter()
            .map(ToString::to_string)
            .collect();
        let text = format!("shards={}; coverage={:.2}", shards.join(","), self.coverage);
        if let Ok(value) = HeaderValue::from_str(&text) {
            answer
                .headers
                .push((HeaderName::from_static(headers::DEGRADED), value));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_the_share_of_shards_that_answered() {
        assert_eq!(Degraded::new(&[], 3), None);
        let degraded = Degraded::new(&[ShardId(2), ShardId(2)], 3).unwrap();
        assert_eq!(
            (degraded.missing_shards.as_slice(), degraded.coverage),
            ([ShardId(2)].as_slice(), 0.6667)
        );
        let answer = degraded.on(Answer::empty(http::StatusCode::OK));
        assert_eq!(answer.headers[0].1, "shards=2; coverage=0.67");
    }
}
