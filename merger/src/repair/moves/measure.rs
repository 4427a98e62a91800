//! Measures now and then how unevenly documents lie on the shards, for the metrics and for new indexes.

use std::sync::Arc;
use std::time::Duration;

use super::Survey;
use crate::repair::Context;

/// How often shards are asked for their sizes.
const EVERY: Duration = Duration::from_secs(30);

/// Measures as long as the merger leads.
pub async fn measure(ctx: Arc<Context>) {
    loop {
        if let Ok(survey) = Survey::of(&ctx).await {
            let shards = ctx.cluster.shards();
            let metrics = &ctx.metrics;
            metrics.shard_documents.reset();
            for shard in &shards {
                let documents = i64::try_from(survey.documents(*shard)).unwrap_or(i64::MAX);
                let label = shard.0.to_string();
                let gauge = metrics.shard_documents.with_label_values(&[&label]);
                gauge.set(documents);
            }
            let bytes = shards.iter().map(|shard| (*shard, survey.bytes(*shard)));
            ctx.cluster.fullness.measured(bytes.collect());
            let draining = ctx.cluster.moves.draining();
            let stay = shards.into_iter().filter(|shard| !draining.contains(shard));
            metrics.imbalance.set(survey.imbalance(&stay.collect()));
        }
        tokio::time::sleep(EVERY).await;
    }
}
