//! Which indexes a server's tasks may have changed. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::source::Task;

/// What tasks say about indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Indexes that a task may have changed.
    pub(super) touched: BTreeSet<String>,
    /// Indexes that a task names as deleted, swapped or renamed: they may be gone.
    pub(super) may_be_gone: BTreeSet<String>,
    /// True if tasks are missing: any index may have changed.
    pub(super) any: bool,
    /// The tasks that have ended, and which these are.
    pub(super) ended: BTreeSet<u64>,
    /// When the oldest of the new ones was given.
    pub(super) oldest: Option<String>,
}

/// What changed, by the tasks `from..next`, of which some are known already.
pub(super) fn changes(tasks: &[Task], known: &BTreeSet<u64>, from: u64, next: u64) -> Changes {
    let mut found = Changes::default();
    let mut count = 0;
    for task in tasks.iter().filter(|task| (from..next).contains(&task.uid)) {
        count += 1;
        if !task.has_ended() {
            continue;
        }
        found.ended.insert(task.uid);
        if known.contains(&task.uid) || !writes(&task.kind) {
            continue;
        }
        found.touched.extend(task.index_uid.clone());
        let named = named(&task.details);
        if matches!(
            task.kind.as_str(),
            "indexDeletion" | "indexSwap" | "indexUpdate"
        ) {
            found.may_be_gone.extend(task.index_uid.clone());
            found.may_be_gone.extend(named.iter().cloned());
        }
        found.touched.extend(named);
        let earlier = found
            .oldest
            .as_ref()
            .is_none_or(|oldest| task.enqueued_at < *oldest);
        if earlier {
            found.oldest = Some(task.enqueued_at.clone());
        }
    }
    found.any = count < next.saturating_sub(from);
    found
}

/// Tasks that change nothing of an index. Kinds that aren't known yet may.
fn writes(kind: &str) -> bool {
    !matches!(
        kind,
        "taskCancelation"
            | "taskDeletion"
            | "dumpCreation"
            | "snapshotCreation"
            | "export"
            | "upgradeDatabase"
            | "indexCompaction"
            | "networkTopologyChange"
    )
}

/// The indexes that a swap or a renaming names.
fn named(details: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let swaps = details.get("swaps").and_then(Value::as_array);
    let swapped = swaps
        .into_iter()
        .flatten()
        .filter_map(|swap| swap.get("indexes")?.as_array());
    let renamed = ["oldIndexUid", "newIndexUid"];
    let renamed = renamed.iter().filter_map(|name| details.get(*name));
    swapped.flatten().chain(renamed).filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(uid: u64, kind: &str, index: Option<&str>, status: &str) -> Task {
        serde_json::from_value(json!({
            "uid": uid, "type": kind, "indexUid": index, "status": status,
            "enqueuedAt": format!("2026-01-01T00:00:{uid:02}Z"),
        }))
        .unwrap()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn writes_that_have_ended_touch_their_index() {
        let tasks = [
            task(5, "documentAdditionOrUpdate", Some("a"), "succeeded"),
            task(6, "settingsUpdate", Some("b"), "failed"),
            task(7, "documentDeletion", Some("c"), "processing"),
            task(8, "dumpCreation", None, "succeeded"),
        ];
        let found = changes(&tasks, &BTreeSet::new(), 5, 9);
        assert_eq!(found.touched, set(&["a", "b"]));
        assert_eq!(found.may_be_gone, set(&[]));
        assert_eq!(found.ended, BTreeSet::from([5, 6, 8]));
        assert_eq!(found.oldest.as_deref(), Some("2026-01-01T00:00:05Z"));
        assert!(!found.any);
    }

    #[test]
    fn what_was_handled_before_does_not_count_again() {
        let tasks = [
            task(5, "documentAdditionOrUpdate", Some("a"), "succeeded"),
            task(6, "documentAdditionOrUpdate", Some("b"), "succeeded"),
        ];
        let found = changes(&tasks, &BTreeSet::from([5]), 5, 7);
        assert_eq!(found.touched, set(&["b"]));
        let none = changes(&tasks, &BTreeSet::from([5, 6]), 5, 7);
        assert!(none.touched.is_empty() && none.oldest.is_none());
    }

    #[test]
    fn swaps_and_renamings_touch_all_that_they_name() {
        let mut swap = task(1, "indexSwap", None, "succeeded");
        swap.details = json!({"swaps": [{"indexes": ["a", "b"]}]});
        let mut rename = task(2, "indexUpdate", Some("d"), "succeeded");
        rename.details = json!({"oldIndexUid": "c", "newIndexUid": "d"});
        let found = changes(&[swap, rename], &BTreeSet::new(), 1, 3);
        assert_eq!(found.touched, set(&["a", "b", "c", "d"]));
        assert_eq!(found.may_be_gone, found.touched);
    }

    #[test]
    fn a_task_that_is_missing_may_have_changed_anything() {
        let tasks = [task(5, "documentAdditionOrUpdate", Some("a"), "succeeded")];
        assert!(changes(&tasks, &BTreeSet::new(), 5, 7).any);
        assert!(!changes(&tasks, &BTreeSet::new(), 5, 6).any);
        assert!(!changes(&[], &BTreeSet::new(), 5, 5).any);
    }
}
