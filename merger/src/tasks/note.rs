//! What is kept in memory of every task, also of those that ended long ago: as little as lists and filters need.
//!
//! There may be a million of them. So what many tasks have in common, their kind and index, is a number (see [`super::notes`]), and so
//! is a time.

use std::num::NonZeroI64;

use time::OffsetDateTime;

use super::aggregate::Course;
use super::notes::{LabelId, Time};
use super::record::Status;

/// What the list of tasks needs to know about one task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Note {
    pub(super) label: LabelId,
    /// The place in a shared record, counted from 1; 0 for a task with a record of its own.
    place: u16,
    pub(super) status: Status,
    enqueued_at: Moment,
    started_at: Option<Moment>,
    finished_at: Option<Moment>,
}

impl Note {
    /// A note of a task with this label and course, at this place in its record.
    pub(super) fn new(label: LabelId, course: &Course, place: u16) -> Self {
        Self {
            label,
            place,
            status: course.status,
            enqueued_at: Moment::of(course.enqueued_at),
            started_at: course.started_at.map(Moment::of),
            finished_at: course.finished_at.map(Moment::of),
        }
    }

    /// Whether the task shares its record with others.
    pub(super) fn is_in_group(&self) -> bool {
        self.place > 0
    }

    /// The first uid of the record in which the task of this uid is stored.
    pub(super) fn record_of(&self, uid: u32) -> u32 {
        uid.saturating_sub(u32::from(self.place.saturating_sub(1)))
    }

    /// When this happened to the task.
    pub(super) fn moment(&self, what: Time) -> Option<Moment> {
        match what {
            Time::Enqueued => Some(self.enqueued_at),
            Time::Started => self.started_at,
            Time::Finished => self.finished_at,
        }
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

/// A time in nanoseconds since 1970, from 1677 to 2262. Never zero, so that no time at all takes no more room; the one nanosecond
/// that this costs is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(NonZeroI64);

impl Moment {
    fn of(time: OffsetDateTime) -> Self {
        let nanos = time
            .unix_timestamp_nanos()
            .clamp(i64::MIN.into(), i64::MAX.into());
        let nanos = i64::try_from(nanos).unwrap_or_default();
        Self(NonZeroI64::new(nanos).unwrap_or(NonZeroI64::MIN))
    }

    pub(super) fn time(self) -> OffsetDateTime {
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
        // They stand one after the other, a million of them in 32 MB, and one that isn't there takes no more.
        assert_eq!(size_of::<Option<Note>>(), 32);
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
}
