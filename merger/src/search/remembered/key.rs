//! What a search asks, in one text: two requests with the same text have the same answer, as long as nothing changes.
//!
//! The text holds the operation, the index, the parameters in the order of their names, what the client's key allows, and what
//! its headers say. Parameters are not interpreted: one that is left out and one that is set to its default have two texts.
//!
//! Pure: functions of values.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};
use weft_routing::headers;
use weft_routing::operation::Operation;

use crate::call::Call;
use crate::search::request::Carrier;

/// A search that may be sent together with others like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// What it asks.
    pub(super) key: String,
    /// The indexes that it reads, in order, each once.
    pub(super) indexes: Vec<String>,
    /// Whether its answer may be remembered.
    pub(super) may_keep: bool,
}

/// Headers by which a client asks for an answer of its own, or for one that says something about this request.
const OWN_ANSWER: [&str; 2] = [headers::AFTER_TASK, "meili-include-metadata"];

/// Parameters with which an answer says how it came about, or depends on the user.
const OWN_PARAMETERS: [&str; 4] = [
    "showPerformanceDetails",
    "personalize",
    "personalizeUserContext",
    "useNetwork",
];

/// Parameters with which a model outside may be asked.
const BY_MODEL: [&str; 3] = ["hybrid", "hybridEmbedder", "media"];

impl Asked {
    /// What a call asks, given its parameters; `None` if its answer is for this call alone.
    pub(super) fn of(call: &Call, parameters: &Carrier) -> Option<Self> {
        use Operation as Op;
        let rights = call.rights.as_deref()?;
        if !matches!(
            call.operation,
            Op::SearchGet
                | Op::SearchPost
                | Op::MultiSearch
                | Op::FacetSearch
                | Op::SimilarGet
                | Op::SimilarPost
        ) || wants_own_answer(&call.headers)
        {
            return None;
        }
        let mut may_keep = true;
        let mut indexes = match (&call.index, parameters) {
            (Some(uid), parameters) => {
                may_keep &= read(parameters)?;
                vec![uid.clone()]
            }
            (None, Carrier::Body(members)) => {
                let queries = members.get("queries")?.as_array()?;
                let mut indexes = Vec::with_capacity(queries.len());
                for query in queries {
                    let query = query.as_object()?;
                    indexes.push(query.get("indexUid")?.as_str()?.to_owned());
                    may_keep &= read_members(query)?;
                }
                if let Some(Value::Object(federation)) = members.get("federation") {
                    may_keep &= read_members(federation)?;
                }
                indexes
            }
            (None, Carrier::Query(_)) => return None,
        };
        indexes.sort_unstable();
        indexes.dedup();
        let mut key = String::with_capacity(256);
        for part in [
            call.operation.name(),
            call.index.as_deref().unwrap_or_default(),
            policy(&call.headers)?,
            rights,
        ] {
            // Each part begins with its length, so that no text can pass for two.
            let _ = write!(key, "{} {part} ", part.len());
        }
        write_parameters(&mut key, call, parameters);
        Some(Self {
            key,
            indexes,
            may_keep,
        })
    }
}

fn wants_own_answer(wishes: &HeaderMap) -> bool {
    let any = |word: &HeaderValue| word.as_bytes().trim_ascii().eq_ignore_ascii_case(b"any");
    OWN_ANSWER.iter().any(|name| wishes.contains_key(*name))
        || wishes.get(headers::READ).is_some_and(|word| !any(word))
}

/// The client's policy for missing shards; `None` if it can't be read.
fn policy(headers: &HeaderMap) -> Option<&str> {
    let policy = headers.get(headers::PARTIAL);
    policy.map_or(Some(""), |policy| policy.to_str().ok())
}

/// Whether an answer to these parameters may be remembered; `None` if it must not even be shared.
fn read(parameters: &Carrier) -> Option<bool> {
    match parameters {
        Carrier::Body(members) => read_members(members),
        Carrier::Query(pairs) => {
            let has = |names: &[&str]| pairs.iter().any(|(name, _)| names.contains(&name.as_str()));
            (!has(&OWN_PARAMETERS)).then(|| !has(&BY_MODEL) || has(&["vector"]))
        }
    }
}

