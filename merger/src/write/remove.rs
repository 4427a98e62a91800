//! Deletions and editions: a deletion by id goes to the shards that own the ids, and a deletion by filter to those that can match it;
//! everything else to every shard of the index. So does a deletion by id where an id doesn't tell the shard.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::Value;
use weft_routing::document_id::DocumentId;
use weft_routing::filters::Asked;
use weft_routing::operation::Operation;
use weft_routing::placement::{ShardId, SlotMap};

use super::decode::Plain;
use super::deliver::{Delivery, ShardPayload};
use super::params::custom_metadata;
use super::spool::{Framing, Piece};
use super::{WriteError, deliver_as_task, details, first_shard, reworded};
use crate::answer::Answer;
use crate::call::{Call, empty};
use crate::cluster::{Held, Placement};
use crate::filters::words;
use crate::replication::named;
use crate::tasks::NewTask;
use crate::write::Context;

/// `DELETE …/documents/{id}`.
pub(super) async fn one(ctx: &Arc<Context>, call: Call) -> Result<Answer, WriteError> {
    let document = call.document.clone();
    let first = first_shard(ctx)?;
    let lay_out = move |placement: Option<&Placement>| {
        let slots = placement.map(slots_of);
        let id = document.as_deref();
        let id = id.and_then(|id| DocumentId::from_text(id).ok());
        let shards = match (slots, id) {
            (Some(slots), Some(id)) => owners(slots, &id),
            // The id can't belong to a document, or the index doesn't exist: any shard words that.
            (Some(slots), None) => vec![first_of(slots)],
            (None, _) => vec![first],
        };
        let loads = shards.into_iter();
        loads.map(|shard| load(shard, Bytes::new())).collect()
    };
    let details = details([
        ("providedIds", 1.into()),
        ("deletedDocuments", Value::Null),
        ("originalFilter", Value::Null),
    ]);
    let task = task("documentDeletion", &call, details);
    deliver_as_task(ctx, delivery(ctx, &call)?, task, lay_out).await
}

/// `POST …/documents/delete-batch`.
pub(super) async fn batch(ctx: &Arc<Context>, mut call: Call) -> Result<Answer, WriteError> {
    let body = body(ctx, &mut call).await?;
    let ids: Option<Vec<Value>> = serde_json::from_slice(&body).ok();
    let provided = ids.as_ref().map_or(0, Vec::len);
    let details = details([
        ("providedIds", provided.into()),
        ("deletedDocuments", Value::Null),
        ("originalFilter", Value::Null),
    ]);
    let task = task("documentDeletion", &call, details);
    let first = first_shard(ctx)?;
    let lay_out = move |placement: Option<&Placement>| match (placement.map(slots_of), &ids) {
        (Some(slots), Some(ids)) => split(slots, ids),
        // The body isn't a list, or the index doesn't exist: a node words that.
        (Some(slots), None) => vec![load(first_of(slots), body.clone())],
        (None, _) => vec![load(first, body.clone())],
    };
    deliver_as_task(ctx, delivery(ctx, &call)?, task, lay_out).await
}

/// Deletion by filter, deletion of all documents, and edition by function: the same request to every shard of the index, but for a
/// filter that can match on some shards only.
pub(super) async fn everywhere(ctx: &Arc<Context>, mut call: Call) -> Result<Answer, WriteError> {
    let _held = match call.operation {
        Operation::EditDocuments => keep_on_one_shard(ctx, &call).await?,
        _ => None,
    };
    let body = body(ctx, &mut call).await?;
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let filter = asked.get("filter").filter(|filter| !filter.is_null());
    let filter = filter.map_or(Value::Null, |filter| filter.to_string().into());
    let (kind, details) = match call.operation {
        Operation::EditDocuments => (
            "documentEdition",
            details([
                ("editedDocuments", Value::Null),
                ("deletedDocuments", Value::Null),
                ("originalFilter", filter),
                ("context", asked.get("context").cloned().unwrap_or_default()),
                (
                    "function",
                    asked.get("function").cloned().unwrap_or_default(),
                ),
            ]),
        ),
        Operation::DeleteDocumentsByFilter => (
            "documentDeletion",
            details([
                ("providedIds", 0.into()),
                ("deletedDocuments", Value::Null),
                ("originalFilter", filter),
            ]),
        ),
        _ => (
            "documentDeletion",
            details([("deletedDocuments", Value::Null)]),
        ),
    };
    let body = reworded::body(ctx, &call, body).await?;
    let task = task(kind, &call, details);
    let first = first_shard(ctx)?;
    let by_filter = call.operation == Operation::DeleteDocumentsByFilter;
    let by_filter = by_filter.then(|| asked.get("filter").cloned().unwrap_or_default());
    let lay_out = move |placement: Option<&Placement>| {
        let every = |placement: &Placement| {
            let some = by_filter.as_ref();
            let some = some.and_then(|filter| matching(placement, filter));
            some.unwrap_or_else(|| placement.shards().to_vec())
        };
        let shards = placement.map_or_else(|| vec![first], every);
        let loads = shards.into_iter();
        loads.map(|shard| load(shard, body.clone())).collect()
    };
    let mut answer = deliver_as_task(ctx, delivery(ctx, &call)?, task, lay_out).await?;
    if let Some(filter) = asked.get("filter")
        && !answer.status.is_success()
        && let Some(said) = words::of_refusal(&answer.body, filter)
    {
        answer.body = said;
    }
    Ok(answer)
}

