//! Small writes of an index that lies by a field, where an id alone doesn't tell which shard holds the document's old version.
//!
//! Those that bring whole documents to one shard go together, and all other shards remove the same ids in the same turn. So a group
//! needs the turns of all of the index's shards. If the index rests, its shards are asked first which of them hold any of the
//! documents, and only those remove some. Updates go alone: each must look for its document.

use hashbrown::HashSet;
use weft_routing::placement::ShardId;
use weft_routing::strategy::Strategy;

use super::{Kind, Next};
use crate::cluster::Placement;
use crate::ids::Ids;
use crate::write::add::of_split;
use crate::write::deliver::ShardPayload;
use crate::write::layout::Layout;
use crate::write::locate::{Located, locate};
use crate::write::removals::removals;
use crate::write::split::{Home, Owners};
use crate::write::{Context, WriteError};

/// The most documents that are looked for, so that only those shards remove some that hold them.
const MOST_LOOKED_UP: usize = 1_000;

/// Whether small writes of an index with this strategy may be merged.
pub(in crate::write) fn may_merge(strategy: &Strategy) -> bool {
    // Named one by one: where a document goes by another strategy, and what that removes elsewhere, isn't known here.
    matches!(
        strategy,
        Strategy::Hash | Strategy::Range(_) | Strategy::Field(_)
    )
}

/// What is known of a group before its turn.
pub(super) struct Prepared {
    /// The shards whose turns it needs.
    pub(super) shards: Vec<ShardId>,
    found: Option<Found>,
}

/// Where the documents lie that were looked for.
struct Found {
    ids: HashSet<String>,
    located: Located,
}

impl Prepared {
    /// Prepares for the writes that wait for this shard.
    pub(super) async fn of(ctx: &Context, shard: ShardId, next: Next) -> Self {
        let placement = next.placement;
        match placement.slots.field() {
            None => Self {
                shards: vec![shard],
                found: None,
            },
            Some(_) => Self {
                shards: placement.shards().to_vec(),
                found: look_up(ctx, &placement, next.ids).await,
            },
        }
    }

    /// Where the old versions lie of documents with these ids; `None` if any shard may hold some. The caller holds the locks of all of
    /// the index's shards.
    fn held(&self, ctx: &Context, index_uid: &str, ids: &Ids) -> Option<&Owners> {
        let Found {
            ids: asked,
            located,
        } = self.found.as_ref()?;
        let are_asked = ids.iter().all(|id| asked.contains(id));
        (are_asked && located.holds(ctx, index_uid)).then(|| &**located.owners())
    }
}

async fn look_up(ctx: &Context, placement: &Placement, ids: HashSet<String>) -> Option<Found> {
    let key = placement.primary_key.as_deref()?;
    let is_of_use = placement.shards().len() > 1 && ids.len() <= MOST_LOOKED_UP;
    // While it is written to all the time, its nodes would only say that they have tasks of it.
    if !is_of_use || ctx.tasks.may_change(&placement.uid) {
        return None;
    }
    let asked: Vec<&str> = ids.iter().map(String::as_str).collect();
    // If a shard gives no answer, all are told to remove the ids, and it is seen then whether that can be done.
    let located = locate(ctx, placement, key, &asked).await.ok().flatten()?;
    Some(Found { ids, located })
}

/// What other shards remove when `shard` gets documents with these ids. Without `prepared`, any of them may hold some.
pub(super) async fn removing(
    ctx: &Context,
    kind: &Kind,
    shard: ShardId,
    ids: &Ids,
    prepared: Option<&Prepared>,
) -> Result<Vec<ShardPayload>, WriteError> {
    let placement = &kind.placement;
    if placement.slots.field().is_none() {
        return Ok(Vec::new());
    }
    let mut owners = Owners::default();
    for id in ids.iter() {
        owners.put(id, Home { shard, value: None });
    }
    let held = prepared.and_then(|prepared| prepared.held(ctx, &placement.uid, ids));
    let removals = removals(&owners, placement.shards(), held, &Layout::limits(ctx)).await;
    let removals = removals.map_err(|error| of_split(error.into(), kind.format))?;
    let payloads = removals.into_iter().map(|removal| ShardPayload {
        ids: removal.ids,
        shard: removal.shard,
        pieces: Vec::new(),
        path_and_query: None,
        removals: removal.pieces,
        superseded: 0,
    });
    Ok(payloads.collect())
}
