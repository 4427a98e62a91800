//! Query parameters that select tasks.

use deserr::Deserr;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime, Time};

use super::super::uid::IndexUid;
use crate::errors::of;
use crate::queue::{Kind, PageOf, Period, Status, TaskFilter};
use crate::validate::{Choice, FromText, InQuery, Param, Wrong};

/// A time after which something happened; a date without a time means the end of that day.
#[derive(Debug, Clone, Copy)]
struct After(Option<OffsetDateTime>);

/// A time before which something happened; a date without a time means the beginning of that day.
#[derive(Debug, Clone, Copy)]
struct Before(Option<OffsetDateTime>);

fn parse_date(text: &str) -> Result<(OffsetDateTime, bool), Wrong> {
    if let Ok(date) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok((date, false));
    }
    match Date::parse(text, format_description!("[year]-[month]-[day]")) {
        Ok(day) => Ok((day.with_time(Time::MIDNIGHT).assume_utc(), true)),
        Err(_) => Err(Wrong(format!(
            "`{text}` is an invalid date-time. It should follow the YYYY-MM-DD or RFC 3339 date-time format."
        ))),
    }
}

impl FromText for After {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        if text == "*" {
            return Ok(After(None));
        }
        let (date, is_day) = parse_date(text)?;
        Ok(After(Some(if is_day {
            date.saturating_add(Duration::DAY)
        } else {
            date
        })))
    }
}

impl FromText for Before {
    fn from_text(text: &str) -> Result<Self, Wrong> {
        if text == "*" {
            Ok(Before(None))
        } else {
            Ok(Before(Some(parse_date(text)?.0)))
        }
    }
}

macro_rules! filters {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserr)]
        #[deserr(error = InQuery, rename_all = camelCase, deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$attribute])* pub(super) $field: $type,)*
            #[deserr(default, error = InQuery<of::InvalidTaskCanceledBy>)]
            canceled_by: Option<Choice<u32>>,
            #[deserr(default, error = InQuery<of::InvalidTaskTypes>)]
            types: Option<Choice<Kind>>,
            #[deserr(default, error = InQuery<of::InvalidTaskStatuses>)]
            statuses: Option<Choice<Status>>,
            #[deserr(default, error = InQuery<of::InvalidIndexUid>)]
            index_uids: Option<Choice<IndexUid>>,
            #[deserr(default, error = InQuery<of::InvalidTaskAfterEnqueuedAt>)]
            after_enqueued_at: Option<Param<After>>,
            #[deserr(default, error = InQuery<of::InvalidTaskBeforeEnqueuedAt>)]
            before_enqueued_at: Option<Param<Before>>,
            #[deserr(default, error = InQuery<of::InvalidTaskAfterStartedAt>)]
            after_started_at: Option<Param<After>>,
            #[deserr(default, error = InQuery<of::InvalidTaskBeforeStartedAt>)]
            before_started_at: Option<Param<Before>>,
            #[deserr(default, error = InQuery<of::InvalidTaskAfterFinishedAt>)]
            after_finished_at: Option<Param<After>>,
            #[deserr(default, error = InQuery<of::InvalidTaskBeforeFinishedAt>)]
            before_finished_at: Option<Param<Before>>,
        }

        impl $name {
            /// The filter that these parameters describe.
            pub(super) fn filter(self) -> TaskFilter {
                let period = |after: Option<Param<After>>, before: Option<Param<Before>>| Period {
                    after: after.and_then(|after| after.0.0),
                    before: before.and_then(|before| before.0.0),
                };
                let indexes = self.index_uids.and_then(Choice::into_list);
                TaskFilter {
                    uids: self.uids.and_then(Choice::into_list),
                    batches: self.batch_uids.and_then(Choice::into_list),
                    canceled_by: self.canceled_by.and_then(Choice::into_list),
                    kinds: self.types.and_then(Choice::into_list),
                    statuses: self.statuses.and_then(Choice::into_list),
                    indexes: indexes.map(|uids| uids.into_iter().map(|uid| uid.0).collect()),
                    enqueued: period(self.after_enqueued_at, self.before_enqueued_at),
                    started: period(self.after_started_at, self.before_started_at),
                    finished: period(self.after_finished_at, self.before_finished_at),
                }
            }
        }
    };
}

filters! {
    /// `GET /tasks` and `GET /batches`.
    ListParameters {
        #[deserr(default = Param(20), error = InQuery<of::InvalidTaskLimit>)]
        limit: Param<u32>,
        #[deserr(default, error = InQuery<of::InvalidTaskFrom>)]
        from: Option<Param<u32>>,
        #[deserr(default, error = InQuery<of::InvalidTaskReverse>)]
        reverse: Option<Param<bool>>,
        #[deserr(default, error = InQuery<of::InvalidBatchUids>)]
        batch_uids: Option<Choice<u32>>,
        #[deserr(default, error = InQuery<of::InvalidTaskUids>)]
        uids: Option<Choice<u32>>,
    }
}

filters! {
    /// `POST /tasks/cancel` and `DELETE /tasks`.
    ChosenTasks {
        #[deserr(default, error = InQuery<of::InvalidTaskUids>)]
        uids: Option<Choice<u32>>,
        #[deserr(default, error = InQuery<of::InvalidBatchUids>)]
        batch_uids: Option<Choice<u32>>,
    }
}

impl ListParameters {
    /// The requested page.
    pub(super) fn page(&self) -> PageOf {
        PageOf {
            limit: self.limit.0 as usize,
            from: self.from.as_ref().map(|from| from.0),
            reverse: self.reverse.as_ref().is_some_and(|reverse| reverse.0),
        }
    }
}
