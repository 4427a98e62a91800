//! Several searches with one list of hits: `POST /multi-search` with `federation`.
//!
//! Each shard carries out the federated search on what it holds, for all hits up to the page's end, with details; the
//! lists are merged by what orders them on one node: weighed scores, rebuilt on the scale of all shards, and sort values.

mod facets;
mod weighed;

use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_routing::placement::ShardId;

use super::SearchError;
use super::answer::ShardAnswer;
use super::degraded::Degraded;
use super::explain::Explanation;
use super::hit::{HitSpan, Interest, strippable};
use super::merge::{Head, Source, Window, is_semantic};
use super::multi_search::{Query, rename_positions, shares};
use super::rank::{rebuild_details, rebuild_score, write_number};
use super::request::{Carrier, Paging};
use super::respond::{Writer, write_paging};
use super::scan::Malformed;
use super::scatter::{Ask, Gathered, Outcome, Reader};
use super::settings::MergeSettings;
use crate::answer::Answer;

use weighed::{Scales, Weighed, merge};

/// A federated search.
pub(super) struct Federated {
    federation: Map<String, Value>,
    paging: Paging,
    distinct: Option<String>,
    queries: Vec<Query>,
    weights: Vec<f64>,
    interests: Vec<Interest>,
}

/// A hit of one of the queries.
struct FederatedHit<'a> {
    head: Head<'a>,
    query: usize,
    /// `_federation` as the shard wrote it.
    note: Map<String, Value>,
    /// The shard's own score.
    score: f64,
    max_typos: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    queries_position: usize,
    weighted_ranking_score: f64,
}

impl Federated {
    /// Reads the federation's own parameters; `None` where a node must judge them.
    pub(super) fn read(federation: Map<String, Value>, queries: Vec<Query>) -> Option<Self> {
        let carrier = Carrier::Body(federation.clone());
        let paging = Paging::new(
            carrier.count("offset")?,
            carrier.count("limit")?,
            carrier.count("page")?,
            carrier.count("hitsPerPage")?,
        );
        let distinct = carrier.text("distinct")?;
        let mut weights = Vec::with_capacity(queries.len());
        let mut interests = Vec::with_capacity(queries.len());
        for query in &queries {
            let Carrier::Body(members) = &query.plan.search.carrier else {
                return None;
            };
            let weight = members
                .get("federationOptions")
                .and_then(|options| options.get("weight"));
            weights.push(weight.map_or(Some(1.0), Value::as_f64)?);
            let mut strip = strippable(
                &more_attributes(query, distinct.as_ref()),
                query.plan.search.retrieve.as_deref().unwrap_or_default(),
            );
            strip.push("_federation".to_owned());
            interests.push(Interest {
                pick: Some("_federation".to_owned()),
                id: query.primary_key.clone(),
                strip,
                ..Interest::default()
            });
        }
        Some(Self {
            federation,
            paging,
            distinct,
            queries,
            weights,
            interests,
        })
    }

    fn window(&self) -> Window {
        self.paging.window(usize::MAX)
    }

    /// What a shard that holds the queries at `places` is asked.
    fn ask(&self, shard: ShardId, places: &[usize], path: &str) -> Ask {
        let mut federation = self.federation.clone();
        let end = self.window().end();
        match self.paging {
            Paging::Offset { .. } => {
                federation.insert("offset".to_owned(), Value::from(0));
                federation.insert("limit".to_owned(), Value::from(end));
            }
            Paging::Page { page: 0, .. } => {}
            Paging::Page { .. } => {
                federation.insert("page".to_owned(), Value::from(1));
                federation.insert("hitsPerPage".to_owned(), Value::from(end));
            }
        }
        federation.shift_remove("mergeFacets");
        if let Some(Value::Object(facets)) = federation.get_mut("facetsByIndex") {
            let elsewhere = |uid: &String| {
                self.queries
                    .iter()
                    .any(|query| query.index == *uid && !query.shards.contains(&shard))
            };
            facets.retain(|uid, _| !elsewhere(uid));
        }
        let queries: Vec<Value> = places
            .iter()
            .filter_map(|place| self.query_body(*place))
            .collect();
        let body = json!({ "federation": federation, "queries": queries });
        Ask {
            shard,
            method: Method::POST,
            path_and_query: path.to_owned(),
            body: Some(serde_json::to_vec(&body).unwrap_or_default().into()),
        }
    }

    fn query_body(&self, place: usize) -> Option<Value> {
        let query = self.queries.get(place)?;
        let mut carrier = query.plan.search.carrier.clone();
        carrier.set_true("showRankingScoreDetails");
        for name in more_attributes(query, self.distinct.as_ref()) {
            carrier.push("attributesToRetrieve", &name);
        }
        match carrier {
            Carrier::Body(members) => Some(Value::Object(members)),
            Carrier::Query(_) => None,
        }
    }

