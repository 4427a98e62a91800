//! Finds and changes the filters in a request.
//!
//! Pure: functions of values.

use bytes::Bytes;
use http::Method;
use memchr::memmem;
use serde_json::Value;
use weft_routing::operation::{Operation, classify};

/// A request as it is sent to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path_and_query: String,
    /// A JSON body.
    pub body: Option<Bytes>,
}

/// Returns the new filter of an index; `None` leaves it as it is. Its second argument is `None` if a query has no filter.
pub type Change<'a> = dyn FnMut(&str, Option<&Value>) -> Option<Value> + 'a;

/// False if the request certainly contains no `!=`.
pub fn may_compare(path_and_query: &str, body: Option<&[u8]>) -> bool {
    let unequal =
        |text: &[u8]| memmem::find(text, b"!=").is_some() || memmem::find(text, b"\\u00").is_some();
    let query = path_and_query.as_bytes();
    body.is_some_and(unequal) || query.contains(&b'!') || memmem::find(query, b"%21").is_some()
}

impl Request {
    /// See [`may_compare`].
    pub fn may_compare(&self) -> bool {
        may_compare(&self.path_and_query, self.body.as_deref())
    }

    /// The request with changed filters; `None` if none was changed, or the request can't be read.
    pub fn with_filters(&self, change: &mut Change<'_>) -> Option<Self> {
        let asked = classify(self.method.as_str(), &self.path_and_query).ok()?;
        let index = asked.index.as_deref().unwrap_or_default();
        let mut new = self.clone();
        match asked.operation {
            Operation::SearchGet | Operation::SimilarGet | Operation::ListDocuments => {
                new.path_and_query = in_query(&self.path_and_query, index, change)?;
            }
            Operation::MultiSearch => {
                let mut body: Value = serde_json::from_slice(self.body.as_deref()?).ok()?;
                let mut changed = false;
                for query in body.get_mut("queries")?.as_array_mut()? {
                    let index = query.get("indexUid").and_then(Value::as_str);
                    let index = index.map(str::to_owned).unwrap_or_default();
                    changed |= in_object(query, &index, change);
                }
                new.body = Some(written_if(changed, &body)?);
            }
            Operation::SearchPost
            | Operation::SimilarPost
            | Operation::FacetSearch
            | Operation::FetchDocuments
            | Operation::DeleteDocumentsByFilter
            | Operation::EditDocuments => {
                let mut body: Value = serde_json::from_slice(self.body.as_deref()?).ok()?;
                let changed = in_object(&mut body, index, change);
                new.body = Some(written_if(changed, &body)?);
            }
            _ => return None,
        }
        Some(new)
    }
}

fn written_if(changed: bool, body: &Value) -> Option<Bytes> {
    if !changed {
        return None;
    }
    serde_json::to_vec(body).ok().map(Bytes::from)
}

fn in_object(query: &mut Value, index: &str, change: &mut Change<'_>) -> bool {
    let Some(members) = query.as_object_mut() else {
        return false;
    };
    let filter = members.get("filter").filter(|filter| !filter.is_null());
    match change(index, filter) {
        Some(new) => {
            members.insert("filter".to_owned(), new);
            true
        }
        None => false,
    }
}

/// A filter in a query string is JSON if it can be read as such, and otherwise plain text.
fn in_query(path_and_query: &str, index: &str, change: &mut Change<'_>) -> Option<String> {
    let (path, query) = path_and_query
        .split_once('?')
        .unwrap_or((path_and_query, ""));
    let mut pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let mut changed = false;
    let mut has_filter = false;
    for (_, text) in pairs.iter_mut().filter(|(name, _)| name == "filter") {
        has_filter = true;
        let json: Option<Value> = serde_json::from_str(text).ok();
        let filter = json.clone().unwrap_or_else(|| Value::from(text.as_str()));
        if let Some(new) = change(index, Some(&filter)) {
            *text = match (new, &json) {
                (Value::String(new), None) => new,
                (new, _) => new.to_string(),
            };
            changed = true;
        }
    }
    if !has_filter && let Some(new) = change(index, None) {
        pairs.push(("filter".to_owned(), new.to_string()));
        changed = true;
    }
    changed.then(|| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        format!("{path}?{}", query.extend_pairs(pairs).finish())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::filters::unequal::reworded;

    fn request(method: Method, path: &str, body: Option<Value>) -> Request {
        Request {
            method,
            path_and_query: path.to_owned(),
            body: body.map(|body| body.to_string().into()),
        }
    }

    fn reword(request: &Request) -> Option<Request> {
        request.with_filters(&mut |index, filter| {
            assert_eq!(index, "x");
            reworded(filter?, &|_| true)
        })
    }

    #[test]
    fn every_read_and_write_with_a_filter_is_found() {
        for path in [
            "/indexes/x/search",
            "/indexes/x/similar",
            "/indexes/x/facet-search",
            "/indexes/x/documents/fetch",
            "/indexes/x/documents/delete",
            "/indexes/x/documents/edit",
            "/indexes/%78/search",
        ] {
            let asked = request(
                Method::POST,
                path,
                Some(json!({"q": "!", "filter": "a != 1"})),
            );
            assert!(asked.may_compare());
            let expected = json!({"q": "!", "filter": " NOT a = 1"});
            assert_eq!(
                reword(&asked),
                Some(request(Method::POST, path, Some(expected))),
                "{path}"
            );
        }
        let many = |filter: &str| {
            let queries =
                json!([{"indexUid": "x"}, {"indexUid": "x", "filter": [[filter], "b = 1"]}]);
            request(
                Method::POST,
                "/multi-search",
                Some(json!({"queries": queries})),
            )
        };
        assert_eq!(reword(&many("a != 1")), Some(many(" NOT a = 1")));
        assert_eq!(reword(&many("a = 1")), None);
        assert!(!many("a = 1").may_compare());
    }

    #[test]
    fn a_query_string_holds_a_filter_as_text_or_as_json() {
        for (path, filter, expected) in [
            ("/indexes/x/search", "a != 1", "+NOT+a+%3D+1"),
            (
                "/indexes/x/documents",
                "[\"a != 1\"]",
                "%5B%22+NOT+a+%3D+1%22%5D",
            ),
            ("/indexes/x/similar", "\"a != 1\"", "%22+NOT+a+%3D+1%22"),
        ] {
            let query: String = form_urlencoded::Serializer::new(String::new())
                .append_pair("q", "b&c")
                .append_pair("filter", filter)
                .finish();
            let asked = request(Method::GET, &format!("{path}?{query}"), None);
            assert!(asked.may_compare());
            let expected = format!("{path}?q=b%26c&filter={expected}");
            assert_eq!(reword(&asked).map(|new| new.path_and_query), Some(expected));
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        let broken = Request {
            body: Some("{\"filter\": \"a != 1\"".into()),
            ..request(Method::POST, "/indexes/x/search", None)
        };
        assert_eq!(reword(&broken), None);
        let other = request(
            Method::POST,
            "/indexes/x/documents",
            Some(json!({"filter": "a != 1"})),
        );
        assert_eq!(reword(&other), None);
    }
}
