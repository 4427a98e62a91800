use std::borrow::Cow;

use time::macros::datetime;

use super::*;
use crate::tasks::aggregate::Course;

fn parse(query: &'static str) -> Result<Filter, Unreadable> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    Filter::parse(pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        (Cow::Borrowed(name), Cow::Borrowed(value))
    }))
}

fn course(status: Status, canceled_by: Option<u32>, enqueued_at: OffsetDateTime) -> Course {
    Course {
        status,
        canceled_by,
        enqueued_at,
        started_at: None,
        finished_at: None,
    }
}

fn of<'a>(kind: &'a str, index: &'a str) -> (&'a str, Option<&'a str>) {
    (kind, (!index.is_empty()).then_some(index))
}

fn notes() -> Notes {
    let mut notes = Notes::default();
    for (uid, status, kind, index) in [
        (0, Status::Succeeded, "indexCreation", "movies"),
        (1, Status::Failed, "documentAdditionOrUpdate", "movies"),
        (2, Status::Enqueued, "indexSwap", ""),
        (3, Status::Succeeded, "documentAdditionOrUpdate", "books"),
    ] {
        let course = course(status, None, datetime!(2026-05-05 12:00 UTC));
        notes.set(uid, of(kind, index), &course, 0);
    }
    notes
}

fn open(notes: &Notes) -> impl DoubleEndedIterator<Item = u32> {
    let open = notes
        .range(..)
        .filter(|(_, note)| !note.status.is_settled());
    open.map(|(uid, _)| uid).collect::<Vec<_>>().into_iter()
}

fn check(query: &'static str, page: &[u32], total: u64, next: Option<u32>) {
    assert_eq!(
        parse(query).unwrap().page(&notes(), open(&notes())),
        (page.to_vec(), total, next),
        "{query}"
    );
}

#[test]
fn tasks_are_filtered_ordered_and_paged_as_on_a_node() {
    check("", &[3, 2, 1, 0], 4, None);
    check("limit=2", &[3, 2], 4, Some(1));
    check("limit=2&from=1", &[1, 0], 4, None);
    check("reverse=true&limit=1&from=1", &[1], 4, Some(2));
    check("statuses=failed,enqueued", &[2, 1], 2, None);
    check(
        "types=documentAdditionOrUpdate&indexUids=movies",
        &[1],
        1,
        None,
    );
    check("uids=0,3,9", &[3, 0], 2, None);
    check("uids=*", &[3, 2, 1, 0], 4, None);
    check("limit=0", &[], 4, Some(3));
    check("afterEnqueuedAt=2026-05-05", &[], 0, None);
    check("afterEnqueuedAt=2026-05-04", &[3, 2, 1, 0], 4, None);
    check("beforeEnqueuedAt=2026-05-05", &[], 0, None);
    // Any time, as any uid: the official JavaScript client sends it.
    for query in [
        "afterEnqueuedAt=*&beforeEnqueuedAt=*",
        "afterStartedAt=*&beforeStartedAt=*",
        "afterFinishedAt=*&beforeFinishedAt=*",
    ] {
        check(query, &[3, 2, 1, 0], 4, None);
        assert!(parse(query).unwrap().narrows);
    }
    check(
        "afterEnqueuedAt=2026-05-05T11:59:59Z",
        &[3, 2, 1, 0],
        4,
        None,
    );
    check("afterStartedAt=2020-01-01", &[], 0, None);
}

#[test]
fn a_key_for_some_indexes_sees_their_tasks_only() {
    let known = || ["movies", "books"].into_iter().map(str::to_owned);
    let seen = |query| {
        parse(query)
            .unwrap()
            .within(|uid| uid == "books", known())
            .all(&notes(), open(&notes()))
    };
    assert_eq!(seen(""), [3]);
    assert_eq!(seen("indexUids=movies"), Vec::<u32>::new());
    assert_eq!(seen("indexUids=movies,books"), [3]);
}

