//! Deliver: takes each shard's turn and brings it its pieces, the same to every in-sync replica, in the same order.
//!
//! Either nothing was accepted anywhere, and the client learns why; or the write is a task, which says what was not. A
//! replica that missed what another took is out of the in-sync set before the client hears of the task; one that has yet to take
//! it, in another mode than `sync`, is named by the task.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use tokio::time::Instant;
use weft_routing::placement::{ShardId, SlotMap};

use super::WriteError;
use super::spool::Piece;
use crate::answer::Answer;
use crate::app::App;
use crate::call::Along;
use crate::cluster::{
    ClusterError, NodeId, NodeRef, Placement, Sending, WriteMode, doubt, settle_doubts, stagger,
    take_out, to_each,
};
use crate::ids::Ids;
use crate::tasks::{Copy, Part};
use crate::upstream::{NodeAnswer, NodeRequest, Target, UpstreamError};

/// How long a node may take to say that it is there.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that answered so lately needn't be asked again.
const LATELY: Duration = Duration::from_millis(500);

/// What goes to which shard.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// The index, for writes that small ones must not be repeated after.
    pub(super) index_uid: Option<String>,
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) content_type: Option<HeaderValue>,
    pub(super) along: Along,
    /// How many replicas must have taken it.
    pub(super) mode: WriteMode,
    pub(super) loads: Vec<Load>,
}

/// What goes to one shard.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) shard: ShardId,
    pub(super) pieces: Vec<Piece>,
    /// The ids of its documents, where they are known: what is mended on a replica that is being brought back.
    pub(super) ids: Option<Ids>,
    /// Where it goes, if not where the delivery goes.
    pub(super) path_and_query: Option<String>,
}

/// What became of a delivery.
#[derive(Debug)]
pub(super) enum Delivered {
    /// At least one shard has accepted something.
    Taken(Vec<Part>),
    /// The nodes refused, and nothing was accepted.
    Refused(Answer),
}

/// When nodes last answered.
#[derive(Debug, Default)]
pub(super) struct Knocks {
    heard: std::sync::Mutex<hashbrown::HashMap<NodeId, Instant>>,
}

impl Knocks {
    fn note(&self, node: &NodeId) {
        let mut heard = self
            .heard
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        heard.insert(node.clone(), Instant::now());
    }

    fn lately(&self, node: &NodeId) -> bool {
        let heard = self
            .heard
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        heard.get(node).is_some_and(|at| at.elapsed() < LATELY)
    }
}

/// Delivers to all shards at once. `None`: the index lies elsewhere than on `slots`, or has come or gone, since the write was laid
/// out; nothing was sent.
///
/// # Errors
/// A shard can't be reached, and nothing was accepted anywhere.
pub(super) async fn deliver(
    app: &Arc<App>,
    slots: Option<&Arc<SlotMap>>,
    delivery: &Delivery,
) -> Result<Option<Delivered>, WriteError> {
    let shards: Vec<ShardId> = delivery.loads.iter().map(|load| load.shard).collect();
    let _turn = app.sequencer.turn(&shards).await;
    if let Some(index_uid) = &delivery.index_uid {
        let now = app.cluster.placement(index_uid);
        if now.as_ref().map(|placement| &placement.slots) != slots {
            return Ok(None);
        }
        app.writes.coalescer.note_other(index_uid);
    }
    deliver_now(app, delivery).await.map(Some)
}

/// Delivers to all shards at once; the caller has their turn.
///
/// # Errors
/// As [`deliver`].
pub(super) async fn deliver_now(
    app: &Arc<App>,
    delivery: &Delivery,
) -> Result<Delivered, WriteError> {
    let shards: Vec<ShardId> = delivery.loads.iter().map(|load| load.shard).collect();
    for shard in &shards {
        settle_doubts(app, *shard).await?;
        app.cluster.replicas_or_none(*shard)?;
        if delivery.mode == WriteMode::Quorum {
            app.cluster.has_quorum(*shard)?;
        }
    }
    if let [_, _, ..] = delivery.loads.as_slice() {
        knock(app, &shards).await?;
    }
    for load in &delivery.loads {
        let path = load
            .path_and_query
            .as_ref()
            .unwrap_or(&delivery.path_and_query);
        app.cluster.dirty.note(load.shard, path, load.ids.as_ref());
        stagger(app, load.shard, load.pieces.iter().map(Piece::bytes).sum());
    }
    let outcomes = join_all(
        delivery
            .loads
            .iter()
            .map(|load| to_shard(app, delivery, load)),
    )
    .await;
    settle(outcomes)
}

