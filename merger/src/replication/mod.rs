//! Sends one request to every in-sync replica of a shard, in the shard's order of writes.
//!
//! ```text
//! locks (the shard's order) ─► settle doubts ─► replicate: every replica in sync, each in its own order
//!                                                   ├─ taken by enough ─► those that missed it are out ─► Receipt
//!                                                   ├─ refused by all that answered ─► Refused
//!                                                   └─ anything else ─► in doubt, if replicas may differ ─► another NotTaken
//! ```
//!
//! Both writes of documents and changes that go to all shards come here; [`Command`] is what they have in common. Invariants:
//! only the holder of a [`WriteGuard`] replicates. A replica that missed a write that another took has left the in-sync set
//! before the caller gets the result. A write that no replica in sync holds is never reported as taken.

mod answer;
mod command;
mod contacts;
mod doubt;
mod establish;
mod hung;
mod locks;
mod reasons;
mod reconcile;
mod removal;
mod seen;
mod send;
mod stagger;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use weft_routing::placement::ShardId;

pub use contacts::RecentContacts;
pub use locks::{ShardLocks, WriteGuard};
pub use removal::remove_replica;

pub(crate) use crate::probe::probe;
pub(crate) use command::{Command, Content, named};
pub(crate) use contacts::{NotThere, knock};
pub(crate) use doubt::{
    lock_when_whole, put_in_doubt, put_missed_in_doubt, put_numbers_in_doubt, settle_doubt,
};
pub(crate) use establish::{Established, establish_locked};
pub(crate) use reasons::{OTHER_DISK, went_back};
pub(crate) use reconcile::reconcile;
pub(crate) use removal::{reads_leave, remove_replica_surely};
pub(crate) use seen::{dated, has_same_disk, proves_its_disk, took_unacknowledged};
pub(crate) use stagger::stagger;

pub(crate) use self::answer::{Missed, reasons};

use self::answer::{Verdict, verdict};
use self::send::{Sending, send_to_all};
use crate::base::stands_on;
use crate::cluster::{ClusterError, NodeId, NodeRef, Removal, WriteMode};
use crate::store::StoreError;
use crate::tasks::{self, ShardTask};
use crate::upstream::{NodeAnswer, UpstreamError};

/// What a write needs.
pub struct Context {
    /// The cluster and its tasks.
    pub base: Arc<tasks::Context>,
    /// How long a replica may lag.
    pub options: ReplicationOptions,
    /// The lock of each shard, which orders its writes.
    pub locks: ShardLocks,
    /// When nodes last answered a write.
    pub contacts: RecentContacts,
}

stands_on!(Context, base, tasks::Context);

/// How long replicas may lag behind others of their shard.
#[derive(Debug, Clone, Copy)]
pub struct ReplicationOptions {
    /// How long the other replicas may take for a write after one has taken it, in addition to twice the time that the first
    /// took.
    pub patience: Duration,
    /// From this size in bytes of a shard's part, a write is staggered: one half of the replicas applies it after the other.
    /// `None` for never.
    pub staggered_from: Option<u64>,
}

/// A request for the replicas of a shard.
pub(crate) struct Order {
    /// The shard.
    pub(crate) shard: ShardId,
    /// The shard's replicas in sync, or fewer if the change isn't for all.
    pub(crate) replicas: Vec<NodeRef>,
    /// How many replicas must have taken it.
    pub(crate) mode: WriteMode,
    /// The request.
    pub(crate) command: Arc<Command>,
    /// The replicas that already have it, with their answers.
    pub(crate) taken: Vec<(NodeId, NodeAnswer)>,
}

/// The result of a write: enough replicas have it, and those that missed it have left the in-sync set.
pub(crate) struct Receipt {
    /// The shard's part of the task's record.
    pub(crate) part: ShardTask,
    /// The answer of the first replica that took it.
    pub(crate) answer: NodeAnswer,
}

/// Why none, or not enough, of the replicas have it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// Replicas refused it, and none took it.
    #[error("its nodes answered {}", .0.status)]
    Refused(NodeAnswer),
    /// No replica answered. Whether one has it isn't known, unless the request reached none of them.
    #[error("{}", answer::reasons(.0))]
    Unanswered(Vec<Missed>),
    /// Fewer than a quorum took it.
    #[error("{taken} replicas took it, and {wanted} must")]
    NoQuorum {
        /// How many took it.
        taken: usize,
        /// How many had to take it.
        wanted: usize,
    },
    /// The replicas that took it have left the in-sync set meanwhile, and the remaining ones missed it.
    #[error("the replicas that took it are out of sync")]
    TakersLeft,
    /// The shard has no replicas, or the store failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl From<StoreError> for NotTaken {
    fn from(error: StoreError) -> Self {
        Self::Cluster(error.into())
    }
}

