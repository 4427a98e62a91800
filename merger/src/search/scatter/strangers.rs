//! Hits that a shard shows although another one owns their slots: while slots are moved, both shards hold their documents.
//!
//! Such a shard is asked for some hits more than are wanted, and its strangers are taken out of its answer. So everything behind
//! this module sees a shard's own hits only, as many as were asked for. If too few are left, the shard is asked again. Its totals
//! are lowered by the strangers that were seen, and its facets still count them: they are too high by no more than a batch of the
//! move.
//!
//! If an index hides from searches what tells its documents' slots (the primary key, or the routing field), its strangers can't
//! be told: a document may be shown twice for a moment, or in an older version.

mod more;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use weft_routing::document_id::DocumentId;
use weft_routing::operation::{Operation, classify};
use weft_routing::strategy::Strategy;
use weft_routing::value::RoutingValue;

use self::more::{More, member_of};
use super::{Ask, Reader};
use crate::cluster::Placement;
use crate::search::hit::{HitSpan, Interest};
use crate::search::request::{Carrier, DEFAULT_LIMIT};
use crate::search::scan::{Elements, Malformed, Members};
use crate::upstream::{NodeAnswer, UpstreamError};

/// How often a shard is asked again because too few of its own hits were left.
const ROUNDS: usize = 6;
/// Lists that begin beyond this position are taken as they are: to count the strangers before them, all hits before would have to be
/// read. One that ends beyond it reads as much anyway.
const FAR: usize = 10_000;

/// The part of a list that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    skip: usize,
    take: usize,
}

impl Wanted {
    fn end(self) -> usize {
        self.skip.saturating_add(self.take)
    }

    /// How many hits are asked for at first: a few may be strangers.
    fn widened(self, more: usize) -> usize {
        let end = self.end();
        end.saturating_add(end / 4).saturating_add(4 + more)
    }

    fn of(carrier: &Carrier) -> Option<(Self, bool)> {
        let (page, per_page) = (carrier.count("page")?, carrier.count("hitsPerPage")?);
        if page.is_some() || per_page.is_some() {
            let take = per_page.unwrap_or(DEFAULT_LIMIT);
            let skip = page.unwrap_or(1).saturating_sub(1).saturating_mul(take);
            return Some((Self { skip, take }, true));
        }
        let (skip, take) = (carrier.count("offset")?, carrier.count("limit")?);
        let wanted = Self {
            skip: skip.unwrap_or(0),
            take: take.unwrap_or(DEFAULT_LIMIT),
        };
        Some((wanted, false))
    }
}

/// One list of an answer.
#[derive(Debug)]
struct List {
    wanted: Wanted,
    by_page: bool,
    /// The index; `None` for a list whose hits name their indexes.
    index: Option<String>,
}

/// A request to a shard that may show strangers.
struct Strange<'a> {
    ask: &'a Ask,
    operation: Operation,
    /// The unsettled indexes that the request concerns.
    indexes: HashMap<String, Arc<Placement>>,
    lists: Vec<List>,
    /// For each query, in order, what its hits must show in addition.
    more: Vec<More>,
}

/// Asks a shard, and takes the strangers out of its answer. `None` if the shard can't show any.
pub(super) async fn answer(
    reader: &Reader<'_>,
    ask: &Ask,
) -> Option<(Result<NodeAnswer, UpstreamError>, Duration)> {
    let strange = Strange::of(reader, ask)?;
    let began = Instant::now();
    let mut more = 0;
    for _ in 0..ROUNDS {
        let (asked, result) = match strange.wider(more) {
            Some(wider) => {
                let result = reader.ask_once(&wider).await.0;
                (true, result)
            }
            None => (false, reader.ask_once(ask).await.0),
        };
        let Ok(answer) = result else {
            return Some((result, began.elapsed()));
        };
        if !asked || answer.status != StatusCode::OK {
            return Some((Ok(answer), began.elapsed()));
        }
        match strange.without(&answer.body, more) {
            Ok(Owned { body, lacks: 0, .. }) => {
                let body = body.into();
                return Some((Ok(NodeAnswer { body, ..answer }), began.elapsed()));
            }
            Ok(Owned { lacks, .. }) => more = more * 2 + lacks * 2,
            // Who reads the answer next will say so.
            Err(_) => return Some((Ok(answer), began.elapsed())),
        }
    }
    None
}

