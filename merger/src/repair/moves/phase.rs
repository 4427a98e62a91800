//! What a move spends its time on, for the metrics.

use tokio::time::Instant;

use crate::repair::Context;

/// A part of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The new shard gets the index, and filters leave it to the merger.
    Prepare,
    /// The ids of all documents are read.
    List,
    /// Nodes work off what they have taken.
    Idle,
    /// Documents are read from the old shard.
    Read,
    /// What the new shard holds is read and compared.
    Compare,
    /// The new shard takes documents.
    Write,
    /// Writers are stopped.
    Lock,
    /// The new owner is stored, and every merger reads by it.
    Heard,
    /// The old copies are deleted.
    Delete,
    /// The limit of bytes is kept.
    Throttle,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::List => "list",
            Self::Idle => "idle",
            Self::Read => "read",
            Self::Compare => "compare",
            Self::Write => "write",
            Self::Lock => "lock",
            Self::Heard => "heard",
            Self::Delete => "delete",
            Self::Throttle => "throttle",
        }
    }
}

/// Does something, and notes how long it took.
pub(super) async fn timed<T>(ctx: &Context, phase: Phase, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let outcome = work.await;
    let seconds = &ctx.metrics.move_phase_seconds;
    let seconds = seconds.with_label_values(&[phase.name()]);
    seconds.observe(begun.elapsed().as_secs_f64());
    outcome
}
