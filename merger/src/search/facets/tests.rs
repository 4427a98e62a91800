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
    let merged = merge_facets(&shards, settings, candidates);
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
    let merged = merge_facets(&shards, &FacetSettings::default(), 2);
    assert_eq!(merged.stats, stats(0.5, 2.0));
}
