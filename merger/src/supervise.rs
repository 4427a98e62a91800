//! What must go on for as long as the merger runs: a panic in it is logged and counted, and it is begun anew.
//!
//! What is begun anew keeps its state in the store or in a context, never only in itself. What doesn't ends the merger, whose
//! start puts everything in order: a merger that no longer knows its nodes must not go on as if it did. Work that somebody waits for
//! [survives](survive) its panic: whoever waits is told, and puts in order what the work held.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus::IntCounterVec;
use tokio::task::JoinError;

/// How long after a panic work is begun anew: what panics at once must not take a whole processor.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);
/// As after a panic of a whole program.
const EXIT_STATUS: i32 = 101;

/// Begins background work, and begins it anew whenever it panics; ends when it does.
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
        // A task of its own, so that its panic ends nothing else.
        while let Err(error) = tokio::spawn(begin(Arc::clone(&ctx))).await {
            if !note_panic(&panics, name, error) {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
}

/// Begins background work that can't begin anew: its panic ends the process.
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

/// Does work whose panic must end nothing else; `None` if it panicked. What the work shares with others stays usable: nobody here minds
/// that a lock is poisoned.
pub async fn survive<T>(
    panics: &IntCounterVec,
    name: &'static str,
    work: impl Future<Output = T>,
) -> Option<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.map_err(|panic| note(panics, name, &*panic)).ok()
}

/// Logs and counts a panic. `false` if it was none: the runtime ends.
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
