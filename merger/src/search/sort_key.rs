//! The order of a list of documents: by attributes, then by the shards' turns.

use serde_json::Value;

use crate::search::facets::normalise;
use crate::search::field_path::scalars_at;
use crate::search::rank::{Rank, SortValue};

/// One `sort` criterion.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SortKey {
    attribute: String,
    ascending: bool,
    /// For `_geoPoint(lat, lng)`: the point from which distances are measured.
    origin: Option<(f64, f64)>,
}

impl SortKey {
    /// The attribute to look at.
    pub(super) fn attribute(&self) -> &str {
        if self.origin.is_some() {
            "_geo"
        } else {
            &self.attribute
        }
    }

    /// The document's positions by this criterion, first to last. A node goes through the numbers and then through the
    /// texts, and lists a document that has both twice.
    pub(super) fn ranks(&self, document: &Value) -> Vec<Rank> {
        if let Some(origin) = self.origin {
            let distance = document
                .get("_geo")
                .and_then(coordinates)
                .map(|point| distance(origin, point));
            return vec![Rank::Geo {
                ascending: self.ascending,
                distance,
            }];
        }
        let mut values = Vec::new();
        collect(document, &self.attribute, &mut values);
        let (numbers, texts): (Vec<_>, Vec<_>) = values
            .into_iter()
            .partition(|value| matches!(value, SortValue::Number(_)));
        let best = |values: Vec<SortValue>| {
            values
                .into_iter()
                .min_by(|a, b| a.compare(b, self.ascending))
        };
        let rank = |value| Rank::Sort {
            ascending: self.ascending,
            value,
        };
        let places: Vec<Rank> = [best(numbers), best(texts)]
            .into_iter()
            .flatten()
            .map(rank)
            .collect();
        if places.is_empty() {
            return vec![rank(SortValue::Missing)];
        }
        places
    }
}

/// A document's positions in a list sorted by `keys`: how many it has, and the `turn`th of them.
///
/// Each criterion orders the documents that the criteria before it leave equal, so the positions under the last criterion vary first.
pub(super) fn place(
    keys: &[SortKey],
    document: &Value,
    turn: impl FnOnce(usize) -> usize,
) -> Vec<Rank> {
    let ranks: Vec<Vec<Rank>> = keys.iter().map(|key| key.ranks(document)).collect();
    let mut behind = ranks.iter().map(Vec::len).product::<usize>();
    let mut turn = turn(behind).min(behind.saturating_sub(1));
    let mut place = Vec::with_capacity(keys.len());
    for mut ranks in ranks {
        behind /= ranks.len().max(1);
        let at = turn / behind.max(1);
        turn %= behind.max(1);
        if at < ranks.len() {
            place.push(ranks.swap_remove(at));
        }
    }
    place
}

/// Reads `sort`; `None` if a criterion has a form that a node doesn't know.
pub(super) fn sort_keys(criteria: &[String]) -> Option<Vec<SortKey>> {
    criteria.iter().map(|text| sort_key(text)).collect()
}

fn sort_key(text: &str) -> Option<SortKey> {
    let (attribute, direction) = text.trim().rsplit_once(':')?;
    let ascending = match direction {
        "asc" => true,
        "desc" => false,
        _ => return None,
    };
    let origin = match attribute.strip_prefix("_geoPoint(") {
        Some(rest) => {
            let (lat, lng) = rest.strip_suffix(')')?.split_once(',')?;
            Some((lat.trim().parse().ok()?, lng.trim().parse().ok()?))
        }
        None => None,
    };
    Some(SortKey {
        attribute: attribute.to_owned(),
        ascending,
        origin,
    })
}

/// An attribute's values, as the engine facets them.
fn collect(document: &Value, path: &str, values: &mut Vec<SortValue>) {
    scalars_at(document, path, &mut |value| {
        values.extend(match value {
            Value::Number(number) => number.as_f64().map(SortValue::Number),
            Value::String(text) => Some(SortValue::Text(normalise(text))),
            other => Some(SortValue::Text(other.to_string())),
        });
    });
}

fn coordinates(geo: &Value) -> Option<(f64, f64)> {
    let part = |name: &str| match geo.get(name)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    Some((part("lat")?, part("lng")?))
}

/// Metres along the great circle (haversine).
fn distance(a: (f64, f64), b: (f64, f64)) -> f64 {
    const EARTH_RADIUS: f64 = 6_372_797.560_856;
    let (lat_a, lat_b) = (a.0.to_radians(), b.0.to_radians());
    let half_lat = ((lat_b - lat_a) / 2.0).sin();
    let half_lng = ((b.1 - a.1).to_radians() / 2.0).sin();
    let h = half_lat * half_lat + lat_a.cos() * lat_b.cos() * half_lng * half_lng;
    2.0 * EARTH_RADIUS * h.sqrt().asin()
}

