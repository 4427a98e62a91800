//! Decides what one node's answer to a request means for its shard.

use weft_routing::placement::ShardId;

use super::Context;
use super::put_numbers_in_doubt;
use crate::cluster::{NodeId, NodeRef, Order};
use crate::tasks::ReplicaTask;
use crate::upstream::{NodeAnswer, UpstreamError};

/// Whether a node took a request.
pub(super) enum Verdict {
    Taken {
        /// The node's task, if the request makes one.
        copy: Option<ReplicaTask>,
        answer: Box<NodeAnswer>,
    },
    Missed(Reason),
}

/// A replica that doesn't have the request, as far as is known.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(super) node: NodeId,
    pub(super) reason: Reason,
}

/// Why a replica doesn't count as having the request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    /// It refused with an error status.
    #[error("it answered {}", .0.status)]
    Refused(NodeAnswer),
    /// It didn't answer.
    #[error(transparent)]
    Unanswered(UpstreamError),
    /// It didn't answer within the patience.
    #[error("it did not take a write in time")]
    Late,
    /// It took the request, but its answer names no task.
    #[error("it accepted the write with an answer that names no task")]
    Nameless,
    /// Its task number is not newer than an earlier one: it has another disk.
    #[error("it gave the write the number of an earlier one: it is not what it was")]
    Back,
}

impl Missed {
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.reason, Reason::Refused(_))
    }

    /// Whether the node may have taken it nevertheless.
    pub(crate) fn may_have_it(&self) -> bool {
        match &self.reason {
            Reason::Refused(_) => false,
            Reason::Unanswered(error) => error.may_have_arrived(),
            Reason::Late | Reason::Nameless | Reason::Back => true,
        }
    }

    /// The upstream error, if that is the reason.
    pub(crate) fn error(self) -> Option<UpstreamError> {
        match self.reason {
            Reason::Unanswered(error) => Some(error),
            _ => None,
        }
    }
}

/// All reasons in one line.
pub(crate) fn reasons(missed: &[Missed]) -> String {
    let reasons: Vec<String> = missed
        .iter()
        .map(|missed| format!("{}: {}", missed.node, missed.reason))
        .collect();
    reasons.join("; ")
}

/// Whether a node has taken the request.
pub(super) fn is_taken(answer: &NodeAnswer) -> bool {
    answer.status.is_success()
}

/// Judges an answer, and notes the node's task. If the replica `had_it` already, its task number is an earlier one, so the order
/// of numbers isn't checked.
pub(super) fn verdict(
    ctx: &std::sync::Arc<Context>,
    shard: ShardId,
    node: &NodeRef,
    answer: Option<Result<NodeAnswer, UpstreamError>>,
    is_task: bool,
    had_it: bool,
) -> Verdict {
    let answer = match answer {
        None => return Verdict::Missed(Reason::Late),
        Some(Err(error)) => return Verdict::Missed(Reason::Unanswered(error)),
        Some(Ok(answer)) if !is_taken(&answer) => return Verdict::Missed(Reason::Refused(answer)),
        Some(Ok(answer)) => answer,
    };
    let Some(local_uid) = answer.task_uid() else {
        return match is_task {
            true => Verdict::Missed(Reason::Nameless),
            false => Verdict::Taken {
                copy: None,
                answer: Box::new(answer),
            },
        };
    };
    let (copy, order) = ctx.cluster.marks.acknowledged(&node.id, local_uid);
    // Filters may write to a shard of one replica too, and the answers to them and the merger come in any order.
    let shared_with_filters =
        ctx.cluster.direct_writes() && ctx.cluster.topology().nodes(shard).len() == 1;
    match order {
        _ if had_it => {}
        Order::Back if !shared_with_filters => return Verdict::Missed(Reason::Back),
        Order::Gap(unknown) if !shared_with_filters => {
            put_numbers_in_doubt(ctx, shard, &node.id, unknown);
        }
        _ => {}
    }
    Verdict::Taken {
        copy: Some(copy.into()),
        answer: Box::new(answer),
    }
}
