//! The same change to every replica of some shards, in each shard's order of writes.
//!
//! The first shard's primary is asked first: what it refuses is refused everywhere, and nothing has been changed. What fails
//! after that is reported by the task.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use hashbrown::HashMap;
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use serde_json::Value;
use weft_routing::placement::ShardId;

use super::BroadcastError;
use crate::answer::Answer;
use crate::app::App;
use crate::call::{Along, Call, full};
use crate::cluster::{
    ClusterError, NodeId, NodeRef, Sending, WriteMode, doubt, settle_doubts, stagger, take_out,
    to_each,
};
use crate::sequence::Turn;
use crate::tasks::{Copy, Part};
use crate::upstream::{NodeAnswer, NodeRequest, Target, UpstreamError};
use crate::write::Plain;

/// A change, the same for every node.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) along: Along,
    pub(super) headers: Vec<(http::HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

impl Change {
    /// A request of Weft's own.
    pub(super) fn own(
        app: &App,
        method: Method,
        path_and_query: impl Into<String>,
        body: &Value,
    ) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self {
            method,
            path_and_query: path_and_query.into(),
            along: app.own_authority(),
            headers: vec![(CONTENT_TYPE, json)],
            body: body.to_string().into(),
        }
    }

    /// The same with another body.
    pub(super) fn with_body(&self, body: &Value) -> Self {
        Self {
            body: body.to_string().into(),
            ..self.clone()
        }
    }

    /// The client's request as it is, its body read whole.
    pub(super) async fn of(app: &App, call: Call) -> Result<Self, BroadcastError> {
        let idle = std::time::Duration::from_millis(app.options.body_idle_timeout_ms);
        let encoding = call.header("content-encoding").map(str::to_owned);
        let content_type = call.headers.get(CONTENT_TYPE).cloned();
        let limit = app.options.max_body_bytes;
        Ok(Self {
            headers: content_type
                .map(|value| (CONTENT_TYPE, value))
                .into_iter()
                .collect(),
            method: call.method,
            path_and_query: call.path_and_query,
            along: call.along,
            // Plain, since what is asked for decides which shards it is for.
            body: Plain::new(call.body, encoding.as_deref(), limit, idle)
                .whole()
                .await?,
        })
    }

    /// Whether nodes are busy with it for long: settings make them index anew.
    fn makes_busy(&self) -> bool {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        path.starts_with("/indexes/") && path.contains("/settings")
    }

    /// Whether indexes come, go or change their names by it.
    fn concerns_indexes(&self) -> bool {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
        matches!(
            steps.as_slice(),
            ["indexes"] | ["indexes", _] | ["swap-indexes"]
        )
    }

    pub(super) async fn send(
        &self,
        app: &App,
        node: &NodeRef,
    ) -> Result<NodeAnswer, UpstreamError> {
        let target = Target::Node(node.address);
        let timeout = app.options.write_timeout();
        let path = self.path_and_query.clone();
        let mut request = NodeRequest::new(target, self.method.clone(), path, &self.along, timeout)
            .body(full(self.body.clone()));
        for (name, value) in &self.headers {
            request = request.header(name.clone(), value.clone());
        }
        app.upstream.send(request).await
    }
}

/// How a change was taken.
pub(super) enum Spread {
    /// By the first node asked, and what the others made of it.
    Taken {
        parts: Vec<Part>,
        /// The first node's answer.
        first: NodeAnswer,
    },
    /// Not at all: the first node asked refused it.
    Refused(Answer),
}

/// What nodes answered that have a change already.
pub(super) type Taken = HashMap<NodeId, NodeAnswer>;

/// Which replicas a change is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Every in-sync replica.
    Replicas,
    /// One replica a shard.
    Primaries,
}

/// Sends a change to all of `shards`, in each shard's order of writes.
pub(super) async fn spread(
    app: &Arc<App>,
    change: &Change,
    shards: &[ShardId],
    reach: Reach,
) -> Result<Spread, BroadcastError> {
    let turn = app.sequencer.turn(shards).await;
    let each: Vec<_> = shards.iter().map(|shard| (*shard, change)).collect();
    spread_in_turn(app, &turn, &each, reach).await
}

