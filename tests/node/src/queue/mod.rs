//! The task queue: first in, first out, durable, executed by one thread.
//!
//! A task is on disk before its client gets the answer, and its documents are in a file that was synced before. A task that
//! was being executed when the node stopped is executed again after the next start. Every write is one transaction of its
//! index, so it is there completely or not at all. Tasks are also held in memory, from which all queries about them are answered.

mod choose;
mod filter;
mod look;
mod payloads;
mod task;
mod work;

pub(crate) use filter::{Period, TaskFilter};
pub(crate) use look::PageOf;
pub(crate) use payloads::Payloads;
pub(crate) use task::{Kind, Status, Task, date, duration};
pub(crate) use work::{Addition, Swap, Work};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::errors::{ApiError, ApiResult};
use crate::store::{Changes, SINGLES, Store, TASKS};

/// The most additions in one transaction.
const BATCH_TASKS: usize = 100;
/// The most bytes of documents in one transaction, unless a single task has more.
const BATCH_BYTES: u64 = 64 << 20;

const COUNTERS: &str = "counters";

/// The queue.
pub(crate) struct Queue {
    store: Arc<Store>,
    /// The staged documents of unfinished tasks.
    pub(crate) payloads: Payloads,
    state: Mutex<State>,
    changed: Condvar,
    interrupt: AtomicBool,
}

#[derive(Default)]
struct State {
    tasks: BTreeMap<u32, Task>,
    counters: Counters,
    closing: bool,
}

#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct Counters {
    next_task: u32,
    next_batch: u32,
}

/// Tasks to execute together; more than one only if all add documents to the same index.
pub(crate) struct Batch {
    /// Its number.
    pub(crate) uid: u32,
    /// Its tasks, in order.
    pub(crate) tasks: Vec<Task>,
    started_at: OffsetDateTime,
}

/// The outcome of a task: the details that are known now, or why it failed.
pub(crate) type Outcome = Result<Map<String, Value>, ApiError>;

impl Queue {
    /// Loads the tasks of a node.
    pub(crate) fn open(store: Arc<Store>, payloads: Payloads) -> ApiResult<Queue> {
        let tasks: Vec<(String, Task)> = store.all(TASKS)?;
        let tasks: BTreeMap<u32, Task> = tasks
            .into_iter()
            .map(|(_, task)| (task.uid, task))
            .collect();
        let singles: Vec<(String, Value)> = store.all(SINGLES)?;
        let counters = singles.into_iter().find(|(name, _)| name == COUNTERS);
        let counters = match counters {
            Some((_, counters)) => serde_json::from_value(counters)?,
            None => Counters::default(),
        };
        let unfinished = tasks.values().filter(|task| !task.is_finished());
        payloads.keep_only(
            &unfinished
                .filter_map(|task| task.work.payload())
                .collect::<Vec<_>>(),
        )?;
        Ok(Queue {
            store,
            payloads,
            state: Mutex::new(State {
                tasks,
                counters,
                closing: false,
            }),
            changed: Condvar::new(),
            interrupt: AtomicBool::new(false),
        })
    }

    /// Accepts a task. The task is durable when this returns.
    pub(crate) fn register(
        &self,
        work: Work,
        details: Value,
        custom_metadata: Option<String>,
    ) -> ApiResult<Task> {
        let mut state = self.state();
        let details = match details {
            Value::Object(details) => details,
            _ => Map::new(),
        };
        let task = Task {
            uid: state.counters.next_task,
            batch: None,
            status: Status::Enqueued,
            work,
            canceled_by: None,
            details,
            error: None,
            custom_metadata,
            enqueued_at: OffsetDateTime::now_utc(),
            started_at: None,
            finished_at: None,
        };
        let counters = Counters {
            next_task: task.uid + 1,
            ..state.counters
        };
        let mut changes = self.store.change()?;
        write(&mut changes, &task)?;
        changes.put(SINGLES, COUNTERS, &counters)?;
        changes.commit()?;
        state.counters = counters;
        if let Work::CancelTasks { uids } = &task.work {
            let running = |uid| {
                state
                    .tasks
                    .get(uid)
                    .is_some_and(|task| task.status == Status::Processing)
            };
            if uids.iter().any(running) {
                self.interrupt.store(true, Ordering::Relaxed);
            }
        }
        state.tasks.insert(task.uid, task.clone());
        self.changed.notify_all();
        Ok(task)
    }

    /// Waits for a batch to execute; `None` if the node is closing.
    pub(crate) fn next_batch(&self) -> Option<Batch> {
        let mut state = self.state();
        loop {
            if state.closing {
                return None;
            }
            let uids = choose::choose(&state.tasks, &self.payloads, BATCH_TASKS, BATCH_BYTES);
            if uids.is_empty() {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                continue;
            }
            self.interrupt.store(false, Ordering::Relaxed);
            let batch = state.counters.next_batch;
            let started_at = OffsetDateTime::now_utc();
            let mut tasks = Vec::new();
            for uid in uids {
                if let Some(task) = state.tasks.get_mut(&uid) {
                    task.status = Status::Processing;
                    task.batch = Some(batch);
                    task.started_at = Some(started_at);
                    tasks.push(task.clone());
                }
            }
            return Some(Batch {
                uid: batch,
                tasks,
                started_at,
            });
        }
    }

