//! The shards' lists of a federated search, and how their hits are merged.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use weft_routing::placement::ShardId;

use super::admit::Gate;
use super::respond::{Outcome, respond};
use super::weighed::{Merged, Scales, Weighed, merge};
use super::{Federated, facets};
use crate::search::SearchError;
use crate::search::answer::{Rest, ShardAnswer};
use crate::search::distinct::{self, Documents, Values, values_at, values_in};
use crate::search::explain::Explanation;
use crate::search::hit::{Added, HitSpan, Interest};
use crate::search::merge::{Head, Source};
use crate::search::rank::rebuild_score;
use crate::search::respond::Writer;
use crate::search::scan::Malformed;
use crate::search::scatter::{self, Gathered, Reader};

/// What one shard gave: its answer and, if distinct values are counted, the rest of its list.
pub(super) struct ShardList {
    shard: ShardId,
    /// The positions of the queries that the shard was asked, in its order.
    places: Vec<usize>,
    pages: Vec<ShardAnswer>,
    /// True if the shard has no hits beyond the pages.
    whole: bool,
}

/// A hit of one of the queries.
pub(super) struct FederatedHit<'a> {
    pub(super) head: Head<'a>,
    pub(super) query: usize,
    shard: ShardId,
    /// `_federation` as the shard wrote it.
    pub(super) note: Map<String, Value>,
    /// Its score on the scale of all shards.
    pub(super) score: f64,
    pub(super) max_typos: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    queries_position: usize,
    weighted_ranking_score: f64,
}

/// The shards' lists, with everything needed to count distinct values.
pub(super) async fn of(
    reader: &Reader<'_>,
    path: &str,
    search: &Federated,
    gathered: Gathered,
    shares: &[(ShardId, Vec<usize>)],
    explanation: &mut Explanation,
) -> Result<Vec<ShardList>, SearchError> {
    let end = search.window().end();
    let mut lists = Vec::with_capacity(gathered.replies.len());
    let (mut asks, mut asked) = (Vec::new(), Vec::new());
    for reply in gathered.replies {
        let page = reply.read()?;
        let found = usize::try_from(page.rest.total()).unwrap_or(usize::MAX);
        let places = shares.iter().find(|(shard, _)| *shard == reply.shard);
        let places = places.map(|(_, places)| places.clone()).unwrap_or_default();
        let most = reach(search, &places);
        let take = found.min(most).saturating_sub(end);
        if search.counts_distinct() && take > 0 {
            asks.push(search.rest(reply.shard, &places, path, take));
            asked.push((end, take));
        }
        lists.push(ShardList {
            shard: reply.shard,
            places,
            pages: vec![page],
            whole: found <= end || search.counts_distinct() && found <= most,
        });
    }
    if asks.is_empty() {
        return Ok(lists);
    }
    if let scatter::Outcome::Answers(rest) = reader.gather(asks).await? {
        explanation.add(&rest, |at| asked.get(at).copied().unwrap_or_default());
        for reply in rest.replies {
            if let Some(list) = lists.iter_mut().find(|list| list.shard == reply.shard) {
                list.pages.push(reply.read()?);
            }
        }
    }
    Ok(lists)
}

/// The most hits that a shard shows of the indexes of some queries.
fn reach(search: &Federated, places: &[usize]) -> usize {
    let indexes = search.indexes().into_iter();
    let asked = indexes.filter(|uid| {
        let queries = places.iter().filter_map(|place| search.queries.get(*place));
        queries.into_iter().any(|query| query.index == *uid)
    });
    asked
        .map(|uid| search.settings(uid).max_total_hits)
        .fold(0, usize::saturating_add)
}

/// Merges the lists and writes the answer.
pub(super) async fn merged(
    reader: &Reader<'_>,
    search: &Federated,
    lists: &[ShardList],
) -> Result<Writer, SearchError> {
    let rests = lists
        .iter()
        .filter_map(|list| Some(&list.pages.first()?.rest));
    let rests: Vec<&Rest> = rests.collect();
    let mut hits = Vec::new();
    for list in lists {
        let unreadable = |error| SearchError::Unreadable {
            shard: list.shard,
            error,
        };
        let mut of_shard: Vec<Vec<FederatedHit<'_>>> =
            search.queries.iter().map(|_| Vec::new()).collect();
        for page in &list.pages {
            for hit in read_hits(search, page, list).map_err(unreadable)? {
                if let Some(of_query) = of_shard.get_mut(hit.query) {
                    of_query.push(hit);
                }
            }
        }
        hits.extend(of_shard.into_iter().enumerate());
    }
    let hidden = hidden_values(reader, search, &hits).await?;
    let merged = merged_hits(search, hits, &hidden);
    let whole = lists.iter().all(|list| list.whole) && merged.at_the_end;
    let losers = match whole {
        true => losers(reader, search, &rests, &merged).await?,
        false => Losers::new(),
    };
    let found = rests.iter().map(|rest| rest.total()).sum();
    let outcome = Outcome {
        merged,
        found,
        known: if whole {
            found
        } else {
            known(search, lists, &rests)
        },
        losers,
        times: reader.times(),
    };
    respond(search, &rests, &outcome).map_err(|error| SearchError::Unreadable {
        shard: ShardId(0),
        error,
    })
}

