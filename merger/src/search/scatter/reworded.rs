//! Rewrites filters so that they mean the same on every shard: see [`crate::filters`].
//!
//! A shard may refuse a rewritten filter with an error about the rewritten text. Then the client's own filter is sent, so
//! that the error fits it.
//!
//! A node adds a tenant token's filter itself, where the merger can't rewrite it. If that filter would have to be
//! rewritten, the search is first sent as it came, so that a node judges the token. If the token is accepted, the same
//! search is sent again on the merger's own authority, with the token's filter, rewritten, beside the client's.

use bytes::Bytes;
use futures_util::future::join_all;
use hashbrown::HashSet;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use weft_routing::placement::ShardId;

use super::{Ask, Outcome, Reader};
use crate::answer::Answer;
use crate::filters::TenantRules;
use crate::filters::requests::{Change, Request, may_compare};
use crate::filters::tenant::joined;
use crate::filters::{MOST_FIELDS, unequal, words};
use crate::search::SearchError;
use crate::upstream::NodeAnswer;

/// The most of these small questions that are under way at once for one request.
const AT_ONCE: usize = 32;

/// The fields of each index that a request compares by `!=` and that at least one shard knows.
type Known = HashSet<(String, String)>;

/// The shards' answers to filters that mean the same on all of them.
pub(super) async fn gather(reader: &Reader<'_>, asks: Vec<Ask>) -> Result<Outcome, SearchError> {
    let rules = reader.rules();
    if rules.is_none() && !asks.iter().any(Ask::may_compare) {
        return reader.gather_as_asked(asks).await;
    }
    let mut compared = HashSet::new();
    let mut compared_by_rules = HashSet::new();
    changed(&asks, &mut |index, filter| {
        let all = |filter: Option<&Value>| {
            let fields = filter.map(unequal::fields).unwrap_or_default();
            fields.into_iter().map(|field| (index.to_owned(), field))
        };
        compared.extend(all(filter));
        let rule = rules.and_then(|rules| rules.filter_of(index));
        compared_by_rules.extend(all(rule));
        None
    });
    compared.extend(compared_by_rules.iter().cloned());
    let known = known_among(reader, compared).await?;
    if known.is_empty() {
        return reader.gather_as_asked(asks).await;
    }
    let outcome = match changed(&asks, &mut |index, filter| reword(&known, index, filter)) {
        Some(reworded) => match reader.gather_as_asked(reworded).await? {
            Outcome::Refused(refusal, shard) => {
                // A shard that lacks a field may not reach the part of the request that is refused.
                match reader.gather_as_asked(asks.clone()).await? {
                    Outcome::Answers(_) => {
                        Outcome::Refused(in_clients_words(refusal, &asks), shard)
                    }
                    refused => refused,
                }
            }
            outcome => outcome,
        },
        None => reader.gather_as_asked(asks.clone()).await?,
    };
    match (rules, &outcome) {
        // Every shard must have judged the token, since one shard may hold an index that the others don't.
        (Some(rules), Outcome::Answers(judged))
            if judged.missing.is_empty() && !compared_by_rules.is_disjoint(&known) =>
        {
            let whole = gather_with_rules(reader, &asks, rules, &known).await?;
            Ok(whole.unwrap_or(outcome))
        }
        // The token was accepted, and its filter may hide the document only because a field is lacking.
        (Some(rules), Outcome::Refused(refusal, _))
            if is_about_a_hidden_document(refusal) && !compared_by_rules.is_disjoint(&known) =>
        {
            if !is_visible(reader, &asks, rules, &known).await? {
                return Ok(outcome);
            }
            let whole = gather_with_rules(reader, &asks, rules, &known).await?;
            Ok(whole.unwrap_or(outcome))
        }
        _ => Ok(outcome),
    }
}

/// The same searches with a tenant token's filters beside the client's, for a token that every shard has accepted.
async fn gather_with_rules(
    reader: &Reader<'_>,
    asks: &[Ask],
    rules: &TenantRules,
    known: &Known,
) -> Result<Option<Outcome>, SearchError> {
    let with_rules = changed(asks, &mut |index, filter| match rules.filter_of(index) {
        Some(rule) => {
            let both = joined(filter, rule);
            Some(reword(known, index, Some(&both)).unwrap_or(both))
        }
        None => reword(known, index, filter),
    });
    let Some(with_rules) = with_rules else {
        return Ok(None);
    };
    match reader.with_own_key().gather_as_asked(with_rules).await? {
        Outcome::Refused(..) => Ok(None),
        whole => Ok(Some(whole)),
    }
}

fn reword(known: &Known, index: &str, filter: Option<&Value>) -> Option<Value> {
    let is_known = |field: &str| known.contains(&(index.to_owned(), field.to_owned()));
    unequal::reworded(filter?, &is_known)
}

/// True if a node doesn't find the document for which similar ones are requested.
fn is_about_a_hidden_document(refusal: &Answer) -> bool {
    let error: Value = serde_json::from_slice(&refusal.body).unwrap_or_default();
    error.get("code").and_then(Value::as_str) == Some("not_found_similar_id")
}