    /// True if the batch in execution should stop.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }

    /// Enqueues the tasks of an interrupted batch again.
    pub(crate) fn release(&self, batch: &Batch) {
        let mut state = self.state();
        for task in &batch.tasks {
            if let Some(task) = state.tasks.get_mut(&task.uid) {
                task.status = Status::Enqueued;
                task.batch = None;
                task.started_at = None;
            }
        }
    }

    /// Records the outcomes of a batch's tasks, one per task.
    pub(crate) fn finish(&self, batch: Batch, outcomes: Vec<Outcome>) -> ApiResult<()> {
        let finished_at = OffsetDateTime::now_utc();
        let mut state = self.state();
        let counters = Counters {
            next_batch: batch.uid + 1,
            ..state.counters
        };
        let mut changes = self.store.change()?;
        changes.put(SINGLES, COUNTERS, &counters)?;
        let mut done = Vec::new();
        for (mut task, outcome) in batch.tasks.into_iter().zip(outcomes) {
            task.batch = Some(batch.uid);
            task.started_at = Some(batch.started_at);
            task.finished_at = Some(finished_at);
            match outcome {
                Ok(details) => {
                    task.status = Status::Succeeded;
                    task.details.extend(details);
                }
                Err(error) => {
                    task.status = Status::Failed;
                    task.zero_counts();
                    task.error = Some(error);
                }
            }
            write(&mut changes, &task)?;
            done.push(task);
        }
        changes.commit()?;
        state.counters = counters;
        for task in done {
            if let Some(payload) = task.work.payload() {
                self.payloads.remove(payload);
            }
            state.tasks.insert(task.uid, task);
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Cancels those of the tasks that haven't ended; returns how many.
    pub(crate) fn cancel(&self, uids: &[u32], by: u32) -> ApiResult<usize> {
        let now = OffsetDateTime::now_utc();
        let mut state = self.state();
        let mut changes = self.store.change()?;
        let mut canceled = Vec::new();
        // As on a real node, a task that had not begun shows the times of the cancelation.
        let begun = state.tasks.get(&by).and_then(|task| task.started_at);
        for task in uids.iter().filter_map(|uid| state.tasks.get(uid)) {
            if task.status == Status::Enqueued && task.uid != by {
                let mut task = task.clone();
                task.status = Status::Canceled;
                task.canceled_by = Some(by);
                task.started_at = begun.or(Some(now));
                task.finished_at = Some(now);
                task.zero_counts();
                write(&mut changes, &task)?;
                canceled.push(task);
            }
        }
        changes.commit()?;
        let count = canceled.len();
        for task in canceled {
            if let Some(payload) = task.work.payload() {
                self.payloads.remove(payload);
            }
            state.tasks.insert(task.uid, task);
        }
        Ok(count)
    }

    /// Deletes those of the tasks that have ended; returns how many.
    pub(crate) fn delete(&self, uids: &[u32]) -> ApiResult<usize> {
        let mut state = self.state();
        let mut changes = self.store.change()?;
        let mut deleted = Vec::new();
        for uid in uids {
            if state.tasks.get(uid).is_some_and(Task::is_finished) {
                changes.remove(TASKS, &key(*uid))?;
                deleted.push(*uid);
            }
        }
        changes.commit()?;
        for uid in &deleted {
            state.tasks.remove(uid);
        }
        Ok(deleted.len())
    }

    /// Renames the index in the tasks before a swap, so that an index keeps its history.
    pub(crate) fn follow(&self, swaps: &[Swap], before: u32) -> ApiResult<()> {
        let mut state = self.state();
        let mut changes = self.store.change()?;
        let mut renamed = Vec::new();
        for Swap {
            indexes: (left, right),
            ..
        } in swaps
        {
            let rename = |index: &str| {
                if index == left {
                    Some(right.clone())
                } else if index == right {
                    Some(left.clone())
                } else {
                    None
                }
            };
            for task in state.tasks.range(..before).map(|(_, task)| task) {
                let mut task = task.clone();
                if task.rename(&rename) {
                    write(&mut changes, &task)?;
                    renamed.push(task);
                }
            }
        }
        changes.commit()?;
        for task in renamed {
            state.tasks.insert(task.uid, task);
        }
        Ok(())
    }

    /// Stops the worker. The current batch is interrupted and executed after the next start.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.interrupt.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn key(uid: u32) -> String {
    format!("{uid:010}")
}

fn write(changes: &mut Changes, task: &Task) -> ApiResult<()> {
    changes.put(TASKS, &key(task.uid), task)
}
