//! `matchingStrategy: frequency`: the words that are most frequent in the whole index are dropped first, as on one node.
//!
//! The engine drops words by the node's own counts. So the merger first asks the shards how many of their documents each
//! word finds (remembered until the next write has settled, [`WordCounts`](super::WordCounts)). A shard whose own order of words leads to the
//! same hits gets the search as it came. Any other shard gets one search for each part that one node would look for (see [`parts`]).

mod parts;

use serde_json::{Map, Value};
use weft_routing::placement::ShardId;

pub(super) use parts::Words;
use parts::{kept_sets, weights};

use super::merge::Part;
use super::plan::Plan;
use super::scatter::Reader;
use super::settings::MergeSettings;
use super::word_counts::counts_of;

/// What a shard is asked instead of the client's search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// The query; `None` for the client's own.
    pub(super) query: Option<String>,
    /// The strategy; `None` for the client's own.
    pub(super) strategy: Option<&'static str>,
    /// The part to which the hits belong; `None` if the hits aren't used.
    pub(super) part: Option<Part>,
    /// True if the shard's totals and facets are taken from this answer.
    pub(super) counts: bool,
}

/// The most parts that are asked for. The ones left out are the last ones, which lack the most words.
const MOST_PARTS: usize = 12;

/// The requests to those of `shards` that need others than the client's search; empty if the client's search is right for all.
pub(super) async fn shares(
    reader: &Reader<'_>,
    index: &str,
    plan: &Plan,
    settings: &MergeSettings,
    shards: &[ShardId],
) -> Vec<(ShardId, Share)> {
    let Some(words) = plan.frequency_words(settings) else {
        return Vec::new();
    };
    const SCOPE: [&str; 2] = ["attributesToSearchOn", "locales"];
    let scope: Map<String, Value> = SCOPE
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), plan.search.carrier.json(name)?)))
        .collect();
    let alone = (0..words.len()).map(|at| words.alone(at)).collect();
    let Some(counts) = counts_of(reader, index, alone, &scope, shards).await else {
        return Vec::new();
    };
    let whole: Vec<u64> = counts.iter().map(|word| word.iter().sum()).collect();
    let mut shares = Vec::new();
    for (at, shard) in shards.iter().enumerate() {
        let own: Vec<u64> = counts
            .iter()
            .filter_map(|word| word.get(at).copied())
            .collect();
        let own_shares = shares_of(&words, &whole, &own);
        shares.extend(own_shares.into_iter().map(|share| (*shard, share)));
    }
    shares
}

/// The requests to a shard that counts `own` documents for the words for which the whole index counts `whole`; empty if the
/// client's search gives the same result.
fn shares_of(words: &Words, whole: &[u64], own: &[u64]) -> Vec<Share> {
    let (whole, own) = (weights(whole), weights(own));
    let mut sets = kept_sets(&whole);
    if sets == kept_sets(&own) {
        return Vec::new();
    }
    let Some(last) = sets.last().cloned() else {
        return Vec::new();
    };
    if sets.len() > MOST_PARTS {
        sets.truncate(MOST_PARTS - 1);
        sets.push(last.clone());
    }
    let count =
        |set: &[bool]| u32::try_from(set.iter().filter(|kept| **kept).count()).unwrap_or(u32::MAX);
    let fixed = count(&last);
    // The totals depend only on which words are never dropped.
    let counts_itself = kept_sets(&own).last() == Some(&last);
    let mut shares: Vec<Share> = sets
        .iter()
        .map(|set| Share {
            query: Some(words.keeping(set)),
            strategy: Some("last"),
            part: Some(Part {
                kept: count(set),
                fixed,
                all: u32::try_from(words.len()).unwrap_or(u32::MAX),
                broken: set.windows(2).any(|pair| pair == [false, true]),
            }),
            counts: !counts_itself && fixed == 1 && *set == last,
        })
        .collect();
    if counts_itself || fixed > 1 {
        shares.push(Share {
            query: (!counts_itself).then(|| words.keeping(&last)),
            strategy: (!counts_itself).then_some("all"),
            part: None,
            counts: true,
        });
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words::read("red green blue", &[]).unwrap()
    }

    #[test]
    fn a_shard_that_drops_the_same_words_gets_the_search_as_it_is() {
        assert_eq!(shares_of(&words(), &[30, 20, 10], &[9, 7, 1]), []);
        assert_eq!(shares_of(&words(), &[30, 20, 10], &[10, 9, 8]), []);
        assert_ne!(shares_of(&words(), &[30, 20, 10], &[10, 8, 9]), []);
    }

    #[test]
    fn every_part_is_asked_for_and_one_of_them_counts() {
        let shares = shares_of(&words(), &[10, 20, 30], &[30, 20, 10]);
        let asked: Vec<_> = shares
            .iter()
            .map(|share| (share.query.as_deref().unwrap(), share.counts))
            .collect();
        let nothing = parts::NOTHING;
        assert_eq!(
            asked,
            [
                ("red green blue", false),
                (format!("red green  -{nothing}").as_str(), false),
                (format!("red  -{nothing}  -{nothing}").as_str(), true)
            ]
        );
        // The rarest word is the same: the shard's own totals are right.
        let shares = shares_of(&words(), &[10, 20, 30], &[10, 30, 20]);
        assert_eq!(
            shares.last(),
            Some(&Share {
                query: None,
                strategy: None,
                part: None,
                counts: true
            })
        );
        assert_eq!(shares.iter().filter(|share| share.counts).count(), 1);
    }
}
