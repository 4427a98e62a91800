//! How a merger begins to follow: it registers, reads the state, and keeps up with it.

use std::sync::Arc;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{AGAIN, CHANGES_WITHIN, Merger};
use crate::cluster::Cluster;
use crate::fence::Fence;
use crate::follower;
use crate::keys::Keys;
use crate::leadership::{Membership, OnLostStore, Registration};
use crate::runtime::phase::Phase;
use crate::runtime::{StartError, base, keep_spares, search_of};
use crate::store::{News, Snapshot, StateReader};

/// A merger that follows.
pub(crate) struct Following {
    pub(super) ctx: Arc<follower::Context>,
    /// Its background work ends with this.
    _phase: Phase,
}

impl Following {
    /// Resolves when the registration is lost: what this merger knows may be old.
    pub(super) async fn lost(&self) {
        self.ctx.membership.fence().closed().await;
    }
}

impl Merger {
    /// Follows; `None` if the process is to end before that.
    pub(super) async fn follow_unless(
        &self,
        stopping: &CancellationToken,
    ) -> Result<Option<Following>, StartError> {
        let following = async {
            let following = self.follow().await?;
            // Envoy would take nodes out of which this merger knows nothing yet.
            let looked = async {
                while !following.ctx.has_looked_at_nodes() {
                    sleep(AGAIN / 25).await;
                }
            };
            let _ = timeout(CHANGES_WITHIN, looked).await;
            Ok(Some(following))
        };
        tokio::select! {
            () = stopping.cancelled() => Ok(None),
            following = following => following,
        }
    }

    /// Registers, reads the state, and keeps up with it.
    pub(crate) async fn follow(&self) -> Result<Following, StartError> {
        let mut silent = false;
        loop {
            match self.try_to_follow().await {
                Err(StartError::NoAnswer(error)) => {
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(%error, "the state can't be read from etcd yet");
                    }
                    sleep(AGAIN).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_to_follow(&self) -> Result<Following, StartError> {
        let (prefix, candidate) = (self.options.etcd.prefix.clone(), &self.candidate);
        // Registered first: what the leader changes from here on waits for this merger, and what it changed before is read.
        let registration = Registration::new(candidate.id.clone(), candidate.address);
        let etcd = Arc::clone(&self.etcd);
        let lease = self.registered_for();
        let membership = Membership::join(etcd, &prefix, registration, lease).await?;
        let reader = StateReader::new(Arc::clone(&self.etcd), prefix);
        let read = reader.read_all().await?;
        let News::All(all) = read.news else {
            return Err(StartError::Unreadable("journal".to_owned()));
        };
        let store = Arc::new(Snapshot::of(all.iter().cloned()));
        let cluster = Cluster::follow(store, self.options.cluster(), self.shared.clone()).await?;
        cluster.apply_all(all).map_err(StartError::Unreadable)?;
        let fence = match self.options.on_lost_store {
            OnLostStore::Refuse => membership.fence().clone(),
            OnLostStore::ServeReads => Fence::always_open(),
        };
        let options = &self.options;
        let nodes = Arc::clone(&self.outside.nodes);
        let telemetry = (self.metrics.clone(), self.spans.clone());
        let base = base(options, nodes, fence, telemetry, cluster);
        let repair = options.repair();
        let ctx = Arc::new(follower::Context {
            search: search_of(options, &base, None),
            keys: Arc::new(Keys::default()),
            reader,
            membership,
            discovery_interval: repair.discovery_interval,
            probe_interval: repair.probe_interval,
        });
        let phase = Phase::begin(self.outside.threads, "follow").map_err(StartError::Threads)?;
        let (begun, directory) = (Arc::clone(&ctx), Arc::clone(&self.outside.directory));
        let spares = options.spares();
        let begin = async move {
            keep_spares(&begun.search.base, spares.as_ref());
            tokio::spawn(follower::discover(Arc::clone(&begun), directory));
            tokio::spawn(follower::watch(Arc::clone(&begun)));
            tokio::spawn(async move { follower::follow(&begun, read.count).await });
        };
        let _ = phase.run(begin).await;
        Ok(Following { ctx, _phase: phase })
    }
}
