//! Where an index is placed that doesn't exist yet, or that is to lie by another strategy.

use std::sync::Arc;

use serde_json::{Map, Value};
use weft_routing::placement::{ShardId, SlotMap};
use weft_routing::strategy::{BadChange, Change, IdKey, Strategy};

use super::moves::Move;
use super::placements::Placed;
use super::{Cluster, ClusterError, Placement};
use crate::store::StoreError;

/// How a new index is to be placed.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// On how many shards; `None` for the default.
    pub shard_count: Option<u16>,
    /// How many replicas each of them must have.
    pub replicas: u16,
    /// How its documents get their slots; `None` for the default.
    pub strategy: Option<Strategy>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            shard_count: None,
            replicas: 1,
            strategy: None,
        }
    }
}

/// How `sharding` of `POST /indexes` asks for a strategy.
pub(crate) fn wish_for(strategy: &Strategy) -> Map<String, Value> {
    let mut wish = Map::new();
    wish.insert("strategy".to_owned(), strategy.name().into());
    match strategy {
        Strategy::Hash => None,
        Strategy::Range(ranges) => {
            let boundaries = ranges.boundaries().iter().map(boundary);
            wish.insert("ranges".to_owned(), boundaries.collect())
        }
        Strategy::Field(field) => wish.insert("field".to_owned(), field.as_str().into()),
        Strategy::Change(change) => return wish_for(change.old().strategy()),
    };
    wish
}

/// A boundary as it was written: a number for an integer.
pub(crate) fn boundary(key: &IdKey) -> Value {
    match key {
        IdKey::Integer(number) => match (u64::try_from(*number), i64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => number.to_string().into(),
        },
        IdKey::Text(text) => Value::from(&**text),
    }
}

impl Cluster {
    /// The slots that an index without a placement would get now, if it asks for nothing.
    ///
    /// # Errors
    /// There are no shards that it may be placed on.
    pub fn propose(&self, index_uid: &str) -> Result<Arc<SlotMap>, ClusterError> {
        self.propose_as(index_uid, &Wanted::default())
    }

    /// The slots that an index without a placement would get now.
    ///
    /// # Errors
    /// Too few shards have as many replicas.
    pub fn propose_as(
        &self,
        index_uid: &str,
        wanted: &Wanted,
    ) -> Result<Arc<SlotMap>, ClusterError> {
        let (fitting, count) = self.fitting(wanted.shard_count, wanted.replicas)?;
        let strategy = wanted.strategy.as_ref();
        let strategy = strategy.unwrap_or(&self.options.default_strategy);
        let shards = self.fullness.choose(index_uid, &fitting, count);
        self.placements.propose(&shards, strategy)
    }

    /// [Places](super::Placements::place) an index on these slots, unless it lies somewhere already. Moves of an index that had its name
    /// before end: they are not to move this one.
    ///
    /// # Errors
    /// The store failed; nothing is placed then.
    pub async fn place(
        &self,
        uid: &str,
        slots: &Arc<SlotMap>,
        shard_count: Option<u16>,
    ) -> Result<Option<Placed>, StoreError> {
        let before = self.placement(uid);
        let is_dying = |placement: &Arc<Placement>| placement.deleted_by.is_some();
        if before.as_ref().is_none_or(is_dying) {
            let concerns = |one: &Move| !one.has_ended() && one.index == uid;
            let moves = self.moves.all().iter().any(concerns);
            if moves {
                self.moves.cancel(concerns).await?;
            }
            // While the old index is being deleted, the new one lies where that had come to, which may not be what it wants.
            if before.is_some_and(|before| moves || before.shard_count != shard_count) {
                self.moves.set_replan(uid, true).await?;
            }
        }
        self.placements.place(uid, slots, shard_count).await
    }

    /// How an index comes to lie by `strategy`, and what it goes on to from there, if it can't get to that directly.
    ///
    /// # Errors
    /// There are no shards that it may be placed on, or too many.
    pub(crate) fn change_to(
        &self,
        placement: &Placement,
        strategy: &Strategy,
    ) -> Result<(Arc<Change>, Option<Strategy>), ClusterError> {
        let shards = self.shards_anew(placement)?;
        let old = &placement.slots;
        let to = |strategy: &Strategy| {
            let new = old.dealt_anew(strategy, &shards);
            let new = Arc::new(new.map_err(|_| ClusterError::NoShards)?);
            Ok::<_, ClusterError>(Change::new(Arc::clone(old), new))
        };
        match to(strategy)? {
            // By its id, a document can be found whatever its fields are.
            Err(BadChange::TwoFields) => {
                Ok((Arc::new(to(&Strategy::Hash)??), Some(strategy.clone())))
            }
            change => Ok((Arc::new(change?), None)),
        }
    }

