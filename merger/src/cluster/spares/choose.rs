//! Which spare takes whose place: a function of what is known now.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_routing::placement::ShardId;

use super::Replacement;
use crate::cluster::{NodeId, NodeRef};

/// A member of a shard, as far as the choice depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: NodeId,
    pub(crate) shard: ShardId,
    /// It holds every acknowledged write, and answered a moment ago.
    pub(crate) sound: bool,
    /// It is out of sync and not answering, and has been so for as long; `None` if that isn't so, or an operator drained it.
    pub(crate) away_for: Option<Duration>,
}

/// A spare for a replica that stays away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) shard: ShardId,
    pub(crate) out: NodeId,
    pub(crate) spare: NodeRef,
}

/// Chooses spares for members that have been away for `after` or longer, those first that have been so for longest. Only where
/// another member has all documents to copy, one at a time in each shard, and no spare twice.
pub(crate) fn choose(
    members: &[Member],
    spares: &[NodeRef],
    before: &[Replacement],
    after: Duration,
) -> Vec<Choice> {
    let taking = || before.iter().filter(|one| one.taking);
    let mut busy: BTreeSet<ShardId> = taking().map(|one| one.shard).collect();
    let is_free = |spare: &&NodeRef| {
        let is_member = members.iter().any(|member| member.id == spare.id);
        !is_member && !taking().any(|one| one.spare == spare.id)
    };
    let mut free: Vec<&NodeRef> = spares.iter().filter(is_free).collect();
    free.sort_by(|a, b| b.id.cmp(&a.id));
    free.dedup_by(|a, b| a.id == b.id);
    let has_source = |shard: ShardId| {
        let mut here = members.iter().filter(|member| member.shard == shard);
        here.any(|member| member.sound)
    };
    let mut away: Vec<(Duration, &Member)> = members
        .iter()
        .filter_map(|member| Some((member.away_for?, member)))
        .filter(|(away_for, member)| *away_for >= after && !member.sound)
        .collect();
    away.sort_by(|(a, one), (b, other)| b.cmp(a).then(one.id.cmp(&other.id)));
    let mut choices = Vec::new();
    for (_, member) in away {
        if !has_source(member.shard) || busy.contains(&member.shard) {
            continue;
        }
        let Some(spare) = free.pop() else { break };
        busy.insert(member.shard);
        choices.push(Choice {
            shard: member.shard,
            out: member.id.clone(),
            spare: spare.clone(),
        });
    }
    choices
}
