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

/// What a node's tasks that aren't accounted for were asked to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Beyond {
    /// Without those that change nothing.
    Tasks(Vec<Seen>),
    /// There are too many to look at, or one of them was deleted.
    Untold,
}

/// Looks at the node's tasks up to `newest` that aren't accounted for. `None` if the node doesn't answer.
pub(crate) async fn beyond(ctx: &Context, node: &NodeRef, newest: Option<u32>) -> Option<Beyond> {
    let limit = LOOK_BACK as usize + 1;
    let unknown = ctx.cluster.marks.unaccounted(&node.id, newest, limit);
    if unknown.is_empty() {
        return Some(Beyond::Tasks(Vec::new()));
    }
    if unknown.len() == limit {
        return Some(Beyond::Untold);
    }
    let listed = list(ctx, node, &these(&unknown)).await?;
    // A task that was deleted could have been anything.
    if listed.len() < unknown.len() {
        return Some(Beyond::Untold);
    }
    let tasks = listed.into_iter().map(|listed| listed.task);
    let tasks = tasks.filter(|task| !task.is_harmless());
    Some(Beyond::Tasks(tasks.map(Seen::without_counts).collect()))
}

/// Whether a node that is out of sync has taken writes of documents beyond its mark that came through Weft. They were not
/// acknowledged, and other replicas may not have them. Writes of a resync itself don't count: they carry no metadata.
pub(crate) async fn took_unacknowledged(ctx: &Context, node: &NodeRef) -> bool {
    // The first tasks are read: the tasks of a resync come later.
    let first = ctx.cluster.marks.next(&node.id);
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
    let Some(listed) = list(ctx, node, &these(tasks)).await else {
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
    let (now, then) = times_of(ctx, node, known).await?;
    Some(now.is_none() || then.is_none() || now == then)
}

/// Whether the node proves that it has the disk that its mark belongs to: it still has the task that identifies the disk. A deleted
/// task proves nothing.
pub(crate) async fn proves_its_disk(ctx: &Context, node: &NodeRef) -> bool {
    let Some(known) = ctx.cluster.marks.shown_by(&node.id) else {
        return false;
    };
    let times = times_of(ctx, node, known).await;
    times.is_some_and(|(now, then)| now.is_some() && now == then)
}

/// When the node's task of this number was enqueued: as the node says now, and as it said before. `None` if the node doesn't answer.
async fn times_of(
    ctx: &Context,
    node: &NodeRef,
    known: NewestTask,
) -> Option<(Option<String>, Option<String>)> {
    let query = format!("uids={}&limit=1", known.uid);
    let listed = list(ctx, node, &query).await?;
    let found = listed.into_iter().find(|listed| listed.uid == known.uid);
    Some((found.and_then(|found| found.enqueued_at), known.enqueued_at))
}

/// The query for these tasks.
fn these(tasks: &[u32]) -> String {
    let uids: Vec<String> = tasks.iter().map(u32::to_string).collect();
    format!("uids={}&limit={}", uids.join(","), tasks.len())
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
