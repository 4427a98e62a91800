//! Changes of which indexes there are under which names, on all of their shards or on none: deletions, renames, swaps.
//!
//! ```text
//! intent stored ─► nodes ─► placements ─► task ─► intent forgotten
//!       └─ cut off anywhere: the nodes are asked who has it ─┬─ nobody: as if it had never been asked for
//!                                                            └─ somebody: the others get it too, and on as above
//! ```
//!
//! Two swaps are none, so a client can't make one whole again that was cut off by repeating it: by the merger's end, or with the
//! way to a node. Invariant: until it is whole or undone, nothing else is written to the shards that may have it, and no
//! replica is copied from one that has it to one that hasn't.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use weft_routing::placement::ShardId;

use super::BroadcastError;
use super::spread::{Change, Reach, Spread, Taken, spread_in_turn, to_shard};
use crate::answer::Answer;
use crate::app::App;
use crate::cluster::{ClusterError, Life, NodeId, NodeRef, Reads, settle_doubts, take_out};
use crate::sequence::Turn;
use crate::store::{self, Store, StoreError};
use crate::tasks::{NewTask, Part};
use crate::upstream::{NodeAnswer, NodeRequest, Target};

const PREFIX: &str = "intent/";
/// How often it is tried to finish what was cut off, and how long a node may take to say whether it has it: writers wait meanwhile.
const AGAIN: Duration = Duration::from_millis(500);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How many of a node's newest tasks of a kind are looked at. The same can't have come again: not all of its shards may be written to.
const LOOK_BACK: usize = 200;

/// What shall be done, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Intent {
    effect: Effect,
    index_uid: Option<String>,
    details: Map<String, Value>,
    method: String,
    path_and_query: String,
    /// What each shard is sent.
    each: Vec<(ShardId, Value)>,
    /// The newest task that each node had before: what is newer may be this.
    newest: BTreeMap<NodeId, u32>,
    /// The task by whose uid the placements know of it.
    task: u32,
    /// The placements have followed.
    placed: bool,
}

/// What becomes of the placements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub(super) enum Effect {
    /// Indexes are exchanged; one that isn't there is a name that the other gets.
    Exchange { pairs: Vec<[String; 2]> },
    /// The index goes when the task has succeeded. `before` is the task of an earlier deletion that hasn't ended.
    Deletion { uid: String, before: Option<u32> },
}

impl Intent {
    /// An intent to do what `change` says.
    pub(super) fn new(
        effect: Effect,
        change: &Change,
        each: Vec<(ShardId, Value)>,
        index_uid: Option<String>,
        details: Value,
    ) -> Self {
        let details = details.as_object().cloned().unwrap_or_default();
        Self {
            effect,
            index_uid,
            details,
            method: change.method.to_string(),
            path_and_query: change.path_and_query.clone(),
            each,
            newest: BTreeMap::new(),
            task: 0,
            placed: false,
        }
    }

    fn kind(&self) -> &'static str {
        match (&self.effect, &self.index_uid) {
            (Effect::Deletion { .. }, _) => "indexDeletion",
            (Effect::Exchange { .. }, Some(_)) => "indexUpdate",
            (Effect::Exchange { .. }, None) => "indexSwap",
        }
    }

    fn shards(&self) -> Vec<ShardId> {
        self.each.iter().map(|(shard, _)| *shard).collect()
    }

    /// The names that are exchanged.
    fn names(&self) -> Vec<String> {
        match &self.effect {
            Effect::Exchange { pairs } => pairs.iter().flatten().cloned().collect(),
            Effect::Deletion { .. } => Vec::new(),
        }
    }

    fn pairs(&self) -> Vec<(&str, &str)> {
        match &self.effect {
            Effect::Exchange { pairs } => pairs
                .iter()
                .map(|[one, two]| (one.as_str(), two.as_str()))
                .collect(),
            Effect::Deletion { .. } => Vec::new(),
        }
    }

    /// Whether a node's task is what the shard was sent.
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

    fn change(&self, app: &App, body: &Value) -> Change {
        let method = self.method.parse().unwrap_or(Method::POST);
        Change::own(app, method, self.path_and_query.clone(), body)
    }
}

