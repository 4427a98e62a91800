//! What the engine shows of a document if only some attributes are retrieved.
//!
//! Of an object that holds an attribute, the engine shows what is left without the other members, at least `{}`; of a list,
//! each element in the same way. A text or number in a place where a nested attribute would begin is shown as it is. In
//! `_formatted`, such a text or number isn't shown, and lists lose the elements of which nothing is left.
//!
//! Pure: functions of values.

use std::borrow::Cow;
use std::ops::Range;

use crate::search::scan::{Cursor, Elements, Malformed, Members, number, unquote};

/// What one query's hits show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::search::scatter) struct Shown {
    names: Vec<String>,
    /// The attributes shown in `_formatted`; `None` if it holds everything.
    formatted: Option<Vec<String>>,
    /// The attributes that were requested in addition.
    around: Vec<String>,
}

impl Shown {
    pub(super) fn new(
        names: Vec<String>,
        formatted: Option<Vec<String>>,
        around: Vec<String>,
    ) -> Self {
        Self {
            names,
            formatted,
            around,
        }
    }

    /// True if a document's member may be present only because it was requested in addition.
    fn is_around(&self, key: &str) -> bool {
        let mut around = self.around.iter();
        around.any(|name| name == key || below(name, key).is_some())
    }
}

/// The answer with only what its hits should show, by each query's position.
pub(super) fn only(answer: &[u8], shown: &[(usize, Shown)]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(answer.len());
    each_member(answer, 0, &mut out, &mut |key, value, out| match key {
        "hits" => each_element(answer, value.start, out, &mut |_, hit, out| {
            let query = query_of(answer, hit.start)?.unwrap_or(0);
            show(answer, hit, of(shown, query), out)
        }),
        // Lists of documents, or several queries' answers.
        "results" => each_element(answer, value.start, out, &mut |at, result, out| {
            if !has_hits(answer, result.start)? {
                return show(answer, result, of(shown, 0), out);
            }
            each_member(
                answer,
                result.start,
                out,
                &mut |key, value, out| match key {
                    "hits" => each_element(answer, value.start, out, &mut |_, hit, out| {
                        show(answer, hit, of(shown, at), out)
                    }),
                    _ => raw(answer, value, out),
                },
            )
        }),
        _ => raw(answer, value, out),
    })?;
    Ok(out)
}

fn of(shown: &[(usize, Shown)], query: usize) -> Option<&Shown> {
    let found = shown.iter().find(|(at, _)| *at == query);
    found.map(|(_, shown)| shown)
}

/// The query that found a hit of a federated search.
fn query_of(text: &[u8], at: usize) -> Result<Option<usize>, Malformed> {
    let member = |at: usize, key: &[u8]| -> Result<Option<Range<usize>>, Malformed> {
        let mut last = None;
        let mut members = Members::new(text, at);
        while let Some(member) = members.next()? {
            if member.key == key {
                last = Some(member.value);
            }
        }
        Ok(last)
    };
    let Some(federation) = member(at, b"_federation")? else {
        return Ok(None);
    };
    if text.get(federation.start) != Some(&b'{') {
        return Ok(None);
    }
    let position = member(federation.start, b"queriesPosition")?;
    let position = position.and_then(|range| number(text.get(range)?));
    Ok(position.map(|position| position as usize))
}

fn has_hits(text: &[u8], at: usize) -> Result<bool, Malformed> {
    let (mut hits, mut took) = (false, false);
    let mut members = Members::new(text, at);
    while let Some(member) = members.next()? {
        hits |= member.key == b"hits";
        took |= member.key == b"processingTimeMs";
    }
    // A document may have `hits` of its own.
    Ok(hits && took)
}

/// Writes a value, or nothing if nothing of it is shown; returns whether it wrote anything.
type Write<'a> = dyn FnMut(&str, Range<usize>, &mut Vec<u8>) -> Result<bool, Malformed> + 'a;
type WriteElement<'a> =
    dyn FnMut(usize, Range<usize>, &mut Vec<u8>) -> Result<bool, Malformed> + 'a;

fn each_member(
    text: &[u8],
    at: usize,
    out: &mut Vec<u8>,
    write: &mut Write<'_>,
) -> Result<bool, Malformed> {
    out.push(b'{');
    let mut any = false;
    let mut members = Members::new(text, at);
    while let Some(member) = members.next()? {
        let before = out.len();
        if any {
            out.push(b',');
        }
        out.extend_from_slice(
            text.get(member.start..member.value.start)
                .unwrap_or_default(),
        );
        let key = match std::str::from_utf8(member.key) {
            Ok(key) if !member.key.contains(&b'\\') => Cow::Borrowed(key),
            _ => {
                let quoted = member.start..member.start + member.key.len() + 2;
                Cow::Owned(text.get(quoted).and_then(unquote).unwrap_or_default())
            }
        };
        if write(&key, member.value, out)? {
            any = true;
        } else {
            out.truncate(before);
        }
    }
    out.push(b'}');
    Ok(any)
}

