//! Sends the recorded requests to one node and to a cluster of three shards, which must answer alike. Both run the same program,
//! so differences between versions don't matter.

use std::fmt::Write as _;
use std::path::Path;

use reqwest::Method;
use serde_json::Value;
use weft_cluster::{Api, Cluster, Reply, Single};

use crate::support::{MASTER_KEY, start};

/// Fields that are different each time, or that depend on the size of one node's files.
const VOLATILE: [&str; 19] = [
    "processingTimeMs",
    "duration",
    "enqueuedAt",
    "startedAt",
    "finishedAt",
    "createdAt",
    "updatedAt",
    "lastUpdate",
    "databaseSize",
    "usedDatabaseSize",
    "rawDocumentDbSize",
    "avgDocumentSize",
    "requestUid",
    "progressTrace",
    "batchStrategy",
    "writeChannelCongestion",
    "internalDatabaseSizes",
    "commitSha",
    "commitDate",
];

/// Steps at which a cluster answers differently, each with the reason.
const EXCEPTIONS: [(u64, &str); 6] = [
    (
        50,
        "documents are listed in the order of insertion by a node, in an order of Weft's own by a cluster",
    ),
    (52, "as step 50"),
    (
        92,
        "an empty query makes every document a tie, broken by the order of insertion",
    ),
    (99, "sorted by rating, with ties across the end of the page"),
    (101, "as step 92, with one hit"),
    (161, "as step 50"),
];

struct Step {
    number: u64,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    settles: bool,
}

fn steps() -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/meilisearch-1.50.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| step(&serde_json::from_str(line).unwrap()))
        .collect()
}

fn step(line: &Value) -> Step {
    let headers = line["headers"].as_object().unwrap().iter();
    let body = match &line["body"] {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        body => body.to_string().into_bytes(),
    };
    Step {
        number: line["step"].as_u64().unwrap(),
        method: line["method"].as_str().unwrap().parse().unwrap(),
        path: line["path"].as_str().unwrap().to_owned(),
        headers: headers
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect(),
        body,
        settles: !line["settled"].is_null(),
    }
}

/// One side of the conversation.
struct Side {
    /// The edges, to which the steps go in turn.
    edges: Vec<Api>,
    /// The value of the key that the conversation creates.
    key: Option<String>,
}

impl Side {
    fn of(urls: impl IntoIterator<Item = String>) -> Self {
        Self {
            edges: urls.into_iter().map(|url| Api::new(url, None)).collect(),
            key: None,
        }
    }

    /// The edge for a number.
    fn edge(&self, number: u64) -> Api {
        let place = usize::try_from(number).unwrap() % self.edges.len();
        self.edges[place].clone()
    }

    /// Sends the step. Returns the answer, and the settled task if the record has one.
    async fn send(&mut self, step: &Step) -> (Reply, Option<Value>) {
        let headers: Vec<(String, String)> = step
            .headers
            .iter()
            .map(|(name, value)| {
                let made = value
                    .starts_with("Bearer ded25a50")
                    .then_some(self.key.as_ref())
                    .flatten();
                let value = made.map_or_else(
                    || value.replace("<MASTER>", MASTER_KEY),
                    |key| format!("Bearer {key}"),
                );
                (name.clone(), value)
            })
            .collect();
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let reply = self
            .edge(step.number)
            .send(step.method.clone(), &step.path, &headers, step.body.clone())
            .await
            .unwrap();
        if step.method == Method::POST && step.path == "/keys" && reply.status == 201 {
            self.key = reply.at("/key").as_str().map(str::to_owned);
        }
        // Each task must have settled before the next step, or the two sides would be at different points. Who asks for it is the
        // edge after the one that took the write, and the next step goes there, too.
        let settled = match reply.at("/taskUid").as_u64() {
            Some(_) => Some(
                self.edge(step.number + 1)
                    .with_key(Some(MASTER_KEY))
                    .settle(&reply)
                    .await
                    .unwrap(),
            ),
            None => None,
        };
        (reply, settled.filter(|_| step.settles))
    }
}