/// The intents that are stored, and not yet whole or undone.
pub struct Intents {
    store: Arc<dyn Store>,
}

impl Intents {
    /// Keeps them in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    async fn all(&self) -> Result<Vec<(String, Intent)>, ClusterError> {
        let stored = self.store.range(PREFIX).await?;
        let read = |(key, stored): (String, store::Versioned)| {
            let intent = serde_json::from_slice(&stored.value);
            let intent = intent.map_err(|_| ClusterError::Corrupt(key.clone()))?;
            Ok((key, intent))
        };
        stored.into_iter().map(read).collect()
    }
}

fn put(key: &str, intent: &Intent) -> store::Change {
    store::Change::put(key, serde_json::to_vec(intent).unwrap_or_default())
}

/// Does it, in the turn on all of its shards, and registers the task.
///
/// # Errors
/// It is not done yet, and may never be: a shard does not answer, or the store failed.
pub(super) async fn carry_out(
    app: &Arc<App>,
    turn: Turn,
    change: &Change,
    mut intent: Intent,
) -> Result<Answer, BroadcastError> {
    for shard in intent.shards() {
        settle_doubts(app, shard).await?;
        let replicas = app.cluster.replicas_or_none(shard)?;
        let silent = |node: &NodeRef| app.cluster.pulse.life(&node.id) == Life::Silent;
        if replicas.iter().all(silent) {
            return Err(BroadcastError::Silent(shard));
        }
        let newest =
            |node: &NodeRef| Some((node.id.clone(), app.cluster.pulse.acknowledged(&node.id)?));
        intent.newest.extend(replicas.iter().filter_map(newest));
    }
    intent.task = app.tasks.reserve();
    let key = format!("{PREFIX}{}", uuid::Uuid::new_v4());
    app.intents.store.commit(vec![put(&key, &intent)]).await?;
    let done = begin(app, &turn, change, &key, &mut intent).await;
    if !matches!(&done, Ok(Some(_))) {
        // Before the turn ends: the next writer must find it.
        let shards = intent.shards().into_iter().collect();
        app.cluster.doubts.hold(&key, shards, Reads::GoOn);
        tokio::spawn(finish(Arc::clone(app), key, intent.clone()));
    }
    match done? {
        Some(answer) => Ok(answer),
        None => Err(BroadcastError::Unfinished),
    }
}

/// `None` if some shards have it and others not.
async fn begin(
    app: &Arc<App>,
    turn: &Turn,
    change: &Change,
    key: &str,
    intent: &mut Intent,
) -> Result<Option<Answer>, BroadcastError> {
    if let Effect::Deletion { uid, .. } = &intent.effect {
        let placements = &app.cluster.placements;
        placements.mark_deleted(uid, intent.task).await?;
    }
    let own: Vec<(ShardId, Change)> = intent
        .each
        .iter()
        .map(|(shard, body)| match body {
            Value::Null => (*shard, change.clone()),
            body => (*shard, change.with_body(body)),
        })
        .collect();
    let each: Vec<_> = own.iter().map(|(shard, change)| (*shard, change)).collect();
    match spread_in_turn(app, turn, &each, Reach::Replicas).await? {
        Spread::Refused(answer) => {
            undo(app, key, intent).await?;
            Ok(Some(answer))
        }
        Spread::Taken { parts, .. } if lacking(&parts).next().is_some() => Ok(None),
        Spread::Taken { parts, .. } => conclude(app, key, intent, parts).await.map(Some),
    }
}

/// The parts of shards that haven't got it.
fn lacking(parts: &[Part]) -> impl Iterator<Item = &Part> {
    parts.iter().filter(|part| part.undelivered.is_some())
}

