//! What is known of an index when documents are added to it: where they go, what identifies them, and what they are judged by.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use weft_routing::placement::SlotMap;

use super::judge::{Judge, Manner, Rules};
use super::params::Params;
use super::split::{Batch, SplitKey, Splitter};
use super::spool::SpoolLimits;
use super::{Context, Format, WriteError};
use crate::cluster::Placement;
use crate::tasks::{Unknown, are_pending, ask_primary, ask_until};

/// How long a write waits to learn its index's primary key, and how often it checks.
const KEY_WITHIN: Duration = Duration::from_secs(5);
const KEY_AGAIN: Duration = Duration::from_millis(20);

/// The layout of an index at one moment: slots, primary key and the rules for its documents.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) slots: Arc<SlotMap>,
    /// The primary key on record.
    pub(super) key: Option<String>,
    pub(super) placement: Option<Arc<Placement>>,
    /// The rules that documents are judged by.
    rules: Arc<Rules>,
}

impl Layout {
    pub(super) async fn of(ctx: &Context, uid: &str) -> Result<Self, WriteError> {
        let placement = ctx.cluster.placement(uid);
        let (slots, key) = match &placement {
            Some(placement) => {
                let alive = placement.deleted_by.is_none();
                (
                    Arc::clone(&placement.slots),
                    placement.primary_key.clone().filter(|_| alive),
                )
            }
            None => (ctx.cluster.propose(uid)?, None),
        };
        let alive = placement
            .as_deref()
            .is_some_and(|placement| placement.deleted_by.is_none());
        Ok(Self {
            slots,
            key,
            // A new index has no settings.
            rules: match alive {
                true => ctx.writes.judged_by.now(ctx, uid).await,
                false => Arc::default(),
            },
            placement,
        })
    }

    /// Whether the index exists.
    pub(super) fn is_alive(&self) -> bool {
        let placement = self.placement.as_deref();
        placement.is_some_and(|placement| placement.deleted_by.is_none())
    }

    /// The limits on how the parts of a write are kept.
    pub(super) fn limits(ctx: &Context) -> SpoolLimits {
        let options = &ctx.options;
        SpoolLimits {
            memory_bytes: options.spool_memory_bytes,
            piece_bytes: options.max_node_payload_bytes,
            folder: options.spool_folder.clone(),
            memory: ctx.bounds.bodies.clone(),
            disk: ctx.bounds.spools.clone(),
        }
    }

    /// Whether an update must look for its documents before it is laid out.
    pub(super) fn looks_for(&self, method: &Method) -> bool {
        self.slots.field().is_some() && *method == Method::PUT
    }

    /// Whether a write asks that new documents be left out where nobody can tell which ones are new.
    pub(super) fn cannot_skip(&self, params: &Params, method: &Method) -> bool {
        params.skip_creation == Some(true)
            && self.slots.field().is_some()
            && !self.looks_for(method)
            && self.slots.shards().len() > 1
    }

    /// A splitter for the body of a write.
    pub(super) fn splitter(
        &self,
        ctx: &Context,
        format: Format,
        params: &Params,
        method: &Method,
    ) -> Splitter {
        let name = self.key.as_ref().or(params.primary_key.as_ref()).cloned();
        let key = SplitKey {
            name,
            is_open: self.key.is_none(),
        };
        let manner = Manner {
            updates: *method == Method::PUT,
            skips_creation: params.skip_creation == Some(true),
            keeps: !self.is_alive(),
        };
        let judge = Judge::new(Arc::clone(&self.rules), manner);
        let splitter = Splitter::new(format, &self.slots, key, Self::limits(ctx)).judged(judge);
        match self.looks_for(method) {
            true => splitter.gathering(),
            false => splitter,
        }
    }

    /// Whether a batch that was split by another layout is split correctly for this one: same slots, key and rules.
    pub(super) fn fits(&self, split_by: &Self, batch: &Batch) -> bool {
        let same_key = self.key.is_none() || batch.received == 0 || self.key == batch.key;
        self.slots == split_by.slots && same_key && self.rules == split_by.rules
    }

    /// Finds the primary key of an index that is placed but has none on record: its nodes may know one.
    pub(super) async fn find_key(&mut self, ctx: &Context, uid: &str) -> Result<(), WriteError> {
        let Some(placement) = self
            .placement
            .as_ref()
            .filter(|placement| placement.deleted_by.is_none())
        else {
            return Ok(());
        };
        let (None, Some(shard)) = (&self.key, placement.shards().first()) else {
            return Ok(());
        };
        // Tasks under way may give the index a key, or give its name to another index.
        let unknown = |error| match error {
            Unknown::Cluster(error) => WriteError::Cluster(error),
            Unknown::Upstream(source) => WriteError::Unreachable {
                shard: *shard,
                source,
            },
        };
        let rests = || async {
            let is_pending = are_pending(ctx, *shard, uid).await?;
            Ok::<_, Unknown>((!is_pending).then_some(()))
        };
        let rests = ask_until(KEY_WITHIN, KEY_AGAIN, rests).await;
        // If they take too long, the nodes are asked for what they know now.
        rests.map_err(unknown)?;
        let path = format!("/indexes/{uid}");
        let index: Option<Value> = ask_primary(ctx, *shard, path).await.map_err(unknown)?;
        let index = index.unwrap_or_default();
        if let Some(key) = index.get("primaryKey").and_then(Value::as_str) {
            ctx.cluster
                .placements
                .set_primary_key(uid, Some(key))
                .await?;
            self.key = Some(key.to_owned());
        }
        Ok(())
    }
}
