//! Anti-entropy: checks on demand and at intervals that the replicas of a shard hold the same.
//!
//! Replicas are compared by a digest for each slot, and document by document only where digests differ. Since writes go on,
//! apparent differences are checked again: first a few times beside the writes, then with the shard's lock. Only differences
//! found with the lock are believed. A replica that really differs from the primary is removed from the in-sync set, and a resync
//! mends it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weft_routing::placement::ShardId;

use super::Context;
use super::resync::digest::Print;
use super::resync::remote::{Index, Remote};
use super::resync::{ResyncError, compare, differing_ids};
use crate::clock::now_utc;
use crate::cluster::{ClusterError, NodeRef, NodeStatus};
use crate::replication::remove_replica;

/// How many ids of differing documents a report names.
const NAMED: usize = 20;
/// How many documents are compared at once while writers wait.
const LOOKED_AT: usize = 2_000;
/// How often apparent differences are checked again while writes go on, before writers must wait.
const ROUNDS: usize = 5;
/// How long writers may wait for a comparison.
const TURN: Duration = Duration::from_secs(5);

/// The last report, and a lock for the comparison that is running.
#[derive(Default)]
pub struct Verification {
    last: Mutex<Option<Value>>,
    running: tokio::sync::Mutex<()>,
}

/// Compares all replicas every `verify_interval`; never ends.
pub async fn verify_now_and_then(ctx: Arc<Context>) {
    let every = ctx.options.verify_interval;
    if every.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(every).await;
        verify(&ctx).await;
    }
}

/// The last report; `null` before the first.
pub(crate) fn last(ctx: &Context) -> Value {
    let last = &ctx.verification.last;
    last.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
        .unwrap_or_default()
}

/// Compares all replicas of all shards, removes those that differ from the in-sync set, and returns the report. Only one
/// comparison runs at a time.
pub(crate) async fn verify(ctx: &Arc<Context>) -> Value {
    let _running = ctx.verification.running.lock().await;
    let begun = now_utc();
    let mut shards = Vec::new();
    let mut differences = 0;
    for shard in ctx.cluster.topology().shards() {
        let (report, count) = verify_shard(ctx, shard).await;
        differences += count;
        shards.push(report);
    }
    ctx.metrics.differences.inc_by(differences);
    let at = |time: OffsetDateTime| time.format(&Rfc3339).ok();
    let report = json!({
        "startedAt": at(begun),
        "finishedAt": at(now_utc()),
        "differences": differences,
        "shards": shards,
    });
    let last = &ctx.verification.last;
    *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
    report
}

pub(crate) async fn verify_shard(ctx: &Arc<Context>, shard: ShardId) -> (Value, u64) {
    let replicas: Vec<NodeRef> = ctx
        .cluster
        .replicas(shard)
        .into_iter()
        .filter(|node| ctx.cluster.health.status(&node.id) == NodeStatus::Up)
        .collect();
    let Some((primary, others)) = replicas.split_first() else {
        return (json!({"shardId": shard, "compared": []}), 0);
    };
    // During a staggered write, replicas differ for a while on purpose.
    let others = match ctx.cluster.stagger.is_apart(shard) {
        true => &[],
        false => others,
    };
    let (mut compared, mut found, mut count) = (vec![&primary.id], Vec::new(), 0);
    for other in others {
        let comparison = Comparison {
            ctx,
            shard,
            primary: Remote::new(ctx, primary),
            other: Remote::new(ctx, other),
        };
        match comparison.run().await {
            Ok(differing) => {
                compared.push(&other.id);
                if differing.is_empty() {
                    continue;
                }
                let sum: usize = differing.iter().map(|index| index.count).sum();
                count += sum as u64;
                let reason = format!(
                    "it differs from {} in {sum} documents or settings",
                    primary.id
                );
                let mended = remove_replica(ctx, &other.id, &reason).await.is_ok();
                let indexes: Vec<Value> = differing.into_iter().map(Differing::view).collect();
                found.push(json!({"node": other.id, "indexes": indexes, "resync": mended}));
            }
            Err(error) => {
                tracing::warn!(node = %other.id, %error, "replicas could not be compared");
                found.push(json!({"node": other.id, "error": error.to_string()}));
            }
        }
    }
    let report = json!({"shardId": shard, "compared": compared, "differences": found});
    (report, count)
}

/// The differences of one index.
struct Differing {
    index: String,
    /// Whether the index itself, its primary key or its settings differ.
    whole: bool,
    ids: Vec<String>,
    count: usize,
}

impl Differing {
    fn view(self) -> Value {
        let ids: Vec<&String> = self.ids.iter().take(NAMED).collect();
        json!({"indexUid": self.index, "settings": self.whole, "documents": self.ids.len(), "ids": ids})
    }
}

/// The comparison of a replica with the primary of its shard.
struct Comparison<'a> {
    ctx: &'a Arc<Context>,
    shard: ShardId,
    primary: Remote<'a>,
    other: Remote<'a>,
}

