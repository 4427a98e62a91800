//! Whether anything is changing the indexes of a search: the merger knows what it has sent, and asks nodes what they still have
//! to do of it.
//!
//! Nodes are asked only when somebody searches, and only until they are done, so that a cluster that only writes isn't asked at
//! all. Searches don't wait for it: the next ones profit.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use hashbrown::HashMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use crate::cluster::{NodeRef, Placement};
use crate::search::Context;
use crate::upstream::{Stamp, Unknown};

/// The pause between two rounds of questions about the same indexes.
const PAUSE: Duration = Duration::from_millis(25);
/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The most rounds that are noted.
const MOST_ROUNDS: usize = 1_000;
/// The kinds of tasks that may give an index another name, or its name to another one.
const NAMES: &str = "indexSwap,indexUpdate";

/// The state of everything on which an answer depends, at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    sent: Stamp,
    placed: u64,
    in_sync: u64,
    /// How often the nodes that may be read from were away, or looked as if they had lost something.
    doubts: u64,
}

/// Where the indexes of a search lie.
pub(super) struct Lie {
    /// The indexes' uids, in order.
    uids: Vec<String>,
    placements: Vec<Arc<Placement>>,
    /// For each index, the nodes that may be read from.
    nodes: Vec<Vec<NodeRef>>,
}

impl Lie {
    /// Where these indexes lie; `None` if one of them isn't known.
    pub(super) fn of(ctx: &Context, uids: &[String]) -> Option<Self> {
        let cluster = &ctx.cluster;
        let placements: Vec<Arc<Placement>> = uids
            .iter()
            .map(|uid| cluster.placement(uid))
            .collect::<Option<_>>()?;
        let topology = cluster.topology();
        let read_from = |placement: &Arc<Placement>| {
            let shards = placement.shards().iter();
            let nodes = shards.flat_map(|shard| topology.nodes(*shard));
            let in_sync = nodes.filter(|node| cluster.in_sync.holds(&node.id));
            in_sync.cloned().collect()
        };
        Some(Self {
            nodes: placements.iter().map(read_from).collect(),
            uids: uids.to_vec(),
            placements,
        })
    }

    /// The state of everything on which an answer from these indexes depends.
    pub(super) fn moment(&self, ctx: &Context) -> Moment {
        let uids = self.uids.iter().map(String::as_str);
        let nodes = self.nodes.iter().flatten();
        Moment {
            placed: ctx.cluster.placements.epoch().0,
            in_sync: ctx.cluster.in_sync.epoch(),
            doubts: nodes.map(|node| ctx.cluster.health.doubts(&node.id)).sum(),
            sent: ctx.upstream.changing().stamp(uids),
        }
    }

    /// Whether this merger knows what was sent to the nodes: it sends everything itself, or follows and has heard of it.
    pub(super) fn is_known(&self, ctx: &Context) -> bool {
        match &ctx.tasks {
            Some(_) => ctx.upstream.may_send(),
            None => {
                let nodes = self.nodes.iter().flatten();
                let nodes = nodes.map(|node| node.address);
                ctx.remembered.heard.is_recent(nodes)
            }
        }
    }

    /// Whether no state of the cluster makes answers from these indexes provisional.
    fn is_settled(&self, ctx: &Context) -> bool {
        let cluster = &ctx.cluster;
        let settled = |placement: &Arc<Placement>| {
            let shards = placement.shards();
            placement.deleted_by.is_none()
                && placement.unsettled.is_empty()
                && !shards.is_empty()
                && !shards.iter().any(|shard| cluster.in_doubt.contains(*shard))
        };
        let topology = cluster.topology();
        let shards = self
            .placements
            .iter()
            .flat_map(|placement| placement.shards());
        let mut nodes = shards.flat_map(|shard| topology.nodes(*shard));
        self.placements.iter().all(settled)
            && nodes.all(|node| match cluster.in_sync.holds(&node.id) {
                true => cluster.health.is_trusted(&node.id),
                false => cluster.reads_have_left(&node.id),
            })
    }
}

/// Which nodes are being asked, or were a moment ago, by the indexes that it is about.
#[derive(Debug, Default)]
pub(super) struct Rounds(Mutex<HashMap<Vec<String>, Round>>);

#[derive(Debug, Clone, Copy)]
enum Round {
    UnderWay,
    Ended(Instant),
}