/// Whether the shard that is asked may hold documents of others.
pub(super) fn may_hold(reader: &Reader<'_>, ask: &Ask) -> bool {
    let placements = &reader.ctx.cluster.placements;
    if !placements.any_unsettled() {
        return false;
    }
    let asked = classify(ask.method.as_str(), &ask.path_and_query);
    let index = asked.ok().and_then(|asked| asked.index);
    match index {
        Some(index) => placements
            .get(&index)
            .is_some_and(|index| index.unsettled.contains(&ask.shard)),
        None => Strange::of(reader, ask).is_some(),
    }
}

/// An answer without strangers.
#[derive(Debug)]
struct Owned {
    body: Vec<u8>,
    /// How many hits are missing although the shard may have more.
    lacks: usize,
}

impl<'a> Strange<'a> {
    fn of(reader: &Reader<'_>, ask: &'a Ask) -> Option<Self> {
        let placements = &reader.ctx.cluster.placements;
        if !placements.any_unsettled() {
            return None;
        }
        let asked = classify(ask.method.as_str(), &ask.path_and_query).ok()?;
        let unsettled = |uid: &str| {
            let placement = placements.get(uid)?;
            let is_strange = placement.unsettled.contains(&ask.shard);
            is_strange.then_some(placement)
        };
        let carrier = || match &ask.body {
            Some(body) => Carrier::from_body(body),
            None => Some(Carrier::from_query(form_urlencoded::parse(
                asked.query.as_bytes(),
            ))),
        };
        let mut strange = Self {
            ask,
            operation: asked.operation,
            indexes: HashMap::new(),
            lists: Vec::new(),
            more: Vec::new(),
        };
        match asked.operation {
            Operation::SearchGet
            | Operation::SearchPost
            | Operation::SimilarGet
            | Operation::SimilarPost
            | Operation::ListDocuments
            | Operation::FetchDocuments => {
                let index = asked.index?.into_owned();
                let placement = unsettled(&index)?;
                let carrier = carrier()?;
                let (wanted, by_page) = Wanted::of(&carrier)?;
                let member = member_of(asked.operation);
                strange.more.push(More::of(&carrier, &placement, member)?);
                strange.indexes.insert(index.clone(), placement);
                strange.lists.push(List {
                    wanted,
                    by_page,
                    index: Some(index),
                });
            }
            Operation::MultiSearch => {
                let body: Value = serde_json::from_slice(ask.body.as_deref()?).ok()?;
                let queries = body.get("queries")?.as_array()?;
                let federation = body.get("federation").and_then(Value::as_object);
                if let Some(federation) = federation {
                    let (wanted, by_page) = Wanted::of(&Carrier::Body(federation.clone()))?;
                    strange.lists.push(List {
                        wanted,
                        by_page,
                        index: None,
                    });
                }
                for query in queries {
                    let index = query.get("indexUid")?.as_str()?.to_owned();
                    let carrier = Carrier::Body(query.as_object()?.clone());
                    let mut more = More::default();
                    if let Some(placement) = unsettled(&index) {
                        more = More::of(&carrier, &placement, member_of(asked.operation))?;
                        strange.indexes.insert(index.clone(), placement);
                    }
                    strange.more.push(more);
                    if federation.is_none() {
                        let (wanted, by_page) = Wanted::of(&carrier)?;
                        strange.lists.push(List {
                            wanted,
                            by_page,
                            index: Some(index),
                        });
                    }
                }
            }
            _ => return None,
        }
        let shows = strange.lists.iter().any(|list| list.wanted.take > 0);
        (shows && !strange.indexes.is_empty()).then_some(strange)
    }

