//! The notes of neighbouring tasks, and what is known of all of them.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::{LabelId, Wanted};
use crate::tasks::note::{Moment, Note};
use crate::tasks::record::Status;

/// How many uids a chunk has.
pub(super) const CHUNK: u32 = 1024;

/// Something that happens to a task at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tasks) enum Time {
    Enqueued,
    Started,
    Finished,
}

impl Time {
    const ALL: [Self; 3] = [Self::Enqueued, Self::Started, Self::Finished];
}

/// From when to when something happened to some tasks. The bounds may be too wide.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::tasks) struct Span {
    bounds: Option<(Moment, Moment)>,
    /// To how many of them it hasn't happened.
    without: u16,
}

impl Span {
    /// The earliest time, or an earlier one.
    pub(in crate::tasks) fn first(&self) -> Option<OffsetDateTime> {
        self.bounds.map(|(first, _)| first.time())
    }

    /// The latest time, or a later one.
    pub(in crate::tasks) fn last(&self) -> Option<OffsetDateTime> {
        self.bounds.map(|(_, last)| last.time())
    }

    /// Whether it has happened to all of them.
    pub(in crate::tasks) fn is_complete(&self) -> bool {
        self.without == 0
    }

    fn add(&mut self, at: Option<Moment>) {
        let Some(at) = at else {
            self.without += 1;
            return;
        };
        let (first, last) = self.bounds.unwrap_or((at, at));
        self.bounds = Some((first.min(at), last.max(at)));
    }

    fn remove(&mut self, at: Option<Moment>) {
        if at.is_none() {
            self.without = self.without.saturating_sub(1);
        }
    }
}

/// How many tasks have a label, by status.
#[derive(Debug, Clone, Copy)]
struct Count {
    label: LabelId,
    by_status: [u16; Status::COUNT],
}

/// Notes by the last part of their uids.
#[derive(Debug)]
pub(super) struct Chunk {
    notes: Box<[Option<Note>]>,
    count: u16,
    /// For each label that any task has, in the order of the labels.
    counts: Vec<Count>,
    spans: [Span; Time::ALL.len()],
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            notes: vec![None; CHUNK as usize].into(),
            count: 0,
            counts: Vec::new(),
            spans: [Span::default(); Time::ALL.len()],
        }
    }
}

impl Chunk {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn get(&self, uid: u32) -> Option<&Note> {
        self.notes.get((uid % CHUNK) as usize)?.as_ref()
    }

    /// Its tasks in order; `number` is its own number.
    pub(super) fn iter(&self, number: u32) -> impl DoubleEndedIterator<Item = (u32, &Note)> {
        let begin = number * CHUNK;
        let all = self.notes.iter().enumerate();
        all.filter_map(move |(place, note)| {
            let place = u32::try_from(place).ok()?;
            Some((begin + place, note.as_ref()?))
        })
    }

    /// Notes a task. Returns what was known of it.
    pub(super) fn put(&mut self, uid: u32, note: Note) -> Option<Note> {
        let old = self.take(uid);
        let place = self.notes.get_mut((uid % CHUNK) as usize)?;
        *place = Some(note);
        self.count += 1;
        self.counts_of(note.label, |counts| {
            if let Some(count) = counts.get_mut(note.status.place()) {
                *count += 1;
            }
        });
        for (span, what) in self.spans.iter_mut().zip(Time::ALL) {
            span.add(note.moment(what));
        }
        old
    }

    /// Forgets a task. Returns what was known of it.
    pub(super) fn take(&mut self, uid: u32) -> Option<Note> {
        let old = self.notes.get_mut((uid % CHUNK) as usize)?.take()?;
        self.count -= 1;
        self.counts_of(old.label, |counts| {
            if let Some(count) = counts.get_mut(old.status.place()) {
                *count = count.saturating_sub(1);
            }
        });
        for (span, what) in self.spans.iter_mut().zip(Time::ALL) {
            span.remove(old.moment(what));
        }
        Some(old)
    }

    /// Changes how many tasks have a label.
    fn counts_of(&mut self, label: LabelId, change: impl FnOnce(&mut [u16; Status::COUNT])) {
        let place = self
            .counts
            .binary_search_by_key(&label, |count| count.label);
        let place = place.unwrap_or_else(|place| {
            let none = Count {
                label,
                by_status: [0; Status::COUNT],
            };
            self.counts.insert(place, none);
            place
        });
        let Some(count) = self.counts.get_mut(place) else {
            return;
        };
        change(&mut count.by_status);
        if count.by_status == [0; Status::COUNT] {
            self.counts.remove(place);
        }
    }

    /// How many of its tasks are wanted, by label and status.
    pub(super) fn count(&self, wanted: &Wanted) -> u64 {
        let counts = self.counts.iter();
        counts
            .filter(|count| wanted.has_label(count.label))
            .map(|count| wanted.count(&count.by_status))
            .sum()
    }

    /// Whether any task has one of these labels.
    pub(super) fn has_any_label(&self, labels: &BTreeMap<LabelId, LabelId>) -> bool {
        let mut counts = self.counts.iter();
        counts.any(|count| labels.contains_key(&count.label))
    }

    /// From when to when this happened to its tasks.
    pub(super) fn span(&self, what: Time) -> &Span {
        let [enqueued, started, finished] = &self.spans;
        match what {
            Time::Enqueued => enqueued,
            Time::Started => started,
            Time::Finished => finished,
        }
    }
}
