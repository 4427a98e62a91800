//! Keeps background work going as long as the merger runs: a panic in it is logged and counted, and the work is started again.
//!
//! Work that is started again keeps its state in the store or in a context, never only in itself. A panic of other background
//! work ends the merger, because the next start puts everything in order: a merger that no longer knows its nodes must not go on.
//! Work that a caller waits for [survives](survive) its panic: the caller is told, and puts in order what the work held.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus::IntCounterVec;
use tokio::task::JoinError;

/// The pause before work is started again after a panic, so that work that panics at once doesn't use up a processor.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);
/// The exit status of a program that panicked.
const EXIT_STATUS: i32 = 101;

/// Starts background work, and starts it again whenever it panics. Ends when the work ends.
pub fn supervise<C, F>(
    ctx: &Arc<C>,
    panics: &IntCounterVec,
    name: &'static str,
    begin: impl Fn(Arc<C>) -> F + Send + 'static,
) where
    C: Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (ctx, panics) = (Arc::clone(ctx), panics.clone());
    tokio::spawn(async move {
        // The work runs as its own task, so that its panic ends nothing else.
        while let Err(error) = tokio::spawn(begin(Arc::clone(&ctx))).await {
            if !note_panic(&panics, name, error) {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
}

/// Starts background work that can't be started again: its panic ends the process.
pub fn supervise_or_exit(
    panics: &IntCounterVec,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let panics = panics.clone();
    tokio::spawn(async move {
        if let Err(error) = tokio::spawn(work).await
            && note_panic(&panics, name, error)
        {
            tracing::error!(work = name, "the merger ends, for this can't begin anew");
            std::process::exit(EXIT_STATUS);
        }
    });
}

/// Runs work whose panic must end nothing else; `None` if it panicked. State that the work shares with others stays usable,
/// because all code here ignores that a lock is poisoned.
pub async fn survive<T>(
    panics: &IntCounterVec,
    name: &'static str,
    work: impl Future<Output = T>,
) -> Option<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.map_err(|panic| note(panics, name, &*panic)).ok()
}

/// Logs and counts a panic. `false` if the task didn't panic but was cancelled: the runtime ends.
pub fn note_panic(panics: &IntCounterVec, name: &'static str, error: JoinError) -> bool {
    let panic = error.try_into_panic().ok();
    panic.map(|panic| note(panics, name, &*panic)).is_some()
}

fn note(panics: &IntCounterVec, name: &'static str, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_default();
    panics.with_label_values(&[name]).inc();
    tracing::error!(
        work = name,
        panic = text,
        "a mistake in Weft: work panicked"
    );
}
