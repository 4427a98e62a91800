//! The record of a task: its parts on the shards, their copies on the replicas, and the state of each.
//!
//! ```text
//! Enqueued ──► Processing ──► Succeeded | Failed | Canceled      (a copy's state only moves to the right)
//! ```

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::serde::rfc3339;
use weft_routing::placement::ShardId;

use super::group::{Member, Share};
use crate::cluster::{NodeId, NodeTask};

/// A task's status, as the API names it.
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
    /// How many there are.
    pub(super) const COUNT: usize = 5;

    /// Its place in a list with an entry for each status.
    pub(super) fn place(self) -> usize {
        self as usize
    }

    /// Whether the status is final.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// The API's name of the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enqueued => "enqueued",
            Self::Processing => "processing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Parses the API's name of a status, in any letter case.
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
    /// Details that the merger sets; they take precedence over the nodes' details.
    pub details: Map<String, Value>,
    /// The client's `customMetadata`.
    pub custom_metadata: Option<String>,
    /// The parts that were delivered to shards. A task without parts is `succeeded` from the start.
    pub parts: Vec<ShardTask>,
    /// The error of a task that failed in the merger and so has no parts, in the API's shape.
    pub error: Option<Value>,
    /// For a task that shares its local task with others: its share.
    pub share: Option<Share>,
    /// Whether the task's effect is checked on the nodes before its success is shown.
    pub read_back: ReadBack,
    /// For a change of settings: which settings it changes.
    pub touches: Touches,
    /// For writes that went together: what each has of its own. Empty for a single task.
    pub members: Vec<Member>,
}

impl NewTask {
    /// The task's first stored record.
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
            members: self.members.into_iter().map(Some).collect(),
        }
    }
}

/// The check between the nodes' success and the task's: the settings are read back from every node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReadBack {
    /// No check is needed.
    #[default]
    NotNeeded,
    /// The check is still to be done; until then the task is processing.
    Due,
    /// Done. One text for each node that differed and was repaired; empty if none differed.
    Done(Vec<String>),
    /// Some nodes differ and can't be repaired: the error, in the API's shape.
    Failed(Value),
    /// The change failed on some nodes and was undone on the others: the latter in words, if there are any.
    Undone(Vec<String>),
}

/// Which settings a change touches, by their names in `GET …/settings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Touches {
    /// All settings; also the value for tasks that don't change settings.
    #[default]
    All,
    /// Only the settings with these names.
    Named(BTreeSet<String>),
}

impl Touches {
    /// Whether it includes a setting.
    pub fn holds(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(name),
        }
    }
}

/// One local task on one shard. A shard that took a write in several pieces has a part for each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardTask {
    /// The shard that the part is for.
    pub shard: ShardId,
    /// The local tasks, the primary's first.
    pub copies: Vec<ReplicaTask>,
    /// Why nothing was delivered to this shard; `None` if something was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered: Option<String>,
    /// Replicas that haven't taken the part yet, though it is acknowledged. The task ends only when they have taken it or are
    /// out of sync.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<NodeId>,
    /// Whether the part only removes documents that lie on another shard from now on: its counts aren't the task's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_removal: bool,
    /// How many of the part's documents have a later version in the same write that another shard got: they don't count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub superseded: u64,
    /// Tells the code that brings the write to the pending replicas which task it is.
    #[serde(skip)]
    pub late: Option<LateTicket>,
}

/// Tells the code that brings an acknowledged write to the remaining replicas which task it is.
#[derive(Debug, Clone)]
pub struct LateTicket(tokio::sync::mpsc::UnboundedSender<RangeInclusive<u32>>);

impl LateTicket {
    /// A ticket that sends the uids of its tasks to this channel. When all copies of the ticket are dropped, no more tasks come.
    pub fn new(to: tokio::sync::mpsc::UnboundedSender<RangeInclusive<u32>>) -> Self {
        Self(to)
    }