/// A value without the fields that are different each time.
fn comparable(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let is_default_key = fields
                .get("name")
                .and_then(Value::as_str)
                .is_some_and(|name| name.starts_with("Default "));
            let kept = fields.iter().filter(|(name, _)| {
                let random = is_default_key && ["key", "uid"].contains(&name.as_str());
                !random && !VOLATILE.contains(&name.as_str())
            });
            kept.map(|(name, value)| (name.clone(), comparable(value)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        Value::Array(values) => values.iter().map(comparable).collect(),
        Value::Number(number) if number.is_f64() => {
            // Nine digits: sums of fractions may differ in the last bits.
            Value::from(format!("{:.9}", number.as_f64().unwrap_or_default()))
        }
        other => other.clone(),
    }
}

/// The same value with hits and results sorted: one node orders equal hits by their insertion, which shards can't know.
fn unordered(value: &Value) -> Value {
    let mut value = value.clone();
    for list in ["/hits", "/results"] {
        if let Some(Value::Array(items)) = value.pointer_mut(list) {
            items.sort_by_key(Value::to_string);
        }
    }
    value
}

#[derive(Default)]
struct Tally {
    same: usize,
    up_to_ties: Vec<u64>,
    different: Vec<(u64, String)>,
}

impl Tally {
    fn note(
        &mut self,
        step: &Step,
        one: &(Reply, Option<Value>),
        cluster: &(Reply, Option<Value>),
    ) {
        let show = |(reply, task): &(Reply, Option<Value>)| {
            (
                reply.status,
                comparable(&reply.body),
                task.as_ref().map(comparable),
            )
        };
        let (expected, found) = (show(one), show(cluster));
        if expected == found {
            self.same += 1;
        } else if (expected.0, unordered(&expected.1), &expected.2)
            == (found.0, unordered(&found.1), &found.2)
        {
            self.up_to_ties.push(step.number);
        } else {
            let mut text = format!("step {} {} {}\n", step.number, step.method, step.path);
            let _ = writeln!(text, "  body    {}", String::from_utf8_lossy(&step.body));
            for (name, (status, body, task)) in [("node", expected), ("cluster", found)] {
                let _ = writeln!(
                    text,
                    "  {name:<8}{status} {body} {}",
                    task.unwrap_or_default()
                );
            }
            self.different.push((step.number, text));
        }
    }
}

#[tokio::test]
async fn a_cluster_answers_the_recorded_conversation_as_one_node() {
    let (cluster, _) = start(Cluster::builder().shards(3)).await;
    compare(&cluster).await;
}

#[tokio::test]
async fn several_mergers_in_turn_answer_the_recorded_conversation_as_one_node() {
    let (cluster, _) = start(Cluster::builder().shards(3).mergers(3)).await;
    compare(&cluster).await;
}

/// Sends the conversation to one node, and to the cluster's edges in turn.
async fn compare(cluster: &Cluster) {
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let mut one = Side::of([single.url()]);
    let mut many = Side::of(cluster.pairs().iter().map(weft_cluster::Pair::url));
    let mut tally = Tally::default();
    for step in steps() {
        let (expected, found) = (one.send(&step).await, many.send(&step).await);
        tally.note(&step, &expected, &found);
    }
    eprintln!(
        "conversation: {} steps equal, {} equal except for the order of ties {:?}, {} different",
        tally.same,
        tally.up_to_ties.len(),
        tally.up_to_ties,
        tally.different.len()
    );
    let excepted = |number: u64| EXCEPTIONS.iter().any(|(step, _)| *step == number);
    let unexpected: Vec<&str> = tally
        .different
        .iter()
        .filter(|(number, _)| !excepted(*number))
        .map(|(_, text)| text.as_str())
        .collect();
    assert!(
        unexpected.is_empty(),
        "{} steps:\n{}",
        unexpected.len(),
        unexpected.join("\n")
    );
    for (number, reason) in EXCEPTIONS {
        assert!(
            tally.different.iter().any(|(step, _)| *step == number),
            "step {number} is no longer an exception: {reason}"
        );
    }
}
