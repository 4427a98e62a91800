//! Documents similar to one: `POST` and `GET /indexes/{uid}/similar`.
//!
//! Only the shard that holds the document can be asked as the client asked. At the same time, the merger fetches the
//! document's vector from that shard; then it searches the other shards by that vector. This takes two rounds, since a node
//! accepts no vector on this route.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use weft_routing::placement::ShardId;

use super::SearchError;
use super::answer::ShardAnswer;
use super::degraded::Degraded;
use super::explain::Explanation;
use super::hit::{Added, Interest};
use super::merge::{Merging, Order, Source, Window, merge};
use super::performance::{self, Times};
use super::request::{Carrier, DEFAULT_LIMIT, Paging};
use super::respond::{Writer, write_hits, write_paging};
use super::scan::Malformed;
use super::scatter::{Ask, Gathered, Outcome, Reader};
use super::settings::MergeSettings;
use crate::answer::Answer;

/// A request for similar documents, as far as the merger must understand it.
#[derive(Debug, Clone)]
pub(super) struct Similar {
    carrier: Carrier,
    /// The document's id, as text.
    pub(super) id: String,
    embedder: String,
    offset: usize,
    limit: usize,
    show_score: bool,
    show_details: bool,
}

/// Parameters that a search by vector accepts unchanged.
const SHARED: [&str; 7] = [
    "filter",
    "attributesToRetrieve",
    "retrieveVectors",
    "showRankingScore",
    "showRankingScoreDetails",
    "rankingScoreThreshold",
    "showPerformanceDetails",
];

impl Similar {
    /// Reads a request; `None` if a node must judge it.
    pub(super) fn read(carrier: Carrier) -> Option<Self> {
        let id = match &carrier {
            Carrier::Body(members) => match members.get("id")? {
                Value::String(id) => id.clone(),
                Value::Number(id) => id.to_string(),
                _ => return None,
            },
            Carrier::Query(_) => carrier.text("id")??.to_owned(),
        };
        Some(Self {
            id,
            embedder: carrier.text("embedder")??.to_owned(),
            offset: carrier.count("offset")?.unwrap_or(0),
            limit: carrier.count("limit")?.unwrap_or(DEFAULT_LIMIT),
            show_score: carrier.truth("showRankingScore")?.unwrap_or(false),
            show_details: carrier.truth("showRankingScoreDetails")?.unwrap_or(false),
            carrier,
        })
    }

    fn for_owner(&self, end: usize) -> Carrier {
        let mut carrier = self.carrier.clone();
        carrier.set_count("offset", 0);
        carrier.set_count("limit", end);
        carrier.set_true("showRankingScoreDetails");
        carrier
    }

    fn by_vector(&self, vector: &Value, end: usize) -> Carrier {
        let mut members = Map::new();
        for name in SHARED {
            if let Some(value) = self.carrier.json(name) {
                members.insert(name.to_owned(), value);
            }
        }
        members.insert("vector".to_owned(), vector.clone());
        members.insert(
            "hybrid".to_owned(),
            json!({"embedder": self.embedder, "semanticRatio": 1.0}),
        );
        members.insert("limit".to_owned(), Value::from(end));
        members.insert("showRankingScoreDetails".to_owned(), Value::Bool(true));
        Carrier::Body(members)
    }
}

