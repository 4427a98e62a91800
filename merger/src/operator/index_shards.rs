//! `GET /indexes/{uid}/_shards`: where an index lies, by what, and how much of it lies where.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;
use weft_routing::placement::{ShardId, SlotMap};
use weft_routing::slot::Slot;
use weft_routing::strategy::{Change, IdKey, IdRange, Strategy};
use weft_routing::value::RoutingField;

use super::{describe_shard, ok};
use crate::answer::Answer;
use crate::call::Call;
use crate::cluster::{ClusterError, Placement, Stage, boundary, wish_for};
use crate::repair::{Context, Size, size_on};

/// How long a shard may take to say how much it holds.
const WITHIN: Duration = Duration::from_secs(2);

/// Answers the call. A shard that doesn't say in time how much it holds has `null` for it.
pub(super) async fn describe(ctx: &Context, call: &Call) -> Result<Answer, ClusterError> {
    let uid = call.index.clone().unwrap_or_default();
    let placement = ctx
        .cluster
        .placement(&uid)
        .filter(|placement| placement.deleted_by.is_none())
        .ok_or(ClusterError::UnknownIndex(uid))?;
    let topology = ctx.cluster.topology();
    let factor = placement
        .shards()
        .iter()
        .map(|shard| topology.nodes(*shard).len())
        .min();
    let sizes = placement.shards().iter().map(async |shard| {
        let size = timeout(WITHIN, size_on(ctx, &placement.uid, *shard)).await;
        size.ok().flatten()
    });
    let sizes = join_all(sizes).await;
    let shards: Vec<Value> = placement
        .shards()
        .iter()
        .zip(sizes)
        .map(|(shard, size)| {
            let mut described = describe_shard(ctx, *shard);
            if let Some(fields) = described.as_object_mut() {
                fields.extend(own(&placement.slots, *shard, size));
            }
            described
        })
        .collect();
    let strategy = before_change(placement.slots.strategy());
    Ok(ok(&json!({
        "indexUid": placement.uid,
        "shardCount": shards.len(),
        "replicationFactor": factor.unwrap_or(0),
        "strategy": strategy.name(),
        "ranges": boundaries(strategy),
        "field": strategy.field().map(RoutingField::as_str),
        "writeMode": ctx.cluster.default_mode(&placement),
        "wantedShardCount": placement.shard_count,
        "change": placement.change().map(|(change, stage)| described(&placement, change, stage)),
        "changeError": placement.change_error,
        // Slots are moved: totals and facets may count some documents twice for a moment.
        "unsettled": placement.unsettled,
        "shards": shards,
    })))
}

/// The strategy that an index has, or had before the change that is under way.
fn before_change(strategy: &Strategy) -> &Strategy {
    match strategy {
        Strategy::Change(change) => change.old().strategy(),
        other => other,
    }
}

/// A change of strategy: where it leads, and how far it is.
fn described(placement: &Placement, change: &Arc<Change>, stage: Stage) -> Value {
    let then = placement.changing.as_ref();
    let then = then.and_then(|changing| changing.then.as_ref());
    json!({
        "from": wish_for(change.old().strategy()),
        "to": wish_for(change.new_slots().strategy()),
        "then": then.map(wish_for),
        "stage": stage,
        "progress": progress(&placement.slots, change, stage),
    })
}

/// The share of the slots that are where they are to be, of those that have to move for that.
fn progress(slots: &SlotMap, change: &Arc<Change>, stage: Stage) -> f64 {
    let (begun, arrived) = (SlotMap::begun(change), SlotMap::arrived(change));
    let target = match stage {
        Stage::GoingBack => &begun,
        Stage::Checking | Stage::Moving => &arrived,
    };
    let ends = begun.owners().iter().zip(arrived.owners());
    let owners = slots.owners().iter().zip(target.owners()).zip(ends);
    let moving = owners.filter(|(_, (from, to))| from != to);
    let (mut there, mut all) = (0_u16, 0_u16);
    for ((owner, target), _) in moving {
        all += 1;
        there += u16::from(owner == target);
    }
    match all {
        0 => 1.0,
        all => f64::from(there) / f64::from(all),
    }
}

