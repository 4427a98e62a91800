//! An answer's text, made ready to be given to more than one client.
//!
//! Two members of an answer are about one request: `processingTimeMs` and, on newer nodes, `requestUid`. A remembered answer says
//! that it took no time. Each client gets a `requestUid` of its own.
//!
//! Pure, but for the random part of a new uid.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use serde_json::json;
use uuid::Uuid;
use weft_routing::headers;

use crate::answer::Answer;
use crate::search::scan::{Elements, Malformed, Members};

/// The length of a uuid in JSON, quotes included.
const UID_LENGTH: usize = 38;

/// An answer for several clients.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    answer: Answer,
    /// Where the texts of `requestUid` begin, after their quotes.
    uids: Vec<usize>,
}

impl Shared {
    /// An answer as it came; `None` if it isn't the answer to a search.
    pub(super) fn of(answer: &Answer) -> Option<Self> {
        let found = Found::in_text(&answer.body).ok()?;
        Some(Self {
            answer: answer.clone(),
            uids: found.uids,
        })
    }

    /// The same with its own memory, and `processingTimeMs` 0.
    pub(super) fn to_keep(&self) -> Option<Self> {
        let text = &self.answer.body;
        let found = Found::in_text(text).ok()?;
        let mut kept = Vec::with_capacity(text.len());
        let mut from = 0;
        for (start, end) in found.times {
            kept.extend_from_slice(text.get(from..start)?);
            kept.push(b'0');
            from = end;
        }
        kept.extend_from_slice(text.get(from..)?);
        kept.shrink_to_fit();
        let body = Bytes::from(kept);
        Self::of(&Answer {
            body,
            ..self.answer.clone()
        })
    }

    /// The answer for one more client.
    pub(super) fn for_client(&self) -> Answer {
        if self.uids.is_empty() {
            return self.answer.clone();
        }
        let mut text = self.answer.body.to_vec();
        // Of the version that nodes use: it begins with the time.
        let uid = Uuid::now_v7().to_string();
        for at in &self.uids {
            if let Some(place) = text.get_mut(*at..*at + uid.len()) {
                place.copy_from_slice(uid.as_bytes());
            }
        }
        Answer {
            body: text.into(),
            ..self.answer.clone()
        }
    }

    /// The answer for a client that wants to know how it came about.
    pub(super) fn explained(&self, age_ms: u128) -> Answer {
        let mut answer = self.for_client();
        let why = json!({
            "why": "the answer was remembered: nothing that it depends on has changed since",
            "remembered": true,
            "ageMs": u64::try_from(age_ms).unwrap_or(u64::MAX),
        });
        if let Some(text) = answer.body.strip_suffix(b"}") {
            let text = [text, format!(",\"explain\":{why}}}").as_bytes()].concat();
            answer.body = text.into();
        }
        let value = HeaderValue::from_str(&format!("remembered=true; age-ms={age_ms}"));
        let name = HeaderName::from_static(headers::EXPLAIN);
        answer.headers.extend(value.ok().map(|value| (name, value)));
        answer
    }

    /// The bytes of the text.
    pub(super) fn len(&self) -> usize {
        self.answer.body.len()
    }
}

/// Where an answer says what is about one request only.
#[derive(Debug, Default)]
struct Found {
    times: Vec<(usize, usize)>,
    uids: Vec<usize>,
}

impl Found {
    fn in_text(text: &[u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut members = Members::new(text, 0);
        while let Some(member) = members.next()? {
            let value = &member.value;
            match member.key {
                b"results" => {
                    let mut elements = Elements::new(text, value.start);
                    while let Some(element) = elements.next()? {
                        found.in_object(text, element.start)?;
                    }
                }
                key => found.note(key, value.start, value.end),
            }
        }
        Ok(found)
    }

    fn in_object(&mut self, text: &[u8], start: usize) -> Result<(), Malformed> {
        let mut members = Members::new(text, start);
        while let Some(member) = members.next()? {
            self.note(member.key, member.value.start, member.value.end);
        }
        Ok(())
    }

    fn note(&mut self, key: &[u8], start: usize, end: usize) {
        match key {
            b"processingTimeMs" => self.times.push((start, end)),
            b"requestUid" if end - start == UID_LENGTH => self.uids.push(start + 1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::Value;

    use super::*;

    fn shared(text: &str) -> Shared {
        Shared::of(&Answer::json_bytes(StatusCode::OK, text.to_owned())).unwrap()
    }

    fn read(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.body).unwrap()
    }

    const UID: &str = "01a1fb6a-158b-7e10-800c-40e72372f995";

    #[test]
    fn a_kept_answer_took_no_time_and_each_client_gets_its_own_uid() {
        let hits = r#"[{"processingTimeMs":7,"requestUid":"mine"}]"#;
        let text = format!(
            r#"{{"hits":{hits},"query":"\"processingTimeMs\":3","processingTimeMs":123,"facetDistribution":{{"x":{{"processingTimeMs":4}}}},"requestUid":"{UID}"}}"#
        );
        let kept = shared(&text).to_keep().unwrap();
        let (one, two) = (read(&kept.for_client()), read(&kept.for_client()));
        assert_eq!(one["processingTimeMs"], 0);
        assert_eq!(one["hits"][0]["processingTimeMs"], 7);
        assert_eq!(one["hits"][0]["requestUid"], "mine");
        assert_eq!(one["facetDistribution"]["x"]["processingTimeMs"], 4);
        let uid = |answer: &Value| Uuid::parse_str(answer["requestUid"].as_str().unwrap()).unwrap();
        assert_eq!(uid(&one).get_version_num(), 7);
        assert!(uid(&one) != uid(&two) && uid(&one).to_string() != UID);
    }

    #[test]
    fn of_several_searches_each_has_its_time_and_all_have_one_uid() {
        let one =
            format!(r#"{{"indexUid":"a","hits":[],"processingTimeMs":5,"requestUid":"{UID}"}}"#);
        let kept = shared(&format!(r#"{{"results":[{one},{one}]}}"#))
            .to_keep()
            .unwrap();
        let answer = read(&kept.for_client());
        let [one, two] = answer["results"].as_array().unwrap().as_slice() else {
            panic!("{answer}");
        };
        assert_eq!(
            (&one["processingTimeMs"], &two["processingTimeMs"]),
            (&0.into(), &0.into())
        );
        assert!(one["requestUid"] == two["requestUid"] && one["requestUid"] != UID);
    }

    #[test]
    fn an_explained_answer_says_that_it_was_remembered() {
        let answer = shared(r#"{"hits":[],"processingTimeMs":5}"#).explained(12);
        let name = HeaderName::from_static(headers::EXPLAIN);
        assert_eq!(
            answer.headers,
            [(name, HeaderValue::from_static("remembered=true; age-ms=12"))]
        );
        assert_eq!(read(&answer)["explain"]["ageMs"], 12);
    }

    #[test]
    fn what_is_no_answer_is_not_shared() {
        let answer = |text: &'static str| Answer::json_bytes(StatusCode::OK, text);
        assert!(Shared::of(&answer("")).is_none());
        assert!(Shared::of(&answer("[")).is_none());
    }
}
