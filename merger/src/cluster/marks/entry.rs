//! What is known of one node's tasks: its mark, and which of its tasks are accounted for. No store and no lock here.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Known, Mark, NewestTask, NodeTask, Order};
use crate::cluster::NodeId;
use crate::store::Change;

/// The beginning of the keys of stored marks.
pub(super) const PREFIX: &str = "mark/";

/// How many unknown tasks are listed. If there are more, they are not looked at one by one.
const NAMED: usize = 101;

/// A node's entry in the marks.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) incarnation: u32,
    pub(super) mark: Mark,
    /// All tasks up to this one are accounted for. Writes come one after the other, and each raises it. The answers to other tasks
    /// that the merger made may come in any order with them, so such a task raises it only if no task before it is missing.
    written: Option<u32>,
    /// The other tasks that the merger made since `written` or `recorded`, whichever is older.
    made: BTreeSet<u32>,
    /// All tasks up to this one are also accounted for in the store. A crash leaves open what was acknowledged but not recorded.
    recorded: Option<u32>,
    /// A task that identifies the disk: the newest one when the mark was established.
    pub(super) shown_by: Option<NewestTask>,
    /// Only mergers that keep marks have known the node: if it is empty, it never had anything.
    pub(super) first_contact: bool,
    /// The node is empty, and others that may have data don't answer. It takes no writes either.
    pub(super) waits: bool,
    /// Records of tasks come from an older store and don't name the incarnation, so they say nothing about this mark.
    ignores_records: bool,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            incarnation: 0,
            mark: Mark::Unknown { at_least: None },
            written: None,
            made: BTreeSet::new(),
            recorded: None,
            shown_by: None,
            first_contact: false,
            waits: false,
            ignores_records: false,
        }
    }
}

/// A mark as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stored {
    newest: Option<u32>,
    /// The first task that is not accounted for. Older mergers stored that as `newest`, and nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shown_by: Option<NewestTask>,
    /// Tasks after `next` that the merger itself has made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    made: Vec<u32>,
}

impl Stored {
    /// The mark of a node that begins another incarnation with `newest` as its newest task.
    pub(super) fn anew(newest: Option<NewestTask>) -> Self {
        Self {
            newest: newest.as_ref().map(|newest| newest.uid),
            next: None,
            shown_by: newest,
            made: Vec::new(),
        }
    }

    /// The change that stores it.
    pub(super) fn put(&self, node: &NodeId, incarnation: u32) -> Change {
        let value = serde_json::to_vec(self).unwrap_or_default();
        Change::put(format!("{PREFIX}{incarnation}/{node}"), value)
    }
}

/// The incarnation and the node that the key of a stored mark names.
pub(super) fn parse_key(key: &str) -> Option<(u32, NodeId)> {
    let (incarnation, node) = key.strip_prefix(PREFIX)?.split_once('/')?;
    Some((incarnation.parse().ok()?, NodeId::from(node.to_owned())))
}

impl Entry {
    /// The entry of a node when the merger starts, before its stored mark is read.
    pub(super) fn of(known: &Known) -> Self {
        Self {
            incarnation: known.incarnation,
            mark: Mark::Unknown {
                at_least: known.newest_after_resync,
            },
            ignores_records: known.newest_after_resync.is_some(),
            first_contact: known.first_contact,
            ..Self::default()
        }
    }

    /// The entry of a node that begins an incarnation with `newest` as its newest task.
    pub(super) fn anew(incarnation: u32, newest: Option<NewestTask>) -> Self {
        let mut entry = Self {
            incarnation,
            ..Self::default()
        };
        entry.known_up_to(newest.as_ref().map(|newest| newest.uid));
        entry.shown_by = newest;
        entry
    }

    /// Takes over the stored mark.
    pub(super) fn restore(&mut self, stored: Stored) {
        self.known_up_to(match stored.next {
            Some(next) => next.checked_sub(1),
            None => stored.newest,
        });
        self.shown_by = stored.shown_by;
        self.made = stored.made.into_iter().collect();
        let newest = stored.newest.max(self.made.last().copied());
        self.mark = Mark::At(newest);
    }

    /// The change that stores the mark; `None` while the mark is unknown, because it is stored once it is established.
    pub(super) fn put(&self, node: &NodeId) -> Option<Change> {
        let Mark::At(newest) = self.mark else {
            return None;
        };
        let stored = Stored {
            newest,
            next: Some(after(self.recorded)),
            shown_by: self.shown_by.clone(),
            made: self.made_since_recorded().collect(),
        };
        Some(stored.put(node, self.incarnation))
    }

    /// The number of the first task after those that are accounted for without a gap.
    pub(super) fn next(&self) -> u32 {
        after(self.written)
    }

