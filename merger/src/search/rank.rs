//! What orders hits: each ranking rule's verdict, as a node reports it in `_rankingScoreDetails`.
//!
//! Hits of different shards are compared rule by rule on raw values, in the order of the rules, and not by the shards'
//! `_rankingScore`: a shard's score of one rule (`typo`) depends on the words that the shard holds. That rule's scale is
//! recomputed from all shards ([`rebuild_score`]).
//!
//! Pure: functions of values.

mod rebuild;
mod unknown_words;

use std::cmp::Ordering;
use std::sync::Arc;

pub(super) use rebuild::fraction;
pub use rebuild::{rebuild_details, rebuild_score, write_number};
pub use unknown_words::{Known, Scheme, correct, corrected_details, part_details, suspects};
pub(super) use unknown_words::{pairs_of, rebuilt};

use super::scan::{Malformed, Members, number, unquote};

/// All rules' verdicts on one hit, in the rules' order.
pub type Ranks = Arc<[Rank]>;

/// One rule's verdict on one hit.
#[derive(Debug, Clone, PartialEq)]
pub enum Rank {
    /// `words`: how many of the query's words match.
    Words {
        /// The number of words that match.
        matching: u32,
        /// The number of words in the query.
        max: u32,
    },
    /// `typo`: fewer are better. `max` differs between shards.
    Typo {
        /// The number of typos in the matching words.
        count: u32,
        /// The most typos that this shard could have found.
        max: u32,
    },
    /// A rule that gives only a score from 0 to 1.
    Score {
        /// Which rule.
        rule: Rule,
        /// Its score.
        score: f64,
    },
    /// `attribute`, the rule that combines `attributeRank` and `wordPosition`.
    Attribute {
        /// The score of `attributeRank`.
        fid: f64,
        /// The score of `wordPosition`.
        position: f64,
    },
    /// `exactness`.
    Exactness {
        /// Whether an attribute is the query, or begins with it.
        matching: Matching,
        /// The number of words that match exactly. A node doesn't report it if `matching` is enough.
        words: u32,
        /// The number of words that could match exactly.
        max: u32,
    },
    /// A sort by an attribute, or a custom ranking rule.
    Sort {
        /// True if the smallest value comes first.
        ascending: bool,
        /// The value by which the engine sorted.
        value: SortValue,
    },
    /// A sort by distance.
    Geo {
        /// True if the nearest document comes first.
        ascending: bool,
        /// In metres; `None` for a document without coordinates.
        distance: Option<f64>,
    },
    /// A semantic match.
    Vector {
        /// Similarity from 0 to 1.
        similarity: f64,
    },
    /// A document that a search rule puts at a fixed place.
    Pin {
        /// The place.
        position: u32,
    },
    /// The search ran out of time before this rule, or the merger doesn't know the rule.
    Skipped,
}

/// A rule that gives only a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// `proximity`.
    Proximity,
    /// `attributeRank`.
    AttributeRank,
    /// `wordPosition`.
    WordPosition,
    /// Another.
    Other,
}

/// How an attribute matches the query as a whole, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matching {
    /// `exactMatch`.
    Exact,
    /// `matchesStart`.
    Start,
    /// `noExactMatch`.
    None,
}

/// A value that documents are sorted by. Numbers come before strings, and missing values come last.
#[derive(Debug, Clone, PartialEq)]
pub enum SortValue {
    /// A number.
    Number(f64),
    /// A string, normalised by the engine.
    Text(String),
    /// The value isn't displayed: the engine reports only that there is one.
    Hidden,
    /// No value.
    Missing,
}

