//! Lists of documents: `GET /indexes/{uid}/documents` and `POST …/documents/fetch`.
//!
//! One node lists documents in the order in which they arrived. Shards don't share that order: Weft takes the first
//! document of each shard, then the second of each, and so on, which is stable from page to page. With `sort`, documents
//! are ordered by their values, and equal ones again in turn.
//!
//! A page far from the start costs a second round: the first round asks for totals alone, and from those the merger
//! computes which documents of each shard the page holds.

use bytes::Bytes;
use http::StatusCode;
use weft_routing::placement::ShardId;

use super::degraded::Degraded;
use super::explain::Explanation;
use super::hit::{Interest, strippable};
use super::merge::{Merged, Merging, Order, Source, Window, merge};
use super::request::{Carrier, DEFAULT_LIMIT, sort_of_query};
use super::respond::Writer;
use super::scan::{Malformed, Members};
use super::scatter::{Ask, Gathered, Outcome, Reader};
use super::sort_key::{SortKey, share_before, sort_keys};
use super::{SearchError, where_it_is};
use crate::answer::Answer;

/// A page that begins beyond this position is located by totals.
const NEAR: usize = 200;

/// A request for documents, as far as the merger must understand it.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    carrier: Carrier,
    window: Window,
    interest: Interest,
    /// Attributes that are fetched although the client didn't ask for them.
    attributes: Vec<String>,
}

impl Listing {
    /// Reads a request; `None` if it can't be read.
    pub(super) fn read(carrier: Carrier, primary_key: Option<&str>) -> Option<Self> {
        let skip = carrier.count("offset")?.unwrap_or(0);
        let take = carrier.count("limit")?.unwrap_or(DEFAULT_LIMIT);
        let sort = match &carrier {
            Carrier::Body(_) => carrier.list("sort")?.unwrap_or_default(),
            // Commas inside `_geoPoint(…)` don't separate criteria.
            Carrier::Query(_) => carrier.text("sort")?.map_or(Vec::new(), sort_of_query),
        };
        let sort = sort_keys(&sort)?;
        let fields = carrier
            .list("fields")?
            .filter(|fields| !fields.iter().any(|field| field == "*"));
        let fields = fields.as_deref();
        let wanted =
            |name: &&str| fields.is_some_and(|fields| !fields.iter().any(|field| field == name));
        let attributes: Vec<String> = sort
            .iter()
            .map(SortKey::attribute)
            .chain(primary_key)
            .filter(wanted)
            .map(str::to_owned)
            .collect();
        let strip = strippable(&attributes, fields.unwrap_or_default());
        let interest = Interest {
            strip,
            sort,
            id: primary_key.map(str::to_owned),
            ..Interest::default()
        };
        Some(Self {
            carrier,
            window: Window { skip, take },
            interest,
            attributes,
        })
    }

    fn ask(&self, skip: usize, take: usize) -> Carrier {
        let mut carrier = self.carrier.clone();
        carrier.set_count("offset", skip);
        carrier.set_count("limit", take);
        for attribute in &self.attributes {
            carrier.push("fields", attribute);
        }
        carrier
    }
}

/// One shard's documents.
struct ShardList {
    shard: ShardId,
    pages: Vec<Bytes>,
    /// How many of its documents precede the first page.
    from: usize,
    asked: usize,
}

/// Lists documents of `shards`.
pub(super) async fn list(
    reader: &Reader<'_>,
    path: &str,
    listing: &Listing,
    shards: &[ShardId],
) -> Result<Answer, SearchError> {
    let mut explanation = Explanation {
        why: where_it_is(shards, reader.index_shards),
        ..Explanation::default()
    };
    let far = listing.window.skip > NEAR && listing.interest.sort.is_empty();
    let share = listing.window.end().div_ceil(shards.len().max(1));
    let take = if far {
        0
    } else {
        listing.window.end().min(share + 4 * share.isqrt() + 12)
    };
    let carrier = listing.ask(0, take);
    let asks = shards
        .iter()
        .map(|shard| Ask::new(*shard, path, &carrier))
        .collect();
    let gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, _) => return Ok(answer),
        Outcome::Answers(gathered) => gathered,
    };
    explanation.add(&gathered, |_| (0, take));
    let missing = gathered.missing.clone();
    let totals = totals(&gathered)?;
    let mut lists: Vec<ShardList> = gathered
        .replies
        .into_iter()
        .map(|reply| ShardList {
            shard: reply.shard,
            pages: vec![reply.body],
            from: 0,
            asked: take,
        })
        .collect();
    let mut window = listing.window;
    if far {
        window.skip = 0;
        for (at, list) in lists.iter_mut().enumerate() {
            list.from = share_before(&totals, at, listing.window.skip);
            list.asked = share_before(&totals, at, listing.window.end()) - list.from;
            list.pages.clear();
        }
        let all: Vec<usize> = (0..lists.len()).collect();
        if let Some(refused) =
            fetch(reader, path, listing, &mut lists, &all, &mut explanation).await?
        {
            return Ok(refused);
        }
    }
    loop {
        let merging = reader.phase("merge");
        let merged = merge_lists(listing, window, far, &lists, &totals).map_err(|error| {
            SearchError::Unreadable {
                shard: lists.first().map_or(ShardId(0), |l| l.shard),
                error,
            }
        })?;
        if merged.dry.is_empty() {
            for ((list, total), kept) in lists.iter().zip(&totals).zip(&merged.kept) {
                explanation.outcome(list.shard, *total as u64, *kept);
            }
            let degraded = Degraded::new(&missing, shards.len());
            let explanation = reader.explain.then_some(&explanation);
            let total = totals.iter().sum::<usize>().saturating_sub(merged.twins);
            return respond(listing, &merged, total, degraded, explanation).map_err(|error| {
                SearchError::Unreadable {
                    shard: ShardId(0),
                    error,
                }
            });
        }
        let dry = merged.dry;
        drop(merging);
        if let Some(refused) =
            fetch(reader, path, listing, &mut lists, &dry, &mut explanation).await?
        {
            return Ok(refused);
        }
    }
}

