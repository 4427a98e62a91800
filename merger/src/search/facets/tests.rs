use super::*;

fn counts(pairs: &[(&str, u64)]) -> Counts {
    Counts(
        pairs
            .iter()
            .map(|(value, count)| ((*value).to_owned(), *count))
            .collect(),
    )
}

fn merged(
    lists: &[Counts],
    settings: &FacetSettings,
    numeric: bool,
    candidates: u64,
) -> (Vec<(String, u64)>, bool) {
    let shards: Vec<(Distribution, Stats)> = lists
        .iter()
        .map(|list| {
            let stats = if numeric {
                vec![("f".to_owned(), FacetStats { min: 0.0, max: 9.0 })]
            } else {
                vec![]
            };
            (
                Distribution(vec![("f".to_owned(), list.clone())]),
                Stats(stats),
            )
        })
        .collect();
    let shards: Vec<ShardFacets<'_>> = shards
        .iter()
        .map(|(distribution, stats)| ShardFacets {
            distribution,
            stats,
        })
        .collect();
    let merged = merge_facets(&shards, settings, candidates, &[]);
    (
        merged.distribution.get("f").unwrap().0.clone(),
        merged.uncertain.is_empty(),
    )
}

fn settings(max_values: usize, order: FacetOrder) -> FacetSettings {
    FacetSettings {
        max_values,
        sort_by: [("*".to_owned(), order)].into_iter().collect(),
    }
}

fn list(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    counts(pairs).0
}

#[test]
fn strings_cut_by_each_shard_lose_nothing() {
    let (values, certain) = merged(
        &[counts(&[("b", 1), ("D", 2)]), counts(&[("a", 3), ("B", 4)])],
        &settings(2, FacetOrder::Alpha),
        false,
        10,
    );
    assert_eq!(values, list(&[("a", 3), ("B", 5)]));
    assert!(certain);
}

#[test]
fn numbers_are_ordered_as_text_for_few_candidates_and_by_value_for_many() {
    let lists = [counts(&[("10", 1), ("9", 1)]), counts(&[("100", 2)])];
    let few = merged(&lists, &settings(10, FacetOrder::Alpha), true, 4);
    assert_eq!(few, (list(&[("10", 1), ("100", 2), ("9", 1)]), true));
    let many = merged(&lists, &settings(10, FacetOrder::Alpha), true, 3001);
    assert_eq!(many, (list(&[("9", 1), ("10", 1), ("100", 2)]), true));
}

#[test]
fn a_numeric_list_cut_in_the_wrong_order_is_called_uncertain() {
    let (_, certain) = merged(
        &[counts(&[("10", 1), ("9", 1)])],
        &settings(2, FacetOrder::Alpha),
        true,
        3001,
    );
    assert!(!certain);
    let (_, certain) = merged(
        &[counts(&[("9", 1), ("10", 1)])],
        &settings(2, FacetOrder::Alpha),
        true,
        3001,
    );
    assert!(certain);
}

#[test]
fn by_count_the_most_frequent_come_first_and_equals_from_the_end() {
    let lists = [
        counts(&[("a", 5), ("b", 2), ("c", 2)]),
        counts(&[("b", 1), ("d", 3)]),
    ];
    let (values, certain) = merged(&lists, &settings(10, FacetOrder::Count), false, 9);
    assert_eq!(values, list(&[("a", 5), ("d", 3), ("b", 3), ("c", 2)]));
    assert!(certain);
}

#[test]
fn lists_cut_by_count_are_certain_only_if_nothing_unseen_could_be_shown() {
    let certain = |lists: &[Counts]| merged(lists, &settings(2, FacetOrder::Count), false, 9).1;
    // "c" could have been counted 2 + 2 times.
    assert!(certain(&[
        counts(&[("a", 9), ("b", 2)]),
        counts(&[("b", 8), ("a", 2)])
    ]));
    // "b" may have been counted on the second shard too.
    assert!(!certain(&[
        counts(&[("a", 9), ("b", 5)]),
        counts(&[("a", 8), ("c", 5)])
    ]));
    // Unseen "c" could have been counted 4 + 4 times, as often as "b".
    assert!(!certain(&[
        counts(&[("a", 9), ("b", 4)]),
        counts(&[("a", 9), ("b", 4)])
    ]));
    // A list that isn't cut hides nothing.
    assert!(certain(&[counts(&[("a", 9)]), counts(&[("b", 4)])]));
}

