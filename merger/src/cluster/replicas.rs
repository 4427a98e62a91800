//! The same request to every in-sync replica of a shard, and what becomes of those that don't take it.
//!
//! ```text
//! all in sync ─┬─ asked now ──── enough have taken it ──► acknowledged; the rest go on, within the patience
//!              └─ held back ─────────────────────────────► get it when their line goes on (staggered writes)
//! ```
//!
//! Invariant: who hasn't taken a write when it is acknowledged is named by the task's record (`pending`), and either takes it
//! before all later ones or is taken out of the in-sync set.

mod asking;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::Instant;
use weft_routing::placement::ShardId;

use self::asking::{Asked, Asking, Enough, Rest};
use super::pulse::READS_FOLLOW;
use super::{Cluster, NodeId, NodeRef, TakenOut, WriteMode};
use crate::app::App;
use crate::clock::now_utc;
use crate::store::{Patience, StoreError};
use crate::supervise::survive;
use crate::tasks::{Copy, LateTicket};

/// Takes a replica out, and lets its shard's tasks go on without it.
///
/// # Errors
/// The store failed: nothing that the replica missed may be acknowledged.
pub async fn take_out(app: &App, node: &NodeId, reason: &str) -> Result<TakenOut, StoreError> {
    let outcome = app.cluster.in_sync.take_out(node, reason).await?;
    match outcome {
        TakenOut::Now => {
            app.metrics.taken_out.inc();
            reads_leave(app, node).await;
            app.tasks.abandon(node).await;
        }
        // Somebody else took it out a moment ago, and still waits.
        TakenOut::Before => reads_leave(app, node).await,
        TakenOut::Last => {}
    }
    Ok(outcome)
}

/// The same, however long the store takes: nobody would find again that the replica lacks something. `None` only if it never can.
pub async fn take_out_surely(app: &App, node: &NodeId, reason: &str) -> Option<TakenOut> {
    let mut patience = Patience::with("that a replica is out of sync");
    loop {
        let outcome = take_out(app, node, reason).await;
        if let ControlFlow::Break(taken_out) = patience.after(outcome).await {
            return taken_out;
        }
    }
}

impl Cluster {
    /// Whether a replica that is out of sync gets no reads any more: nothing that it lacks may be told before.
    pub fn reads_have_left(&self, node: &NodeId) -> bool {
        let standing = self.in_sync.standing(node);
        let long_ago = |since| now_utc() - since >= READS_FOLLOW;
        !self.pulse.is_ready(node)
            || standing.is_none_or(|standing| standing.out_since().is_none_or(long_ago))
    }
}

/// Waits until Envoy has heard that the node serves no reads any more: before that, nothing that it missed is acknowledged.
pub(super) async fn reads_leave(app: &App, node: &NodeId) {
    let until = Instant::now() + READS_FOLLOW;
    while app.cluster.pulse.is_ready(node) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is sent to the replicas of a shard, in the shard's turn.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// The shard.
    pub shard: ShardId,
    /// Its replicas in sync.
    pub replicas: &'a [NodeRef],
    /// How many must have it.
    pub mode: WriteMode,
    /// How much it is, for who has to keep it.
    pub bytes: u64,
}

type Answer<T, E> = asking::Answer<NodeRef, Result<T, E>>;

/// What a round of sending came to.
pub struct Round<T, E> {
    /// The replicas that answered, in their order; `None` for who was late.
    pub answers: Vec<Answer<T, E>>,
    /// Who gets it after the acknowledgement, if anybody.
    pub late: Option<Late<T, E>>,
}

/// Replicas that have yet to take an acknowledged write.
pub struct Late<T, E> {
    /// Who.
    pub nodes: Vec<NodeId>,
    bytes: u64,
    rest: Rest<NodeRef, Result<T, E>>,
}

