use super::*;

fn ranks(text: &str) -> Ranks {
    read_details(text.as_bytes()).unwrap()
}

#[test]
fn details_are_read_in_the_order_of_their_rules() {
    let text = r#"{"typo":{"order":1,"typoCount":1,"maxTypoCount":2,"score":0.6},
        "words":{"order":0,"matchingWords":2,"maxMatchingWords":3,"score":0.66},
        "release:desc":{"order":2,"value":"abc"},
        "_geoPoint(35, 139):desc":{"order":3,"value":{"lat":1.0,"lng":2.0},"distance":12.5},
        "exactness":{"order":4,"matchType":"exactMatch","score":1.0},
        "vectorSort":{"order":5,"similarity":0.5}}"#;
    let expected = [
        Rank::Words {
            matching: 2,
            max: 3,
        },
        Rank::Typo { count: 1, max: 2 },
        Rank::Sort {
            ascending: false,
            value: SortValue::Text("abc".to_owned()),
        },
        Rank::Geo {
            ascending: false,
            distance: Some(12.5),
        },
        Rank::Exactness {
            matching: Matching::Exact,
            words: 0,
            max: 0,
        },
        Rank::Vector { similarity: 0.5 },
    ];
    assert_eq!(&*ranks(text), expected);
}

#[test]
fn values_sort_as_the_engine_sorts_them() {
    let values =
        ["1", "2.5", r#""a""#, r#""b""#, "null"].map(|text| SortValue::from_json(text.as_bytes()));
    let sorted = |ascending: bool| {
        let mut order: Vec<usize> = vec![4, 2, 0, 3, 1];
        order.sort_by(|a, b| values[*a].compare(&values[*b], ascending));
        order
    };
    assert_eq!(sorted(true), [0, 1, 2, 3, 4]);
    assert_eq!(sorted(false), [1, 0, 3, 2, 4]);
}

#[test]
fn typos_are_compared_by_number_and_not_by_score() {
    let few = ranks(r#"{"typo":{"order":0,"typoCount":1,"maxTypoCount":1,"score":0.5}}"#);
    let many = ranks(r#"{"typo":{"order":0,"typoCount":2,"maxTypoCount":5,"score":0.66}}"#);
    assert_eq!(compare(&few, &many), Ordering::Less);
}

/// The score as a node computes it: whole numbers, one division.
fn node_score(ranks: &[(u32, u32)]) -> f64 {
    let (mut rank, mut most) = (1_u32, 1_u32);
    for (inner, max) in ranks {
        rank = (rank - 1) * max + inner;
        most *= max;
    }
    f64::from(rank) / f64::from(most)
}

#[test]
fn a_rebuilt_score_is_the_nodes_own_to_the_last_digit() {
    let mut checked = 0;
    for words in 1..=6_u32 {
        for matching in 1..=words {
            for max in 0..=4_u32 {
                for count in 0..=max {
                    for after in [(8, 8), (1, 8), (15, 22), (3, 36)] {
                        for last in [(20, 21), (1, 31), (7, 41)] {
                            for exact in [(3, 3), (1, 3)] {
                                let score = |max: u32| {
                                    let typo = (max + 1 - count, max + 1);
                                    node_score(&[
                                        (matching, words),
                                        typo,
                                        after,
                                        last,
                                        exact,
                                        (1, words + 1),
                                    ])
                                };
                                let ranks = [
                                    Rank::Words {
                                        matching,
                                        max: words,
                                    },
                                    Rank::Typo { count, max },
                                ];
                                for new in max..=max + 3 {
                                    assert_eq!(rebuild_score(score(max), &ranks, new), score(new));
                                    checked += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(checked > 20_000);
}

#[test]
fn details_are_rebuilt_in_place() {
    let text = r#"{"words":{"order":0,"matchingWords":1,"maxMatchingWords":1,"score":1.0},"typo":{"order":1,"typoCount":1,"maxTypoCount":1,"score":0.5},"sort:asc":{"order":2,"value":1}}"#;
    let mut out = Vec::new();
    rebuild_details(text.as_bytes(), 3, &mut out).unwrap();
    let expected = text.replace(
        r#""maxTypoCount":1,"score":0.5"#,
        r#""maxTypoCount":3,"score":0.75"#,
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let mut same = Vec::new();
    rebuild_details(text.as_bytes(), 1, &mut same).unwrap();
    assert_eq!(same, text.as_bytes());
}