/// Documents that the shards' facets count and one node's facets wouldn't, by index.
pub(super) type Losers = HashMap<String, Documents>;

/// How many hits the lists hold.
fn known(search: &Federated, lists: &[ShardList], rests: &[&Rest]) -> u64 {
    let known = lists.iter().zip(rests).map(|(list, rest)| {
        let most = match search.counts_distinct() {
            true => reach(search, &list.places),
            false => search.window().end(),
        };
        rest.total().min(u64::try_from(most).unwrap_or(u64::MAX))
    });
    known.sum()
}

/// Distinct values that hits don't show, by index and id.
async fn hidden_values(
    reader: &Reader<'_>,
    search: &Federated,
    hits: &[(usize, Vec<FederatedHit<'_>>)],
) -> Result<HashMap<usize, Values>, SearchError> {
    let mut hidden = HashMap::new();
    for (place, (query, (path, hides))) in search.queries.iter().zip(&search.paths).enumerate() {
        let (Some(path), Some(key), true) = (path, &query.primary_key, *hides) else {
            continue;
        };
        let of_query = hits.iter().filter(|(known, _)| *known == place);
        let wanted: Vec<(ShardId, String)> = of_query
            .flat_map(|(_, hits)| hits)
            .filter_map(|hit| Some((hit.shard, id_of(hit)?.to_owned())))
            .collect();
        let fields = [key.clone(), path.clone()];
        let mut values = Values::new();
        for document in distinct::fetch(reader, &query.index, &wanted, &fields).await? {
            let id = match document.get(key) {
                Some(Value::String(id)) => id.clone(),
                Some(id) => id.to_string(),
                None => continue,
            };
            values.insert(id.into_bytes(), values_at(path, &document));
        }
        hidden.insert(place, values);
    }
    Ok(hidden)
}

fn id_of<'a>(hit: &FederatedHit<'a>) -> Option<&'a str> {
    std::str::from_utf8(hit.head.id()?).ok()
}

/// The documents that were left out for a better one, if facets count them.
async fn losers(
    reader: &Reader<'_>,
    search: &Federated,
    rests: &[&Rest],
    merged: &Merged<FederatedHit<'_>>,
) -> Result<Losers, SearchError> {
    let mut losers = Losers::new();
    for index in search.indexes() {
        let fields = facets::names(rests, index);
        let of_index = merged.duplicates.iter().filter(|hit| {
            let query = search.queries.get(hit.query);
            query.is_some_and(|query| query.index == index)
        });
        let wanted: Option<Vec<(ShardId, String)>> = of_index
            .map(|hit| Some((hit.shard, id_of(hit)?.to_owned())))
            .collect();
        let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty() && !fields.is_empty()) else {
            continue;
        };
        let documents = distinct::fetch(reader, index, &wanted, &fields).await?;
        losers.insert(index.to_owned(), documents);
    }
    Ok(losers)
}

fn read_hits<'a>(
    search: &Federated,
    page: &'a ShardAnswer,
    list: &ShardList,
) -> Result<Vec<FederatedHit<'a>>, Malformed> {
    let base = Interest {
        pick: Some("_federation".to_owned()),
        added: Added {
            details: true,
            ..Added::default()
        },
        ..Interest::default()
    };
    let mut source = Source::new(vec![page.hits()], false);
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
        let query = *list.places.get(own.queries_position).ok_or(malformed)?;
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
            shard: list.shard,
            note,
            score,
            max_typos: None,
        });
    }
}

fn merged_hits<'a>(
    search: &Federated,
    lists: Vec<(usize, Vec<FederatedHit<'a>>)>,
    hidden: &HashMap<usize, Values>,
) -> Merged<FederatedHit<'a>> {
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
    let mut gate = gate(search);
    let judge = |query: usize, hit: &FederatedHit<'a>| {
        let values = values_of(search, hidden, hit);
        gate.judge(query, hit.head.id(), &values)
    };
    merge(lists, search.window(), search.counts_distinct(), judge)
}

fn gate(search: &Federated) -> Gate {
    let indexes = search.indexes();
    let place = |uid: &str| indexes.iter().position(|known| *known == uid).unwrap_or(0);
    let queries = search.queries.iter().zip(&search.paths);
    let queries: Vec<(usize, bool)> = queries
        .map(|(query, (path, _))| (place(&query.index), path.is_some()))
        .collect();
    let end = search.window().end();
    let most: Vec<usize> = indexes
        .iter()
        .map(|uid| search.settings(uid).max_total_hits.min(end))
        .collect();
    Gate::new(&queries, &most, search.distinct.is_some())
}

/// A hit's distinct values.
fn values_of(
    search: &Federated,
    hidden: &HashMap<usize, Values>,
    hit: &FederatedHit<'_>,
) -> Vec<String> {
    let Some((Some(path), hides)) = search.paths.get(hit.query) else {
        return Vec::new();
    };
    if *hides {
        let known = hidden.get(&hit.query).zip(hit.head.id());
        let values = known.and_then(|(known, id)| known.get(id));
        return values.cloned().unwrap_or_default();
    }
    values_in(path, hit.head.text.get(hit.head.span.range.clone()))
}