    pub(super) fn tell(self, uids: RangeInclusive<u32>) {
        let _ = self.0.send(uids);
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
    /// The node's last answer about the task.
    #[serde(default)]
    pub state: LocalState,
    /// The replica has since left the in-sync set: its copy doesn't count any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out: bool,
    /// The incarnation of the node's disk that numbered the task: another incarnation uses the same numbers again.
    #[serde(default, skip_serializing_if = "is_first")]
    pub incarnation: u32,
}

impl ShardTask {
    /// A part that all in-sync replicas of the shard have taken.
    pub fn taken(shard: ShardId, copies: Vec<ReplicaTask>) -> Self {
        Self {
            shard,
            copies,
            undelivered: None,
            pending: Vec::new(),
            is_removal: false,
            superseded: 0,
            late: None,
        }
    }

    /// A part that was not delivered to its shard, and why.
    pub fn undelivered(shard: ShardId, why: String) -> Self {
        Self {
            undelivered: Some(why),
            ..Self::taken(shard, Vec::new())
        }
    }

    /// The copies that count: those of replicas that have not left the in-sync set since.
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
    /// The local task's identity on its node.
    pub fn task(&self) -> NodeTask {
        NodeTask {
            node: self.node.clone(),
            local_uid: self.local_uid,
            incarnation: self.incarnation,
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn is_first(incarnation: &u32) -> bool {
    *incarnation == 0
}

/// A node's answer about a local task.
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
    /// When the node began the task; `None` before that.
    #[serde(default, with = "rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When the task ended on the node; `None` before that.
    #[serde(default, with = "rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

impl LocalState {
    /// The same state without the details, which are counts.
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
    /// When the task was acknowledged.
    #[serde(with = "rfc3339")]
    pub enqueued_at: OffsetDateTime,
    /// Details that the merger set.
    pub details: Map<String, Value>,
    /// The client's `customMetadata`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<String>,
    /// The cancelation that ended the task.
    #[serde(default)]
    pub canceled_by: Option<u32>,
    /// The parts on the shards.
    pub parts: Vec<ShardTask>,
    /// The merger's own error, for a task without parts.
    #[serde(default)]
    pub error: Option<Value>,
    /// Its share, if it shares its local task with other writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// The check between the nodes' success and the task's.
    #[serde(default)]
    pub read_back: ReadBack,
    /// Which settings a change touches.
    #[serde(default)]
    pub touches: Touches,
    /// The writes that share the record, with the uids from `uid` on; `None` for one that was deleted. Empty for a single task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Option<Member>>,
}

impl TaskRecord {
    /// The copies of all parts.
    pub fn copies(&self) -> impl Iterator<Item = &ReplicaTask> {
        self.parts.iter().flat_map(|part| &part.copies)
    }

    /// The copies that count, of all parts.
    pub fn live_copies(&self) -> impl Iterator<Item = &ReplicaTask> {
        self.parts.iter().flat_map(ShardTask::live)
    }

    /// For writes that share a local task: the copy that decides how it ended.
    pub fn shared(&self) -> Option<&ReplicaTask> {
        self.live_copies().next().filter(|_| self.is_shared())
    }

    /// The copies of all parts, mutable.
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
    /// The client's `customMetadata`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<String>,
}

impl Enqueued {
    /// The same for another write of the same group.
    pub fn of_member(&self, uid: u32, custom_metadata: Option<String>) -> Self {
        Self {
            task_uid: uid,
            custom_metadata,
            ..self.clone()
        }
    }

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
    /// The batch; `null` until the task begins. Weft counts each task as a batch of its own.
    pub batch_uid: Option<u32>,
    /// The index.
    pub index_uid: Option<String>,
    /// The status over all parts.
    pub status: Status,
    /// The API's task type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The cancelation that ended the task.
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
    /// The client's `customMetadata`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<String>,
}

impl TaskView {
    /// Whether the nodes have exchanged the names in [`exchanged`](Self::exchanged). A node renames an index before it checks
    /// the primary key sent in the same request, and a refused key doesn't undo the renaming (measured on 1.50).
    pub fn has_exchanged(&self) -> bool {
        let key_refused = self.error.as_ref().is_some_and(|error| {
            error["code"] == "index_primary_key_already_exists" && self.kind == "indexUpdate"
        });
        self.status == Status::Succeeded || key_refused
    }

    /// The pairs of names that a swap or a renaming exchanges, from its details.
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
