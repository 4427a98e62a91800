//! The store.

use std::sync::Arc;
use std::time::Duration;

use weft_merger::etcd::{ANSWER_WITHIN, Action, Ask, EtcdError, Transaction};
use weft_merger::store::{Change, EtcdStore, Expect, Store, StoreError, forget_history};

use crate::members::{Members, leader, on_runtime, prefix, until};

fn put(key: impl Into<String>, value: &[u8]) -> Change {
    Change::put(key, value.to_vec())
}

pub(crate) fn the_store_does_what_a_store_does() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let (leadership, store) = leader(&etcd).await;
        store
            .commit(vec![put("a", b"1"), put("b", b"1")])
            .await
            .unwrap();
        store
            .commit(vec![put("a", b"2"), Change::delete("b")])
            .await
            .unwrap();
        let found = store.get("a").await.unwrap().unwrap();
        assert_eq!((found.version, found.value.as_slice()), (2, &b"2"[..]));
        assert_eq!(store.get("b").await.unwrap(), None);
        store.commit(vec![put("b", b"3")]).await.unwrap();
        assert_eq!(store.get("b").await.unwrap().unwrap().version, 1);
        let changes = vec![
            put("c", b""),
            Change::put_if("a", vec![], Expect::Version(1)),
        ];
        let refused = store.commit(changes).await;
        assert!(matches!(refused, Err(StoreError::Conflict { key }) if key == "a"));
        assert_eq!(store.get("c").await.unwrap(), None);
        let right = Change::put_if("a", vec![9], Expect::Version(2));
        store.commit(vec![right]).await.unwrap();
        // Many at once, one of them in conflict; then more than a page of them.
        let mut all: Vec<_> = (0..1_000)
            .map(|n| store.commit(vec![put(format!("task/{n:04}"), &[7; 100])]))
            .collect();
        all.push(store.commit(vec![Change::put_if("a", vec![], Expect::Absent)]));
        let mut outcomes = futures_util::future::join_all(all).await;
        let conflict = outcomes.pop().unwrap();
        assert!(matches!(conflict, Err(StoreError::Conflict { .. })));
        assert!(outcomes.iter().all(Result::is_ok));
        let tasks = store.range("task/").await.unwrap();
        assert_eq!(tasks.len(), 1_000);
        assert!(tasks.is_sorted_by_key(|(key, _)| key.clone()));
        assert_eq!(store.compact().await.unwrap(), None);
        // The next leader finds it all.
        leadership.step_down().await;
        drop(store);
        let (_leadership, store) = leader(&etcd).await;
        assert_eq!(store.range("").await.unwrap().len(), 1_002);
    });
}

pub(crate) fn etcd_takes_what_the_store_sends_and_no_more() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let of = |count: usize, bytes: usize| Transaction {
            then: (0..count)
                .map(|n| Action::put(format!("/x/{n}"), vec![0; bytes]))
                .collect(),
            ..Transaction::default()
        };
        // What the simulated one refuses, too.
        etcd.transact(of(128, 1), ANSWER_WITHIN).await.unwrap();
        for beyond in [of(129, 1), of(1, 1_600_000)] {
            let refused = etcd.transact(beyond, ANSWER_WITHIN).await;
            assert!(matches!(refused, Err(EtcdError::Refused(_))), "{refused:?}");
        }
        let twice = vec![
            Action::put("/x".into(), vec![]),
            Action::put("/x".into(), vec![]),
        ];
        let twice = Transaction {
            then: twice,
            ..Transaction::default()
        };
        let refused = etcd.transact(twice, ANSWER_WITHIN).await;
        assert!(matches!(refused, Err(EtcdError::Refused(_))), "{refused:?}");
        let (_leadership, store) = leader(&etcd).await;
        let most = vec![1; 1 << 20];
        for n in 0..40 {
            store
                .commit(vec![put(format!("{n}"), &most)])
                .await
                .unwrap();
        }
        // A page of them all would be larger than what is read at once.
        assert_eq!(store.range("").await.unwrap().len(), 40);
        let too_large = vec![1; (1 << 20) + 1];
        let refused = store.commit(vec![put("x", &too_large)]).await;
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
    });
}

pub(crate) fn a_large_commit_is_whole() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let (_leadership, store) = leader(&etcd).await;
        let many = |value: u8| (0..5_000).map(move |n| put(format!("k{n:05}"), &[value; 500]));
        store.commit(many(1).collect()).await.unwrap();
        let reading = async {
            for _ in 0..20 {
                let found = store.range("k").await.unwrap();
                assert!(found.iter().all(|(_, e)| e.value[0] == found[0].1.value[0]));
            }
        };
        let (written, ()) = tokio::join!(store.commit(many(2).collect()), reading);
        written.unwrap();
        let found = store.range("k").await.unwrap();
        assert!(found.iter().all(|(_, e)| (e.version, e.value[0]) == (2, 2)));
        let gone = (0..5_000).map(|n| Change::delete(format!("k{n:05}")));
        store.commit(gone.collect()).await.unwrap();
        assert!(store.range("").await.unwrap().is_empty());
        let left = Ask {
            from: prefix().bundle(),
            prefix: prefix().bundle(),
            limit: 1,
            revision: 0,
        };
        let left = etcd.page(left, ANSWER_WITHIN).await.unwrap();
        assert!(left.entries.is_empty());
    });
}

pub(crate) fn what_got_no_answer_is_settled() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let (_leadership, store) = leader(&etcd).await;
        let store = Arc::new(store);
        for n in 1..4 {
            members.0[0].signal("STOP");
            let committing = tokio::spawn({
                let store: Arc<EtcdStore> = Arc::clone(&store);
                async move { store.commit(vec![put("a", b"x")]).await }
            });
            // Longer than a request waits: several copies of it are on their way by now.
            tokio::time::sleep(ANSWER_WITHIN * 5 / 2).await;
            assert!(!committing.is_finished());
            members.0[0].signal("CONT");
            committing.await.unwrap().unwrap();
            let found = store.get("a").await.unwrap().unwrap();
            assert_eq!(found.version, n, "it was made once");
        }
    });
}

pub(crate) fn commits_go_on_when_a_member_hangs() {
    let members = Members::three();
    on_runtime(async {
        let etcd = members.client().await;
        let (_leadership, store) = leader(&etcd).await;
        let mut version = 0;
        for hangs in &members.0 {
            hangs.signal("STOP");
            for _ in 0..20 {
                store.commit(vec![put("a", b"x")]).await.unwrap();
                version += 1;
            }
            hangs.signal("CONT");
            let found = store.get("a").await.unwrap().unwrap();
            assert_eq!(found.version, version);
        }
    });
}

pub(crate) fn history_is_forgotten() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let (_leadership, store) = leader(&etcd).await;
        store.commit(vec![put("a", b"1")]).await.unwrap();
        let ask = |revision| Ask {
            from: prefix().state("a"),
            prefix: prefix().state("a"),
            limit: 1,
            revision,
        };
        let old = etcd.page(ask(0), ANSWER_WITHIN).await.unwrap().revision;
        store.commit(vec![put("a", b"2")]).await.unwrap();
        let interval = Duration::from_millis(50);
        let forgetting = tokio::spawn(forget_history(Arc::clone(&etcd), prefix(), interval));
        until("the old revision is gone", async || {
            let read = etcd.page(ask(old), ANSWER_WITHIN).await;
            matches!(read, Err(EtcdError::Compacted))
        })
        .await;
        forgetting.abort();
        assert_eq!(store.get("a").await.unwrap().unwrap().value, b"2");
    });
}