impl Comparison<'_> {
    async fn run(&self) -> Result<Vec<Differing>, ResyncError> {
        self.primary.applied().await?;
        self.other.applied().await?;
        let mut suspects = self.suspects().await?;
        for _ in 0..ROUNDS {
            if suspects.iter().map(|(_, ids)| ids.len()).sum::<usize>() <= LOOKED_AT {
                break;
            }
            suspects = self.still_suspected(suspects).await?;
        }
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        self.primary.applied().await?;
        self.other.applied().await?;
        // The last comparison is made while no write is sent.
        let _guard = self.ctx.locks.lock(&[self.shard]).await;
        if self.ctx.cluster.in_doubt.blocks_writes(self.shard) {
            return Err(ClusterError::Held(self.shard).into());
        }
        let looking = self.differing(suspects);
        let within = tokio::time::timeout(TURN, looking).await;
        within.map_err(|_| ResyncError::TooSlow(TURN))?
    }

    /// The real differences among the suspects. The caller has the shard's lock.
    async fn differing(
        &self,
        suspects: Vec<(String, Vec<String>)>,
    ) -> Result<Vec<Differing>, ResyncError> {
        self.primary.applied().await?;
        self.other.applied().await?;
        let indexes = self.indexes().await?;
        let mut differing = Vec::new();
        for (index, suspected) in suspects {
            let (one, two) = indexes.get(&index).cloned().unwrap_or_default();
            let whole = one != two || !self.same_settings(&index).await.unwrap_or(false);
            let key = one.and_then(|index| index.primary_key);
            let ids = match key {
                Some(key) => self.still_differing(&index, &key, suspected).await?,
                None => Vec::new(),
            };
            let count = ids.len() + usize::from(whole);
            if count > 0 {
                differing.push(Differing {
                    index,
                    whole,
                    ids,
                    count,
                });
            }
        }
        Ok(differing)
    }

    /// The suspects that still differ after both replicas have applied their tasks.
    async fn still_suspected(
        &self,
        suspects: Vec<(String, Vec<String>)>,
    ) -> Result<Vec<(String, Vec<String>)>, ResyncError> {
        self.primary.applied().await?;
        self.other.applied().await?;
        let indexes = self.indexes().await?;
        let mut left = Vec::new();
        for (index, suspected) in suspects {
            let (one, two) = indexes.get(&index).cloned().unwrap_or_default();
            let whole = one != two || !self.same_settings(&index).await.unwrap_or(false);
            let ids = match one.and_then(|index| index.primary_key) {
                Some(key) => self.unequal(&index, &key, &suspected).await?,
                None => Vec::new(),
            };
            if whole || !ids.is_empty() {
                left.push((index, ids));
            }
        }
        Ok(left)
    }

    /// Both replicas' indexes by name.
    async fn indexes(
        &self,
    ) -> Result<HashMap<String, (Option<Index>, Option<Index>)>, ResyncError> {
        let mut indexes: HashMap<String, (Option<Index>, Option<Index>)> = HashMap::new();
        for index in self.primary.indexes().await? {
            let uid = index.uid.clone();
            indexes.entry(uid).or_default().0 = Some(index);
        }
        for index in self.other.indexes().await? {
            let uid = index.uid.clone();
            indexes.entry(uid).or_default().1 = Some(index);
        }
        Ok(indexes)
    }

    /// The indexes that seem to differ, with the ids of the documents that do.
    async fn suspects(&self) -> Result<Vec<(String, Vec<String>)>, ResyncError> {
        let mut suspects = Vec::new();
        for (uid, (one, two)) in self.indexes().await? {
            let both = one.is_some() && two.is_some();
            let ids = match one.and_then(|index| index.primary_key) {
                Some(key) if both => {
                    let slots = compare(&self.primary, &self.other, &uid, &key).await?;
                    match slots {
                        Some(slots) => {
                            differing_ids(&self.primary, &self.other, &uid, &key, &slots).await?
                        }
                        None => Vec::new(),
                    }
                }
                _ => Vec::new(),
            };
            if !both || !ids.is_empty() || !self.same_settings(&uid).await? {
                suspects.push((uid, ids));
            }
        }
        Ok(suspects)
    }

    async fn same_settings(&self, index: &str) -> Result<bool, ResyncError> {
        let path = format!("/indexes/{index}/settings");
        let one: Map<String, Value> = self.primary.get(&path).await?;
        let two: Map<String, Value> = self.other.get(&path).await?;
        Ok(one == two)
    }

    async fn still_differing(
        &self,
        index: &str,
        primary_key: &str,
        suspected: Vec<String>,
    ) -> Result<Vec<String>, ResyncError> {
        // The first chunk with differences is enough: the resync finds the rest.
        for some in suspected.chunks(LOOKED_AT) {
            let differing = self.unequal(index, primary_key, some).await?;
            if !differing.is_empty() {
                return Ok(differing);
            }
        }
        Ok(Vec::new())
    }

    async fn unequal(
        &self,
        index: &str,
        primary_key: &str,
        ids: &[String],
    ) -> Result<Vec<String>, ResyncError> {
        let prints = |documents: Vec<Box<serde_json::value::RawValue>>| -> HashMap<String, u64> {
            documents
                .iter()
                .filter_map(|document| Print::of(document, primary_key))
                .map(|print| (print.id, print.content))
                .collect()
        };
        let one = prints(self.primary.documents_of(index, ids).await?);
        let two = prints(self.other.documents_of(index, ids).await?);
        let differ = |id: &&String| one.get(*id) != two.get(*id);
        Ok(ids.iter().filter(differ).cloned().collect())
    }
}
