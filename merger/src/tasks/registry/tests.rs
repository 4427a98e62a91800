use serde_json::json;
use tokio::sync::mpsc::Receiver;
use weft_routing::placement::ShardId;

use super::*;
use crate::cluster::NodeId;
use crate::store::RedbStore;
use crate::store::memory::MemoryStore;
use crate::tasks::{BeforeEnd, LocalState, ReadBack, ReplicaTask, ShardTask, Status, Touches};

pub(super) const LIMITS: Limits = Limits {
    max_tasks: 10,
    one_record_each: false,
    max_age: Some(Duration::from_secs(3_600)),
};

pub(super) async fn open(path: &std::path::Path) -> (Tasks, Receiver<SettledTask>) {
    let store = RedbStore::open(path).unwrap();
    let (sender, receiver) = mpsc::channel(10_000);
    (
        Tasks::open(Arc::new(store), LIMITS, sender, Marks::unknown())
            .await
            .unwrap(),
        receiver,
    )
}

pub(super) fn node(name: &str) -> NodeId {
    NodeId::from(name.to_owned())
}

pub(super) fn write_to(nodes: &[(&str, u32)]) -> NewTask {
    let parts = nodes.iter().zip(0..).map(|((name, local), shard)| {
        ShardTask::taken(
            ShardId(shard),
            vec![ReplicaTask::acknowledged(node(name), *local)],
        )
    });
    NewTask {
        kind: "documentAdditionOrUpdate".to_owned(),
        parts: parts.collect(),
        ..NewTask::default()
    }
}

pub(super) fn done() -> LocalState {
    LocalState {
        status: Status::Succeeded,
        ..LocalState::default()
    }
}

#[tokio::test]
async fn a_task_succeeds_when_all_its_parts_have_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let (tasks, mut settled) = open(&path).await;
    let uid = tasks
        .create(write_to(&[("a", 3), ("b", 9)]))
        .await
        .unwrap()
        .task_uid;
    tasks.apply(&node("a"), vec![(3, done())]).await;
    assert_eq!(tasks.get(uid).await.unwrap().status, Status::Processing);
    drop(tasks);
    let (tasks, mut settled_later) = open(&path).await;
    // The node's answer was not stored before the restart, so it is asked for again.
    assert_eq!(tasks.outstanding(&node("a"), 9), [3]);
    tasks.apply(&node("a"), vec![(3, done())]).await;
    tasks.apply(&node("b"), vec![(9, done())]).await;
    assert_eq!(tasks.get(uid).await.unwrap().status, Status::Succeeded);
    assert!(settled.try_recv().is_err());
    assert_eq!(settled_later.try_recv().unwrap().view.uid, uid);
    drop(tasks);
    let (tasks, _) = open(&path).await;
    assert_eq!(tasks.get(uid).await.unwrap().status, Status::Succeeded);
    assert!(tasks.busy_nodes().is_empty());
}

#[tokio::test]
async fn no_uid_is_given_twice_even_when_the_newest_tasks_were_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let (tasks, _settled) = open(&path).await;
    let first = tasks.create(NewTask::default()).await.unwrap().task_uid;
    let second = tasks.create(NewTask::default()).await.unwrap().task_uid;
    assert_eq!(tasks.delete(&[first, second]).await.unwrap(), 2);
    drop(tasks);
    let (tasks, _settled) = open(&path).await;
    assert_eq!(
        tasks.create(NewTask::default()).await.unwrap().task_uid,
        second + 1
    );
}

#[tokio::test]
async fn an_open_task_is_never_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _settled) = open(&folder.path().join("weft.redb")).await;
    let uid = tasks.create(write_to(&[("a", 0)])).await.unwrap().task_uid;
    assert_eq!(tasks.delete(&[uid]).await.unwrap(), 0);
    assert_eq!(tasks.get(uid).await.unwrap().status, Status::Enqueued);
}

#[tokio::test]
async fn the_oldest_settled_tasks_go_when_there_are_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _settled) = open(&folder.path().join("weft.redb")).await;
    let open_one = tasks.create(write_to(&[("a", 0)])).await.unwrap().task_uid;
    for _ in 0..12 {
        tasks
            .create(NewTask {
                details: json!({"x": 1}).as_object().cloned().unwrap(),
                ..NewTask::default()
            })
            .await
            .unwrap();
    }
    let left = tasks.matching(&Filter::default());
    assert!(left.len() <= 10, "{left:?}");
    assert!(tasks.get(open_one).await.is_ok());
}

