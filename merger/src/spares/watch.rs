//! Decides, in the merger that leads, when a spare takes a replica's place.
//!
//! A replica counts as away only while another one of its shard, reached through the same Envoy, has all documents and answers. So
//! trouble between the merger and its Envoy, or a whole shard that is gone, is no reason to replace anybody; nor is a node that
//! answers at times, or answers another merger, or one that an operator drained. The time that it has been away is counted anew by
//! each leader.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;

use super::SpareOptions;
use super::files::lists;
use crate::cluster::{Choice, Cluster, Context, Member, NodeId, NodeStatus, SyncState, choose};
use crate::leadership::Registration;

/// How often it is looked whether somebody is away.
const LOOKED_EVERY: Duration = Duration::from_millis(500);

/// How old the answer of a replica may be from which another one is to copy, beside two probes.
const FRESH: Duration = Duration::from_secs(2);

/// Takes spares in for replicas that stay away; never ends.
pub async fn replace_absent(ctx: Arc<Context>, options: SpareOptions) {
    let Some(after) = options.after else { return };
    let mut absences = Absences::default();
    let mut complained = None::<String>;
    loop {
        settle(&ctx).await;
        let members = absences.look(&ctx.cluster, FRESH + 2 * options.probe_interval);
        let topology = ctx.cluster.topology();
        let spares: Vec<_> = topology.ready_spares().cloned().collect();
        let free = i64::try_from(free_spares(&ctx.cluster)).unwrap_or(i64::MAX);
        ctx.metrics.spares.set(free);
        let mut trouble = None;
        for choice in choose(&members, &spares, &ctx.cluster.replacements.all(), after) {
            if let Err(error) = take(&ctx, &options, &choice).await {
                trouble = Some(error);
            }
        }
        if let Some(error) = trouble
            .as_ref()
            .filter(|error| Some(*error) != complained.as_ref())
        {
            tracing::error!(%error, "a replica that stays away can't be replaced");
        }
        complained = trouble;
        tokio::time::sleep(LOOKED_EVERY).await;
    }
}

/// How many spares could be taken now.
pub(crate) fn free_spares(cluster: &Cluster) -> usize {
    let (topology, all) = (cluster.topology(), cluster.replacements.all());
    let is_free = |id: &NodeId| {
        topology.find(id).is_none() && !all.iter().any(|one| one.taking && one.spare == *id)
    };
    topology
        .ready_spares()
        .filter(|spare| is_free(&spare.id))
        .count()
}

async fn take(ctx: &Context, options: &SpareOptions, choice: &Choice) -> Result<(), String> {
    let Choice { shard, out, spare } = choice;
    if !lists(&options.folder, choice).await? {
        let folder = options.folder.display();
        return Err(format!(
            "no file of shard {} in {folder} lists {out}",
            shard.0
        ));
    }
    let taken = ctx.cluster.replacements.take(choice).await;
    if taken.map_err(|error| error.to_string())? {
        tracing::warn!(shard = shard.0, %out, spare = %spare.id, "a spare node takes the place of a replica that stays away");
        ctx.metrics.replaced.inc();
    }
    Ok(())
}

/// Ends the replacements that Envoy shows.
async fn settle(ctx: &Context) {
    let topology = ctx.cluster.topology();
    for one in ctx.cluster.replacements.all() {
        let members = topology.nodes(one.shard);
        let is_there = |id: &NodeId| members.iter().any(|node| node.id == *id);
        let replaced = is_there(&one.spare) && !one.names.iter().any(is_there);
        if one.taking && replaced {
            match ctx.cluster.replacements.settle(one.number).await {
                Ok(()) => {
                    tracing::info!(shard = one.shard.0, spare = %one.spare, "Envoy has the spare node in its new place");
                }
                Err(error) => {
                    tracing::error!(%error, "what Envoy shows of a spare can't be stored")
                }
            }
        }
    }
}

/// Since when nodes have been away, as far as this process has seen.
#[derive(Default)]
struct Absences(HashMap<NodeId, Instant>);

impl Absences {
    /// All members of all shards now. `fresh` says how old the answer of one that is sound may be.
    fn look(&mut self, cluster: &Cluster, fresh: Duration) -> Vec<Member> {
        let topology = cluster.topology();
        let mut members: Vec<Member> = Vec::new();
        for shard in topology.shards() {
            let nodes = topology.nodes(shard);
            let sound = |id: &NodeId| is_sound(cluster, id, fresh);
            let has_source = nodes.iter().any(|node| sound(&node.id));
            members.extend(nodes.iter().map(|node| {
                let away = has_source && is_away(cluster, &node.id);
                Member {
                    id: node.id.clone(),
                    shard,
                    sound: sound(&node.id),
                    away_for: self.note(&node.id, away),
                }
            }));
        }
        self.0.retain(|id, _| topology.find(id).is_some());
        members
    }

    fn note(&mut self, id: &NodeId, away: bool) -> Option<Duration> {
        match away {
            true => Some(
                self.0
                    .entry(id.clone())
                    .or_insert_with(Instant::now)
                    .elapsed(),
            ),
            false => {
                self.0.remove(id);
                None
            }
        }
    }
}

/// Whether the node holds every acknowledged write, and is well.
fn is_sound(cluster: &Cluster, id: &NodeId, fresh: Duration) -> bool {
    let status = cluster.health.status(id);
    cluster.in_sync.holds(id)
        && matches!(status, NodeStatus::Up | NodeStatus::Slow)
        && cluster.health.answers(id)
        && cluster.health.silence(id) < fresh
        && cluster.queues.caught_up(id)
}

/// Whether the node is out of sync, nobody wants that, and it answers no merger.
fn is_away(cluster: &Cluster, id: &NodeId) -> bool {
    let out = matches!(cluster.in_sync.sync_state(id), Some(SyncState::Out { .. }));
    let silent = matches!(
        cluster.health.status(id),
        NodeStatus::Silent | NodeStatus::Slow
    );
    let others = cluster.mergers.registered();
    let heard_elsewhere =
        |other: &Registration| !other.leads && other.hears.iter().any(|name| name == id.as_str());
    out && silent && !cluster.health.answers(id) && !others.iter().any(heard_elsewhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_answers_once_has_not_been_away() {
        let (mut absences, node) = (Absences::default(), NodeId::from("n".to_owned()));
        let pause = Duration::from_secs(9);
        assert_eq!(absences.note(&node, true), Some(Duration::ZERO));
        tokio::time::advance(pause).await;
        assert_eq!(absences.note(&node, true), Some(pause));
        assert_eq!(absences.note(&node, false), None);
        tokio::time::advance(pause).await;
        assert_eq!(absences.note(&node, true), Some(Duration::ZERO));
    }
}
