use std::borrow::Cow;

use time::macros::datetime;

use super::*;
use crate::tasks::aggregate::Course;
use crate::tasks::note::Names;

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

fn notes() -> BTreeMap<u32, Note> {
    let mut names = Names::default();
    let mut note = |status, kind: &str, index: &str| {
        let label = names.label(kind, (!index.is_empty()).then_some(index));
        Note::new(
            label,
            &course(status, None, datetime!(2026-05-05 12:00 UTC)),
            0,
        )
    };
    [
        (0, note(Status::Succeeded, "indexCreation", "movies")),
        (
            1,
            note(Status::Failed, "documentAdditionOrUpdate", "movies"),
        ),
        (2, note(Status::Enqueued, "indexSwap", "")),
        (
            3,
            note(Status::Succeeded, "documentAdditionOrUpdate", "books"),
        ),
    ]
    .into()
}

fn open(notes: &BTreeMap<u32, Note>) -> impl DoubleEndedIterator<Item = u32> {
    let open = notes.iter().filter(|(_, note)| !note.status.is_settled());
    open.map(|(uid, _)| *uid).collect::<Vec<_>>().into_iter()
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

fn some_note() -> impl Strategy<Value = Note> {
    let statuses = [
        Status::Enqueued,
        Status::Processing,
        Status::Succeeded,
        Status::Failed,
        Status::Canceled,
    ];
    let status = prop::sample::select(statuses.to_vec());
    let parts = (status, 0_u32..3, prop::option::of(0_u32..12));
    parts.prop_map(|(status, index, canceled_by)| {
        let kind = ["indexCreation", "documentAdditionOrUpdate", "indexSwap"][index as usize];
        let uid = (index < 2).then(|| ["movies", "books"][index as usize]);
        let enqueued_at = datetime!(2026-05-05 12:00 UTC) + Duration::hours(i64::from(index));
        let label = Names::default().label(kind, uid);
        Note::new(label, &course(status, canceled_by, enqueued_at), 0)
    })
}

proptest! {
    /// For any filter, the fast path that looks at fewer tasks finds the same as looking at all of them.
    #[test]
    fn a_page_is_what_looking_at_every_task_finds(
        notes in prop::collection::btree_map(0_u32..40, some_note(), 0..30),
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
                "reverse=true",
            ],
            0..4,
        ),
        limit in 0_u32..8,
        from in prop::option::of(0_u32..45),
    ) {
        let mut pairs: Vec<(String, String)> = words
            .iter()
            .map(|word| word.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        pairs.push(("limit".to_owned(), limit.to_string()));
        pairs.extend(from.map(|from| ("from".to_owned(), from.to_string())));
        let filter = Filter::parse(pairs.into_iter().map(|(name, value)| (Cow::Owned(name), Cow::Owned(value)))).unwrap();
        let mut all: Vec<u32> = notes
            .iter()
            .filter(|(uid, note)| filter.lets_through(**uid, note))
            .map(|(uid, _)| *uid)
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