/// Whether the rewritten filter of a tenant token shows the document for which similar ones are requested. With the merger's own
/// authority, a node would find it anyway.
async fn is_visible(
    reader: &Reader<'_>,
    asks: &[Ask],
    rules: &TenantRules,
    known: &Known,
) -> Result<bool, SearchError> {
    let [ask] = asks else {
        return Ok(false);
    };
    let mut fetch = None;
    changed(asks, &mut |index, _| {
        let rule = rules.filter_of(index)?;
        let filter = reword(known, index, Some(rule)).unwrap_or_else(|| rule.clone());
        let body =
            json!({"ids": [ask.similar_to()?], "filter": filter, "limit": 1, "fields": ["_"]});
        fetch = Some(Ask {
            shard: ask.shard,
            method: Method::POST,
            path_and_query: format!("/indexes/{index}/documents/fetch"),
            body: Some(Bytes::from(body.to_string())),
        });
        None
    });
    let Some(fetch) = fetch else {
        return Ok(false);
    };
    let (answer, _) = reader.on_own_authority().answer(&fetch).await;
    Ok(finds_documents(&answer?))
}

/// A refusal whose text quotes the client's filter instead of the rewritten one.
fn in_clients_words(mut refusal: Answer, asks: &[Ask]) -> Answer {
    let mut said = None;
    changed(asks, &mut |_, filter| {
        said = said
            .take()
            .or_else(|| words::of_refusal(&refusal.body, filter?));
        None
    });
    if let Some(said) = said {
        refusal.body = said;
    }
    refusal
}

impl Ask {
    fn may_compare(&self) -> bool {
        may_compare(&self.path_and_query, self.body.as_deref())
    }

    /// The id of the document for which similar ones are requested.
    fn similar_to(&self) -> Option<Value> {
        if let Some(body) = &self.body {
            let body: Value = serde_json::from_slice(body).ok()?;
            return body.get("id").cloned();
        }
        let (_, query) = self.path_and_query.split_once('?')?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let id = pairs.find(|(name, _)| name == "id")?.1;
        Some(Value::from(id.into_owned()))
    }

    fn request(&self) -> Request {
        Request {
            method: self.method.clone(),
            path_and_query: self.path_and_query.clone(),
            body: self.body.clone(),
        }
    }
}

/// The requests with changed filters; `None` if none is changed. Shards often get equal requests, so each is read once.
fn changed(asks: &[Ask], change: &mut Change<'_>) -> Option<Vec<Ask>> {
    let mut last: Option<(Request, Option<Request>)> = None;
    let mut any = false;
    let new = asks.iter().map(|ask| {
        let request = ask.request();
        let new = match &last {
            Some((known, new)) if is_same(known, &request) => new.clone(),
            _ => request.with_filters(change),
        };
        any |= new.is_some();
        let changed = new.clone().map(|new| Ask {
            shard: ask.shard,
            method: new.method,
            path_and_query: new.path_and_query,
            body: new.body,
        });
        last = Some((request, new));
        changed.unwrap_or_else(|| ask.clone())
    });
    let new = new.collect();
    any.then_some(new)
}

/// True if two requests are equal and their bodies share one piece of memory.
fn is_same(a: &Request, b: &Request) -> bool {
    let place = |request: &Request| {
        request
            .body
            .as_ref()
            .map(|body| (body.as_ptr(), body.len()))
    };
    a.path_and_query == b.path_and_query && place(a) == place(b)
}

/// Those of the fields that at least one shard of their index knows.
async fn known_among(
    reader: &Reader<'_>,
    compared: HashSet<(String, String)>,
) -> Result<Known, SearchError> {
    let fields = &reader.ctx.known_fields;
    let (mark, goes_by_memory) = (fields.mark(), reader.from.goes_by_memory());
    let mut known = Known::new();
    let mut asks = Vec::new();
    let mut about = Vec::new();
    for (index, field) in compared.into_iter().take(MOST_FIELDS) {
        let Some(placement) = reader.ctx.cluster.placement(&index) else {
            continue;
        };
        // If an index is on one shard only, that shard knows all of its fields.
        let shards = placement.shards();
        if shards.len() < 2 {
            continue;
        }
        if goes_by_memory && fields.look(&index, field.as_str()).is_some() {
            known.insert((index, field));
            continue;
        }
        for shard in shards {
            asks.push(question(*shard, &index, &field));
            about.push((index.clone(), field.clone()));
        }
    }
    let own = reader.on_own_authority();
    let mut answers = Vec::with_capacity(asks.len());
    for some in asks.chunks(AT_ONCE) {
        answers.extend(join_all(some.iter().map(|ask| own.answer(ask))).await);
    }
    for (about, (answer, _)) in about.into_iter().zip(answers) {
        match answer {
            Ok(answer) if finds_documents(&answer) => {
                if goes_by_memory {
                    fields.remember(mark, &about.0, vec![(about.1.clone(), ())]);
                }
                known.insert(about);
            }
            Ok(_) => {}
            Err(_) if reader.partial() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(known)
}

/// Asks a shard whether it knows the field: the answer has no documents, and its total is 0 if the field is unknown.
fn question(shard: ShardId, index: &str, field: &str) -> Ask {
    let body = json!({"filter": unequal::is_known(field), "limit": 0, "fields": ["_"]});
    Ask {
        shard,
        method: Method::POST,
        path_and_query: format!("/indexes/{index}/documents/fetch"),
        body: Some(Bytes::from(body.to_string())),
    }
}

fn finds_documents(answer: &NodeAnswer) -> bool {
    let total = || {
        let answer: Value = serde_json::from_slice(&answer.body).ok()?;
        answer.get("total")?.as_u64()
    };
    answer.status == StatusCode::OK && total().is_some_and(|total| total > 0)
}