    /// The request for more hits than are wanted; `None` if no list is asked for more.
    fn wider(&self, more: usize) -> Option<Ask> {
        let widen = |carrier: &mut Carrier, list: &List| {
            if !self.may_show(list) {
                return false;
            }
            let take = list.wanted.widened(more);
            match list.by_page {
                true => {
                    carrier.set_count("page", 1);
                    carrier.set_count("hitsPerPage", take);
                }
                false => {
                    carrier.set_count("offset", 0);
                    carrier.set_count("limit", take);
                }
            }
            true
        };
        if self.operation != Operation::MultiSearch {
            let list = self.lists.first()?;
            let (path, query) = match self.ask.path_and_query.split_once('?') {
                Some((path, query)) => (path, query),
                None => (self.ask.path_and_query.as_str(), ""),
            };
            let mut carrier = match &self.ask.body {
                Some(body) => Carrier::from_body(body)?,
                None => Carrier::from_query(form_urlencoded::parse(query.as_bytes())),
            };
            if let Some(more) = self.more.first() {
                more.push(&mut carrier, member_of(self.operation));
            }
            return widen(&mut carrier, list).then(|| Ask::new(self.ask.shard, path, &carrier));
        }
        let mut body: Value = serde_json::from_slice(self.ask.body.as_deref()?).ok()?;
        let federated = body.get("federation").is_some_and(Value::is_object);
        let mut any = false;
        for (at, list) in self.lists.iter().enumerate() {
            let place = match federated {
                true => body.get_mut("federation"),
                false => body.get_mut("queries").and_then(|all| all.get_mut(at)),
            };
            let members = place.and_then(Value::as_object_mut)?;
            let mut carrier = Carrier::Body(std::mem::take(members));
            any |= widen(&mut carrier, list);
            if let Carrier::Body(wider) = carrier {
                *members = wider;
            }
        }
        if !any {
            return None;
        }
        let queries = body.get_mut("queries").and_then(Value::as_array_mut);
        for (query, more) in queries.into_iter().flatten().zip(&self.more) {
            let mut carrier = Carrier::Body(std::mem::take(query.as_object_mut()?));
            more.push(&mut carrier, member_of(self.operation));
            if let Carrier::Body(members) = carrier {
                *query = Value::Object(members);
            }
        }
        Some(Ask {
            body: Some(serde_json::to_vec(&body).unwrap_or_default().into()),
            ..self.ask.clone()
        })
    }

    /// Whether a list may show strangers that are to be taken out.
    fn may_show(&self, list: &List) -> bool {
        let unsettled = match &list.index {
            Some(index) => self.indexes.contains_key(index),
            None => true,
        };
        unsettled && list.wanted.take > 0 && list.wanted.skip <= FAR
    }

    fn without(&self, body: &[u8], more: usize) -> Result<Owned, Malformed> {
        let several = self.operation == Operation::MultiSearch
            && self.lists.first().is_none_or(|list| list.index.is_some());
        if !several {
            return match self.lists.first() {
                Some(list) => self.of_list(body, 0, (list, self.more.first()), more),
                None => Err(Malformed { at: 0 }),
            };
        }
        let mut out = Vec::with_capacity(body.len());
        let mut lacks = 0;
        let mut lists = self.lists.iter().zip(&self.more);
        rewrite(body, 0, &mut out, |member, out| {
            if member.key != b"results" {
                return Ok(false);
            }
            out.push(b'[');
            let mut elements = Elements::new(body, member.value.start);
            let mut first = true;
            while let Some(at) = elements.enter()? {
                let (list, shown) = lists.next().ok_or(Malformed { at })?;
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                let mut members = Members::new(body, at);
                while members.next()?.is_some() {}
                elements.resume(members.at());
                match self.may_show(list) {
                    true => {
                        let owned = self.of_list(body, at, (list, Some(shown)), more)?;
                        lacks += owned.lacks;
                        out.extend(owned.body);
                    }
                    false => out.extend(body.get(at..members.at()).unwrap_or_default()),
                }
            }
            out.push(b']');
            Ok(true)
        })?;
        Ok(Owned { body: out, lacks })
    }

