//! The notes of all tasks, in order, so laid out that a list finds its page without looking at each of them.
//!
//! There may be a million. They stand in *chunks* of neighbouring uids, one note after the other, and each chunk knows how many
//! tasks of each label and status it has, and from when to when they were enqueued, begun and ended. Whoever looks for something
//! passes over the chunks that can't have it, and counts without looking into those that have nothing else.
//!
//! Invariant: what a chunk knows of its tasks is exact, except for the bounds in time, which may be too wide.

mod chunk;
mod labels;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};

use time::OffsetDateTime;

use self::chunk::{CHUNK, Chunk};
pub(super) use self::chunk::{Span, Time};
use self::labels::Labels;
pub(super) use self::labels::{Label, LabelId};
use super::aggregate::{self, Course};
use super::note::Note;
use super::record::{Status, TaskRecord};

/// Notes by uid, the labels of their tasks, and which cancelation has ended which task.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// By the first uid of each chunk, divided by its size.
    chunks: BTreeMap<u32, Chunk>,
    labels: Labels,
    canceled_by: BTreeMap<u32, u32>,
    count: usize,
}

/// Which tasks are looked for, by label and status.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// For each label whether it is wanted; `None` for all.
    labels: Option<Vec<bool>>,
    statuses: [bool; Status::COUNT],
}

impl Wanted {
    pub(super) fn has(&self, note: &Note) -> bool {
        self.has_label(note.label) && self.has_status(note.status)
    }

    fn has_label(&self, label: LabelId) -> bool {
        let labels = self.labels.as_ref();
        labels.is_none_or(|labels| labels.get(label.place()).is_some_and(|wanted| *wanted))
    }

    fn has_status(&self, status: Status) -> bool {
        self.statuses
            .get(status.place())
            .is_some_and(|wanted| *wanted)
    }

    /// How many of these tasks, by status, are wanted.
    fn count<N: Copy + Into<u64>>(&self, by_status: &[N; Status::COUNT]) -> u64 {
        let wanted = self.statuses.iter().zip(by_status);
        wanted
            .filter(|(wanted, _)| **wanted)
            .map(|(_, count)| (*count).into())
            .sum()
    }
}

impl Notes {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn get(&self, uid: u32) -> Option<&Note> {
        self.chunks.get(&(uid / CHUNK))?.get(uid)
    }

    pub(super) fn contains(&self, uid: u32) -> bool {
        self.get(uid).is_some()
    }

    /// Whether a task is there and has ended.
    pub(super) fn has_ended(&self, uid: u32) -> bool {
        self.get(uid).is_some_and(|note| note.status.is_settled())
    }

    /// A note's kind and index.
    pub(super) fn label(&self, note: &Note) -> &Label {
        self.labels.of(note.label)
    }

    /// The current name of a task's index.
    pub(super) fn index_uid(&self, note: &Note) -> Option<&str> {
        self.label(note).index_uid.as_deref()
    }

    /// The cancelation that has ended a task.
    pub(super) fn canceled_by(&self, uid: u32) -> Option<u32> {
        self.canceled_by.get(&uid).copied()
    }

    /// The tasks that were canceled, in order.
    pub(super) fn canceled(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.canceled_by.keys().copied()
    }

    /// The indexes that any task names.
    pub(super) fn index_uids(&self) -> BTreeSet<String> {
        self.labels.index_uids()
    }

    /// Notes how the tasks of a record are. One that isn't there yet gets the record's kind and index; one that is keeps its own, since
    /// its index may have another name by now.
    pub(super) fn note(&mut self, record: &TaskRecord) {
        let course = aggregate::course(record);
        for uid in record.uids() {
            let of = (record.kind.as_str(), record.index_uid.as_deref());
            self.set(uid, of, &course, record.place(uid));
        }
    }

    /// The same for one task, at this place in its record.
    pub(super) fn set(
        &mut self,
        uid: u32,
        (kind, index_uid): (&str, Option<&str>),
        course: &Course,
        place: u16,
    ) {
        let chunk = self.chunks.entry(uid / CHUNK).or_default();
        let label = match chunk.get(uid) {
            Some(known) => known.label,
            None => {
                self.count += 1;
                self.labels.find(kind, index_uid)
            }
        };
        let new = Note::new(label, course, place);
        let old = chunk.put(uid, new);
        self.labels.add(label, new.status);
        if let Some(old) = old {
            self.labels.remove(old.label, old.status);
        }
        match course.canceled_by {
            Some(by) => drop(self.canceled_by.insert(uid, by)),
            None => drop(self.canceled_by.remove(&uid)),
        }
    }

    pub(super) fn remove(&mut self, uid: u32) {
        let Some(chunk) = self.chunks.get_mut(&(uid / CHUNK)) else {
            return;
        };
        if let Some(old) = chunk.take(uid) {
            self.labels.remove(old.label, old.status);
            self.count -= 1;
        }
        if chunk.is_empty() {
            self.chunks.remove(&(uid / CHUNK));
        }
        self.canceled_by.remove(&uid);
    }

    /// All tasks in this range, in order.
    pub(super) fn range(
        &self,
        uids: impl RangeBounds<u32> + Clone,
    ) -> impl DoubleEndedIterator<Item = (u32, &Note)> {
        let chunks = self.chunks.range(chunks_of(&uids));
        chunks
            .flat_map(|(number, chunk)| chunk.iter(*number))
            .filter(move |(uid, _)| uids.contains(uid))
    }

    /// The first uid of all tasks.
    pub(super) fn first(&self) -> Option<u32> {
        self.range(..).next().map(|(uid, _)| uid)
    }