fn slots_of(placement: &Placement) -> &SlotMap {
    &placement.slots
}

/// The shards that can have documents which match a filter; `None` for all.
///
/// A version of a document always lies where its own id or value says, and a shard takes all writes in their order. So a shard that
/// can't match now has nothing to delete at this point of the order, whatever is written before or after. While slots are moved,
/// documents lie on two shards, and all are told.
fn matching(placement: &Placement, filter: &Value) -> Option<Vec<ShardId>> {
    let asked = Asked {
        filter: Some(Cow::Borrowed(filter)),
        ..Asked::default()
    };
    let Placement {
        uid,
        slots,
        primary_key,
        unsettled,
        ..
    } = placement;
    let shards = asked.shards(uid, None, slots, primary_key.as_deref());
    shards.filter(|_| unsettled.is_empty())
}

/// A function might change the routing field, and with it the shard. An index by field on one shard stays there while the edition
/// is sent.
async fn keep_on_one_shard(ctx: &Context, call: &Call) -> Result<Option<Held>, WriteError> {
    let by_field = || {
        let placement = call.index.as_deref();
        let placement = placement.and_then(|uid| ctx.cluster.placement(uid));
        placement.filter(|index| index.slots.field().is_some())
    };
    let Some(before) = by_field() else {
        return Ok(None);
    };
    let held = ctx.cluster.moves.hold(&before.uid);
    if let Some(shard) = before.slots.only_shard() {
        // A turn that began before slots were held may just be giving some away.
        ctx.locks.between_writes(shard, || ()).await;
    }
    match by_field() {
        // While the strategy changes, it may already be known that all documents have the field.
        Some(now) if now.shards().len() > 1 || now.slots.change().is_some() => {
            Err(WriteError::NoEdition(now.uid.clone()))
        }
        _ => Ok(Some(held)),
    }
}

/// The shards that may hold a document.
fn owners(slots: &SlotMap, id: &DocumentId<'_>) -> Vec<ShardId> {
    let owner = slots.shard_of(id);
    owner.map_or_else(|| slots.shards().to_vec(), |owner| vec![owner])
}

/// The ids by shard, as they came. A value that can't be an id goes to the first shard, which counts it.
fn split(slots: &SlotMap, ids: &[Value]) -> Vec<ShardPayload> {
    let mut lists: Vec<(ShardId, Vec<&Value>)> = slots
        .shards()
        .iter()
        .map(|shard| (*shard, Vec::new()))
        .collect();
    for id in ids {
        let text = text(id);
        let shards = match DocumentId::from_text(&text) {
            Ok(id) => owners(slots, &id),
            Err(_) => vec![first_of(slots)],
        };
        for (_, list) in lists.iter_mut().filter(|(owner, _)| shards.contains(owner)) {
            list.push(id);
        }
    }
    let nothing = ids.is_empty();
    let first = first_of(slots);
    lists.retain(|(shard, list)| !list.is_empty() || (nothing && *shard == first));
    lists
        .iter()
        .map(|(shard, list)| ShardPayload {
            ids: Some(list.iter().map(|id| text(id)).collect()),
            ..load(*shard, serde_json::to_vec(list).unwrap_or_default().into())
        })
        .collect()
}

