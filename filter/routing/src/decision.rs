//! Decides what to do with a request: send it directly to a shard, send it to the merger, look at the body first, or refuse it.
//!
//! The merger can handle everything, and a direct route is only a shortcut to the same answer. So every doubtful request
//! (no table, an unknown index, an odd id, a special header) goes to the merger.

use crate::body::{self, BodyFormat, DocumentIds};
use crate::document_id::DocumentId;
use crate::filters::{Asked, TenantRules};
use crate::operation::{Classified, Operation};
use crate::placement::ShardId;
use crate::table::{IndexRoute, RoutingTable};

/// What the filter's configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// True if bodies may be held: small request bodies, and the answers of direct writes.
    pub body_routing: bool,
    /// The largest body that is looked at, in bytes.
    pub max_body_bytes: u64,
}

/// What the headers say about the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyFacts {
    /// The format, if ids can be found in it.
    pub format: Option<BodyFormat>,
    /// True if there is a `content-encoding`.
    pub encoded: bool,
    /// The `content-length`, if there is a valid one.
    pub length: Option<u64>,
}

/// What the headers say beside method and path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts<'h> {
    /// True if the client used a public header to ask for something that only the merger can do.
    pub special: bool,
    /// What they say about the body.
    pub body: BodyFacts,
    /// The client's `authorization`, which may add a filter to its searches.
    pub authorization: Option<&'h str>,
}

/// A request that was held because of [`Decision::LookAtBody`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<'h> {
    /// The operation.
    pub operation: Operation,
    /// The index in its path.
    pub index: &'h str,
    /// The format of its body.
    pub format: BodyFormat,
    /// The client's `authorization`.
    pub authorization: Option<&'h str>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Directly to a shard, whose answer is the cluster's answer.
    DirectRead(ShardId),
    /// Directly to a shard. The task in the answer must be registered with the merger.
    DirectWrite(ShardId),
    /// Hold the request until the body is complete (or proves too large), then [`decide_by_body`].
    LookAtBody(BodyFormat),
    /// To the merger.
    Merge,
    /// Not allowed for clients: 404.
    Refuse,
}

/// Which of the [`Facts`] a decision depends on. To find one costs the filter more than to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// None: any will do.
    Nothing,
    /// [`Facts::special`] alone.
    Special,
    /// All of them.
    All,
}

/// Says which facts [`decide`] would look at.
#[must_use]
pub fn needs(classified: &Classified<'_>, table: Option<&RoutingTable>) -> Needs {
    let operation = classified.operation;
    let index = classified.index.as_deref();
    let Some(route) = table.zip(index).and_then(|(table, index)| table.get(index)) else {
        return Needs::Nothing;
    };
    if operation.is_whole_on_one_shard() {
        let is_search = matches!(operation, Operation::SearchGet | Operation::SearchPost);
        let by_value = is_search && route.slots.field().is_some();
        return match (route.direct_reads, route.slots.only_shard()) {
            (false, _) => Needs::Nothing,
            (true, None) if by_value => Needs::All,
            (true, None) if classified.document.is_none() => Needs::Nothing,
            (true, _) => Needs::Special,
        };
    }
    match operation {
        _ if !route.direct_writes => Needs::Nothing,
        Operation::DeleteDocument => Needs::Special,
        _ if operation.writes_named_documents() => Needs::All,
        _ => Needs::Nothing,
    }
}

/// Decides by the request's head.
///
/// `table` is `None` if there is no table or its lease has expired.
#[must_use]
pub fn decide(
    classified: &Classified<'_>,
    table: Option<&RoutingTable>,
    facts: Facts<'_>,
    policy: Policy,
) -> Decision {
    let operation = classified.operation;
    if operation == Operation::Internal {
        return Decision::Refuse;
    }
    let index = classified.index.as_deref();
    let Some(route) = table.zip(index).and_then(|(table, index)| table.get(index)) else {
        return Decision::Merge;
    };
    if facts.special {
        return Decision::Merge;
    }
    let direct = match operation {
        _ if operation.is_whole_on_one_shard() => read_directly(classified, route, facts, policy),
        Operation::DeleteDocument => delete_directly(classified, route, policy),
        _ if operation.writes_named_documents() => {
            write_directly(classified, route, facts.body, policy)
        }
        _ => None,
    };
    direct.unwrap_or(Decision::Merge)
}

