//! One hit as it came from a shard: its bytes, and the positions of the few members that a merge looks at.

use std::ops::Range;

use super::scan::{Cursor, Malformed, Members};
use super::sort_key::SortKey;

/// Which members of a hit are looked at, in addition to the ranking score and its details.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    /// A top-level member whose value is needed: the first part of the distinct attribute's path, or `_federation`.
    pub pick: Option<String>,
    /// Top-level members that were requested from the shards but not by the client: they are removed from the hit.
    pub strip: Vec<String>,
    /// Those of them that the client wants formatted all the same, `*` for all: they stay in `_formatted`.
    pub formats: Vec<String>,
    /// The member that holds the id. A document that two shards hold at the same time is shown once.
    pub id: Option<String>,
    /// Sort criteria for documents without ranking details (lists of documents).
    pub(super) sort: Vec<SortKey>,
    /// Members that the shards were asked to add to each document. A document may have members of these names itself; a
    /// node writes its own after those.
    pub added: Added,
}

/// What a node adds to a document on request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// `_rankingScore`.
    pub score: bool,
    /// `_rankingScoreDetails`.
    pub details: bool,
    /// `_formatted`.
    pub formatted: bool,
}

/// Which top-level members to remove again, given the extra `attributes` requested from a shard and the client's `own`. A
/// member stays if the client asked for another part of it.
pub(super) fn strippable(attributes: &[String], own: &[String]) -> Vec<String> {
    let first = |path: &str| path.split('.').next().unwrap_or_default().to_owned();
    let is_free = |name: &String| !own.iter().any(|path| first(path) == *name);
    attributes
        .iter()
        .map(|path| first(path))
        .filter(is_free)
        .collect()
}

/// The positions of a hit and its members in the text.
#[derive(Debug, Clone)]
pub struct HitSpan {
    /// The whole object.
    pub range: Range<usize>,
    /// Value of `_rankingScore`.
    pub score: Option<Range<usize>>,
    /// Value of `_rankingScoreDetails`.
    pub details: Option<Range<usize>>,
    /// Value of the picked member.
    pub picked: Option<Range<usize>>,
    /// Value of the id.
    pub id: Option<Range<usize>>,
    /// Value of `_formatted`.
    formatted: Option<Range<usize>>,
    /// The end of the last member that is kept; the start of the object's content if none is kept.
    kept_end: usize,
    /// True if all members to be removed come last, as a node writes them.
    tidy: bool,
}

const SCORE: &[u8] = b"_rankingScore";
const DETAILS: &[u8] = b"_rankingScoreDetails";
const FORMATTED: &[u8] = b"_formatted";
const FEDERATION: &[u8] = b"_federation";

impl HitSpan {
    /// Reads the hit that begins at byte `at`.
    ///
    /// # Errors
    /// No object begins there.
    pub fn read(text: &[u8], at: usize, interest: &Interest) -> Result<Self, Malformed> {
        let mut members = Members::new(text, at);
        let mut span = Self {
            range: at..at,
            score: None,
            details: None,
            picked: None,
            id: None,
            formatted: None,
            kept_end: at + 1,
            tidy: true,
        };
        let mut left_out = false;
        while let Some(member) = members.next()? {
            let added = match member.key {
                SCORE if interest.added.score => Some(&mut span.score),
                DETAILS if interest.added.details => Some(&mut span.details),
                FORMATTED if interest.added.formatted => Some(&mut span.formatted),
                _ => None,
            };
            let keep = match (added, member.key) {
                (Some(place), key) => {
                    // The last one was added by the node; an earlier one belongs to the document.
                    let own = place.replace(member.value.clone()).is_some();
                    let keep = key == FORMATTED;
                    span.tidy &= !own && (!keep || interest.strip.is_empty());
                    keep
                }
                (None, key) => {
                    if interest
                        .pick
                        .as_deref()
                        .is_some_and(|pick| pick.as_bytes() == key)
                    {
                        span.picked = Some(member.value.clone());
                    }
                    if interest
                        .id
                        .as_deref()
                        .is_some_and(|id| id.as_bytes() == key)
                    {
                        span.id = Some(member.value.clone());
                    }
                    !strips(interest, key)
                }
            };
            if keep {
                span.tidy &= !left_out;
                span.kept_end = member.value.end;
            } else {
                left_out = true;
            }
        }
        span.range.end = members.at();
        Ok(span)
    }

    /// Writes the hit without the members to be removed, and without its closing brace, so that members can be added.
    ///
    /// Returns whether a comma must precede the next member.
    ///
    /// # Errors
    /// The text isn't the one that was read.
    pub fn write_open(
        &self,
        text: &[u8],
        interest: &Interest,
        out: &mut Vec<u8>,
    ) -> Result<bool, Malformed> {
        if self.tidy {
            out.extend_from_slice(
                text.get(self.range.start..self.kept_end)
                    .unwrap_or_default(),
            );
            return Ok(self.kept_end > self.range.start + 1);
        }
        out.push(b'{');
        self.write_kept(text, self.range.start, interest, true, out)
    }