fn each_element(
    text: &[u8],
    at: usize,
    out: &mut Vec<u8>,
    write: &mut WriteElement<'_>,
) -> Result<bool, Malformed> {
    out.push(b'[');
    let mut any = false;
    let mut elements = Elements::new(text, at);
    let mut place = 0;
    while let Some(element) = elements.next()? {
        let before = out.len();
        if any {
            out.push(b',');
        }
        if write(place, element, out)? {
            any = true;
        } else {
            out.truncate(before);
        }
        place += 1;
    }
    out.push(b']');
    Ok(true)
}

fn raw(text: &[u8], value: Range<usize>, out: &mut Vec<u8>) -> Result<bool, Malformed> {
    out.extend_from_slice(text.get(value).unwrap_or_default());
    Ok(true)
}

/// Writes a hit.
fn show(
    text: &[u8],
    hit: Range<usize>,
    shown: Option<&Shown>,
    out: &mut Vec<u8>,
) -> Result<bool, Malformed> {
    let Some(shown) = shown else {
        return raw(text, hit, out);
    };
    let names: Vec<&str> = shown.names.iter().map(String::as_str).collect();
    each_member(text, hit.start, out, &mut |key, value, out| {
        if key == "_formatted"
            && let Some(formatted) = &shown.formatted
            && Cursor::new(text, value.start).peek() == Some(b'{')
        {
            let names: Vec<&str> = formatted.iter().map(String::as_str).collect();
            each_member(text, value.start, out, &mut |key, value, out| {
                if shown.is_around(key) {
                    attribute(text, key, value, &names, true, out)
                } else {
                    raw(text, value, out)
                }
            })?;
            return Ok(true);
        }
        if shown.is_around(key) {
            attribute(text, key, value, &names, false, out)
        } else {
            raw(text, value, out)
        }
    })?;
    Ok(true)
}

/// Writes what is shown of a member: all of it if it is named, otherwise its named parts, if any.
fn attribute(
    text: &[u8],
    key: &str,
    value: Range<usize>,
    names: &[&str],
    formatted: bool,
    out: &mut Vec<u8>,
) -> Result<bool, Malformed> {
    if names.contains(&key) {
        return raw(text, value, out);
    }
    let inside: Vec<&str> = names.iter().filter_map(|name| below(name, key)).collect();
    if inside.is_empty() {
        return Ok(false);
    }
    parts(text, value, &inside, formatted, out)
}

fn parts(
    text: &[u8],
    value: Range<usize>,
    names: &[&str],
    formatted: bool,
    out: &mut Vec<u8>,
) -> Result<bool, Malformed> {
    let is_object = |value: &Range<usize>| text.get(value.start) == Some(&b'{');
    let object = |value: Range<usize>, out: &mut Vec<u8>| {
        each_member(text, value.start, out, &mut |key, value, out| {
            attribute(text, key, value, names, formatted, out)
        })
    };
    match text.get(value.start) {
        Some(b'{') => object(value, out).map(|_| true),
        Some(b'[') => each_element(text, value.start, out, &mut |_, element, out| {
            if is_object(&element) {
                Ok(object(element, out)? || !formatted)
            } else {
                parts(text, element, names, formatted, out)
            }
        }),
        _ if formatted => Ok(false),
        _ => raw(text, value, out),
    }
}

