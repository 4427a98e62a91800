//! Sends the same request to every in-sync replica of a shard, and decides about those that don't take it.
//!
//! ```text
//! all in sync ─┬─ asked now ──── enough have taken it ──► acknowledged; the rest go on, within the patience
//!              └─ held back ─────────────────────────────► get it when their queue goes on (staggered writes)
//! ```
//!
//! Invariant: if a replica hasn't taken a write when it is acknowledged, the task's record names the replica (`pending`). The
//! replica then either takes the write before all later ones or is removed from the in-sync set.

mod asking;

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::Instant;
use weft_routing::placement::ShardId;

use self::asking::{AckRule, AckWait, Asked, Rest};
use super::{Context, remove_replica_surely};
use crate::cluster::{Flow, NodeId, NodeRef, WriteMode};
use crate::supervise::survive;
use crate::tasks::{LateTicket, ReplicaTask};

/// What is sent to the replicas of a shard, under the shard's lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sending<'a> {
    /// The shard.
    pub shard: ShardId,
    /// The shard's replicas in sync.
    pub replicas: &'a [NodeRef],
    /// How many must have taken it.
    pub mode: WriteMode,
    /// The size in bytes, which counts towards the lag of late replicas.
    pub bytes: u64,
}

type Answer<T, E> = asking::Answer<NodeRef, Result<T, E>>;

/// The result of sending to all replicas.
pub(super) struct Round<T, E> {
    /// The replicas' answers, in the order of the replicas; `None` for a late replica.
    pub answers: Vec<Answer<T, E>>,
    /// The replicas that get the request after the acknowledgement, if any.
    pub late: Option<Late<T, E>>,
}

/// Replicas that have yet to take an acknowledged write.
pub(super) struct Late<T, E> {
    /// The replicas.
    pub nodes: Vec<NodeId>,
    bytes: u64,
    rest: Rest<NodeRef, Result<T, E>>,
}

/// Sends to all replicas at once, each in the order of its queue. When one has taken it, the others have a bounded time left.
pub(super) async fn send_to_all<T, E>(
    ctx: &Arc<Context>,
    sending: Sending<'_>,
    taken: impl Fn(&T) -> bool,
    send: impl Fn(NodeRef) -> BoxFuture<'static, Result<T, E>>,
) -> Round<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let Sending {
        shard,
        replicas,
        mode,
        bytes,
    } = sending;
    let all = ctx.cluster.topology().nodes(shard).len();
    let held_back = ctx.cluster.stagger.deferred(shard);
    let asked = |node: &NodeRef| !held_back.contains(&node.id);
    let at_hand = replicas.iter().filter(|node| asked(node)).count();
    // A write that needs more replicas than a staggered write leaves also waits for those held back.
    let enough = mode.enough(all, at_hand).max(1);
    if enough > at_hand {
        ctx.cluster.stagger.end(shard);
    }
    let holds = |node: &NodeRef| !asked(node) && enough <= at_hand;
    let mut asking = AckWait::new();
    for node in replicas {
        let place = place_of(ctx, node);
        asking.ask(node.clone(), holds(node), place, send(node.clone()));
    }
    let enough = AckRule {
        takers: enough,
        everybody: mode == WriteMode::Sync,
        patience: ctx.options.patience,
    };
    let taken = |answer: &Result<T, E>| answer.as_ref().is_ok_and(&taken);
    let began = Instant::now();
    let Asked {
        answers,
        late,
        rest,
    } = asking.wait(enough, &taken).await;
    let well = answers
        .iter()
        .any(|(_, answer)| answer.as_ref().is_some_and(taken));
    let traffic = &ctx.cluster.traffic;
    let took = began.elapsed();
    traffic.note(shard, Flow::Writes, took, well);
    ctx.note_shard(shard, Flow::Writes, took);
    for node in &late {
        ctx.cluster.queues.add_lag(&node.id, bytes);
    }
    let late = (!late.is_empty()).then(|| Late {
        nodes: late.into_iter().map(|node| node.id).collect(),
        bytes,
        rest,
    });
    Round { answers, late }
}

/// Takes a place in the replica's queue now. `None` if the replica is out of sync when the place comes first.
fn place_of(
    ctx: &Arc<Context>,
    node: &NodeRef,
) -> impl Future<Output = Option<OwnedMutexGuard<()>>> + use<> {
    let place = ctx.cluster.queues.enqueue(&node.id);
    let (ctx, id) = (Arc::clone(ctx), node.id.clone());
    async move {
        let place = place.await;
        ctx.cluster.in_sync.holds(&id).then_some(place)
    }
}

impl<T: Send + 'static, E: Send + 'static> Late<T, E> {
    /// Delivers the request to the remaining replicas. `judge` turns an answer into the copy for the records, if it is a task, or
    /// says why the replica didn't take it. `first` is the copy that identifies the part in the records.
    pub(super) fn go_on(
        mut self,
        ctx: &Arc<Context>,
        first: Option<ReplicaTask>,
        judge: impl Fn(&NodeRef, Option<Result<T, E>>) -> Result<Option<ReplicaTask>, String>
        + Send
        + Sync
        + 'static,
    ) -> LateTicket {
        let (ticket, told) = mpsc::unbounded_channel();
        let ctx = Arc::clone(ctx);
        tokio::spawn(async move {
            let mut records = Records { told, uids: None };
            let going_on = async {
                while let Some((node, answer)) = self.rest.next().await {
                    let outcome = judge(&node, answer);
                    settle(&ctx, &mut records, &node.id, &first, outcome).await;
                    self.nodes.retain(|other| *other != node.id);
                    ctx.cluster.queues.reduce_lag(&node.id, self.bytes);
                }
            };
            if survive(&ctx.metrics.panics, "send-late", going_on)
                .await
                .is_some()
            {
                return;
            }
            // It is no longer known which of the others have it. They keep their places in their queues until they are out.
            for node in &self.nodes {
                let lost = Err("a mistake in Weft cut a late write off".to_owned());
                let settling = settle(&ctx, &mut records, node, &first, lost);
                survive(&ctx.metrics.panics, "send-late", settling).await;
                ctx.cluster.queues.reduce_lag(node, self.bytes);
            }
        });
        LateTicket::new(ticket)
    }
}

/// The tasks that a late write belongs to. They are complete when each has been recorded or given up.
struct Records {
    told: mpsc::UnboundedReceiver<RangeInclusive<u32>>,
    uids: Option<Vec<RangeInclusive<u32>>>,
}

impl Records {
    async fn uids(&mut self) -> Vec<RangeInclusive<u32>> {
        if self.uids.is_none() {
            let mut uids = Vec::new();
            while let Some(more) = self.told.recv().await {
                uids.push(more);
            }
            self.uids = Some(uids);
        }
        self.uids.clone().unwrap_or_default()
    }
}

/// Records that a replica has taken a late write, or removes it from the in-sync set before any record can say that it has.
async fn settle(
    ctx: &Context,
    records: &mut Records,
    node: &NodeId,
    first: &Option<ReplicaTask>,
    outcome: Result<Option<ReplicaTask>, String>,
) {
    let taken = match outcome {
        Ok(taken) => taken,
        Err(reason) => {
            // If this is cut off, the records still name the replica as pending, so it is removed after a restart.
            remove_replica_surely(ctx, node, &reason).await;
            None
        }
    };
    let Some(first) = first else { return };
    for uids in records.uids().await {
        let key = (&first.node, first.local_uid);
        ctx.tasks.came_late(uids, key, node, taken.clone()).await;
    }
}
