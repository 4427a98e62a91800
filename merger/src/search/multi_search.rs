//! Several searches at once, each with its own answer: `POST /multi-search` without `federation`.
//!
//! Each shard gets one request with all searches of indexes that it holds. The answers are merged search by search.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use weft_routing::placement::ShardId;

use super::degraded::Degraded;
use super::explain::Explanation;
use super::one_index::{Done, ShardHits, complete};
use super::plan::Plan;
use super::request::{Carrier, Search};
use super::respond::Writer;
use super::scan::{Elements, Malformed, Members};
use super::scatter::{Ask, Outcome, Reader};
use super::settings::MergeSettings;
use super::{SearchError, settings_cache};
use crate::answer::Answer;
use crate::search::Context;

/// One of the searches.
pub(super) struct Query {
    pub(super) index: String,
    pub(super) primary_key: Option<String>,
    pub(super) shards: Vec<ShardId>,
    pub(super) settings: Arc<MergeSettings>,
    pub(super) plan: Plan,
}

/// Reads the searches of a body; `None` if one of them can't be read: then a node judges it.
pub(super) async fn read_queries(
    ctx: &Arc<Context>,
    queries: &[Value],
    anyone: ShardId,
) -> Result<Option<Vec<Query>>, SearchError> {
    let mut read = Vec::with_capacity(queries.len());
    for query in queries {
        let Some((members, index)) = named(query) else {
            return Ok(None);
        };
        let placement = ctx.cluster.placement(&index);
        let Some(search) = Search::read(Carrier::Body(members)) else {
            return Ok(None);
        };
        let primary_key = placement
            .as_ref()
            .and_then(|placement| placement.primary_key.clone());
        let (shards, settings) = match placement {
            Some(placement) => {
                let shards = placement.shards().to_vec();
                let settings = settings_cache::settings_of(ctx, &index, &shards).await?;
                (shards, settings)
            }
            // A node will answer that the index doesn't exist.
            None => (vec![anyone], Arc::default()),
        };
        let plan = Plan::new(search, &settings, primary_key.as_deref());
        read.push(Query {
            index,
            primary_key,
            shards,
            settings,
            plan,
        });
    }
    Ok(Some(read))
}

/// A query's members, and the index that it names.
fn named(query: &Value) -> Option<(Map<String, Value>, String)> {
    let members = query.as_object()?.clone();
    let index = members.get("indexUid")?.as_str()?.to_owned();
    Some((members, index))
}

/// The requests to the shards: which queries each one gets, in the client's order.
pub(super) fn shares(queries: &[Query]) -> Vec<(ShardId, Vec<usize>)> {
    let mut shards: Vec<(ShardId, Vec<usize>)> = Vec::new();
    for (place, query) in queries.iter().enumerate() {
        for shard in &query.shards {
            match shards.iter_mut().find(|(known, _)| known == shard) {
                Some((_, places)) => places.push(place),
                None => shards.push((*shard, vec![place])),
            }
        }
    }
    shards.sort_unstable_by_key(|(shard, _)| *shard);
    shards
}