/// Fetches the next documents for the lists at `places`.
async fn fetch(
    reader: &Reader<'_>,
    path: &str,
    listing: &Listing,
    lists: &mut [ShardList],
    places: &[usize],
    explanation: &mut Explanation,
) -> Result<Option<Answer>, SearchError> {
    let (mut asks, mut asked) = (Vec::new(), Vec::new());
    for list in places.iter().filter_map(|at| lists.get(*at)) {
        let skip = list.from + if list.pages.is_empty() { 0 } else { list.asked };
        if list.asked > 0 {
            asked.push((skip, list.asked));
            asks.push(Ask::new(list.shard, path, &listing.ask(skip, list.asked)));
        }
    }
    let gathered = match reader.gather(asks).await? {
        Outcome::Refused(answer, _) => return Ok(Some(answer)),
        Outcome::Answers(gathered) => gathered,
    };
    explanation.add(&gathered, |at| asked.get(at).copied().unwrap_or_default());
    for at in places {
        let Some(list) = lists.get_mut(*at) else {
            continue;
        };
        list.asked = if list.pages.is_empty() {
            list.asked
        } else {
            list.asked * 2
        };
        match gathered
            .replies
            .iter()
            .find(|reply| reply.shard == list.shard)
        {
            Some(reply) => list.pages.push(reply.body.clone()),
            None => list.asked = usize::MAX,
        }
    }
    Ok(None)
}

fn totals(gathered: &Gathered) -> Result<Vec<usize>, SearchError> {
    #[derive(serde::Deserialize)]
    struct Wire {
        total: usize,
    }
    let total = |reply: &super::scatter::Reply| {
        let error = Malformed { at: 0 };
        serde_json::from_slice::<Wire>(&reply.body)
            .map(|wire| wire.total)
            .map_err(|_| SearchError::Unreadable {
                shard: reply.shard,
                error,
            })
    };
    gathered.replies.iter().map(total).collect()
}

fn merge_lists<'a>(
    listing: &Listing,
    window: Window,
    far: bool,
    lists: &'a [ShardList],
    totals: &[usize],
) -> Result<Merged<'a>, Malformed> {
    let mut sources = Vec::with_capacity(lists.len());
    for (list, total) in lists.iter().zip(totals) {
        let pages = list
            .pages
            .iter()
            .map(|page| Ok((page.as_ref(), results_at(page)?)));
        let pages = pages.collect::<Result<Vec<_>, Malformed>>()?;
        // A document with several places in a sorted list makes the list longer than its total.
        let sorted = !listing.interest.sort.is_empty();
        let more = !far && list.asked < window.end() && (sorted || list.asked < *total);
        sources.push(Source::new(pages, more).asked_for(if sorted { list.asked } else { 0 }));
    }
    let window = if far {
        Window {
            skip: 0,
            take: listing.window.take,
        }
    } else {
        window
    };
    merge(
        sources,
        &Merging {
            order: Order::Rules,
            window,
            interest: &listing.interest,
            distinct: None,
            hidden: None,
            to_the_end: false,
            doubts: None,
        },
    )
}

fn results_at(page: &[u8]) -> Result<usize, Malformed> {
    let mut members = Members::new(page, 0);
    while let Some(member) = members.next()? {
        if member.key == b"results" {
            return Ok(member.value.start);
        }
    }
    Err(Malformed { at: members.at() })
}

fn respond(
    listing: &Listing,
    merged: &Merged<'_>,
    total: usize,
    degraded: Option<Degraded>,
    explanation: Option<&Explanation>,
) -> Result<Answer, Malformed> {
    let mut writer = Writer::new(
        merged
            .hits
            .iter()
            .map(|hit| hit.head.span.range.len() + 1)
            .sum::<usize>()
            + 256,
    );
    let out = writer.name("results");
    out.push(b'[');
    for (at, hit) in merged.hits.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        hit.head
            .span
            .write_open(hit.head.text, &listing.interest, out)?;
        out.push(b'}');
    }
    out.push(b']');
    writer.member("offset", &listing.window.skip);
    writer.member("limit", &listing.window.take);
    writer.member("total", &total);
    writer.optional("degraded", degraded.as_ref());
    writer.optional("explain", explanation);
    let answer = Answer::json_bytes(StatusCode::OK, writer.finish());
    Ok(degraded.map_or(answer.clone(), |degraded| degraded.on(answer)))
}