fn read_members(members: &Map<String, Value>) -> Option<bool> {
    let has = |name: &&str| {
        let value = members.get(*name);
        value.is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)))
    };
    if OWN_PARAMETERS.iter().any(&has) {
        return None;
    }
    let by_model = BY_MODEL.iter().any(&has);
    Some(!by_model || (has(&"vector") && !has(&"media")))
}

fn write_parameters(key: &mut String, call: &Call, parameters: &Carrier) {
    match parameters {
        Carrier::Body(members) => {
            // What stands in the query of a request with a body is the node's to judge.
            let _ = write!(key, "{} ", call.query());
            write_members(key, members);
        }
        Carrier::Query(pairs) => {
            let mut sorted: Vec<&(String, String)> = pairs.iter().collect();
            // Equal names keep their order: it may matter which one comes first.
            sorted.sort_by(|one, other| one.0.cmp(&other.0));
            for (name, value) in sorted {
                let _ = write!(key, "{} {name} {} {value} ", name.len(), value.len());
            }
        }
    }
}

/// A JSON value as text, the members of each object in the order of their names.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Object(members) => write_members(text, members),
        Value::Array(elements) => {
            text.push('[');
            for element in elements {
                write_value(text, element);
                text.push(',');
            }
            text.push(']');
        }
        scalar => {
            let _ = write!(text, "{scalar}");
        }
    }
}

