//! Reads documents for a backup: a page of a shard, or those with certain ids.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use weft_routing::document_id::DocumentId;
use weft_routing::placement::ShardId;

use super::{Waiting, settle, source, unread};
use crate::cluster::{ClusterError, InUse, NodeId, Placement, Slotting};
use crate::repair::Context;
use crate::repair::resync::{Position, Remote, Scan, SourceGuard};

/// Where the next page begins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cursor {
    node: NodeId,
    /// How often that node was in doubt: its order of documents may be another one afterwards.
    doubts: u64,
    position: Position,
}

/// A page of a shard's documents.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Page {
    /// The documents, unless only their prints were asked for.
    documents: Vec<Box<RawValue>>,
    /// Ids with a number for each document's content.
    prints: Vec<(String, u64)>,
    /// `None` at the end.
    cursor: Option<Cursor>,
}

/// The documents that a shard owns of an index, from `cursor` on, with their vectors. A document may come twice.
///
/// # Errors
/// The shard can't be read, or another node answers than before.
pub(crate) async fn page(
    ctx: &Arc<Context>,
    used: &InUse,
    (uid, shard): (&str, ShardId),
    cursor: Option<Cursor>,
    prints: bool,
) -> Result<Waiting<Page>, ClusterError> {
    let placement = placement(ctx, uid)?;
    let Some(primary_key) = primary_key(ctx, &placement, shard).await? else {
        return Ok(Waiting::Ready(Page::default()));
    };
    let node = match &cursor {
        None => source(ctx, shard)?,
        Some(cursor) => {
            let replicas = ctx.cluster.replicas_or_none(shard)?;
            let same = replicas.into_iter().find(|node| node.id == cursor.node);
            let same = same.filter(|node| ctx.cluster.health.doubts(&node.id) == cursor.doubts);
            same.ok_or_else(|| {
                ClusterError::BackupBroken(format!("{} was away meanwhile", cursor.node))
            })?
        }
    };
    if cursor.is_none()
        && let Waiting::Busy = settle(ctx, used, &node).await?
    {
        return Ok(Waiting::Busy);
    }
    let unbroken = SourceGuard::of(ctx, &node).map_err(unread)?;
    let doubts = ctx.cluster.health.doubts(&node.id);
    let remote = Remote::new(ctx, &node);
    let mut scan = match cursor {
        None => Scan::new(&remote, uid, &primary_key),
        Some(cursor) => Scan::resume(&remote, uid, &primary_key, cursor.position),
    };
    let found = scan.next().await.map_err(unread)?;
    let position = scan.position();
    unbroken.check().await.map_err(unread)?;
    let mut page = Page {
        cursor: position.map(|position| Cursor {
            node: node.id.clone(),
            doubts,
            position,
        }),
        ..Page::default()
    };
    let slotting = Slotting::new(placement.slots.strategy(), &primary_key);
    for (print, document) in found.into_iter().flatten() {
        if !is_own(&placement, slotting, shard, &document) {
            continue;
        }
        match prints {
            true => {
                let whole = print.whole();
                page.prints.push((print.id, whole));
            }
            false => page.documents.push(document),
        }
    }
    Ok(Waiting::Ready(page))
}

/// The documents with these ids that exist, with their vectors.
///
/// # Errors
/// A shard can't be read.
pub(crate) async fn documents(
    ctx: &Arc<Context>,
    used: &InUse,
    uid: &str,
    ids: &[String],
) -> Result<Waiting<Vec<Box<RawValue>>>, ClusterError> {
    let placement = placement(ctx, uid)?;
    let mut found = Vec::with_capacity(ids.len());
    for (shard, ids) in by_shard(&placement, ids) {
        let node = source(ctx, shard)?;
        if let Waiting::Busy = settle(ctx, used, &node).await? {
            return Ok(Waiting::Busy);
        }
        let unbroken = SourceGuard::of(ctx, &node).map_err(unread)?;
        let remote = Remote::new(ctx, &node);
        let documents = remote.documents_of(uid, &ids).await.map_err(unread)?;
        let key = placement.primary_key.as_deref().unwrap_or_default();
        let slotting = Slotting::new(placement.slots.strategy(), key);
        let own = documents.into_iter();
        found.extend(own.filter(|document| is_own(&placement, slotting, shard, document)));
        unbroken.check().await.map_err(unread)?;
    }
    Ok(Waiting::Ready(found))
}

/// Whether a document on a shard belongs there. Otherwise it is a copy that a move has left there, or has brought there too soon.
fn is_own(
    placement: &Placement,
    slotting: Slotting<'_>,
    shard: ShardId,
    document: &RawValue,
) -> bool {
    let slot = slotting.of(document).and_then(|told| told.slot);
    slot.is_none_or(|slot| placement.slots.shard_of_slot(slot) == shard)
}

/// The ids by the shards that own them. An id that doesn't tell is looked for on all shards.
pub(super) fn by_shard<'a>(
    placement: &Placement,
    ids: impl IntoIterator<Item = &'a String>,
) -> BTreeMap<ShardId, Vec<String>> {
    let mut shards: BTreeMap<ShardId, Vec<String>> = BTreeMap::new();
    for text in ids {
        if let Ok(id) = DocumentId::from_text(text) {
            let owner = placement.slots.shard_of(&id);
            let all = placement.shards().iter().copied();
            for shard in all.filter(|shard| owner.is_none_or(|owner| owner == *shard)) {
                shards.entry(shard).or_default().push(text.clone());
            }
        }
    }
    shards
}

pub(super) fn placement(ctx: &Context, uid: &str) -> Result<Arc<Placement>, ClusterError> {
    let placement = ctx.cluster.placement(uid);
    placement.ok_or_else(|| ClusterError::UnknownIndex(uid.to_owned()))
}

async fn primary_key(
    ctx: &Context,
    placement: &Placement,
    shard: ShardId,
) -> Result<Option<String>, ClusterError> {
    if placement.primary_key.is_some() {
        return Ok(placement.primary_key.clone());
    }
    let node = source(ctx, shard)?;
    let listed = Remote::new(ctx, &node).indexes().await.map_err(unread)?;
    let here = listed.into_iter().find(|index| index.uid == placement.uid);
    Ok(here.and_then(|index| index.primary_key))
}
