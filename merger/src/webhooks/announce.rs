//! Announces ended tasks to webhooks: in order, in batches, each batch to all webhooks at once, with a few retries.

use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::write::GzipEncoder;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::{Webhook, WebhookError};
use crate::tasks::TaskError;
use crate::webhooks::Context;

/// How many tasks go into one call.
const BATCH: usize = 1_000;
/// How long to wait for further tasks that end soon after, so that they go into one call.
const GATHER: Duration = Duration::from_millis(20);
/// How often a webhook is tried. The pause doubles with each try.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How long one batch may delay the next, including retries.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause after the store failed, and the longest wait when there is nothing to announce.
const REST: Duration = Duration::from_secs(5);

/// Announces ended tasks; never ends.
pub async fn announce(ctx: Arc<Context>) {
    loop {
        match batch(&ctx).await {
            Ok(true) => {}
            Ok(false) => {
                let _ = tokio::time::timeout(REST, ctx.tasks.ended()).await;
                tokio::time::sleep(GATHER).await;
            }
            Err(error) => {
                tracing::error!(%error, "ended tasks can't be announced");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Announces the oldest tasks that wait for it; false if there are none.
async fn batch(ctx: &Context) -> Result<bool, WebhookError> {
    let uids = ctx.tasks.to_announce(BATCH).await?;
    if uids.is_empty() {
        return Ok(false);
    }
    let hooks = ctx.webhooks.all();
    if !hooks.is_empty() {
        let tasks = compressed(&lines(ctx, &uids).await).await;
        join_all(
            hooks
                .iter()
                .map(|(uuid, hook)| tell(ctx, *uuid, hook, &tasks)),
        )
        .await;
    }
    ctx.tasks.announced(&uids).await?;
    Ok(true)
}

/// One line of JSON for each task that still exists.
async fn lines(ctx: &Context, uids: &[u32]) -> Vec<u8> {
    let mut lines = Vec::new();
    for uid in uids {
        match ctx.tasks.get(*uid).await {
            Ok(view) => {
                lines.extend(serde_json::to_vec(&view).unwrap_or_default());
                lines.push(b'\n');
            }
            Err(TaskError::NotFound { .. }) => {}
            Err(error) => tracing::error!(uid, %error, "an ended task can't be announced"),
        }
    }
    lines
}

async fn compressed(lines: &[u8]) -> Bytes {
    let mut encoder = GzipEncoder::new(Vec::new());
    // Writing to memory can't fail.
    let _ = encoder.write_all(lines).await;
    let _ = encoder.shutdown().await;
    encoder.into_inner().into()
}

/// Sends the tasks to one webhook, and gives up after a few tries.
async fn tell(ctx: &Context, uuid: Uuid, hook: &Webhook, tasks: &Bytes) {
    let tries = async {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            match ctx.webhooks.sender.send(hook, tasks.clone()).await {
                Ok(()) => return true,
                Err(error) if attempt < TRIES && error.may_pass() => {
                    tracing::debug!(%uuid, %error, attempt, "a webhook could not be told");
                }
                Err(error) => {
                    tracing::error!(%uuid, %error, attempt, "a webhook was not told of ended tasks");
                    return false;
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        false
    };
    let told = tokio::time::timeout(PATIENCE, tries)
        .await
        .unwrap_or_else(|_| {
            tracing::error!(%uuid, "a webhook took too long and was not told of ended tasks");
            false
        });
    let outcome = if told { "told" } else { "given_up" };
    ctx.metrics
        .webhook_calls
        .with_label_values(&[outcome])
        .inc();
}
