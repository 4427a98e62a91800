//! Input that no well-behaved client sends. A cluster with the filter, a cluster without it and one node get the same bytes, and
//! must answer alike.
//!
//! Every case is sent as bytes on its own connection, because a client library would correct or refuse it. Afterwards all three
//! must hold the same documents: nothing is lost, and nothing is half-written.

mod bodies;
mod framing;
mod parameters;
mod paths;
mod wire;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Single};

use self::wire::{Answer, exchange};
use crate::support::{MASTER_KEY, documents};

/// The index of most cases: 60 documents on three shards, with settings for filters and sorting.
const INDEX: &str = "things";

/// Marks the text of an error that doesn't have the form of Meilisearch's errors. In a few cases, nodes themselves give such
/// errors.
const OTHER_FORM: &str = "in another form: ";

/// One request, as bytes.
struct Case {
    name: String,
    bytes: Vec<u8>,
    expected: Expected,
    /// True if the client closes its side of the connection after the bytes.
    cut: bool,
}

/// What the cluster must do.
#[derive(Clone, Copy)]
enum Expected {
    /// The same as the node: status, code, and how the task ended.
    AsTheNode,
    /// This status and code. They are those of a real node; the embedded node may differ.
    Known(u16, Option<&'static str>),
    /// One of these statuses: the request concerns only Weft, or a node leaves it to its HTTP library.
    Status(&'static [u16]),
    /// No answer, or a refusal: the request is incomplete or isn't HTTP.
    NoSuccess,
}

/// The outcome of a case at one target.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: Option<u16>,
    code: Option<String>,
    task: Option<Value>,
}

/// A cluster or node that gets the cases.
struct Target {
    name: &'static str,
    port: u16,
    api: Api,
}

impl Target {
    fn new(name: &'static str, url: String) -> Self {
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        Self {
            name,
            port,
            api: Api::new(url, Some(MASTER_KEY)),
        }
    }

    async fn prepare(&self) {
        let create = json!({"uid": INDEX, "primaryKey": "id"});
        let settings = json!({"filterableAttributes": ["group"], "sortableAttributes": ["group"]});
        let path = format!("/indexes/{INDEX}");
        for accepted in [
            self.api.post("/indexes", &create).await,
            self.api
                .json(
                    reqwest::Method::PATCH,
                    &format!("{path}/settings"),
                    &settings,
                )
                .await,
            self.api
                .post(&format!("{path}/documents"), &documents(0..60))
                .await,
        ] {
            self.api.succeed(&accepted.unwrap()).await.unwrap();
        }
    }

    async fn outcome(&self, case: &Case) -> Outcome {
        let answer = exchange(self.port, &case.bytes, case.cut).await;
        let Some(Answer { status, body }) = answer else {
            return Outcome {
                status: None,
                code: None,
                task: None,
            };
        };
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        let task = match json["taskUid"].as_u64() {
            Some(uid) if status == 202 => Some(self.end_of(uid).await),
            _ => None,
        };
        Outcome {
            status: Some(status),
            code: code(status, &json, &body),
            task,
        }
    }

    /// How a task ended: its status, its error's code, and its details.
    async fn end_of(&self, uid: u64) -> Value {
        let accepted = weft_cluster::Reply {
            status: 202,
            headers: Default::default(),
            body: json!({"taskUid": uid}),
            text: String::new(),
        };
        let task = self.api.settle(&accepted).await.unwrap();
        json!({
            "status": task["status"], "code": task["error"]["code"], "details": task["details"],
            "customMetadata": task["customMetadata"],
        })
    }

