use std::borrow::Cow;

use time::macros::datetime;

use super::*;

fn parse(query: &'static str) -> Result<Filter, Unreadable> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    Filter::parse(pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        (Cow::Borrowed(name), Cow::Borrowed(value))
    }))
}

fn notes() -> BTreeMap<u32, Note> {
    let note = |status, kind: &str, index: &str| Note {
        status,
        kind: kind.into(),
        index_uid: (!index.is_empty()).then(|| index.into()),
        canceled_by: None,
        enqueued_at: datetime!(2026-05-05 12:00 UTC),
        started_at: None,
        finished_at: None,
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

fn check(query: &'static str, page: &[u32], total: u64, next: Option<u32>) {
    assert_eq!(
        parse(query).unwrap().page(&notes()),
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
            .all(&notes())
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
