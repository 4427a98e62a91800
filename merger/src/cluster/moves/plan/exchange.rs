//! Lets larger parts stay: evening out takes the largest part that fits, and a smaller one that stays may do as well.

use std::collections::{BTreeMap, BTreeSet};

use weft_routing::placement::ShardId;

/// A part of an index that is to lie on a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The index's place in the list of targets.
    pub(super) index: usize,
    pub(super) size: u64,
    /// The shard that it leaves.
    pub(super) from: ShardId,
    pub(super) to: ShardId,
}

/// For each part that moves, the largest first: sends a smaller one of its old shard in its place, if no shard gets fuller than the
/// fuller of the two was.
pub(super) fn exchange(
    mut moved: Vec<Part>,
    stay: &BTreeMap<ShardId, BTreeSet<(u64, usize)>>,
    targets: &mut [BTreeSet<ShardId>],
    loads: &mut BTreeMap<ShardId, u64>,
) {
    let mut stay = stay.clone();
    moved.sort_by_key(|part| (std::cmp::Reverse(part.size), part.index));
    for part in moved {
        let (Some(old), Some(new)) = (loads.get(&part.from), loads.get(&part.to)) else {
            continue;
        };
        let (old, new) = (*old, *new);
        let most = old.max(new);
        // The difference goes back to the old shard.
        let least = part.size.saturating_sub(most.saturating_sub(old));
        let here = stay.entry(part.from).or_default();
        let lies_there = |place: usize| targets.get(place).is_some_and(|on| on.contains(&part.to));
        let found = here
            .range((least.max(1), 0)..(part.size, 0))
            .find(|(_, place)| *place != part.index && !lies_there(*place))
            .copied();
        let Some((size, place)) = found else { continue };
        here.remove(&(size, place));
        here.insert((part.size, part.index));
        for (index, leaves, joins) in [
            (part.index, part.to, part.from),
            (place, part.from, part.to),
        ] {
            if let Some(on) = targets.get_mut(index) {
                on.remove(&leaves);
                on.insert(joins);
            }
        }
        loads.insert(part.from, old - size + part.size);
        loads.insert(part.to, new + size - part.size);
    }
}
