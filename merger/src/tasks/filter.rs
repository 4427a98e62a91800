//! The filters, order and paging of `GET /tasks`, over a short note of each task. Pure functions.

use std::collections::{BTreeMap, BTreeSet};

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime};

use super::note::Note;
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
    pub(super) fn lets_through(&self, uid: u32, note: &Note) -> bool {
        let among = |list: &Option<Vec<u32>>, value: Option<u32>| {
            list.as_ref()
                .is_none_or(|list| value.is_some_and(|value| list.contains(&value)))
        };
        let begun = (note.status != Status::Enqueued).then_some(uid);
        among(&self.uids, Some(uid))
            && among(&self.batch_uids, begun)
            && among(&self.canceled_by, note.canceled_by)
            && self
                .statuses
                .as_ref()
                .is_none_or(|list| list.contains(&note.status))
            && self.kinds.as_ref().is_none_or(|list| {
                list.iter()
                    .any(|kind| kind.eq_ignore_ascii_case(note.kind()))
            })
            && self.index_uids.as_ref().is_none_or(|list| {
                note.index_uid()
                    .is_some_and(|uid| list.iter().any(|wanted| wanted == uid))
            })
            && self.enqueued.holds(Some(note.enqueued_at()))
            && self.started.holds(note.started_at())
            && self.finished.holds(note.finished_at())
    }

    /// One page: its uids, the total, and the uid that the next page starts from. `open` are the tasks that haven't ended.
    ///
    /// The frequent queries (the newest tasks, a few uids, unfinished tasks) cost the same however many tasks there are.
    pub(super) fn page(
        &self,
        notes: &BTreeMap<u32, Note>,
        open: impl DoubleEndedIterator<Item = u32>,
    ) -> (Vec<u32>, u64, Option<u32>) {
        let limit = self.limit as usize;
        if self.lets_all_through() {
            let mut uids: Box<dyn Iterator<Item = &u32>> = match self.reverse {
                true => Box::new(notes.range(self.from.unwrap_or(0)..).map(|(uid, _)| uid)),
                false => {
                    let newest = self.from.unwrap_or(u32::MAX);
                    Box::new(notes.range(..=newest).rev().map(|(uid, _)| uid))
                }
            };
            let page = uids.by_ref().take(limit).copied().collect();
            return (page, notes.len() as u64, uids.next().copied());
        }
        let mut page = Vec::new();
        let (mut total, mut next) = (0, None);
        let mut visit = |uid: u32| {
            total += 1;
            let begun = self.from.is_none_or(|from| match self.reverse {
                true => uid >= from,
                false => uid <= from,
            });
            if begun && page.len() < limit {
                page.push(uid);
            } else if begun && next.is_none() {
                next = Some(uid);
            }
        };
        let found = self.among(notes, open);
        match self.reverse {
            true => found.for_each(&mut visit),
            false => found.rev().for_each(&mut visit),
        }
        (page, total, next)
    }

    /// The uids of all matching tasks, in ascending order.
    pub(super) fn all(
        &self,
        notes: &BTreeMap<u32, Note>,
        open: impl DoubleEndedIterator<Item = u32>,
    ) -> Vec<u32> {
        self.among(notes, open).collect()
    }

    fn among<'a>(
        &'a self,
        notes: &'a BTreeMap<u32, Note>,
        open: impl DoubleEndedIterator<Item = u32> + 'a,
    ) -> impl DoubleEndedIterator<Item = u32> {
        let named = self.uids.as_ref().or(self.batch_uids.as_ref());
        let ended = |statuses: &Vec<Status>| statuses.iter().any(|status| status.is_settled());
        let candidates: Box<dyn DoubleEndedIterator<Item = u32> + 'a> =
            match (named, &self.statuses) {
                (Some(named), _) => {
                    let named: BTreeSet<u32> = named.iter().copied().collect();
                    Box::new(named.into_iter())
                }
                (None, Some(statuses)) if !ended(statuses) => Box::new(open),
                (None, _) => Box::new(notes.keys().copied()),
            };
        candidates.filter(|uid| {
            let note = notes.get(uid);
            note.is_some_and(|note| self.lets_through(*uid, note))
        })
    }

    fn lets_all_through(&self) -> bool {
        let Self {
            limit: _,
            from: _,
            reverse: _,
            narrows: _,
            uids,
            batch_uids,
            statuses,
            kinds,
            index_uids,
            canceled_by,
            enqueued,
            started,
            finished,
        } = self;
        let lists = [uids, batch_uids, canceled_by]
            .into_iter()
            .all(Option::is_none);
        let names = [kinds, index_uids].into_iter().all(Option::is_none);
        let times = [enqueued, started, finished];
        lists && names && statuses.is_none() && !times.into_iter().any(|time| time.is_set())
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
