//! Which sets of words one node looks for, and how to search for one such set alone.
//!
//! One node weighs the words by how many documents they find and may drop each word except the rarest. It drops a word only
//! together with all more frequent words that *follow* it; more frequent words before it may stay. (Meilisearch up to 1.50
//! at least and `milli-core` 1.15 behave like this: a skipped word excludes the words of its list that come later on the
//! path, while words visited earlier aren't checked again.) The documents of such a set, in the order of a search for all
//! its words, are one node's hits that match exactly this set.
//!
//! A dropped word leaves a gap: words that weren't neighbours don't become neighbours, and the other words keep their
//! distances. An excluded word that no document holds has the same effect.
//!
//! Pure: functions of values.

use std::ops::Range;

/// A word that no document holds. Excluding it excludes nothing, but it occupies a word's position.
pub(super) const NOTHING: &str = "zqxjvwkyqzzxqjv";
/// The most words of a query that the engine looks at.
const MOST_WORDS: usize = 10;

/// A query's words, if they can be split as the engine splits them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words {
    query: String,
    spans: Vec<Range<usize>>,
}

impl Words {
    /// The words of a query of at least two words; `None` if it has phrases, excluded words, stop words, or letters of
    /// scripts that the engine splits by dictionaries.
    pub(crate) fn read(query: &str, stop_words: &[String]) -> Option<Self> {
        let mut spans: Vec<Range<usize>> = Vec::new();
        let mut before = ' ';
        for (at, letter) in query.char_indices() {
            if letter == '"' || (letter == '-' && before.is_whitespace()) {
                return None;
            }
            if letter.is_alphanumeric() {
                if u32::from(letter) >= 0x0590 {
                    return None;
                }
                let end = at + letter.len_utf8();
                match spans.last_mut().filter(|span| span.end == at) {
                    Some(span) => span.end = end,
                    None => spans.push(at..end),
                }
            }
            before = letter;
        }
        let words = Self {
            query: query.to_owned(),
            spans,
        };
        let is_stop_word = |at| stop_words.contains(&words.word(at).to_lowercase());
        let readable =
            (2..=MOST_WORDS).contains(&words.len()) && !(0..words.len()).any(is_stop_word);
        readable.then_some(words)
    }

    /// The number of words.
    #[allow(clippy::len_without_is_empty, reason = "there are always two at least")]
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    fn word(&self, at: usize) -> &str {
        let span = self.spans.get(at).cloned().unwrap_or_default();
        self.query.get(span).unwrap_or_default()
    }

    /// A query that finds what the word at `at` finds within this one: as a prefix only if it is the query's last word.
    pub(crate) fn alone(&self, at: usize) -> String {
        let ends = self
            .spans
            .get(at)
            .is_some_and(|span| span.end == self.query.len());
        format!("{}{}", self.word(at), if ends { "" } else { " " })
    }

    /// The query with only the words that `set` keeps, each at its position.
    pub(crate) fn keeping(&self, set: &[bool]) -> String {
        let mut query = String::with_capacity(self.query.len() + 64);
        let mut last = 0;
        for (span, kept) in self.spans.iter().zip(set) {
            query.push_str(self.query.get(last..span.start).unwrap_or_default());
            if *kept {
                query.push_str(self.query.get(span.clone()).unwrap_or_default());
            } else {
                query.push_str(" -");
                query.push_str(NOTHING);
            }
            last = span.end;
        }
        query.push_str(self.query.get(last..).unwrap_or_default());
        query
    }
}

/// Words' weights by how many documents they find: the most frequent word has 0 and is dropped first. A word that finds
/// nothing counts as the most frequent of all.
pub(super) fn weights(counts: &[u64]) -> Vec<usize> {
    let counts: Vec<u64> = counts
        .iter()
        .map(|count| if *count == 0 { u64::MAX } else { *count })
        .collect();
    let mut steps = counts.clone();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    steps.dedup();
    let weight = |count: &u64| steps.iter().position(|step| step == count);
    counts
        .iter()
        .map(|count| weight(count).unwrap_or(0))
        .collect()
}

/// The sets of words that one node looks for, the largest first. The last set holds the words that are never dropped.
pub(super) fn kept_sets(weights: &[usize]) -> Vec<Vec<bool>> {
    let heaviest = weights.iter().copied().max().unwrap_or(0);
    let count = weights.len().min(MOST_WORDS);
    let allowed = |set: &Vec<bool>| {
        let dropped = |at: usize| set.get(at) == Some(&false);
        let weight = |at: usize| weights.get(at).copied().unwrap_or(0);
        (0..count).filter(|at| dropped(*at)).all(|at| {
            weight(at) < heaviest
                && (at + 1..count).all(|later| dropped(later) || weight(later) >= weight(at))
        })
    };
    let set = |bits: u32| (0..count).map(|at| bits & (1 << at) != 0).collect();
    let mut sets: Vec<Vec<bool>> = (0..1_u32 << count).map(set).filter(allowed).collect();
    let kept = |set: &Vec<bool>| set.iter().filter(|kept| **kept).count();
    sets.sort_by_key(|set| std::cmp::Reverse(kept(set)));
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(counts: &[u64]) -> Vec<String> {
        let letters = |set: Vec<bool>| {
            let letter = |(at, kept): (usize, bool)| {
                if kept {
                    char::from(b'a' + at as u8)
                } else {
                    '-'
                }
            };
            set.into_iter().enumerate().map(letter).collect()
        };
        kept_sets(&weights(counts))
            .into_iter()
            .map(letters)
            .collect()
    }

    #[test]
    fn a_word_is_dropped_with_all_more_frequent_ones_that_follow_it() {
        assert_eq!(sets(&[1, 2, 3]), ["abc", "ab-", "a--"]);
        assert_eq!(sets(&[1, 3, 2]), ["abc", "ab-", "a-c", "a--"]);
        // More frequent words before it may stay: `for real` is looked for, though `for` is the most frequent word.
        assert_eq!(sets(&[25_860, 142, 611]), ["abc", "ab-", "-bc", "-b-"]);
        assert_eq!(sets(&[5, 5]), ["ab"]);
        // A word that finds nothing is dropped first.
        assert_eq!(sets(&[7, 0]), ["ab", "a-"]);
    }

    #[test]
    fn words_are_told_apart_and_keep_their_places() {
        let words = Words::read("node-css loader", &[]).unwrap();
        assert_eq!(words.len(), 3);
        assert_eq!(
            (words.alone(0), words.alone(2)),
            ("node ".to_owned(), "loader".to_owned())
        );
        assert_eq!(
            words.keeping(&[false, true, true]),
            format!(" -{NOTHING}-css loader")
        );
        assert_eq!(words.keeping(&[true; 3]), "node-css loader");
        let ended = Words::read("a b ", &[]).unwrap();
        assert_eq!(ended.alone(1), "b ");
        for unreadable in ["one", "a \"b c\"", "a -b", "検索 エンジン", "the end"] {
            assert_eq!(
                Words::read(unreadable, &["the".to_owned()]),
                None,
                "{unreadable}"
            );
        }
    }
}