/// Sends to all replicas at once, each in the order of its line. When one has taken it, the others have a bounded time left.
pub async fn to_each<T, E>(
    app: &Arc<App>,
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
    let all = app.cluster.topology().nodes(shard).len();
    let held_back = app.cluster.stagger.held_back(shard);
    let asked = |node: &NodeRef| !held_back.contains(&node.id);
    let at_hand = replicas.iter().filter(|node| asked(node)).count();
    // Who wants more replicas than a staggered write leaves waits for those held back, too.
    let enough = mode.enough(all, at_hand).max(1);
    if enough > at_hand {
        app.cluster.stagger.end(shard);
    }
    let holds = |node: &NodeRef| !asked(node) && enough <= at_hand;
    let mut asking = Asking::new();
    for node in replicas {
        let place = place_of(app, node);
        asking.ask(node.clone(), holds(node), place, send(node.clone()));
    }
    let enough = Enough {
        takers: enough,
        everybody: mode == WriteMode::Sync,
        patience: Duration::from_millis(app.options.replica_patience_ms),
    };
    let taken = |answer: &Result<T, E>| answer.as_ref().is_ok_and(&taken);
    let Asked {
        answers,
        late,
        rest,
    } = asking.wait(enough, taken).await;
    for node in &late {
        app.cluster.lanes.falls_behind(&node.id, bytes);
    }
    let late = (!late.is_empty()).then(|| Late {
        nodes: late.into_iter().map(|node| node.id).collect(),
        bytes,
        rest,
    });
    Round { answers, late }
}

/// A place in the replica's line, taken now; none if it is out of sync when its turn comes.
fn place_of(
    app: &Arc<App>,
    node: &NodeRef,
) -> impl Future<Output = Option<OwnedMutexGuard<()>>> + use<> {
    let place = app.cluster.lanes.enter(&node.id);
    let (app, id) = (Arc::clone(app), node.id.clone());
    async move {
        let place = place.await;
        app.cluster.in_sync.holds(&id).then_some(place)
    }
}

impl<T: Send + 'static, E: Send + 'static> Late<T, E> {
    /// Brings it to the rest. `judge` makes of an answer the copy for the records, if it is a task, or says why the replica didn't take
    /// it; `first` is the copy by which records know the part.
    pub fn go_on(
        mut self,
        app: &Arc<App>,
        first: Option<Copy>,
        judge: impl Fn(&NodeRef, Option<Result<T, E>>) -> Result<Option<Copy>, String>
        + Send
        + Sync
        + 'static,
    ) -> LateTicket {
        let (ticket, told) = mpsc::unbounded_channel();
        let app = Arc::clone(app);
        tokio::spawn(async move {
            let mut records = Records { told, uids: None };
            let going_on = async {
                while let Some((node, answer)) = self.rest.next().await {
                    let outcome = judge(&node, answer);
                    settle(&app, &mut records, &node.id, &first, outcome).await;
                    self.nodes.retain(|other| *other != node.id);
                    app.cluster.lanes.catches_up(&node.id, self.bytes);
                }
            };
            if survive(&app, "send-late", going_on).await.is_some() {
                return;
            }
            // Nobody knows any more who of the others has it. They keep their places in their lines until they are out.
            for node in &self.nodes {
                let lost = Err("a mistake in Weft cut a late write off".to_owned());
                let settling = settle(&app, &mut records, node, &first, lost);
                survive(&app, "send-late", settling).await;
                app.cluster.lanes.catches_up(node, self.bytes);
            }
        });
        LateTicket::new(ticket)
    }
}

/// The tasks that a late write belongs to; known when each has been recorded or given up.
struct Records {
    told: mpsc::UnboundedReceiver<u32>,
    uids: Option<Vec<u32>>,
}

impl Records {
    async fn uids(&mut self) -> Vec<u32> {
        if self.uids.is_none() {
            let mut uids = Vec::new();
            while let Some(uid) = self.told.recv().await {
                uids.push(uid);
            }
            self.uids = Some(uids);
        }
        self.uids.clone().unwrap_or_default()
    }
}

/// A replica has taken a late write, or is out of sync before anybody may think that it had.
async fn settle(
    app: &App,
    records: &mut Records,
    node: &NodeId,
    first: &Option<Copy>,
    outcome: Result<Option<Copy>, String>,
) {
    let taken = match outcome {
        Ok(taken) => taken,
        Err(reason) => {
            // Its records keep it as pending: after a start it is taken out, too.
            take_out_surely(app, node, &reason).await;
            None
        }
    };
    let Some(first) = first else { return };
    for uid in records.uids().await {
        let key = (&first.node, first.local_uid);
        app.tasks.came_late(uid, key, node, taken.clone()).await;
    }
}