impl Rank {
    /// `Less` if the hit with this verdict comes first.
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Words { matching: a, .. }, Self::Words { matching: b, .. }) => b.cmp(a),
            (Self::Typo { count: a, .. }, Self::Typo { count: b, .. }) => a.cmp(b),
            (Self::Score { score: a, .. }, Self::Score { score: b, .. }) => b.total_cmp(a),
            (
                Self::Attribute {
                    fid: a,
                    position: x,
                },
                Self::Attribute {
                    fid: b,
                    position: y,
                },
            ) => b.total_cmp(a).then_with(|| y.total_cmp(x)),
            (
                Self::Exactness {
                    matching: a,
                    words: x,
                    ..
                },
                Self::Exactness {
                    matching: b,
                    words: y,
                    ..
                },
            ) => a.cmp(b).then_with(|| y.cmp(x)),
            (
                Self::Sort {
                    ascending,
                    value: a,
                },
                Self::Sort { value: b, .. },
            ) => a.compare(b, *ascending),
            (
                Self::Geo {
                    ascending,
                    distance: a,
                },
                Self::Geo { distance: b, .. },
            ) => compare_distances(*a, *b, *ascending),
            (Self::Vector { similarity: a }, Self::Vector { similarity: b }) => b.total_cmp(a),
            (Self::Pin { position: a }, Self::Pin { position: b }) => a.cmp(b),
            _ => self.kind().cmp(&other.kind()),
        }
    }

    /// A number that orders verdicts of different rules at the same position (which doesn't occur within one search).
    fn kind(&self) -> u8 {
        match self {
            Self::Pin { .. } => 0,
            Self::Vector { .. } => 1,
            Self::Words { .. } => 2,
            Self::Typo { .. } => 3,
            Self::Score { .. } | Self::Attribute { .. } | Self::Exactness { .. } => 4,
            Self::Sort { .. } => 5,
            Self::Geo { .. } => 6,
            Self::Skipped => 7,
        }
    }
}

impl SortValue {
    /// `Less` if this value comes first.
    pub fn compare(&self, other: &Self, ascending: bool) -> Ordering {
        let directed = |order: Ordering| if ascending { order } else { order.reverse() };
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => directed(a.total_cmp(b)),
            (Self::Text(a), Self::Text(b)) => directed(a.cmp(b)),
            _ => self.kind().cmp(&other.kind()),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Text(_) => 1,
            Self::Hidden => 2,
            Self::Missing => 3,
        }
    }

    /// Reads the value from its JSON text.
    pub fn from_json(text: &[u8]) -> Self {
        match text.first() {
            Some(b'"') => match unquote(text) {
                Some(text) if text == "<hidden>" => Self::Hidden,
                Some(text) => Self::Text(text),
                None => Self::Missing,
            },
            _ => number(text).map_or(Self::Missing, Self::Number),
        }
    }
}

fn compare_distances(a: Option<f64>, b: Option<f64>, ascending: bool) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if ascending => a.total_cmp(&b),
        (Some(a), Some(b)) => b.total_cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// Compares two hits rule by rule; `Less` if the first one comes first.
pub fn compare(a: &[Rank], b: &[Rank]) -> Ordering {
    for (x, y) in a.iter().zip(b) {
        let order = x.compare(y);
        if order != Ordering::Equal {
            return order;
        }
    }
    b.len().cmp(&a.len())
}

/// The position of the `typo` rule, if there is one.
pub fn typo_place(ranks: &[Rank]) -> Option<usize> {
    ranks
        .iter()
        .position(|rank| matches!(rank, Rank::Typo { .. }))
}

/// True if two hits were in the same bucket when the `typo` rule (at `place`) began, so that one node would have measured
/// their typos on the same scale.
pub fn same_scale(a: &[Rank], b: &[Rank], place: usize) -> bool {
    match (a.get(..place), b.get(..place)) {
        (Some(a), Some(b)) => compare(a, b) == Ordering::Equal,
        _ => false,
    }
}

