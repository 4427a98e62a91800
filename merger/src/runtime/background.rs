//! What a merger that leads does without being asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::broadcast;
use crate::cluster::{Directory, NodeId, Removal};
use crate::edge::Context;
use crate::keys::equalise_keys;
use crate::repair;
use crate::replication;
use crate::store::Patience;
use crate::supervise::{supervise, supervise_or_exit};
use crate::tasks::{self, SettledTask, SharedEnd, TaskEvents};
use crate::webhooks;
use crate::write;

/// Begins all of it.
pub(super) fn spawn(
    ctx: &Arc<Context>,
    settling: mpsc::Receiver<SettledTask>,
    directory: Arc<dyn Directory>,
) {
    let panics = &ctx.metrics.panics;
    let repair = || Arc::clone(&ctx.repair);
    supervise_or_exit(panics, "discover", repair::discover(repair(), directory));
    supervise_or_exit(panics, "watch", repair::watch(repair()));
    supervise_or_exit(panics, "keep-in-sync", repair::keep_in_sync(repair()));
    supervise(&ctx.repair, panics, "verify", repair::verify_now_and_then);
    supervise(&ctx.repair, panics, "move-slots", repair::move_slots);
    supervise(&ctx.repair, panics, "measure", repair::measure);
    let events: Arc<dyn TaskEvents> = Arc::new(OnTaskEvents(Arc::clone(&ctx.broadcast)));
    supervise(&ctx.registry, panics, "follow-tasks", move |registry| {
        tasks::follow(registry, Arc::clone(&events))
    });
    let keys = Arc::clone(&ctx.reading.keys);
    supervise(&ctx.registry.base, panics, "equalise-keys", move |base| {
        equalise_keys(base, Arc::clone(&keys))
    });
    let settling = Arc::new(tokio::sync::Mutex::new(settling));
    let began = AtomicBool::new(false);
    supervise(ctx, panics, "act-on-settled", move |ctx| {
        let again = began.swap(true, Ordering::Relaxed);
        act_on_settled(ctx, Arc::clone(&settling), again)
    });
    supervise(
        &ctx.broadcast,
        panics,
        "watch-settings",
        broadcast::watch_settings,
    );
    supervise(&ctx.webhooks, panics, "announce", webhooks::announce);
    supervise(&ctx.registry, panics, "forget-old-tasks", tasks::forget_old);
}

/// Passes the results of nodes' tasks on to the parts that act on them.
struct OnTaskEvents(Arc<broadcast::Context>);

impl TaskEvents for OnTaskEvents {
    fn replica_differs(&self, node: NodeId, reason: String) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match replication::remove_replica_surely(&self.0, &node, &reason).await {
                Some(Removal::AlreadyOut | Removal::RefusedLast) => {
                    self.0.tasks.abandon(&node).await
                }
                Some(Removal::Removed) | None => {}
            }
        })
    }

    fn shared_tasks_ended(&self, ends: Vec<SharedEnd>) {
        write::shared_tasks_ended(&self.0.write, ends);
    }

    fn settings_changed(&self, uids: Vec<u32>) {
        broadcast::look_into(&self.0, uids);
    }
}

/// Passes each settled task to the parts that act on its end.
async fn act_on_settled(
    ctx: Arc<Context>,
    settling: Arc<tokio::sync::Mutex<mpsc::Receiver<SettledTask>>>,
    again: bool,
) {
    let mut settling = settling.lock().await;
    if again {
        pass_on_missed_ends(&ctx).await;
    }
    while let Some(settled) = settling.recv().await {
        let ended = &ctx.metrics.tasks_ended;
        ended
            .with_label_values(&[settled.view.status.as_str()])
            .inc_by(settled.count as u64);
        let mut patience = Patience::with("what follows from a task's end");
        let mut outcome = broadcast::on_settled(&ctx.broadcast, &settled.view).await;
        while patience.after(outcome).await.is_continue() {
            outcome = broadcast::on_settled(&ctx.broadcast, &settled.view).await;
        }
        // Once there is room again, the ends that found none are passed on.
        if settling.is_empty() && ctx.tasks.left_some_untold() {
            pass_on_missed_ends(&ctx).await;
        }
    }
}

/// Passes on the ends of tasks that no part has acted on yet.
async fn pass_on_missed_ends(ctx: &Context) {
    if let Err(error) = ctx.tasks.tell_again().await {
        tracing::error!(%error, "what follows from some tasks' ends waits for a restart");
    }
}
