use super::identity::FORMAT;
use super::*;
use crate::etcd::simulated::{Line, Simulated};
use crate::etcd::{Action, Condition, Transaction};
use crate::store::Expect;

const LEADER: &str = "/weft/leader";

fn prefix() -> Prefix {
    "/weft".parse().unwrap()
}

/// The leader's key is made anew; the term of who has made it.
fn elect(server: &Simulated) -> Term {
    server.act(vec![Action::Delete(LEADER.into())]);
    server.act(vec![Action::put(LEADER.into(), b"{}".to_vec())]);
    Term::of(server.entries(LEADER)[0].created)
}

async fn open(server: &Simulated, line: &Line) -> EtcdStore {
    let term = elect(server);
    let line: Arc<dyn Etcd> = Arc::new(line.clone());
    EtcdStore::open(line, prefix(), term).await.unwrap()
}

async fn store() -> (Simulated, Line, EtcdStore) {
    let server = Simulated::default();
    let line = server.line(7);
    let store = open(&server, &line).await;
    (server, line, store)
}

fn put(key: &str, value: &[u8]) -> Change {
    Change::put(key, value.to_vec())
}

async fn version(store: &EtcdStore, key: &str) -> Option<u64> {
    store.get(key).await.unwrap().map(|found| found.version)
}

