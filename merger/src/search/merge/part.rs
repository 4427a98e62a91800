//! A search asked for in parts: one request for each set of words that a document may lack.
//!
//! `matchingStrategy: frequency` drops the words that are most frequent on the node. A shard that counts otherwise than the
//! whole index is asked for each of the sets that one node would keep, by itself (see [`crate::search::frequency`]); its
//! verdict on `words` then speaks of that set and is put back on the whole query's scale here.
//!
//! Pure: functions of values.

use crate::search::rank::{Matching, Rank, Ranks, Rule, Scheme, fraction, rebuilt_in_part};

/// Which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Words that were kept.
    pub kept: u32,
    /// Words that are never dropped, of those. One node counts all of them as one.
    pub fixed: u32,
    /// Words of the whole query.
    pub all: u32,
    /// True where a word was dropped before one that was kept: then no attribute counts as being the query.
    pub broken: bool,
    /// Neighbours among the kept words, whose distance is measured.
    pub pairs: u32,
    /// The most of them in any part with as many words: one node measures all these parts on one scale.
    pub most_pairs: u32,
}

/// What a hit is in a part.
pub(super) enum Placing {
    /// A hit of it, as one node would have judged it.
    Inside(Placed),
    /// A hit that lacks some of the words that were kept: it belongs to another part.
    Outside,
    /// The shard saw another number of words.
    Unclear,
}

/// The verdicts on the scale of the whole query.
pub(super) struct Placed {
    pub(super) ranks: Ranks,
    pub(super) score: Option<f64>,
    /// True where the verdict on exactness was changed.
    pub(super) corrected: bool,
}

impl Part {
    /// The rank that one node gives to the `words` rule, and how many ranks there are.
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
        for rank in &mut placed {
            match rank {
                Rank::Exactness { .. } if corrected => {
                    *rank = Rank::Exactness {
                        matching: Matching::None,
                        words: self.kept,
                        max: self.kept,
                    };
                }
                Rank::Score {
                    rule: Rule::Proximity,
                    score,
                } => *score = self.proximity(*score),
                _ => {}
            }
        }
        let score = score.map(|score| {
            let pairs = (self.pairs, self.most_pairs.max(self.pairs));
            if corrected || pairs.0 != pairs.1 {
                rebuilt_in_part((ranks, &placed), score, scheme, pairs).unwrap_or(score)
            } else {
                score
            }
        });
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

    /// The verdict on proximity, on one node's scale: each pair costs up to 3, whichever part it is of.
    fn proximity(self, score: f64) -> f64 {
        let ranks = |pairs| f64::from(3 * pairs + 1);
        if self.most_pairs <= self.pairs {
            return score;
        }
        let cost = ((1.0 - score) * ranks(self.pairs)).round();
        (ranks(self.most_pairs) - cost) / ranks(self.most_pairs)
    }

    /// `score = ((kept − 1) + rest) / kept`, with one node's rank and ranks in the place of `kept`. In whole numbers, as a
    /// node computes: the result is its own to the last digit.
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
            pairs: 0,
            most_pairs: 0,
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
    fn all_parts_of_as_many_words_are_measured_on_one_scale() {
        // As recorded for `the Perl internal`: the shard was asked for `the … internal`, one node also for `Perl internal`.
        let part = Part {
            kept: 2,
            fixed: 1,
            all: 3,
            broken: true,
            pairs: 0,
            most_pairs: 1,
        };
        let details = r#"{"words":{"order":0,"matchingWords":2,"maxMatchingWords":2,"score":1.0},"typo":{"order":1,"typoCount":0,"maxTypoCount":2,"score":1.0},"proximity":{"order":2,"score":1.0},"attributeRank":{"order":3,"score":0.8571428571428571},"wordPosition":{"order":4,"score":0.9047619047619048},"exactness":{"order":5,"matchType":"noExactMatch","matchingWords":2,"maxMatchingWords":2,"score":0.3333333333333333}}"#;
        let ranks = read_details(details.as_bytes()).unwrap();
        let scheme = Scheme {
            top_weight: 3,
            words: 3,
        };
        let Placing::Inside(placed) = part.place(&ranks, Some(0.973167044595616), scheme) else {
            panic!("a hit of this part");
        };
        assert!((placed.score.unwrap() - 0.6621945074326027).abs() < 1e-12);
    }

    #[test]
    fn words_that_are_never_dropped_count_as_one() {
        let part = Part {
            kept: 3,
            fixed: 2,
            all: 4,
            broken: false,
            pairs: 0,
            most_pairs: 0,
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
            pairs: 0,
            most_pairs: 0,
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