    /// The tasks up to `newest` that aren't accounted for.
    pub(super) fn unaccounted(&self, newest: u32) -> impl Iterator<Item = u32> {
        let all = self.next()..=newest;
        all.filter(|uid| !self.made.contains(uid))
    }

    /// Whether a record says anything about this mark.
    fn is_told_by(&self, task: &NodeTask) -> bool {
        self.incarnation == task.incarnation && !self.ignores_records
    }

    /// Notes a write that a record of an earlier run names.
    pub(super) fn seen_in_record(&mut self, task: &NodeTask) {
        if self.is_told_by(task) {
            self.raise_mark(task.local_uid);
            self.written = self.written.max(Some(task.local_uid));
            self.recorded = self.recorded.max(Some(task.local_uid));
            self.tidy();
        }
    }

    /// Notes a task outside the order of writes that a record of an earlier run names.
    pub(super) fn seen_beside_in_record(&mut self, task: &NodeTask) {
        if self.is_told_by(task) {
            self.note_beside(task.local_uid);
        }
    }

    /// Notes that a record of the task is stored.
    pub(super) fn recorded(&mut self, task: &NodeTask) {
        // A task outside the order of writes doesn't show that the writes before it are recorded.
        if self.incarnation == task.incarnation && !self.made.contains(&task.local_uid) {
            self.recorded = self.recorded.max(Some(task.local_uid));
            self.tidy();
        }
    }

    /// Notes an acknowledged write. Returns how its number follows the write before.
    pub(super) fn note_write(&mut self, local_uid: u32) -> Order {
        let order = match self.mark {
            Mark::Unknown { .. } => Order::Next,
            Mark::At(_) if Some(local_uid) <= self.written => Order::Back,
            Mark::At(_) => {
                let before = local_uid.checked_sub(1);
                let unknown = before.into_iter().flat_map(|last| self.unaccounted(last));
                let unknown: Vec<u32> = unknown.take(NAMED).collect();
                match unknown.is_empty() {
                    true => Order::Next,
                    false => Order::Gap(unknown),
                }
            }
        };
        self.raise_mark(local_uid);
        self.written = self.written.max(Some(local_uid));
        self.tidy();
        order
    }

    /// Notes a task that was acknowledged outside the order of writes.
    pub(super) fn note_beside(&mut self, local_uid: u32) {
        self.raise_mark(local_uid);
        self.made.insert(local_uid);
        self.tidy();
    }

    /// Notes that everything up to `newest` is accounted for. False if that was known.
    pub(super) fn account(&mut self, newest: u32) -> bool {
        if self.recorded >= Some(newest) {
            return false;
        }
        self.raise_mark(newest);
        self.written = self.written.max(Some(newest));
        self.made.retain(|uid| *uid > newest);
        self.recorded = Some(newest);
        true
    }

    /// Establishes the mark: `newest` is the node's newest task.
    pub(super) fn establish(&mut self, newest: Option<NewestTask>) {
        let uid = newest.as_ref().map(|newest| newest.uid);
        self.known_up_to(match self.mark {
            Mark::At(mark) => mark.max(uid),
            Mark::Unknown { .. } => uid,
        });
        self.shown_by = newest;
    }

    /// A task of this node, in its present incarnation.
    pub(super) fn task(&self, node: &NodeId, local_uid: u32) -> NodeTask {
        NodeTask {
            node: node.clone(),
            local_uid,
            incarnation: self.incarnation,
        }
    }

    fn raise_mark(&mut self, to: u32) {
        let (Mark::At(newest) | Mark::Unknown { at_least: newest }) = &mut self.mark;
        *newest = (*newest).max(Some(to));
    }

    /// Notes that everything up to `newest` is accounted for, and that the mark is there.
    fn known_up_to(&mut self, newest: Option<u32>) {
        self.mark = Mark::At(newest);
        self.written = newest;
        self.made.retain(|uid| Some(*uid) > newest);
        self.recorded = newest;
        self.waits = false;
        self.ignores_records = false;
    }

    /// Counts tasks in `made` that follow without a gap as written and recorded, and forgets those that both account for.
    fn tidy(&mut self) {
        for last in [&mut self.written, &mut self.recorded] {
            while self.made.contains(&after(*last)) {
                *last = Some(after(*last));
            }
        }
        let (written, recorded) = (self.written, self.recorded);
        self.made.retain(|uid| Some(*uid) > written.min(recorded));
        while self.made.len() > NAMED {
            self.made.pop_first();
        }
    }

    fn made_since_recorded(&self) -> impl Iterator<Item = u32> {
        let made = self.made.iter().copied();
        made.filter(|uid| Some(*uid) > self.recorded)
    }
}

/// The number after this one.
fn after(uid: Option<u32>) -> u32 {
    uid.map_or(0, |uid| uid.saturating_add(1))
}
