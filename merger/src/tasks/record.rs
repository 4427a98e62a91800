//! What is known of a task: the parts on the shards, the copies on their replicas, and how each stands.
//!
//! ```text
//! Enqueued ──► Processing ──► Succeeded | Failed | Canceled      (a copy's state only moves to the right)
//! ```

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::serde::rfc3339;
use weft_routing::placement::ShardId;

use crate::cluster::{NodeId, NodeTask};

/// A task's status, in the API's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Accepted and durable, not begun.
    Enqueued,
    /// Begun on at least one shard.
    Processing,
    /// Done on every shard.
    Succeeded,
    /// Failed on at least one shard.
    Failed,
    /// Canceled before it was done.
    Canceled,
}

impl Status {
    /// Whether the status can't change any more.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enqueued => "enqueued",
            Self::Processing => "processing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// The status of an API word, letters of any case.
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Enqueued,
            Self::Processing,
            Self::Succeeded,
            Self::Failed,
            Self::Canceled,
        ]
        .into_iter()
        .find(|status| status.as_str().eq_ignore_ascii_case(word))
    }
}

/// A task about to be registered.
#[derive(Debug, Clone, Default)]
pub struct NewTask {
    /// The API's task type, such as `documentAdditionOrUpdate`.
    pub kind: String,
    /// The index that the task is about, if it is about one.
    pub index_uid: Option<String>,
    /// Details known to the merger; they take precedence over what the nodes say.
    pub details: Map<String, Value>,
    /// The client's `customMetadata`.
    pub custom_metadata: Option<String>,
    /// What was delivered where. A task without parts is `succeeded` from the start.
    pub parts: Vec<ShardTask>,
    /// For a task without parts that failed in the merger: the error, in the API's shape.
    pub error: Option<Value>,
    /// For a task that shares its local task with others: what of it is its own.
    pub share: Option<Share>,
    /// Whether its success is looked into before it is told.
    pub read_back: ReadBack,
    /// For a change of settings: which it is about.
    pub touches: Touches,
}

impl NewTask {
    /// The task as it is stored first.
    pub(super) fn into_record(self, uid: u32, enqueued_at: OffsetDateTime) -> TaskRecord {
        TaskRecord {
            uid,
            index_uid: self.index_uid,
            kind: self.kind,
            enqueued_at,
            details: self.details,
            custom_metadata: self.custom_metadata,
            canceled_by: None,
            parts: self.parts,
            error: self.error,
            share: self.share,
            read_back: self.read_back,
            touches: self.touches,
        }
    }
}

/// What is done between the nodes' success and the task's: settings are read back from every node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReadBack {
    /// Nothing.
    #[default]
    NotNeeded,
    /// It is yet to be done: until then the task is processing.
    Due,
    /// Done. What differed and was mended, in words; empty where nothing was.
    Done(Vec<String>),
    /// Something differs that can't be mended: the error, in the API's shape.
    Failed(Value),
    /// It failed on some nodes, and was taken back on the others, if any: these, in words.
    Undone(Vec<String>),
}

/// Which settings a change is about, by their names in `GET …/settings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Touches {
    /// It is no change of settings, or all of them.
    #[default]
    All,
    /// These.
    Named(BTreeSet<String>),
}

impl Touches {
    /// Whether it is about a setting.
    pub fn holds(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(name),
        }
    }
}

/// A task's share in a local task that several small writes were merged into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// How many documents the task indexes if the local task succeeds.
    pub documents: u64,
    /// Where it stands among the writes that were merged, from 0.
    pub place: u32,
    /// Which of the documents that the node was sent are its own; a document that it names twice is sent twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Sent>,
}

/// Some of the documents that a node was sent at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// How many come before them.
    pub before: u64,
    /// How many they are.
    pub count: u64,
}

/// One local task on one shard. A shard that took a write in several pieces has a part for each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardTask {
    /// The shard.
    pub shard: ShardId,
    /// The local tasks, the primary's first.
    pub copies: Vec<ReplicaTask>,
    /// Why nothing was delivered to this shard, where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered: Option<String>,
    /// Replicas that have yet to take it, though it is acknowledged. The task doesn't end before they have, or are out of sync.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<NodeId>,
    /// How those who see to that learn of the task.
    #[serde(skip)]
    pub late: Option<LateTicket>,
}

