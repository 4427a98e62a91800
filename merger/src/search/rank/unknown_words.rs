//! Corrects verdicts of a shard that has never seen a word that another shard has seen.
//!
//! `exactness` ranks a document first if one of its attributes is the query, or begins with it. The engine leaves words
//! that the index doesn't hold at all out of that comparison: on a shard that has never seen the last word of `development
//! fil`, every document whose summary begins with `development` "begins with the query". One node that knows the word from
//! another shard's documents judges differently. None of the shard's documents holds the word, so one node would have
//! called each of them `noExactMatch`, with as many exact words as the shard knows.
//!
//! If words are dropped by how frequent they are, a hit with fewer words may lack any of them: then only hits of all words are checked.
//!
//! A shard's score of such a hit reveals this: it is lower than that of a hit whose words all match. [`suspects`] finds
//! such hits by recomputing the score; then the merger must ask which words the shards know.

use super::{Matching, Rank, Ranks, Rule};

/// What a score depends on beside the verdicts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scheme {
    /// The greatest weight of a searchable attribute: the number of searchable attributes minus one, or 0 if all attributes
    /// are searchable.
    pub top_weight: u32,
    /// The number of words in the query: if there is no verdict of the `words` rule, all words must match.
    pub words: u32,
    /// True if a hit with fewer words than all may match any of them, not only the first ones.
    pub any_words: bool,
}

/// Which of a query's words the shard has seen, in their order, and whether any shard has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// For each word: seen by this shard, seen by any.
    pub words: Vec<(bool, bool)>,
}

impl Known {
    /// How many of the first `count` words the shard knows, if it lacks one of them that another shard knows.
    fn lacking(&self, count: usize) -> Option<u32> {
        let words = self.words.get(..count)?;
        let lacks = words.iter().any(|(here, anywhere)| *anywhere && !*here);
        lacks.then(|| {
            u32::try_from(words.iter().filter(|(here, _)| *here).count()).unwrap_or(u32::MAX)
        })
    }
}

/// The numbers that a shard's score was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Made {
    /// The number of words that match exactly.
    exact: u32,
    /// The number of words of the query that matched.
    terms: u32,
    /// The number of neighbouring pairs in the query whose distance is measured: all pairs except those separated by a full
    /// stop or a semicolon.
    pairs: u32,
}

/// The numbers that a score was computed from; `None` if the score can't be recomputed.
fn made(ranks: &[Rank], score: f64, scheme: Scheme) -> Option<Made> {
    let terms = terms(ranks).unwrap_or(scheme.words);
    let exact = |pairs| {
        (0..=terms).rev().map(move |exact| Made {
            exact,
            terms,
            pairs,
        })
    };
    let mut all = (0..terms.max(1)).rev().flat_map(exact);
    all.find(|made| (built(ranks, scheme, *made, None) - score).abs() < 1e-11)
}

fn terms(ranks: &[Rank]) -> Option<u32> {
    ranks.iter().find_map(|rank| match rank {
        Rank::Words { matching, .. } => Some(*matching),
        _ => None,
    })
}

/// The position of a verdict which says that an attribute is the query or begins with it. `None` if there is no such
/// verdict, if a word was matched with a typo (every shard leaves such a word out of the comparison), or if the words that
/// matched can't be determined.
fn claim(ranks: &[Rank], scheme: Scheme) -> Option<usize> {
    let lacks_some = |rank: &Rank| matches!(rank, Rank::Words { matching, max } if matching < max);
    if scheme.any_words && ranks.iter().any(lacks_some) {
        return None;
    }
    if ranks
        .iter()
        .any(|rank| matches!(rank, Rank::Typo { count: 1.., .. }))
    {
        return None;
    }
    ranks.iter().position(|rank| {
        matches!(
            rank,
            Rank::Exactness {
                matching: Matching::Exact | Matching::Start,
                ..
            }
        )
    })
}

/// True if the hit was called exact although not all of its words were compared.
pub fn suspects(ranks: &[Rank], score: Option<f64>, scheme: Scheme) -> bool {
    claim(ranks, scheme).is_some()
        && score
            .and_then(|score| made(ranks, score, scheme))
            .is_some_and(|made| made.exact < made.terms)
}

