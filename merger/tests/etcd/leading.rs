//! The leadership.

use std::time::{Duration, Instant};

use weft_merger::etcd::{ANSWER_WITHIN, Action, Transaction, get};
use weft_merger::store::{Change, EtcdStore, Store, StoreError};

use crate::members::{Members, election, leader, on_runtime, prefix};

const LEASE: Duration = Duration::from_secs(3);

pub(crate) fn one_leads_until_it_steps_down() {
    let members = Members::one();
    on_runtime(async {
        let (one, two) = (members.client().await, members.client().await);
        let first = election(&one, "one", LEASE).win(|| true).await;
        let second = election(&two, "two", LEASE);
        let winning = tokio::time::timeout(2 * LEASE, second.win(|| true)).await;
        assert!(winning.is_err() && first.is_leader());
        let seen = second.leader().borrow().clone();
        assert_eq!(seen.unwrap().id, "one");
        let begun = Instant::now();
        let (_, next) = tokio::join!(first.step_down(), second.win(|| true));
        assert!(next.is_leader() && begun.elapsed() < LEASE / 2);
        next.step_down().await;
        assert!(get(&*one, prefix().leader()).await.unwrap().is_none());
    });
}

pub(crate) fn who_hears_nothing_from_etcd_stops_before_the_key_goes() {
    let members = Members::three();
    on_runtime(async {
        // The leader knows one member only, and that one hangs.
        let alone = vec![members.0[0].url.clone()];
        let one = crate::members::client(&alone).await;
        let others = members.urls()[1..].to_vec();
        let two = crate::members::client(&others).await;
        let first = election(&one, "one", LEASE).win(|| true).await;
        let begun = Instant::now();
        members.0[0].signal("STOP");
        let second = election(&two, "two", LEASE);
        let lost = async {
            first.lost().await;
            Instant::now()
        };
        let won = async {
            let next = second.win(|| true).await;
            (Instant::now(), next)
        };
        let (lost, (won, next)) = tokio::join!(lost, won);
        assert!(lost < won, "there were two leaders");
        assert!(lost - begun < LEASE && next.is_leader());
        members.0[0].signal("CONT");
        assert!(!first.is_leader());
    });
}

pub(crate) fn a_deposed_leader_changes_nothing() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let (first, old) = leader(&etcd).await;
        old.commit(vec![Change::put("a", vec![1])]).await.unwrap();
        // As if its lease had ended, without its knowledge.
        let depose = Transaction {
            then: vec![Action::Delete(prefix().leader())],
            ..Transaction::default()
        };
        etcd.transact(depose, ANSWER_WITHIN).await.unwrap();
        let next = election(&etcd, "two", LEASE).win(|| true).await;
        let term = next.term().clone();
        let store = EtcdStore::open(etcd.clone(), prefix(), term).await.unwrap();
        store.commit(vec![Change::put("a", vec![2])]).await.unwrap();
        let refused = old.commit(vec![Change::put("a", vec![3])]).await;
        assert!(matches!(refused, Err(StoreError::NotLeader)), "{refused:?}");
        assert!(!first.is_leader());
        assert_eq!(store.get("a").await.unwrap().unwrap().value, [2]);
    });
}

pub(crate) fn a_key_that_an_operator_deletes_ends_the_term() {
    let members = Members::one();
    on_runtime(async {
        let etcd = members.client().await;
        let leadership = election(&etcd, "one", LEASE).win(|| true).await;
        let delete = Transaction {
            then: vec![Action::Delete(prefix().leader())],
            ..Transaction::default()
        };
        let begun = Instant::now();
        etcd.transact(delete, ANSWER_WITHIN).await.unwrap();
        leadership.lost().await;
        assert!(begun.elapsed() < LEASE / 2);
    });
}