/// Sends each shard its change, the first shard's first; the caller has the turn on all of them.
pub(super) async fn spread_in_turn(
    app: &Arc<App>,
    _turn: &Turn,
    each: &[(ShardId, &Change)],
    reach: Reach,
) -> Result<Spread, BroadcastError> {
    let mut wanted = Vec::with_capacity(each.len());
    for (shard, change) in each {
        settle_doubts(app, *shard).await?;
        let mut replicas = app.cluster.replicas_or_none(*shard)?;
        if change.makes_busy() {
            stagger(app, *shard, u64::MAX);
        }
        let held_back = app.cluster.stagger.held_back(*shard);
        replicas.sort_by_key(|node| held_back.contains(&node.id));
        if reach == Reach::Primaries {
            replicas.truncate(1);
        }
        wanted.push((*shard, *change, replicas));
    }
    let asked = wanted.first().and_then(|(_, change, replicas)| {
        let primary = replicas.first()?.clone();
        Some((*change, primary))
    });
    let Some((change, primary)) = asked else {
        return Err(ClusterError::NoShards.into());
    };
    for (shard, change) in each {
        app.cluster.dirty.note(*shard, &change.path_and_query, None);
    }
    if change.concerns_indexes() {
        app.writes.indexes_change();
    }
    let first = {
        let _place = app.cluster.lanes.enter(&primary.id).await;
        let answer = change.send(app, &primary).await;
        if let (Err(_), Some((shard, _))) = (&answer, each.first()) {
            doubt(app, *shard);
        }
        answer?
    };
    if !first.status.is_success() {
        return Ok(Spread::Refused(first.pass_on()));
    }
    let taken = Taken::from_iter([(primary.id, first.clone())]);
    let parts = join_all(
        wanted
            .iter()
            .map(|(shard, change, replicas)| to_shard(app, change, *shard, replicas, &taken)),
    );
    let parts = parts.await.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(Spread::Taken { parts, first })
}

/// Sends to those of one shard's replicas that haven't taken it yet.
pub(super) async fn to_shard(
    app: &Arc<App>,
    change: &Change,
    shard: ShardId,
    replicas: &[NodeRef],
    taken: &Taken,
) -> Result<Part, BroadcastError> {
    let took = |answer: &NodeAnswer| answer.status.is_success();
    let send = |node: NodeRef| -> BoxFuture<'static, Result<NodeAnswer, UpstreamError>> {
        if let Some(answer) = taken.get(&node.id).cloned() {
            return Box::pin(async move { Ok(answer) });
        }
        let (app, change) = (Arc::clone(app), change.clone());
        Box::pin(async move { change.send(&app, &node).await })
    };
    let sending = Sending {
        shard,
        replicas,
        mode: WriteMode::Sync,
        bytes: change.body.len() as u64,
    };
    let round = to_each(app, sending, took, send).await;
    let (mut copies, mut failures, mut takers) = (Vec::new(), Vec::new(), 0);
    for (node, answer) in round.answers {
        let judged = match answer {
            Some(answer) => judge(app, &node.id, answer),
            None => Err("it did not take a change in time".to_owned()),
        };
        match judged {
            Ok(local_uid) => {
                takers += 1;
                copies.extend(local_uid.map(|uid| Copy::acknowledged(node.id, uid)));
            }
            Err(reason) => failures.push((node, reason)),
        }
    }
    if takers == 0 {
        doubt(app, shard);
        let reasons: Vec<String> = failures
            .iter()
            .map(|(node, reason)| format!("{}: {reason}", node.id))
            .collect();
        return Ok(Part::undelivered(shard, reasons.join("; ")));
    }
    let mut part = Part::taken(shard, copies);
    // What one has taken goes on to those who have yet to, whatever becomes of the request.
    if let Some(late) = round.late {
        part.pending.clone_from(&late.nodes);
        let judge_late = {
            let app = Arc::clone(app);
            move |node: &NodeId, answer| judge(&app, node, answer)
        };
        part.late = Some(late.go_on(app, part.copies.first().cloned(), judge_late));
    }
    for (node, reason) in &failures {
        take_out(app, &node.id, reason).await?;
    }
    Ok(part)
}

/// The local task of a change that a node took, if it is one: a key or a feature is done with the answer.
fn judge(
    app: &App,
    node: &NodeId,
    answer: Result<NodeAnswer, UpstreamError>,
) -> Result<Option<u32>, String> {
    match answer {
        Ok(answer) if answer.status.is_success() => {
            let uid = local_uid(&answer);
            if let Some(uid) = uid {
                app.cluster.pulse.took(node, uid);
            }
            Ok(uid)
        }
        Ok(answer) => Err(format!("it answered {}", answer.status)),
        Err(error) => Err(error.to_string()),
    }
}

fn local_uid(answer: &NodeAnswer) -> Option<u32> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    body.get("taskUid")?.as_u64()?.try_into().ok()
}
