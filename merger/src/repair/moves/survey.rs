//! How much of each index lies on each shard, as the nodes say, and what should be moved because of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use weft_routing::placement::ShardId;

use super::{MoveError, remote, source};
use crate::cluster::{Placement, Planned, Step, plan};
use crate::repair::Context;

/// The size of a part of an index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// How many documents it has.
    pub(crate) documents: u64,
    /// How many bytes they have, as a node stores them.
    pub(crate) bytes: u64,
}

/// The sizes of all indexes, by uid and shard.
#[derive(Debug, Default)]
pub(crate) struct Survey(BTreeMap<String, BTreeMap<ShardId, Size>>);

#[derive(Deserialize)]
struct Stats {
    indexes: BTreeMap<String, IndexStats>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexStats {
    number_of_documents: u64,
    #[serde(default)]
    raw_document_db_size: u64,
    #[serde(default)]
    avg_document_size: u64,
}

impl IndexStats {
    fn size(&self) -> Size {
        let documents = self.number_of_documents;
        let reckoned = self.avg_document_size.saturating_mul(documents);
        Size {
            documents,
            bytes: self.raw_document_db_size.max(reckoned),
        }
    }
}

/// The size of an index on one shard; `None` if the shard doesn't say.
pub(crate) async fn size_on(ctx: &Context, uid: &str, shard: ShardId) -> Option<Size> {
    let node = source(ctx, shard).ok()?;
    let path = format!("/indexes/{uid}/stats");
    let stats: IndexStats = remote(ctx, &node).get(&path).await.ok()?;
    Some(stats.size())
}

impl Survey {
    /// Asks one replica of each shard.
    ///
    /// # Errors
    /// A shard doesn't answer.
    pub(crate) async fn of(ctx: &Context) -> Result<Self, MoveError> {
        let mut survey = Self::default();
        for shard in ctx.cluster.shards() {
            let node = source(ctx, shard)?;
            let stats: Stats = remote(ctx, &node).get("/stats").await?;
            for (uid, stats) in stats.indexes {
                survey.0.entry(uid).or_default().insert(shard, stats.size());
            }
        }
        Ok(survey)
    }

    /// The size of an index on a shard.
    pub(crate) fn size(&self, uid: &str, shard: ShardId) -> Size {
        let index = self.0.get(uid);
        index
            .and_then(|shards| shards.get(&shard))
            .copied()
            .unwrap_or_default()
    }

    /// The documents of all indexes on a shard.
    pub(crate) fn documents(&self, shard: ShardId) -> u64 {
        let parts = self.0.values().filter_map(|index| index.get(&shard));
        parts.map(|size| size.documents).sum()
    }

    /// The bytes of all indexes on a shard.
    pub(crate) fn bytes(&self, shard: ShardId) -> u64 {
        let parts = self.0.values().filter_map(|index| index.get(&shard));
        parts.map(|size| size.bytes).sum()
    }

    /// How much fuller than the mean the fullest of these shards is, by bytes: 0.2 for a fifth.
    pub(crate) fn imbalance(&self, shards: &BTreeSet<ShardId>) -> f64 {
        let mut loads: BTreeMap<ShardId, u64> = shards.iter().map(|shard| (*shard, 0)).collect();
        for (shard, size) in self.0.values().flatten() {
            if let Some(load) = loads.get_mut(shard) {
                *load += size.bytes;
            }
        }
        let total: u64 = loads.values().sum();
        let most = loads.values().max().copied().unwrap_or(0);
        if total == 0 {
            return 0.0;
        }
        #[allow(
            clippy::cast_precision_loss,
            reason = "a share needs no more than 52 bits"
        )]
        let share = most as f64 * loads.len() as f64 / total as f64;
        share - 1.0
    }

    /// The steps that spread these indexes over these shards, each with the documents and bytes that it moves. An index that is
    /// being moved already, or goes to another strategy, is left out.
    pub(crate) fn steps(
        &self,
        ctx: &Context,
        concerns: impl Fn(&Placement) -> bool,
        shards: &[ShardId],
    ) -> Vec<(Step, Size)> {
        let moves = ctx.cluster.moves.all();
        let is_moved = |uid: &str| {
            let mut live = moves.iter().filter(|one| !one.has_ended());
            live.any(|one| one.index == uid)
        };
        let placements = ctx.cluster.placements.all();
        let placements: Vec<&Arc<Placement>> = placements
            .iter()
            .filter(|index| index.deleted_by.is_none() && index.unsettled.is_empty())
            .filter(|index| index.change().is_none())
            .filter(|index| concerns(index) && !is_moved(&index.uid))
            .collect();
        let mut planned = Vec::with_capacity(placements.len());
        for index in &placements {
            let size = |shard: &ShardId| (*shard, self.size(&index.uid, *shard).bytes);
            planned.push(Planned {
                bytes: index.shards().iter().map(size).collect(),
                shard_count: index.shard_count,
                ..Planned::new(&index.uid, &index.slots)
            });
        }
        let steps = plan(&planned, shards).into_iter();
        steps
            .map(|step| {
                let index = placements.iter().find(|index| index.uid == step.index);
                let size = index.map(|index| self.part(&step, index));
                (step, size.unwrap_or_default())
            })
            .collect()
    }

    /// How much a step may move of an index, if its slots are about as large as others.
    pub(crate) fn part(&self, step: &Step, index: &Placement) -> Size {
        let slots = index.slots.slots_of(step.from).count();
        let whole = self.size(&step.index, step.from);
        let part = |all: u64| {
            let share = all.saturating_mul(step.slots.len() as u64);
            share.checked_div(slots as u64).unwrap_or(0)
        };
        Size {
            documents: part(whole.documents),
            bytes: part(whole.bytes),
        }
    }
}