impl Rounds {
    /// Whether the caller shall begin a round. It must [end](Self::end) it then.
    fn begin(&self, indexes: &[String]) -> bool {
        let mut rounds = self.lock();
        match rounds.get(indexes) {
            Some(Round::UnderWay) => return false,
            Some(Round::Ended(at)) if at.elapsed() < PAUSE => return false,
            _ => {}
        }
        if rounds.len() >= MOST_ROUNDS {
            rounds.retain(|_, round| matches!(round, Round::UnderWay));
            if rounds.len() >= MOST_ROUNDS {
                return false;
            }
        }
        rounds.insert(indexes.to_vec(), Round::UnderWay);
        true
    }

    fn end(&self, indexes: Vec<String>) {
        self.lock().insert(indexes, Round::Ended(Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<String>, Round>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a round, however its work ends.
struct Ending {
    ctx: Arc<Context>,
    indexes: Vec<String>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let indexes = std::mem::take(&mut self.indexes);
        self.ctx.remembered.rounds.end(indexes);
    }
}

/// Whether nothing is changing these indexes now, and nothing can that this merger doesn't see. If only nodes know, they are asked
/// in the background.
pub(super) fn is_quiet(ctx: &Arc<Context>, lie: &Lie) -> bool {
    if ctx.cluster.direct_writes() || !lie.is_known(ctx) || !lie.is_settled(ctx) {
        return false;
    }
    let addresses = |nodes: &Vec<NodeRef>| nodes.iter().map(|node| node.address).collect();
    let nodes: Vec<Vec<SocketAddr>> = lie.nodes.iter().map(addresses).collect();
    let uids = lie.uids.iter().map(String::as_str);
    let about: Vec<(&str, &[SocketAddr])> = uids.zip(nodes.iter().map(Vec::as_slice)).collect();
    let unknown = ctx.upstream.changing().unknown(&about);
    if unknown.is_nothing() {
        return true;
    }
    // While the registry waits for a task, nodes needn't be asked.
    let tasks = ctx.tasks.as_ref();
    let busy = |uid: &String| tasks.is_some_and(|tasks| tasks.tasks.may_change(uid));
    if !unknown.under_way && !lie.uids.iter().any(busy) && ctx.remembered.rounds.begin(&lie.uids) {
        let ending = Ending {
            ctx: Arc::clone(ctx),
            indexes: lie.uids.clone(),
        };
        tokio::spawn(async move {
            ask(&ending.ctx, unknown).await;
        });
    }
    false
}

/// Asks nodes what they still have to do, and notes those that have nothing.
async fn ask(ctx: &Context, unknown: Unknown) {
    let changing = ctx.upstream.changing();
    // Names first: a task of an index that gets another name is looked for under its new one.
    let since = changing.stamp(None);
    let query = format!("types={NAMES}");
    let done = without_tasks(ctx, &unknown.any, &query).await;
    changing.are_done(&since, None, &done);
    let rounds = unknown.indexes.iter().map(|(uid, nodes)| async move {
        let since = changing.stamp([uid.as_str()]);
        let done = without_tasks(ctx, nodes, &format!("indexUids={uid}")).await;
        changing.are_done(&since, Some(uid), &done);
    });
    join_all(rounds).await;
}

/// Those of `nodes` that have no task under way that `query` selects.
async fn without_tasks(ctx: &Context, nodes: &[SocketAddr], query: &str) -> Vec<SocketAddr> {
    #[derive(Deserialize)]
    struct Task {
        #[serde(rename = "uid")]
        _uid: IgnoredAny,
    }
    let query = format!("statuses=enqueued,processing&{query}&limit=1");
    let authority = ctx.own_authority();
    let ask = |node: &SocketAddr| {
        let node = *node;
        let listed = ctx
            .upstream
            .tasks::<Task>(node, &query, &authority, TIMEOUT);
        async move {
            let listed = listed.await.ok()?;
            listed.is_empty().then_some(node)
        }
    };
    let done = join_all(nodes.iter().map(ask)).await;
    done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_round_is_under_way_for_the_same_indexes_and_the_next_one_comes_after_a_pause() {
        let rounds = Rounds::default();
        let films = ["films".to_owned()];
        assert!(rounds.begin(&films) && !rounds.begin(&films));
        assert!(rounds.begin(&["books".to_owned()]));
        tokio::time::advance(PAUSE * 2).await;
        assert!(!rounds.begin(&films));
        rounds.end(films.to_vec());
        assert!(!rounds.begin(&films));
        tokio::time::advance(PAUSE).await;
        assert!(rounds.begin(&films));
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_are_bounded() {
        let rounds = Rounds::default();
        for number in 0..MOST_ROUNDS {
            assert!(rounds.begin(&[number.to_string()]));
        }
        assert!(!rounds.begin(&["more".to_owned()]));
        rounds.end(vec!["0".to_owned()]);
        assert!(rounds.begin(&["more".to_owned()]));
        assert!(rounds.lock().len() <= MOST_ROUNDS);
    }
}
