//! The filters, order and paging of `GET /tasks`, over a short note of each task. Pure functions.

use std::collections::BTreeSet;

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime};

use super::note::Note;
use super::notes::{Notes, Part, Span, Time, Wanted};
use super::record::Status;

/// A range of time, open at both ends.
#[derive(Debug, Clone, Copy, Default)]
struct Between {
    after: Option<OffsetDateTime>,
    before: Option<OffsetDateTime>,
}

impl Between {
    fn is_set(self) -> bool {
        self.after.is_some() || self.before.is_some()
    }

    fn holds(self, time: Option<OffsetDateTime>) -> bool {
        !self.is_set()
            || time.is_some_and(|time| {
                self.after.is_none_or(|after| time > after)
                    && self.before.is_none_or(|before| time < before)
            })
    }
}

/// How many tasks of a chunk are within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    None,
    Some,
    All,
}

impl Between {
    fn fit(self, span: &Span) -> Fit {
        if !self.is_set() {
            return Fit::All;
        }
        let (Some(first), Some(last)) = (span.first(), span.last()) else {
            return Fit::None;
        };
        if self.after.is_some_and(|after| last <= after)
            || self.before.is_some_and(|before| first >= before)
        {
            return Fit::None;
        }
        match self.holds(Some(first)) && self.holds(Some(last)) && span.is_complete() {
            true => Fit::All,
            false => Fit::Some,
        }
    }
}

/// Which tasks, in which order, and how many. An absent list excludes no task.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    pub(super) limit: u32,
    pub(super) from: Option<u32>,
    reverse: bool,
    uids: Option<Vec<u32>>,
    batch_uids: Option<Vec<u32>>,
    statuses: Option<Vec<Status>>,
    kinds: Option<Vec<String>>,
    index_uids: Option<Vec<String>>,
    canceled_by: Option<Vec<u32>>,
    enqueued: Between,
    started: Between,
    finished: Between,
    /// Whether any parameter other than paging was given, even `*`.
    pub(super) narrows: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            limit: 20,
            from: None,
            reverse: false,
            uids: None,
            batch_uids: None,
            statuses: None,
            kinds: None,
            index_uids: None,
            canceled_by: None,
            enqueued: Between::default(),
            started: Between::default(),
            finished: Between::default(),
            narrows: false,
        }
    }
}

/// A parameter that can't be parsed: its name and value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) parameter: String,
    pub(super) value: String,
}