/// The verdicts as one node would have given them, and the score (on the shard's own scale of typos), given what the shard
/// knows; `None` if they are already right.
pub fn correct(ranks: &Ranks, score: f64, scheme: Scheme, known: &Known) -> Option<(Ranks, f64)> {
    let place = claim(ranks, scheme)?;
    let made = made(ranks, score, scheme)?;
    let exact = known.lacking(usize::try_from(made.terms).ok()?)?;
    let rebuilt = built(ranks, scheme, Made { exact, ..made }, Some(Matching::None));
    let mut ranks = ranks.to_vec();
    if let Some(rank) = ranks.get_mut(place) {
        *rank = Rank::Exactness {
            matching: Matching::None,
            words: exact,
            max: made.terms,
        };
    }
    Some((ranks.into(), rebuilt))
}

/// The score of a hit with corrected verdicts, recomputed from the shard's own verdicts and score; optionally with a number
/// of measured pairs other than the shard's. `None` if the score can't be recomputed.
pub(crate) fn rebuilt(
    own: &[Rank],
    right: &[Rank],
    score: f64,
    scheme: Scheme,
    pairs: Option<u32>,
) -> Option<f64> {
    let made = made(own, score, scheme)?;
    let pairs = pairs.unwrap_or(made.pairs);
    Some(built(right, scheme, Made { pairs, ..made }, None))
}

/// How many pairs of neighbours the shard measured; `None` if several numbers would give the same score.
pub(crate) fn pairs_of(ranks: &[Rank], score: f64, scheme: Scheme) -> Option<u32> {
    let made = made(ranks, score, scheme)?;
    let fewer = (0..made.pairs)
        .any(|pairs| (built(ranks, scheme, Made { pairs, ..made }, None) - score).abs() < 1e-11);
    (!fewer).then_some(made.pairs)
}

/// The score from the verdicts, by the engine's arithmetic; `matching` replaces the shard's verdict, if given.
fn built(ranks: &[Rank], scheme: Scheme, made: Made, matching: Option<Matching>) -> f64 {
    let (mut rank, mut most) = (1_u32, 1_u32);
    let mut add = |inner: u32, max: u32| {
        rank = rank.saturating_sub(1).wrapping_mul(max).wrapping_add(inner);
        most = most.wrapping_mul(max);
    };
    for verdict in ranks {
        match verdict {
            Rank::Words { matching, max } => add(*matching, *max),
            Rank::Typo { count, max } => add((max + 1).saturating_sub(*count), max + 1),
            Rank::Score { rule, score } => {
                let max = size(*rule, scheme, made);
                add(of(*score, max), max);
            }
            Rank::Attribute { fid, position } => {
                let (max, last) = (
                    size(Rule::AttributeRank, scheme, made),
                    size(Rule::WordPosition, scheme, made),
                );
                add(of(*fid, max), max);
                add(of(*position, last), last);
            }
            Rank::Exactness {
                matching: claimed, ..
            } => {
                let matching = matching.unwrap_or(*claimed);
                add(3 - matching as u32, 3);
                add(made.exact + 1, made.terms + 1);
            }
            Rank::Skipped => add(0, 1),
            Rank::Sort { .. } | Rank::Geo { .. } | Rank::Vector { .. } | Rank::Pin { .. } => {}
        }
    }
    f64::from(rank) / f64::from(most)
}

/// The number of ranks of a rule for this number of terms.
fn size(rule: Rule, scheme: Scheme, made: Made) -> u32 {
    match rule {
        Rule::Proximity => 3 * made.pairs + 1,
        Rule::AttributeRank => scheme.top_weight * made.terms + 1,
        Rule::WordPosition => 10 * made.terms + 1,
        Rule::Other => 1,
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a small whole number"
)]
fn of(score: f64, max: u32) -> u32 {
    (score * f64::from(max)).round() as u32
}

/// `_rankingScoreDetails` with the corrected verdict on exactness.
pub fn corrected_details(text: &[u8], words: u32, max: u32) -> Option<Vec<u8>> {
    let mut details: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(text).ok()?;
    let exactness = details.get_mut("exactness")?.as_object_mut()?;
    let score = (f64::from(words + 1) / f64::from(max + 1)) / 3.0;
    exactness.insert("matchType".to_owned(), "noExactMatch".into());
    exactness.shift_remove("score");
    exactness.insert("matchingWords".to_owned(), words.into());
    exactness.insert("maxMatchingWords".to_owned(), max.into());
    exactness.insert("score".to_owned(), score.into());
    serde_json::to_vec(&details).ok()
}

