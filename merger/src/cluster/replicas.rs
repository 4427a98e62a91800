//! The same request to every in-sync replica of a shard, and what becomes of those that don't take it.
//!
//! ```text
//! all in sync ─┬─ asked now ──── enough have taken it ──► acknowledged; the rest go on, within the patience
//!              └─ held back ─────────────────────────────► get it when their line goes on (staggered writes)
//! ```
//!
//! Invariant: who hasn't taken a write when it is acknowledged is named by the task's record (`pending`), and either takes it
//! before all later ones or is taken out of the in-sync set.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;
use weft_routing::placement::ShardId;

use super::{NodeId, NodeRef, TakenOut, WriteMode};
use crate::app::App;
use crate::store::StoreError;
use crate::tasks::{Copy, LateTicket};

/// How much longer than the first replica the others may take, as a multiple of its time, beside the fixed patience.
const PATIENCE_FACTOR: u32 = 2;

/// How long Envoy takes at the most to ask for a node's readiness again, if it is there.
const READS_LEAVE: Duration = Duration::from_millis(500);

/// Takes a replica out, and lets its shard's tasks go on without it.
///
/// # Errors
/// The store failed: nothing that the replica missed may be acknowledged.
pub async fn take_out(app: &App, node: &NodeId, reason: &str) -> Result<TakenOut, StoreError> {
    let outcome = app.cluster.in_sync.take_out(node, reason).await?;
    if outcome == TakenOut::Now {
        app.metrics.taken_out.inc();
        reads_leave(app, node).await;
        app.tasks.abandon(node).await;
    }
    Ok(outcome)
}

/// Waits until Envoy has heard that the node serves no reads any more: before that, nothing that it missed is acknowledged.
async fn reads_leave(app: &App, node: &NodeId) {
    let until = Instant::now() + READS_LEAVE;
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

type Answer<T, E> = (NodeRef, Option<Result<T, E>>);
type Running<T, E> = FuturesUnordered<BoxFuture<'static, Answer<T, E>>>;

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
    /// Those who were asked with the others, and until when they may answer.
    asked: Vec<NodeRef>,
    running: Running<T, E>,
    until: Instant,
    held: Running<T, E>,
}

/// How long a replica that was held back may take once its line goes on: known when the others have taken the write.
type Limit = Arc<OnceLock<Duration>>;

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
    let (mut running, held, limit) = (Running::new(), Running::new(), Limit::default());
    for node in replicas {
        match holds(node) {
            true => held.push(in_line(app, node, send(node.clone()), Some(&limit))),
            false => running.push(in_line(app, node, send(node.clone()), None)),
        }
    }
    let patience = Duration::from_millis(app.options.replica_patience_ms);
    let (begun, mut until, mut takers) = (Instant::now(), None::<Instant>, 0);
    let mut answers = Vec::with_capacity(replicas.len());
    while takers < enough || mode == WriteMode::Sync {
        let next = match until {
            None => running.next().await,
            Some(until) => match tokio::time::timeout_at(until, running.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        let Some((node, answer)) = next else { break };
        if matches!(&answer, Some(Ok(answer)) if taken(answer)) {
            takers += 1;
            let more = *limit.get_or_init(|| patience + begun.elapsed() * PATIENCE_FACTOR);
            until.get_or_insert_with(|| Instant::now() + more);
        }
        answers.push((node, answer));
    }
    // Without a taker there is nothing that anybody could be late for.
    let may_be_late = |node: &NodeRef| {
        takers > 0 && (holds(node) || (takers >= enough && mode != WriteMode::Sync))
    };
    let (mut late, mut waited_for) = (Vec::new(), Vec::new());
    for node in replicas {
        if answers.iter().any(|(other, _)| other == node) {
            continue;
        }
        if !may_be_late(node) {
            answers.push((node.clone(), None));
            continue;
        }
        app.cluster.lanes.falls_behind(&node.id, bytes);
        late.push(node.id.clone());
        if !holds(node) {
            waited_for.push(node.clone());
        }
    }
    answers.sort_by_key(|(node, _)| replicas.iter().position(|other| other == node));
    let late = (!late.is_empty()).then(|| Late {
        nodes: late,
        bytes,
        asked: waited_for,
        running,
        until: until.unwrap_or_else(Instant::now),
        held,
    });
    Round { answers, late }
}

/// Sends when the replica's line has come to it, within the limit from then on; not at all to one that is out of sync by then.
fn in_line<T, E>(
    app: &Arc<App>,
    node: &NodeRef,
    sending: BoxFuture<'static, Result<T, E>>,
    limit: Option<&Limit>,
) -> BoxFuture<'static, Answer<T, E>>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let place = app.cluster.lanes.enter(&node.id);
    let (app, node, limit) = (Arc::clone(app), node.clone(), limit.map(Arc::clone));
    Box::pin(async move {
        let _place = place.await;
        if !app.cluster.in_sync.holds(&node.id) {
            return (node, None);
        }
        let answer = match limit.and_then(|limit| limit.get().copied()) {
            Some(limit) => tokio::time::timeout(limit, sending).await.ok(),
            None => Some(sending.await),
        };
        (node, answer)
    })
}

impl<T: Send + 'static, E: Send + 'static> Late<T, E> {
    /// Sees it through. `judge` makes of an answer the local task, if it is one, or why the replica didn't take it; `first` is the
    /// copy by which records know the part.
    pub fn go_on(
        mut self,
        app: &Arc<App>,
        first: Option<Copy>,
        judge: impl Fn(&NodeId, Result<T, E>) -> Result<Option<u32>, String> + Send + 'static,
    ) -> LateTicket {
        let (ticket, told) = mpsc::unbounded_channel();
        let app = Arc::clone(app);
        tokio::spawn(async move {
            let mut records = Records { told, uids: None };
            while let Some((node, answer)) = self.next().await {
                let outcome = match answer {
                    Some(answer) => judge(&node.id, answer),
                    None => Err("it did not take an acknowledged write in time".to_owned()),
                };
                settle(&app, &mut records, &node.id, &first, outcome).await;
                app.cluster.lanes.catches_up(&node.id, self.bytes);
            }
        });
        LateTicket::new(ticket)
    }

    /// The next answer, or the next replica whose patience has run out.
    async fn next(&mut self) -> Option<Answer<T, E>> {
        tokio::select! {
            biased;
            Some((node, answer)) = self.running.next(), if !self.asked.is_empty() => {
                self.asked.retain(|other| *other != node);
                Some((node, answer))
            }
            () = tokio::time::sleep_until(self.until), if !self.asked.is_empty() => {
                // Nobody waits for their answers any more: their requests end here.
                self.running.clear();
                self.asked.pop().map(|node| (node, None))
            }
            Some(answer) = self.held.next(), if !self.held.is_empty() => Some(answer),
            else => None,
        }
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
    outcome: Result<Option<u32>, String>,
) {
    let taken = match outcome {
        Ok(taken) => taken,
        Err(reason) => {
            if let Err(error) = take_out(app, node, &reason).await {
                // Its records keep it as pending: after a start it is taken out.
                return tracing::error!(%node, %error, "a replica that missed a write could not be taken out");
            }
            None
        }
    };
    let Some(first) = first else { return };
    for uid in records.uids().await {
        let key = (&first.node, first.local_uid);
        app.tasks.came_late(uid, key, node, taken).await;
    }
}
