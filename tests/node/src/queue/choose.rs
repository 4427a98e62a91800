//! Chooses the tasks that are executed next, together in one batch.

use std::collections::BTreeMap;

use super::payloads::Payloads;
use super::task::{Status, Task};
use super::work::{Addition, Work};

/// The uids of the next batch, in order; empty if nothing is enqueued.
///
/// Cancelations come first and deletions of tasks second, since they must not wait for the tasks that they affect. Then
/// comes the oldest task. If it adds documents, the following additions to the same index are part of the batch, up to the
/// first task that uses that index in another way.
pub(super) fn choose(
    tasks: &BTreeMap<u32, Task>,
    payloads: &Payloads,
    most: usize,
    bytes: u64,
) -> Vec<u32> {
    let mut enqueued = tasks
        .values()
        .filter(|task| task.status == Status::Enqueued);
    let urgent = |wanted: fn(&Work) -> bool| {
        tasks
            .values()
            .find(|task| task.status == Status::Enqueued && wanted(&task.work))
            .map(|task| task.uid)
    };
    if let Some(uid) = urgent(|work| matches!(work, Work::CancelTasks { .. })) {
        return vec![uid];
    }
    if let Some(uid) = urgent(|work| matches!(work, Work::DeleteTasks { .. })) {
        return vec![uid];
    }
    let Some(first) = enqueued.next() else {
        return Vec::new();
    };
    let mut chosen = vec![first.uid];
    let Work::AddDocuments(leader) = &first.work else {
        return chosen;
    };
    let mut size = payloads.size(leader.payload);
    for task in enqueued {
        if !task.work.indexes().contains(&leader.index.as_str()) {
            continue;
        }
        let Work::AddDocuments(addition) = &task.work else {
            break;
        };
        size += payloads.size(addition.payload);
        if !fit_together(leader, addition) || chosen.len() >= most || size > bytes {
            break;
        }
        chosen.push(task.uid);
    }
    chosen
}

fn fit_together(leader: &Addition, addition: &Addition) -> bool {
    leader.primary_key == addition.primary_key && leader.may_create == addition.may_create
}