    /// Every document of every index.
    async fn everything(&self) -> Value {
        let indexes = self.api.get("/indexes?limit=1000").await.unwrap();
        let mut all = serde_json::Map::new();
        for index in indexes.at("/results").as_array().unwrap() {
            let uid = index["uid"].as_str().unwrap();
            let key = index["primaryKey"].as_str().unwrap_or("id");
            let path = format!("/indexes/{uid}/documents");
            let list = format!("{path}?limit=100000&fields={key}");
            let list = self.api.get(&list).await.unwrap();
            assert_eq!(list.status, 200, "{}: {}", self.name, list.text);
            let mut documents = BTreeMap::new();
            for document in list.at("/results").as_array().unwrap() {
                let id = document[key].as_str().map(str::to_owned);
                let id = id.unwrap_or_else(|| document[key].to_string());
                let whole = self.api.get(&format!("{path}/{id}")).await.unwrap();
                // A document that is nested too deeply for `serde_json` is compared as text.
                let text = || Value::String(whole.text.clone());
                documents.insert(
                    id,
                    serde_json::from_str(&whole.text).unwrap_or_else(|_| text()),
                );
            }
            let whole = json!({"primaryKey": index["primaryKey"], "documents": documents});
            all.insert(uid.to_owned(), whole);
        }
        Value::Object(all)
    }
}

/// The code of an error in Meilisearch's form; for an error in another form, its text.
fn code(status: u16, json: &Value, body: &[u8]) -> Option<String> {
    let in_form = ["message", "code", "type", "link"]
        .iter()
        .all(|field| json[field].is_string());
    let text = || format!("{OTHER_FORM}{}", String::from_utf8_lossy(body));
    match json["code"].as_str() {
        Some(code) if in_form => Some(code.to_owned()),
        _ if status < 400 || body.is_empty() => None,
        _ => Some(text()),
    }
}

/// What is wrong with the outcomes, if anything is.
fn fault(case: &Case, with: &Outcome, without: &Outcome, node: &Outcome) -> Option<String> {
    let report = |why: &str| {
        Some(format!(
            "{}: {why}\n  with filter    {with:?}\n  without filter {without:?}\n  the node       {node:?}",
            case.name
        ))
    };
    if with != without {
        return report("the filter makes a difference");
    }
    let in_form = |outcome: &Outcome| {
        let code = outcome.code.as_deref();
        !code.is_some_and(|code| code.starts_with(OTHER_FORM))
    };
    let ok = match case.expected {
        Expected::AsTheNode => with == node,
        Expected::Known(status, code) => {
            (with.status, with.code.as_deref()) == (Some(status), code)
                && (std::env::var_os("MEILISEARCH_BIN").is_none() || with == node)
        }
        Expected::Status(statuses) => {
            in_form(with) && with.status.is_some_and(|status| statuses.contains(&status))
        }
        Expected::NoSuccess => {
            in_form(with)
                && with
                    .status
                    .is_none_or(|status| (400..500).contains(&status))
        }
    };
    if ok {
        None
    } else {
        report("not the expected outcome")
    }
}

#[tokio::test]
async fn bad_input_is_answered_as_a_node_answers_it_and_nothing_is_lost() {
    let cases: Vec<Case> = [
        bodies::cases(),
        parameters::cases(),
        paths::cases(),
        framing::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(cases.len() >= 200, "only {} cases", cases.len());
    let key = Some(MASTER_KEY);
    let cluster = |filter| {
        Cluster::builder()
            .shards(3)
            .filter(filter)
            .master_key(MASTER_KEY)
            .start()
    };
    let (with, without, single) = tokio::join!(cluster(true), cluster(false), Single::start(key));
    let (with, without, single) = (with.unwrap(), without.unwrap(), single.unwrap());
    let targets = [
        Target::new("with the filter", with.url()),
        Target::new("without the filter", without.url()),
        Target::new("the node", single.url()),
    ];
    let [with, without, node] = &targets;
    tokio::join!(with.prepare(), without.prepare(), node.prepare());

    let mut faults = Vec::new();
    for case in &cases {
        let (first, second, third) = tokio::join!(
            with.outcome(case),
            without.outcome(case),
            node.outcome(case)
        );
        faults.extend(fault(case, &first, &second, &third));
    }
    assert!(
        faults.is_empty(),
        "{} of {} cases:\n{}",
        faults.len(),
        cases.len(),
        faults.join("\n")
    );
    let (first, second, third) =
        tokio::join!(with.everything(), without.everything(), node.everything());
    assert_eq!(first, third, "with the filter, compared with the node");
    assert_eq!(second, third, "without the filter, compared with the node");
    // A few cases overwrite documents; all other documents must be unchanged.
    let before = documents(0..60);
    let unchanged = before
        .as_array()
        .unwrap()
        .iter()
        .filter(|document| third[INDEX]["documents"][document["id"].to_string()] == **document);
    let unchanged = unchanged.count();
    assert!(unchanged >= 50, "{unchanged} of 60 documents are unchanged");
    for target in &targets {
        let health = target.api.get("/health").await.unwrap();
        assert_eq!(health.status, 200, "{}", target.name);
    }
}