/// Reads `_rankingScoreDetails`.
///
/// # Errors
/// The text isn't an object of objects.
pub fn read_details(text: &[u8]) -> Result<Ranks, Malformed> {
    let mut rules = Members::new(text, 0);
    let mut ranks: Vec<(u32, Rank)> = Vec::with_capacity(8);
    while let Some(rule) = rules.next()? {
        let body = text.get(rule.value).unwrap_or_default();
        let fields = Fields::read(body)?;
        let order = fields
            .order
            .unwrap_or(u32::try_from(ranks.len()).unwrap_or(u32::MAX));
        ranks.push((order, verdict(rule.key, &fields)));
    }
    ranks.sort_by_key(|(order, _)| *order);
    Ok(ranks.into_iter().map(|(_, rank)| rank).collect())
}

/// The members that rules' objects can have, of all rules together.
#[derive(Default)]
struct Fields<'a> {
    order: Option<u32>,
    matching: u32,
    max_matching: u32,
    typos: u32,
    max_typos: u32,
    score: Option<f64>,
    fid: Option<f64>,
    word_distance: Option<f64>,
    match_type: Option<&'a [u8]>,
    similarity: Option<f64>,
    distance: Option<f64>,
    position: u32,
    value: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(text: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        let mut members = Members::new(text, 0);
        while let Some(member) = members.next()? {
            let value = text.get(member.value).unwrap_or_default();
            match member.key {
                b"order" => fields.order = Some(integer(value)),
                b"matchingWords" => fields.matching = integer(value),
                b"maxMatchingWords" => fields.max_matching = integer(value),
                b"typoCount" => fields.typos = integer(value),
                b"maxTypoCount" => fields.max_typos = integer(value),
                b"score" => fields.score = number(value),
                b"attributeRankingOrderScore" => fields.fid = number(value),
                b"queryWordDistanceScore" => fields.word_distance = number(value),
                b"matchType" => fields.match_type = Some(value),
                b"similarity" => fields.similarity = number(value),
                b"distance" => fields.distance = number(value),
                b"position" => fields.position = integer(value),
                b"value" => fields.value = Some(value),
                _ => {}
            }
        }
        Ok(fields)
    }
}

fn integer(text: &[u8]) -> u32 {
    text.iter().take(9).fold(0, |sum, byte| {
        if byte.is_ascii_digit() {
            sum * 10 + u32::from(byte - b'0')
        } else {
            sum
        }
    })
}

fn verdict(rule: &[u8], fields: &Fields<'_>) -> Rank {
    match rule {
        b"words" => Rank::Words {
            matching: fields.matching,
            max: fields.max_matching,
        },
        b"typo" => Rank::Typo {
            count: fields.typos,
            max: fields.max_typos,
        },
        b"vectorSort" => Rank::Vector {
            similarity: fields.similarity.unwrap_or(0.0),
        },
        b"pin" => Rank::Pin {
            position: fields.position,
        },
        b"skipped" => Rank::Skipped,
        b"attribute" => Rank::Attribute {
            fid: fields.fid.unwrap_or(0.0),
            position: fields.word_distance.unwrap_or(0.0),
        },
        b"exactness" => Rank::Exactness {
            matching: match fields.match_type {
                Some(b"\"exactMatch\"") => Matching::Exact,
                Some(b"\"matchesStart\"") => Matching::Start,
                _ => Matching::None,
            },
            words: fields.matching,
            max: fields.max_matching,
        },
        rule if rule.starts_with(b"_geoPoint(") => Rank::Geo {
            ascending: rule.ends_with(b":asc"),
            distance: fields.distance,
        },
        rule => match (fields.value, fields.score) {
            (Some(value), None) => Rank::Sort {
                ascending: rule.ends_with(b":asc"),
                value: SortValue::from_json(value),
            },
            (_, Some(score)) => {
                let rule = match rule {
                    b"proximity" => Rule::Proximity,
                    b"attributeRank" => Rule::AttributeRank,
                    b"wordPosition" => Rule::WordPosition,
                    _ => Rule::Other,
                };
                Rank::Score { rule, score }
            }
            (None, None) => Rank::Skipped,
        },
    }
}

#[cfg(test)]
mod tests;
