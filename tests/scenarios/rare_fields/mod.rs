//! Fields that one shard, some, all or no shards know: every request that names such a field is answered as by one node.

mod filters;
mod searching;
mod tokens;
mod writes;

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Reply, Single};

use crate::support::{MASTER_KEY, node, start};

const WORDS: [&str; 7] = ["amber", "birch", "cedar", "dune", "ember", "fern", "grey"];

/// The fields by how many shards know them: one, two, all three, none.
const FIELDS: [&str; 4] = ["rare", "some", "group", "never"];

/// One node and a cluster that hold the same documents.
pub(super) struct Both {
    pub(super) one: Api,
    pub(super) many: Api,
    pub(super) cluster: Cluster,
    _single: Single,
}

/// A document with the fields that all documents have.
fn plain(id: usize) -> Value {
    json!({
        "id": id,
        "title": format!("{} {}", WORDS[id % 7], WORDS[id * 3 % 5]),
        "group": id % 10,
        "tags": [WORDS[id % 7], WORDS[id % 3]],
        "content": {"text": format!("{} lamp", WORDS[id * 5 % 7])},
        "_vectors": {"own": [(id % 13) as f64, (id % 7) as f64 + 0.5, 1.0]},
    })
}

fn settings() -> Value {
    json!({
        "searchableAttributes": ["title", "content"],
        "filterableAttributes": ["group", "rare", "some", "never", "tags", "content", "_geo", "id"],
        "sortableAttributes": ["group", "rare", "some", "never", "_geo", "id"],
        "embedders": {"own": {"source": "userProvided", "dimensions": 3}},
    })
}

impl Both {
    /// 120 documents on three shards. One document of the first has the rare fields; `some` is on the first two.
    pub(super) async fn start() -> Self {
        let (cluster, many) = start(Cluster::builder().shards(3)).await;
        let single = Single::start(Some(MASTER_KEY)).await.unwrap();
        let one = Api::new(single.url(), Some(MASTER_KEY));
        let both = Self {
            one,
            many,
            cluster,
            _single: single,
        };
        both.load("x").await;
        both
    }

    /// Creates another index with the same documents.
    pub(super) async fn load(&self, uid: &str) {
        let features = json!({"containsFilter": true, "editDocumentsByFunction": true});
        self.each(Method::PATCH, "/experimental-features", &features)
            .await;
        self.each(
            Method::POST,
            "/indexes",
            &json!({"uid": uid, "primaryKey": "id"}),
        )
        .await;
        self.each(
            Method::PATCH,
            &format!("/indexes/{uid}/settings"),
            &settings(),
        )
        .await;
        let plain: Vec<Value> = (0..120).map(plain).collect();
        let documents = format!("/indexes/{uid}/documents");
        self.each(Method::POST, &documents, &json!(plain)).await;
        let (first, second) = (self.on(uid, 0).await, self.on(uid, 1).await);
        assert!(first.len() > 9 && second.len() > 9 && first.len() + second.len() < 110);
        let mut more = vec![json!({
            "id": first[0], "rare": "only here", "_geo": {"lat": 10.0, "lng": 20.0},
            "content": {"text": "amber lamp", "meta": {"author": "amber fern"}},
        })];
        let values = [
            json!("Some"),
            json!(7),
            json!(["a", 7, null]),
            json!(null),
            json!([]),
            json!("7"),
        ];
        for (id, value) in first
            .iter()
            .skip(1)
            .chain(&second)
            .zip(values.iter().cycle())
            .take(24)
        {
            more.push(json!({"id": id, "some": value}));
        }
        for (id, value) in second.iter().rev().zip(&values) {
            more.push(json!({"id": id, "some": value}));
        }
        self.each(Method::PUT, &documents, &json!(more)).await;
    }

    /// The ids that a shard holds.
    pub(super) async fn on(&self, uid: &str, shard: u16) -> Vec<u64> {
        crate::support::ids(&node(&self.cluster, shard), uid).await
    }

    /// Makes the same change on both, and waits for it.
    pub(super) async fn each(&self, method: Method, path: &str, body: &Value) {
        for api in [&self.one, &self.many] {
            let reply = api.json(method.clone(), path, body).await.unwrap();
            if reply.status == 202 {
                api.succeed(&reply).await.unwrap();
            } else {
                assert_eq!(reply.status, 200, "{path}: {}", reply.text);
            }
        }
    }

    /// Sends a request to both, and returns the difference between the answers, if any. The order of hits doesn't count.
    pub(super) async fn difference(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Option<String> {
        self.differ(method, path, body, Hits::InAnyOrder).await
    }

    /// The same for requests that define the order of hits completely: here the order counts.
    pub(super) async fn difference_in_order(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Option<String> {
        self.differ(method, path, body, Hits::InOrder).await
    }

    async fn differ(&self, method: Method, path: &str, body: &Value, hits: Hits) -> Option<String> {
        let ask = async |api: &Api| match method {
            Method::GET => api.get(path).await.unwrap(),
            _ => api.json(method.clone(), path, body).await.unwrap(),
        };
        let one = comparable(&ask(&self.one).await, hits);
        let many = comparable(&ask(&self.many).await, hits);
        (one != many)
            .then(|| format!("{method} {path} {body}\n  one node: {one}\n  cluster:  {many}"))
    }
}

/// How lists of hits are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hits {
    InOrder,
    InAnyOrder,
}

/// The parts of an answer that are compared.
fn comparable(reply: &Reply, order: Hits) -> Value {
    let mut body = reply.body.clone();
    if reply
        .at("/message")
        .as_str()
        .is_some_and(|said| said.starts_with("Tenant token expired."))
    {
        body["message"] = json!("Tenant token expired.");
    }
    if let Some(queries) = body.get_mut("results").and_then(Value::as_array_mut)
        && queries.iter().any(|query| query.get("hits").is_some())
    {
        queries.iter_mut().for_each(|query| normalise(query, order));
    }
    normalise(&mut body, order);
    json!({"status": reply.status, "body": body})
}

/// Removes what may differ: times, and the order of hits if it doesn't count.
fn normalise(answer: &mut Value, order: Hits) {
    let Some(members) = answer.as_object_mut() else {
        return;
    };
    for name in ["processingTimeMs", "requestUid"] {
        members.remove(name);
    }
    for name in ["hits", "results"] {
        if let Some(hits) = members.get_mut(name).and_then(Value::as_array_mut) {
            for hit in hits.iter_mut().filter_map(Value::as_object_mut) {
                hit.remove("_federation");
                hit.remove("_rankingScoreDetails");
            }
            if order == Hits::InAnyOrder {
                hits.sort_by_key(Value::to_string);
            }
        }
    }
}

/// A path with query parameters.
pub(super) fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect::<String>()
    };
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    format!("{path}?{}", pairs.join("&"))
}

/// Fails if there are differences, and shows the first of them.
pub(super) fn assert_no_difference(differences: &[String], asked: usize) {
    assert!(asked > 0);
    assert!(
        differences.is_empty(),
        "{} of {asked} differ:\n{}",
        differences.len(),
        differences
            .iter()
            .take(20)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    );
}