/// Whether the index lies as it did when a write of documents was laid out, has the same primary key, and isn't being deleted. It
/// stays so while the caller has the turn of one of its shards.
pub(super) fn lies_as(app: &App, before: &Placement) -> bool {
    let now = app.cluster.placement(&before.uid);
    now.is_some_and(|now| {
        now.deleted_by.is_none()
            && now.primary_key == before.primary_key
            && now.slots == before.slots
    })
}

/// Makes sure that a replica of each shard is there, so that a write to several shards isn't begun in vain.
async fn knock(app: &App, shards: &[ShardId]) -> Result<(), WriteError> {
    let knocks = shards.iter().map(async |shard| {
        let replicas = app.cluster.replicas(*shard);
        if replicas
            .iter()
            .any(|node| app.writes.knocks.lately(&node.id))
        {
            return Ok(());
        }
        let answers = join_all(replicas.iter().map(async |node| {
            let target = Target::Node(node.address);
            let request = NodeRequest::new(
                target,
                Method::GET,
                "/health",
                &app.own_authority(),
                KNOCK_TIMEOUT,
            );
            app.upstream
                .send(request)
                .await
                .map(|_| app.writes.knocks.note(&node.id))
        }));
        let mut last = Err(ClusterError::ShardEmpty(*shard).into());
        for answer in answers.await {
            match answer {
                Ok(()) => return Ok(()),
                Err(error) => {
                    last = Err(WriteError::Unreachable {
                        shard: *shard,
                        source: error,
                    })
                }
            }
        }
        last
    });
    join_all(knocks).await.into_iter().collect()
}

/// What became of one shard's load.
struct Outcome {
    parts: Vec<Part>,
    /// Why not all of it was accepted.
    failure: Option<Failure>,
}

enum Failure {
    Refused(Answer),
    Failed(WriteError),
}

async fn to_shard(app: &Arc<App>, delivery: &Delivery, load: &Load) -> Outcome {
    let total: u64 = load.pieces.iter().map(Piece::documents).sum();
    let mut accepted = 0;
    let mut parts = Vec::with_capacity(load.pieces.len());
    let mut failure = None;
    for (place, piece) in load.pieces.iter().enumerate() {
        // All pieces but the last go on when every replica has them, so that a mode speaks of the whole write.
        let mode = match place + 1 == load.pieces.len() {
            true => delivery.mode,
            false => WriteMode::Sync,
        };
        match to_replicas(app, delivery, load, piece, mode).await {
            Ok(part) => {
                parts.push(part);
                accepted += piece.documents();
            }
            Err(failed) => {
                let reason = match &failed {
                    Failure::Refused(answer) => format!("its nodes answered {}", said(answer)),
                    Failure::Failed(error) => error.to_string(),
                };
                let missing = total - accepted;
                let why = format!("{reason}; {missing} of {total} documents are not written");
                parts.push(Part::undelivered(load.shard, why));
                failure = Some(failed);
                break;
            }
        }
    }
    Outcome { parts, failure }
}

/// One piece to all in-sync replicas of a shard. Those that don't take it, while another does, are out of sync.
async fn to_replicas(
    app: &Arc<App>,
    delivery: &Delivery,
    load: &Load,
    piece: &Piece,
    mode: WriteMode,
) -> Result<Part, Failure> {
    let shard = load.shard;
    let replicas = app
        .cluster
        .replicas_or_none(shard)
        .map_err(|error| Failure::Failed(error.into()))?;
    let parcel = Arc::new(Parcel::of(delivery, load, piece));
    let send = |node: NodeRef| -> BoxFuture<'static, Sent> {
        let (app, parcel) = (Arc::clone(app), Arc::clone(&parcel));
        Box::pin(async move { parcel.send(&app, &node).await })
    };
    let sending = Sending {
        shard,
        replicas: &replicas,
        mode,
        bytes: piece.bytes(),
    };
    let round = to_each(app, sending, Result::is_ok, send).await;
    let in_doubt = round
        .answers
        .iter()
        .any(|(_, answer)| !matches!(answer, Some(Ok(Err(_)))));
    let (mut copies, mut missed) = (Vec::new(), Vec::new());
    let mut failure = Failure::Failed(ClusterError::ShardEmpty(shard).into());
    for (node, answer) in round.answers {
        match answer {
            Some(Ok(Ok(local_uid))) => copies.push(Copy::acknowledged(node.id, local_uid)),
            Some(Ok(Err(answer))) => {
                missed.push((node, format!("it answered {}", answer.status)));
                // What a node says is more than that another can't be reached.
                failure = Failure::Refused(answer);
            }
            Some(Err(error)) => {
                missed.push((node, error.to_string()));
                if matches!(failure, Failure::Failed(_)) {
                    failure = Failure::Failed(WriteError::Unreachable {
                        shard,
                        source: error,
                    });
                }
            }
            None => missed.push((node, "it did not take a write in time".to_owned())),
        }
    }
    if copies.is_empty() {
        // A refusal by all is an answer by all; anything else may have come too late or got lost.
        if in_doubt {
            doubt(app, shard);
        }
        return Err(failure);
    }
    let taken = copies.len();
    let mut part = Part::taken(shard, copies);
    // What one has taken goes on to those who have yet to, whatever becomes of the request.
    if let Some(late) = round.late {
        part.pending.clone_from(&late.nodes);
        let judge = |_: &NodeId, answer: Sent| match answer {
            Ok(Ok(local_uid)) => Ok(Some(local_uid)),
            Ok(Err(answer)) => Err(format!("it answered {}", answer.status)),
            Err(error) => Err(error.to_string()),
        };
        part.late = Some(late.go_on(app, part.copies.first().cloned(), judge));
    }
    for (node, reason) in missed {
        take_out(app, &node.id, &reason)
            .await
            .map_err(|error| Failure::Failed(error.into()))?;
    }
    let wanted = app.cluster.quorum(shard);
    if mode == WriteMode::Quorum && taken < wanted {
        let error = WriteError::NoQuorum {
            shard,
            taken,
            wanted,
        };
        return Err(Failure::Failed(error));
    }
    Ok(part)
}

