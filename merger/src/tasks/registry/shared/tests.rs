use serde_json::json;

use super::super::tests::{done, node, open, write_to};
use crate::tasks::{LocalState, NewTask, Share, Status};

#[tokio::test]
async fn writes_that_share_a_local_task_have_each_their_own_end() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _settled) = open(&folder.path().join("weft.redb")).await;
    let together: Vec<(u32, NewTask)> = (0..3)
        .map(|place| {
            let share = Some(Share {
                documents: 1,
                place,
                sent: None,
            });
            let new = NewTask {
                share,
                ..write_to(&[("a", 7)])
            };
            (tasks.reserve(), new)
        })
        .collect();
    let enqueued = tasks.create_all(together).await.unwrap();
    let uids: Vec<u32> = enqueued.iter().map(|task| task.task_uid).collect();
    assert_eq!(uids, [0, 1, 2]);
    assert_eq!(tasks.outstanding(&node("a"), 9), [7]);
    assert!(
        tasks.local_uids(&uids[..1]).is_empty(),
        "others' writes are not canceled"
    );
    assert_eq!(tasks.local_uids(&uids)[&node("a")].len(), 3);

    let failed = LocalState {
        status: Status::Failed,
        ..LocalState::default()
    };
    tasks.apply(&node("a"), vec![(7, failed.clone())]).await;
    let ends = tasks.take_shared_ends();
    assert_eq!(ends.iter().map(|end| end.uid).collect::<Vec<_>>(), uids);
    assert_eq!(tasks.outstanding(&node("a"), 9), [0_u32; 0]);
    assert!(!tasks.get(uids[0]).await.unwrap().status.is_settled());

    let alone = write_to(&[("a", 8)]).parts.remove(0);
    tasks.resend(uids[0], alone).await.unwrap();
    tasks.give_up(uids[1], failed).await;
    tasks.apply(&node("a"), vec![(8, done())]).await;
    assert_eq!(tasks.get(uids[0]).await.unwrap().status, Status::Succeeded);
    assert_eq!(tasks.get(uids[1]).await.unwrap().status, Status::Failed);
    assert!(!tasks.get(uids[2]).await.unwrap().status.is_settled());
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
