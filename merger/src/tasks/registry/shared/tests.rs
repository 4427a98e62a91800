use serde_json::json;

use super::super::key;
use super::super::tests::{done, node, open, write_to};
use super::*;
use crate::store::Change;
use crate::tasks::filter::Filter;
use crate::tasks::{Member, NewTask, Share, Status};

/// So many writes of one document each.
pub(in super::super) fn members(count: usize) -> Vec<Member> {
    let member = Member {
        documents: 1,
        sent: 1,
        custom_metadata: None,
    };
    vec![member; count]
}

async fn together(tasks: &Tasks, count: u32, nodes: &[(&str, u32)]) -> Vec<u32> {
    let uid = tasks.reserve_all(count);
    let new = NewTask {
        members: members(count as usize),
        ..write_to(nodes)
    };
    tasks.create_as(uid, new, Vec::new()).await.unwrap();
    (uid..uid + count).collect()
}

async fn stored(tasks: &Tasks) -> Vec<String> {
    let stored = tasks.store.range("task/").await.unwrap();
    stored.into_iter().map(|(key, _)| key).collect()
}

fn failed() -> LocalState {
    LocalState {
        status: Status::Failed,
        ..LocalState::default()
    }
}

#[tokio::test]
async fn writes_that_share_a_local_task_have_each_their_own_end() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _settled) = open(&folder.path().join("weft.redb")).await;
    let uids = together(&tasks, 3, &[("a", 7)]).await;
    assert_eq!(uids, [0, 1, 2]);
    assert_eq!(stored(&tasks).await.len(), 1);
    assert_eq!(tasks.outstanding(&node("a"), 9), [7]);
    assert!(
        tasks.local_uids(&uids[..1]).is_empty(),
        "others' writes are not canceled"
    );
    assert_eq!(tasks.local_uids(&uids)[&node("a")], [7]);

    tasks.apply(&node("a"), vec![(7, failed())]).await;
    let ends = tasks.take_shared_ends();
    assert_eq!(ends.iter().map(|end| end.uid).collect::<Vec<_>>(), [0]);
    assert_eq!(tasks.outstanding(&node("a"), 9), [0_u32; 0]);
    assert!(!tasks.get(uids[0]).await.unwrap().status.is_settled());

    let node_a = node("a");
    let shared = (&node_a, 7);
    assert_eq!(tasks.split(0, shared).await, [(0, 0), (1, 1), (2, 2)]);
    assert_eq!(stored(&tasks).await.len(), 3);
    let alone = write_to(&[("a", 8)]).parts.remove(0);
    tasks.resend(uids[0], vec![alone]).await.unwrap();
    tasks.give_up(uids[1], failed()).await;
    tasks.apply(&node("a"), vec![(8, done())]).await;
    assert_eq!(tasks.get(uids[0]).await.unwrap().status, Status::Succeeded);
    assert_eq!(tasks.get(uids[1]).await.unwrap().status, Status::Failed);
    assert!(!tasks.get(uids[2]).await.unwrap().status.is_settled());
    // Only what still shares the failed task is to be sent again.
    assert_eq!(tasks.split(0, shared).await, []);
    assert_eq!(tasks.split(2, shared).await, [(2, 2)]);
    assert_eq!(tasks.get(uids[2]).await.unwrap().uid, 2);
}

#[tokio::test]
async fn for_an_older_merger_each_write_has_a_record_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (mut tasks, _settled) = open(&folder.path().join("weft.redb")).await;
    tasks.limits.one_record_each = true;
    let uids = together(&tasks, 3, &[("a", 7)]).await;
    let stored = tasks.store.range("task/").await.unwrap();
    assert_eq!(stored.len(), 3);
    for (uid, (_, entry)) in uids.iter().zip(&stored) {
        let record: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
        assert!(record.get("members").is_none(), "{record}");
        assert_eq!(
            record["share"]["place"].as_u64().unwrap_or_default(),
            u64::from(*uid)
        );
    }
    tasks.apply(&node("a"), vec![(7, failed())]).await;
    let ends = tasks.take_shared_ends();
    assert_eq!(ends.iter().map(|end| end.uid).collect::<Vec<_>>(), uids);
    for uid in uids {
        tasks.give_up(uid, failed()).await;
        assert_eq!(tasks.get(uid).await.unwrap().status, Status::Failed);
    }
}

