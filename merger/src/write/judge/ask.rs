//! Asks the shards which documents exist, if a verdict depends on it.
//!
//! A document that exists stays while no task is under way that removes documents, so the many updates without vectors don't
//! wait. That a document doesn't exist is certain only while nothing at all is under way: the merger waits for that, up to a
//! limit. If the index never rests, the write is left to the shards.

use std::time::Duration;

use futures_util::future::try_join_all;
use hashbrown::HashSet;
use weft_routing::placement::ShardId;

use super::{Finding, Suspicions, Verdict};
use crate::tasks::{Unknown, are_pending, ask_until};
use crate::write::Context;
use crate::write::locate::{fetch, id_of};

/// How long to wait until nothing is under way, and how often to check.
const WITHIN: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(25);

impl Suspicions {
    /// The verdict on a batch for an index with the primary key `key`; `None` if the batch is fine, or if it can't be told. `home`
    /// says which shard gets the document with an id.
    pub(in crate::write) async fn settle(
        &self,
        ctx: &Context,
        uid: &str,
        home: impl Fn(&str) -> Option<ShardId>,
        key: &str,
    ) -> Option<Finding> {
        let ids = match self.verdict(None) {
            Verdict::Fine => return None,
            Verdict::Refused { finding, .. } => return Some(finding),
            Verdict::Ask(ids) => ids,
        };
        let mut shards: Vec<(ShardId, Vec<&str>)> = Vec::new();
        for id in ids {
            let Some(shard) = home(id) else {
                continue;
            };
            match shards.iter_mut().find(|(other, _)| *other == shard) {
                Some((_, ids)) => ids.push(id),
                None => shards.push((shard, vec![id])),
            }
        }
        let stays = !ctx.tasks.takes_documents(uid);
        if let Ok(there) = fetch_all(ctx, uid, key, &shards).await
            && stays
            && matches!(self.verdict(Some(&there)), Verdict::Fine)
        {
            return None;
        }
        match ask_until(WITHIN, AGAIN, || look(ctx, uid, key, &shards)).await {
            Ok(Some(there)) => match self.verdict(Some(&there)) {
                Verdict::Refused { finding, .. } => Some(finding),
                Verdict::Fine | Verdict::Ask(_) => None,
            },
            Ok(None) => {
                tracing::debug!(
                    index = uid,
                    "an index never rests: its shards judge a write"
                );
                None
            }
            Err(error) => {
                tracing::debug!(index = uid, %error, "its shards judge a write");
                None
            }
        }
    }
}

/// Which of the documents exist; `None` while tasks are under way.
async fn look(
    ctx: &Context,
    uid: &str,
    key: &str,
    shards: &[(ShardId, Vec<&str>)],
) -> Result<Option<HashSet<String>>, Unknown> {
    let pending = shards
        .iter()
        .map(|(shard, _)| are_pending(ctx, *shard, uid));
    if try_join_all(pending).await?.contains(&true) {
        return Ok(None);
    }
    fetch_all(ctx, uid, key, shards).await.map(Some)
}

async fn fetch_all(
    ctx: &Context,
    uid: &str,
    key: &str,
    shards: &[(ShardId, Vec<&str>)],
) -> Result<HashSet<String>, Unknown> {
    let fields = [key];
    let found = shards
        .iter()
        .map(|(shard, ids)| fetch(ctx, *shard, uid, &fields, ids));
    let found = try_join_all(found).await?.into_iter().flatten().flatten();
    Ok(found.filter_map(|document| id_of(&document, key)).collect())
}
