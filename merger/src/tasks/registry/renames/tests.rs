use std::sync::Arc;

use serde_json::json;
use tokio::sync::mpsc;

use super::super::tests::{LIMITS, done, node, write_to};
use super::super::{Limits, Tasks};
use crate::cluster::Marks;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::tasks::filter::Filter;
use crate::tasks::{LocalState, NewTask, Status};

#[tokio::test]
async fn tasks_go_with_their_indexes_whatever_is_deleted_and_restarted() {
    let store = MemoryStore::default();
    let open = || {
        let limits = Limits {
            max_tasks: 1_000,
            one_record_each: false,
            ..LIMITS
        };
        Tasks::open(
            Arc::new(store.clone()),
            limits,
            mpsc::channel(10_000).0,
            Marks::unknown(),
        )
    };
    let tasks = open().await.unwrap();
    let mut local = 0;
    // Runs tasks one after the other; the node finishes each before the next.
    let mut run =
        async |kind: &str, index: Option<&str>, details: serde_json::Value, ends: LocalState| {
            let new = NewTask {
                kind: kind.to_owned(),
                index_uid: index.map(str::to_owned),
                details: details.as_object().cloned().unwrap(),
                ..write_to(&[("a", local)])
            };
            let uid = tasks.create(new).await.unwrap().task_uid;
            tasks.apply(&node("a"), vec![(local, ends)]).await;
            local += 1;
            uid
        };
    let failed = || LocalState {
        status: Status::Failed,
        ..LocalState::default()
    };
    let swap = |one: &str, two: &str| json!({"swaps": [{"indexes": [one, two], "rename": false}]});
    let (add, nothing) = ("documentAdditionOrUpdate", json!({}));
    let first = run(add, Some("x"), nothing.clone(), done()).await;
    let other = run(add, Some("y"), nothing.clone(), done()).await;
    let refused = run("indexSwap", None, swap("x", "z"), failed()).await;
    let swapped = run("indexSwap", None, swap("x", "y"), done()).await;
    let late = run(add, Some("x"), nothing, done()).await;
    let rename = json!({"oldIndexUid": "y", "newIndexUid": "z"});
    let renamed = run("indexUpdate", Some("y"), rename, done()).await;
    let named = async |tasks: &Tasks, uid: u32| tasks.get(uid).await.unwrap().index_uid.unwrap();
    let expected = [(first, "z"), (other, "x"), (late, "x"), (renamed, "y")];
    for (uid, name) in expected {
        assert_eq!(named(&tasks, uid).await, name, "task {uid}");
    }
    assert_eq!(
        tasks.get_as_begun(first).await.unwrap().index_uid.unwrap(),
        "x"
    );
    let pairs = [("indexUids".into(), "x".into())].into_iter();
    let filter = Filter::parse(pairs).unwrap();
    assert_eq!(tasks.matching(&filter), [other, late]);
    // The names stay exchanged even when the swaps' own tasks are deleted.
    tasks.delete(&[swapped]).await.unwrap();
    drop(tasks);
    let tasks = open().await.unwrap();
    for (uid, name) in expected {
        assert_eq!(named(&tasks, uid).await, name, "task {uid}, later");
    }
    let rest = [first, other, refused, late, renamed];
    tasks.delete(&rest).await.unwrap();
    drop(tasks);
    open().await.unwrap();
    assert!(
        store.range("renamed/").await.unwrap().is_empty(),
        "a mark is left"
    );
}

#[tokio::test]
async fn exchanges_count_in_their_order_in_whatever_order_they_are_heard_of() {
    let store = MemoryStore::default();
    let open = || {
        Tasks::open(
            Arc::new(store.clone()),
            LIMITS,
            mpsc::channel(10_000).0,
            Marks::unknown(),
        )
    };
    let tasks = open().await.unwrap();
    let swap = |one: &str, two: &str, local: u32| NewTask {
        kind: "indexSwap".to_owned(),
        details: json!({"swaps": [{"indexes": [one, two]}]})
            .as_object()
            .cloned()
            .unwrap(),
        ..write_to(&[("a", local)])
    };
    let write = NewTask {
        index_uid: Some("p".to_owned()),
        ..write_to(&[("a", 0)])
    };
    let write = tasks.create(write).await.unwrap().task_uid;
    for (one, two, local) in [("r", "p", 1), ("q", "p", 2), ("q", "r", 3)] {
        tasks.create(swap(one, two, local)).await.unwrap();
    }
    for local in [0, 2, 3, 1] {
        tasks.apply(&node("a"), vec![(local, done())]).await;
    }
    let named = async |tasks: &Tasks| tasks.get(write).await.unwrap().index_uid.unwrap();
    assert_eq!(named(&tasks).await, "q");
    drop(tasks);
    assert_eq!(named(&open().await.unwrap()).await, "q");
}
