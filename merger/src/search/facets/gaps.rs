//! Numbers that a shard's cut list may hide. The merger asks for them by ranges.
//!
//! One node with many candidates lists the least numbers first. A shard with few candidates lists numbers in the order of
//! their text and cuts there: `10` and `100` are in, `9` is not. The merger asks such a shard again, for ranges of numbers
//! from its least number up, each range half as wide as the next. A range's list is complete if it isn't cut.
//!
//! Pure: functions of values.

use super::{Counts, as_number, shows_order_by_value};

/// The number of ranges asked for at once.
const RANGES: i32 = 24;

/// What a shard must be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// The shard's position among the lists.
    pub place: usize,
    /// Ranges, ascending: above the first number (in the first range: from the first number on) up to the second, which is included.
    pub ranges: Vec<(f64, f64)>,
}

/// The filter conditions that match one range.
pub fn conditions(facet: &str, (above, to): (f64, f64), first: bool) -> [String; 2] {
    let facet = facet.replace('\\', "\\\\").replace('"', "\\\"");
    [
        format!("\"{facet}\" {} {above}", if first { ">=" } else { ">" }),
        format!("\"{facet}\" <= {to}"),
    ]
}

/// Which shards must be asked again about a numeric facet, and for which ranges. `lists` holds each shard's values and its least number.
pub fn gaps(lists: &[(Counts, Option<f64>)], max_values: usize) -> Vec<Gap> {
    let mut known: Vec<f64> = lists
        .iter()
        .flat_map(|(list, _)| list.0.iter().filter_map(|(text, _)| as_number(text)))
        .collect();
    known.sort_by(f64::total_cmp);
    known.dedup();
    // No number above this one can be among the first: enough smaller numbers are known.
    let Some(last) = known
        .get(max_values.saturating_sub(1))
        .or(known.last())
        .copied()
    else {
        return Vec::new();
    };
    let hides = |list: &Counts| list.0.len() >= max_values && !shows_order_by_value(list);
    let gap = |(place, (list, least)): (usize, &(Counts, Option<f64>))| {
        let least = (*least)?;
        hides(list).then(|| Gap {
            place,
            ranges: ranges(least, last),
        })
    };
    lists.iter().enumerate().filter_map(gap).collect()
}

fn ranges(least: f64, last: f64) -> Vec<(f64, f64)> {
    let width = (last - least).max(0.0);
    let bound = |step: i32| {
        if step >= RANGES - 1 {
            last
        } else {
            least + width / f64::from(2).powi(RANGES - 1 - step)
        }
    };
    let mut ranges = Vec::new();
    let mut from = least;
    for step in 0..RANGES {
        let to = bound(step);
        if to > from || ranges.is_empty() {
            ranges.push((from, to));
            from = to;
        }
    }
    ranges
}

/// From a shard's answers to its ranges, in their order: all values up to the number where they are complete, and that number.
pub fn whole_up_to(gap: &Gap, answers: &[Counts], max_values: usize) -> (Counts, f64) {
    let mut values = Vec::new();
    let mut bound = f64::NEG_INFINITY;
    for ((_, to), answer) in gap.ranges.iter().zip(answers) {
        if answer.0.len() >= max_values && !shows_order_by_value(answer) {
            break;
        }
        values.extend(answer.0.iter().cloned());
        bound = *to;
        if answer.0.len() >= max_values {
            // In the order of values, and cut: complete up to its last number.
            bound = answer
                .0
                .iter()
                .filter_map(|(text, _)| as_number(text))
                .fold(f64::NEG_INFINITY, f64::max);
            break;
        }
    }
    (Counts(values), bound)
}

/// The facet's first values by number, if the shards' lists are complete far enough. `filled` holds the shards that were asked again.
pub fn fill(
    lists: &[(Counts, Option<f64>)],
    filled: &[(usize, Counts, f64)],
    max_values: usize,
) -> Option<Counts> {
    let mut bound = f64::INFINITY;
    let mut numbers: Vec<(f64, String, u64)> = Vec::new();
    for (place, (list, _)) in lists.iter().enumerate() {
        let refilled = filled.iter().find(|(at, _, _)| *at == place);
        let (list, own) = match refilled {
            Some((_, list, bound)) => (list, *bound),
            None if list.0.len() >= max_values => {
                let last = list.0.iter().rev().find_map(|(text, _)| as_number(text));
                (list, last.unwrap_or(f64::NEG_INFINITY))
            }
            None => (list, f64::INFINITY),
        };
        bound = bound.min(own);
        for (text, count) in &list.0 {
            let Some(number) = as_number(text) else {
                continue;
            };
            match numbers.iter_mut().find(|(known, _, _)| *known == number) {
                Some((_, _, known)) => *known += count,
                None => numbers.push((number, text.clone(), *count)),
            }
        }
    }
    numbers.retain(|(number, _, _)| *number <= bound);
    numbers.sort_by(|(a, ..), (b, ..)| a.total_cmp(b));
    (numbers.len() >= max_values).then(|| {
        Counts(
            numbers
                .into_iter()
                .take(max_values)
                .map(|(_, text, count)| (text, count))
                .collect(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list of a shard with these numbers, one document each, ordered as text.
    fn answer(numbers: &[u32], (above, to): (f64, f64), first: bool, max: usize) -> Counts {
        let within = |number: &&u32| {
            let number = f64::from(**number);
            (number > above || (first && number == above)) && number <= to
        };
        let mut texts: Vec<String> = numbers
            .iter()
            .filter(within)
            .map(ToString::to_string)
            .collect();
        texts.sort();
        Counts(texts.into_iter().take(max).map(|text| (text, 1)).collect())
    }

    #[test]
    fn the_least_numbers_of_all_are_found_behind_lists_cut_as_text() {
        const MAX: usize = 10;
        let shards: [Vec<u32>; 2] = [
            (1..2000).map(|n| n * 7).collect(),
            (1..1500).map(|n| n * n % 99_991).collect(),
        ];
        let all = (f64::NEG_INFINITY, f64::INFINITY);
        let lists: Vec<(Counts, Option<f64>)> = shards
            .iter()
            .map(|numbers| {
                (
                    answer(numbers, all, true, MAX),
                    numbers.iter().min().map(|n| f64::from(*n)),
                )
            })
            .collect();
        let gaps = gaps(&lists, MAX);
        assert_eq!(gaps.len(), 2);
        let filled: Vec<(usize, Counts, f64)> = gaps
            .iter()
            .map(|gap| {
                let ranges = gap.ranges.iter().enumerate();
                let answers: Vec<Counts> = ranges
                    .map(|(at, range)| answer(&shards[gap.place], *range, at == 0, MAX))
                    .collect();
                let (values, bound) = whole_up_to(gap, &answers, MAX);
                (gap.place, values, bound)
            })
            .collect();
        let mut expected: Vec<u32> = shards.iter().flatten().copied().collect();
        expected.sort_unstable();
        expected.dedup();
        let found = fill(&lists, &filled, MAX).unwrap();
        let found: Vec<u32> = found
            .0
            .iter()
            .map(|(text, _)| text.parse().unwrap())
            .collect();
        assert_eq!(found, expected[..MAX]);
    }

    #[test]
    fn names_are_quoted_in_filters() {
        assert_eq!(
            conditions("a \"b\"", (1.5, 2.0), false),
            ["\"a \\\"b\\\"\" > 1.5", "\"a \\\"b\\\"\" <= 2"]
        );
    }
}
