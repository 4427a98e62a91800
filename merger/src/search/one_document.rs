//! One document of an index whose ids don't tell the shard: all shards are asked, and the one that has it answers.
//!
//! Only if all shards say that they don't have it, nobody has it.

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use weft_routing::placement::ShardId;

use super::SearchError;
use super::degraded::Degraded;
use super::policy::WhenMissing;
use super::scatter::{Ask, Outcome, Reader};
use crate::answer::Answer;
use crate::call::Call;

/// How often a document that moves is looked for.
const ROUNDS: usize = 3;

/// Answers `GET …/documents/{id}`.
pub(super) async fn get(
    reader: &Reader<'_>,
    call: &Call,
    shards: &[ShardId],
) -> Result<Answer, SearchError> {
    if let Some(answer) = while_it_moves(reader, call, shards).await? {
        return Ok(answer);
    }
    let asked = shards.iter();
    let asked = asked.map(async |shard| (*shard, reader.pass_on(call, Bytes::new(), *shard).await));
    let mut asked: FuturesUnordered<_> = asked.collect();
    let (mut lacks, mut failed, mut missing) = (None, None, Vec::new());
    while let Some((shard, answer)) = asked.next().await {
        match answer {
            Ok(answer) if answer.status.is_success() => return Ok(answer),
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => lacks = Some(answer),
            // A refusal that doesn't depend on the document.
            Ok(answer) if answer.status.is_client_error() => return Ok(answer),
            answer => {
                missing.push(shard);
                failed = Some(answer);
            }
        }
    }
    let may_lack = reader.policy.when_missing == WhenMissing::Partial;
    match (lacks, failed) {
        (Some(lacks), Some(_)) if may_lack => {
            let degraded = Degraded::new(&missing, shards.len());
            Ok(degraded.map_or(lacks.clone(), |degraded| degraded.on(lacks)))
        }
        (_, Some(failed)) => failed,
        (Some(lacks), None) => Ok(lacks),
        (None, None) => Err(SearchError::NoShards),
    }
}

/// While slots move, two shards may hold the document, and one of them an older version: the one that it belongs to answers.
async fn while_it_moves(
    reader: &Reader<'_>,
    call: &Call,
    shards: &[ShardId],
) -> Result<Option<Answer>, SearchError> {
    let (Some(index), Some(id)) = (&call.index, &call.document) else {
        return Ok(None);
    };
    let mut answer = None;
    for _ in 0..ROUNDS {
        let placement = reader.ctx.cluster.placement(index);
        if placement.is_none_or(|placement| placement.unsettled.is_empty()) {
            return Ok(None);
        }
        // If a shard is silent, all are asked, and it is seen then what can be said.
        let Ok(holder) = holder(reader, index, id, shards).await else {
            return Ok(None);
        };
        let said = reader.pass_on(call, Bytes::new(), holder).await?;
        if said.status != StatusCode::NOT_FOUND {
            return Ok(Some(said));
        }
        // It may just have gone to another shard.
        answer = Some(said);
    }
    Ok(answer)
}

/// The shard that holds a document; the first one if none does, which says so in a node's words.
///
/// # Errors
/// A shard gives no answer.
pub(super) async fn holder(
    reader: &Reader<'_>,
    index: &str,
    id: &str,
    shards: &[ShardId],
) -> Result<ShardId, SearchError> {
    #[derive(Deserialize)]
    struct Found {
        results: Vec<IgnoredAny>,
    }
    let body = json!({"ids": [id], "fields": []}).to_string();
    let body = Bytes::from(body);
    let ask = |shard: &ShardId| Ask {
        shard: *shard,
        method: http::Method::POST,
        path_and_query: format!("/indexes/{index}/documents/fetch"),
        body: Some(body.clone()),
    };
    let own = reader.on_own_authority();
    let found = match own.gather(shards.iter().map(ask).collect()).await? {
        Outcome::Answers(gathered) => gathered.replies,
        Outcome::Refused(..) => Vec::new(),
    };
    let holds = |body: &Bytes| {
        let found: Option<Found> = serde_json::from_slice(body).ok();
        found.is_some_and(|found| !found.results.is_empty())
    };
    let holder = found.iter().find(|reply| holds(&reply.body));
    let first = || shards.first().copied().ok_or(SearchError::NoShards);
    holder.map_or_else(first, |reply| Ok(reply.shard))
}
