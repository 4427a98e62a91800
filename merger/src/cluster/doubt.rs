//! Writes of which nobody can tell whether a replica took them: Envoy went away in their middle, or answers were lost.
//!
//! Where one replica at least said that it has a write, those that didn't are taken out. Where none did, the client is told that it
//! failed, but some replicas may have it and others not. Before the shard's next write, and as soon as a node answers, what
//! they have taken beyond what was acknowledged is compared. Who differs from the first, or doesn't say, is taken out: after the
//! next write nobody could tell any more.
//!
//! A shard may also be held: it has a change that other shards may not have yet. Nothing is written to it before they are one again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use weft_routing::placement::ShardId;

use super::reconcile::{Compared, compare};
use super::{ClusterError, take_out};
use crate::app::App;
use crate::sequence::Turn;

/// How often it is tried while nodes don't answer.
const AGAIN: Duration = Duration::from_millis(200);

/// Shards whose replicas may differ by a write that nobody was acknowledged.
#[derive(Default)]
pub struct Doubts {
    shards: Mutex<HashSet<ShardId>>,
    /// Who holds which shards, and whether reads go on there.
    held: Mutex<HashMap<String, (BTreeSet<ShardId>, Reads)>>,
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
        self.lock().contains(&shard) || self.hold_back(shard)
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

    fn lock(&self) -> MutexGuard<'_, HashSet<ShardId>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the turn on shards of which none is held: for who must not see some of them before a change and others after it.
pub async fn turn_when_whole(app: &App, shards: &[ShardId]) -> Turn {
    loop {
        let turn = app.sequencer.turn(shards).await;
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

/// Notes that replicas may differ. The caller has the shard's turn.
pub fn doubt(app: &Arc<App>, shard: ShardId) {
    let alone = app.cluster.replicas(shard).len() < 2;
    if alone || !app.cluster.doubts.lock().insert(shard) {
        return;
    }
    tracing::warn!(
        shard = shard.0,
        "nobody knows who took a write that failed: replicas are compared"
    );
    let app = Arc::clone(app);
    tokio::spawn(async move {
        while app.cluster.doubts.are_about(shard) {
            tokio::time::sleep(AGAIN).await;
            let _turn = app.sequencer.turn(&[shard]).await;
            if let Err(error) = settle_doubts(&app, shard).await {
                tracing::debug!(shard = shard.0, %error, "replicas can't be compared yet");
            }
        }
    });
}

/// Compares the replicas of a shard of which that is due. The caller has the shard's turn.
///
/// # Errors
/// No replica says what it has taken, or who differs could not be taken out: nothing may be written yet.
pub async fn settle_doubts(app: &App, shard: ShardId) -> Result<(), ClusterError> {
    if !app.cluster.doubts.are_about(shard) {
        return Ok(());
    }
    if app.cluster.doubts.hold_back(shard) {
        return Err(ClusterError::Held(shard));
    }
    let topology = app.cluster.topology();
    let Compared { heard, silent } = compare(app, topology.nodes(shard)).await?;
    if heard == 0 {
        return Err(ClusterError::InDoubt(shard));
    }
    for node in silent {
        let reason = "it does not say whether it took a write that was cut off";
        take_out(app, &node, reason).await?;
    }
    app.cluster.doubts.lock().remove(&shard);
    Ok(())
}
