//! Brings a replica that is out of sync back: compare → copy → prove → catch up → in sync.
//!
//! ```text
//!   whole pass: every index compared and mended      ─┐ writes go on at the source, and are noted
//!   second whole pass: proves the first               │
//!   what was written meanwhile, until it is little   ─┘
//!   with the shard's lock: the rest, counts compared, in sync      (writes wait, for a bounded time)
//! ```
//!
//! The target takes no client's write until it is in sync, so no write can overtake the copy. A resync stores no progress. If it
//! is interrupted, the next one starts again and finds what is already copied to be equal.
//!
//! Invariants: a replica is in sync only after a whole pass that found no difference except in what was written meanwhile, and
//! after the last of that was mended under the shard's lock. The target is changed only after a check that the source still is
//! the same node ([`source`]), and a resync deletes much only if there is an explanation ([`deletions`]).

mod compare;
mod copy;
mod deletions;
pub(crate) mod digest;
mod mend;
pub(crate) mod remote;
mod running;
mod scan;
mod source;
mod supervise;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;
use weft_routing::placement::ShardId;

pub use running::Resyncs;
pub use supervise::keep_in_sync;

use crate::clock::now_utc;
use crate::cluster::{ClusterError, NodeId, NodeRef, SyncState, Written};
use crate::keys::equalise_keys_now;
use crate::repair::Context;
use crate::replication::{settle_doubt, took_unacknowledged};
use crate::store::StoreError;
use crate::supervise::survive;
use crate::upstream::UpstreamError;
pub(crate) use compare::{compare, differing_ids};
pub(crate) use digest::Print;
pub(super) use mend::settings_change;
pub(super) use remote::Remote;
pub(super) use scan::{Position, Scan};
pub(super) use source::SourceGuard;

use deletions::Deletions;
use mend::Mend;

/// The most documents that are mended while the shard's writers wait. The simulation has few documents, and must go both ways.
const FEW: usize = if cfg!(test) { 3 } else { 1_000 };
/// How many rounds mend what was written meanwhile, before the writers must wait even for more than [`FEW`].
const ROUNDS: usize = 10;
/// How many whole passes may follow the copy until one finds no difference.
const PROOFS: usize = 3;
/// How long writers may wait for the last mending. The second limit applies once all [`ROUNDS`] are used up.
const TURN: Duration = Duration::from_secs(10);
const LAST_TURN: Duration = Duration::from_secs(120);

/// Why a resync failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResyncError {
    /// A node didn't answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A node refused a request.
    #[error("{node} answered {status} to {path}: {said}")]
    Refused {
        node: NodeId,
        path: String,
        status: StatusCode,
        said: String,
    },
    /// A node's answer can't be read as the API describes it.
    #[error("{node}'s answer can't be read: {what}")]
    Unreadable { node: NodeId, what: String },
    /// A node's task failed, was cancelled, or took too long.
    #[error("{node}'s task {uid} did not succeed: {detail}")]
    Task {
        node: NodeId,
        uid: u32,
        detail: String,
    },
    /// Every whole pass after the copy found differences.
    #[error("{differences} documents differ though they were copied")]
    StillDiffers { differences: usize },
    /// The numbers of documents differ at the end.
    #[error("`{index}` has {wanted} documents, and {found} on the replica")]
    Counts {
        index: String,
        wanted: u64,
        found: u64,
    },
    /// The last mending took too long.
    #[error("the last mending took longer than {} s", .0.as_secs())]
    TooSlow(Duration),
    /// A node hides an embedder's key, so the key can't be set on another node.
    #[error(
        "the key of the embedder `{embedder}` of `{index}` can't be read back: set the embedders again"
    )]
    SecretEmbedder { index: String, embedder: String },
    /// A node still lags behind acknowledged writes.
    #[error("{0} has not taken what was acknowledged for a long time")]
    Lag(NodeId),
    /// The replica or its source has changed its sync state.
    #[error("the replica or its source has changed its standing")]
    Overtaken,
    /// The source is not the same node as when the resync began, or doesn't answer.
    #[error("{node}, from which is copied, is not what it was: {detail}")]
    Source { node: NodeId, detail: String },
    /// The resync would delete more than there is an explanation for.
    #[error(
        "stopped: it would delete {what} of `{index}` on {node}, and no task that is known removed them. If that is right, confirm it with POST /_cluster/nodes/{node}/resume and {{\"acceptDeletions\": true}}"
    )]
    Unexplained {
        node: NodeId,
        index: String,
        what: String,
    },
    /// The resync panicked: a bug in Weft.
    #[error("it panicked")]
    Panicked,
    /// Making the API keys equal failed.
    #[error("keys could not be made equal: {0}")]
    Keys(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The shard has a write fence, or the cluster lacks something.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// What a resync does at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Phase {
    /// The replica works off the tasks that it had before.
    #[default]
    WaitingForOldTasks,
    /// Keys and features are made equal.
    Instance,
    /// A whole pass: every index is compared and mended.
    Copying,
    /// Another whole pass, which proves the first.
    Verifying,
    /// What was written meanwhile is mended.
    CatchingUp,
    /// The rest is mended while the shard's writers wait.
    LastTurn,
}

