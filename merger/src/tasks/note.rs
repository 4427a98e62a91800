//! What is kept in memory of every task, also of those that ended long ago: as little as lists and filters need.
//!
//! There may be a million of them. So what many tasks have in common, their kind and index, is one [`Label`] for all of them, and a
//! time is a number.

use std::num::NonZeroI64;
use std::sync::Arc;

use hashbrown::{Equivalent, HashSet};
use time::OffsetDateTime;

use super::aggregate::Course;
use super::record::{Status, TaskRecord};

/// What the list of tasks needs to know about one task.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) status: Status,
    label: Arc<Label>,
    pub(super) canceled_by: Option<u32>,
    enqueued_at: Moment,
    started_at: Option<Moment>,
    finished_at: Option<Moment>,
    /// The place in a shared record, counted from 1; 0 for a task with a record of its own.
    place: u16,
}

impl Note {
    /// A note of a task with this label and course, at this place in its record.
    pub(super) fn new(label: Arc<Label>, course: &Course, place: u16) -> Self {
        Self {
            status: course.status,
            label,
            place,
            canceled_by: course.canceled_by,
            enqueued_at: Moment::of(course.enqueued_at),
            started_at: course.started_at.map(Moment::of),
            finished_at: course.finished_at.map(Moment::of),
        }
    }

    /// Takes over the task's current status, times and place; its kind and index stay.
    pub(super) fn follow(&mut self, course: &Course, place: u16) {
        *self = Self::new(Arc::clone(&self.label), course, place);
    }

    /// Whether the task shares its record with others.
    pub(super) fn is_in_group(&self) -> bool {
        self.place > 0
    }

    /// The first uid of the record in which the task of this uid is stored.
    pub(super) fn record_of(&self, uid: u32) -> u32 {
        uid.saturating_sub(u32::from(self.place.saturating_sub(1)))
    }

    /// The API's task type.
    pub(super) fn kind(&self) -> &str {
        &self.label.kind
    }

    /// The index, by its current name.
    pub(super) fn index_uid(&self) -> Option<&str> {
        self.label.index_uid()
    }

    /// What it shares with other notes.
    pub(super) fn label(&self) -> Arc<Label> {
        Arc::clone(&self.label)
    }

    /// Gives the task's index another name.
    pub(super) fn rename(&mut self, index_uid: &str, names: &mut Names) {
        self.label = names.label(&self.label.kind, Some(index_uid));
    }

    /// When the task was enqueued.
    pub(super) fn enqueued_at(&self) -> OffsetDateTime {
        self.enqueued_at.time()
    }

    /// When the first node began with it.
    pub(super) fn started_at(&self) -> Option<OffsetDateTime> {
        self.started_at.map(Moment::time)
    }

    /// When it ended.
    pub(super) fn finished_at(&self) -> Option<OffsetDateTime> {
        self.finished_at.map(Moment::time)
    }
}

/// A task's kind and the current name of its index.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Label {
    kind: Arc<str>,
    index_uid: Option<Arc<str>>,
}

impl Label {
    /// The index, by its current name.
    pub(super) fn index_uid(&self) -> Option<&str> {
        self.index_uid.as_deref()
    }
}

/// A label's texts, to look for it.
#[derive(Hash)]
struct Texts<'a> {
    kind: &'a str,
    index_uid: Option<&'a str>,
}

impl Equivalent<Arc<Label>> for Texts<'_> {
    fn equivalent(&self, label: &Arc<Label>) -> bool {
        *self.kind == *label.kind && self.index_uid == label.index_uid.as_deref()
    }
}

/// Texts that many notes share.
#[derive(Debug, Default)]
pub(super) struct Names {
    labels: HashSet<Arc<Label>>,
    kinds: HashSet<Arc<str>>,
    index_uids: HashSet<Arc<str>>,
}

impl Names {
    /// The label of a record's tasks, by the names from when they were created.
    pub(super) fn of(&mut self, record: &TaskRecord) -> Arc<Label> {
        self.label(&record.kind, record.index_uid.as_deref())
    }

    /// A label, shared.
    pub(super) fn label(&mut self, kind: &str, index_uid: Option<&str>) -> Arc<Label> {
        if let Some(label) = self.labels.get(&Texts { kind, index_uid }) {
            return Arc::clone(label);
        }
        let label = Arc::new(Label {
            kind: shared(&mut self.kinds, kind),
            index_uid: index_uid.map(|uid| shared(&mut self.index_uids, uid)),
        });
        self.labels.insert(Arc::clone(&label));
        label
    }

    /// The indexes that any task names.
    pub(super) fn index_uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.index_uids.iter()
    }

    /// Drops the texts that no note uses any more.
    pub(super) fn tidy(&mut self) {
        self.labels.retain(|label| Arc::strong_count(label) > 1);
        self.index_uids.retain(|uid| Arc::strong_count(uid) > 1);
    }
}

fn shared(among: &mut HashSet<Arc<str>>, text: &str) -> Arc<str> {
    Arc::clone(among.get_or_insert_with(text, |text| text.into()))
}

/// A time in nanoseconds since 1970, from 1677 to 2262. Never zero, so that no time at all takes no more room; the one nanosecond
/// that this costs is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment(NonZeroI64);

impl Moment {
    fn of(time: OffsetDateTime) -> Self {
        let nanos = time
            .unix_timestamp_nanos()
            .clamp(i64::MIN.into(), i64::MAX.into());
        let nanos = i64::try_from(nanos).unwrap_or_default();
        Self(NonZeroI64::new(nanos).unwrap_or(NonZeroI64::MIN))
    }

    fn time(self) -> OffsetDateTime {
        let time = OffsetDateTime::from_unix_timestamp_nanos(self.0.get().into());
        time.unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_note_takes_little_room() {
        // A million of them, in a map whose leaves are half full, are to fit into 100 MiB.
        assert!(size_of::<Note>() <= 48, "{}", size_of::<Note>());
    }

    #[test]
    fn a_time_stays_the_same_to_the_nanosecond() {
        for time in [
            datetime!(2026-05-05 12:00:00.123456789 UTC),
            datetime!(1969-12-31 23:59:59.999999999 UTC),
            datetime!(2262-04-01 00:00 UTC),
        ] {
            assert_eq!(Moment::of(time).time(), time);
        }
        let later = datetime!(9999-01-01 00:00 UTC);
        assert!(Moment::of(later).time() > datetime!(2262-01-01 00:00 UTC));
    }

    #[test]
    fn texts_are_shared_until_no_note_has_them() {
        let mut names = Names::default();
        let one = names.label("indexCreation", Some("movies"));
        let two = names.label("indexCreation", Some("movies"));
        assert!(Arc::ptr_eq(&one, &two));
        let other = names.label("indexDeletion", Some("movies"));
        assert!(Arc::ptr_eq(
            one.index_uid.as_ref().unwrap(),
            other.index_uid.as_ref().unwrap()
        ));
        drop((one, other));
        names.tidy();
        assert_eq!((names.index_uids().count(), names.labels.len()), (1, 1));
        drop(two);
        names.tidy();
        assert_eq!((names.index_uids().count(), names.labels.len()), (0, 0));
    }
}