fn text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

async fn body(ctx: &Context, call: &mut Call) -> Result<Bytes, WriteError> {
    let body = std::mem::replace(&mut call.body, empty());
    let idle = ctx.pace.idle;
    let encoding = call
        .headers
        .get(CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok());
    Ok(Plain::new(body, encoding, ctx.max_body_bytes, idle)
        .whole()
        .await?)
}

fn first_of(slots: &SlotMap) -> ShardId {
    slots.shards().first().copied().unwrap_or(ShardId(0))
}

fn load(shard: ShardId, body: Bytes) -> ShardPayload {
    ShardPayload {
        ids: None,
        shard,
        pieces: vec![Piece::of(Framing::default(), &[&body])],
        path_and_query: None,
        removals: Vec::new(),
        superseded: 0,
    }
}

/// The delivery of a call, before it is laid out.
fn delivery(ctx: &Context, call: &Call) -> Result<Delivery, WriteError> {
    let index_uid = call.index.as_deref();
    Ok(Delivery {
        mode: ctx.cluster.write_mode(index_uid, &call.headers)?,
        index_uid: call.index.clone(),
        named: named(call),
        method: call.method.clone(),
        path_and_query: call.path_and_query.clone(),
        content_type: call.headers.get(CONTENT_TYPE).cloned(),
        forwarded: call.forwarded.clone(),
        loads: Vec::new(),
    })
}

fn task(kind: &str, call: &Call, details: serde_json::Map<String, Value>) -> NewTask {
    NewTask {
        kind: kind.to_owned(),
        index_uid: call.index.clone(),
        details,
        custom_metadata: custom_metadata(call),
        ..NewTask::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_gets_its_own_ids_and_the_first_what_is_no_id() {
        let shards: Vec<ShardId> = (0..3).map(ShardId).collect();
        let slots = SlotMap::deal(&shards).unwrap();
        let ids: Vec<Value> =
            serde_json::from_str(r#"[1,"2",null,{"a":1},1.5," 3 ",42,"42","x","y","z"]"#).unwrap();
        let loads = split(&slots, &ids);
        assert_eq!(
            loads.iter().map(|load| load.pieces.len()).sum::<usize>(),
            loads.len()
        );
        let count: u64 = loads
            .iter()
            .flat_map(|load| &load.pieces)
            .map(Piece::bytes)
            .sum();
        assert!(count > 0);
        assert_eq!(split(&slots, &[]).len(), 1);
    }

    #[test]
    fn a_filter_is_told_to_the_shards_that_it_can_match_unless_slots_are_moved() {
        let shards: Vec<ShardId> = (0..4).map(ShardId).collect();
        let on = |strategy: &str| {
            let slots = SlotMap::deal_by(&strategy.parse().unwrap(), &shards).unwrap();
            let mut placement = Placement::new("x", Arc::new(slots), None);
            placement.primary_key = Some("id".to_owned());
            placement
        };
        let told = |placement: &Placement, filter: Value| matching(placement, &filter);
        let seven = DocumentId::from_text("7").unwrap();
        let by_id = on("hash");
        let owner = by_id.slots.shard_of(&seven).unwrap();
        assert_eq!(told(&by_id, "id = 7".into()), Some(vec![owner]));
        assert_eq!(told(&by_id, "tenant = 7".into()), None);
        let by_field = on("field:tenant");
        let value = weft_routing::RoutingValue::from_text("acme").unwrap();
        let home = by_field.slots.shard_of_value(&value);
        let lists = serde_json::json!(["group = 1", ["tenant = ACME"]]);
        assert_eq!(told(&by_field, lists), Some(vec![home]));
        for filter in ["id = 7", "tenant != acme", "tenant = acme AND g != 1", ""] {
            assert_eq!(told(&by_field, filter.into()), None, "{filter}");
        }
        assert_eq!(told(&by_field, Value::Null), None);
        let mut moving = by_id.clone();
        moving.unsettled.insert(ShardId(1));
        assert_eq!(told(&moving, "id = 7".into()), None);
        let unknown = Placement {
            primary_key: None,
            ..by_id
        };
        assert_eq!(told(&unknown, "id = 7".into()), None);
    }
}
