//! The merge of the shards' federated lists gives what one node shows, however the documents are spread: pages,
//! `maxTotalHits` of each index, distinct values of each query and of all queries.

use super::admit::{Gate, Verdict};
use super::weighed::{Weighed, merge};
use crate::search::merge::Window;
use crate::search::rank::{Rank, Ranks, Rule};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides).unwrap()
    }
}

/// A document that a query found, with its score for it.
#[derive(Debug, Clone, PartialEq)]
struct Hit {
    query: usize,
    id: usize,
    value: Option<usize>,
    score: f64,
}

struct Search {
    /// Each query's index.
    indexes: Vec<usize>,
    /// Whether each query has distinct values.
    distinct: Vec<bool>,
    /// Each index's `maxTotalHits`.
    most: Vec<usize>,
    across: bool,
}

/// A node, written as its rules are stated: each query by itself, then each index, then all.
fn node(search: &Search, hits: &[Hit], window: Window) -> Vec<Hit> {
    let mut all: Vec<Hit> = Vec::new();
    for (index, most) in search.most.iter().enumerate() {
        let required = window.end().min(*most);
        let mut of_index: Vec<Hit> = Vec::new();
        for query in (0..search.indexes.len()).filter(|query| search.indexes[*query] == index) {
            let mut found: Vec<Hit> = hits
                .iter()
                .filter(|hit| hit.query == query)
                .cloned()
                .collect();
            found.sort_by(|a, b| b.score.total_cmp(&a.score));
            let mut met = Vec::new();
            found.retain(|hit| !search.distinct[query] || is_new(&mut met, hit.value));
            found.truncate(required);
            of_index.extend(found);
        }
        of_index.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.query.cmp(&b.query)));
        let (mut ids, mut met) = (Vec::new(), Vec::new());
        of_index.retain(|hit| {
            is_new(&mut ids, Some(hit.id)) && (!search.across || is_new(&mut met, hit.value))
        });
        of_index.truncate(required);
        all.extend(of_index);
    }
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.query.cmp(&b.query)));
    let mut met = Vec::new();
    all.retain(|hit| !search.across || is_new(&mut met, hit.value));
    all.into_iter()
        .skip(window.skip)
        .take(window.take)
        .collect()
}

fn is_new(met: &mut Vec<usize>, value: Option<usize>) -> bool {
    let Some(value) = value else { return true };
    let is_new = !met.contains(&value);
    if is_new {
        met.push(value);
    }
    is_new
}

fn weighed(hit: &Hit) -> Weighed {
    let rank = Rank::Score {
        rule: Rule::Proximity,
        score: hit.score,
    };
    Weighed::new(&Ranks::from(vec![rank]), hit.score, 1.0)
}

#[test]
fn a_page_is_one_nodes_however_documents_are_dealt() {
    for seed in 1..=500_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let queries = 1 + dice.roll(3);
        let indexes: Vec<usize> = (0..queries).map(|_| dice.roll(2)).collect();
        let across = dice.roll(3) == 0;
        // A query's distinct values can be checked alone if no other query of its index hides its documents.
        let alone = |query: usize| {
            indexes
                .iter()
                .filter(|index| **index == indexes[query])
                .count()
                == 1
        };
        let search = Search {
            distinct: (0..queries)
                .map(|query| across || alone(query) && dice.roll(2) == 0)
                .collect(),
            most: (0..2).map(|_| 1 + dice.roll(30)).collect(),
            across: across && (0..queries).all(alone),
            indexes: indexes.clone(),
        };
        if across && !search.across {
            continue;
        }
        let shards = 2 + dice.roll(4);
        let mut hits = Vec::new();
        for index in 0..2 {
            for id in 0..dice.roll(50) {
                let value = (dice.roll(5) > 0).then(|| dice.roll(15));
                for query in (0..queries).filter(|query| indexes[*query] == index) {
                    if dice.roll(3) > 0 {
                        let score = dice.roll(1 << 40) as f64 / (1_u64 << 40) as f64;
                        hits.push(Hit {
                            query,
                            id: index * 100 + id,
                            value,
                            score,
                        });
                    }
                }
            }
        }
        let window = Window {
            skip: dice.roll(25),
            take: dice.roll(12),
        };
        let shard_of = |hit: &Hit| (hit.id * 7919 + hit.id / 3) % shards;
        let mut lists = Vec::new();
        for shard in 0..shards {
            let own: Vec<Hit> = hits
                .iter()
                .filter(|hit| shard_of(hit) == shard)
                .cloned()
                .collect();
            let gave = node(
                &search,
                &own,
                Window {
                    skip: 0,
                    take: window.end(),
                },
            );
            for query in 0..queries {
                let of_query = gave.iter().filter(|hit| hit.query == query);
                lists.push((
                    query,
                    of_query.map(|hit| (weighed(hit), hit.clone())).collect(),
                ));
            }
        }
        let with_distinct: Vec<(usize, bool)> = indexes
            .iter()
            .copied()
            .zip(search.distinct.iter().copied())
            .collect();
        let most: Vec<usize> = search
            .most
            .iter()
            .map(|most| window.end().min(*most))
            .collect();
        let mut gate = Gate::new(&with_distinct, &most, search.across);
        let judge = |query: usize, hit: &Hit| -> Verdict {
            let values: Vec<String> = hit.value.iter().map(usize::to_string).collect();
            gate.judge(query, Some(hit.id.to_string().as_bytes()), &values)
        };
        let merged = merge(lists, window, false, judge);
        assert_eq!(merged.hits, node(&search, &hits, window), "seed {seed}");
    }
}