/// Tells those who bring an acknowledged write to the last replicas which task it is.
#[derive(Debug, Clone)]
pub struct LateTicket(tokio::sync::mpsc::UnboundedSender<u32>);

impl LateTicket {
    /// A ticket whose task is sent here. When all copies of a ticket are gone, no more tasks come.
    pub fn new(to: tokio::sync::mpsc::UnboundedSender<u32>) -> Self {
        Self(to)
    }

    pub(super) fn tell(self, uid: u32) {
        let _ = self.0.send(uid);
    }
}

/// A part on one replica.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaTask {
    /// The replica.
    pub node: NodeId,
    /// The node's own `taskUid`.
    pub local_uid: u32,
    /// What the node last said of it.
    #[serde(default)]
    pub state: LocalState,
    /// The replica has left the in-sync set since: its copy counts no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out: bool,
    /// The incarnation of the node's disk that numbered the task: another one gives its numbers anew.
    #[serde(default, skip_serializing_if = "is_first")]
    pub incarnation: u32,
}

impl ShardTask {
    /// Copies of a write that all in-sync replicas of the shard have taken.
    pub fn taken(shard: ShardId, copies: Vec<ReplicaTask>) -> Self {
        Self {
            shard,
            copies,
            undelivered: None,
            pending: Vec::new(),
            late: None,
        }
    }

    /// What a shard has not got, and why.
    pub fn undelivered(shard: ShardId, why: String) -> Self {
        Self {
            undelivered: Some(why),
            ..Self::taken(shard, Vec::new())
        }
    }

    /// The copies that count.
    pub fn live(&self) -> impl Iterator<Item = &ReplicaTask> {
        self.copies.iter().filter(|copy| !copy.out)
    }
}

impl ReplicaTask {
    /// A copy just acknowledged by a node.
    pub fn acknowledged(node: NodeId, local_uid: u32) -> Self {
        Self {
            node,
            local_uid,
            state: LocalState::default(),
            out: false,
            incarnation: 0,
        }
    }
}

impl From<NodeTask> for ReplicaTask {
    fn from(task: NodeTask) -> Self {
        Self {
            incarnation: task.incarnation,
            ..Self::acknowledged(task.node, task.local_uid)
        }
    }
}

impl ReplicaTask {
    /// The node's task.
    pub fn task(&self) -> NodeTask {
        NodeTask {
            node: self.node.clone(),
            local_uid: self.local_uid,
            incarnation: self.incarnation,
        }
    }
}

fn is_first(incarnation: &u32) -> bool {
    *incarnation == 0
}

/// What a node says of a local task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalState {
    /// The status.
    pub status: Status,
    /// The details.
    #[serde(default)]
    pub details: Option<Map<String, Value>>,
    /// The error, in the API's shape.
    #[serde(default)]
    pub error: Option<Value>,
    /// When it began.
    #[serde(default, with = "rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(default, with = "rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

impl LocalState {
    /// The same without what it counts.
    pub(super) fn without_details(&self) -> Self {
        Self {
            status: self.status,
            details: None,
            error: self.error.clone(),
            started_at: self.started_at,
            finished_at: self.finished_at,
        }
    }
}

impl Default for LocalState {
    fn default() -> Self {
        Self {
            status: Status::Enqueued,
            details: None,
            error: None,
            started_at: None,
            finished_at: None,
        }
    }
}

/// A task as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRecord {
    /// The cluster-wide uid.
    pub uid: u32,
    /// The index.
    pub index_uid: Option<String>,
    /// The API's task type.
    pub kind: String,
    /// When it was acknowledged.
    #[serde(with = "rfc3339")]
    pub enqueued_at: OffsetDateTime,
    /// Details known to the merger.
    pub details: Map<String, Value>,
    /// The client's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<String>,
    /// The cancelation that ended it.
    #[serde(default)]
    pub canceled_by: Option<u32>,
    /// The parts.
    pub parts: Vec<ShardTask>,
    /// The merger's own error, for a task without parts.
    #[serde(default)]
    pub error: Option<Value>,
    /// What of a shared local task is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// What is done between the nodes' success and the task's.
    #[serde(default)]
    pub read_back: ReadBack,
    /// Which settings a change is about.
    #[serde(default)]
    pub touches: Touches,
}

