//! Several searches at once, each with its own answer: `POST /multi-search` without `federation`.
//!
//! Each shard gets one request with all searches of indexes that it holds. The answers are merged search by search.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use weft_routing::placement::ShardId;

use super::SearchError;
use super::answer::ShardAnswer;
use super::degraded::Degraded;
use super::explain::Explanation;
use super::one_index::{Done, ShardHits, complete};
use super::plan::Plan;
use super::request::{Carrier, Search};
use super::respond::Writer;
use super::scan::{Elements, Malformed, Members};
use super::scatter::{Ask, Outcome, Reader};
use super::settings::MergeSettings;
use crate::answer::Answer;
use crate::cluster::Placement;

/// One of the searches.
pub(super) struct Query {
    pub(super) index: String,
    pub(super) primary_key: Option<String>,
    pub(super) shards: Vec<ShardId>,
    pub(super) settings: Arc<MergeSettings>,
    pub(super) plan: Plan,
}

/// Which queries each shard is asked, in the client's order; by shard, ascending.
pub(super) type Shares = Vec<(ShardId, Vec<usize>)>;

/// The body of several searches.
pub(super) struct Searches {
    pub(super) queries: Vec<Value>,
    /// What makes them one federated search; `None` if each has its own answer.
    pub(super) federation: Option<Value>,
}

impl Searches {
    /// Reads the body; `None` if a node must judge it.
    pub(super) fn read(carrier: Carrier) -> Option<Self> {
        let Carrier::Body(mut members) = carrier else {
            return None;
        };
        let queries = members.remove("queries");
        let federation = members.remove("federation");
        match queries {
            Some(Value::Array(queries)) if members.is_empty() => Some(Self {
                queries,
                federation: federation.filter(|federation| !federation.is_null()),
            }),
            _ => None,
        }
    }
}

/// The index that a query names, and its search; `None` if it can't be read.
pub(super) fn named(query: Value) -> Option<(String, Search)> {
    let Value::Object(members) = query else {
        return None;
    };
    let index = members.get("indexUid")?.as_str()?.to_owned();
    Some((index, Search::read(Carrier::Body(members))?))
}

impl Query {
    /// Plans a search of an index. If the cluster doesn't know the index, `anyone` will answer that it doesn't exist.
    pub(super) fn new(
        index: String,
        search: Search,
        placement: Option<&Placement>,
        settings: Arc<MergeSettings>,
        anyone: ShardId,
    ) -> Self {
        let primary_key = placement.and_then(|placement| placement.primary_key.clone());
        let shards = placement.map(|placement| placement.shards().to_vec());
        Self {
            index,
            shards: shards.unwrap_or_else(|| vec![anyone]),
            plan: Plan::new(search, &settings, primary_key.as_deref()),
            primary_key,
            settings,
        }
    }
}

/// Which queries each shard is asked.
pub(super) fn shares(queries: &[Query]) -> Shares {
    let mut shards = Shares::new();
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

/// The requests to the shards, with the body for the queries at these positions. It is written once for all shards that
/// are asked the same queries.
pub(super) fn asks(
    path: &str,
    shares: &[(ShardId, Vec<usize>)],
    body: impl Fn(&[usize]) -> Value,
) -> Vec<Ask> {
    let mut written: HashMap<&[usize], Bytes> = HashMap::new();
    let mut asks = Vec::with_capacity(shares.len());
    for (shard, places) in shares {
        let write = || serde_json::to_vec(&body(places)).unwrap_or_default().into();
        let body = written.entry(places).or_insert_with(write);
        asks.push(Ask {
            shard: *shard,
            method: Method::POST,
            path_and_query: path.to_owned(),
            body: Some(body.clone()),
        });
    }
    asks
}

/// Carries out all searches.
pub(super) async fn search(
    reader: &Reader<'_>,
    path: &str,
    queries: &[Query],
    shares: &[(ShardId, Vec<usize>)],
) -> Result<Answer, SearchError> {
    let asks = asks(path, shares, |places| {
        let queries = places.iter().filter_map(|place| queries.get(*place));
        json!({ "queries": queries.map(body_of).collect::<Vec<_>>() })
    });
    let mut gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, shard) => return Ok(rename_positions(answer, shard, shares)),
        Outcome::Answers(gathered) => gathered,
    };
    let bodies: HashMap<ShardId, Bytes> = gathered
        .replies
        .iter()
        .map(|reply| (reply.shard, reply.body.clone()))
        .collect();
    let mut answers: Vec<Vec<(ShardId, Bytes)>> = vec![Vec::new(); queries.len()];
    for (shard, places) in shares {
        let Some(body) = bodies.get(shard) else {
            continue;
        };
        let results = results(body).map_err(|e| unreadable(*shard, e))?;
        for (place, answer) in places.iter().zip(results) {
            if let Some(answers) = answers.get_mut(*place) {
                answers.push((*shard, answer));
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
    for (place, (query, answers)) in queries.iter().zip(answers).enumerate() {
        if place > 0 {
            results.push(b',');
        }
        let uid = Some(query.index.as_str());
        let mut lists = first_lists(query, answers)?;
        let (plan, settings) = (&query.plan, &query.settings);
        match complete(
            reader,
            &query.index,
            plan,
            settings,
            &mut lists,
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

/// The shards' answers to one of the searches.
fn first_lists(
    query: &Query,
    answers: Vec<(ShardId, Bytes)>,
) -> Result<Vec<ShardHits>, SearchError> {
    let asked = query.plan.first_step(query.shards.len());
    let list = |(shard, answer)| {
        let page = ShardAnswer::read(answer).map_err(|error| unreadable(shard, error))?;
        Ok(ShardHits {
            shard,
            pages: vec![page],
            asked,
            share: None,
            whole: false,
        })
    };
    answers.into_iter().map(list).collect()
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

/// Each result in a shard's answer.
pub(super) fn results(body: &Bytes) -> Result<Vec<Bytes>, Malformed> {
    let mut members = Members::new(body, 0);
    while let Some(member) = members.next()? {
        if member.key == b"results" {
            let mut elements = Elements::new(body, member.value.start);
            let mut results = Vec::new();
            while let Some(range) = elements.next()? {
                results.push(body.slice(range));
            }
            return Ok(results);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_are_asked_the_same_searches_share_one_body() {
        let shares: Shares = vec![
            (ShardId(0), vec![0, 1]),
            (ShardId(1), vec![1]),
            (ShardId(2), vec![0, 1]),
        ];
        let asks = asks("/multi-search?a", &shares, |places| json!(places));
        let [first, other, same] = asks.as_slice() else {
            panic!("{asks:?}");
        };
        let body = |ask: &Ask| ask.body.clone().unwrap();
        assert_eq!(body(first).as_ref(), b"[0,1]");
        assert_eq!(body(other).as_ref(), b"[1]");
        assert_eq!(body(same).as_ptr(), body(first).as_ptr());
        assert_eq!((first.shard, same.shard), (ShardId(0), ShardId(2)));
        assert_eq!(same.path_and_query, "/multi-search?a");
    }
}