    /// The uids of all ended tasks, the oldest first.
    pub(super) fn settled(&self) -> impl Iterator<Item = u32> {
        let all = self.range(..);
        all.filter(|(_, note)| note.status.is_settled())
            .map(|(uid, _)| uid)
    }

    /// The uids of the tasks that ended before this time, the oldest first.
    pub(super) fn finished_before(&self, time: OffsetDateTime) -> impl Iterator<Item = u32> {
        let may = move |chunk: &Chunk| {
            let first = chunk.span(Time::Finished).first();
            first.is_some_and(|first| first < time)
        };
        let chunks = self.chunks.iter().filter(move |(_, chunk)| may(chunk));
        chunks
            .flat_map(|(number, chunk)| chunk.iter(*number))
            .filter(move |(_, note)| note.finished_at().is_some_and(|at| at < time))
            .map(|(uid, _)| uid)
    }

    /// Whether a task of such a label was enqueued at this time or later.
    pub(super) fn any_since(
        &self,
        time: OffsetDateTime,
        is_wanted: impl Fn(&Label) -> bool,
    ) -> bool {
        let wanted = Wanted {
            labels: Some(self.labels.that(is_wanted)),
            statuses: [true; Status::COUNT],
        };
        self.chunks.iter().any(|(number, chunk)| {
            let last = chunk.span(Time::Enqueued).last();
            last.is_some_and(|last| last >= time)
                && chunk.count(&wanted) > 0
                && chunk
                    .iter(*number)
                    .any(|(_, note)| wanted.has(note) && note.enqueued_at() >= time)
        })
    }

    /// What is wanted, of tasks with these statuses, kinds and indexes; `None` stands for all of each.
    pub(super) fn wanted(
        &self,
        statuses: Option<&[Status]>,
        kinds: Option<&[String]>,
        index_uids: Option<&[String]>,
    ) -> Wanted {
        let has_kind = |label: &Label| {
            kinds.is_none_or(|kinds| {
                let mut kinds = kinds.iter();
                kinds.any(|kind| kind.eq_ignore_ascii_case(&label.kind))
            })
        };
        let mut some = [statuses.is_none(); Status::COUNT];
        for status in statuses.unwrap_or_default() {
            if let Some(wanted) = some.get_mut(status.place()) {
                *wanted = true;
            }
        }
        Wanted {
            labels: match (kinds, index_uids) {
                (None, None) => None,
                (_, Some(names)) => Some(self.labels.of_indexes(names, has_kind)),
                (Some(_), None) => Some(self.labels.that(has_kind)),
            },
            statuses: some,
        }
    }

    /// How many tasks are wanted.
    pub(super) fn count(&self, wanted: &Wanted) -> u64 {
        let labels = self.labels.counts();
        labels
            .filter(|(label, _)| wanted.has_label(*label))
            .map(|(_, counts)| wanted.count(counts))
            .sum()
    }

    /// The chunks with wanted tasks of this range, in order: how many of a whole chunk are wanted, its bounds in time, and its tasks
    /// in the range.
    pub(super) fn chunks<'a>(
        &'a self,
        wanted: &'a Wanted,
        uids: impl RangeBounds<u32> + Clone + 'a,
    ) -> impl DoubleEndedIterator<Item = Part<'a>> {
        let chunks = self.chunks.range(chunks_of(&uids));
        chunks.filter_map(move |(number, chunk)| {
            let count = chunk.count(wanted);
            let part = Part {
                number: *number,
                chunk,
                count,
            };
            (count > 0).then_some(part)
        })
    }

    /// Gives the tasks of this range the names that their indexes have by now: `renamed` tells it for an index that has another.
    pub(super) fn rename(
        &mut self,
        uids: impl RangeBounds<u32>,
        renamed: impl Fn(&str) -> Option<String>,
    ) {
        let mut new: BTreeMap<LabelId, LabelId> = BTreeMap::new();
        for (label, kind, name) in self.labels.with_index() {
            if let Some(name) = renamed(&name).filter(|new| **new != *name) {
                let to = self.labels.find(&kind, Some(&name));
                new.insert(label, to);
            }
        }
        if new.is_empty() {
            return;
        }
        for (number, chunk) in self.chunks.range_mut(chunks_of(&uids)) {
            if !chunk.has_any_label(&new) {
                continue;
            }
            let here: Vec<(u32, Note)> = chunk
                .iter(*number)
                .filter(|(uid, _)| uids.contains(uid))
                .map(|(uid, note)| (uid, *note))
                .collect();
            for (uid, mut note) in here {
                let Some(to) = new.get(&note.label) else {
                    continue;
                };
                self.labels.add(*to, note.status);
                self.labels.remove(note.label, note.status);
                note.label = *to;
                chunk.put(uid, note);
            }
        }
        self.labels.tidy();
    }
}

/// A chunk with wanted tasks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    number: u32,
    chunk: &'a Chunk,
    /// How many of its tasks are wanted, by label and status.
    pub(super) count: u64,
}

impl<'a> Part<'a> {
    /// From when to when this happened to the tasks.
    pub(super) fn span(&self, what: Time) -> &'a Span {
        self.chunk.span(what)
    }

    /// The tasks, in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u32, &'a Note)> + use<'a> {
        self.chunk.iter(self.number)
    }
}

fn chunks_of(uids: &impl RangeBounds<u32>) -> (Bound<u32>, Bound<u32>) {
    let chunk = |bound: Bound<&u32>| match bound {
        Bound::Included(uid) | Bound::Excluded(uid) => Bound::Included(uid / CHUNK),
        Bound::Unbounded => Bound::Unbounded,
    };
    (chunk(uids.start_bound()), chunk(uids.end_bound()))
}

#[cfg(test)]
mod tests;