impl TaskRecord {
    /// All copies with the place they stand at.
    pub fn copies(&self) -> impl Iterator<Item = &ReplicaTask> {
        self.parts.iter().flat_map(|part| &part.copies)
    }

    /// All copies that count.
    pub fn live_copies(&self) -> impl Iterator<Item = &ReplicaTask> {
        self.parts.iter().flat_map(ShardTask::live)
    }

    /// The copy by which a shared local task is judged, and the task's place in it.
    pub fn shared(&self) -> Option<(&ReplicaTask, Share)> {
        self.live_copies().next().zip(self.share)
    }

    /// All copies, to be changed.
    pub fn copies_mut(&mut self) -> impl Iterator<Item = &mut ReplicaTask> {
        self.parts.iter_mut().flat_map(|part| &mut part.copies)
    }
}

/// The 202 body of a write.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Enqueued {
    /// The cluster-wide uid.
    pub task_uid: u32,
    /// The index.
    pub index_uid: Option<String>,
    /// Always `enqueued`.
    pub status: Status,
    /// The API's task type.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was acknowledged.
    #[serde(with = "rfc3339")]
    pub enqueued_at: OffsetDateTime,
    /// The client's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<String>,
}

impl Enqueued {
    /// What a client is told of a task that was just stored.
    pub(super) fn of(record: &TaskRecord) -> Self {
        Self {
            task_uid: record.uid,
            index_uid: record.index_uid.clone(),
            status: Status::Enqueued,
            kind: record.kind.clone(),
            enqueued_at: record.enqueued_at,
            custom_metadata: record.custom_metadata.clone(),
        }
    }
}

/// A task as `GET /tasks/{uid}` shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskView {
    /// The cluster-wide uid.
    pub uid: u32,
    /// The batch; `null` until the task is begun. Weft counts each task as a batch of its own.
    pub batch_uid: Option<u32>,
    /// The index.
    pub index_uid: Option<String>,
    /// The status over all parts.
    pub status: Status,
    /// The API's task type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The cancelation that ended it.
    pub canceled_by: Option<u32>,
    /// Details, summed over the parts.
    pub details: Option<Map<String, Value>>,
    /// The error, naming the shard where only some failed.
    pub error: Option<Value>,
    /// From the first start to the last end, ISO 8601.
    pub duration: Option<String>,
    /// When it was acknowledged.
    #[serde(with = "rfc3339")]
    pub enqueued_at: OffsetDateTime,
    /// The earliest start.
    #[serde(with = "rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// The latest end.
    #[serde(with = "rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// The client's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<String>,
}

impl TaskView {
    /// Whether the nodes have done what [`exchanged`](Self::exchanged) says: they give an index its new name before they look at the key
    /// that came with it, and refusing that takes nothing back (as measured on 1.50).
    pub fn has_exchanged(&self) -> bool {
        let key_refused = self.error.as_ref().is_some_and(|error| {
            error["code"] == "index_primary_key_already_exists" && self.kind == "indexUpdate"
        });
        self.status == Status::Succeeded || key_refused
    }

    /// The names that a swap exchanges, or a renaming, by its details.
    pub fn exchanged(&self) -> Vec<(&str, &str)> {
        let details = self.details.as_ref();
        let swaps = details.and_then(|details| details.get("swaps")?.as_array());
        let swapped = swaps.into_iter().flatten().filter_map(|swap| {
            let indexes = swap.get("indexes")?;
            Some((indexes.get(0)?.as_str()?, indexes.get(1)?.as_str()?))
        });
        let new = details.and_then(|details| details.get("newIndexUid")?.as_str());
        let renamed = self.index_uid.as_deref().zip(new);
        swapped
            .chain(renamed.filter(|(old, new)| old != new))
            .collect()
    }
}