#[test]
fn of_several_spellings_the_most_frequent_is_shown() {
    let lists = [
        counts(&[("team", 2)]),
        counts(&[("Team", 3)]),
        counts(&[("TEAM", 1)]),
    ];
    let (values, _) = merged(&lists, &settings(10, FacetOrder::Alpha), false, 6);
    assert_eq!(values, list(&[("Team", 6)]));
}

#[test]
fn stats_span_all_shards() {
    let stats = |min, max| Stats(vec![("n".to_owned(), FacetStats { min, max })]);
    let (a, b, none) = (stats(1.0, 2.0), stats(0.5, 1.5), Distribution::default());
    let shards = [&a, &b].map(|stats| ShardFacets {
        distribution: &none,
        stats,
    });
    let merged = merge_facets(&shards, &FacetSettings::default(), 2, &[]);
    assert_eq!(merged.stats, stats(0.5, 2.0));
}

/// What a node lists for a facet of numbers and texts; with `levels`, it goes through all of the facet's values.
fn listed(values: &[(u64, bool, u64)], max: usize, order: FacetOrder, levels: bool) -> Counts {
    let text = |(value, is_number, _): &(u64, bool, u64)| match is_number {
        true => value.to_string(),
        false => format!("t{value:03}"),
    };
    let mut shown: Vec<(String, u64)> = Vec::new();
    for numbers in [true, false] {
        let mut kind: Vec<&(u64, bool, u64)> = values
            .iter()
            .filter(|(_, n, count)| *n == numbers && *count > 0)
            .collect();
        match order {
            FacetOrder::Count => {
                kind.sort_by_key(|(value, _, count)| std::cmp::Reverse((*count, *value)))
            }
            FacetOrder::Alpha if levels => kind.sort(),
            FacetOrder::Alpha => kind.sort_by_key(|value| text(value)),
        }
        for value in kind {
            let is_full = if levels {
                shown.len() == max
            } else {
                shown.len() >= max
            };
            if is_full {
                break;
            }
            shown.push((text(value), value.2));
        }
        if levels && numbers && shown.len() == max {
            // The engine checks the length after it has added a value: the first text makes the list longer than `max`.
            let mut texts: Vec<_> = values
                .iter()
                .filter(|(_, n, count)| !*n && *count > 0)
                .collect();
            match order {
                FacetOrder::Count => {
                    texts.sort_by_key(|(value, _, count)| std::cmp::Reverse((*count, *value)))
                }
                FacetOrder::Alpha => texts.sort(),
            }
            shown.extend(texts.into_iter().map(|value| (text(value), value.2)));
            break;
        }
    }
    Counts(shown)
}

#[test]
fn mixed_values_are_cut_as_one_node_cuts_them_where_nothing_can_be_missing() {
    let mut certain_ones = 0;
    for seed in 1..=400_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut roll = |sides: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % sides
        };
        let max = 1 + usize::try_from(roll(7)).unwrap();
        let order = if roll(2) == 0 {
            FacetOrder::Alpha
        } else {
            FacetOrder::Count
        };
        let values: Vec<(u64, bool)> = (0..roll(9))
            .map(|v| (v * 7, true))
            .chain((0..roll(6)).map(|v| (v, false)))
            .collect();
        // All shards hold every value; otherwise a list full of another shard's numbers may hide strings.
        let shards: Vec<Vec<(u64, bool, u64)>> = (0..3)
            .map(|_| values.iter().map(|(v, n)| (*v, *n, 1 + roll(40))).collect())
            .collect();
        let whole: Vec<(u64, bool, u64)> = values
            .iter()
            .enumerate()
            .map(|(at, (v, n))| (*v, *n, shards.iter().map(|shard| shard[at].2).sum()))
            .collect();
        let levels = order == FacetOrder::Count;
        let lists: Vec<Counts> = shards
            .iter()
            .map(|shard| listed(shard, max, order, levels))
            .collect();
        let numeric = values.iter().any(|(_, n)| *n);
        let (found, certain) = merged(&lists, &settings(max, order), numeric, 9);
        if certain {
            certain_ones += 1;
            let expected = listed(&whole, max, order, levels).0;
            assert_eq!(found, expected, "seed {seed}, {max} values, {order:?}");
        }
    }
    assert!(certain_ones > 200, "{certain_ones}");
}
