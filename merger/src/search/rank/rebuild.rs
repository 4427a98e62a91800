//! Computes the score that one node would have given, from a shard's score and the scale of all shards.
//!
//! A `_rankingScore` is nested: with `r` = rank, `m` = number of ranks, and `rest` = the combined score of the rules after
//! `typo`, `score = ((r_words − 1) + ((r_typo − 1) + rest) / m_typo) / m_words`, where `m_typo = maxTypoCount + 1` and
//! `r_typo = m_typo − typoCount`. Sorts and distances don't contribute. A node computes with whole numbers and divides
//! once. So `rest` is converted back to a fraction first, and the result equals the node's own to the last digit.

use super::{Rank, typo_place};
use crate::search::scan::{Malformed, Members};

/// The score with `max_typos` as the scale of the `typo` rule, from a shard's own score of the hit.
///
/// The score is unchanged if the scale is the shard's own, or if a rule other than `words` gives a score before `typo` (its
/// number of ranks isn't reported).
pub fn rebuild_score(score: f64, ranks: &[Rank], max_typos: u32) -> f64 {
    let Some(place) = typo_place(ranks) else {
        return score;
    };
    let Some(Rank::Typo { count, max }) = ranks.get(place) else {
        return score;
    };
    if *max == max_typos || *count > *max {
        return score;
    }
    let mut words = (1_u32, 1_u32);
    for rank in ranks.get(..place).unwrap_or_default() {
        match rank {
            Rank::Words { matching, max } if *max > 0 => words = (*matching, *max),
            Rank::Sort { .. } | Rank::Geo { .. } => {}
            _ => return score,
        }
    }
    let (word_rank, word_ranks) = (f64::from(words.0), f64::from(words.1));
    let (old_ranks, new_ranks) = (f64::from(max + 1), f64::from(max_typos + 1));
    let old_rank = old_ranks - f64::from(*count);
    let new_rank = new_ranks - f64::from(*count);
    let rest = (score * word_ranks - (word_rank - 1.0)) * old_ranks - (old_rank - 1.0);
    let tolerance = 4e-16 * word_ranks * old_ranks;
    let (numerator, denominator) = fraction(rest, tolerance).unwrap_or((rest, 1.0));
    let above = ((word_rank - 1.0) * new_ranks + (new_rank - 1.0)) * denominator + numerator;
    above / (word_ranks * new_ranks * denominator)
}

/// The simplest fraction within `tolerance` of `value`, by continued fractions; `None` if there is none that could be the
/// result of numbers of ranks.
pub(crate) fn fraction(value: f64, tolerance: f64) -> Option<(f64, f64)> {
    const LARGEST_DENOMINATOR: f64 = 2e7;
    let (mut before, mut last) = ((0.0, 1.0), (1.0, 0.0));
    let mut rest = value;
    for _ in 0..40 {
        let whole = rest.floor();
        let next = (whole * last.0 + before.0, whole * last.1 + before.1);
        if next.1 > LARGEST_DENOMINATOR {
            return None;
        }
        if (value - next.0 / next.1).abs() <= tolerance {
            return Some(next);
        }
        (before, last) = (last, next);
        rest = 1.0 / (rest - whole);
        if !rest.is_finite() {
            return None;
        }
    }
    None
}

/// Writes `_rankingScoreDetails` with `max_typos` as the scale of the `typo` rule; everything else is unchanged.
///
/// # Errors
/// The text isn't an object of objects.
pub fn rebuild_details(text: &[u8], max_typos: u32, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut rules = Members::new(text, 0);
    while let Some(rule) = rules.next()? {
        if rule.key != b"typo" {
            continue;
        }
        let body = text.get(rule.value.clone()).unwrap_or_default();
        let ranks = super::read_details(text)?;
        let Some(Rank::Typo { count, max }) =
            ranks.iter().find(|rank| matches!(rank, Rank::Typo { .. }))
        else {
            break;
        };
        if *max == max_typos {
            break;
        }
        out.extend_from_slice(text.get(..rule.value.start).unwrap_or_default());
        let score = f64::from((max_typos + 1).saturating_sub(*count)) / f64::from(max_typos + 1);
        write_typo(body, max_typos, score, out)?;
        out.extend_from_slice(text.get(rule.value.end..).unwrap_or_default());
        return Ok(());
    }
    out.extend_from_slice(text);
    Ok(())
}

fn write_typo(body: &[u8], max_typos: u32, score: f64, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut members = Members::new(body, 0);
    let mut separator = b'{';
    while let Some(member) = members.next()? {
        out.push(separator);
        separator = b',';
        out.extend_from_slice(
            body.get(member.start..member.value.start)
                .unwrap_or_default(),
        );
        match member.key {
            b"maxTypoCount" => out.extend_from_slice(max_typos.to_string().as_bytes()),
            b"score" => write_number(score, out),
            _ => out.extend_from_slice(body.get(member.value).unwrap_or_default()),
        }
    }
    out.push(b'}');
    Ok(())
}

/// Writes a number as serde_json does, and so a node.
pub fn write_number(number: f64, out: &mut Vec<u8>) {
    match serde_json::to_vec(&number) {
        Ok(text) => out.extend_from_slice(&text),
        Err(_) => out.extend_from_slice(b"null"),
    }
}
