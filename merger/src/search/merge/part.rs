//! A search that is asked for in parts: one request for each set of words that a document may lack.
//!
//! `matchingStrategy: frequency` drops the words that are most frequent on the node. A shard whose counts order the words
//! otherwise than the whole index does is asked for each set that one node would keep, one by one (see
//! [`crate::search::frequency`]). Its verdict on `words` then refers to that set, and is converted to the whole query's scale here.
//!
//! Pure: functions of values.

use crate::search::rank::{Matching, Rank, Ranks, Scheme, fraction, rebuilt};

/// Identifies a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The number of words that were kept.
    pub kept: u32,
    /// How many of the kept words are never dropped. One node counts all of them as one.
    pub fixed: u32,
    /// The number of words in the whole query.
    pub all: u32,
    /// True if a word was dropped before one that was kept: then no attribute counts as equal to the query.
    pub broken: bool,
}

/// How a hit relates to a part.
pub(super) enum Placing {
    /// The hit belongs to the part, with the verdicts of one node.
    Inside(Placed),
    /// The hit lacks some of the words that were kept: it belongs to another part.
    Outside,
    /// The shard saw another number of words than the merger.
    Unclear,
}

/// The verdicts on the scale of the whole query.
pub(super) struct Placed {
    pub(super) ranks: Ranks,
    pub(super) score: Option<f64>,
    /// True if the verdict on exactness was changed.
    pub(super) corrected: bool,
}

impl Part {
    /// The rank that one node gives in the `words` rule, and the number of ranks.
    fn on_one_node(self) -> (u32, u32) {
        let fixed = self.fixed.saturating_sub(1);
        (
            self.kept.saturating_sub(fixed),
            self.all.saturating_sub(fixed),
        )
    }

    pub(super) fn place(&self, ranks: &Ranks, score: Option<f64>, scheme: Scheme) -> Placing {
        let at = ranks
            .iter()
            .position(|rank| matches!(rank, Rank::Words { .. }));
        let (Some(at), Some(Rank::Words { matching, max })) = (at, at.and_then(|at| ranks.get(at)))
        else {
            return Placing::Unclear;
        };
        if *max != self.kept {
            return Placing::Unclear;
        }
        if matching < max {
            return Placing::Outside;
        }
        let claims = |rank: &Rank| matches!(rank, Rank::Exactness { matching, .. } if *matching != Matching::None);
        let corrected = self.broken && ranks.iter().any(claims);
        let mut placed: Vec<Rank> = ranks.to_vec();
        let mut score = score;
        if corrected {
            for rank in placed.iter_mut().filter(|rank| claims(rank)) {
                *rank = Rank::Exactness {
                    matching: Matching::None,
                    words: self.kept,
                    max: self.kept,
                };
            }
            score =
                score.map(|score| rebuilt(ranks, &placed, score, scheme, None).unwrap_or(score));
        }
        let (matching, max) = self.on_one_node();
        if let Some(rank) = placed.get_mut(at) {
            *rank = Rank::Words { matching, max };
        }
        Placing::Inside(Placed {
            ranks: placed.into(),
            score: score.map(|score| self.on_the_whole_scale(score)),
            corrected,
        })
    }

    /// `score = ((kept − 1) + rest) / kept`, with one node's rank and number of ranks instead of `kept`. Computed in whole
    /// numbers, as on a node, so that the result equals the node's to the last digit.
    fn on_the_whole_scale(self, score: f64) -> f64 {
        let (kept, (rank, ranks)) = (f64::from(self.kept), self.on_one_node());
        let (above, below) = fraction(score, 4e-16).unwrap_or((score, 1.0));
        let rest = above * kept - (kept - 1.0) * below;
        (f64::from(rank.saturating_sub(1)) * below + rest) / (below * f64::from(ranks.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::rank::read_details;

    fn placed(part: Part, details: &str, score: f64) -> Option<(Ranks, f64)> {
        let ranks = read_details(details.as_bytes()).unwrap();
        match part.place(&ranks, Some(score), Scheme::default()) {
            Placing::Inside(placed) => Some((placed.ranks, placed.score.unwrap())),
            Placing::Outside => None,
            Placing::Unclear => panic!("unclear"),
        }
    }

    #[test]
    fn a_part_is_put_on_the_scale_of_the_whole_query() {
        let part = Part {
            kept: 1,
            fixed: 1,
            all: 2,
            broken: false,
        };
        let details = r#"{"words":{"order":0,"matchingWords":1,"maxMatchingWords":1,"score":1.0},"typo":{"order":1,"typoCount":0,"maxTypoCount":1,"score":1.0}}"#;
        // As recorded: a hit of one of two words.
        let (ranks, score) = placed(part, details, 0.9924242424242424).unwrap();
        assert_eq!(score, 0.4962121212121212);
        assert_eq!(
            ranks.first(),
            Some(&Rank::Words {
                matching: 1,
                max: 2
            })
        );
    }

    #[test]
    fn words_that_are_never_dropped_count_as_one() {
        let part = Part {
            kept: 3,
            fixed: 2,
            all: 4,
            broken: false,
        };
        assert_eq!(part.on_one_node(), (2, 3));
    }

    #[test]
    fn hits_that_lack_a_word_belong_to_another_part() {
        let part = Part {
            kept: 2,
            fixed: 1,
            all: 3,
            broken: false,
        };
        let details = r#"{"words":{"order":0,"matchingWords":1,"maxMatchingWords":2,"score":0.5}}"#;
        assert_eq!(placed(part, details, 0.5), None);
        let other = r#"{"words":{"order":0,"matchingWords":3,"maxMatchingWords":3,"score":0.5}}"#;
        let ranks = read_details(other.as_bytes()).unwrap();
        assert!(matches!(
            part.place(&ranks, None, Scheme::default()),
            Placing::Unclear
        ));
    }
}
