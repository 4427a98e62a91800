//! Asks the nodes which of them have a change that was interrupted.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::Value;
use weft_routing::placement::ShardId;

use super::{Effect, Intent};
use crate::broadcast::Context;
use crate::cluster::{NodeRef, NodeStatus};
use crate::replication::remove_replica;
use crate::store::StoreError;

/// How long a node may take to say whether it has the change; writers wait meanwhile.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How many of a node's newest tasks of a kind are looked at. An identical later task is impossible: not all of its shards
/// accept writes now.
const LOOK_BACK: usize = 200;

/// The answers of a shard's replicas.
pub(super) struct Found {
    pub(super) shard: ShardId,
    /// The replicas that have the change, with their local task; `None` if no replica answers.
    pub(super) has: Option<Vec<(NodeRef, u32)>>,
}

impl Found {
    pub(super) fn has_it(&self) -> bool {
        self.has.as_ref().is_some_and(|has| !has.is_empty())
    }
}

impl Intent {
    /// Whether a node's task is the change that the shard was sent.
    fn is(&self, shard: ShardId, task: &Seen) -> bool {
        match &self.effect {
            Effect::Deletion { uid, .. } => task.index_uid.as_ref() == Some(uid),
            Effect::Exchange { .. } if self.index_uid.is_some() => {
                let new = self.details.get("newIndexUid").and_then(Value::as_str);
                new.is_some() && task.details.new_index_uid.as_deref() == new
            }
            Effect::Exchange { .. } => {
                let own = self.each.iter().find(|(other, _)| *other == shard);
                let own = own.and_then(|(_, body)| serde_json::from_value(body.clone()).ok());
                own.is_some_and(|own: Vec<Exchanged>| own == task.details.swaps)
            }
        }
    }
}

/// What is told of a node's task before it is done.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    uid: u32,
    #[serde(default)]
    index_uid: Option<String>,
    #[serde(default)]
    details: Details,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    swaps: Vec<Exchanged>,
    new_index_uid: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
struct Exchanged {
    indexes: [String; 2],
    #[serde(default)]
    rename: bool,
}

/// Asks all shards of the intent.
pub(super) async fn ask_all(ctx: &Context, intent: &Intent) -> Result<Vec<Found>, StoreError> {
    let asked = intent
        .each
        .iter()
        .map(|(shard, _)| ask(ctx, intent, *shard));
    join_all(asked).await.into_iter().collect()
}

/// Asks a shard's in-sync replicas. If one answers, silent ones may have the change or not, and are removed from the in-sync
/// set.
async fn ask(ctx: &Context, intent: &Intent, shard: ShardId) -> Result<Found, StoreError> {
    let replicas = ctx.cluster.replicas(shard);
    let answers = join_all(
        replicas
            .iter()
            .map(|node| newest_of_kind(ctx, intent, node)),
    )
    .await;
    let heard = answers.iter().any(Option::is_some);
    let mut has = Vec::new();
    for (node, answer) in replicas.into_iter().zip(answers) {
        match answer {
            Some(tasks) => {
                let before = intent.newest.get(&node.id);
                let is_new = |task: &&Seen| before.is_none_or(|before| task.uid > *before);
                let mut new = tasks.iter().filter(is_new);
                if let Some(task) = new.find(|task| intent.is(shard, task)) {
                    has.push((node, task.uid));
                }
            }
            None if heard => {
                let reason = "it does not say whether it took a change that was cut off";
                remove_replica(ctx, &node.id, reason).await?;
            }
            None => {}
        }
    }
    let has = heard.then_some(has);
    Ok(Found { shard, has })
}