#[tokio::test]
async fn finished_tasks_past_their_age_go_and_leave_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _settled) = open(&folder.path().join("weft.redb")).await;
    let open_one = tasks.create(write_to(&[("a", 0)])).await.unwrap().task_uid;
    for _ in 0..4 {
        tasks.create(NewTask::default()).await.unwrap();
    }
    let now = now_utc();
    assert_eq!(tasks.forget_old(now).await.unwrap(), 0);
    let later = now + time::Duration::hours(2);
    assert_eq!(tasks.forget_old(later).await.unwrap(), 4);
    let left = tasks.matching(&Filter::default());
    let [kept, trace] = left.as_slice() else {
        panic!("{left:?}");
    };
    assert_eq!(*kept, open_one);
    let trace = tasks.get(*trace).await.unwrap();
    assert_eq!(trace.kind, "taskDeletion");
    assert_eq!(trace.details.unwrap()["deletedTasks"], 4);
    // Only the deletion's own task is old now, and it doesn't cause another deletion: this ends.
    assert_eq!(tasks.forget_old(later).await.unwrap(), 0);
}

#[tokio::test]
async fn a_success_that_is_to_be_looked_into_is_told_after_that() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _settled) = open(&folder.path().join("weft.redb")).await;
    let new = NewTask {
        read_back: ReadBack::Due,
        ..write_to(&[("a", 1), ("b", 2)])
    };
    let uid = tasks.create(new.clone()).await.unwrap().task_uid;
    tasks.apply(&node("a"), vec![(1, done())]).await;
    assert!(tasks.take_due().is_empty());
    tasks.apply(&node("b"), vec![(2, done())]).await;
    assert_eq!(tasks.take_due(), [uid]);
    assert_eq!(tasks.get(uid).await.unwrap().status, Status::Processing);
    tasks
        .read_back(uid, ReadBack::Done(vec!["b: stopWords".to_owned()]))
        .await;
    let view = tasks.get(uid).await.unwrap();
    assert_eq!(view.status, Status::Succeeded);
    assert_eq!(view.details.unwrap()["repaired"], json!(["b: stopWords"]));

    let uid = tasks.create(new).await.unwrap().task_uid;
    tasks.apply(&node("a"), vec![(1, done())]).await;
    tasks.apply(&node("b"), vec![(2, done())]).await;
    tasks
        .read_back(uid, ReadBack::Failed(json!({"code": "internal"})))
        .await;
    let view = tasks.get(uid).await.unwrap();
    assert_eq!(view.status, Status::Failed);
    assert_eq!(view.error.unwrap()["code"], "internal");
}

#[tokio::test]
async fn a_task_that_is_to_be_read_back_is_due_again_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let (tasks, _settled) = open(&path).await;
    let copies = [("a", 1), ("b", 2)];
    let copies = copies.map(|(name, uid)| ReplicaTask::acknowledged(node(name), uid));
    let new = NewTask {
        parts: vec![ShardTask::taken(ShardId(0), copies.into())],
        read_back: ReadBack::Due,
        ..NewTask::default()
    };
    let uid = tasks.create(new).await.unwrap().task_uid;
    tasks.apply(&node("a"), vec![(1, done())]).await;
    // The other replica leaves, so the copies have ended. That is stored, and the merger stops before the settings are read.
    tasks.abandon(&node("b")).await;
    assert_eq!(tasks.take_due(), [uid]);
    drop(tasks);
    let (tasks, _settled) = open(&path).await;
    assert!(tasks.busy_nodes().is_empty());
    assert_eq!(tasks.take_due(), [uid]);
    tasks.read_back(uid, ReadBack::Done(Vec::new())).await;
    assert_eq!(tasks.get(uid).await.unwrap().status, Status::Succeeded);
}

#[tokio::test]
async fn what_follows_from_an_end_is_told_again_after_a_crash_until_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.redb");
    let (tasks, _settled) = open(&path).await;
    tasks.announce(true);
    let new = NewTask {
        kind: "indexSwap".to_owned(),
        ..NewTask::default()
    };
    let uid = tasks.create(new).await.unwrap().task_uid;
    drop(tasks);
    let (tasks, mut settled) = open(&path).await;
    tasks.tell_again().await.unwrap();
    assert_eq!(settled.try_recv().unwrap().view.uid, uid);
    assert_eq!(tasks.to_announce(9).await.unwrap(), [uid]);
    tasks.done_with(uid).await.unwrap();
    tasks.announced(&[uid]).await.unwrap();
    drop(tasks);
    let (tasks, mut settled) = open(&path).await;
    tasks.tell_again().await.unwrap();
    assert!(settled.try_recv().is_err());
    assert!(tasks.to_announce(9).await.unwrap().is_empty());
}

