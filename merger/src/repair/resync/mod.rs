//! Brings a replica that is out of sync back: compare → copy → catch up → prove → in sync.
//!
//! ```text
//!   whole pass: every index compared and mended      ─┐ writes go on at the source, and are noted
//!   second whole pass: proves the first               │
//!   what was written meanwhile, until it is little   ─┘
//!   with the shard's turn: the rest, counts compared, in sync      (writes wait, for a bounded time)
//! ```
//!
//! The target takes no client's write until it is in sync, so nothing can overtake the copy. Nothing is kept of a resync but
//! that the replica is out: one that is cut short begins anew, and finds what is copied already to be equal.
//!
//! Invariants: a replica is in sync only after a whole pass that found no difference but in what was written meanwhile, and
//! after the last of that was mended while nobody wrote. Nothing is changed at the target before the source was seen to be still
//! the node that it was ([`source`]), and nothing much is deleted that nobody wanted to be deleted ([`deletions`]).

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
use crate::replication::took_unacknowledged;
use crate::store::StoreError;
use crate::supervise::survive;
use crate::upstream::UpstreamError;
pub(crate) use compare::{compare, differing_ids};
use deletions::Deletions;
use mend::Mend;
use remote::Remote;
use source::SourceGuard;

/// So few documents are mended while the shard's writers wait.
const FEW: usize = 1_000;
/// How often what was written meanwhile is mended before the writers must wait for more than a few.
const ROUNDS: usize = 10;
/// How often the whole is compared again because it was not equal.
const PROOFS: usize = 3;
/// How long writers may wait for the last mending; the second bound is for a shard that never had only a few.
const TURN: Duration = Duration::from_secs(10);
const LAST_TURN: Duration = Duration::from_secs(120);

/// Why a replica could not be brought back, this time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResyncError {
    /// A node gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A node said no.
    #[error("{node} answered {status} to {path}: {said}")]
    Refused {
        node: NodeId,
        path: String,
        status: StatusCode,
        said: String,
    },
    /// A node's answer isn't what the API says it is.
    #[error("{node}'s answer can't be read: {what}")]
    Unreadable { node: NodeId, what: String },
    /// A task that should have succeeded.
    #[error("{node}'s task {uid} did not succeed: {detail}")]
    Task {
        node: NodeId,
        uid: u32,
        detail: String,
    },
    /// A whole pass after the copy found differences again and again.
    #[error("{differences} documents differ though they were copied")]
    StillDiffers { differences: usize },
    /// The counts differ when all should be equal.
    #[error("`{index}` has {wanted} documents, and {found} on the replica")]
    Counts {
        index: String,
        wanted: u64,
        found: u64,
    },
    /// The last mending took too long.
    #[error("the last mending took longer than {} s", .0.as_secs())]
    TooSlow(Duration),
    /// An embedder's key can't be read from a node, so that it can't be set on another.
    #[error(
        "the key of the embedder `{embedder}` of `{index}` can't be read back: set the embedders again"
    )]
    SecretEmbedder { index: String, embedder: String },
    /// A node has yet to take acknowledged writes that others have.
    #[error("{0} has not taken what was acknowledged for a long time")]
    Lag(NodeId),
    /// The replica or its source is no more what it was.
    #[error("the replica or its source has changed its standing")]
    Overtaken,
    /// The source isn't the node that it was when the resync began.
    #[error("{node}, from which is copied, is not what it was: {detail}")]
    Source { node: NodeId, detail: String },
    /// The resync would delete more than it can explain.
    #[error(
        "stopped: it would delete {what} of `{index}` on {node}, and no task that is known removed them. If that is right, confirm it with POST /_cluster/nodes/{node}/resume and {{\"acceptDeletions\": true}}"
    )]
    Unexplained {
        node: NodeId,
        index: String,
        what: String,
    },
    /// A mistake in Weft.
    #[error("it panicked")]
    Panicked,
    /// Keys or features.
    #[error("keys could not be made equal: {0}")]
    Keys(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Shards or nodes.
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

/// The same as it is shown.
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

    /// As operators see it.
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

/// What keeps a resync from taking a loss for the truth.
#[derive(Clone, Copy)]
struct Guards<'a> {
    unbroken: &'a SourceGuard<'a>,
    deletions: &'a Deletions<'a>,
}

/// One replica on its way back.
struct Resync<'a> {
    ctx: &'a Arc<Context>,
    shard: ShardId,
    source: &'a NodeRef,
    target: &'a NodeRef,
    progress: &'a Progress,
}

impl Resync<'_> {
    /// All of it.
    async fn run(&self) -> Result<(), ResyncError> {
        self.ctx.cluster.dirty.begin(self.shard);
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
            let written = self.ctx.cluster.dirty.take(self.shard);
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

    /// Whole passes until one finds nothing that wasn't written meanwhile.
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

    /// Mends the rest while nobody writes, compares the counts, and takes the replica in.
    async fn last_turn(
        &self,
        source: &Remote<'_>,
        target: &Remote<'_>,
        guards: Guards<'_>,
        within: Duration,
    ) -> Result<(), ResyncError> {
        let _turn = self.ctx.locks.lock(&[self.shard]).await;
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
        // What the source has beyond its mark, the target has by now.
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

    /// The target must still be out, and the source still in.
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

    /// What the target may have to lose.
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
            // Who holds up the shard's writers doesn't dawdle.
            bytes_per_second: match phase {
                Phase::LastTurn => 0,
                _ => self.ctx.options.resync_bytes_per_second,
            },
            unbroken: guards.unbroken,
            deletions: guards.deletions,
        }
    }
}
