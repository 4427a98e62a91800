//! Replays requests recorded from a Meilisearch 1.50 server, and compares each answer with the server's.
//!
//! Every step either matches (status, body and settled task, except for times, sizes that depend on the machine, and
//! generated ids), or is listed in [`EXCEPTIONS`] with the reason. An exception that matches fails the test, so the list
//! can't become outdated.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test says what it saw, and fails where something is missing"
)]

mod process;

use std::collections::BTreeMap;

use process::{MASTER_KEY, Node};
use serde::Deserialize;
use serde_json::{Map, Value};

const GOLDEN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../golden/meilisearch-1.50.jsonl"
);

/// Steps that can't match, each with the difference between the engines (1.15 here, 1.50 there), or the feature that is out of scope.
const EXCEPTIONS: &[(u32, &str)] = &[
    (2, "the version is that of another program, and says so"),
    (
        117,
        "1.50 writes a filter anew before it evaluates it, so the place in the error is another",
    ),
    (
        152,
        "1.15 has no rule between `attributeRank` and `wordPosition`: `sort` comes after both",
    ),
];

#[derive(Debug, Deserialize)]
struct Step {
    step: u32,
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    status: u16,
    response: Option<Value>,
    settled: Option<Value>,
}

/// Removes what differs from run to run: times, generated ids and keys, bytes on disk.
fn neutral(value: &Value) -> Value {
    const VARYING: [&str; 9] = [
        "enqueuedAt",
        "startedAt",
        "finishedAt",
        "createdAt",
        "updatedAt",
        "duration",
        "processingTimeMs",
        "requestUid",
        "lastUpdate",
    ];
    const MACHINE: [&str; 5] = [
        "databaseSize",
        "usedDatabaseSize",
        "rawDocumentDbSize",
        "avgDocumentSize",
        "progressTrace",
    ];
    match value {
        Value::Object(object) => {
            let is_default_key = object.contains_key("actions")
                && object["name"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("Default"));
            let neutralized = object.iter().map(|(name, value)| {
                let varies = VARYING.contains(&name.as_str())
                    || MACHINE.contains(&name.as_str())
                    || name == "key"
                    || (name == "uid" && is_default_key);
                let value = match value {
                    Value::Null => Value::Null,
                    _ if varies => Value::from("<varies>"),
                    value => neutral(value),
                };
                (name.clone(), value)
            });
            Value::Object(neutralized.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(neutral).collect()),
        value => value.clone(),
    }
}

/// The first difference between two values, as text.
fn difference(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, value) in expected {
                match found.get(name) {
                    None => return Some(format!("{path}.{name} is missing, expected {value}")),
                    Some(other) => {
                        if let Some(difference) =
                            difference(&format!("{path}.{name}"), value, other)
                        {
                            return Some(difference);
                        }
                    }
                }
            }
            let extra = found.keys().find(|name| !expected.contains_key(*name));
            extra.map(|name| format!("{path}.{name} is there but should not be: {}", found[name]))
        }
        (Value::Array(expected), Value::Array(found)) => {
            if expected.len() != found.len() {
                return Some(format!(
                    "{path} has {} items, expected {}",
                    found.len(),
                    expected.len()
                ));
            }
            let pairs = expected.iter().zip(found).enumerate();
            pairs
                .into_iter()
                .find_map(|(index, (a, b))| difference(&format!("{path}[{index}]"), a, b))
        }
        (expected, found) if expected == found => None,
        (expected, found) => Some(format!("{path} is {found}, expected {expected}")),
    }
}

fn replay(node: &Node, step: &Step, keys: &mut BTreeMap<String, String>) -> Result<(), String> {
    let mut headers = step.headers.clone();
    if let Some(bearer) = headers.get_mut("Authorization") {
        *bearer = bearer.replace("<MASTER>", MASTER_KEY);
        for (recorded, ours) in keys.iter() {
            *bearer = bearer.replace(recorded, ours);
        }
    }
    let body = step.body.as_ref().map(|body| match body {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    });
    let (status, body) = node
        .send(
            &step.method,
            &step.path,
            &headers,
            body.as_deref().map(str::as_bytes),
        )
        .ok_or("no answer")?;
    let body = body.unwrap_or(Value::Null);
    let expected = step.response.clone().unwrap_or(Value::Null);
    if let (Some(recorded), Some(ours)) = (expected["key"].as_str(), body["key"].as_str()) {
        keys.insert(recorded.to_owned(), ours.to_owned());
    }
    let settled = body["taskUid"].as_u64().map(|_| node.settled(&body));
    if status != step.status {
        return Err(format!(
            "status is {status}, expected {}: {body}",
            step.status
        ));
    }
    if let Some(difference) = difference("body", &neutral(&expected), &neutral(&body)) {
        return Err(difference);
    }
    match (&step.settled, settled) {
        (Some(expected), Some(found)) => {
            difference("task", &neutral(expected), &neutral(&found)).map_or(Ok(()), Err)
        }
        (Some(_), None) => Err("there is no task".to_owned()),
        (None, _) => Ok(()),
    }
}

#[test]
fn the_node_answers_like_the_server_that_was_recorded() {
    let recording = std::fs::read_to_string(GOLDEN).unwrap();
    let steps: Vec<Step> = recording
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(steps.len(), 204);
    let node = Node::start();
    let mut keys = BTreeMap::new();
    let (mut matches, mut exceptions, mut failures) = (0, 0, Vec::new());
    for step in &steps {
        let name = format!("step {} {} {}", step.step, step.method, step.path);
        let excuse = EXCEPTIONS
            .iter()
            .find(|(number, _)| *number == step.step)
            .map(|(_, reason)| reason);
        match (replay(&node, step, &mut keys), excuse) {
            (Ok(()), None) => {
                matches += 1;
                println!("match      {name}");
            }
            (Err(difference), Some(reason)) => {
                exceptions += 1;
                println!("exception  {name}: {reason} ({difference})");
            }
            (Ok(()), Some(reason)) => {
                failures.push(format!("{name} matches, but is excused: {reason}"))
            }
            (Err(difference), None) => failures.push(format!("{name}: {difference}")),
        }
    }
    println!("golden: {matches} match, {exceptions} exceptions");
    assert!(
        failures.is_empty(),
        "{} steps differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