/// Decides a request for which [`decide`] returned [`Decision::LookAtBody`].
#[must_use]
pub fn decide_by_body(held: &Held<'_>, route: &IndexRoute, body: &[u8]) -> Decision {
    let direct = match held.operation {
        Operation::SearchPost => Asked::of_body(body)
            .and_then(|asked| search_directly(&asked, held.index, route, held.authorization)),
        _ => write_of_one_shard(held, route, body).map(Decision::DirectWrite),
    };
    direct.unwrap_or(Decision::Merge)
}

fn write_of_one_shard(held: &Held<'_>, route: &IndexRoute, body: &[u8]) -> Option<ShardId> {
    let primary_key = route
        .primary_key
        .as_deref()
        .filter(|_| route.direct_writes)?;
    let Held {
        operation, format, ..
    } = *held;
    match body::owners(operation, format, primary_key, &route.slots, body) {
        Ok(DocumentIds::One(shard)) => Some(shard),
        _ => None,
    }
}

/// If one shard holds the whole index, it answers every read of that index; otherwise the path must name the document, or the
/// search its routing value.
fn read_directly(
    classified: &Classified<'_>,
    route: &IndexRoute,
    facts: Facts<'_>,
    policy: Policy,
) -> Option<Decision> {
    if !route.direct_reads {
        return None;
    }
    if let Some(only) = route.slots.only_shard() {
        return Some(Decision::DirectRead(only));
    }
    let by_field = route.slots.field().is_some();
    match classified.operation {
        Operation::SearchGet if by_field => {
            let asked = Asked::of_query(classified.query)?;
            let index = classified.index.as_deref()?;
            search_directly(&asked, index, route, facts.authorization)
        }
        Operation::SearchPost if by_field => {
            let format = readable(facts.body, policy)?;
            (format == BodyFormat::Json).then_some(Decision::LookAtBody(format))
        }
        _ => owner_by_path(classified, route).map(Decision::DirectRead),
    }
}

/// The shard that holds all that a search can match, if the merger, too, would only pass the search on to it.
fn search_directly(
    asked: &Asked<'_>,
    index: &str,
    route: &IndexRoute,
    authorization: Option<&str>,
) -> Option<Decision> {
    if !route.direct_reads {
        return None;
    }
    let rules = authorization.map(TenantRules::read).transpose().ok()?;
    let shard = asked.only_shard(index, rules.flatten().as_ref(), &route.slots)?;
    Some(Decision::DirectRead(shard))
}

/// The format of a body that may be held and looked at.
fn readable(body: BodyFacts, policy: Policy) -> Option<BodyFormat> {
    let small = body
        .length
        .is_none_or(|length| length > 0 && length <= policy.max_body_bytes);
    let allowed = policy.body_routing && small && !body.encoded;
    body.format.filter(|_| allowed)
}

fn delete_directly(
    classified: &Classified<'_>,
    route: &IndexRoute,
    policy: Policy,
) -> Option<Decision> {
    let plain = policy.body_routing && route.direct_writes && classified.query.is_empty();
    let owner = owner_by_path(classified, route).filter(|_| plain)?;
    Some(Decision::DirectWrite(owner))
}

fn write_directly(
    classified: &Classified<'_>,
    route: &IndexRoute,
    body: BodyFacts,
    policy: Policy,
) -> Option<Decision> {
    let known_key = route.primary_key.as_deref()?;
    if !route.direct_writes || !query_is_harmless(classified.query, known_key) {
        return None;
    }
    readable(body, policy).map(Decision::LookAtBody)
}

/// The owner of the document that the path names, if its id is valid and tells.
fn owner_by_path(classified: &Classified<'_>, route: &IndexRoute) -> Option<ShardId> {
    let id = DocumentId::from_text(classified.document.as_deref()?).ok()?;
    route.slots.shard_of(&id)
}

/// True if a direct write's query doesn't change its meaning: it may only name the known primary key.
fn query_is_harmless(query: &str, known_key: &str) -> bool {
    query.is_empty() || query.strip_prefix("primaryKey=") == Some(known_key)
}