    /// The shards that an index is to lie on: those that it lies on, as far as they are to keep it, and as many as it wants.
    fn shards_anew(&self, placement: &Placement) -> Result<Vec<ShardId>, ClusterError> {
        let draining = self.moves.draining();
        let mut all = self.topology().shards();
        all.retain(|shard| !draining.contains(shard));
        let wanted = placement.shard_count.map(usize::from);
        let count = wanted.filter(|count| *count < all.len());
        let Some(count) = count else {
            return match all.is_empty() {
                true => Err(ClusterError::NoShards),
                false => Ok(all),
            };
        };
        let owned = |shard: &ShardId| placement.slots.slots_of(*shard).count();
        let (mut on, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| owned(one) > 0);
        on.sort_by_key(|shard| (std::cmp::Reverse(owned(shard)), *shard));
        on.truncate(count);
        let lacking = count - on.len();
        if lacking > 0 {
            on.extend(self.fullness.choose(&placement.uid, &others, lacking));
        }
        Ok(on)
    }

    /// On how many shards an index is to lie that asks for `shard_count`, now and later; `None` for all.
    pub(crate) fn wanted_shards(&self, shard_count: Option<u16>) -> Option<u16> {
        let default = self.options.default_shard_count;
        shard_count.or(Some(default)).filter(|count| *count > 0)
    }

    /// The shards that an index may be placed on, and how many of them it gets.
    fn fitting(
        &self,
        shard_count: Option<u16>,
        replicas: u16,
    ) -> Result<(Vec<ShardId>, usize), ClusterError> {
        let topology = self.topology();
        let draining = self.moves.draining();
        let mut all = topology.shards();
        all.retain(|shard| !draining.contains(shard));
        if all.is_empty() {
            return Err(ClusterError::NoShards);
        }
        // A cluster with fewer shards than the default uses all that it has.
        let known = u16::try_from(all.len()).unwrap_or(u16::MAX);
        let default = self.options.default_shard_count.min(known);
        let wanted = shard_count.or(Some(default)).filter(|count| *count > 0);
        if let Some(wanted) = wanted
            && usize::from(wanted) > all.len()
        {
            return Err(ClusterError::TooManyShards {
                wanted,
                known: all.len(),
            });
        }
        let fitting: Vec<ShardId> = all
            .iter()
            .copied()
            .filter(|shard| topology.nodes(*shard).len() >= usize::from(replicas))
            .collect();
        let count = wanted.map_or(fitting.len(), usize::from);
        if fitting.len() < count || fitting.is_empty() {
            return Err(ClusterError::TooFewReplicas {
                wanted: replicas,
                fitting: fitting.len(),
                needed: count.max(1),
            });
        }
        Ok((fitting, count))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_routing::Origins;
    use weft_routing::slot::Slot;

    use super::*;
    use crate::cluster::placements::Before;
    use crate::cluster::{ClusterOptions, MoveState, Shared, Step, WriteMode};
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn moves_of_an_index_that_is_gone_end_when_another_one_gets_its_name() {
        let options = ClusterOptions {
            default_shard_count: 0,
            default_strategy: Strategy::Hash,
            write_mode: WriteMode::Sync,
            direct_writes: false,
            down_after: Duration::from_secs(1),
            lease: Duration::from_secs(1),
            cors_origins: Origins::Any,
        };
        let store = Arc::new(MemoryStore::default());
        let opened = Cluster::open(store, options, Shared::default());
        let cluster = opened.await.unwrap();
        let slots = Arc::new(SlotMap::deal(&[ShardId(0), ShardId(1)]).unwrap());
        for uid in ["films", "books"] {
            let placed = cluster.place(uid, &slots, Some(1)).await.unwrap();
            assert_eq!(placed.unwrap().before, Before::Absent);
        }
        let step = |index: &str| Step {
            index: index.to_owned(),
            from: ShardId(0),
            to: ShardId(1),
            slots: vec![Slot(7)],
        };
        let steps = vec![(step("films"), 5), (step("books"), 5)];
        cluster.moves.add(steps).await.unwrap();
        let cancelled = || -> Vec<String> {
            let moves = cluster.moves.all().into_iter();
            let cancelled = moves.filter(|one| one.cancelled);
            cancelled.map(|one| one.index).collect()
        };
        let made_anew = async |uid: &str, count| {
            cluster.placements.mark_deleted(uid, 3).await.unwrap();
            let placed = cluster.place(uid, &slots, Some(count)).await.unwrap();
            let placed = placed.unwrap();
            assert_eq!(placed.before, Before::Dying);
            assert_eq!(placed.placement.shard_count, Some(count));
        };
        cluster.place("films", &slots, Some(2)).await.unwrap();
        assert_eq!(cancelled(), [""; 0], "it is there");
        made_anew("films", 1).await;
        assert_eq!(cancelled(), ["films"]);
        assert!(cluster.moves.to_replan().contains("films"));
        cluster.moves.set_replan("films", false).await.unwrap();
        cluster.moves.cancel(|_| true).await.unwrap();
        for ended in cluster.moves.all() {
            let end = |one: &mut Move| one.state = MoveState::Cancelled;
            cluster.moves.change(ended.id, end).await.unwrap();
        }
        made_anew("films", 1).await;
        assert!(cluster.moves.to_replan().is_empty(), "it lies as it wants");
        made_anew("films", 2).await;
        assert!(cluster.moves.to_replan().contains("films"));
    }
}