/// The rest of `name` below `key`: `b.c` for `a.b.c` and `a`.
fn below<'a>(name: &'a str, key: &str) -> Option<&'a str> {
    name.strip_prefix(key)?.strip_prefix('.')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(names: &[&str], around: &[&str]) -> Shown {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let names: Vec<String> = own(names);
        Shown::new(names.clone(), Some(names), own(around))
    }

    fn of_answer(answer: &Value, shown: &[(usize, Shown)]) -> Value {
        let text = only(answer.to_string().as_bytes(), shown).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Checks what is shown of a document, plain and formatted, if the document was requested with `around`.
    fn check(names: &[&str], around: &[&str], document: Value, plain: Value, formatted: Value) {
        let mut hit = document.clone();
        hit["_formatted"] = document;
        let mut expected = plain;
        expected["_formatted"] = formatted;
        let answer = json!({"hits": [hit], "limit": 1});
        let found = of_answer(&answer, &[(0, shown(names, around))]);
        assert_eq!(found, json!({"hits": [expected], "limit": 1}), "{names:?}");
    }

    /// As observed on Meilisearch 1.50.
    #[test]
    fn what_stands_in_place_of_an_attribute_is_shown_as_the_engine_shows_it() {
        let books = json!({"books": [{"p": 1}, {"p": 2, "q": {"r": 1}}, 3, [{"t": 3}], [[4]]]});
        check(
            &["books.t"],
            &["books"],
            books.clone(),
            json!({"books": [{}, {}, 3, [{"t": 3}], [[4]]]}),
            json!({"books": [[{"t": 3}], [[]]]}),
        );
        check(
            &["books.q.zz"],
            &["books", "books.q"],
            books,
            json!({"books": [{}, {"q": {}}, 3, [{}], [[4]]]}),
            json!({"books": [{"q": {}}, [], [[]]]}),
        );
        for scalar in [json!("x"), json!(5), json!(true), json!(null)] {
            let document = json!({"id": 1, "a": scalar});
            check(
                &["id", "a.in"],
                &["a"],
                document.clone(),
                document,
                json!({"id": 1}),
            );
        }
        check(
            &["a.in"],
            &["a"],
            json!({"a": [null, [], {}]}),
            json!({"a": [null, [], {}]}),
            json!({"a": [[]]}),
        );
        let deep = json!({"deep": {"a": "s", "b": {"x": 1, "c": 2}}});
        check(
            &["deep.a.c", "deep.b.c"],
            &["deep", "deep.a"],
            deep.clone(),
            json!({"deep": {"a": "s", "b": {"c": 2}}}),
            json!({"deep": {"b": {"c": 2}}}),
        );
        check(
            &["deep.b.c", "deep.b"],
            &["deep"],
            deep,
            json!({"deep": {"b": {"x": 1, "c": 2}}}),
            json!({"deep": {"b": {"x": 1, "c": 2}}}),
        );
        check(
            &["c.meta.author"],
            &["c", "c.meta"],
            json!({"c": {"text": 1}, "c.meta": {"q": 1}, "cc": 2}),
            json!({"c": {}, "c.meta": {}, "cc": 2}),
            json!({"c": {}, "c.meta": {}, "cc": 2}),
        );
    }

    #[test]
    fn what_only_formatted_names_is_shown_there_alone() {
        let hit = json!({"id": 1, "a": {"b": 1, "c": 2}, "_formatted": {"id": "1", "a": {"b": "1", "c": "2"}}});
        let names = |formatted: Option<&[&str]>| {
            let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
            Shown::new(own(&["id"]), formatted.map(own), own(&["a"]))
        };
        let answer = json!({"hits": [hit]});
        assert_eq!(
            of_answer(&answer, &[(0, names(Some(&["id", "a.c", "a.x"])))]),
            json!({"hits": [{"id": 1, "_formatted": {"id": "1", "a": {"c": "2"}}}]})
        );
        assert_eq!(
            of_answer(&answer, &[(0, names(None))]),
            json!({"hits": [{"id": 1, "_formatted": {"id": "1", "a": {"b": "1", "c": "2"}}}]})
        );
    }

    #[test]
    fn each_query_has_its_own_names_in_lists_and_in_federations() {
        let hit = json!({"a": {"b": 1, "c": 2}});
        let queries = [(1, shown(&["a.b"], &["a"])), (2, shown(&["a.c"], &["a"]))];
        let answer = |hits: Value| json!({"hits": hits, "processingTimeMs": 1});
        let (b, c) = (json!({"a": {"b": 1}}), json!({"a": {"c": 2}}));
        assert_eq!(
            of_answer(
                &json!({"results": [answer(json!([hit])), answer(json!([hit])), answer(json!([hit, hit]))]}),
                &queries
            ),
            json!({"results": [answer(json!([hit])), answer(json!([b])), answer(json!([c, c]))]})
        );
        let of = |hit: &Value, query: u64| {
            let mut hit = hit.clone();
            hit["_federation"] = json!({"indexUid": "x", "queriesPosition": query});
            hit
        };
        assert_eq!(
            of_answer(
                &json!({"hits": [of(&hit, 2), of(&hit, 0), of(&hit, 1)]}),
                &queries
            ),
            json!({"hits": [of(&c, 2), of(&hit, 0), of(&b, 1)]})
        );
        let documents = json!({"results": [{"hits": 1, "a": {"b": 1, "c": 2}}], "total": 1});
        assert_eq!(
            of_answer(&documents, &[(0, shown(&["hits", "a.c"], &["a"]))]),
            json!({"results": [{"hits": 1, "a": {"c": 2}}], "total": 1})
        );
    }

    #[test]
    fn bytes_of_what_is_shown_stay_as_they_came() {
        let answer = br#"{"hits":[{"id":1.0,"a\u0062":{"b" : 1e400, "c":[ ]},"x":1.10}]}"#;
        let found = only(answer, &[(0, shown(&["id", "ab.b"], &["ab"]))]).unwrap();
        assert_eq!(
            found,
            br#"{"hits":[{"id":1.0,"a\u0062":{"b" : 1e400},"x":1.10}]}"#
        );
    }
}
