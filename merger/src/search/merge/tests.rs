use super::*;
use crate::search::hit::{Added, Interest};

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

fn hit(id: usize, words: u64, typos: u64, max: u64, sort: u64) -> String {
    format!(
        r#"{{"id":{id},"_rankingScoreDetails":{{"words":{{"order":0,"matchingWords":{words},"maxMatchingWords":3,"score":0.1}},"typo":{{"order":1,"typoCount":{typos},"maxTypoCount":{max},"score":0.1}},"a:asc":{{"order":2,"value":{sort}}}}}}}"#
    )
}

fn id(hit: &Placed<'_>) -> usize {
    let text = std::str::from_utf8(&hit.head.text[hit.head.span.range.clone()]).unwrap();
    text[r#"{"id":"#.len()..]
        .split([',', '}'])
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

const DETAILS: Added = Added {
    score: false,
    details: true,
    formatted: false,
};

fn merge_texts<'a>(
    texts: &'a [String],
    skip: usize,
    take: usize,
    distinct: Option<&str>,
) -> Merged<'a> {
    let interest = Interest {
        pick: distinct.map(str::to_owned),
        added: DETAILS,
        ..Interest::default()
    };
    let merging = Merging {
        order: Order::Rules,
        window: Window { skip, take },
        interest: &interest,
        distinct,
        hidden: None,
        to_the_end: false,
        doubts: None,
    };
    let sources = texts
        .iter()
        .map(|text| Source::new(vec![(text.as_bytes(), 0)], false))
        .collect();
    merge(sources, &merging).unwrap()
}

fn array(hits: &[String]) -> String {
    format!("[{}]", hits.join(","))
}

#[test]
fn any_split_of_any_ranked_list_merges_back_into_it() {
    for seed in 1..=300 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let count = dice.roll(60) as usize;
        let mut ranks: Vec<(u64, u64, u64)> = (0..count)
            .map(|_| (dice.roll(3) + 1, dice.roll(3), dice.roll(4)))
            .collect();
        ranks.sort_by_key(|(words, typos, sort)| (u64::MAX - words, *typos, *sort));
        let shards = dice.roll(7) as usize + 1;
        let mut split: Vec<Vec<String>> = vec![Vec::new(); shards];
        for (at, (words, typos, sort)) in ranks.iter().enumerate() {
            split[dice.roll(shards as u64) as usize].push(hit(at, *words, *typos, 3, *sort));
        }
        let texts: Vec<String> = split.iter().map(|hits| array(hits)).collect();
        let merged = merge_texts(&texts, 0, count, None);
        let order: Vec<usize> = merged.hits.iter().map(id).collect();
        let found: Vec<_> = order.iter().map(|at| ranks[*at]).collect();
        assert_eq!(found, ranks, "seed {seed}");
        let mut ids = order.clone();
        ids.sort_unstable();
        assert_eq!(ids, (0..count).collect::<Vec<_>>(), "seed {seed}");
        // Pages are parts of the whole.
        let (skip, take) = (dice.roll(20) as usize, dice.roll(20) as usize);
        let page: Vec<usize> = merge_texts(&texts, skip, take, None)
            .hits
            .iter()
            .map(id)
            .collect();
        assert_eq!(
            page,
            order.into_iter().skip(skip).take(take).collect::<Vec<_>>(),
            "seed {seed}"
        );
    }
}

#[test]
fn hits_that_no_rule_tells_apart_are_taken_in_turn() {
    let texts = [
        r#"[{"id":1},{"id":2},{"id":3}]"#,
        r#"[{"id":11}]"#,
        r#"[{"id":21},{"id":22}]"#,
    ]
    .map(str::to_owned);
    let order: Vec<usize> = merge_texts(&texts, 0, 9, None)
        .hits
        .iter()
        .map(id)
        .collect();
    assert_eq!(order, [1, 11, 21, 2, 22, 3]);
}

#[test]
fn the_scale_of_typos_is_the_widest_of_the_shards_among_equal_words() {
    let texts = [
        array(&[hit(1, 3, 0, 1, 0), hit(2, 2, 0, 2, 0)]),
        array(&[hit(3, 3, 1, 4, 0), hit(4, 2, 1, 1, 0)]),
        array(&[hit(5, 2, 0, 5, 7)]),
    ];
    let scales = |skip, take| -> Vec<(usize, Option<u32>)> {
        merge_texts(&texts, skip, take, None)
            .hits
            .iter()
            .map(|hit| (id(hit), hit.max_typos))
            .collect()
    };
    let all = [
        (1, Some(4)),
        (3, Some(4)),
        (2, Some(5)),
        (5, Some(5)),
        (4, Some(5)),
    ];
    assert_eq!(scales(0, 9), all);
    for skip in 0..5 {
        for take in 0..5 {
            let part: Vec<_> = all.iter().copied().skip(skip).take(take).collect();
            assert_eq!(scales(skip, take), part, "{skip} {take}");
        }
    }
}

