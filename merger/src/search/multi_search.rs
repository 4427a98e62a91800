//! Several searches at once, each answered for itself: `POST /multi-search` without `federation`.
//!
//! Each shard gets one request with all searches of indexes that it holds; the searches' answers are merged one by one.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use weft_routing::placement::ShardId;

use super::answer::ShardAnswer;
use super::degraded::Degraded;
use super::explain::Explanation;
use super::merge::{Source, merge};
use super::plan::Plan;
use super::request::{Carrier, Search};
use super::respond::{Writer, write_search};
use super::scan::{Elements, Malformed, Members};
use super::scatter::{Ask, Outcome, Reader};
use super::settings::MergeSettings;
use super::{SearchError, settings_cache};
use crate::answer::Answer;
use crate::app::App;

/// One of the searches.
pub(super) struct Query {
    pub(super) index: String,
    pub(super) shards: Vec<ShardId>,
    pub(super) settings: Arc<MergeSettings>,
    pub(super) plan: Plan,
}

/// Reads the searches of a body; `None` where one of them can't be read: a node judges it.
pub(super) async fn read_queries(
    app: &Arc<App>,
    queries: &[Value],
    anyone: ShardId,
) -> Option<Vec<Query>> {
    let mut read = Vec::with_capacity(queries.len());
    for query in queries {
        let members = query.as_object()?.clone();
        let index = members.get("indexUid")?.as_str()?.to_owned();
        let placement = app.cluster.placement(&index);
        let search = Search::read(Carrier::Body(members))?;
        let (shards, settings) = match placement {
            Some(placement) => {
                let shards = placement.shards().to_vec();
                let settings = settings_cache::settings_of(
                    app,
                    &index,
                    shards.first().copied().unwrap_or(anyone),
                )
                .await;
                (shards, settings)
            }
            // A node says that the index isn't there.
            None => (vec![anyone], Arc::default()),
        };
        let plan = Plan::new(search, &settings);
        read.push(Query {
            index,
            shards,
            settings,
            plan,
        });
    }
    Some(read)
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
    let mut parts: Vec<Vec<Part<'_>>> = queries.iter().map(|_| Vec::new()).collect();
    for (shard, places) in &shares {
        let Some(body) = bodies.get(shard) else {
            continue;
        };
        for (place, at) in places
            .iter()
            .zip(results(body).map_err(|e| unreadable(*shard, e))?)
        {
            if let Some(parts) = parts.get_mut(*place) {
                let text = body.get(at).unwrap_or_default();
                parts.push(Part {
                    shard: *shard,
                    text,
                });
            }
        }
    }
    let mut results = vec![b'['];
    for (place, (query, parts)) in queries.iter().zip(&parts).enumerate() {
        if place > 0 {
            results.push(b',');
        }
        match one_result(reader, query, parts).await? {
            Ok(text) => results.extend_from_slice(&text),
            Err(refused) => return Ok(refused),
        }
    }
    results.push(b']');
    let mut writer = Writer::new(results.len() + 256);
    writer.name("results").extend_from_slice(&results);
    gathered.missing.sort_unstable();
    let degraded = Degraded::new(&gathered.missing, shares.len());
    writer.optional("degraded", degraded.as_ref());
    if reader.explain {
        let why = "each search goes to the shards that hold its index".to_owned();
        let mut explanation = Explanation {
            why,
            ..Explanation::default()
        };
        explanation.add(&gathered, 0, 0);
        writer.member("explain", &explanation);
    }
    let answer = Answer::json_bytes(StatusCode::OK, writer.finish());
    Ok(degraded.map_or(answer.clone(), |degraded| degraded.on(answer)))
}

/// A shard's answer to one search.
struct Part<'a> {
    shard: ShardId,
    text: &'a [u8],
}

fn body_of(query: &Query) -> Value {
    match query.plan.ask(0, query.plan.first_step(query.shards.len())) {
        Carrier::Body(members) => Value::Object(members),
        Carrier::Query(_) => Value::Object(Map::new()),
    }
}

/// One search's merged result, or a node's refusal in a later step.
async fn one_result(
    reader: &Reader<'_>,
    query: &Query,
    parts: &[Part<'_>],
) -> Result<Result<Vec<u8>, Answer>, SearchError> {
    let plan = &query.plan;
    let mut asked = vec![plan.first_step(query.shards.len()); parts.len()];
    let mut later: Vec<Vec<Bytes>> = vec![Vec::new(); parts.len()];
    loop {
        let dry = {
            let shard = parts.first().map_or(ShardId(0), |part| part.shard);
            let malformed = |error| unreadable(shard, error);
            let (mut answers, mut sources) = (Vec::new(), Vec::new());
            for ((part, asked), later) in parts.iter().zip(&asked).zip(&later) {
                let first = ShardAnswer::read(part.text).map_err(malformed)?;
                let found = usize::try_from(first.rest.total()).unwrap_or(usize::MAX);
                let mut pages = vec![(first.text, first.hits_at)];
                for page in later {
                    let page = ShardAnswer::read(page).map_err(malformed)?;
                    pages.push((page.text, page.hits_at));
                }
                sources.push(Source::new(
                    pages,
                    *asked < plan.window.end() && *asked < found,
                ));
                answers.push(first);
            }
            let merged = merge(sources, &plan.merging()).map_err(malformed)?;
            if merged.dry.is_empty() {
                let mut writer = Writer::new(1024);
                writer.member("indexUid", &query.index);
                write_search(&mut writer, plan, &query.settings, &answers, &merged)
                    .map_err(malformed)?;
                return Ok(Ok(writer.finish()));
            }
            merged.dry
        };
        let path = format!("/indexes/{}/search", query.index);
        let asks = dry.iter().filter_map(|at| {
            let mut carrier = plan.ask(*asked.get(*at)?, *asked.get(*at)?);
            carrier.remove("indexUid");
            Some(Ask::new(parts.get(*at)?.shard, &path, &carrier))
        });
        let gathered = match reader.gather(asks.collect()).await? {
            Outcome::Refused(answer, _) => return Ok(Err(answer)),
            Outcome::Answers(gathered) => gathered,
        };
        for at in dry {
            let (Some(asked), Some(later), Some(part)) =
                (asked.get_mut(at), later.get_mut(at), parts.get(at))
            else {
                continue;
            };
            match gathered
                .replies
                .iter()
                .find(|reply| reply.shard == part.shard)
            {
                Some(reply) => {
                    later.push(reply.body.clone());
                    *asked *= 2;
                }
                None => *asked = usize::MAX,
            }
        }
    }
}

fn unreadable(shard: ShardId, error: Malformed) -> SearchError {
    SearchError::Unreadable { shard, error }
}

/// Where each result stands in a shard's answer.
fn results(body: &[u8]) -> Result<Vec<std::ops::Range<usize>>, Malformed> {
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

/// A refusal names a query by its place in the shard's request; the client counts in its own.
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