/// What a shard has of an index.
fn own(slots: &SlotMap, shard: ShardId, size: Option<Size>) -> Vec<(String, Value)> {
    let mut fields = vec![
        ("slots".to_owned(), slots.slots_of(shard).count().into()),
        (
            "documents".to_owned(),
            json!(size.map(|size| size.documents)),
        ),
        ("bytes".to_owned(), json!(size.map(|size| size.bytes))),
    ];
    if let Strategy::Range(ranges) = slots.strategy() {
        let is_there = |range: &IdRange<'_>| {
            let mut of_range = (range.first.0..).take(usize::from(range.slots)).map(Slot);
            of_range.any(|slot| slots.shard_of_slot(slot) == shard)
        };
        let held = ranges.iter().filter(is_there);
        let held = held.map(|range| json!({"from": end(range.from), "to": end(range.to)}));
        fields.push(("ranges".to_owned(), held.collect()));
    }
    fields
}

fn boundaries(strategy: &Strategy) -> Value {
    let keys = strategy.boundaries().iter();
    match strategy {
        Strategy::Hash | Strategy::Field(_) | Strategy::Change(_) => Value::Null,
        Strategy::Range(_) => keys.map(|key| end(Some(key))).collect(),
    }
}

/// A boundary as it was written; `null` for an end that isn't there.
fn end(key: Option<&IdKey>) -> Value {
    key.map_or(Value::Null, boundary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_names_its_ranges_with_numbers_as_numbers() {
        let strategy: Strategy = "range:-5,18446744073709551615,m".parse().unwrap();
        let shards = [ShardId(0), ShardId(1)];
        let slots = SlotMap::deal_by(&strategy, &shards).unwrap();
        let ranges = |shard| {
            let fields = own(&slots, ShardId(shard), None).into_iter();
            fields.last().map(|(_, ranges)| ranges).unwrap()
        };
        let largest = 18_446_744_073_709_551_615_u64;
        assert_eq!(
            ranges(0),
            json!([{"from": null, "to": -5}, {"from": -5, "to": largest}])
        );
        assert_eq!(
            ranges(1),
            json!([{"from": largest, "to": "m"}, {"from": "m", "to": null}])
        );
        assert_eq!(boundaries(&strategy), json!([-5, largest, "m"]));
        assert_eq!(boundaries(&Strategy::Hash), Value::Null);
    }

    #[test]
    fn a_change_says_how_many_of_the_slots_that_have_to_move_are_where_they_are_to_be() {
        let shards = [ShardId(0), ShardId(1)];
        let map = |strategy: &str| {
            let strategy = strategy.parse().unwrap();
            Arc::new(SlotMap::deal_by(&strategy, &shards).unwrap())
        };
        let change = Change::new(map("hash"), map("field:tenant")).unwrap();
        let change = Arc::new(change);
        let begun = SlotMap::begun(&change);
        let moving: Vec<Slot> = (1_024..3_072).map(Slot).collect();
        let half = begun.with_owner_of_all(&moving[..1_024], ShardId(1));
        for (slots, forward, back) in [
            (&begun, 0.0, 1.0),
            (&half, 0.5, 0.5),
            (&SlotMap::arrived(&change), 1.0, 0.0),
        ] {
            let told =
                [Stage::Moving, Stage::GoingBack].map(|stage| progress(slots, &change, stage));
            assert_eq!(told, [forward, back]);
        }
        let one = Arc::new(SlotMap::single(ShardId(0)));
        let by_field = Arc::new(SlotMap::clone(&one).by("field:tenant".parse().unwrap()));
        let naming = Arc::new(Change::new(one, by_field).unwrap());
        assert_eq!(
            progress(&SlotMap::begun(&naming), &naming, Stage::Moving),
            1.0
        );
    }
}
