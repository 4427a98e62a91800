//! Random sequences: the store over an etcd that loses requests and answers does what the store in memory does.

use proptest::prelude::*;

use super::*;
use crate::etcd::Action;
use crate::etcd::simulated::Simulated;
use crate::store::Expect;
use crate::store::memory::MemoryStore;

/// One change of a commit: a key, a value or a deletion, a condition.
type Wish = (u8, Option<u8>, Wanted);

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Anything,
    Absent,
    /// The version that the key has, or another one.
    Version {
        right: bool,
    },
}

#[derive(Debug, Clone)]
enum Step {
    /// Commits that are made at the same time, each to keys of its own; those with `true` without conditions, and nobody waits.
    Commits(Vec<(bool, Vec<Wish>)>),
    /// A commit that takes several transactions.
    Large(u8),
    /// How many of a hundred requests get no answer from now on.
    Trouble(u8),
    /// Another merger leads from now on.
    Deposed,
    /// History is forgotten.
    Forgotten,
}

fn wish() -> impl Strategy<Value = Wish> {
    let wanted = prop_oneof![
        4 => Just(Wanted::Anything),
        1 => Just(Wanted::Absent),
        3 => Just(Wanted::Version { right: true }),
        1 => Just(Wanted::Version { right: false }),
    ];
    (0..4_u8, prop::option::weighted(0.8, any::<u8>()), wanted)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec((any::<bool>(), prop::collection::vec(wish(), 1..4)), 1..5).prop_map(Step::Commits),
        1 => any::<u8>().prop_map(Step::Large),
        2 => (0..70_u8).prop_map(Step::Trouble),
        1 => Just(Step::Deposed),
        1 => Just(Step::Forgotten),
    ]
}

/// The changes of a commit; `place` gives it keys of its own.
async fn changes(model: &MemoryStore, place: usize, wishes: &[Wish]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for (key, value, wanted) in wishes {
        let key = format!("{place}/{key}");
        if changes.iter().any(|change| change.key == key) {
            continue;
        }
        let found = model.get(&key).await.unwrap();
        let version = found.map_or(0, |found| found.version);
        let expect = match wanted {
            Wanted::Anything => Expect::Anything,
            Wanted::Absent => Expect::Absent,
            Wanted::Version { right: true } => Expect::Version(version),
            Wanted::Version { right: false } => Expect::Version(version + 1),
        };
        let value = value.map(|value| vec![value; 3]);
        changes.push(Change { key, value, expect });
    }
    changes
}

fn told(outcome: &Result<(), StoreError>) -> Option<String> {
    match outcome {
        Ok(()) => None,
        Err(StoreError::Conflict { key }) => Some(key.clone()),
        Err(error) => panic!("{error}"),
    }
}

async fn open(server: &Simulated, line: &crate::etcd::simulated::Line) -> EtcdStore {
    let leader = "/weft/leader".to_owned();
    server.act(vec![Action::Delete(leader.clone())]);
    server.act(vec![Action::put(leader.clone(), b"{}".to_vec())]);
    let term = Term::of(server.entries(&leader)[0].created);
    let line: Arc<dyn Etcd> = Arc::new(line.clone());
    let prefix = "/weft".parse().unwrap();
    EtcdStore::open(line, prefix, term).await.unwrap()
}

/// All entries, however often that takes.
async fn read(store: &EtcdStore) -> Vec<(String, Versioned)> {
    loop {
        if let Ok(found) = store.range("").await {
            return found;
        }
    }
}

async fn play(seed: u64, steps: Vec<Step>) {
    let server = Simulated::default();
    let model = MemoryStore::default();
    let mut line = server.line(seed);
    let mut store = open(&server, &line).await;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Trouble(percent) => line.set_trouble(percent),
            Step::Forgotten => server.forget_history(),
            Step::Commits(commits) => {
                let mut all = Vec::new();
                for (place, (lazy, wishes)) in commits.iter().enumerate() {
                    let mut changes = changes(&model, place, wishes).await;
                    for change in changes.iter_mut().filter(|_| *lazy) {
                        change.expect = Expect::Anything;
                    }
                    all.push(changes);
                }
                let lazy = commits.iter().map(|(lazy, _)| *lazy);
                let made = all.iter().zip(lazy).map(|(changes, lazy)| match lazy {
                    true => store.commit_unsynced(changes.clone()),
                    false => store.commit(changes.clone()),
                });
                let made = futures_util::future::join_all(made.collect::<Vec<_>>()).await;
                for (changes, made) in all.into_iter().zip(made) {
                    let wanted = model.commit(changes).await;
                    assert_eq!(told(&made), told(&wanted), "step {number}");
                }
                for (key, wanted) in model.range("").await.unwrap() {
                    let found = store.get(&key).await;
                    let found = found.map(|found| found.map(|found| found.value));
                    // Without an answer from etcd nothing is known.
                    assert!(found.is_err() || found.unwrap() == Some(wanted.value));
                }
            }
            Step::Large(value) => {
                let changes: Vec<Change> = (0..250)
                    .map(|n| Change::put(format!("large/{n}"), vec![value; 100]))
                    .collect();
                store.commit(changes.clone()).await.unwrap();
                model.commit(changes).await.unwrap();
            }
            Step::Deposed => {
                let old = store;
                let old_line = line;
                line = server.line(seed + 1 + number as u64);
                store = open(&server, &line).await;
                // What the old one sends now, or has sent without an answer, changes nothing.
                old_line.set_trouble(0);
                let late = old.commit(vec![Change::put("0/0", vec![9])]).await;
                assert!(matches!(late, Err(StoreError::NotLeader)), "{late:?}");
            }
        }
        let found = read(&store).await;
        assert_eq!(found, model.range("").await.unwrap(), "step {number}");
    }
    // Whatever was late has come by then.
    line.set_trouble(0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let found = store.range("").await.unwrap();
    assert_eq!(found, model.range("").await.unwrap(), "at the end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn the_store_in_etcd_does_what_the_store_in_memory_does(
        seed in any::<u32>(),
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(seed.into(), steps));
    }
}
