//! What one node's answer to a request means for its shard.

use weft_routing::placement::ShardId;

use super::Context;
use super::put_numbers_in_doubt;
use crate::cluster::{NodeId, NodeRef, Order};
use crate::tasks::ReplicaTask;
use crate::upstream::{NodeAnswer, UpstreamError};

/// What a node made of a request.
pub(super) enum Verdict {
    Taken {
        /// Its task, if the request is one.
        copy: Option<ReplicaTask>,
        answer: Box<NodeAnswer>,
    },
    Missed(Reason),
}

/// A replica that hasn't got the request, as far as is known.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(super) node: NodeId,
    pub(super) reason: Reason,
}

/// Why a replica hasn't got it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    /// It said no.
    #[error("it answered {}", .0.status)]
    Refused(NodeAnswer),
    /// It gave no answer.
    #[error(transparent)]
    Unanswered(UpstreamError),
    /// It was not waited for any longer.
    #[error("it did not take a write in time")]
    Late,
    /// It took it, but doesn't say as which task.
    #[error("it accepted the write with an answer that names no task")]
    Nameless,
    /// Its disk is another one.
    #[error("it gave the write the number of an earlier one: it is not what it was")]
    Back,
}

impl Missed {
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.reason, Reason::Refused(_))
    }

    /// Whether the node may have taken it all the same.
    pub(crate) fn may_have_it(&self) -> bool {
        match &self.reason {
            Reason::Refused(_) => false,
            Reason::Unanswered(error) => error.may_have_arrived(),
            Reason::Late | Reason::Nameless | Reason::Back => true,
        }
    }

    /// The error by which the node could not be asked, if that is the reason.
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

/// Judges an answer, and notes the node's task. One that `had_it` before was asked by somebody else, and gave its number then.
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
    // A shard of one replica may have other writers, the filters: their answers come in any order.
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