impl Filter {
    /// Reads the pairs of a query, percent-decoded.
    pub(super) fn parse<'a>(
        pairs: impl Iterator<Item = (std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>)>,
    ) -> Result<Self, Unreadable> {
        let mut filter = Self::default();
        for (name, value) in pairs {
            filter.set(&name, &value).ok_or_else(|| Unreadable {
                parameter: name.to_string(),
                value: value.to_string(),
            })?;
        }
        Ok(filter)
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let numbers = || list(value, |word| word.parse::<u32>().ok());
        match name {
            "limit" => self.limit = value.parse().ok()?,
            "from" => self.from = Some(value.parse().ok()?),
            "reverse" => self.reverse = value.parse().ok()?,
            "uids" => self.uids = numbers()?,
            "batchUids" => self.batch_uids = numbers()?,
            "canceledBy" => self.canceled_by = numbers()?,
            "statuses" => self.statuses = list(value, Status::parse)?,
            "types" => self.kinds = list(value, |word| is_kind(word).then(|| word.to_owned()))?,
            "indexUids" => {
                self.index_uids = list(value, |word| is_name(word).then(|| word.to_owned()))?
            }
            "afterEnqueuedAt" => self.enqueued.after = bound(value, after)?,
            "beforeEnqueuedAt" => self.enqueued.before = bound(value, before)?,
            "afterStartedAt" => self.started.after = bound(value, after)?,
            "beforeStartedAt" => self.started.before = bound(value, before)?,
            "afterFinishedAt" => self.finished.after = bound(value, after)?,
            "beforeFinishedAt" => self.finished.before = bound(value, before)?,
            _ => return None,
        }
        self.narrows |= !matches!(name, "limit" | "from" | "reverse");
        Some(())
    }

    /// Whether a task matches the filter.
    pub(super) fn lets_through(&self, uid: u32, note: &Note, notes: &Notes) -> bool {
        let label = notes.label(note);
        let among = |list: &Option<Vec<u32>>, value: Option<u32>| {
            list.as_ref()
                .is_none_or(|list| value.is_some_and(|value| list.contains(&value)))
        };
        let begun = (note.status != Status::Enqueued).then_some(uid);
        among(&self.uids, Some(uid))
            && among(&self.batch_uids, begun)
            && among(&self.canceled_by, notes.canceled_by(uid))
            && self
                .statuses
                .as_ref()
                .is_none_or(|list| list.contains(&note.status))
            && self.kinds.as_ref().is_none_or(|list| {
                list.iter()
                    .any(|kind| kind.eq_ignore_ascii_case(&label.kind))
            })
            && self.index_uids.as_ref().is_none_or(|list| {
                let index_uid = label.index_uid.as_deref();
                index_uid.is_some_and(|uid| list.iter().any(|wanted| wanted == uid))
            })
            && self.is_in_time(note)
    }

    fn is_in_time(&self, note: &Note) -> bool {
        self.enqueued.holds(Some(note.enqueued_at()))
            && self.started.holds(note.started_at())
            && self.finished.holds(note.finished_at())
    }

    /// One page: its uids, the total, and the uid that the next page starts from. `open` are the tasks that haven't ended.
    ///
    /// However many tasks there are, it looks at few of them: those that are named, that are open or that were canceled; or else those
    /// in chunks that have some of the page, and in chunks that lie on a bound in time.
    pub(super) fn page(
        &self,
        notes: &Notes,
        open: impl DoubleEndedIterator<Item = u32>,
    ) -> (Vec<u32>, u64, Option<u32>) {
        let limit = self.limit as usize;
        let (oldest, newest) = match self.reverse {
            true => (self.from.unwrap_or(0), u32::MAX),
            false => (0, self.from.unwrap_or(u32::MAX)),
        };
        let begun = |uid: &u32| (oldest..=newest).contains(uid);
        let wanted = self.wanted(notes);
        let (total, found): (u64, Box<dyn DoubleEndedIterator<Item = u32>>) =
            match self.few(notes, open) {
                Some(few) => (few.len() as u64, Box::new(few.into_iter().filter(begun))),
                None => {
                    let parts = notes.chunks(&wanted, oldest..=newest);
                    let found = parts.flat_map(|part| self.of_part(part, &wanted));
                    (self.count(notes, &wanted), Box::new(found.filter(begun)))
                }
            };
        let mut uids: Box<dyn Iterator<Item = u32>> = match self.reverse {
            true => Box::new(found),
            false => Box::new(found.rev()),
        };
        let page = uids.by_ref().take(limit).collect();
        (page, total, uids.next())
    }

    /// The uids of all matching tasks, in ascending order.
    pub(super) fn all(
        &self,
        notes: &Notes,
        open: impl DoubleEndedIterator<Item = u32>,
    ) -> Vec<u32> {
        if let Some(few) = self.few(notes, open) {
            return few;
        }
        let wanted = self.wanted(notes);
        let parts = notes.chunks(&wanted, ..);
        parts.flat_map(|part| self.of_part(part, &wanted)).collect()
    }

    /// The matching tasks, if they are among a few that are known: those that are named, open, or were canceled.
    fn few(&self, notes: &Notes, open: impl DoubleEndedIterator<Item = u32>) -> Option<Vec<u32>> {
        let ended = |statuses: &Vec<Status>| statuses.iter().any(|status| status.is_settled());
        let matching = |uid: &u32| {
            let note = notes.get(*uid);
            note.is_some_and(|note| self.lets_through(*uid, note, notes))
        };
        let named = self.uids.as_ref().or(self.batch_uids.as_ref());
        if let Some(named) = named {
            let named: BTreeSet<u32> = named.iter().copied().collect();
            return Some(named.into_iter().filter(matching).collect());
        }
        if self.statuses.as_ref().is_some_and(|list| !ended(list)) {
            return Some(open.filter(matching).collect());
        }
        let canceled = self.canceled_by.is_some();
        canceled.then(|| notes.canceled().filter(matching).collect())
    }

    fn wanted(&self, notes: &Notes) -> Wanted {
        notes.wanted(
            self.statuses.as_deref(),
            self.kinds.as_deref(),
            self.index_uids.as_deref(),
        )
    }

    /// How many tasks match, where only labels, statuses and times count.
    fn count(&self, notes: &Notes, wanted: &Wanted) -> u64 {
        let times = [self.enqueued, self.started, self.finished];
        if !times.into_iter().any(Between::is_set) {
            return notes.count(wanted);
        }
        let parts = notes.chunks(wanted, ..);
        parts
            .map(|part| match self.fit(&part) {
                Fit::None => 0,
                Fit::All => part.count,
                Fit::Some => self.of_part(part, wanted).count() as u64,
            })
            .sum()
    }

    /// The matching tasks of a chunk.
    fn of_part<'a>(
        &'a self,
        part: Part<'a>,
        wanted: &'a Wanted,
    ) -> impl DoubleEndedIterator<Item = u32> + use<'a> {
        let fit = self.fit(&part);
        let tasks = (fit != Fit::None).then(|| part.iter());
        tasks
            .into_iter()
            .flatten()
            .filter(move |(_, note)| wanted.has(note) && (fit == Fit::All || self.is_in_time(note)))
            .map(|(uid, _)| uid)
    }

    /// How many of a chunk's tasks are within the bounds in time.
    fn fit(&self, part: &Part<'_>) -> Fit {
        let times = [
            (self.enqueued, Time::Enqueued),
            (self.started, Time::Started),
            (self.finished, Time::Finished),
        ];
        let fits = times.map(|(between, what)| between.fit(part.span(what)));
        if fits.contains(&Fit::None) {
            return Fit::None;
        }
        match fits.contains(&Fit::Some) {
            true => Fit::Some,
            false => Fit::All,
        }
    }

    /// The same filter, limited to the indexes that a key may see; if the filter names no index, those of `known` that the key
    /// may see.
    pub(super) fn within(
        mut self,
        allowed: impl Fn(&str) -> bool,
        known: impl Iterator<Item = String>,
    ) -> Self {
        let asked = self.index_uids.take();
        let seen: Vec<String> = match asked {
            Some(asked) => asked.into_iter().filter(|uid| allowed(uid)).collect(),
            None => known.filter(|uid| allowed(uid)).collect(),
        };
        self.index_uids = Some(seen);
        self
    }
}