    fn settings(&self, uid: &str) -> Arc<MergeSettings> {
        self.queries
            .iter()
            .find(|query| query.index == uid)
            .map_or_else(Arc::default, |query| Arc::clone(&query.settings))
    }
}

/// Carries out a federated search.
pub(super) async fn search(
    reader: &Reader<'_>,
    path: &str,
    search: &Federated,
) -> Result<Answer, SearchError> {
    let shares = shares(&search.queries);
    let asks = shares
        .iter()
        .map(|(shard, places)| search.ask(*shard, places, path))
        .collect();
    let gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, shard) => return Ok(rename_positions(answer, shard, &shares)),
        Outcome::Answers(gathered) => gathered,
    };
    let degraded = Degraded::new(&gathered.missing, shares.len());
    let mut writer = respond(search, &gathered, &shares)?;
    writer.optional("degraded", degraded.as_ref());
    if reader.explain {
        let why = "each query goes to the shards that hold its index".to_owned();
        let mut explanation = Explanation {
            why,
            ..Explanation::default()
        };
        explanation.add(&gathered, |_| (0, search.window().end()));
        writer.member("explain", &explanation);
    }
    let answer = Answer::json_bytes(StatusCode::OK, writer.finish());
    Ok(degraded.map_or(answer.clone(), |degraded| degraded.on(answer)))
}

fn respond(
    search: &Federated,
    gathered: &Gathered,
    shares: &[(ShardId, Vec<usize>)],
) -> Result<Writer, SearchError> {
    let mut answers = Vec::with_capacity(gathered.replies.len());
    let mut lists = Vec::new();
    for reply in &gathered.replies {
        let unreadable = |error| SearchError::Unreadable {
            shard: reply.shard,
            error,
        };
        let answer = ShardAnswer::read(&reply.body).map_err(unreadable)?;
        let places = shares
            .iter()
            .find(|(shard, _)| *shard == reply.shard)
            .map(|(_, places)| places.as_slice());
        let hits = read_hits(search, &answer, places.unwrap_or_default()).map_err(unreadable)?;
        for query in 0..search.queries.len() {
            lists.push((query, Vec::new()));
            let own = hits.iter().filter(|hit| hit.query == query).count();
            if let Some((_, list)) = lists.last_mut() {
                list.reserve(own);
            }
        }
        let first = lists.len() - search.queries.len();
        for hit in hits {
            if let Some((_, list)) = lists.get_mut(first + hit.query) {
                list.push(hit);
            }
        }
        answers.push(answer);
    }
    let (hits, duplicates) = merged_hits(search, lists);
    let malformed = |error| SearchError::Unreadable {
        shard: ShardId(0),
        error,
    };
    let mut writer = Writer::new(4096);
    write_hits(&mut writer, search, &hits).map_err(malformed)?;
    write_rest(&mut writer, search, &answers, &hits, duplicates);
    Ok(writer)
}

fn read_hits<'a>(
    search: &Federated,
    answer: &ShardAnswer<'a>,
    places: &[usize],
) -> Result<Vec<FederatedHit<'a>>, Malformed> {
    let base = Interest {
        pick: Some("_federation".to_owned()),
        ..Interest::default()
    };
    let mut source = Source::new(vec![(answer.text, answer.hits_at)], false);
    let mut hits = Vec::new();
    loop {
        source.advance(&base)?;
        let Some(mut head) = source.take() else {
            return Ok(hits);
        };
        let malformed = Malformed {
            at: head.span.range.start,
        };
        let note = head
            .span
            .picked
            .clone()
            .and_then(|range| head.text.get(range))
            .ok_or(malformed)?;
        let own: Note = serde_json::from_slice(note).map_err(|_| malformed)?;
        let note = serde_json::from_slice(note).map_err(|_| malformed)?;
        let query = *places.get(own.queries_position).ok_or(malformed)?;
        let interest = search.interests.get(query).ok_or(malformed)?;
        head.span = HitSpan::read(head.text, head.span.range.start, interest)?;
        let weight = search.weights.get(query).copied().unwrap_or(1.0);
        let score = if weight > 0.0 {
            own.weighted_ranking_score / weight
        } else {
            0.0
        };
        hits.push(FederatedHit {
            head,
            query,
            note,
            score,
            max_typos: None,
        });
    }
}

/// The page's hits, and how many were left out for their distinct value.
fn merged_hits<'a>(
    search: &Federated,
    lists: Vec<(usize, Vec<FederatedHit<'a>>)>,
) -> (Vec<FederatedHit<'a>>, usize) {
    let mut scales = Scales::new(search.queries.len());
    for hit in lists.iter().flat_map(|(_, hits)| hits) {
        scales.see(hit.query, &hit.head.ranks);
    }
    let lists = lists
        .into_iter()
        .map(|(query, hits)| {
            let weight = search.weights.get(query).copied().unwrap_or(1.0);
            let hits = hits.into_iter().map(|mut hit| {
                hit.max_typos = scales.scale(query, &hit.head.ranks);
                if let Some(max) = hit.max_typos {
                    hit.score = rebuild_score(hit.score, &hit.head.ranks, max);
                }
                (Weighed::new(&hit.head.ranks, hit.score, weight), hit)
            });
            (query, hits.collect())
        })
        .collect();
    merge(lists, search.window(), |hit: &FederatedHit<'_>| {
        let mut values = match &search.distinct {
            Some(path) => {
                super::distinct::values_in(path, hit.head.text.get(hit.head.span.range.clone()))
            }
            None => Vec::new(),
        };
        values.extend(document_of(search, hit));
        values
    })
}