    fn write_kept(
        &self,
        text: &[u8],
        at: usize,
        interest: &Interest,
        top: bool,
        out: &mut Vec<u8>,
    ) -> Result<bool, Malformed> {
        let mut members = Members::new(text, at);
        let mut any = false;
        while let Some(member) = members.next()? {
            let is = |added: &Option<Range<usize>>| top && added.as_ref() == Some(&member.value);
            // A shard adds `_federation` only to the hit itself: in `_formatted` it is the document's own member.
            let strips = strips(interest, member.key)
                && (top || (member.key != FEDERATION && !formats(interest, member.key)));
            if strips || is(&self.score) || is(&self.details) {
                continue;
            }
            if any {
                out.push(b',');
            }
            any = true;
            if is(&self.formatted) && Cursor::new(text, member.value.start).peek() == Some(b'{') {
                out.extend_from_slice(b"\"_formatted\":{");
                self.write_kept(text, member.value.start, interest, false, out)?;
                out.push(b'}');
            } else {
                out.extend_from_slice(text.get(member.start..member.value.end).unwrap_or_default());
            }
        }
        Ok(any)
    }
}

fn formats(interest: &Interest, key: &[u8]) -> bool {
    let mut formats = interest.formats.iter();
    formats.any(|name| name == "*" || name.as_bytes() == key)
}

fn strips(interest: &Interest, key: &[u8]) -> bool {
    interest.strip.iter().any(|name| name.as_bytes() == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Added = Added {
        score: true,
        details: true,
        formatted: true,
    };

    fn kept(text: &str, strip: &[&str]) -> String {
        kept_of(text, strip, ALL)
    }

    fn kept_of(text: &str, strip: &[&str], added: Added) -> String {
        let interest = Interest {
            strip: strip.iter().map(|name| (*name).to_owned()).collect(),
            added,
            ..Interest::default()
        };
        let span = HitSpan::read(text.as_bytes(), 0, &interest).unwrap();
        assert_eq!(span.range, 0..text.len());
        let mut out = Vec::new();
        let comma = span
            .write_open(text.as_bytes(), &interest, &mut out)
            .unwrap();
        assert_eq!(comma, out.len() > 1);
        out.push(b'}');
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_the_client_did_not_ask_for_is_left_out_wherever_it_stands() {
        assert_eq!(
            kept(
                r#"{"a":1,"_rankingScore":0.5,"_rankingScoreDetails":{}}"#,
                &[]
            ),
            r#"{"a":1}"#
        );
        assert_eq!(kept(r#"{"_rankingScore":0.5,"a":1}"#, &[]), r#"{"a":1}"#);
        assert_eq!(kept(r#"{"_rankingScore":0.5}"#, &[]), "{}");
        assert_eq!(kept("{}", &[]), "{}");
        assert_eq!(
            kept(r#"{"a":1,"b":{"a":2},"c":3}"#, &["a"]),
            r#"{"b":{"a":2},"c":3}"#
        );
        let formatted = r#"{"b":1,"a":1,"_formatted":{"a":"1","b":"1"},"_rankingScore":1.0}"#;
        assert_eq!(kept(formatted, &["a"]), r#"{"b":1,"_formatted":{"b":"1"}}"#);
    }

    #[test]
    fn what_the_client_has_formatted_stays_there_though_it_did_not_retrieve_it() {
        let text = r#"{"id":1,"t":2,"_formatted":{"id":"1","t":"2"}}"#;
        for (formats, expected) in [
            (vec![], r#"{"_formatted":{}}"#),
            (vec!["id"], r#"{"_formatted":{"id":"1"}}"#),
            (vec!["*"], r#"{"_formatted":{"id":"1","t":"2"}}"#),
        ] {
            let interest = Interest {
                strip: ["id", "t"].map(str::to_owned).to_vec(),
                formats: formats.into_iter().map(str::to_owned).collect(),
                added: ALL,
                ..Interest::default()
            };
            let span = HitSpan::read(text.as_bytes(), 0, &interest).unwrap();
            let mut out = Vec::new();
            span.write_open(text.as_bytes(), &interest, &mut out)
                .unwrap();
            assert_eq!(String::from_utf8(out).unwrap() + "}", expected);
        }
    }

    #[test]
    fn a_documents_own_members_stay_whatever_their_names() {
        let own =
            r#"{"_rankingScore":"mine","_formatted":{"a":1},"_rankingScoreDetails":[],"a":2}"#;
        assert_eq!(kept_of(own, &[], Added::default()), own);
        assert_eq!(
            kept_of(own, &["a"], Added::default()),
            r#"{"_rankingScore":"mine","_formatted":{"a":1},"_rankingScoreDetails":[]}"#
        );
        let both = r#"{"_rankingScore":"mine","_formatted":{"a":1},"a":2,"_formatted":{"a":"2"},"_rankingScore":0.5,"_rankingScoreDetails":{"words":{}}}"#;
        assert_eq!(
            kept_of(both, &["a"], ALL),
            r#"{"_rankingScore":"mine","_formatted":{"a":1},"_formatted":{}}"#
        );
        let in_federation = r#"{"a":1,"_formatted":{"a":"1","_federation":{"x":"1"}},"_federation":{"indexUid":"x"}}"#;
        assert_eq!(
            kept(in_federation, &["_federation"]),
            r#"{"a":1,"_formatted":{"a":"1","_federation":{"x":"1"}}}"#
        );
        let interest = Interest {
            added: ALL,
            ..Interest::default()
        };
        let span = HitSpan::read(both.as_bytes(), 0, &interest).unwrap();
        assert_eq!(&both[span.score.unwrap()], "0.5");
        assert_eq!(&both[span.details.unwrap()], r#"{"words":{}}"#);
    }
}
