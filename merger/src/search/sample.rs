//! Invented answers of shards, for measuring a merge alone, without nodes and without a network.

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Rest, ShardAnswer};
use super::merge::{Source, merge};
use super::plan::Plan;
use super::request::{Carrier, Search};
use super::respond::{Findings, Writer, write_search};
use super::scan::Malformed;
use super::settings::MergeSettings;

/// Several shards' answers to one search.
#[derive(Debug)]
pub struct MergeSample {
    answers: Vec<Bytes>,
}

impl MergeSample {
    /// Makes `shards` answers of `hits` hits each. Every hit is about `hit_bytes` long and has the details that order it.
    pub fn new(shards: usize, hits: usize, hit_bytes: usize) -> Self {
        let answer = |shard: usize| {
            let hits: Vec<Value> = (0..hits)
                .map(|at| hit(shard, at, hits, hit_bytes))
                .collect();
            let answer = json!({
                "hits": hits, "query": "one two three", "processingTimeMs": 3, "limit": hits.len(), "offset": 0,
                "estimatedTotalHits": hits.len(), "requestUid": "01a1fb6a-14c3-7c51-8f98-5a8195e70540",
            });
            Bytes::from(serde_json::to_vec(&answer).unwrap_or_default())
        };
        Self {
            answers: (0..shards).map(answer).collect(),
        }
    }

    /// The total length of all answers in bytes.
    pub fn bytes(&self) -> usize {
        self.answers.iter().map(Bytes::len).sum()
    }

    /// Merges the answers into one of `take` hits, as the merger does.
    ///
    /// # Errors
    /// Never occurs: the answers have the form that a node writes.
    pub fn merge(&self, take: usize) -> Result<Vec<u8>, Malformed> {
        let settings = MergeSettings {
            max_total_hits: usize::MAX,
            ..MergeSettings::default()
        };
        let search = Search::read(Carrier::Body(request(take))).ok_or(Malformed { at: 0 })?;
        let plan = Plan::new(search, &settings, Some("id"));
        let answers = self
            .answers
            .iter()
            .map(|text| ShardAnswer::read(text.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let sources = answers
            .iter()
            .map(|answer| Source::new(vec![answer.hits()], false));
        let merged = merge(sources.collect(), &plan.merging(None))?;
        let mut writer = Writer::new(
            merged
                .hits
                .iter()
                .map(|hit| hit.head.span.range.len() + 1)
                .sum::<usize>()
                + 1024,
        );
        let rests: Vec<&Rest> = answers.iter().map(|answer| &answer.rest).collect();
        let findings = Findings::default();
        write_search(&mut writer, &plan, &settings, &rests, &merged, &findings)?;
        Ok(writer.finish())
    }

    /// The same merge with `serde_json::Value`, the simplest way: everything is parsed, sorted and written again.
    pub fn merge_by_values(&self, take: usize) -> Vec<u8> {
        let mut hits: Vec<(usize, usize, Value)> = Vec::new();
        for (shard, text) in self.answers.iter().enumerate() {
            let answer: Value = serde_json::from_slice(text).unwrap_or_default();
            if let Value::Object(mut members) = answer
                && let Some(Value::Array(list)) = members.remove("hits")
            {
                hits.extend(
                    list.into_iter()
                        .enumerate()
                        .map(|(at, hit)| (shard, at, hit)),
                );
            }
        }
        let key = |hit: &Value| {
            let number = |rule: &str, name: &str| {
                let details = hit.get("_rankingScoreDetails");
                details
                    .and_then(|d| d.get(rule)?.get(name)?.as_f64())
                    .unwrap_or(0.0)
            };
            [
                -number("words", "matchingWords"),
                number("typo", "typoCount"),
                -number("proximity", "score"),
            ]
        };
        hits.sort_by(|(s, a, x), (t, b, y)| {
            let order = key(x)
                .partial_cmp(&key(y))
                .unwrap_or(std::cmp::Ordering::Equal);
            order.then(a.cmp(b)).then(s.cmp(t))
        });
        let hits: Vec<Value> = hits
            .into_iter()
            .take(take)
            .map(|(_, _, mut hit)| {
                if let Value::Object(members) = &mut hit {
                    members.remove("_rankingScoreDetails");
                    members.remove("_rankingScore");
                }
                hit
            })
            .collect();
        serde_json::to_vec(&json!({"hits": hits, "estimatedTotalHits": hits.len()}))
            .unwrap_or_default()
    }
}

fn request(take: usize) -> serde_json::Map<String, Value> {
    let request = json!({"q": "one two three", "limit": take});
    request.as_object().cloned().unwrap_or_default()
}

fn hit(shard: usize, at: usize, hits: usize, hit_bytes: usize) -> Value {
    let matching = 3 - at * 3 / hits.max(1);
    let typos = at * 12 / hits.max(1) % 4;
    let fill = hit_bytes.saturating_sub(160);
    let prose = "A sentence about nothing in particular, with some \\\"quotes\\\" in it. "
        .repeat(fill / 60 + 1);
    let prose: String = prose.chars().take(fill).collect();
    json!({
        "id": shard * hits + at, "title": format!("document {at} of shard {shard}"), "prose": prose,
        "tags": ["one", "two"], "price": 12.5,
        "_rankingScore": 0.9,
        "_rankingScoreDetails": {
            "words": {"order": 0, "matchingWords": matching, "maxMatchingWords": 3, "score": 0.5},
            "typo": {"order": 1, "typoCount": typos, "maxTypoCount": 3, "score": 0.5},
            "proximity": {"order": 2, "score": 1.0},
            "attributeRank": {"order": 3, "score": 1.0},
            "wordPosition": {"order": 4, "score": 0.8},
            "exactness": {"order": 5, "matchType": "noExactMatch", "matchingWords": 1, "maxMatchingWords": 3, "score": 0.2},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_merges_show_the_same_hits() {
        let sample = MergeSample::new(3, 50, 400);
        let ids = |text: Vec<u8>| -> Vec<u64> {
            let answer: Value = serde_json::from_slice(&text).unwrap();
            answer["hits"]
                .as_array()
                .unwrap()
                .iter()
                .map(|hit| hit["id"].as_u64().unwrap())
                .collect()
        };
        let mut ours = ids(sample.merge(60).unwrap());
        let mut theirs = ids(sample.merge_by_values(60));
        assert_eq!(ours.len(), 60);
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
        let text = String::from_utf8(sample.merge(5).unwrap()).unwrap();
        assert!(!text.contains("_ranking"));
    }
}