/// If documents are taken in turn from lists of `totals` length: how many of the first `count` come from the list at `place`.
pub(super) fn share_before(totals: &[usize], place: usize, count: usize) -> usize {
    // Complete turns: the greatest number of turns that together give no more than `count`.
    let (mut turns, mut left) = (0, count);
    let mut lengths: Vec<usize> = totals.to_vec();
    lengths.sort_unstable();
    for (at, length) in lengths.iter().enumerate() {
        let lists = lengths.len() - at;
        let whole = (length - turns).min(left / lists);
        turns += whole;
        left -= whole * lists;
        if turns < *length {
            break;
        }
    }
    let own = totals.get(place).copied().unwrap_or(0);
    // The incomplete turn: the lists that still have a document, in their order.
    let before_in_turn = totals
        .iter()
        .take(place)
        .filter(|total| **total > turns)
        .count();
    let one_more = own > turns && before_in_turn < left;
    own.min(turns) + usize::from(one_more)
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;
    use crate::search::rank::compare;

    #[test]
    fn a_lists_share_of_any_start_is_what_taking_turns_gives() {
        for totals in [
            vec![5, 0, 3, 9],
            vec![1],
            vec![4, 4],
            vec![0, 0],
            vec![7, 2, 2, 2, 1],
        ] {
            let mut taken = vec![0; totals.len()];
            let mut turns = Vec::new();
            for turn in 0..10 {
                turns.extend((0..totals.len()).filter(|at| totals[*at] > turn));
            }
            for count in 0..=turns.len() + 2 {
                for (place, taken) in taken.iter().enumerate() {
                    assert_eq!(
                        share_before(&totals, place, count),
                        *taken,
                        "{totals:?} {place} {count}"
                    );
                }
                if let Some(at) = turns.get(count) {
                    taken[*at] += 1;
                }
            }
        }
    }

    #[test]
    fn documents_are_ordered_by_the_value_that_the_engine_would_take() {
        let document = serde_json::json!({"a": {"b": [3, "x", 1]}, "s": " ÉA", "_geo": {"lat": "1", "lng": 2}});
        let rank = |text: &str| {
            let mut ranks = sort_key(text).unwrap().ranks(&document);
            ranks.swap_remove(0)
        };
        assert_eq!(
            rank("a.b:asc"),
            Rank::Sort {
                ascending: true,
                value: SortValue::Number(1.0)
            }
        );
        assert_eq!(
            rank("a.b:desc"),
            Rank::Sort {
                ascending: false,
                value: SortValue::Number(3.0)
            }
        );
        assert_eq!(
            rank("s:asc"),
            Rank::Sort {
                ascending: true,
                value: SortValue::Text(normalise("éa"))
            }
        );
        assert_eq!(
            rank("none:asc"),
            Rank::Sort {
                ascending: true,
                value: SortValue::Missing
            }
        );
        let near = rank("_geoPoint(1, 2):asc");
        assert_eq!(
            near,
            Rank::Geo {
                ascending: true,
                distance: Some(0.0)
            }
        );
        assert_eq!(
            compare(&[near], &[rank("_geoPoint(5, 2):asc")]),
            Ordering::Less
        );
        assert_eq!(sort_key("a"), None);
    }

    #[test]
    fn numbers_and_texts_give_a_document_a_place_each_under_each_criterion() {
        let document = serde_json::json!({"s": [3, 1, "b", "a", null], "t": [1, "x"], "u": 5});
        let keys = sort_keys(&["s:asc", "u:asc", "t:desc"].map(str::to_owned)).unwrap();
        let number = |ascending, number| Rank::Sort {
            ascending,
            value: SortValue::Number(number),
        };
        let text = |ascending, text| Rank::Sort {
            ascending,
            value: SortValue::Text(normalise(text)),
        };
        let expected = [
            [number(true, 1.0), number(true, 5.0), number(false, 1.0)],
            [number(true, 1.0), number(true, 5.0), text(false, "x")],
            [text(true, "a"), number(true, 5.0), number(false, 1.0)],
            [text(true, "a"), number(true, 5.0), text(false, "x")],
        ];
        for (turn, expected) in expected.iter().enumerate() {
            let place = place(&keys, &document, |places| {
                assert_eq!(places, 4);
                turn
            });
            assert_eq!(place, expected);
        }
        // Listed more often than its values explain: it stays at its last position.
        assert_eq!(place(&keys, &document, |_| 9), expected[3]);
    }
}