/// Which document a hit is, told apart from any value: one that two shards hold is shown once.
fn document_of(search: &Federated, hit: &FederatedHit<'_>) -> Option<String> {
    let index = &search.queries.get(hit.query)?.index;
    let id = std::str::from_utf8(hit.head.id()?).ok()?;
    Some(format!("d{index}/{id}"))
}

/// What a query's hits must bring beside what the client asked for.
fn more_attributes(query: &Query, distinct: Option<&String>) -> Vec<String> {
    let Some(own) = &query.plan.search.retrieve else {
        return Vec::new();
    };
    let wanted = distinct.into_iter().chain(&query.primary_key);
    let is_missing = |name: &&String| !own.iter().any(|own| own == *name || own == "*");
    wanted.filter(is_missing).cloned().collect()
}

fn write_hits(
    writer: &mut Writer,
    search: &Federated,
    hits: &[FederatedHit<'_>],
) -> Result<(), Malformed> {
    let out = writer.name("hits");
    out.push(b'[');
    for (at, hit) in hits.iter().enumerate() {
        let (Some(query), Some(interest)) = (
            search.queries.get(hit.query),
            search.interests.get(hit.query),
        ) else {
            continue;
        };
        if at > 0 {
            out.push(b',');
        }
        if hit.head.span.write_open(hit.head.text, interest, out)? {
            out.push(b',');
        }
        let weight = search.weights.get(hit.query).copied().unwrap_or(1.0);
        let mut note = hit.note.clone();
        note.insert("queriesPosition".to_owned(), Value::from(hit.query));
        note.insert(
            "weightedRankingScore".to_owned(),
            Value::from(hit.score * weight),
        );
        out.extend_from_slice(b"\"_federation\":");
        out.extend_from_slice(&serde_json::to_vec(&note).unwrap_or_default());
        if query.plan.search.show_score {
            out.extend_from_slice(b",\"_rankingScore\":");
            write_number(hit.score, out);
        }
        let details = hit
            .head
            .span
            .details
            .clone()
            .and_then(|range| hit.head.text.get(range));
        if let Some(details) = details.filter(|_| query.plan.search.show_details) {
            out.extend_from_slice(b",\"_rankingScoreDetails\":");
            match hit.max_typos {
                Some(max) => rebuild_details(details, max, out)?,
                None => out.extend_from_slice(details),
            }
        }
        out.push(b'}');
    }
    out.push(b']');
    Ok(())
}

fn write_rest(
    writer: &mut Writer,
    search: &Federated,
    answers: &[ShardAnswer<'_>],
    hits: &[FederatedHit<'_>],
    duplicates: usize,
) {
    let first = answers.first().map(|answer| &answer.rest);
    writer.optional(
        "queryVectors",
        first.and_then(|rest| rest.query_vectors.as_ref()),
    );
    let slowest = answers
        .iter()
        .map(|answer| answer.rest.processing_time_ms)
        .max()
        .unwrap_or(0);
    writer.member("processingTimeMs", &slowest);
    let found: u64 = answers.iter().map(|answer| answer.rest.total()).sum();
    let mut indexes: Vec<&str> = search
        .queries
        .iter()
        .map(|query| query.index.as_str())
        .collect();
    indexes.sort_unstable();
    indexes.dedup();
    let most = indexes
        .iter()
        .map(|uid| search.settings(uid).max_total_hits as u64)
        .fold(0, u64::saturating_add);
    let total = found.saturating_sub(duplicates as u64).min(most);
    let unlimited = MergeSettings {
        max_total_hits: usize::MAX,
        ..MergeSettings::default()
    };
    write_paging(writer, search.paging, &unlimited, total);
    facets::write(writer, search, answers, found);
    writer.optional(
        "requestUid",
        first.and_then(|rest| rest.request_uid.as_ref()),
    );
    writer.optional("metadata", first.and_then(|rest| rest.metadata.as_ref()));
    if answers
        .iter()
        .any(|answer| answer.rest.semantic_hit_count.is_some())
    {
        writer.member(
            "semanticHitCount",
            &hits
                .iter()
                .filter(|hit| is_semantic(&hit.head.ranks))
                .count(),
        );
    }
    writer.optional(
        "performanceDetails",
        first.and_then(|rest| rest.performance_details.as_ref()),
    );
}
