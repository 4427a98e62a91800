use super::*;
use crate::store::memory::MemoryStore;

fn node(name: &str) -> NodeId {
    NodeId::from(name.to_owned())
}

fn known(name: &str, incarnation: u32, newest_after_resync: Option<u32>) -> Known {
    Known {
        node: node(name),
        incarnation,
        first_contact: false,
        newest_after_resync,
    }
}

async fn open(store: &MemoryStore, known: Vec<Known>) -> Marks {
    Marks::open(Arc::new(store.clone()), known).await.unwrap()
}

fn task(name: &str, local_uid: u32, incarnation: u32) -> NodeTask {
    NodeTask {
        node: node(name),
        local_uid,
        incarnation,
    }
}

#[tokio::test]
async fn a_number_that_is_not_the_next_one_is_noticed() {
    let marks = open(&MemoryStore::default(), vec![known("a", 0, None)]).await;
    let a = node("a");
    assert_eq!(marks.acknowledged(&a, 7).1, Order::Next, "nothing is known");
    marks.establish(&a, Some(7.into())).await.unwrap();
    assert_eq!(marks.acknowledged(&a, 8).1, Order::Next);
    assert_eq!(marks.acknowledged(&a, 10).1, Order::Gap(vec![9]));
    assert_eq!(marks.acknowledged(&a, 10).1, Order::Back);
    assert_eq!(marks.acknowledged(&a, 3).1, Order::Back);
    assert_eq!(marks.mark(&a), Mark::At(Some(10)), "never lowered");
    let b = node("b");
    marks.establish(&b, None).await.unwrap();
    assert_eq!(marks.acknowledged(&b, 0).1, Order::Next);
}

#[tokio::test]
async fn tasks_beside_the_writes_may_be_heard_of_before_them_or_after() {
    let marks = open(&MemoryStore::default(), vec![known("a", 0, None)]).await;
    let a = node("a");
    marks.establish(&a, Some(3.into())).await.unwrap();
    // The merger deletes tasks. The node numbers that after a write whose answer comes later.
    marks.made(&a, 5).await;
    assert_eq!(marks.acknowledged(&a, 4).1, Order::Next);
    assert_eq!(marks.acknowledged(&a, 6).1, Order::Next, "5 is known");
    // If the write's answer comes first, the deletion looks like an unknown task and is checked.
    assert_eq!(marks.acknowledged(&a, 8).1, Order::Gap(vec![7]));
    assert_eq!(marks.acknowledged_beside(&a, 7).local_uid, 7);
    assert_eq!(marks.acknowledged(&a, 9).1, Order::Next);
    assert_eq!(
        marks.acknowledged(&a, 200).1,
        Order::Gap((10..111).collect())
    );
}

#[tokio::test]
async fn a_mark_outlives_the_records_that_show_it() {
    let store = MemoryStore::default();
    let a = node("a");
    let marks = open(&store, vec![known("a", 0, None)]).await;
    marks.establish(&a, Some(3.into())).await.unwrap();
    for uid in [4, 5] {
        let (task, _) = marks.acknowledged(&a, uid);
        marks.recorded(&task);
    }
    // This write is not recorded: after a crash the merger finds it again.
    marks.acknowledged(&a, 6);
    // A deletion of records stores the marks this way.
    store.commit(marks.changes()).await.unwrap();
    let marks = open(&store, vec![known("a", 0, None)]).await;
    assert_eq!(marks.mark(&a), Mark::At(Some(6)), "as old as it was");
    assert_eq!(marks.unaccounted(&a, Some(6), 9), [6]);
    // The remaining records may raise the mark but never lower it.
    marks.seen_in_record(&task("a", 9, 0));
    marks.seen_in_record(&task("a", 1, 0));
    assert_eq!(marks.mark(&a), Mark::At(Some(9)));
}

#[tokio::test]
async fn records_of_another_incarnation_say_nothing() {
    let store = MemoryStore::default();
    let a = node("a");
    let marks = open(&store, vec![known("a", 0, None)]).await;
    marks.establish(&a, Some(500.into())).await.unwrap();
    store
        .commit(vec![Marks::change_for(&a, 1, Some(31.into()))])
        .await
        .unwrap();
    marks.begin(&a, 1, Some(31.into()));
    assert_eq!(marks.acknowledged(&a, 32).0.incarnation, 1);
    let marks = open(&store, vec![known("a", 1, None)]).await;
    assert_eq!(marks.mark(&a), Mark::At(Some(31)));
    marks.seen_in_record(&task("a", 500, 0));
    assert_eq!(marks.mark(&a), Mark::At(Some(31)));
    marks.seen_in_record(&task("a", 32, 1));
    assert_eq!(marks.mark(&a), Mark::At(Some(32)));
    let left = store.range(PREFIX).await.unwrap();
    assert_eq!(left.len(), 1, "the old incarnation's mark is deleted");
}

#[tokio::test]
async fn an_older_store_says_what_a_node_had_at_least_and_not_what_it_has() {
    let marks = open(
        &MemoryStore::default(),
        vec![known("resynced", 0, Some(31)), known("never", 0, None)],
    )
    .await;
    for name in ["resynced", "never"] {
        marks.seen_in_record(&task(name, 500, 0));
    }
    // Its records may name tasks of the disk before the resync.
    let at_least = |at_least| Mark::Unknown { at_least };
    assert_eq!(marks.mark(&node("resynced")), at_least(Some(31)));
    assert_eq!(marks.mark(&node("never")), at_least(Some(500)));
    assert_eq!(marks.mark(&node("new")), at_least(None));
}

#[tokio::test]
async fn a_task_of_the_mergers_own_hides_no_write_that_a_crash_leaves_open() {
    let store = MemoryStore::default();
    let a = node("a");
    let marks = open(&store, vec![known("a", 0, None)]).await;
    marks.establish(&a, Some(3.into())).await.unwrap();
    // The node has taken a write as task 4, and its answer is on its way when the merger stops.
    marks.made(&a, 5).await;
    for _ in 0..2 {
        let marks = open(&store, vec![known("a", 0, None)]).await;
        assert_eq!(marks.mark(&a), Mark::At(Some(5)));
        assert_eq!(marks.unaccounted(&a, Some(6), 9), [4, 6], "to be looked at");
        // Records of such tasks hide nothing either.
        marks.seen_beside_in_record(&task("a", 5, 0));
        marks.recorded(&task("a", 5, 0));
        assert_eq!(marks.unaccounted(&a, Some(5), 9), [4]);
        store.commit(marks.changes()).await.unwrap();
    }
    let marks = open(&store, vec![known("a", 0, None)]).await;
    assert_eq!(marks.acknowledged(&a, 4).1, Order::Next);
    assert_eq!(marks.unaccounted(&a, Some(6), 9), [6], "5 follows");
}
