//! Hits show `_formatted` if their index knows any of the attributes to highlight or to crop, whether the hit has it or not.
//!
//! If a shard knows none of them but another shard does, the shard is asked again with its documents' ids among the
//! attributes to crop. They are cropped to no length, so `_formatted` appears with nothing in it changed. With several
//! searches at once, this is done if one of them is formatted.

use futures_util::future::join_all;
use memchr::memmem;
use serde_json::{Map, Value};
use weft_routing::operation::{Operation, classify};

use super::{Ask, Gathered, Reader};
use crate::search::request::body_of_query;

/// Asks those shards again whose hits lack `_formatted` while others show it.
pub(super) async fn complete(reader: &Reader<'_>, asks: &[Ask], gathered: &mut Gathered) {
    if gathered.replies.len() < 2 || !asks.iter().any(Ask::may_format) {
        return;
    }
    let is_formatted = |body: &[u8]| memmem::find(body, b"\"_formatted\":").is_some();
    if !gathered
        .replies
        .iter()
        .any(|reply| is_formatted(&reply.body))
    {
        return;
    }
    let key_of = |index: &str| reader.ctx.cluster.placement(index)?.primary_key.clone();
    let mut again = Vec::new();
    for (place, reply) in gathered.replies.iter().enumerate() {
        let ask = asks.get(reply.at).filter(|_| !is_formatted(&reply.body));
        again.extend(ask.and_then(|ask| Some((place, ask.with_ids_to_crop(&key_of)?))));
    }
    let answers = join_all(again.iter().map(|(_, ask)| reader.answer(ask))).await;
    for ((place, _), (answer, took)) in again.iter().zip(answers) {
        // Hits without `_formatted` are better than none.
        if let (Ok(answer), Some(reply)) = (answer, gathered.replies.get_mut(*place))
            && answer.status.is_success()
        {
            reply.body = answer.body;
            reply.took += took;
        }
    }
}

const NAMES: [&str; 2] = ["attributesToHighlight", "attributesToCrop"];

impl Ask {
    fn may_format(&self) -> bool {
        let names = |text: &[u8]| {
            NAMES
                .iter()
                .any(|name| memmem::find(text, name.as_bytes()).is_some())
        };
        names(self.path_and_query.as_bytes()) || self.body.as_deref().is_some_and(names)
    }

    /// The same request with ids to crop; `None` if it isn't formatted, or formats all attributes.
    fn with_ids_to_crop(&self, key_of: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let asked = classify(self.method.as_str(), &self.path_and_query).ok()?;
        let own = asked.index.as_deref().unwrap_or_default();
        match asked.operation {
            Operation::SearchPost => self.change_body(|body| crop_ids(body, own, key_of)),
            Operation::SearchGet => {
                let mut body = body_of_query(asked.query)?;
                crop_ids(&mut body, own, key_of).then(|| self.as_body(&body))
            }
            Operation::MultiSearch => self.change_body(|body| {
                let queries = body.get_mut("queries").and_then(Value::as_array_mut);
                let mut formatted: Vec<&mut Map<String, Value>> = queries
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_object_mut)
                    .filter(|query| is_formatted_by_name(query))
                    .collect();
                let [query] = formatted.as_mut_slice() else {
                    return false;
                };
                let index = query.get("indexUid").and_then(Value::as_str);
                let index = index.unwrap_or_default().to_owned();
                crop_ids(query, &index, key_of)
            }),
            _ => None,
        }
    }
}

fn is_formatted_by_name(query: &Map<String, Value>) -> bool {
    let lists = NAMES.iter().filter_map(|name| query.get(*name)?.as_array());
    let mut names = lists.flatten().filter_map(Value::as_str).peekable();
    names.peek().is_some() && names.all(|name| name != "*" && !name.starts_with("*:"))
}

fn crop_ids(
    query: &mut Map<String, Value>,
    index: &str,
    key_of: &dyn Fn(&str) -> Option<String>,
) -> bool {
    let Some(key) = key_of(index).filter(|_| is_formatted_by_name(query)) else {
        return false;
    };
    let crop = query
        .entry("attributesToCrop")
        .or_insert_with(|| Value::Array(Vec::new()));
    if crop.is_null() {
        *crop = Value::Array(Vec::new());
    }
    let Some(list) = crop.as_array_mut() else {
        return false;
    };
    list.push(format!("{key}:0").into());
    true
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;
    use weft_routing::placement::ShardId;

    use super::*;

    fn cropped(method: Method, path: &str, body: Option<Value>) -> Option<Value> {
        let ask = Ask {
            shard: ShardId(0),
            method,
            path_and_query: path.to_owned(),
            body: body.map(|body| body.to_string().into()),
        };
        assert!(ask.may_format());
        let new = ask.with_ids_to_crop(&|index| (index == "x").then(|| "key".to_owned()))?;
        serde_json::from_slice(new.body.as_deref()?).ok()
    }

    #[test]
    fn ids_are_cropped_beside_what_is_named() {
        let search = |body: Value| cropped(Method::POST, "/indexes/x/search", Some(body));
        assert_eq!(
            search(json!({"attributesToHighlight": ["a"], "attributesToCrop": null})),
            Some(json!({"attributesToHighlight": ["a"], "attributesToCrop": ["key:0"]}))
        );
        for names in [json!(["a", "*"]), json!([]), json!(["*:3"])] {
            assert_eq!(search(json!({"attributesToCrop": names})), None);
        }
        let get = cropped(
            Method::GET,
            "/indexes/x/search?q=b&attributesToCrop=a:1",
            None,
        );
        assert_eq!(
            get,
            Some(json!({"q": "b", "attributesToCrop": ["a:1", "key:0"]}))
        );
    }

    #[test]
    fn one_of_several_searches_may_be_formatted() {
        let query = |names: Value| json!({"indexUid": "x", "attributesToCrop": names});
        let many = |queries: Value| {
            let body = json!({"queries": queries});
            cropped(Method::POST, "/multi-search", Some(body))
        };
        let plain = json!({"indexUid": "x"});
        assert_eq!(
            many(json!([plain, query(json!(["a"]))])),
            Some(json!({"queries": [plain, query(json!(["a", "key:0"]))]}))
        );
        assert_eq!(
            many(json!([query(json!(["a"])), query(json!(["b"]))])),
            None
        );
    }
}
