//! Counts that shards' cut lists by count may hide.
//!
//! A value that is missing from a cut list has at most the count of the list's last value. First, each cut list is
//! lengthened: the same search without the documents that have the list's values returns the next values. Then the merger
//! asks for whatever a list still hides of values that may be among the most frequent of all: by lists of the documents of
//! so few values that their list can't be cut, or, if documents of several values make that list too long, with one
//! question per value. Only a value that is in no list can be missed.
//!
//! Pure: functions of values.

use hashbrown::{HashMap, HashSet};

use super::{Counts, Lost, as_number, merge_values, most_hidden, normalise};
use crate::search::settings::FacetOrder;

/// The most values that are asked of a shard at once, each by itself. Beyond this, the lists stay as they are.
pub const MOST_VALUES: usize = 400;
/// The most lists of values that are asked of a shard at once.
const MOST_LISTS: usize = 40;

/// What a shard must be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The shard's position among the lists.
    pub place: usize,
    /// Values that its list doesn't hold.
    pub values: Vec<String>,
}

/// A filter condition that matches the documents with one value.
pub fn condition(facet: &str, value: &str) -> String {
    format!("{} = {}", quoted_or_odd(facet), quoted_or_odd(value))
}

/// How many values a list may hold without being cut.
pub fn list_length(max_values: usize) -> usize {
    max_values.saturating_sub(1).max(1)
}

/// How many values a shard may be asked for at once: by lists, or one by one.
pub fn most_values(max_values: usize, by_lists: bool) -> usize {
    match by_lists {
        true => MOST_LISTS * list_length(max_values),
        false => MOST_VALUES,
    }
}

/// A filter condition that matches the documents with any of these values.
pub fn any_of(facet: &str, values: &[String]) -> String {
    let values: Vec<String> = values.iter().filter_map(|value| quoted(value)).collect();
    format!("{} IN [{}]", quoted_or_odd(facet), values.join(", "))
}

/// How often each of `values` was counted, from lists of the documents that have them; `None` if a list may be cut.
pub fn counted(
    values: &[String],
    lists: &[Counts],
    max_values: usize,
) -> Option<Vec<(String, u64)>> {
    let parts = values.chunks(list_length(max_values));
    if lists.len() != parts.len() {
        return None;
    }
    let mut sums: HashMap<String, u64> = HashMap::new();
    for (part, list) in parts.zip(lists) {
        if list.0.len() >= max_values {
            return None;
        }
        // Documents of several values add values that weren't asked for; another list may count those, too.
        let asked: HashSet<String> = part.iter().map(|value| normalise(value)).collect();
        for (text, count) in &list.0 {
            let key = normalise(text);
            if asked.contains(&key) {
                *sums.entry(key).or_insert(0) += count;
            }
        }
    }
    let count = |value: &String| {
        let count = sums.get(&normalise(value)).copied().unwrap_or(0);
        (value.clone(), count)
    };
    Some(values.iter().map(count).collect())
}

/// A filter condition that matches the documents with none of the list's values; `None` for a list that isn't cut.
pub fn beyond(facet: &str, list: &Counts, numeric: bool, max_values: usize) -> Option<String> {
    if most_hidden(list, numeric, max_values) == 0 {
        return None;
    }
    let values = list.0.iter().filter_map(|(text, _)| quoted(text));
    let values: Vec<String> = values.collect();
    Some(format!(
        "{} NOT IN [{}]",
        quoted_or_odd(facet),
        values.join(", ")
    ))
}

/// The list with the values beyond its cut, and the most that a value can have been counted that is still missing.
pub fn lengthened(
    list: &Counts,
    more: Option<&Counts>,
    numeric: bool,
    max_values: usize,
) -> (Counts, u64) {
    match more {
        None => (list.clone(), most_hidden(list, numeric, max_values)),
        Some(more) => {
            // Values that no filter can name weren't excluded, so they come again.
            let listed: HashSet<&str> = list.0.iter().map(|(text, _)| text.as_str()).collect();
            let new = more.0.iter();
            let new = new.filter(|(text, _)| !listed.contains(text.as_str()));
            let both = list.0.iter().chain(new).cloned();
            (
                Counts(both.collect()),
                most_hidden(more, numeric, max_values),
            )
        }
    }
}

