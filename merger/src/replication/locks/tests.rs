use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

fn shards(numbers: &[u16]) -> Vec<ShardId> {
    numbers.iter().copied().map(ShardId).collect()
}

/// The lock, if it is granted in a time too short for a holder to become slow.
async fn soon(locks: &ShardLocks, numbers: &[u16]) -> Option<WriteGuard> {
    let shards = shards(numbers);
    let waiting = locks.lock(&shards);
    tokio::time::timeout(SLOW / 4, waiting).await.ok()
}

#[tokio::test(start_paused = true)]
async fn nobody_holds_one_shard_while_waiting_for_another() {
    let locks = ShardLocks::default();
    let one = locks.lock(&shards(&[1])).await;
    let both = {
        let locks = locks.clone();
        tokio::spawn(async move { locks.lock(&shards(&[0, 1])).await })
    };
    tokio::task::yield_now().await;
    // At first, the order of coming holds.
    assert!(soon(&locks, &[0]).await.is_none());
    // The holder of shard 1 is slow now, so others pass on shard 0.
    tokio::time::sleep(SLOW).await;
    for _ in 0..3 {
        assert!(soon(&locks, &[0]).await.is_some());
    }
    drop(one);
    let both = both.await.unwrap();
    assert!(soon(&locks, &[0]).await.is_none());
    drop(both);
    assert!(soon(&locks, &[0, 1]).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_is_gone_keeps_nobody_waiting() {
    let locks = ShardLocks::default();
    let held = locks.lock(&shards(&[0])).await;
    assert!(soon(&locks, &[0]).await.is_none(), "it waited and went");
    let waits = {
        let locks = locks.clone();
        tokio::spawn(async move { locks.lock(&shards(&[0])).await })
    };
    tokio::task::yield_now().await;
    waits.abort();
    let _ = waits.await;
    drop(held);
    assert!(soon(&locks, &[0]).await.is_some());
    assert!(lock(&locks.lines).held.is_empty() && lock(&locks.lines).waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_writer_of_several_shards_is_not_passed_for_ever() {
    let locks = ShardLocks::default();
    let first = locks.lock(&shards(&[0])).await;
    let both = {
        let locks = locks.clone();
        tokio::spawn(async move { locks.lock(&shards(&[0, 1])).await })
    };
    tokio::task::yield_now().await;
    // Quick writers to shards 0 and 1 keep coming.
    let served = Arc::new(AtomicUsize::new(0));
    for writer in 0..20_u64 {
        let (locks, served) = (locks.clone(), Arc::clone(&served));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(writer)).await;
            let shard = [u16::try_from(writer % 2).unwrap()];
            let _guard = locks.lock(&shards(&shard)).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            served.fetch_add(1, Ordering::Relaxed);
        });
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(first);
    tokio::time::timeout(Duration::from_millis(20), both)
        .await
        .expect("it came before them")
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(served.load(Ordering::Relaxed), 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// For any writers, shards and durations, with some writers giving up: no shard has two holders, and every other writer gets
    /// its locks.
    #[test]
    fn no_shard_has_two_holders_and_everybody_is_served(
        writers in prop::collection::vec(
            (prop::collection::btree_set(0_u16..4, 1..4), 0_u64..400, 0_u64..600, any::<bool>()), 1..30,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let locks = ShardLocks::default();
            let busy: Arc<[AtomicUsize; 4]> = Arc::default();
            let mut tasks = Vec::new();
            for (wanted, starts, holds, gives_up) in writers {
                let (locks, busy) = (locks.clone(), Arc::clone(&busy));
                tasks.push(tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(starts)).await;
                    let wanted: Vec<u16> = wanted.into_iter().collect();
                    let shards = shards(&wanted);
                    let patience = Duration::from_millis(if gives_up { holds / 2 } else { 3_600_000 });
                    let Ok(_guard) = tokio::time::timeout(patience, locks.lock(&shards)).await else {
                        return gives_up;
                    };
                    for shard in &wanted {
                        assert_eq!(busy[usize::from(*shard)].fetch_add(1, Ordering::SeqCst), 0);
                    }
                    tokio::time::sleep(Duration::from_millis(holds)).await;
                    for shard in &wanted {
                        busy[usize::from(*shard)].fetch_sub(1, Ordering::SeqCst);
                    }
                    true
                }));
            }
            for task in tasks {
                assert!(task.await.unwrap(), "it was never served");
            }
            assert!(lock(&locks.lines).held.is_empty() && lock(&locks.lines).waiting.is_empty());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn who_looks_at_notes_waits_for_the_write_that_is_on_its_way() {
    let locks = ShardLocks::default();
    let on_its_way = locks.lock(&[ShardId(0), ShardId(1)]).await;
    let looking = {
        let locks = locks.clone();
        tokio::spawn(async move { locks.between_writes(ShardId(1), || 7).await })
    };
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!looking.is_finished());
    assert_eq!(locks.between_writes(ShardId(2), || 8).await, 8);
    drop(on_its_way);
    assert_eq!(looking.await.unwrap(), 7);
}
