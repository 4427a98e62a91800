//! Writes of which nobody can tell whether a replica took them: Envoy went away in their middle, or answers were lost.
//!
//! Where one replica at least said that it has a write, those that didn't are taken out. Where none did, the client is told that it
//! failed, but some replicas may have it and others not. Before the shard's next write, and as soon as a node answers, what
//! they have taken beyond what was acknowledged is compared. A replica that differs from the first, or doesn't say, is taken out:
//! after the next write nobody could tell any more.
//!
//! A node that gives a write a number that isn't the next one has tasks that nobody is known to have sent: a write that was cut off
//! and came after all, or one that was made by hand. If they change anything, the shard's replicas may differ by them.
//!
//! A shard may also be held: it has a change that other shards may not have yet. Nothing is written to it before they are one again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use weft_routing::placement::ShardId;

use super::establish::establish_locked;
use super::reconcile::{Compared, compare};
use super::seen::are_harmless;
use super::{ClusterError, Mark, NodeId, NodeRef, take_out};
use crate::app::App;
use crate::replication::WriteGuard;
use crate::supervise::supervise;

/// How often it is tried while nodes don't answer.
const AGAIN: Duration = Duration::from_millis(200);

/// Shards whose replicas may differ by a write that nobody was acknowledged.
#[derive(Default)]
pub struct Doubts {
    shards: Mutex<HashMap<ShardId, Doubt>>,
    /// Who holds which shards, and whether reads go on there.
    held: Mutex<HashMap<String, (BTreeSet<ShardId>, Reads)>>,
}

/// What is to be looked into at a shard.
#[derive(Debug, Clone, Default)]
struct Doubt {
    /// A write was cut off.
    cut_off: bool,
    /// These replicas missed what others took, and the store failed when they were to be taken out.
    missed: Vec<(NodeId, String)>,
    /// Nodes have these tasks, and nobody is known to have sent them.
    unknown: Vec<(NodeId, Vec<u32>)>,
}

/// Reads from shards that are [held](Doubts::hold).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// They go on.
    GoOn,
    /// They leave: the shard is known to lack what others have.
    Leave,
}

impl Doubts {
    /// Whether a shard's replicas are yet to be compared, or the shard is held.
    pub(super) fn are_about(&self, shard: ShardId) -> bool {
        self.lock().contains_key(&shard) || self.hold_back(shard)
    }

    /// Whether the shard is held.
    pub fn hold_back(&self, shard: ShardId) -> bool {
        let held = self.held();
        held.values().any(|(shards, _)| shards.contains(&shard))
    }

    /// Whether the shard is held, and reads leave.
    pub(super) fn keep_reads_from(&self, shard: ShardId) -> bool {
        let held = self.held();
        let mut held = held.values().filter(|(_, reads)| *reads == Reads::Leave);
        held.any(|(shards, _)| shards.contains(&shard))
    }

    /// Lets nobody write to these shards, and to no others, in `holder`'s name.
    pub fn hold(&self, holder: &str, shards: BTreeSet<ShardId>, reads: Reads) {
        self.held().insert(holder.to_owned(), (shards, reads));
    }