/// A list separated by commas; `*` alone means all, which is `Some(None)`.
#[allow(
    clippy::option_option,
    reason = "unreadable, all, or some are three things"
)]
fn list<T>(value: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<Vec<T>>> {
    if value == "*" {
        return Some(None);
    }
    value
        .split(',')
        .map(|word| parse(word.trim()))
        .collect::<Option<Vec<T>>>()
        .map(Some)
}

/// The task types of a node.
const KINDS: [&str; 18] = [
    "indexCreation",
    "indexUpdate",
    "indexSwap",
    "indexDeletion",
    "indexCompaction",
    "documentAdditionOrUpdate",
    "documentEdition",
    "documentDeletion",
    "settingsUpdate",
    "taskCancelation",
    "taskDeletion",
    "dumpCreation",
    "snapshotCreation",
    "export",
    "upgradeDatabase",
    "networkTopologyChange",
    "dsrUpdate",
    "dsrClear",
];

fn is_kind(word: &str) -> bool {
    KINDS.iter().any(|kind| kind.eq_ignore_ascii_case(word))
}

fn is_name(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// A bound in time; `*` is none.
#[allow(
    clippy::option_option,
    reason = "unreadable, none, or one are three things"
)]
fn bound(value: &str, parse: fn(&str) -> Option<OffsetDateTime>) -> Option<Option<OffsetDateTime>> {
    if value == "*" {
        return Some(None);
    }
    parse(value).map(Some)
}

/// `after` a day means after its end, as on a node.
fn after(value: &str) -> Option<OffsetDateTime> {
    moment(value).or_else(|| {
        let end = Duration::days(1) - Duration::nanoseconds(1);
        Some(day(value)?.saturating_add(end))
    })
}

/// `before` with a day means before its start.
fn before(value: &str) -> Option<OffsetDateTime> {
    moment(value).or_else(|| day(value))
}

fn moment(value: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(value, &Rfc3339).ok()
}

fn day(value: &str) -> Option<OffsetDateTime> {
    let date = Date::parse(value, format_description!("[year]-[month]-[day]")).ok()?;
    Some(date.midnight().assume_utc())
}

#[cfg(test)]
mod tests;