/// Nobody has it: the placements are as they were.
async fn undo(app: &App, key: &str, intent: &Intent) -> Result<(), StoreError> {
    if let Effect::Deletion { uid, before } = &intent.effect {
        let placements = &app.cluster.placements;
        placements.unmark_deleted(uid, intent.task).await?;
        if let Some(other) = before {
            placements.mark_deleted(uid, *other).await?;
        }
    }
    forget(app, key).await
}

async fn forget(app: &App, key: &str) -> Result<(), StoreError> {
    let gone = store::Change::delete(key);
    app.intents.store.commit(vec![gone]).await
}

/// The placements follow, unless they have.
async fn follow(app: &App, key: &str, intent: &mut Intent) -> Result<(), StoreError> {
    if std::mem::replace(&mut intent.placed, true) {
        return Ok(());
    }
    let stored = put(key, intent);
    let followed = match &intent.effect {
        Effect::Exchange { .. } => {
            let (placements, pairs) = (&app.cluster.placements, intent.pairs());
            placements.swap_for(&pairs, intent.task, vec![stored]).await
        }
        // The mark is there already.
        Effect::Deletion { .. } => app.intents.store.commit(vec![stored]).await,
    };
    intent.placed = followed.is_ok();
    followed
}

/// All shards have it: the placements follow, and the task is registered under the intent's uid.
async fn conclude(
    app: &Arc<App>,
    key: &str,
    intent: &mut Intent,
    parts: Vec<Part>,
) -> Result<Answer, BroadcastError> {
    if let Effect::Exchange { .. } = &intent.effect {
        follow(app, key, intent).await?;
    }
    let task = NewTask {
        kind: intent.kind().to_owned(),
        index_uid: intent.index_uid.clone(),
        details: intent.details.clone(),
        parts,
        ..NewTask::default()
    };
    let forgotten = vec![store::Change::delete(key)];
    let enqueued = app.tasks.create_as(intent.task, task, forgotten).await?;
    Ok(Answer::json(StatusCode::ACCEPTED, &enqueued))
}

/// Takes up what the last merger left: from here on nobody writes to those shards before it is whole or undone.
///
/// # Errors
/// The store.
pub async fn take_up_intents(app: &Arc<App>) -> Result<(), ClusterError> {
    for (key, intent) in app.intents.all().await? {
        let shards = intent.shards().into_iter().collect();
        app.cluster.doubts.hold(&key, shards, Reads::GoOn);
        tokio::spawn(finish(Arc::clone(app), key, intent));
    }
    Ok(())
}