async fn newest_of_kind(ctx: &Context, intent: &Intent, node: &NodeRef) -> Option<Vec<Seen>> {
    if ctx.cluster.health.status(&node.id) == NodeStatus::Silent {
        return None;
    }
    let query = format!("types={}&limit={LOOK_BACK}", intent.kind());
    let authority = ctx.own_authority();
    let listed = ctx
        .upstream
        .tasks(node.address, &query, &authority, ASK_TIMEOUT);
    listed.await.ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Method;
    use serde_json::json;
    use weft_routing::operation::classify;

    use super::*;
    use crate::broadcast::intents::put;
    use crate::broadcast::spread::NodeChange;
    use crate::call::ForwardedHeaders;

    fn change(method: Method, path: &str) -> NodeChange {
        NodeChange {
            named: classify(method.as_str(), path).unwrap().into(),
            method,
            path_and_query: path.to_owned(),
            forwarded: ForwardedHeaders::default(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    fn stored_and_read(intent: &Intent) -> Intent {
        let bytes = put("intent/1", intent).value.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn task(json: Value) -> Seen {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_swap_is_known_by_what_the_shard_was_sent() {
        let pairs = vec![["a".to_owned(), "b".to_owned()]];
        let each = vec![
            (ShardId(0), json!([{"indexes": ["a", "b"]}])),
            (ShardId(1), json!([{"indexes": ["b", "a"], "rename": true}])),
        ];
        let swap = change(Method::POST, "/swap-indexes");
        let intent = Intent::new(Effect::Exchange { pairs }, &swap, each, None, json!({}));
        let intent = stored_and_read(&intent);
        assert_eq!(intent.named(), swap.named);
        assert_eq!(
            (intent.kind(), intent.shards()),
            ("indexSwap", vec![ShardId(0), ShardId(1)])
        );
        let both = json!({"uid": 7, "indexUid": null, "details": {"swaps": [{"indexes": ["a", "b"], "rename": false}]}});
        let one = json!({"uid": 7, "indexUid": null, "details": {"swaps": [{"indexes": ["b", "a"], "rename": true}]}});
        assert!(intent.is(ShardId(0), &task(both.clone())) && !intent.is(ShardId(1), &task(both)));
        assert!(intent.is(ShardId(1), &task(one.clone())) && !intent.is(ShardId(0), &task(one)));
        assert!(!intent.is(ShardId(0), &task(json!({"uid": 7}))));
    }

    #[test]
    fn a_renaming_is_known_by_the_new_name_and_a_deletion_by_the_index() {
        let pairs = vec![["a".to_owned(), "b".to_owned()]];
        let asked = change(Method::PATCH, "/indexes/a");
        let rename = Intent::new(
            Effect::Exchange { pairs },
            &asked,
            vec![(ShardId(0), json!({"uid": "b"}))],
            Some("a".to_owned()),
            json!({"oldIndexUid": "a", "newIndexUid": "b"}),
        );
        let rename = stored_and_read(&rename);
        assert_eq!(rename.named(), asked.named);
        assert_eq!(rename.kind(), "indexUpdate");
        let renamed =
            |to: &str| task(json!({"uid": 1, "indexUid": "a", "details": {"newIndexUid": to}}));
        assert!(rename.is(ShardId(0), &renamed("b")) && !rename.is(ShardId(0), &renamed("c")));
        let keyed = json!({"uid": 1, "indexUid": "a", "details": {"primaryKey": "id"}});
        assert!(!rename.is(ShardId(0), &task(keyed)));

        let effect = Effect::Deletion {
            uid: "a".to_owned(),
            before: Some(3),
        };
        let asked = change(Method::DELETE, "/indexes/a");
        let each = vec![(ShardId(0), Value::Null)];
        let delete = Intent::new(effect, &asked, each, Some("a".to_owned()), json!({}));
        let delete = stored_and_read(&delete);
        assert_eq!(delete.named(), asked.named);
        assert_eq!(delete.kind(), "indexDeletion");
        assert!(delete.is(
            ShardId(0),
            &task(json!({"uid": 1, "indexUid": "a", "details": {"deletedDocuments": 4}}))
        ));
        assert!(!delete.is(ShardId(0), &task(json!({"uid": 1, "indexUid": "b"}))));
    }
}