    /// The object that begins at `at`, with the list's own hits only.
    fn of_list(
        &self,
        body: &[u8],
        at: usize,
        (list, shown): (&List, Option<&More>),
        more: usize,
    ) -> Result<Owned, Malformed> {
        let mut hits = Vec::new();
        let (mut read, mut own) = (0, 0);
        let mut members = Members::new(body, at);
        while let Some(member) = members.next()? {
            if member.key == b"hits" || member.key == b"results" {
                let mut elements = Elements::new(body, member.value.start);
                hits.push(b'[');
                while let Some(at) = elements.enter()? {
                    read += 1;
                    let (is_own, end) = self.take(body, at, (list, shown), own, &mut hits)?;
                    elements.resume(end);
                    own += usize::from(is_own);
                }
                hits.push(b']');
            }
        }
        let strangers = read - own;
        let mut out = Vec::with_capacity(body.len());
        rewrite(body, at, &mut out, |member, out| {
            match member.key {
                b"hits" | b"results" => out.extend_from_slice(&hits),
                b"estimatedTotalHits" | b"totalHits" | b"total" => {
                    let text = body.get(member.value.clone()).unwrap_or_default();
                    let text = std::str::from_utf8(text).unwrap_or_default().trim();
                    let Ok(total) = text.parse::<usize>() else {
                        return Ok(false);
                    };
                    let total = total.saturating_sub(strangers);
                    out.extend_from_slice(total.to_string().as_bytes());
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let full = read >= list.wanted.widened(more);
        let lacks = match full {
            true => list.wanted.end().saturating_sub(own),
            false => 0,
        };
        Ok(Owned { body: out, lacks })
    }

    /// Looks at the hit that begins at `at`, and writes it if it is the shard's own and within the wanted part, where `own` came
    /// before it. Returns whether it is the shard's own, and where it ends.
    fn take(
        &self,
        body: &[u8],
        at: usize,
        (list, shown): (&List, Option<&More>),
        own: usize,
        hits: &mut Vec<u8>,
    ) -> Result<(bool, usize), Malformed> {
        let mut interest = Interest::default();
        let (index, shown) = match &list.index {
            Some(index) => (index.clone(), shown),
            None => {
                interest.pick = Some("_federation".to_owned());
                let note = HitSpan::read(body, at, &interest)?.picked;
                #[derive(Deserialize, Default)]
                #[serde(rename_all = "camelCase", default)]
                struct Note {
                    index_uid: String,
                    queries_position: usize,
                }
                let note = note.and_then(|range| body.get(range));
                let note = note.and_then(|text| serde_json::from_slice::<Note>(text).ok());
                let note = note.unwrap_or_default();
                (note.index_uid, self.more.get(note.queries_position))
            }
        };
        let placement = self.indexes.get(&index);
        interest.id = placement.and_then(|index| index.primary_key.clone());
        interest.pick = placement
            .and_then(|index| index.slots.field())
            .map(ToString::to_string);
        if let Some(more) = shown.filter(|more| !more.names.is_empty()) {
            interest.strip.clone_from(&more.names);
            interest.added.formatted = !more.formats.is_empty();
            interest.formats.clone_from(&more.formats);
        }
        let span = HitSpan::read(body, at, &interest)?;
        let end = span.range.end;
        let text = |range: &Option<std::ops::Range<usize>>| {
            let bytes = range.clone().and_then(|range| body.get(range));
            bytes.and_then(|bytes| std::str::from_utf8(bytes).ok())
        };
        let owner = placement.and_then(|index| {
            let value = || RoutingValue::from_json(text(&span.picked)?).ok();
            let id = || DocumentId::from_json(text(&span.id)?).ok();
            match index.slots.strategy() {
                // The id needn't be shown.
                Strategy::Field(_) => Some(index.slots.shard_of_value(&value()?)),
                _ => index.slots.shard_of_document(&id()?, value().as_ref()),
            }
        });
        let is_own = owner.is_none_or(|owner| owner == self.ask.shard);
        if is_own && own >= list.wanted.skip && own < list.wanted.end() {
            if hits.len() > 1 {
                hits.push(b',');
            }
            span.write_open(body, &interest, hits)?;
            hits.push(b'}');
        }
        Ok((is_own, end))
    }
}

/// Writes the object that begins at `at`; `change` writes the new value of a member, or says that it stays.
fn rewrite<'a>(
    body: &'a [u8],
    at: usize,
    out: &mut Vec<u8>,
    mut change: impl FnMut(&crate::search::scan::Member<'a>, &mut Vec<u8>) -> Result<bool, Malformed>,
) -> Result<(), Malformed> {
    out.push(b'{');
    let mut members = Members::new(body, at);
    let mut first = true;
    while let Some(member) = members.next()? {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        let name = body.get(member.start..member.value.start);
        out.extend_from_slice(name.unwrap_or_default());
        if !change(&member, out)? {
            let value = body.get(member.value.clone());
            out.extend_from_slice(value.unwrap_or_default());
        }
    }
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests;