#[tokio::test(start_paused = true)]
async fn versions_count_from_one_and_start_again_after_a_deletion() {
    let (_server, _line, store) = store().await;
    for wanted in 1..4 {
        store.commit(vec![put("a", b"x")]).await.unwrap();
        assert_eq!(version(&store, "a").await, Some(wanted));
    }
    store.commit(vec![Change::delete("a")]).await.unwrap();
    assert_eq!(version(&store, "a").await, None);
    store.commit(vec![put("a", b"x")]).await.unwrap();
    assert_eq!(version(&store, "a").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_condition_fails_changes_nothing_and_names_the_key() {
    let (_server, _line, store) = store().await;
    store.commit(vec![put("a", b"1")]).await.unwrap();
    let changes = vec![
        put("b", b"2"),
        Change::put_if("a", b"3".to_vec(), Expect::Absent),
    ];
    let refused = store.commit(changes).await;
    assert!(matches!(refused, Err(StoreError::Conflict { key }) if key == "a"));
    assert_eq!(version(&store, "b").await, None);
    assert_eq!(store.get("a").await.unwrap().unwrap().value, b"1");
}

#[tokio::test(start_paused = true)]
async fn commits_that_wait_together_share_a_transaction_and_not_a_conflict() {
    let (server, _line, store) = store().await;
    let before = server.transactions();
    let mut all: Vec<_> = (0..40)
        .map(|n| store.commit(vec![put(&format!("k{n}"), b"x")]))
        .collect();
    let conflict = Change::put_if("c", vec![], Expect::Version(9));
    all.push(store.commit(vec![put("d", b"x"), conflict]));
    let absent = Change::put_if("e", vec![], Expect::Absent);
    all.push(store.commit(vec![absent]));
    let mut outcomes = futures_util::future::join_all(all).await;
    assert!(outcomes.pop().unwrap().is_ok());
    let conflict = outcomes.pop().unwrap();
    assert!(matches!(conflict, Err(StoreError::Conflict { key }) if key == "c"));
    assert!(outcomes.iter().all(Result::is_ok));
    // Once with the conflict, and once without it.
    assert_eq!(server.transactions() - before, 2);
    assert_eq!(version(&store, "d").await, None);
    assert_eq!(version(&store, "e").await, Some(1));
    assert_eq!(store.range("k").await.unwrap().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_commit_that_may_be_lost_and_it_goes_with_the_next_one() {
    let (server, _line, store) = store().await;
    let (before, begun) = (server.transactions(), Instant::now());
    let lazy = vec![put("a", b"1"), put("b", b"1")];
    store.commit_unsynced(lazy).await.unwrap();
    assert_eq!(
        (server.transactions(), begun.elapsed()),
        (before, Duration::ZERO)
    );
    assert_eq!(store.get("a").await.unwrap().unwrap().value, b"1");
    assert!(server.entries("/weft/state/a").is_empty());
    store.commit(vec![put("c", b"1")]).await.unwrap();
    assert_eq!(server.transactions(), before + 1);
    assert_eq!(server.entries("/weft/state/").len(), 3);
    // Alone, it is made soon.
    store
        .commit_unsynced(vec![Change::delete("a")])
        .await
        .unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    tokio::time::sleep(super::super::UNSYNCED).await;
    assert_eq!(server.transactions(), before + 2);
    assert!(server.entries("/weft/state/a").is_empty());
    assert_eq!(store.get("a").await.unwrap(), None);
    // Who reads a range waits for it.
    store.commit_unsynced(vec![put("a", b"2")]).await.unwrap();
    assert_eq!(store.range("").await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_may_be_lost_is_tried_until_it_is_made_but_never_after_a_newer_one() {
    let (server, _line, store) = store().await;
    server.set_full(true);
    let lazy = vec![put("a", b"1"), put("b", b"1")];
    store.commit_unsynced(lazy).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(server.entries("/weft/state/").is_empty());
    assert_eq!(store.get("b").await.unwrap().unwrap().value, b"1");
    server.set_full(false);
    store.commit(vec![Change::delete("a")]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let keys = server.entries("/weft/state/").into_iter();
    let keys: Vec<String> = keys.map(|entry| entry.key).collect();
    assert_eq!(keys, ["/weft/state/b"]);
    assert_eq!(store.get("a").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn commits_to_the_same_key_are_made_one_after_the_other() {
    let (_server, _line, store) = store().await;
    let first = store.commit(vec![Change::put_if("a", vec![1], Expect::Absent)]);
    let second = store.commit(vec![Change::put_if("a", vec![2], Expect::Version(1))]);
    let third = store.commit(vec![Change::put_if("a", vec![3], Expect::Version(1))]);
    let (first, second, third) = tokio::join!(first, second, third);
    assert!(first.is_ok() && second.is_ok() && third.is_err());
    assert_eq!(store.get("a").await.unwrap().unwrap().value, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_named_twice_gets_the_last_value() {
    let (_server, _line, store) = store().await;
    let changes = vec![put("a", b"1"), put("b", b"1"), Change::delete("a")];
    store.commit(changes).await.unwrap();
    assert_eq!(version(&store, "a").await, None);
    let changes = vec![Change::delete("b"), put("b", b"2")];
    store.commit(changes).await.unwrap();
    let found = store.get("b").await.unwrap().unwrap();
    assert_eq!((found.version, found.value.as_slice()), (2, &b"2"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_range_is_read_in_pages_as_of_one_revision_and_anew_if_that_is_gone() {
    let (server, _line, store) = store().await;
    for n in 0..10 {
        let changes = (1..=100).map(|m| put(&format!("k/{:04}", n * 100 + m), b""));
        store.commit(changes.collect()).await.unwrap();
    }
    let both = |n: u8| vec![put("k/0000", &[n]), put("k/9999", &[n])];
    store.commit(both(0)).await.unwrap();
    store
        .commit(vec![put("k", b""), put("l", b"")])
        .await
        .unwrap();
    let changing = async {
        for n in 1..60 {
            store.commit(both(n)).await.unwrap();
            if n % 5 == 0 {
                server.forget_history();
            }
        }
    };
    let reading = async {
        for _ in 0..10 {
            let found = store.range("k/").await.unwrap();
            assert_eq!(found.len(), 1_002);
            assert_eq!(found[0].1.value, found[1_001].1.value, "two moments");
        }
    };
    tokio::join!(changing, reading);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_too_large_is_asked_for_in_smaller_ones() {
    let (_server, _line, store) = store().await;
    for n in 0..20 {
        let large = vec![n; 900_000];
        store
            .commit(vec![put(&format!("{n:02}"), &large)])
            .await
            .unwrap();
    }
    let found = store.range("").await.unwrap();
    assert!(found.len() == 20 && found.is_sorted_by_key(|(key, _)| key.clone()));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_etcd_would_not_take_is_refused_by_name() {
    let (_server, _line, store) = store().await;
    let large = vec![0; MOST_VALUE_BYTES + 1];
    let refused = store.commit(vec![put("a", b""), put("b", &large)]).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { key, .. }) if key == "b"));
    assert_eq!(version(&store, "a").await, None);
    let largest = vec![0; MOST_VALUE_BYTES];
    store.commit(vec![put("b", &largest)]).await.unwrap();
    assert_eq!(store.get("b").await.unwrap().unwrap().value, largest);
}

fn many(count: usize, value: u8) -> Vec<Change> {
    let key = |n| format!("k{n:05}");
    (0..count).map(|n| put(&key(n), &[value; 1_000])).collect()
}

#[tokio::test(start_paused = true)]
async fn a_large_commit_is_all_or_nothing_and_leaves_nothing_beside_it() {
    let (server, _line, store) = store().await;
    store.commit(many(5_000, 1)).await.unwrap();
    assert_eq!(store.range("k").await.unwrap().len(), 5_000);
    assert!(server.entries("/weft/bundle").is_empty());
    let mut refused = many(5_000, 2);
    let late = Change::put_if("z", vec![], Expect::Version(1));
    refused.push(late);
    let refused = store.commit(refused).await;
    assert!(matches!(refused, Err(StoreError::Conflict { key }) if key == "z"));
    let found = store.range("k").await.unwrap();
    assert!(found.iter().all(|(_, e)| e.version == 1 && e.value[0] == 1));
    let mut deletes: Vec<Change> = (0..4_999)
        .map(|n| Change::delete(format!("k{n:05}")))
        .collect();
    deletes.push(Change::put_if("k04999", vec![3], Expect::Version(1)));
    store.commit(deletes).await.unwrap();
    assert_eq!(store.range("").await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn readers_see_a_large_commit_as_a_whole() {
    let (_server, _line, store) = store().await;
    store.commit(many(2_000, 1)).await.unwrap();
    let reading = async {
        for _ in 0..100 {
            let found = store.range("k").await.unwrap();
            let mut values: Vec<u8> = found.iter().map(|(_, e)| e.value[0]).collect();
            values.dedup();
            assert_eq!(values.len(), 1, "a part of a commit was read");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    let (written, ()) = tokio::join!(store.commit(many(2_000, 2)), reading);
    written.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_large_commit_that_was_decided_is_completed_by_the_next_leader() {
    let (server, line, store) = store().await;
    store.commit(many(2_000, 1)).await.unwrap();
    // The leader loses its connection in the middle of the steps.
    let committing = store.commit(many(2_000, 2));
    let cutting = async {
        while !server
            .entries("/weft/bundle/")
            .iter()
            .any(|e| e.key.ends_with("16"))
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while server.entries("/weft/bundle/").len() > 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        line.set_cut(true);
    };
    tokio::select! {
        _ = committing => panic!("it was cut off"),
        () = async { cutting.await; tokio::time::sleep(Duration::from_secs(5)).await } => {}
    }
    let values = |found: Vec<(String, Versioned)>| -> Vec<u8> {
        let mut values: Vec<u8> = found.iter().map(|(_, e)| e.value[0]).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let raw = range(&server.line(1), "/weft/state/").await.unwrap();
    assert!(raw.iter().any(|e| e.value[0] == 1) && raw.iter().any(|e| e.value[0] == 2));
    let next = open(&server, &server.line(2)).await;
    let found = next.range("k").await.unwrap();
    assert!(found.iter().all(|(_, entry)| entry.version == 2));
    assert_eq!(values(found), [2]);
    assert!(server.entries("/weft/bundle").is_empty());
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_large_commit_that_was_not_decided_are_thrown_away() {
    let (server, _line, _store) = store().await;
    let part = "/weft/bundle/00000000".to_owned();
    server.act(vec![Action::put(part, vec![1, 2, 3])]);
    let next = open(&server, &server.line(2)).await;
    assert!(server.entries("/weft/bundle").is_empty());
    assert!(next.range("").await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_changes_nothing_and_hears_why() {
    let (server, line, store) = store().await;
    store.commit(vec![put("a", b"1")]).await.unwrap();
    let next = open(&server, &server.line(2)).await;
    next.commit(vec![put("a", b"2")]).await.unwrap();
    for changes in [vec![put("a", b"3")], many(1_000, 3), Vec::new()] {
        let refused = store.commit(changes).await;
        assert!(matches!(refused, Err(StoreError::NotLeader)), "{refused:?}");
    }
    assert_eq!(next.get("a").await.unwrap().unwrap().value, b"2");
    assert_eq!(next.range("k").await.unwrap().len(), 0);
    drop(line);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_fails_commits_until_there_is_room() {
    let (server, _line, store) = store().await;
    server.set_full(true);
    for changes in [vec![put("a", b"1")], many(1_000, 1)] {
        let refused = store.commit(changes).await;
        assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
    }
    server.set_full(false);
    store.commit(vec![put("a", b"1")]).await.unwrap();
    assert_eq!(store.range("").await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_got_no_answer_is_settled_before_anything_else_happens() {
    for seed in 0..200 {
        let server = Simulated::default();
        let line = server.line(seed);
        let store = open(&server, &line).await;
        line.set_trouble(60);
        for n in 1..6_u64 {
            let expect = match n {
                1 => Expect::Absent,
                _ => Expect::Version(n - 1),
            };
            let change = Change::put_if("a", n.to_be_bytes().to_vec(), expect);
            store.commit(vec![change]).await.unwrap();
        }
        line.set_trouble(0);
        // Copies that were late have come by now.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let found = store.get("a").await.unwrap().unwrap();
        assert_eq!(
            (found.version, found.value),
            (5, 5_u64.to_be_bytes().to_vec()),
            "seed {seed}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_time_is_over_does_not_call_unheard_commits_failed() {
    let server = Simulated::default();
    let line = server.line(3);
    let term = elect(&server);
    let fence = term.fence().clone();
    let etcd: Arc<dyn Etcd> = Arc::new(line.clone());
    let store = EtcdStore::open(etcd, prefix(), term).await.unwrap();
    line.set_cut(true);
    let (outcome, ()) = tokio::join!(store.commit(vec![put("a", b"1")]), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        fence.close();
    });
    assert!(matches!(outcome, Err(StoreError::Unsettled)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_prefix_belongs_to_one_cluster() {
    let server = Simulated::default();
    let etcd: Arc<dyn Etcd> = Arc::new(server.line(1));
    assert_eq!(
        check_identity(&*etcd, &prefix(), Some("a")).await.unwrap(),
        None
    );
    let term = elect(&server);
    assert_eq!(
        claim(&etcd, &prefix(), &term, Some("a"), false)
            .await
            .unwrap(),
        "a"
    );
    for expected in [None, Some("a")] {
        let found = check_identity(&*etcd, &prefix(), expected).await.unwrap();
        assert_eq!(found.as_deref(), Some("a"));
    }
    let error = claim(&etcd, &prefix(), &term, Some("b"), false)
        .await
        .unwrap_err();
    let told = error.to_string();
    assert!(told.contains("cluster `a`") && told.contains("to `b`") && !told.contains('\n'));
    // The state of an older merger is taken over, and older ones can't read it from then on.
    let format = |format: u32| {
        let value = format.to_string().into_bytes();
        server.act(vec![Action::put("/weft/format".into(), value)]);
    };
    let stands = || server.entries("/weft/format").remove(0).value;
    format(FORMAT - 1);
    check_identity(&*etcd, &prefix(), None).await.unwrap();
    claim(&etcd, &prefix(), &term, None, true).await.unwrap();
    assert_eq!(stands(), (FORMAT - 1).to_string().into_bytes());
    claim(&etcd, &prefix(), &term, None, false).await.unwrap();
    assert_eq!(stands(), FORMAT.to_string().into_bytes());
    format(FORMAT + 1);
    let error = check_identity(&*etcd, &prefix(), None).await.unwrap_err();
    assert!(error.to_string().contains("newer merger"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_a_name_gets_one() {
    let server = Simulated::default();
    let etcd: Arc<dyn Etcd> = Arc::new(server.line(1));
    let term = elect(&server);
    let one = claim(&etcd, &prefix(), &term, None, false).await.unwrap();
    assert_eq!(
        claim(&etcd, &prefix(), &term, None, false).await.unwrap(),
        one
    );
    assert!(one.len() > 30);
}

#[tokio::test(start_paused = true)]
async fn keys_of_somebody_else_are_left_alone() {
    let server = Simulated::default();
    server.act(vec![Action::put("/weft/registry/x".into(), vec![])]);
    let etcd: Arc<dyn Etcd> = Arc::new(server.line(1));
    let error = check_identity(&*etcd, &prefix(), None).await.unwrap_err();
    assert!(error.to_string().contains("/weft/registry/x"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_not_finished_is_used_by_nobody_and_made_anew() {
    let server = Simulated::default();
    let etcd: Arc<dyn Etcd> = Arc::new(server.line(1));
    let term = elect(&server);
    claim(&etcd, &prefix(), &term, None, false).await.unwrap();
    begin_copy(&etcd, &prefix(), &term).await.unwrap();
    let store = EtcdStore::open(Arc::clone(&etcd), prefix(), term.clone())
        .await
        .unwrap();
    store.commit(vec![put("a", b"")]).await.unwrap();
    drop(store);
    assert!(refuse_unfinished(&*etcd, &prefix()).await.is_err());
    begin_copy(&etcd, &prefix(), &term).await.unwrap();
    assert!(server.entries("/weft/state/").is_empty());
    let store = EtcdStore::open(Arc::clone(&etcd), prefix(), term.clone())
        .await
        .unwrap();
    store.commit(vec![put("a", b"")]).await.unwrap();
    drop(store);
    end_copy(&etcd, &prefix(), &term).await.unwrap();
    refuse_unfinished(&*etcd, &prefix()).await.unwrap();
    let refused = begin_copy(&etcd, &prefix(), &term).await;
    assert!(matches!(refused, Err(IdentityError::NotEmpty { .. })));
}

#[tokio::test(start_paused = true)]
async fn transactions_never_go_beyond_what_etcd_takes() {
    // The simulated etcd refuses what the real one does: that it does is shown here.
    let server = Simulated::default();
    let line = server.line(1);
    let puts = |count: usize| {
        (0..count)
            .map(|n| Action::put(format!("{n}"), vec![]))
            .collect()
    };
    for (count, is_taken) in [(128, true), (129, false)] {
        let transaction = Transaction {
            when: vec![Condition::Version("x".into(), 0)],
            then: puts(count),
            otherwise: Vec::new(),
        };
        let outcome = line.transact(transaction, ANSWER_WITHIN).await;
        assert_eq!(outcome.is_ok(), is_taken);
    }
    let store = open(&server, &line).await;
    let all =
        (0..300).map(|n| store.commit(vec![put(&format!("{n}"), b""), put(&format!("x{n}"), b"")]));
    let outcomes = futures_util::future::join_all(all.collect::<Vec<_>>()).await;
    assert!(outcomes.iter().all(Result::is_ok));
}