/// Removes the values that no filter can name from `hidden`. True if there were none.
pub fn keep_nameable(hidden: &mut [Hidden]) -> bool {
    let mut all = true;
    for hidden in hidden {
        hidden.values.retain(|value| {
            let nameable = quoted(value).is_some();
            all &= nameable;
            nameable
        });
    }
    all
}

/// A text, quoted for a filter; `None` if it can't be expressed. The engine takes a backslash literally, but lets it escape
/// a quote that follows, so a text can't end with a backslash.
pub(in crate::search) fn quoted(text: &str) -> Option<String> {
    ['"', '\''].into_iter().find_map(|quote| {
        let escaped = text.replace(quote, &format!("\\{quote}"));
        (read_back(&escaped, quote).as_deref() == Some(text))
            .then(|| format!("{quote}{escaped}{quote}"))
    })
}

/// For names of facets, which need some form in any case.
pub(in crate::search) fn quoted_or_odd(text: &str) -> String {
    quoted(text).unwrap_or_else(|| format!("\"{text}\""))
}

/// How the engine reads a quoted text, without its quotes; `None` if the text would end elsewhere.
fn read_back(escaped: &str, quote: char) -> Option<String> {
    let mut characters = escaped.chars();
    let mut hides_quotes = false;
    while let Some(character) = characters.next() {
        if character == quote {
            return None;
        }
        if character == '\\' {
            hides_quotes |= characters.next()? == quote;
        }
    }
    Some(match hides_quotes {
        true => escaped.replace(&format!("\\{quote}"), &quote.to_string()),
        false => escaped.to_owned(),
    })
}

/// Which shards must be asked for the counts of which values; `None` if one of them would be asked for more than `most`.
/// `hides` holds, for each list, the most that it can have counted a value that it doesn't hold.
pub fn hidden(
    lists: &[&Counts],
    hides: &[u64],
    numeric: bool,
    max_values: usize,
    most: usize,
) -> Option<Vec<Hidden>> {
    let keys: Vec<HashSet<String>> = lists
        .iter()
        .map(|list| list.0.iter().map(|(text, _)| normalise(text)).collect())
        .collect();
    let mut sums: HashMap<String, (&str, u64)> = HashMap::new();
    for (text, count) in lists.iter().flat_map(|list| &list.0) {
        sums.entry(normalise(text)).or_insert((text, 0)).1 += count;
    }
    let is_number = |text: &str| numeric && as_number(text).is_some();
    // The least count that is shown, of the numbers and of the strings behind them. If the numbers fill the list, no string is cut.
    let least_of = |numbers: bool, shown: usize| {
        let of_kind = sums.values().filter(|(text, _)| is_number(text) == numbers);
        let mut counts: Vec<u64> = of_kind.map(|(_, count)| *count).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let least = shown.checked_sub(1).and_then(|at| counts.get(at).copied());
        least.unwrap_or(0)
    };
    let numbers = sums.values().filter(|(text, _)| is_number(text)).count();
    let least_number = least_of(true, max_values);
    let least_string = least_of(false, max_values.saturating_sub(numbers));
    let lacks = |place: usize, key: &String| {
        hides.get(place).is_some_and(|most| *most > 0)
            && keys.get(place).is_some_and(|keys| !keys.contains(key))
    };
    let may_be_shown = |key: &String, text: &str, count: u64| {
        let hidden = hides
            .iter()
            .enumerate()
            .filter(|(place, _)| lacks(*place, key))
            .fold(0_u64, |sum, (_, most)| sum.saturating_add(*most));
        let least = if is_number(text) {
            least_number
        } else {
            least_string
        };
        count.saturating_add(hidden) >= least
    };
    let candidates: Vec<(&String, &str)> = sums
        .iter()
        .filter(|(key, (text, count))| may_be_shown(key, text, *count))
        .map(|(key, (text, _))| (key, *text))
        .collect();
    let of = |place: usize| {
        let values = candidates.iter().filter(|(key, _)| lacks(place, key));
        let mut values: Vec<String> = values.map(|(_, text)| (*text).to_owned()).collect();
        values.sort_unstable();
        Hidden { place, values }
    };
    let hidden: Vec<Hidden> = (0..lists.len())
        .map(of)
        .filter(|hidden| !hidden.values.is_empty())
        .collect();
    let too_many = hidden.iter().any(|hidden| hidden.values.len() > most);
    (!too_many).then_some(hidden)
}