#[tokio::test]
async fn what_is_left_of_a_shared_record_outlives_the_tasks_that_were_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let (tasks, mut settled) = open(&path).await;
    let uids = together(&tasks, 4, &[("a", 7), ("b", 3)]).await;
    tasks.apply(&node("a"), vec![(7, done())]).await;
    assert_eq!(tasks.delete(&uids).await.unwrap(), 0, "they are open");
    tasks.apply(&node("b"), vec![(3, done())]).await;
    let told = settled.try_recv().unwrap();
    assert_eq!((told.view.uid, told.count), (0, 4));
    assert!(settled.try_recv().is_err());
    assert_eq!(tasks.delete(&[0, 2]).await.unwrap(), 2);
    drop(tasks);
    let (tasks, _settled) = open(&path).await;
    assert_eq!(tasks.matching(&Filter::default()), [1, 3]);
    for (uid, found) in [(0, false), (1, true), (2, false), (3, true)] {
        let view = tasks.get(uid).await;
        assert_eq!(view.is_ok(), found, "{uid}");
        if let Ok(view) = view {
            assert_eq!((view.uid, view.status), (uid, Status::Succeeded));
            assert_eq!(view.details.unwrap()["indexedDocuments"], 1);
        }
    }
    let local = tasks.settled_local_uids(&[1, 3], 9).await.unwrap();
    assert_eq!(local[&node("a")], [7]);
    assert_eq!(tasks.delete(&[1, 3]).await.unwrap(), 2);
    assert!(stored(&tasks).await.is_empty());
}

#[tokio::test]
async fn a_record_of_its_own_counts_more_than_an_older_shared_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let (tasks, _settled) = open(&path).await;
    let uids = together(&tasks, 3, &[("a", 7)]).await;
    let shared = tasks.store.get(&key(0)).await.unwrap().unwrap().value;
    tasks.apply(&node("a"), vec![(7, failed())]).await;
    tasks.split(0, (&node("a"), 7)).await;
    tasks.give_up(uids[1], failed()).await;
    // As if the shared record had been stored once more after that.
    let late = vec![Change::put(key(0), shared)];
    tasks.store.commit(late).await.unwrap();
    drop(tasks);
    let (tasks, _settled) = open(&path).await;
    assert_eq!(tasks.get(1).await.unwrap().status, Status::Failed);
    assert_eq!(tasks.backlog().enqueued, 2);
    tasks.apply(&node("a"), vec![(7, done())]).await;
    for uid in [0, 2] {
        assert_eq!(tasks.get(uid).await.unwrap().status, Status::Succeeded);
    }
    assert_eq!(tasks.get(1).await.unwrap().status, Status::Failed);
}

#[tokio::test]
async fn all_writes_of_a_shared_task_are_canceled_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _settled) = open(&folder.path().join("weft.redb")).await;
    let uids = together(&tasks, 3, &[("a", 7)]).await;
    assert_eq!(tasks.cancel(&uids[1..], 9), 2);
    let canceled = LocalState {
        status: Status::Canceled,
        ..LocalState::default()
    };
    assert_eq!(tasks.cancel(&uids, 10), 3);
    tasks.apply(&node("a"), vec![(7, canceled)]).await;
    for uid in uids {
        let view = tasks.get(uid).await.unwrap();
        assert_eq!(
            (view.status, view.canceled_by),
            (Status::Canceled, Some(10))
        );
    }
}

#[tokio::test]
async fn a_shared_local_task_that_succeeds_counts_each_writes_own_documents() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _settled) = open(&folder.path().join("weft.redb")).await;
    let share = Some(Share {
        documents: 2,
        ..Share::default()
    });
    let new = NewTask {
        share,
        ..write_to(&[("a", 7)])
    };
    let uid = tasks.create(new).await.unwrap().task_uid;
    let details = json!({"receivedDocuments": 30, "indexedDocuments": 29});
    let state = LocalState {
        details: details.as_object().cloned(),
        ..done()
    };
    tasks.apply(&node("a"), vec![(7, state)]).await;
    let view = tasks.get(uid).await.unwrap();
    assert_eq!(view.status, Status::Succeeded);
    assert_eq!(view.details.unwrap()["indexedDocuments"], 2);
}
