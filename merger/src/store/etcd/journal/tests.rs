use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::etcd::simulated::Simulated;
use crate::leadership::Term;
use crate::store::{Change, EtcdStore, Store};

const LEADER: &str = "/weft/leader";

#[test]
fn what_followers_read_is_told_from_what_they_do_not() {
    for (key, wanted) in [
        ("epoch", true),
        ("in-sync-epoch", true),
        ("placement/films", true),
        ("changed/keys", true),
        ("epochs", false),
        ("task/00001", false),
        ("mark/0/a", false),
        ("placement", false),
    ] {
        assert_eq!(is_read_by_followers(key), wanted, "{key}");
    }
}

#[test]
fn a_journal_names_what_changed_last_and_says_when_it_no_longer_knows() {
    let journal = Journal::default().with(["a", "b"]).with(["a"]);
    let named = |count| {
        journal
            .since(count)
            .map(|names| names.into_iter().collect())
    };
    assert_eq!(named(3), Some(vec![]));
    assert_eq!(named(2), Some(vec!["a"]));
    assert_eq!(named(0), Some(vec!["a", "b"]));
    assert_eq!(named(4), None, "a state that is newer than the journal");
    let names: Vec<String> = (0..2_000)
        .map(|number| format!("placement/{number}"))
        .collect();
    let long = journal.with(names.iter().map(String::as_str));
    assert!(long.write().len() < 2 * MOST_NAMES_BYTES);
    assert_eq!(long.since(3), None);
    assert_eq!(long.since(2_002).map(|names| names.len()), Some(1));
    assert_eq!(Journal::read(&long.write()), Some(long));
    assert_eq!(Journal::read(b"{"), None);
}

#[derive(Debug, Clone)]
enum Step {
    /// A commit: keys by number, each with a value or a deletion.
    Commit(Vec<(u8, Option<u8>)>),
    /// A commit that takes several transactions.
    Large(u8),
    /// The follower looks.
    Look,
    /// How many of a hundred requests of the follower get no answer.
    Trouble(u8),
    /// Another merger leads from now on.
    Deposed,
    /// History is forgotten.
    Forgotten,
}

fn step() -> impl Strategy<Value = Step> {
    let changes = prop::collection::vec((0..10_u8, prop::option::weighted(0.7, any::<u8>())), 1..6);
    prop_oneof![
        8 => changes.prop_map(Step::Commit),
        1 => any::<u8>().prop_map(Step::Large),
        8 => Just(Step::Look),
        2 => (0..60_u8).prop_map(Step::Trouble),
        1 => Just(Step::Deposed),
        1 => Just(Step::Forgotten),
    ]
}

fn key(number: u8) -> String {
    match number {
        0 => "epoch".to_owned(),
        1 => "view".to_owned(),
        2..=6 => format!("placement/{number}"),
        _ => format!("task/{number}"),
    }
}

async fn elect(server: &Simulated) -> EtcdStore {
    server.act(vec![Action::Delete(LEADER.into())]);
    server.act(vec![Action::put(LEADER.into(), b"{}".to_vec())]);
    let term = Term::of(server.entries(LEADER)[0].created);
    let line = Arc::new(server.line(1));
    EtcdStore::open(line, "/weft".parse().unwrap(), term)
        .await
        .unwrap()
}

type Entries = BTreeMap<String, Vec<u8>>;

async fn stored(store: &EtcdStore) -> Entries {
    let all = store.range("").await.unwrap().into_iter();
    all.filter(|(key, _)| is_read_by_followers(key))
        .map(|(key, entry)| (key, entry.value))
        .collect()
}

/// Applies news; returns whether there were any.
fn apply(known: &mut Entries, news: News) {
    match news {
        News::Nothing => {}
        News::All(all) => *known = all.into_iter().collect(),
        News::Changed(changed) => {
            for (key, value) in changed {
                match value {
                    Some(value) => known.insert(key, value),
                    None => known.remove(&key),
                };
            }
        }
    }
}

/// A follower whose look was answered has exactly what the leader has stored by then.
async fn follow(seed: u64, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let server = Simulated::default();
    let mut store = elect(&server).await;
    let line = server.line(seed);
    let reader = StateReader::new(Arc::new(line.clone()), "/weft".parse().unwrap());
    let (mut known, mut count) = (Entries::new(), None);
    let mut looks = 0;
    for step in steps.into_iter().chain([Step::Trouble(0), Step::Look]) {
        match step {
            Step::Commit(changes) => {
                let changes = changes.into_iter().map(|(number, value)| Change {
                    value: value.map(|value| vec![value]),
                    ..Change::delete(key(number))
                });
                store.commit(changes.collect()).await.unwrap();
            }
            Step::Large(value) => {
                let many = (0..300).map(|n| Change::put(format!("placement/{n}"), vec![value]));
                store.commit(many.collect()).await.unwrap();
            }
            Step::Look => {
                let read = match count {
                    None => reader.read_all().await,
                    Some(count) => reader.read_since(count).await,
                };
                if let Ok(read) = read {
                    apply(&mut known, read.news);
                    count = Some(read.count);
                    looks += 1;
                    prop_assert_eq!(&known, &stored(&store).await);
                }
            }
            Step::Trouble(percent) => line.set_trouble(percent),
            Step::Deposed => store = elect(&server).await,
            Step::Forgotten => server.forget_history(),
        }
    }
    prop_assert!(looks > 0);
    Ok(())
}

proptest! {
    #[test]
    fn a_follower_whose_look_was_answered_has_the_newest_state(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(follow(seed, steps))?;
    }
}

/// While a large commit is applied, a follower learns nothing rather than a half of it.
#[tokio::test(start_paused = true)]
async fn a_large_commit_is_seen_whole_or_not_at_all() {
    let server = Simulated::default();
    let store = elect(&server).await;
    store
        .commit(vec![Change::put("epoch", b"1".to_vec())])
        .await
        .unwrap();
    let reader = StateReader::new(Arc::new(server.line(2)), "/weft".parse().unwrap());
    let mut count = reader.read_all().await.unwrap().count;
    let large = (0..2_000).map(|n| Change::put(format!("placement/{n:04}"), vec![7]));
    let committing = store.commit(large.collect());
    let mut committing = std::pin::pin!(committing);
    let (mut refused, mut known) = (0, Entries::new());
    loop {
        tokio::select! {
            done = &mut committing => {
                done.unwrap();
                break;
            }
            read = reader.read_since(count) => match read {
                Ok(read) => {
                    count = read.count;
                    apply(&mut known, read.news);
                    let placed = known.keys().filter(|key| key.starts_with("placement/"));
                    assert!([0, 2_000].contains(&placed.count()));
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 0, "the follower never met a half of it");
    let News::All(all) = reader.read_since(count).await.unwrap().news else {
        panic!("more has changed than a journal names");
    };
    assert_eq!(all.len(), 2_001);
}