/// The facet's most frequent values, given `found`: for each position, the values that were hidden, with their counts. Also
/// whether no value that is missing from every list can be one of them.
pub fn fill(
    lists: &[&Counts],
    hides: &[u64],
    found: &[(usize, Vec<(String, u64)>)],
    max_values: usize,
    numeric: bool,
) -> (Counts, bool) {
    let whole: Vec<Counts> = lists
        .iter()
        .enumerate()
        .map(|(place, list)| {
            let found = found.iter().filter(|(at, _)| *at == place);
            let found = found.flat_map(|(_, values)| values.iter().cloned());
            let found = found.filter(|(_, count)| *count > 0);
            Counts(list.0.iter().cloned().chain(found).collect())
        })
        .collect();
    let whole: Vec<&Counts> = whole.iter().collect();
    let (counts, _) = merge_values(
        &whole,
        FacetOrder::Count,
        max_values,
        numeric,
        (0, &Lost::default()),
    );
    let unseen = hides
        .iter()
        .fold(0_u64, |sum, most| sum.saturating_add(*most));
    let least = counts.0.iter().map(|(_, count)| *count).min().unwrap_or(0);
    let certain = match counts.0.len().cmp(&max_values) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal => unseen < least,
        // All strings are shown when the numbers fill the list.
        std::cmp::Ordering::Greater => unseen == 0,
    };
    (counts, certain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(list: &[(&str, u64)]) -> Counts {
        Counts(
            list.iter()
                .map(|(text, count)| ((*text).to_owned(), *count))
                .collect(),
        )
    }

    #[test]
    fn what_a_cut_list_hides_of_a_frequent_value_is_asked_for() {
        let lists = [
            counts(&[("a", 9), ("b", 8), ("c", 2)]),
            counts(&[("c", 9), ("a", 5), ("d", 4)]),
            counts(&[("b", 1)]),
        ];
        let lists: Vec<&Counts> = lists.iter().collect();
        // Of `b` shard 1 may hide 4. Shard 2 hides nothing. `d` may be as frequent as the third.
        let hides = [2, 4, 0];
        assert_eq!(hidden(&lists, &hides, false, 3, 0), None);
        let hidden = hidden(&lists, &hides, false, 3, MOST_VALUES).unwrap();
        let expected = [(0, vec!["d"]), (1, vec!["b"])].map(|(place, values)| Hidden {
            place,
            values: values.into_iter().map(str::to_owned).collect(),
        });
        // 4 + 2 is less than the third's 9: `d` can't be shown.
        assert_eq!(hidden, expected[1..]);
        let found = [(1, vec![("b".to_owned(), 3)])];
        let (filled, certain) = fill(&lists, &hides, &found, 3, false);
        assert_eq!(filled, counts(&[("a", 14), ("b", 12), ("c", 11)]));
        assert!(certain, "a value in no list was counted 6 times at most");
    }

    #[test]
    fn lists_that_are_not_cut_count_their_values() {
        let values = ["a", "B", "c", "d", "e"].map(str::to_owned);
        // Two lists of two values and one list of one, for at most three values: the first one shows a document's spelling.
        let lists = [
            counts(&[("a", 3), ("b", 2)]),
            counts(&[("c", 1), ("a", 7)]),
            counts(&[]),
        ];
        let expected = [("a", 3), ("B", 2), ("c", 1), ("d", 0), ("e", 0)];
        let expected = expected.map(|(value, count)| (value.to_owned(), count));
        assert_eq!(counted(&values, &lists, 3), Some(expected.to_vec()));
        assert_eq!(counted(&values, &lists[..2], 3), None, "one is missing");
        let cut = [counts(&[("a", 3), ("b", 2), ("x", 1)])];
        assert_eq!(counted(&values[..2], &cut, 3), None);
        assert_eq!(any_of("n", &values[..2]), r#""n" IN ["a", "B"]"#);
        assert_eq!(most_values(100, true), 40 * 99);
    }

    #[test]
    fn values_are_quoted() {
        assert_eq!(condition("a b", r#"say "x\y""#), r#""a b" = "say \"x\y\"""#);
        // As the engine reads them: a backslash is literal, except before a quote.
        for (text, expected) in [
            (r"C:\new\x", Some(r#""C:\new\x""#)),
            (r"a\\b", Some(r#""a\\b""#)),
            (r#"a\"b"#, Some(r#"'a\"b'"#)),
            (r"two\\", Some(r#""two\\""#)),
            (r"one\", None),
            (r#"a\"b\'c"#, None),
            ("", Some(r#""""#)),
            ("it's", Some(r#""it's""#)),
        ] {
            assert_eq!(quoted(text).as_deref(), expected, "{text}");
        }
        let mut hidden = [Hidden {
            place: 0,
            values: vec!["a".to_owned(), r"b\".to_owned()],
        }];
        assert!(!keep_nameable(&mut hidden));
        assert_eq!(hidden[0].values, ["a"]);
        assert!(keep_nameable(&mut hidden));
    }

    /// Cut lists by count, of values spread at random over shards: together with what they hide, they give the list of all.
    #[test]
    fn any_split_counts_as_the_whole_does() {
        for seed in 1..=200_u64 {
            let mut state = seed * 0x9e37_79b9;
            let mut roll = |sides: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % sides
            };
            let shards = 2 + roll(5) as usize;
            let mut by_shard: Vec<HashMap<String, u64>> = vec![HashMap::new(); shards];
            let mut whole: HashMap<String, u64> = HashMap::new();
            for _ in 0..600 {
                let value = format!("v{}", roll(20) * roll(4));
                *whole.entry(value.clone()).or_default() += 1;
                *by_shard[roll(shards as u64) as usize]
                    .entry(value)
                    .or_default() += 1;
            }
            let ranked = |counts: &HashMap<String, u64>, most: usize| {
                let list: Vec<(&str, u64)> = counts.iter().map(|(v, c)| (v.as_str(), *c)).collect();
                merge_values(
                    &[&super::tests::counts(&list)],
                    FacetOrder::Count,
                    most,
                    false,
                    (0, &Lost::default()),
                )
                .0
            };
            let lists: Vec<Counts> = by_shard.iter().map(|counts| ranked(counts, 8)).collect();
            let lists: Vec<&Counts> = lists.iter().collect();
            // Each list at twice the length, as a second round makes it.
            let longer: Vec<(Counts, u64)> = lists
                .iter()
                .zip(&by_shard)
                .map(|(list, counts)| {
                    let whole = ranked(counts, 100);
                    let more = whole.0.iter().skip(8).take(8).cloned().collect();
                    lengthened(list, Some(&Counts(more)), false, 8)
                })
                .collect();
            let hides: Vec<u64> = longer.iter().map(|(_, hides)| *hides).collect();
            let lists: Vec<&Counts> = longer.iter().map(|(list, _)| list).collect();
            let found: Vec<(usize, Vec<(String, u64)>)> =
                hidden(&lists, &hides, false, 8, MOST_VALUES)
                    .unwrap()
                    .into_iter()
                    .map(|hidden| {
                        let count = |value: String| {
                            let count = by_shard[hidden.place].get(&value).copied().unwrap_or(0);
                            (value, count)
                        };
                        (hidden.place, hidden.values.into_iter().map(count).collect())
                    })
                    .collect();
            let (filled, certain) = fill(&lists, &hides, &found, 8, false);
            if certain {
                assert_eq!(filled, ranked(&whole, 8), "seed {seed}");
            }
        }
    }
}