#[tokio::test]
async fn tasks_that_come_together_are_all_durable_or_none_is() {
    let store = MemoryStore::default();
    let (sender, _settled) = mpsc::channel(10_000);
    let tasks = Tasks::open(Arc::new(store.clone()), LIMITS, sender, Marks::unknown());
    let tasks = tasks.await.unwrap();
    let create = || {
        let new = NewTask {
            members: shared::tests::members(2),
            ..write_to(&[("a", 1)])
        };
        tasks.create_as(tasks.reserve_all(2), new, Vec::new())
    };
    store.set_failing(true);
    assert!(matches!(create().await, Err(TaskError::Store(_))));
    assert!(tasks.get(0).await.is_err() && tasks.get(1).await.is_err());
    assert!(tasks.busy_nodes().is_empty());
    store.set_failing(false);
    create().await.unwrap();
    for uid in [2, 3] {
        assert_eq!(tasks.get(uid).await.unwrap().status, Status::Enqueued);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_task_is_stored_when_the_store_takes_it_and_announced_once() {
    let store = MemoryStore::default();
    let (sender, mut settled) = mpsc::channel(10_000);
    let tasks = Tasks::open(Arc::new(store.clone()), LIMITS, sender, Marks::unknown());
    let tasks = tasks.await.unwrap();
    tasks.announce(true);
    let uid = tasks.create(write_to(&[("a", 1)])).await.unwrap().task_uid;
    store.set_failing(true);
    let mends = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(
            settled.try_recv().is_err(),
            "it is told before it is stored"
        );
        store.set_failing(false);
    };
    let a = node("a");
    tokio::join!(tasks.apply(&a, vec![(1, done())]), mends);
    assert_eq!(tasks.get(uid).await.unwrap().status, Status::Succeeded);
    assert_eq!(settled.try_recv().unwrap().view.uid, uid);
    let waiting = &tasks.outbox.waiting;
    assert_eq!(waiting.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn tasks_that_end_together_end_with_one_commit() {
    let store = MemoryStore::default();
    let (sender, mut settled) = mpsc::channel(10_000);
    let tasks = Tasks::open(Arc::new(store.clone()), LIMITS, sender, Marks::unknown());
    let tasks = tasks.await.unwrap();
    for local in 0..5 {
        tasks.create(write_to(&[("a", local)])).await.unwrap();
    }
    let before = store.commits();
    let all = (0..5).map(|local| (local, done())).collect();
    assert!(tasks.apply(&node("a"), all).await);
    assert_eq!(store.commits() - before, 1);
    let told: Vec<u32> = std::iter::from_fn(|| settled.try_recv().ok())
        .map(|ended| ended.view.uid)
        .collect();
    assert_eq!(told, [0, 1, 2, 3, 4]);
}

/// Notes which ends it hears of.
#[derive(Default)]
struct Hears(Mutex<Vec<String>>);

impl Hears {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl BeforeEnd for Hears {
    fn ends(&self, kind: &str, index_uid: Option<&str>) {
        let name = format!("{kind} {}", index_uid.unwrap_or_default());
        self.0.lock().unwrap().push(name);
    }

    fn told_with(&self, kind: &str, _: Option<&str>) -> Option<String> {
        Some(format!("told/{kind}"))
    }
}

#[tokio::test]
async fn an_end_is_heard_of_before_anybody_sees_it_and_told_in_the_commit_that_stores_it() {
    let store = MemoryStore::default();
    let (sender, mut settled) = mpsc::channel(10_000);
    let tasks = Tasks::open(Arc::new(store.clone()), LIMITS, sender, Marks::unknown());
    let tasks = tasks.await.unwrap();
    let hears = Arc::new(Hears::default());
    tasks.before_ends(hears.clone());
    for local in 0..2 {
        let write = NewTask {
            index_uid: Some("films".to_owned()),
            ..write_to(&[("a", local)])
        };
        tasks.create(write).await.unwrap();
    }
    let processing = LocalState {
        status: Status::Processing,
        ..LocalState::default()
    };
    tasks.apply(&node("a"), vec![(0, processing)]).await;
    assert_eq!(hears.take(), [""; 0]);
    // Clients see the end while it is being stored, and what follows from it has not begun.
    let held = store.hold().await;
    let seen = async {
        while tasks.get(1).await.unwrap().status != Status::Succeeded {
            tokio::task::yield_now().await;
        }
        assert_eq!(hears.take(), ["documentAdditionOrUpdate films"; 2]);
        assert!(settled.try_recv().is_err());
        assert!(
            store
                .get("told/documentAdditionOrUpdate")
                .await
                .unwrap()
                .is_none()
        );
        drop(held);
    };
    let a = node("a");
    let ends = vec![(0, done()), (1, done())];
    tokio::join!(tasks.apply(&a, ends), seen);
    let told = store.get("told/documentAdditionOrUpdate").await.unwrap();
    assert_eq!(told.unwrap().version, 1, "once for both");
    assert_eq!(hears.take(), [""; 0]);
    // A task that ends as it is made.
    let deletion = NewTask {
        kind: "indexDeletion".to_owned(),
        ..NewTask::default()
    };
    tasks.create(deletion).await.unwrap();
    assert_eq!(hears.take(), ["indexDeletion "]);
    assert!(store.get("told/indexDeletion").await.unwrap().is_some());
}

#[tokio::test]
async fn ends_that_find_no_room_are_told_of_later() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(RedbStore::open(&folder.path().join("weft.redb")).unwrap());
    let (sender, mut settled) = mpsc::channel(2);
    let tasks = Tasks::open(store, LIMITS, sender, Marks::unknown());
    let tasks = tasks.await.unwrap();
    let deletion = || NewTask {
        kind: "indexDeletion".to_owned(),
        ..NewTask::default()
    };
    for _ in 0..5 {
        tasks.create(deletion()).await.unwrap();
    }
    assert!(tasks.left_some_untold());
    let mut heard = std::collections::BTreeSet::new();
    // Each round passes on as many ends as the channel has room for; those that are done are not passed on again.
    for _ in 0..5 {
        while let Ok(told) = settled.try_recv() {
            heard.insert(told.view.uid);
            tasks.done_with(told.view.uid).await.unwrap();
        }
        tasks.tell_again().await.unwrap();
    }
    assert_eq!(heard, (0..5).collect());
    let _ = tasks.left_some_untold();
    tasks.tell_again().await.unwrap();
    assert!(!tasks.left_some_untold());
}

#[tokio::test]
async fn what_a_deletion_waits_for_is_what_nodes_work_on_or_begin_with_next() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _settled) = open(&folder.path().join("weft.redb")).await;
    let mut uids = Vec::new();
    for nodes in [
        [("a", 1), ("b", 1)],
        [("a", 2), ("b", 2)],
        [("b", 3), ("c", 1)],
    ] {
        uids.push(tasks.create(write_to(&nodes)).await.unwrap().task_uid);
    }
    assert_eq!(tasks.under_way(&uids), uids[..1]);
    let done = |local| vec![(local, done())];
    tasks.apply(&node("a"), done(1)).await;
    tasks.apply(&node("b"), done(1)).await;
    assert_eq!(tasks.under_way(&uids), uids[1..2]);
    // The task is begun on one node, though it isn't the next task on every node.
    tasks.apply(&node("c"), done(1)).await;
    assert_eq!(tasks.under_way(&uids), uids[1..]);
}

#[tokio::test]
async fn a_change_of_settings_knows_those_before_it_and_what_those_after_it_are_about() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, _settled) = open(&folder.path().join("weft.redb")).await;
    let names =
        |names: &[&str]| Touches::Named(names.iter().map(|name| (*name).to_owned()).collect());
    let mut uids = Vec::new();
    for (local, touches) in (0..).zip([names(&["stopWords"]), names(&["synonyms"]), Touches::All]) {
        let change = NewTask {
            kind: "settingsUpdate".to_owned(),
            index_uid: Some("x".to_owned()),
            read_back: ReadBack::Due,
            touches,
            ..write_to(&[("a", local), ("b", local)])
        };
        uids.push(tasks.create(change).await.unwrap().task_uid);
    }
    assert_eq!(
        tasks.other_settings_changes("x", uids[1]),
        (true, vec![Touches::All])
    );
    assert_eq!(
        tasks.other_settings_changes("y", uids[1]),
        (false, Vec::new())
    );
    let failed = LocalState {
        status: Status::Failed,
        ..LocalState::default()
    };
    tasks.apply(&node("a"), vec![(0, done())]).await;
    tasks.apply(&node("b"), vec![(0, failed)]).await;
    assert_eq!(tasks.take_due(), [uids[0]]);
    let (touches, failed) = tasks.failed_somewhere(uids[0]).unwrap();
    assert!(touches.holds("stopWords") && !touches.holds("synonyms"));
    assert_eq!(Vec::from_iter(failed), [node("b")]);
    assert_eq!(tasks.get(uids[0]).await.unwrap().status, Status::Processing);
    tasks.read_back(uids[0], ReadBack::Undone(Vec::new())).await;
    assert_eq!(tasks.get(uids[0]).await.unwrap().status, Status::Failed);
}
