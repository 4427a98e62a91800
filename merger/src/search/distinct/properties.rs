//! The merge of the shards' distinct lists gives what one node gives for all documents, however the documents are spread.

use hashbrown::HashMap;
use serde_json::{Value, json};

use super::{Seen, values_at};
use crate::search::facets::{Counts, Distribution, FacetStats, ShardFacets, Stats, merge_facets};
use crate::search::hit::{Added, Interest};
use crate::search::merge::{Merging, Order, Source, Window, merge};
use crate::search::settings::FacetSettings;

/// A small deterministic generator (xorshift); tests print their seed where they fail.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn document(at: usize, dice: &mut Dice) -> Value {
    let value = match dice.roll(14) {
        0 | 1 => Value::Null,
        2 => json!(2),
        3 => json!("2"),
        4 => json!("Ä "),
        5 => json!("ä"),
        value => json!(format!("v{value}")),
    };
    json!({"id": at, "value": value, "colour": (at % 4), "_rankingScoreDetails": {"a:asc": {"order": 0, "value": at}}})
}

/// What a node shows of documents in their order: the first document of each value.
fn distinct(documents: &[Value]) -> Vec<Value> {
    let mut seen = Seen::default();
    let first = |document: &&Value| seen.admit(&values_at("value", document));
    documents.iter().filter(first).cloned().collect()
}

fn facets(documents: &[Value]) -> (Distribution, Stats) {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut stats: Option<FacetStats> = None;
    for document in documents {
        let colour = document["colour"].as_f64().unwrap();
        *counts.entry(colour.to_string()).or_default() += 1;
        let known = stats.get_or_insert(FacetStats {
            min: colour,
            max: colour,
        });
        (known.min, known.max) = (known.min.min(colour), known.max.max(colour));
    }
    let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
    counts.sort();
    let stats = stats.map(|stats| ("colour".to_owned(), stats));
    (
        Distribution(vec![("colour".to_owned(), Counts(counts))]),
        Stats(stats.into_iter().collect()),
    )
}

#[test]
fn pages_totals_and_facets_are_one_nodes_however_documents_are_dealt() {
    for seed in 1..=400_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let count = dice.roll(60) as usize;
        let documents: Vec<Value> = (0..count).map(|at| document(at, &mut dice)).collect();
        let shards = 2 + dice.roll(5) as usize;
        let mut dealt: Vec<Vec<Value>> = vec![Vec::new(); shards];
        for document in &documents {
            dealt[dice.roll(shards as u64) as usize].push(document.clone());
        }
        let whole = distinct(&documents);
        let lists: Vec<Vec<Value>> = dealt.iter().map(|documents| distinct(documents)).collect();
        let found: usize = lists.iter().map(Vec::len).sum();
        let texts: Vec<String> = lists
            .iter()
            .map(|list| Value::from(list.clone()).to_string())
            .collect();
        let per_page = 1 + dice.roll(9) as usize;
        let window = Window {
            skip: dice.roll(6) as usize * per_page,
            take: per_page,
        };
        let interest = Interest {
            pick: Some("value".to_owned()),
            id: Some("id".to_owned()),
            added: Added {
                details: true,
                ..Added::default()
            },
            ..Interest::default()
        };
        let merging = Merging {
            order: Order::Rules,
            window,
            interest: &interest,
            distinct: Some("value"),
            hidden: None,
            to_the_end: true,
            doubts: None,
        };
        let sources = texts
            .iter()
            .map(|text| Source::new(vec![(text.as_bytes(), 0)], false));
        let merged = merge(sources.collect(), &merging).unwrap();
        let id = |document: &Value| document["id"].to_string();
        let shown: Vec<String> = merged
            .hits
            .iter()
            .map(|hit| String::from_utf8(hit.head.id().unwrap().to_vec()).unwrap())
            .collect();
        let expected: Vec<String> = whole
            .iter()
            .skip(window.skip)
            .take(window.take)
            .map(id)
            .collect();
        assert_eq!(shown, expected, "seed {seed}: the page");
        assert!(merged.at_the_end);
        assert_eq!(
            found - merged.duplicates,
            whole.len(),
            "seed {seed}: the total"
        );
        let losers: Vec<Value> = merged
            .losers
            .iter()
            .map(|(_, at)| {
                let at: usize = std::str::from_utf8(at.unwrap()).unwrap().parse().unwrap();
                documents[at].clone()
            })
            .collect();
        let parts: Vec<(Distribution, Stats)> = lists.iter().map(|list| facets(list)).collect();
        let parts: Vec<ShardFacets<'_>> = parts
            .iter()
            .map(|(distribution, stats)| ShardFacets {
                distribution,
                stats,
            })
            .collect();
        let counted = merge_facets(&parts, &FacetSettings::default(), found as u64, &losers);
        assert_eq!(
            (counted.distribution, counted.stats),
            facets(&whole),
            "seed {seed}: facets"
        );
    }
}
