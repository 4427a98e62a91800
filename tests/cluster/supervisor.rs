//! Starts mergers again that ended by themselves, as a supervisor (systemd, Kubernetes) does.
//!
//! A merger that loses its lease may end its process; tests of what happens then need somebody who starts it again. What a test
//! has killed on purpose stays dead until the test restarts it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::Process;

/// The pause between two looks: the time without the process is of this size.
const LOOK: Duration = Duration::from_millis(100);

/// Looks after processes until it is dropped.
#[derive(Debug)]
pub(crate) struct Supervisor {
    processes: Vec<Arc<Process>>,
    task: JoinHandle<()>,
}

impl Supervisor {
    pub(crate) fn of(processes: Vec<Arc<Process>>) -> Self {
        let looked_after = processes.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                for process in &looked_after {
                    // One that can't be started is tried again, and seen as missing by whoever waits for it.
                    drop(process.revive());
                }
            }
        });
        Self { processes, task }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
        // The task may hold its processes for a moment longer, and must not start any of them again.
        for process in &self.processes {
            // An error means that it isn't running.
            drop(process.kill());
        }
    }
}