fn write_members(text: &mut String, members: &Map<String, Value>) {
    let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    text.push('{');
    for (name, value) in sorted {
        // The debug form has quotes and escapes.
        let _ = write!(text, "{name:?}:");
        write_value(text, value);
        text.push(',');
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::header::{HeaderName, HeaderValue};
    use weft_routing::operation::classify;

    use super::*;
    use crate::call::{ForwardedHeaders, Grant, empty};

    /// What is asked by a request with this body (or query, for GET), these headers and these rights.
    fn asked(
        method: Method,
        path: &str,
        body: &str,
        wishes: &[(&'static str, &'static str)],
        rights: Option<&str>,
    ) -> Option<Asked> {
        let classified = classify(method.as_str(), path).unwrap();
        let header = |(name, value): &(&'static str, &'static str)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        let headers: HeaderMap = wishes.iter().map(header).collect();
        let call = Call {
            operation: classified.operation,
            method: method.clone(),
            path_and_query: path.to_owned(),
            index: classified.index.map(|uid| uid.into_owned()),
            document: None,
            item: None,
            grant: Grant::all(),
            rights: rights.map(str::to_owned),
            forwarded: ForwardedHeaders::from_client(&headers),
            headers,
            peer: None,
            body: empty(),
        };
        let parameters = match method {
            Method::GET => Carrier::from_query(call.query_pairs()),
            _ => Carrier::from_body(body.as_bytes())?,
        };
        Asked::of(&call, &parameters)
    }

    const FILMS: &str = "/indexes/films/search";

    fn post(body: &str) -> Option<Asked> {
        asked(Method::POST, FILMS, body, &[], Some(""))
    }

    fn get(query: &str) -> Option<Asked> {
        let path = format!("{FILMS}?{query}");
        asked(Method::GET, &path, "", &[], Some(""))
    }

    #[test]
    fn the_order_of_parameters_makes_no_difference() {
        let one =
            r#"{"q":"a","limit":3,"hybrid":{"embedder":"e","semanticRatio":0.5},"vector":[1,2]}"#;
        let two = r#"{ "vector":[1,2], "hybrid":{"semanticRatio":0.5,"embedder":"e"}, "limit":3, "q":"\u0061" }"#;
        assert_eq!(post(one), post(two));
        assert!(post(one).unwrap().may_keep);
        assert_eq!(get("q=a&limit=3"), get("limit=3&q=%61"));
    }

    #[test]
    fn whatever_may_make_another_answer_makes_another_key() {
        let bodies = [
            "{}",
            r#"{"q":"a"}"#,
            r#"{"q":"A"}"#,
            r#"{"q":null}"#,
            r#"{"q":""}"#,
            r#"{"q":"a","limit":20}"#,
            r#"{"q":"a","limit":20.0}"#,
            r#"{"q":"a","facets":["x","y"]}"#,
            r#"{"q":"a","facets":["y","x"]}"#,
            r#"{"q":"a","facets":["x,y"]}"#,
            r#"{"q":"a","filter":["x = 1","y = 2"]}"#,
            r#"{"q":"a","filter":[["x = 1","y = 2"]]}"#,
            r#"{"q":"a\",\"limit\":3,\"b"}"#,
        ];
        let mut keys: Vec<String> = bodies.iter().map(|body| post(body).unwrap().key).collect();
        for query in ["", "q=a", "q=a&q=b", "q=b&q=a", "q=a+limit", "q=a&limit="] {
            keys.push(get(query).unwrap().key);
        }
        let body = bodies[1];
        for (path, wishes, rights) in [
            ("/indexes/books/search", &[][..], ""),
            ("/indexes/films/search?a=b", &[], ""),
            ("/indexes/films/facet-search", &[], ""),
            (FILMS, &[("x-weft-partial", "partial")], ""),
            (FILMS, &[], "tenant"),
        ] {
            let asked = asked(Method::POST, path, body, wishes, Some(rights));
            keys.push(asked.unwrap().key);
        }
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn several_searches_are_about_all_their_indexes() {
        let body = r#"{"queries":[{"indexUid":"films","q":"a"},{"indexUid":"books"},{"indexUid":"films"}]}"#;
        let both = asked(Method::POST, "/multi-search", body, &[], Some("")).unwrap();
        assert_eq!(both.indexes, ["books", "films"]);
        assert!(both.may_keep);
        let by_model = body.replace(r#""q":"a""#, r#""q":"a","hybrid":{"embedder":"e"}"#);
        let by_model = asked(Method::POST, "/multi-search", &by_model, &[], Some("")).unwrap();
        assert!(!by_model.may_keep);
        let odd = r#"{"queries":[{"q":"a"}]}"#;
        assert_eq!(
            asked(Method::POST, "/multi-search", odd, &[], Some("")),
            None
        );
    }

    #[test]
    fn an_answer_for_one_client_alone_is_not_shared() {
        for body in [
            r#"{"showPerformanceDetails":true}"#,
            r#"{"personalize":{"userContext":"likes cats"}}"#,
            r#"{"useNetwork":true}"#,
        ] {
            assert_eq!(post(body), None, "{body}");
        }
        assert!(post(r#"{"showPerformanceDetails":false}"#).is_some());
        assert_eq!(get("showPerformanceDetails=true"), None);
        for wish in [
            ("x-weft-read", "primary"),
            ("x-weft-after-task", "3"),
            ("meili-include-metadata", "true"),
        ] {
            assert_eq!(asked(Method::POST, FILMS, "{}", &[wish], Some("")), None);
        }
        let any = [("x-weft-read", "any")];
        assert!(asked(Method::POST, FILMS, "{}", &any, Some("")).is_some());
        assert_eq!(
            asked(Method::POST, FILMS, "{}", &[], None),
            None,
            "unknown rights"
        );
    }

    #[test]
    fn a_search_by_a_model_is_shared_and_not_remembered() {
        assert!(
            !post(r#"{"q":"a","hybrid":{"embedder":"e"}}"#)
                .unwrap()
                .may_keep
        );
        assert!(
            !post(r#"{"media":{"text":"a"},"hybrid":{"embedder":"e"}}"#)
                .unwrap()
                .may_keep
        );
        assert!(!get("q=a&hybridEmbedder=e").unwrap().may_keep);
        assert!(get("q=a&hybridEmbedder=e&vector=1,2").unwrap().may_keep);
        assert!(post(r#"{"q":"a","hybrid":null}"#).unwrap().may_keep);
    }
}