#[test]
fn what_cannot_be_read_is_named() {
    for query in [
        "limit=x",
        "limit=-1",
        "statuses=bogus",
        "uids=1,",
        "indexUids=a%20b",
        "bogus=1",
        "afterEnqueuedAt=now",
    ] {
        let unreadable = parse(query).unwrap_err();
        assert!(
            query.starts_with(&unreadable.parameter),
            "{query}: {unreadable:?}"
        );
    }
}

use proptest::prelude::*;

/// Uids in three chunks.
fn some_uid() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..20, 1_020_u32..1_030, 3_000_u32..3_010]
}

/// Of a task: its course, kind and index.
fn some_task() -> impl Strategy<Value = (Course, &'static str, &'static str)> {
    let statuses = [
        Status::Enqueued,
        Status::Processing,
        Status::Succeeded,
        Status::Failed,
        Status::Canceled,
    ];
    let status = prop::sample::select(statuses.to_vec());
    let hours = || prop::option::of(0_i64..4);
    let parts = (
        status,
        0_usize..3,
        prop::option::of(0_u32..12),
        hours(),
        hours(),
    );
    parts.prop_map(|(status, index, canceled_by, started, finished)| {
        let kind = ["indexCreation", "documentAdditionOrUpdate", "indexSwap"][index];
        let uid = ["movies", "books", ""][index];
        let at = |hours: i64| datetime!(2026-05-05 12:00 UTC) + Duration::hours(hours);
        let course = Course {
            started_at: started.map(at),
            finished_at: finished.map(at),
            ..course(status, canceled_by, at(index as i64))
        };
        (course, kind, uid)
    })
}

proptest! {
    /// For any filter, the fast path that looks at fewer tasks finds the same as looking at all of them.
    #[test]
    fn a_page_is_what_looking_at_every_task_finds(
        tasks in prop::collection::btree_map(some_uid(), some_task(), 0..30),
        words in prop::sample::subsequence(
            vec![
                "uids=3,1,7,1,99",
                "batchUids=0,4,9,12",
                "statuses=enqueued,processing",
                "statuses=enqueued,failed",
                "types=indexSwap,indexCreation",
                "indexUids=movies",
                "canceledBy=2,3",
                "afterEnqueuedAt=2026-05-05T12:30:00Z",
                "beforeStartedAt=2026-05-05T13:30:00Z",
                "afterFinishedAt=2026-05-05T12:30:00Z",
                "reverse=true",
            ],
            0..4,
        ),
        limit in 0_u32..8,
        from in prop::option::of(some_uid()),
    ) {
        let mut notes = Notes::default();
        for (uid, (course, kind, index)) in &tasks {
            notes.set(*uid, of(kind, index), course, 0);
        }
        let mut pairs: Vec<(String, String)> = words
            .iter()
            .map(|word| word.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        pairs.push(("limit".to_owned(), limit.to_string()));
        pairs.extend(from.map(|from| ("from".to_owned(), from.to_string())));
        let filter = Filter::parse(pairs.into_iter().map(|(name, value)| (Cow::Owned(name), Cow::Owned(value)))).unwrap();
        let mut all: Vec<u32> = notes
            .range(..)
            .filter(|(uid, note)| filter.lets_through(*uid, note, &notes))
            .map(|(uid, _)| uid)
            .collect();
        prop_assert_eq!(filter.all(&notes, open(&notes)), all.clone());
        if !words.contains(&"reverse=true") {
            all.reverse();
        }
        let total = all.len() as u64;
        let reverse = words.contains(&"reverse=true");
        let mut rest = all
            .into_iter()
            .filter(|uid| from.is_none_or(|from| if reverse { *uid >= from } else { *uid <= from }));
        let page: Vec<u32> = rest.by_ref().take(limit as usize).collect();
        prop_assert_eq!(filter.page(&notes, open(&notes)), (page, total, rest.next()));
    }
}