/// The local uid, or the answer with which a node refused.
type Sent = Result<Result<u32, Answer>, UpstreamError>;

/// One piece as every replica gets it.
struct Parcel {
    shard: ShardId,
    method: Method,
    path_and_query: String,
    content_type: Option<HeaderValue>,
    along: Along,
    piece: Piece,
}

impl Parcel {
    fn of(delivery: &Delivery, load: &Load, piece: &Piece) -> Self {
        let path = load.path_and_query.as_ref();
        Self {
            shard: load.shard,
            method: delivery.method.clone(),
            path_and_query: path.unwrap_or(&delivery.path_and_query).clone(),
            content_type: delivery.content_type.clone(),
            along: delivery.along.clone(),
            piece: piece.clone(),
        }
    }

    async fn send(&self, app: &App, node: &NodeRef) -> Sent {
        let target = Target::Node(node.address);
        let timeout = app.options.write_timeout();
        let path = self.path_and_query.clone();
        let mut request = NodeRequest::new(
            target.clone(),
            self.method.clone(),
            path,
            &self.along,
            timeout,
        )
        .body(self.piece.body());
        if let Some(content_type) = &self.content_type {
            request = request.header(CONTENT_TYPE, content_type.clone());
        }
        let answer = app.upstream.send(request).await?;
        app.writes.knocks.note(&node.id);
        if answer.status != StatusCode::ACCEPTED {
            return Ok(Err(answer.pass_on()));
        }
        let unusable = |detail: &str| UpstreamError::Unreachable {
            target: target.clone(),
            detail: detail.to_owned(),
        };
        let local_uid = local_uid(&answer)
            .ok_or_else(|| unusable("it accepted the write with an answer that names no task"))?;
        // A shard of one replica has other writers: the filters.
        let alone = app.cluster.topology().nodes(self.shard).len() == 1;
        match app.cluster.pulse.took(&node.id, local_uid) || alone {
            true => Ok(Ok(local_uid)),
            false => Err(unusable(
                "it gave the write the number of an earlier one: it is not what it was",
            )),
        }
    }
}

fn local_uid(answer: &NodeAnswer) -> Option<u32> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Accepted {
        task_uid: u32,
    }
    serde_json::from_slice::<Accepted>(&answer.body)
        .ok()
        .map(|accepted| accepted.task_uid)
}

/// What a refusal says, for another message.
fn said(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    match serde_json::from_slice::<Refusal>(&answer.body) {
        Ok(refusal) => format!("{}: {}", answer.status.as_u16(), refusal.message),
        Err(_) => answer.status.to_string(),
    }
}

fn settle(outcomes: Vec<Outcome>) -> Result<Delivered, WriteError> {
    let taken = outcomes
        .iter()
        .flat_map(|outcome| &outcome.parts)
        .any(|part| !part.copies.is_empty());
    if taken {
        return Ok(Delivered::Taken(
            outcomes
                .into_iter()
                .flat_map(|outcome| outcome.parts)
                .collect(),
        ));
    }
    let mut failures: Vec<Failure> = outcomes
        .into_iter()
        .filter_map(|outcome| outcome.failure)
        .collect();
    let refusal = failures
        .iter()
        .position(|failure| matches!(failure, Failure::Refused(_)));
    let place = refusal.unwrap_or_default();
    if place >= failures.len() {
        return Ok(Delivered::Taken(Vec::new()));
    }
    match failures.swap_remove(place) {
        Failure::Refused(answer) => Ok(Delivered::Refused(answer)),
        Failure::Failed(error) => Err(error),
    }
}
