//! Looks at tasks of nodes that no record names, and tells what they are as far as possible before they are done.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Context;
use crate::cluster::{NewestTask, NodeRef};

/// How many tasks are looked at. With more, replicas are compared document by document.
const LOOK_BACK: u32 = 100;
/// Types of tasks that change no document, setting or index. Nodes make some of them by themselves.
const HARMLESS: [&str; 7] = [
    "taskCancelation",
    "taskDeletion",
    "dumpCreation",
    "snapshotCreation",
    "export",
    "upgradeDatabase",
    "indexCompaction",
];
/// Details that a task counts while it runs. They are not part of the request.
const COUNTED: [&str; 3] = ["indexedDocuments", "deletedDocuments", "editedDocuments"];

/// What a task was asked to do.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seen {
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
#[serde(rename_all = "camelCase")]
struct Listed {
    uid: u32,
    #[serde(default)]
    enqueued_at: Option<String>,
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

/// What the node's tasks after `mark`, up to `newest`, were asked to do, without those that change nothing or that the merger
/// itself made. `None` if there are too many, or the node doesn't answer.
pub(crate) async fn beyond(
    ctx: &Context,
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
    let query = format!("from={newest}&limit={count}");
    let listed = list(ctx, node, &query).await?;
    let made = ctx.cluster.marks.made_beyond(&node.id);
    let after = |listed: &Listed| Some(listed.uid) > mark && !made.contains(&listed.uid);
    let found = listed.into_iter().filter(after).map(|listed| listed.task);
    let found = found.filter(|task| !task.is_harmless());
    Some(found.map(Seen::without_counts).collect())
}

/// Whether a node that is out of sync has taken writes of documents beyond its mark that came through Weft. They were not
/// acknowledged, and other replicas may not have them. Writes of a resync itself don't count: they carry no metadata.
pub(crate) async fn took_unacknowledged(ctx: &Context, node: &NodeRef) -> bool {
    // The first tasks after the mark are read: the tasks of a resync come later.
    let mark = ctx.cluster.marks.newest(&node.id);
    let first = mark.map_or(0, |mark| mark.saturating_add(1));
    let query = format!("reverse=true&from={first}&limit={LOOK_BACK}");
    let tasks = list(ctx, node, &query).await.unwrap_or_default();
    tasks
        .iter()
        .any(|listed| listed.uid >= first && listed.task.custom_metadata.is_some())
}

/// Whether these tasks change nothing. False if the node doesn't answer, or there are too many.
pub(crate) async fn are_harmless(ctx: &Context, node: &NodeRef, tasks: &[u32]) -> bool {
    if tasks.len() > LOOK_BACK as usize {
        return false;
    }
    let uids: Vec<String> = tasks.iter().map(u32::to_string).collect();
    let query = format!("uids={}&limit={}", uids.join(","), tasks.len());
    let Some(listed) = list(ctx, node, &query).await else {
        return false;
    };
    // A task that is no longer listed could have been anything.
    let harmless = listed.iter().filter(|listed| listed.task.is_harmless());
    harmless.count() == tasks.len()
}

/// A task of the node, with the time at which it was enqueued if the node tells it.
pub(crate) async fn dated(ctx: &Context, node: &NodeRef, uid: u32) -> NewestTask {
    let listed = list(ctx, node, &format!("uids={uid}&limit=1")).await;
    let found = listed.and_then(|listed| listed.into_iter().find(|listed| listed.uid == uid));
    NewestTask {
        uid,
        enqueued_at: found.and_then(|listed| listed.enqueued_at),
    }
}

/// Whether the node still has the disk that its mark belongs to, as far as can be told: the task that identifies the disk is the
/// same, or was deleted. `None` if the node doesn't answer.
pub(crate) async fn has_same_disk(ctx: &Context, node: &NodeRef) -> Option<bool> {
    let Some(known) = ctx.cluster.marks.shown_by(&node.id) else {
        return Some(true);
    };
    let query = format!("uids={}&limit=1", known.uid);
    let listed = list(ctx, node, &query).await?;
    let found = listed.into_iter().find(|listed| listed.uid == known.uid);
    let (now, then) = (found.and_then(|found| found.enqueued_at), known.enqueued_at);
    Some(now.is_none() || then.is_none() || now == then)
}

async fn list(ctx: &Context, node: &NodeRef, query: &str) -> Option<Vec<Listed>> {
    let authority = ctx.own_authority();
    let listed = ctx
        .upstream
        .tasks(node.address, query, &authority, ctx.search_timeout);
    listed.await.ok()
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