    /// `holder` holds none any more.
    pub fn release(&self, holder: &str) {
        self.held().remove(holder);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, (BTreeSet<ShardId>, Reads)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ShardId, Doubt>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the turn on shards of which none is held: for who must not see some of them before a change and others after it.
pub async fn turn_when_whole(app: &App, shards: &[ShardId]) -> WriteGuard {
    loop {
        let turn = app.locks.lock(shards).await;
        if !shards
            .iter()
            .any(|shard| app.cluster.doubts.hold_back(*shard))
        {
            return turn;
        }
        drop(turn);
        tokio::time::sleep(AGAIN).await;
    }
}

/// Notes that replicas may differ by a write that was cut off. The caller has the shard's lock.
pub fn doubt(app: &Arc<App>, shard: ShardId) {
    tracing::warn!(
        shard = shard.0,
        "nobody knows which replicas took a write that failed: they are compared"
    );
    note(app, shard, |doubt| doubt.cut_off = true);
}

/// Notes replicas that missed what others took, and are to be taken out before anything else is written. The caller has the
/// shard's lock.
pub fn doubt_missed(app: &Arc<App>, shard: ShardId, missed: Vec<(NodeId, String)>) {
    note(app, shard, |doubt| doubt.missed.extend(missed));
}

/// Notes that a node has tasks that nobody is known to have sent. The caller has the shard's lock.
pub fn doubt_numbers(app: &Arc<App>, shard: ShardId, node: &NodeId, tasks: Vec<u32>) {
    let unknown = (node.clone(), tasks);
    note(app, shard, |doubt| doubt.unknown.push(unknown));
}

fn note(app: &Arc<App>, shard: ShardId, what: impl FnOnce(&mut Doubt)) {
    if app.cluster.replicas(shard).len() < 2 {
        return;
    }
    let is_new = {
        let mut shards = app.cluster.doubts.lock();
        let is_new = !shards.contains_key(&shard);
        what(shards.entry(shard).or_default());
        is_new
    };
    if !is_new {
        return;
    }
    supervise(app, "settle-doubts", move |app| async move {
        while app.cluster.doubts.are_about(shard) {
            tokio::time::sleep(AGAIN).await;
            let _guard = app.locks.lock(&[shard]).await;
            if let Err(error) = settle_doubts(&app, shard).await {
                tracing::debug!(shard = shard.0, %error, "replicas can't be compared yet");
            }
        }
    });
}

/// Compares the replicas of a shard of which that is due. The caller has the shard's lock.
///
/// # Errors
/// No replica says what it has taken, or one that differs could not be taken out: nothing may be written yet.
pub async fn settle_doubts(app: &App, shard: ShardId) -> Result<(), ClusterError> {
    let is_unknown =
        |node: &NodeRef| matches!(app.cluster.marks.mark(&node.id), Mark::Unknown { .. });
    if app.cluster.replicas(shard).iter().any(is_unknown) {
        // A node that takes a write before it is known would look as if it had always been there.
        establish_locked(app, shard).await?;
    }
    if !app.cluster.doubts.are_about(shard) {
        return Ok(());
    }
    if app.cluster.doubts.hold_back(shard) {
        return Err(ClusterError::Held(shard));
    }
    let doubt = app.cluster.doubts.lock().get(&shard).cloned();
    let Some(Doubt {
        cut_off,
        missed,
        unknown,
    }) = doubt
    else {
        return Ok(());
    };
    for (node, reason) in &missed {
        take_out(app, node, reason).await?;
    }
    if cut_off {
        let topology = app.cluster.topology();
        let Compared { heard, silent, .. } = compare(app, topology.nodes(shard)).await?;
        if heard == 0 {
            return Err(ClusterError::InDoubt(shard));
        }
        for node in silent {
            let reason = "it does not say whether it took a write that was cut off";
            take_out(app, &node, reason).await?;
        }
    }
    look_into(app, shard, unknown).await?;
    app.cluster.doubts.lock().remove(&shard);
    Ok(())
}

/// Where nodes have tasks that nobody is known to have sent and that change something, only the primary, or those without
/// such tasks, stay in sync.
async fn look_into(
    app: &App,
    shard: ShardId,
    unknown: Vec<(NodeId, Vec<u32>)>,
) -> Result<(), ClusterError> {
    let replicas = app.cluster.replicas(shard);
    let mut foreign: BTreeSet<&NodeId> = BTreeSet::new();
    for (node, tasks) in &unknown {
        let Some(found) = replicas.iter().find(|replica| replica.id == *node) else {
            continue;
        };
        if !foreign.contains(node) && !are_harmless(app, found, tasks).await {
            foreign.insert(node);
        }
    }
    if foreign.is_empty() {
        return Ok(());
    }
    let Some((primary, others)) = replicas.split_first() else {
        return Ok(());
    };
    let primary_has = foreign.contains(&primary.id);
    for other in others {
        if !primary_has && !foreign.contains(&other.id) {
            continue;
        }
        let has = if primary_has { &primary.id } else { &other.id };
        let reason = format!("{has} has tasks that were not sent through Weft");
        take_out(app, &other.id, &reason).await?;
    }
    Ok(())
}