#[test]
fn of_documents_with_one_value_the_best_is_shown() {
    let texts = [
        r#"[{"id":1,"c":"x"},{"id":2,"c":"Y "}]"#,
        r#"[{"id":3,"c":["z","x"]},{"id":4},{"id":5,"c":"y"},{"id":6,"c":"w"}]"#,
    ]
    .map(str::to_owned);
    let merged = merge_texts(&texts, 0, 9, Some("c"));
    assert_eq!(merged.hits.iter().map(id).collect::<Vec<_>>(), [1, 2, 4, 6]);
    assert_eq!(merged.duplicates, 2);
}

#[test]
fn a_source_that_may_have_more_is_reported_before_anything_is_placed_without_it() {
    let interest = Interest::default();
    let merging = Merging {
        order: Order::Rules,
        window: Window { skip: 0, take: 5 },
        interest: &interest,
        distinct: None,
        hidden: None,
        to_the_end: false,
        doubts: None,
    };
    let sources = vec![
        Source::new(vec![(br#"[{"id":1}]"#, 0)], true),
        Source::new(
            vec![(br#"[{"id":11},{"id":12}]"#, 0), (br#"[{"id":13}]"#, 0)],
            false,
        ),
    ];
    let merged = merge(sources, &merging).unwrap();
    assert_eq!(merged.dry, [0]);
    assert_eq!(merged.hits.len(), 1);
}

/// A list split into shards at random; each hit's id is its position in the list.
fn split(dice: &mut Dice, ranks: &[(u64, u64, u64)], shards: usize) -> Vec<String> {
    let mut split: Vec<Vec<String>> = vec![Vec::new(); shards];
    for (at, (words, typos, sort)) in ranks.iter().enumerate() {
        split[dice.roll(shards as u64) as usize].push(hit(at, *words, *typos, 3, *sort));
    }
    split.iter().map(|hits| array(hits)).collect()
}

#[test]
fn which_answer_came_first_changes_no_rank() {
    for seed in 1..=200 {
        let mut dice = Dice(seed * 0x51_7cc1);
        let mut ranks: Vec<(u64, u64, u64)> = (0..40)
            .map(|_| (dice.roll(2) + 1, dice.roll(2), dice.roll(3)))
            .collect();
        ranks.sort_by_key(|(words, typos, sort)| (u64::MAX - words, *typos, *sort));
        let shards = dice.roll(6) as usize + 2;
        let texts = split(&mut dice, &ranks, shards);
        let mut arrived = texts.clone();
        for at in (1..arrived.len()).rev() {
            arrived.swap(at, dice.roll(at as u64 + 1) as usize);
        }
        let groups = |texts: &[String]| {
            let merged = merge_texts(texts, 0, ranks.len(), None);
            let mut groups: Vec<((u64, u64, u64), Vec<usize>)> = Vec::new();
            for at in merged.hits.iter().map(id) {
                match groups.last_mut().filter(|(rank, _)| *rank == ranks[at]) {
                    Some((_, ids)) => ids.push(at),
                    None => groups.push((ranks[at], vec![at])),
                }
            }
            groups.iter_mut().for_each(|(_, ids)| ids.sort_unstable());
            groups
        };
        assert_eq!(groups(&texts), groups(&arrived), "seed {seed}");
    }
}

#[test]
fn a_document_that_several_shards_hold_is_shown_once_wherever_it_lies() {
    for seed in 1..=200 {
        let mut dice = Dice(seed * 0xabc_def1);
        let count = dice.roll(40) as usize + 1;
        let shards = dice.roll(5) as usize + 2;
        let mut lists: Vec<Vec<String>> = vec![Vec::new(); shards];
        let mut copies = 0;
        for at in 0..count {
            let first = dice.roll(shards as u64) as usize;
            let second = dice.roll(shards as u64) as usize;
            // One shard may have read the id as a string.
            let text = format!(
                r#"{{"id":{at},"_rankingScoreDetails":{{"a:asc":{{"order":0,"value":{at}}}}}}}"#
            );
            lists[second]
                .push(text.replace(&format!(r#""id":{at},"#), &format!(r#""id":"{at}","#)));
            if first != second {
                lists[first].push(text);
                copies += 1;
            }
        }
        let texts: Vec<String> = lists.iter().map(|hits| array(hits)).collect();
        let interest = Interest {
            id: Some("id".to_owned()),
            added: DETAILS,
            ..Interest::default()
        };
        let merging = Merging {
            order: Order::Rules,
            window: Window {
                skip: 0,
                take: usize::MAX,
            },
            interest: &interest,
            distinct: None,
            hidden: None,
            to_the_end: false,
            doubts: None,
        };
        let sources = texts
            .iter()
            .map(|text| Source::new(vec![(text.as_bytes(), 0)], false));
        let merged = merge(sources.collect(), &merging).unwrap();
        let ids: Vec<&[u8]> = merged.hits.iter().filter_map(|hit| hit.head.id()).collect();
        let expected: Vec<String> = (0..count).map(|at| at.to_string()).collect();
        let expected: Vec<&[u8]> = expected.iter().map(String::as_bytes).collect();
        assert_eq!(ids, expected, "seed {seed}");
        assert_eq!(merged.twins, copies, "seed {seed}");
    }
}

/// A list of documents sorted by `s` as a node sorts it: numbers first, then texts, including documents listed already.
fn listed_by_s(documents: &[(u32, &[serde_json::Value])]) -> Vec<String> {
    let best = |kind: fn(&serde_json::Value) -> bool| {
        let mut of_kind: Vec<_> = documents
            .iter()
            .filter_map(|(id, values)| {
                let least = values.iter().filter(|v| kind(v)).map(ToString::to_string);
                Some((least.min()?, *id, *values))
            })
            .collect();
        of_kind.sort_by(|a, b| a.0.cmp(&b.0));
        of_kind
    };
    [best(|v| v.is_number()), best(|v| v.is_string())]
        .concat()
        .into_iter()
        .map(|(_, id, values)| serde_json::json!({"id": id, "s": values}).to_string())
        .collect()
}

#[test]
fn a_document_with_numbers_and_texts_is_listed_as_often_as_by_one_node() {
    use serde_json::json;
    let values: Vec<Vec<serde_json::Value>> = (0..60)
        .map(|at| match at % 5 {
            0 => vec![json!(10 + at)],
            1 => vec![json!(format!("t{}x", 10 + at))],
            2 => vec![json!(99 - at), json!(format!("t{}", 99 - at)), json!(null)],
            3 => vec![
                json!(format!("t{}", 99 - at)),
                json!("u"),
                json!(10 + at),
                json!(80),
            ],
            _ => vec![json!(40.5), json!("t40")],
        })
        .collect();
    let all: Vec<(u32, &[serde_json::Value])> = (0..60)
        .zip(values.iter().map(Vec::as_slice))
        .filter(|(at, _)| at % 5 != 4 || *at == 34)
        .collect();
    let interest = Interest {
        id: Some("id".to_owned()),
        sort: crate::search::sort_key::sort_keys(&["s:asc".to_owned()]).unwrap(),
        ..Interest::default()
    };
    let merging = Merging {
        order: Order::Rules,
        window: Window {
            skip: 0,
            take: usize::MAX,
        },
        interest: &interest,
        distinct: None,
        hidden: None,
        to_the_end: false,
        doubts: None,
    };
    let merged_ids = |parts: &[Vec<(u32, &[serde_json::Value])>]| {
        let texts: Vec<String> = parts.iter().map(|part| array(&listed_by_s(part))).collect();
        let sources = texts
            .iter()
            .map(|text| Source::new(vec![(text.as_bytes(), 0)], false));
        let merged = merge(sources.collect(), &merging).unwrap();
        let ids: Vec<usize> = merged.hits.iter().map(id).collect();
        (ids, merged.twins)
    };
    let one_node = merged_ids(std::slice::from_ref(&all));
    let listed: Vec<String> = listed_by_s(&all);
    assert_eq!(one_node.0.len(), listed.len());
    assert!(listed.len() > all.len() + 20);
    for shards in [2, 3, 7] {
        let mut parts = vec![Vec::new(); shards];
        for document in &all {
            parts[document.0 as usize * 7 % 11 % shards].push(*document);
        }
        assert_eq!(merged_ids(&parts), one_node, "{shards} shards");
        // While a document is being moved to another shard it is in two lists; it counts as one extra document, once.
        let moving = parts[0][1..3].to_vec();
        parts[1].extend(moving);
        let (ids, twins) = merged_ids(&parts);
        assert_eq!((ids, twins), (one_node.0.clone(), 2), "{shards} shards");
    }
}