/// `_rankingScoreDetails` with the verdicts on words and proximity on the scale of the whole query.
pub fn part_details(text: &[u8], ranks: &[Rank]) -> Option<Vec<u8>> {
    let mut details: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(text).ok()?;
    for rank in ranks {
        match rank {
            Rank::Words { matching, max } => {
                let words = details.get_mut("words")?.as_object_mut()?;
                let score = f64::from(*matching) / f64::from((*max).max(1));
                words.insert("matchingWords".to_owned(), (*matching).into());
                words.insert("maxMatchingWords".to_owned(), (*max).into());
                words.insert("score".to_owned(), score.into());
            }
            Rank::Score {
                rule: Rule::Proximity,
                score,
            } => {
                let proximity = details.get_mut("proximity")?.as_object_mut()?;
                proximity.insert("score".to_owned(), (*score).into());
            }
            _ => {}
        }
    }
    serde_json::to_vec(&details).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(matching: Matching) -> Ranks {
        Ranks::from(vec![
            Rank::Words {
                matching: 2,
                max: 2,
            },
            Rank::Typo { count: 0, max: 1 },
            Rank::Score {
                rule: Rule::Proximity,
                score: 1.0,
            },
            Rank::Score {
                rule: Rule::AttributeRank,
                score: 0.8,
            },
            Rank::Score {
                rule: Rule::WordPosition,
                score: 1.0,
            },
            Rank::Exactness {
                matching,
                words: 0,
                max: 0,
            },
        ])
    }

    const SCHEME: Scheme = Scheme {
        top_weight: 2,
        words: 2,
        any_words: false,
    };

    /// The score on a shard that knows `exact` of two words.
    fn score_of(exact: u32, matching: Matching) -> f64 {
        built(
            &ranks(matching),
            SCHEME,
            Made {
                exact,
                terms: 2,
                pairs: 1,
            },
            None,
        )
    }

    #[test]
    fn a_claim_without_all_words_is_suspect() {
        assert!(suspects(
            &ranks(Matching::Start),
            Some(score_of(1, Matching::Start)),
            SCHEME
        ));
        assert!(!suspects(
            &ranks(Matching::Start),
            Some(score_of(2, Matching::Start)),
            SCHEME
        ));
        assert!(!suspects(
            &ranks(Matching::None),
            Some(score_of(1, Matching::None)),
            SCHEME
        ));
        // A score that isn't understood is left alone.
        assert!(!suspects(&ranks(Matching::Start), Some(0.123), SCHEME));
    }

    #[test]
    fn the_verdict_is_corrected_only_where_another_shard_knows_the_word() {
        let (ranks, score) = (ranks(Matching::Start), score_of(1, Matching::Start));
        let known = Known {
            words: vec![(true, true), (false, true)],
        };
        let (corrected, rebuilt) = correct(&ranks, score, SCHEME, &known).unwrap();
        assert_eq!(
            corrected.last(),
            Some(&Rank::Exactness {
                matching: Matching::None,
                words: 1,
                max: 2
            })
        );
        assert_eq!(rebuilt, score_of(1, Matching::None));
        let nobody = Known {
            words: vec![(true, true), (false, false)],
        };
        assert_eq!(correct(&ranks, score, SCHEME, &nobody), None);
        let here = Known {
            words: vec![(true, true), (true, true)],
        };
        assert_eq!(correct(&ranks, score, SCHEME, &here), None);
    }

    #[test]
    fn a_hit_that_lacks_one_of_any_words_is_left_alone() {
        let any = Scheme {
            any_words: true,
            ..SCHEME
        };
        let whole = score_of(1, Matching::Start);
        assert!(suspects(&ranks(Matching::Start), Some(whole), any));
        let mut fewer = ranks(Matching::Start).to_vec();
        if let Some(Rank::Words { max, .. }) = fewer.first_mut() {
            *max = 3;
        }
        let made = Made {
            exact: 1,
            terms: 2,
            pairs: 1,
        };
        let score = built(&fewer, SCHEME, made, None);
        assert!(suspects(&fewer, Some(score), SCHEME));
        assert!(!suspects(&fewer, Some(score), any));
        let known = Known {
            words: vec![(true, true), (false, true), (true, true)],
        };
        assert!(correct(&fewer.clone().into(), score, SCHEME, &known).is_some());
        assert_eq!(correct(&fewer.into(), score, any, &known), None);
    }

    #[test]
    fn details_say_what_one_node_says() {
        let text = br#"{"words":{"order":0},"exactness":{"order":5,"matchType":"matchesStart","score":0.6666666666666666}}"#;
        let expected = r#"{"words":{"order":0},"exactness":{"order":5,"matchType":"noExactMatch","matchingWords":1,"maxMatchingWords":2,"score":0.2222222222222222}}"#;
        assert_eq!(
            String::from_utf8(corrected_details(text, 1, 2).unwrap()).unwrap(),
            expected
        );
    }
}
