//! Which resyncs are running, and why the last one of each node failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};

use super::{Progress, ResyncError};
use crate::cluster::NodeId;

/// The running resyncs, and how the last ones failed.
#[derive(Default)]
pub struct Resyncs {
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) under_way: HashMap<NodeId, Arc<Progress>>,
    pub(crate) failed: HashMap<NodeId, String>,
    /// Nodes for which an operator has confirmed a resync's unexplained deletions.
    pub(crate) confirmed: HashSet<NodeId>,
    /// Nodes whose resync stopped and waits for such a confirmation.
    pub(crate) stopped: HashSet<NodeId>,
}

impl Resyncs {
    pub(crate) fn begin(&self, node: &NodeId) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        self.state()
            .under_way
            .insert(node.clone(), Arc::clone(&progress));
        progress
    }

    pub(crate) fn end(&self, node: &NodeId, failed: Option<&ResyncError>) {
        let mut resyncs = self.state();
        resyncs.under_way.remove(node);
        resyncs.stopped.remove(node);
        match failed {
            Some(error) => {
                if matches!(error, ResyncError::Unexplained { .. }) {
                    resyncs.stopped.insert(node.clone());
                }
                resyncs.failed.insert(node.clone(), error.to_string());
            }
            None => {
                resyncs.failed.remove(node);
                resyncs.confirmed.remove(node);
            }
        }
    }

    /// How many resyncs wait for an operator.
    pub fn stopped(&self) -> usize {
        self.state().stopped.len()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