/// Carries out all searches.
pub(super) async fn search(
    reader: &Reader<'_>,
    path: &str,
    queries: &[Query],
) -> Result<Answer, SearchError> {
    let shares = shares(queries);
    let mut asks = Vec::with_capacity(shares.len());
    for (shard, places) in &shares {
        let bodies: Vec<Value> = places
            .iter()
            .filter_map(|place| Some(body_of(queries.get(*place)?)))
            .collect();
        let body = serde_json::to_vec(&json!({ "queries": bodies })).unwrap_or_default();
        asks.push(Ask {
            shard: *shard,
            method: Method::POST,
            path_and_query: path.to_owned(),
            body: Some(body.into()),
        });
    }
    let mut gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, shard) => return Ok(rename_positions(answer, shard, &shares)),
        Outcome::Answers(gathered) => gathered,
    };
    let bodies: HashMap<ShardId, Bytes> = gathered
        .replies
        .iter()
        .map(|reply| (reply.shard, reply.body.clone()))
        .collect();
    let mut lists: Vec<Vec<ShardHits>> = queries.iter().map(|_| Vec::new()).collect();
    for (shard, places) in &shares {
        let Some(body) = bodies.get(shard) else {
            continue;
        };
        for (place, range) in places
            .iter()
            .zip(results(body).map_err(|e| unreadable(*shard, e))?)
        {
            if let (Some(lists), Some(query)) = (lists.get_mut(*place), queries.get(*place)) {
                let asked = query.plan.first_step(query.shards.len());
                lists.push(ShardHits {
                    shard: *shard,
                    pages: vec![body.slice(range)],
                    asked,
                    share: None,
                    whole: false,
                });
            }
        }
    }
    let why = "each search goes to the shards that hold its index".to_owned();
    let mut explanation = Explanation {
        why,
        ..Explanation::default()
    };
    explanation.add(&gathered, |_| (0, 0));
    let mut results = vec![b'['];
    for (place, (query, lists)) in queries.iter().zip(&mut lists).enumerate() {
        if place > 0 {
            results.push(b',');
        }
        let uid = Some(query.index.as_str());
        let (plan, settings) = (&query.plan, &query.settings);
        match complete(
            reader,
            &query.index,
            plan,
            settings,
            lists,
            uid,
            &mut explanation,
        )
        .await?
        {
            Done::Merged(writer) => results.extend_from_slice(&writer.finish()),
            Done::Refused(answer) => return Ok(answer),
        }
    }
    results.push(b']');
    let mut writer = Writer::new(results.len() + 256);
    writer.name("results").extend_from_slice(&results);
    gathered.missing.sort_unstable();
    let degraded = Degraded::new(&gathered.missing, shares.len());
    writer.optional("degraded", degraded.as_ref());
    if reader.explain {
        writer.member("explain", &explanation);
    }
    let answer = Answer::json_bytes(StatusCode::OK, writer.finish());
    Ok(degraded.map_or(answer.clone(), |degraded| degraded.on(answer)))
}

fn body_of(query: &Query) -> Value {
    match query.plan.ask(0, query.plan.first_step(query.shards.len())) {
        Carrier::Body(members) => Value::Object(members),
        Carrier::Query(_) => Value::Object(Map::new()),
    }
}

fn unreadable(shard: ShardId, error: Malformed) -> SearchError {
    SearchError::Unreadable { shard, error }
}

/// The range of each result in a shard's answer.
pub(super) fn results(body: &[u8]) -> Result<Vec<std::ops::Range<usize>>, Malformed> {
    let mut members = Members::new(body, 0);
    while let Some(member) = members.next()? {
        if member.key == b"results" {
            let mut elements = Elements::new(body, member.value.start);
            let mut ranges = Vec::new();
            while let Some(range) = elements.next()? {
                ranges.push(range);
            }
            return Ok(ranges);
        }
    }
    Err(Malformed { at: members.at() })
}

/// A node's refusal names a query by its position in the shard's request. This changes it to the position in the client's request.
pub(super) fn rename_positions(
    mut answer: Answer,
    shard: ShardId,
    shares: &[(ShardId, Vec<usize>)],
) -> Answer {
    let Some((_, places)) = shares.iter().find(|(known, _)| *known == shard) else {
        return answer;
    };
    let Ok(text) = std::str::from_utf8(&answer.body) else {
        return answer;
    };
    const BEFORE: &str = "Inside `.queries[";
    let renamed = text.split_once(BEFORE).and_then(|(head, tail)| {
        let (number, tail) = tail.split_once(']')?;
        let place = places.get(number.parse::<usize>().ok()?)?;
        Some(format!("{head}{BEFORE}{place}]{tail}"))
    });
    if let Some(renamed) = renamed {
        answer.body = renamed.into();
    }
    answer
}
