//! Turns the documents that a search found into the hits that a client sees.

use std::collections::BTreeSet;

use milli_core::heed::RoTxn;
use milli_core::score_details::ScoreDetails;
use milli_core::tokenizer::TokenizerBuilder;
use milli_core::{
    AscDesc, Index, MatcherBuilder, MatchingWords, Member, Object, distance_between_two_points,
};
use serde_json::{Value, json};

use super::format::Formats;
use super::run::{Found, parse_sort};
use super::{Query, scores};
use crate::engine::documents::Reader;
use crate::engine::select::select;
use crate::errors::ApiResult;

/// Creates hits for one query on one index.
pub(crate) struct HitMaker<'a> {
    reader: Reader<'a>,
    query: &'a Query,
    displayed: Option<Vec<String>>,
    retrieved: Option<Vec<String>>,
    formats: Formats,
    point: Option<[f64; 2]>,
    words: WordBreaks,
}

/// How the index splits text into words.
struct WordBreaks {
    separators: Option<BTreeSet<String>>,
    dictionary: Option<BTreeSet<String>>,
}

impl<'a> HitMaker<'a> {
    /// Prepares for a query.
    pub(crate) fn new(
        index: &'a Index,
        rtxn: &'a RoTxn<'a>,
        query: &'a Query,
    ) -> ApiResult<HitMaker<'a>> {
        let reader = Reader::new(index, rtxn)?;
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let displayed = index.displayed_fields(rtxn)?.map(owned);
        let asked = query
            .attributes_to_retrieve
            .as_ref()
            .filter(|names| !names.contains("*"));
        let retrieved = asked.map(|names| names.iter().cloned().collect::<Vec<_>>());
        let fields: Vec<String> = match &displayed {
            Some(names) => names.clone(),
            None => reader.attributes(),
        };
        let shown: Vec<String> = match &retrieved {
            Some(names) => fields
                .iter()
                .filter(|field| names.contains(field))
                .cloned()
                .collect(),
            None => fields.clone(),
        };
        let localized = index.localized_attributes_rules(rtxn)?.unwrap_or_default();
        Ok(HitMaker {
            reader,
            query,
            formats: Formats::of(query, &fields, &shown, localized),
            displayed,
            retrieved,
            point: sorted_around(query)?,
            words: WordBreaks {
                separators: index.allowed_separators(rtxn)?,
                dictionary: index.dictionary(rtxn)?,
            },
        })
    }

    /// Creates all hits. Uses up what the result holds of the matching words.
    pub(crate) fn make_all(&self, found: &mut Found) -> ApiResult<Vec<Object>> {
        let words = std::mem::take(&mut found.result.matching_words);
        self.make_some(
            words,
            &found.result.documents_ids,
            &found.result.document_scores,
        )
    }

    /// Creates hits one by one.
    pub(crate) fn make_some(
        &self,
        words: MatchingWords,
        documents: &[u32],
        scores: &[Vec<ScoreDetails>],
    ) -> ApiResult<Vec<Object>> {
        let separators: Option<Vec<&str>> = self
            .words
            .separators
            .as_ref()
            .map(|words| words.iter().map(String::as_str).collect());
        let dictionary: Option<Vec<&str>> = self
            .words
            .dictionary
            .as_ref()
            .map(|words| words.iter().map(String::as_str).collect());
        let mut tokenizer: TokenizerBuilder<'_, &[u8]> = TokenizerBuilder::new();
        tokenizer.create_char_map(true);
        if let Some(separators) = &separators {
            tokenizer.separators(separators);
        }
        if let Some(dictionary) = &dictionary {
            tokenizer.words_dict(dictionary);
        }
        let mut builder = MatcherBuilder::new(words, tokenizer.into_tokenizer());
        builder.crop_marker(self.query.crop_marker.clone());
        builder.highlight_prefix(self.query.highlight_pre_tag.clone());
        builder.highlight_suffix(self.query.highlight_post_tag.clone());
        let no_scores = Vec::new();
        let scores = scores.iter().chain(std::iter::repeat(&no_scores));
        documents
            .iter()
            .zip(scores)
            .map(|(document, scores)| self.make(&builder, *document, scores))
            .collect()
    }

    fn make(
        &self,
        builder: &MatcherBuilder,
        internal: u32,
        scores: &[ScoreDetails],
    ) -> ApiResult<Object> {
        let query = self.query;
        let mut document = self.reader.read(internal, query.retrieve_vectors)?;
        let vectors = document
            .remove("_vectors")
            .filter(|_| query.retrieve_vectors);
        let displayed = match &self.displayed {
            Some(names) => select(
                &document,
                &names.iter().map(String::as_str).collect::<Vec<_>>(),
            ),
            None => document,
        };
        let mut hit = match &self.retrieved {
            Some(names) => select(
                &displayed,
                &names.iter().map(String::as_str).collect::<Vec<_>>(),
            ),
            None => displayed.clone(),
        };
        if let Some(vectors) = vectors {
            hit.insert("_vectors".to_owned(), vectors);
        }
        if let Some(distance) = self.point.and_then(|point| distance(&displayed, &point)) {
            hit.insert("_geoDistance".to_owned(), Value::from(distance));
        }
        if self.formats.are_wanted() || query.show_matches_position {
            let (formatted, matches) =
                self.formats
                    .apply(displayed, builder, query.show_matches_position);
            if self.formats.are_wanted() {
                hit.insert("_formatted".to_owned(), Value::Object(formatted));
            }
            if query.show_matches_position {
                hit.insert("_matchesPosition".to_owned(), json!(matches));
            }
        }
        if query.show_ranking_score {
            hit.insert(
                "_rankingScore".to_owned(),
                json!(ScoreDetails::global_score(scores.iter())),
            );
        }
        if query.show_ranking_score_details {
            hit.insert(
                "_rankingScoreDetails".to_owned(),
                Value::Object(scores::details(scores)),
            );
        }
        Ok(hit)
    }
}

/// The point around which hits are sorted, if there is one.
fn sorted_around(query: &Query) -> ApiResult<Option<[f64; 2]>> {
    let Some(sort) = &query.sort else {
        return Ok(None);
    };
    Ok(parse_sort(sort)?
        .into_iter()
        .find_map(|criterion| match criterion {
            AscDesc::Asc(Member::Geo(point)) | AscDesc::Desc(Member::Geo(point)) => Some(point),
            _ => None,
        }))
}

/// The distance from a document to a point, in metres.
fn distance(document: &Object, point: &[f64; 2]) -> Option<u64> {
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let place = document.get("_geo")?;
    let place = [number(place.get("lat")?)?, number(place.get("lng")?)?];
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no two places are that far apart"
    )]
    let metres = distance_between_two_points(point, &place).round() as u64;
    Some(metres)
}