/// How far a resync has come, for operators.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    phase: Mutex<(Phase, Option<String>)>,
    checked: AtomicU64,
    copied: AtomicU64,
    removed: AtomicU64,
    bytes: AtomicU64,
}

/// The progress as JSON shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProgressView {
    phase: Phase,
    index: Option<String>,
    documents_checked: u64,
    documents_copied: u64,
    documents_removed: u64,
    bytes_copied: u64,
}

impl Progress {
    fn enter(&self, phase: Phase, index: Option<&str>) {
        let mut now = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        *now = (phase, index.map(str::to_owned));
    }

    fn phase(&self) -> Phase {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn differences(&self) -> u64 {
        self.copied.load(Ordering::Relaxed) + self.removed.load(Ordering::Relaxed)
    }

    /// The progress as operators see it.
    pub(crate) fn view(&self) -> ProgressView {
        let (phase, index) = self
            .phase
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        ProgressView {
            phase,
            index,
            documents_checked: self.checked.load(Ordering::Relaxed),
            documents_copied: self.copied.load(Ordering::Relaxed),
            documents_removed: self.removed.load(Ordering::Relaxed),
            bytes_copied: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// The checks that keep a resync from copying a data loss.
#[derive(Clone, Copy)]
struct Guards<'a> {
    unbroken: &'a SourceGuard<'a>,
    deletions: &'a Deletions<'a>,
}

/// The resync of one replica.
struct Resync<'a> {
    ctx: &'a Arc<Context>,
    shard: ShardId,
    source: &'a NodeRef,
    target: &'a NodeRef,
    progress: &'a Progress,
}

impl Resync<'_> {
    /// Runs the whole resync, and notes writes to the shard meanwhile.
    async fn run(&self) -> Result<(), ResyncError> {
        let (locks, dirty) = (&self.ctx.locks, &self.ctx.cluster.dirty);
        // From here on, no write is on its way that isn't noted.
        let begin = || dirty.begin(self.shard);
        locks.between_writes(self.shard, begin).await;
        let outcome = survive(&self.ctx.metrics.panics, "resync", self.phases()).await;
        self.ctx.cluster.dirty.end(self.shard);
        outcome.unwrap_or(Err(ResyncError::Panicked))
    }

    async fn phases(&self) -> Result<(), ResyncError> {
        let (source, target) = (self.remote(self.source), self.remote(self.target));
        let unbroken = SourceGuard::of(self.ctx, self.source)?;
        let deletions = self.deletions().await;
        let guards = Guards {
            unbroken: &unbroken,
            deletions: &deletions,
        };
        // What the replica still has to do from before would come after the copy.
        self.progress.enter(Phase::WaitingForOldTasks, None);
        target.applied().await?;
        self.progress.enter(Phase::Instance, None);
        mend::instance(&source, &target).await?;
        equalise_keys_now(self.ctx, &self.ctx.keys)
            .await
            .map_err(|error| ResyncError::Keys(error.to_string()))?;
        self.mender(Phase::Copying, &source, &target, guards)
            .mend(&Written::Everything)
            .await?;
        self.prove(&source, &target, guards).await?;
        for round in 0.. {
            let take = || self.ctx.cluster.dirty.take(self.shard);
            let written = self.ctx.locks.between_writes(self.shard, take).await;
            let last = round >= ROUNDS;
            if last || written.documents().is_some_and(|count| count <= FEW) {
                self.ctx.cluster.dirty.put_back(self.shard, written);
                let within = if last { LAST_TURN } else { TURN };
                match self.last_turn(&source, &target, guards, within).await {
                    Err(ResyncError::TooSlow(_)) if !last => continue,
                    outcome => return outcome,
                }
            }
            let mender = self.mender(Phase::CatchingUp, &source, &target, guards);
            mender.mend(&written).await?;
            self.check()?;
        }
        Err(ResyncError::Overtaken)
    }

    /// Makes whole passes until one finds no difference except in what was written meanwhile.
    async fn prove(
        &self,
        source: &Remote<'_>,
        target: &Remote<'_>,
        guards: Guards<'_>,
    ) -> Result<(), ResyncError> {
        let mut differences = 0;
        for _ in 0..PROOFS {
            let before = self.progress.differences();
            let mender = self.mender(Phase::Verifying, source, target, guards);
            let found = mender.mend(&Written::Everything).await?;
            let written = self.ctx.cluster.dirty.take(self.shard);
            differences = found.iter().filter(|one| !one.is_within(&written)).count();
            self.ctx.cluster.dirty.put_back(self.shard, written);
            self.check()?;
            if differences == 0 {
                return Ok(());
            }
            let mended = self.progress.differences() - before;
            tracing::info!(node = %self.target.id, differences, mended, "a copy is compared again");
        }
        Err(ResyncError::StillDiffers { differences })
    }

    /// Mends the rest under the shard's lock, compares the counts, and puts the replica in sync.
    async fn last_turn(
        &self,
        source: &Remote<'_>,
        target: &Remote<'_>,
        guards: Guards<'_>,
        within: Duration,
    ) -> Result<(), ResyncError> {
        let _guard = self.ctx.locks.lock(&[self.shard]).await;
        // Below, everything that the source has becomes accounted for. Other replicas must not lack any of it.
        settle_doubt(self.ctx, self.shard).await?;
        let begun = Instant::now();
        let written = self.ctx.cluster.dirty.take(self.shard);
        let mending = async {
            let mender = self.mender(Phase::LastTurn, source, target, guards);
            mender.mend(&written).await?;
            self.compare_counts(source, target).await
        };
        let outcome = tokio::time::timeout(within, mending).await;
        let (newest, newest_of_source) = match outcome {
            Ok(counted) => {
                counted?;
                (target.newest().await?, source.newest_task().await?)
            }
            Err(_) => {
                self.ctx.cluster.dirty.put_back(self.shard, written);
                return Err(ResyncError::TooSlow(within));
            }
        };
        self.check()?;
        guards.unbroken.check().await?;
        let cluster = &self.ctx.cluster;
        // The target now has all that the source has beyond its mark.
        let marks = &cluster.marks;
        marks.raise(&self.source.id, newest_of_source).await;
        cluster.health.begins_anew(&self.target.id);
        cluster
            .in_sync
            .bring_back(&self.target.id, newest, marks)
            .await?;
        let ms = begun.elapsed().as_millis();
        tracing::info!(node = %self.target.id, writers_waited_ms = ms, "replica is in sync again");
        Ok(())
    }

    async fn compare_counts(
        &self,
        source: &Remote<'_>,
        target: &Remote<'_>,
    ) -> Result<(), ResyncError> {
        let (indexes, found) = (source.indexes().await?, target.indexes().await?);
        for index in &found {
            if !indexes.iter().any(|wanted| wanted.uid == index.uid) {
                return Err(ResyncError::Counts {
                    index: index.uid.clone(),
                    wanted: 0,
                    found: target.count(&index.uid).await?,
                });
            }
        }
        for index in indexes {
            let (wanted, found) = (
                source.count(&index.uid).await?,
                target.count(&index.uid).await?,
            );
            if wanted != found {
                let index = index.uid;
                return Err(ResyncError::Counts {
                    index,
                    wanted,
                    found,
                });
            }
        }
        Ok(())
    }

    /// Checks that the target is still out, the source still in sync, and the shard has no write fence.
    fn check(&self) -> Result<(), ResyncError> {
        if self.ctx.cluster.in_doubt.blocks_writes(self.shard) {
            return Err(ClusterError::Held(self.shard).into());
        }
        let in_sync = &self.ctx.cluster.in_sync;
        let out = matches!(
            in_sync.sync_state(&self.target.id),
            Some(SyncState::Out { .. })
        );
        if out && in_sync.holds(&self.source.id) {
            Ok(())
        } else {
            Err(ResyncError::Overtaken)
        }
    }

    fn remote<'b>(&'b self, node: &'b NodeRef) -> Remote<'b> {
        Remote::new(self.ctx, node)
    }

    /// The limits for deletions on the target.
    async fn deletions(&self) -> Deletions<'_> {
        let cluster = &self.ctx.cluster;
        let node = &self.target.id;
        let standing = cluster.in_sync.sync_state(node);
        let out_since = standing.and_then(|standing| standing.out_since());
        Deletions {
            ctx: self.ctx,
            shard: self.shard,
            node: node.clone(),
            out_since: out_since.unwrap_or_else(now_utc),
            took_more: took_unacknowledged(self.ctx, self.target).await,
            confirmed: self.ctx.resyncs.state().confirmed.contains(node),
            counts: Mutex::default(),
        }
    }

    fn mender<'b>(
        &'b self,
        phase: Phase,
        source: &'b Remote<'b>,
        target: &'b Remote<'b>,
        guards: Guards<'b>,
    ) -> Mend<'b> {
        self.progress.enter(phase, None);
        Mend {
            source,
            target,
            progress: self.progress,
            // No limit while the shard's writers wait.
            bytes_per_second: match phase {
                Phase::LastTurn => 0,
                _ => self.ctx.options.resync_bytes_per_second,
            },
            unbroken: guards.unbroken,
            deletions: guards.deletions,
        }
    }
}
