//! How a merger begins to lead: it reads the state as its leader, and begins the background work.

use std::sync::Arc;
use std::time::Duration;

use super::Outside;
use super::identity::{known_id, remember_id};
use crate::cluster;
use crate::edge::{Context, Peers};
use crate::etcd::Etcd;
use crate::leadership::{Roll, Term};
use crate::options::ServeOptions;
use crate::runtime::publish::{list_mergers, publish};
use crate::runtime::{Opened, StartError, Surroundings};
use crate::spans::Spans;
use crate::store::{EtcdStore, Store, claim, forget_history, refuse_unfinished};
use crate::telemetry::Metrics;

/// What a leader needs to begin.
pub(super) struct Opening {
    pub(super) etcd: Arc<dyn Etcd>,
    pub(super) term: Term,
    pub(super) options: ServeOptions,
    pub(super) shared: cluster::Shared,
    pub(super) metrics: Metrics,
    pub(super) spans: Spans,
    pub(super) peers: Arc<Peers>,
    pub(super) outside: Outside,
}

impl Opening {
    pub(super) async fn open(self) -> Result<Arc<Context>, StartError> {
        let (options, etcd) = (&self.options, &self.etcd);
        let prefix = &options.etcd.prefix;
        let known = known_id(options)?;
        let id = claim(
            etcd,
            prefix,
            &self.term,
            known.as_deref(),
            options.keep_state_format,
        )
        .await?;
        refuse_unfinished(&**etcd, prefix).await?;
        remember_id(options, &id)?;
        let store = EtcdStore::open(Arc::clone(etcd), prefix.clone(), self.term.clone()).await?;
        let store: Arc<dyn Store> = Arc::new(store);
        let surroundings = Surroundings {
            store: Arc::clone(&store),
            nodes: Arc::clone(&self.outside.nodes),
            directory: Arc::clone(&self.outside.directory),
            fence: self.term.fence().clone(),
            shared: self.shared.clone(),
            metrics: self.metrics.clone(),
            spans: self.spans.clone(),
            peers: Arc::clone(&self.peers),
            has_followers: true,
        };
        let opened = Opened::open(options.clone(), surroundings).await?;
        let roll = Roll::new(Arc::clone(etcd), prefix.clone());
        // Before the start, which may take replicas out, and waits until the other mergers know.
        tokio::spawn(list_mergers(opened.context(), roll));
        let ctx = opened.start().await?;
        // What the last leader stored in its last moments may have been waited for by nobody: a replica that it took out may still
        // answer reads through a merger that hears late, and the first write that this leader acknowledges isn't on it.
        let epochs = ctx.cluster.epochs();
        ctx.cluster.mergers.until_all_keep_to(epochs.in_sync).await;
        ctx.cluster.mergers.until_all_serve(epochs.table).await;
        tokio::spawn(publish(Arc::clone(&ctx), store));
        if options.etcd.compact_interval_s > 0 {
            let interval = Duration::from_secs(options.etcd.compact_interval_s);
            tokio::spawn(forget_history(Arc::clone(etcd), prefix.clone(), interval));
        }
        Ok(ctx)
    }
}
