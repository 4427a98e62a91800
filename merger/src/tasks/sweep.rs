//! Deletes finished tasks that are past the maximum age.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::now_utc;
use crate::tasks::Context;

/// How often to look for old tasks.
const EVERY: Duration = Duration::from_secs(10);

/// Deletes old tasks in a loop; returns at once if no maximum age is set.
pub async fn forget_old(ctx: Arc<Context>) {
    if !ctx.tasks.forgets_old() {
        return;
    }
    loop {
        if let Err(error) = ctx.tasks.forget_old(now_utc()).await {
            tracing::error!(%error, "old tasks can't be deleted");
        }
        tokio::time::sleep(EVERY).await;
    }
}