/// Sends a request to all replicas of the order.
///
/// # Errors
/// Not enough replicas have it. If all refused, none has it. Otherwise the shard is in doubt until its replicas were compared.
pub(crate) async fn replicate(
    ctx: &Arc<Context>,
    _guard: &WriteGuard,
    order: Order,
) -> Result<Receipt, NotTaken> {
    let Order {
        shard,
        replicas,
        mode,
        command,
        taken,
    } = order;
    let is_task = command.is_task;
    let sending = Sending {
        shard,
        replicas: &replicas,
        mode,
        bytes: command.body.bytes(),
    };
    let send = |node: NodeRef| -> BoxFuture<'static, Result<NodeAnswer, UpstreamError>> {
        if let Some((_, answer)) = taken.iter().find(|(id, _)| *id == node.id) {
            let answer = answer.clone();
            return Box::pin(async move { Ok(answer) });
        }
        let (ctx, command) = (Arc::clone(ctx), Arc::clone(&command));
        Box::pin(async move {
            let sending = command.send(&ctx, &node);
            hung::while_it_answers(&ctx, &node, sending).await
        })
    };
    let uncertain = Uncertain { ctx, shard };
    let round = send_to_all(ctx, sending, answer::is_taken, send).await;
    let (mut takers, mut missed, mut copies, mut first) =
        (Vec::new(), Vec::new(), Vec::new(), None);
    for (node, answer) in round.answers {
        let had_it = taken.iter().any(|(id, _)| *id == node.id);
        match verdict(ctx, shard, &node, answer, is_task, had_it) {
            Verdict::Taken { copy, answer } => {
                takers.push(node.id);
                copies.extend(copy);
                first.get_or_insert(answer);
            }
            Verdict::Missed(reason) => missed.push(Missed {
                node: node.id,
                reason,
            }),
        }
    }
    let Some(answer) = first else {
        return Err(nobody_took_it(ctx, shard, missed));
    };
    let mut part = ShardTask::taken(shard, copies);
    // Once one replica has taken a write, the others get it too, whatever the result of this request.
    if let Some(late) = round.late {
        part.pending.clone_from(&late.nodes);
        let judge = {
            let ctx = Arc::clone(ctx);
            move |node: &NodeRef, answer| match verdict(&ctx, shard, node, answer, is_task, false) {
                Verdict::Taken { copy, .. } => Ok(copy),
                Verdict::Missed(reason) => Err(reason.to_string()),
            }
        };
        part.late = Some(late.go_on(ctx, part.copies.first().cloned(), judge));
    }
    remove(ctx, shard, &takers, &missed).await?;
    drop(uncertain);
    let wanted = ctx.cluster.quorum(shard);
    if mode == WriteMode::Quorum && takers.len() < wanted {
        let taken = takers.len();
        return Err(NotTaken::NoQuorum { taken, wanted });
    }
    let answer = *answer;
    Ok(Receipt { part, answer })
}

/// Guards a shard while a request is sent to its replicas. A panic then leaves some replicas with the request and others without.
/// So it puts the shard in doubt before the shard's lock is released.
struct Uncertain<'a> {
    ctx: &'a Arc<Context>,
    shard: ShardId,
}

impl Drop for Uncertain<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            put_in_doubt(self.ctx, self.shard);
        }
    }
}

/// The result if no replica took the request. If all refused, none has it. If an answer got lost or came too late, a replica may
/// have it, and the shard is put in doubt.
fn nobody_took_it(ctx: &Arc<Context>, shard: ShardId, mut missed: Vec<Missed>) -> NotTaken {
    if missed.is_empty() {
        return ClusterError::ShardEmpty(shard).into();
    }
    if missed.iter().any(Missed::may_have_it) {
        put_in_doubt(ctx, shard);
    }
    // A node's refusal says more than the error of an unreachable node.
    match missed.iter().position(Missed::is_refusal) {
        Some(place) => match missed.swap_remove(place).reason {
            answer::Reason::Refused(answer) => NotTaken::Refused(answer),
            _ => NotTaken::Unanswered(missed),
        },
        None => NotTaken::Unanswered(missed),
    }
}

/// Removes the replicas that missed what others took from the in-sync set.
async fn remove(
    ctx: &Arc<Context>,
    shard: ShardId,
    takers: &[NodeId],
    missed: &[Missed],
) -> Result<(), NotTaken> {
    for (place, Missed { node, reason }) in missed.iter().enumerate() {
        let outcome = match remove_replica(ctx, node, &reason.to_string()).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // The replica must be out before anything else is written, even if the store fails now.
                let left = missed.iter().skip(place);
                let left = left.map(|missed| (missed.node.clone(), missed.reason.to_string()));
                put_missed_in_doubt(ctx, shard, left.collect());
                return Err(error.into());
            }
        };
        if outcome == Removal::RefusedLast {
            // The replicas that took it were removed meanwhile, so this one is the last in sync.
            tracing::warn!(shard = shard.0, %node, "the last replica in sync missed a write");
        }
    }
    let holds = |node: &NodeId| ctx.cluster.in_sync.holds(node);
    if takers.iter().any(holds) {
        return Ok(());
    }
    put_in_doubt(ctx, shard);
    Err(NotTaken::TakersLeft)
}
