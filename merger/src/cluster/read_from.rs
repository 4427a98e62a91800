//! Which replica a read goes to.

use std::time::Duration;

use hashbrown::HashMap;
use http::HeaderMap;
use tokio::time::Instant;
use weft_routing::headers;
use weft_routing::placement::ShardId;

use super::{Cluster, ClusterError, Life, NodeRef};
use crate::app::App;
use crate::tasks::Applied;
use crate::upstream::Target;

/// How often it is looked whether a task has been applied.
const LOOK: Duration = Duration::from_millis(10);

/// Which replicas may answer a read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// Any that is ready; Envoy chooses.
    #[default]
    Any,
    /// Each shard's primary.
    Primary,
    /// These, for the shards that are named: they have applied what the client wants to see.
    Applied(HashMap<ShardId, Target>),
}

impl ReadFrom {
    /// What the client wishes with `x-weft-read` and `x-weft-after-task`; waits, no longer than `within`, until the task has
    /// been applied by a replica of each shard that it is for.
    ///
    /// # Errors
    /// The wish can't be read, there is no such task, or it is not applied in time.
    pub async fn of(app: &App, wishes: &HeaderMap, within: Duration) -> Result<Self, ClusterError> {
        let text = |name: &str| {
            wishes
                .get(name)
                .map(|value| value.to_str().unwrap_or_default())
        };
        let invalid = |name: &str, value: &str| {
            ClusterError::InvalidWish(format!("Invalid value in header `{name}`: `{value}`"))
        };
        let primary = match text(headers::READ).map(str::trim) {
            None => false,
            Some(word) if word.eq_ignore_ascii_case("any") => false,
            Some(word) if word.eq_ignore_ascii_case("primary") => true,
            Some(other) => return Err(invalid(headers::READ, other)),
        };
        let applied = match text(headers::AFTER_TASK).map(str::trim) {
            None => Self::Any,
            Some(uid) => {
                let parsed = uid.parse().map_err(|_| invalid(headers::AFTER_TASK, uid))?;
                after_task(app, parsed, within).await?
            }
        };
        Ok(match applied {
            Self::Any if primary => Self::Primary,
            applied => applied,
        })
    }
}

async fn after_task(app: &App, uid: u32, within: Duration) -> Result<ReadFrom, ClusterError> {
    let begun = Instant::now();
    loop {
        match app.tasks.applied(uid) {
            Some(Applied::Everywhere) => return Ok(ReadFrom::Any),
            Some(Applied::By(replicas)) => {
                let address = |node| app.cluster.address(node).map(Target::Node);
                let targets = replicas
                    .iter()
                    .filter_map(|(shard, node)| Some((*shard, address(node)?)))
                    .collect();
                return Ok(ReadFrom::Applied(targets));
            }
            Some(Applied::NotYet) => {}
            None => return Err(ClusterError::UnknownTask(uid)),
        }
        if begun.elapsed() >= within {
            return Err(ClusterError::NotApplied { uid, within });
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Cluster {
    /// Whom a read of a shard is for.
    pub fn target(&self, shard: ShardId, from: &ReadFrom) -> Target {
        let any = Target::Shard(shard);
        match from {
            ReadFrom::Any => any,
            // A replica that is alone needs no choice, and Envoy's retries are better than none.
            ReadFrom::Primary if self.topology().nodes(shard).len() < 2 => any,
            ReadFrom::Primary => self
                .primary(shard)
                .map_or(any, |primary| Target::Node(primary.address)),
            ReadFrom::Applied(targets) => targets.get(&shard).cloned().unwrap_or(any),
        }
    }

    /// Whether a replica in sync answers that reads may not have come to yet, since the shard has others.
    pub fn may_take_over(&self, shard: ShardId) -> bool {
        let answers = |node: &NodeRef| matches!(self.pulse.life(&node.id), Life::Up | Life::Slow);
        self.topology().nodes(shard).len() > 1 && self.replicas(shard).iter().any(answers)
    }

    /// After how long without an answer another replica of the shard is asked too; `None` where there is no other.
    pub fn hedge_after(&self, shard: ShardId) -> Option<Duration> {
        let another = self.topology().nodes(shard).len() > 1;
        another.then(|| self.latencies.hedge_after(shard))
    }
}