/// Finds similar documents on `shards`; `owner` is the shard that holds the document.
pub(super) async fn search(
    reader: &Reader<'_>,
    path: &str,
    index: &str,
    similar: &Similar,
    settings: &MergeSettings,
    (owner, shards): (ShardId, &[ShardId]),
) -> Result<Answer, SearchError> {
    let paging = Paging::Offset {
        offset: similar.offset,
        limit: similar.limit,
    };
    let window = paging.window(usize::MAX);
    let fetch = json!({"ids": [similar.id], "retrieveVectors": true, "fields": ["_vectors"]});
    let fetch = Ask {
        shard: owner,
        method: Method::POST,
        path_and_query: format!("/indexes/{index}/documents/fetch"),
        body: Some(serde_json::to_vec(&fetch).unwrap_or_default().into()),
    };
    let own = reader.on_own_authority();
    let first = vec![Ask::new(owner, path, &similar.for_owner(window.end()))];
    let (mine, fetched) = tokio::try_join!(reader.gather(first), own.gather(vec![fetch]))?;
    let mut gathered = match mine {
        Outcome::Refused(answer, _) => return Ok(answer),
        Outcome::Answers(gathered) => gathered,
    };
    let vector = match &fetched {
        Outcome::Answers(fetched) => vector_of(fetched, &similar.embedder),
        Outcome::Refused(..) => None,
    };
    if let Some(vector) = vector {
        let carrier = similar.by_vector(&vector, window.end());
        let path = format!("/indexes/{index}/search");
        let others = shards.iter().filter(|shard| **shard != owner);
        match reader
            .gather(
                others
                    .map(|shard| Ask::new(*shard, &path, &carrier))
                    .collect(),
            )
            .await?
        {
            Outcome::Refused(answer, _) => return Ok(as_similar(answer)),
            Outcome::Answers(others) => {
                gathered.replies.extend(others.replies);
                gathered.missing.extend(others.missing);
            }
        }
    }
    let _merging = reader.phase("merge");
    let asked = shards.len() + usize::from(!shards.contains(&owner));
    let degraded = Degraded::new(&gathered.missing, asked);
    let mut writer = respond(similar, settings, paging, window, &gathered, reader.times())
        .map_err(|error| SearchError::Unreadable {
            shard: owner,
            error,
        })?;
    writer.optional("degraded", degraded.as_ref());
    if reader.explain {
        let why =
            format!("shard {owner} holds the document; the others are searched by its vector");
        let mut explanation = Explanation {
            why,
            ..Explanation::default()
        };
        explanation.add(&gathered, |_| (0, window.end()));
        writer.member("explain", &explanation);
    }
    let answer = Answer::json_bytes(StatusCode::OK, writer.finish());
    Ok(degraded.map_or(answer.clone(), |degraded| degraded.on(answer)))
}

/// Turns a refusal of the search by vector into the refusal of a search for similar documents.
fn as_similar(mut answer: Answer) -> Answer {
    let renamed = || {
        let mut error: Value = serde_json::from_slice(&answer.body).ok()?;
        let members = error.as_object_mut()?;
        for name in ["code", "link"] {
            let text = members.get(name)?.as_str()?;
            let text = text.replace("invalid_search_filter", "invalid_similar_filter");
            members.insert(name.to_owned(), text.into());
        }
        let message = members.get("message")?.as_str()?;
        let without_index = message
            .strip_prefix("Index `")
            .and_then(|rest| rest.split_once("`: "));
        if let Some((_, message)) = without_index {
            members.insert("message".to_owned(), message.into());
        }
        Some(error.to_string())
    };
    if let Some(renamed) = renamed() {
        answer.body = renamed.into();
    }
    answer
}

/// The document's (first) vector of an embedder.
fn vector_of(fetched: &Gathered, embedder: &str) -> Option<Value> {
    let answer: Value = serde_json::from_slice(&fetched.replies.first()?.body).ok()?;
    let vectors = answer
        .get("results")?
        .get(0)?
        .get("_vectors")?
        .get(embedder)?;
    let embeddings = vectors.get("embeddings").unwrap_or(vectors);
    let first = embeddings.get(0)?;
    Some(if first.is_array() {
        first.clone()
    } else {
        embeddings.clone()
    })
}

fn respond(
    similar: &Similar,
    settings: &MergeSettings,
    paging: Paging,
    window: Window,
    gathered: &Gathered,
    times: Times,
) -> Result<Writer, Malformed> {
    let interest = Interest {
        added: Added {
            score: similar.show_score,
            details: true,
            formatted: false,
        },
        ..Interest::default()
    };
    let answers = gathered
        .replies
        .iter()
        .map(|reply| ShardAnswer::read(reply.body.clone()));
    let answers = answers.collect::<Result<Vec<_>, _>>()?;
    let sources = answers
        .iter()
        .map(|answer| Source::new(vec![answer.hits()], false))
        .collect();
    let merged = merge(
        sources,
        &Merging {
            order: Order::Rules,
            window,
            interest: &interest,
            distinct: None,
            hidden: None,
            to_the_end: false,
            doubts: None,
        },
    )?;
    let mut writer = Writer::new(4096);
    write_hits(
        writer.name("hits"),
        &merged.hits,
        (similar.show_score, similar.show_details),
        &interest,
    )?;
    writer.member("id", &similar.id);
    writer.member(
        "processingTimeMs",
        &answers
            .iter()
            .map(|answer| answer.rest.processing_time_ms)
            .sum::<u64>(),
    );
    let found: u64 = answers.iter().map(|answer| answer.rest.total()).sum();
    let most = u64::try_from(settings.max_total_hits).unwrap_or(u64::MAX);
    write_paging(&mut writer, paging, found.min(most));
    let details = answers
        .iter()
        .filter_map(|answer| answer.rest.performance_details.as_deref());
    writer.optional(
        "performanceDetails",
        performance::details(details, times).as_ref(),
    );
    Ok(writer)
}
