//! Tasks of nodes that no record names: what they are, as far as that can be told before they are done.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::watch::probe;
use super::{Heard, NodeRef};
use crate::app::App;
use crate::upstream::{NodeRequest, Target};

/// How many tasks are looked at; more, and replicas are compared document by document.
const LOOK_BACK: u32 = 100;
/// Tasks that change no document, setting or index: nodes make some of them by themselves.
const HARMLESS: [&str; 7] = [
    "taskCancelation",
    "taskDeletion",
    "dumpCreation",
    "snapshotCreation",
    "export",
    "upgradeDatabase",
    "indexCompaction",
];
/// What a task counts while it is worked off, and not what was asked for.
const COUNTED: [&str; 3] = ["indexedDocuments", "deletedDocuments", "editedDocuments"];

/// What was asked for with a task.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    #[serde(default)]
    index_uid: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    details: Option<Map<String, Value>>,
    #[serde(default)]
    custom_metadata: Option<String>,
}

#[derive(Deserialize)]
struct TaskList {
    results: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    uid: u32,
    #[serde(flatten)]
    task: Seen,
}

impl Seen {
    fn is_harmless(&self) -> bool {
        HARMLESS.contains(&self.kind.as_str())
    }

    fn without_counts(mut self) -> Self {
        for name in COUNTED {
            if let Some(details) = &mut self.details {
                details.remove(name);
            }
        }
        self
    }
}

/// What the node's tasks after `mark`, up to `newest`, were asked for, without those that change nothing. `None` if that are too many,
/// or the node doesn't say.
pub(super) async fn beyond(
    app: &App,
    node: &NodeRef,
    mark: Option<u32>,
    newest: Option<u32>,
) -> Option<Vec<Seen>> {
    let Some(newest) = newest.filter(|newest| Some(*newest) > mark) else {
        return Some(Vec::new());
    };
    let count = mark.map_or(newest.saturating_add(1), |mark| newest - mark);
    if count > LOOK_BACK {
        return None;
    }
    let path = format!("/tasks?from={newest}&limit={count}");
    let listed = list(app, node, &path).await?;
    let after = |listed: &Listed| Some(listed.uid) > mark;
    let found = listed.into_iter().filter(after).map(|listed| listed.task);
    let found = found.filter(|task| !task.is_harmless());
    Some(found.map(Seen::without_counts).collect())
}

/// Whether the node, which is out of sync, has taken writes of documents beyond its mark that came through Weft: nobody was
/// acknowledged, and others may not have them. What a resync itself brings has no mark.
pub(super) async fn took_unacknowledged(app: &App, node: &NodeRef) -> bool {
    let Heard::Answer(newest) = probe(app, node).await else {
        return false;
    };
    let mark = app.cluster.marks.newest(&node.id);
    let tasks = beyond(app, node, mark, newest).await;
    tasks.is_some_and(|tasks| tasks.iter().any(|task| task.custom_metadata.is_some()))
}

/// Whether all tasks between two numbers change nothing. False if the node doesn't say.
pub(super) async fn are_harmless(
    app: &App,
    node: &NodeRef,
    after: Option<u32>,
    before: u32,
) -> bool {
    let first = after.map_or(0, |after| after.saturating_add(1));
    let Some(last) = before.checked_sub(1).filter(|last| *last >= first) else {
        return true;
    };
    let count = last - first + 1;
    if count > LOOK_BACK {
        return false;
    }
    let path = format!("/tasks?from={last}&limit={count}");
    let Some(listed) = list(app, node, &path).await else {
        return false;
    };
    // What isn't listed any more could have been anything.
    let harmless = listed
        .iter()
        .filter(|listed| listed.uid >= first && listed.task.is_harmless());
    u32::try_from(harmless.count()) == Ok(count)
}

async fn list(app: &App, node: &NodeRef, path: &str) -> Option<Vec<Listed>> {
    let target = Target::Node(node.address);
    let timeout = app.options.search_timeout();
    let request = NodeRequest::new(target, Method::GET, path, &app.own_authority(), timeout);
    let answer = app.upstream.send(request).await.ok()?;
    if answer.status != StatusCode::OK {
        return None;
    }
    let list: TaskList = serde_json::from_slice(&answer.body).ok()?;
    Some(list.results)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(task: Value) -> Seen {
        let listed: Listed = serde_json::from_value(task).unwrap();
        listed.task.without_counts()
    }

    #[test]
    fn two_tasks_are_the_same_if_the_same_was_asked_for() {
        let one = json!({"uid": 7, "indexUid": "a", "type": "documentAdditionOrUpdate", "status": "processing",
            "customMetadata": "x", "details": {"receivedDocuments": 3, "indexedDocuments": null}});
        let mut two = one.clone();
        two["uid"] = json!(9);
        two["status"] = json!("succeeded");
        two["details"]["indexedDocuments"] = json!(3);
        assert_eq!(seen(one.clone()), seen(two.clone()));
        two["customMetadata"] = json!("y");
        assert_ne!(seen(one), seen(two), "another write of as many documents");
        let filter = |filter: &str| {
            seen(
                json!({"uid": 1, "indexUid": "a", "type": "documentDeletion",
                "details": {"originalFilter": filter, "deletedDocuments": 5}}),
            )
        };
        assert_ne!(filter("\"a = 1\""), filter("\"a = 2\""));
    }

    #[test]
    fn what_nodes_do_by_themselves_is_harmless() {
        for (kind, harmless) in [
            ("taskDeletion", true),
            ("upgradeDatabase", true),
            ("settingsUpdate", false),
            ("somethingNew", false),
        ] {
            let task = seen(json!({"uid": 1, "indexUid": null, "type": kind}));
            assert_eq!(task.is_harmless(), harmless, "{kind}");
        }
    }
}