/// Makes it whole or undoes it, however long that takes.
async fn finish(app: Arc<App>, key: String, mut intent: Intent) {
    let kind = intent.kind();
    tracing::warn!(kind, shards = ?intent.shards(), "a change of indexes was cut off: it is made whole, or undone");
    let begun = Instant::now();
    // Who hung when it was sent may take it after it has said that it hasn't: all are asked twice.
    let mut certain = false;
    loop {
        // When a silent node counts as down, the writers of shards that have it don't wait any more for those that don't.
        let patient = !intent.placed && begun.elapsed() < app.options.down_after();
        match attempt(&app, &key, &mut intent, patient, certain).await {
            Ok(Some(outcome)) => {
                return tracing::warn!(kind, outcome, "a change that was cut off has ended");
            }
            Ok(None) => certain = true,
            Err(error) => {
                certain = false;
                tracing::debug!(kind, %error, "a change that was cut off can't be ended yet");
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What the replicas of a shard say.
struct Found {
    shard: ShardId,
    /// Who has it, as which task; `None` if nobody says anything.
    has: Option<Vec<(NodeRef, u32)>>,
}

impl Found {
    fn has_it(&self) -> bool {
        self.has.as_ref().is_some_and(|has| !has.is_empty())
    }
}

/// How it ended; `None` if everybody is to be asked once more.
async fn attempt(
    app: &Arc<App>,
    key: &str,
    intent: &mut Intent,
    patient: bool,
    certain: bool,
) -> Result<Option<&'static str>, BroadcastError> {
    let shards: BTreeSet<ShardId> = intent.shards().into_iter().collect();
    let doubts = &app.cluster.doubts;
    if intent.placed {
        // Nobody waits any more for those who are silent, not even for as long as they take to say nothing.
        let found = ask_all(app, intent).await?;
        if let Some(silent) = found.iter().find(|found| found.has.is_none()) {
            // Where nobody at all is heard, as before Envoy has told of the nodes, nothing is known of anybody.
            if found.iter().any(Found::has_it) {
                let lacking = found.iter().filter(|found| !found.has_it());
                let lacking = lacking.map(|found| found.shard).collect();
                doubts.hold(key, lacking, Reads::Leave);
            }
            return Err(BroadcastError::Silent(silent.shard));
        }
    }
    let turn = app.sequencer.turn(&intent.shards()).await;
    let found = ask_all(app, intent).await?;
    let somebody = found.iter().any(Found::has_it);
    let silent = found.iter().find(|found| found.has.is_none());
    if let Some(silent) = silent
        && (patient || !somebody)
    {
        // Who surely hasn't got it may go on.
        let may_have = found
            .iter()
            .filter(|found| found.has.is_none() || found.has_it());
        let may_have = may_have.map(|found| found.shard).collect();
        doubts.hold(key, may_have, Reads::GoOn);
        return Err(BroadcastError::Silent(silent.shard));
    }
    if !intent.placed {
        doubts.hold(key, shards, Reads::GoOn);
    }
    if !certain && silent.is_none() {
        return Ok(None);
    }
    let outcome = match somebody {
        false => {
            undo(app, key, intent).await?;
            "undone: no node had it"
        }
        true => {
            let parts = send_to_the_rest(app, intent, found).await?;
            let lacking: BTreeSet<ShardId> = lacking(&parts).map(|part| part.shard).collect();
            if let Some(shard) = lacking.first().copied() {
                if !patient {
                    // Whoever has it has waited enough; the others get it when they are back, and nobody reads there before.
                    follow(app, key, intent).await?;
                    doubts.hold(key, lacking, Reads::Leave);
                }
                return Err(BroadcastError::Silent(shard));
            }
            register(app, key, intent, parts).await?;
            "made whole"
        }
    };
    doubts.release(key);
    drop(turn);
    Ok(Some(outcome))
}

/// Sends it to everybody who hasn't got it. The caller has the turn.
async fn send_to_the_rest(
    app: &Arc<App>,
    intent: &Intent,
    found: Vec<Found>,
) -> Result<Vec<Part>, BroadcastError> {
    let placements = &app.cluster.placements;
    if let Effect::Exchange { pairs } = &intent.effect
        && !intent.placed
        && pairs.iter().any(|pair| placements.lie_apart(pair))
    {
        // A filter that still goes by the old table would ask the wrong shard.
        placements.leave_to_merger(&intent.names(), true).await?;
        tokio::time::sleep(Duration::from_millis(app.options.lease_ms)).await;
    }
    app.writes.indexes_change();
    let sent = found.into_iter().map(|found| {
        let body = intent.each.iter().find(|(shard, _)| *shard == found.shard);
        let change = body.map(|(_, body)| intent.change(app, body));
        async move {
            match (found.has, change) {
                (Some(has), Some(change)) => {
                    app.cluster
                        .dirty
                        .note(found.shard, &change.path_and_query, None);
                    let replicas = app.cluster.replicas_or_none(found.shard)?;
                    let taken: Taken = has.into_iter().map(as_taken).collect();
                    to_shard(app, &change, found.shard, &replicas, &taken).await
                }
                _ => Ok(Part::undelivered(found.shard, "it is silent".to_owned())),
            }
        }
    });
    join_all(sent).await.into_iter().collect()
}

/// Under a new uid: the old one may be another task's by now.
async fn register(
    app: &Arc<App>,
    key: &str,
    intent: &mut Intent,
    parts: Vec<Part>,
) -> Result<(), BroadcastError> {
    let placements = &app.cluster.placements;
    let old = std::mem::replace(&mut intent.task, app.tasks.reserve());
    match &intent.effect {
        Effect::Deletion { uid, .. } => placements.mark_deleted(uid, intent.task).await?,
        Effect::Exchange { .. } if intent.placed => {
            let stored = put(key, intent);
            placements.swap_goes_on(old, intent.task, stored).await?;
        }
        Effect::Exchange { .. } => {}
    }
    conclude(app, key, intent, parts).await?;
    // Whatever was left to the merger meanwhile.
    placements.leave_to_merger(&intent.names(), false).await?;
    Ok(())
}

fn as_taken((node, local_uid): (NodeRef, u32)) -> (NodeId, NodeAnswer) {
    let answer = NodeAnswer {
        status: StatusCode::ACCEPTED,
        headers: HeaderMap::new(),
        body: Bytes::from(json!({"taskUid": local_uid}).to_string()),
    };
    (node.id, answer)
}

#[derive(Deserialize)]
struct TaskList {
    results: Vec<Seen>,
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

async fn ask_all(app: &App, intent: &Intent) -> Result<Vec<Found>, StoreError> {
    let asked = intent
        .each
        .iter()
        .map(|(shard, _)| ask(app, intent, *shard));
    join_all(asked).await.into_iter().collect()
}

/// Asks a shard's replicas in sync. Who says nothing while another one answers may have it or not: it is taken out.
async fn ask(app: &App, intent: &Intent, shard: ShardId) -> Result<Found, StoreError> {
    let replicas = app.cluster.replicas(shard);
    let answers = join_all(
        replicas
            .iter()
            .map(|node| newest_of_kind(app, intent, node)),
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
                take_out(app, &node.id, reason).await?;
            }
            None => {}
        }
    }
    let has = heard.then_some(has);
    Ok(Found { shard, has })
}

async fn newest_of_kind(app: &App, intent: &Intent, node: &NodeRef) -> Option<Vec<Seen>> {
    if app.cluster.pulse.life(&node.id) == Life::Silent {
        return None;
    }
    let request = NodeRequest::new(
        Target::Node(node.address),
        Method::GET,
        format!("/tasks?types={}&limit={LOOK_BACK}", intent.kind()),
        &app.own_authority(),
        ASK_TIMEOUT,
    );
    let answer = app.upstream.send(request).await.ok()?;
    let list: TaskList = serde_json::from_slice(&answer.body).ok()?;
    (answer.status == StatusCode::OK).then_some(list.results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Along;

    fn change(method: Method, path: &str) -> Change {
        Change {
            method,
            path_and_query: path.to_owned(),
            along: Along::default(),
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
        let rename = Intent::new(
            Effect::Exchange { pairs },
            &change(Method::PATCH, "/indexes/a"),
            vec![(ShardId(0), json!({"uid": "b"}))],
            Some("a".to_owned()),
            json!({"oldIndexUid": "a", "newIndexUid": "b"}),
        );
        let rename = stored_and_read(&rename);
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
        let delete = change(Method::DELETE, "/indexes/a");
        let each = vec![(ShardId(0), Value::Null)];
        let delete = Intent::new(effect, &delete, each, Some("a".to_owned()), json!({}));
        let delete = stored_and_read(&delete);
        assert_eq!(delete.kind(), "indexDeletion");
        assert!(delete.is(
            ShardId(0),
            &task(json!({"uid": 1, "indexUid": "a", "details": {"deletedDocuments": 4}}))
        ));
        assert!(!delete.is(ShardId(0), &task(json!({"uid": 1, "indexUid": "b"}))));
    }
}
