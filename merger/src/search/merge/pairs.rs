//! The scale of the `proximity` rule if documents of one bucket match different sets of words.
//!
//! With `matchingStrategy: frequency`, documents that match equally many words may match different words: some match
//! neighbours, others match words that weren't neighbours. One node measures a whole bucket on one scale, that of the set
//! with the most neighbours that any document matches. A shard without such a document has a smaller scale; the widest
//! scale of all shards is one node's.
//!
//! Pure: functions of values.

use crate::search::rank::{Rank, Ranks, Rule, Scheme, pairs_of, rebuilt};

/// The most pairs of neighbours in each bucket. A bucket is identified by the verdicts on words and typos.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs(Vec<((u32, u32), u32)>);

impl Pairs {
    /// Takes a hit into account.
    pub fn see(&mut self, ranks: &[Rank], pairs: u32) {
        let Some(bucket) = bucket(ranks) else { return };
        match self.0.iter_mut().find(|(known, _)| *known == bucket) {
            Some((_, most)) => *most = (*most).max(pairs),
            None => self.0.push((bucket, pairs)),
        }
    }

    /// Puts the hit on the widest scale of its bucket; `None` if it is already on that scale.
    pub(super) fn widen(
        &self,
        ranks: &Ranks,
        score: f64,
        scheme: Scheme,
        pairs: u32,
    ) -> Option<(Ranks, f64)> {
        let bucket = bucket(ranks)?;
        let (_, most) = self.0.iter().find(|(known, _)| *known == bucket)?;
        if *most <= pairs {
            return None;
        }
        let scale = |pairs: u32| f64::from(3 * pairs + 1);
        let mut wide = ranks.to_vec();
        for rank in &mut wide {
            if let Rank::Score {
                rule: Rule::Proximity,
                score,
            } = rank
            {
                let cost = ((1.0 - *score) * scale(pairs)).round();
                *score = (scale(*most) - cost) / scale(*most);
            }
        }
        let score = rebuilt(ranks, &wide, score, scheme, Some(*most))?;
        Some((wide.into(), score))
    }
}

/// The number of pairs in a hit as the shard reported it.
pub(super) fn pairs_in(ranks: &[Rank], score: Option<f64>, scheme: Scheme) -> Option<u32> {
    pairs_of(ranks, score?, scheme)
}

/// The bucket of one node's `words` and `typo` rules that the hit is in.
fn bucket(ranks: &[Rank]) -> Option<(u32, u32)> {
    let words = ranks.iter().find_map(|rank| match rank {
        Rank::Words { matching, .. } => Some(*matching),
        _ => None,
    });
    let typos = ranks.iter().find_map(|rank| match rank {
        Rank::Typo { count, .. } => Some(*count),
        _ => None,
    });
    Some((words?, typos.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::rank::read_details;

    #[test]
    fn a_shard_without_neighbours_is_measured_like_one_with_them() {
        // As recorded for `the Perl internal`: this shard has no document of `Perl internal`, another one has.
        let details = r#"{"words":{"order":0,"matchingWords":2,"maxMatchingWords":3,"score":0.6666666666666666},"typo":{"order":1,"typoCount":0,"maxTypoCount":2,"score":1.0},"proximity":{"order":2,"score":1.0},"attributeRank":{"order":3,"score":0.8571428571428571},"wordPosition":{"order":4,"score":0.9047619047619048},"exactness":{"order":5,"matchType":"noExactMatch","matchingWords":2,"maxMatchingWords":2,"score":0.3333333333333333}}"#;
        let ranks = read_details(details.as_bytes()).unwrap();
        let scheme = Scheme {
            top_weight: 3,
            words: 3,
            any_words: true,
        };
        let score = 0.6487780297304107;
        assert_eq!(pairs_in(&ranks, Some(score), scheme), Some(0));
        let mut pairs = Pairs::default();
        pairs.see(&ranks, 0);
        assert_eq!(pairs.widen(&ranks, score, scheme, 0), None);
        pairs.see(&ranks, 1);
        let (wide, score) = pairs.widen(&ranks, score, scheme, 0).unwrap();
        assert_eq!(
            wide, ranks,
            "a distance of nothing is the best on any scale"
        );
        assert!((score - 0.6621945074326027).abs() < 1e-12);
    }
}
