use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use weft_routing::placement::ShardId;

use super::*;
use crate::cluster::{NodeId, NodeRef};
use crate::store::memory::MemoryStore;

const AFTER: Duration = Duration::from_secs(60);

fn node(name: &str) -> NodeRef {
    NodeRef {
        id: NodeId::from(name.to_owned()),
        address: SocketAddr::from(([127, 0, 0, 1], 7)),
    }
}

/// `a0 sound`, `a1 61`: a member of shard 0 that has been away for 61 seconds. The letter says the shard.
fn member(text: &str) -> Member {
    let (name, state) = text.split_once(' ').unwrap();
    Member {
        id: node(name).id,
        shard: ShardId(u16::from(name.as_bytes()[0] - b'a')),
        sound: state == "sound",
        away_for: state.parse().ok().map(Duration::from_secs),
    }
}

fn choice(shard: u16, out: &str, spare: &str) -> Choice {
    Choice {
        shard: ShardId(shard),
        out: node(out).id,
        spare: node(spare),
    }
}

fn check(
    members: &[&str],
    spares: &[&str],
    before: &[Replacement],
    expected: &[(u16, &str, &str)],
) {
    let members: Vec<Member> = members.iter().map(|text| member(text)).collect();
    let spares: Vec<NodeRef> = spares.iter().map(|name| node(name)).collect();
    let expected = expected
        .iter()
        .map(|(shard, out, spare)| choice(*shard, out, spare));
    assert_eq!(
        choose(&members, &spares, before, AFTER),
        expected.collect::<Vec<_>>()
    );
}

#[test]
fn who_has_been_away_for_long_enough_gets_a_replacement() {
    check(&["a0 sound", "a1 59"], &["s"], &[], &[]);
    check(&["a0 sound", "a1 60"], &["s"], &[], &[(0, "a1", "s")]);
    check(&["a0 sound", "a1 here"], &["s"], &[], &[]);
    check(&["a0 sound", "a1 60"], &[], &[], &[]);
}

#[test]
fn without_a_source_nothing_is_replaced() {
    check(&["a0 here", "a1 60"], &["s"], &[], &[]);
    check(&["a0 70", "a1 60"], &["s"], &[], &[]);
    // What is sound elsewhere helps nobody here.
    check(&["a0 60", "b0 sound"], &["s"], &[], &[]);
}

#[test]
fn a_spare_is_taken_once_and_a_shard_gets_one_at_a_time() {
    let two = ["a0 sound", "a1 60", "b0 sound", "b1 61"];
    check(&two, &["s"], &[], &[(1, "b1", "s")]);
    check(
        &two,
        &["t", "s", "s"],
        &[],
        &[(1, "b1", "s"), (0, "a1", "t")],
    );
    let one = ["a0 sound", "a1 60", "a2 61"];
    check(&one, &["s", "t"], &[], &[(0, "a2", "s")]);
    // One that stands in a shard already is no spare, whatever list it is on.
    check(&["a0 sound", "a1 60", "b0 sound"], &["b0"], &[], &[]);
}

#[test]
fn what_is_under_way_is_waited_for() {
    let mut before = vec![Replacement::new(
        1,
        &choice(0, "a9", "s"),
        Vec::new(),
        now_utc(),
    )];
    let members = ["a0 sound", "a1 60", "b0 sound", "b1 60"];
    check(&members, &["s", "t"], &before, &[(1, "b1", "t")]);
    before[0].taking = false;
    check(
        &members,
        &["s", "t"],
        &before,
        &[(0, "a1", "s"), (1, "b1", "t")],
    );
}

proptest! {
    /// Whoever is away, and whatever is spare: each choice is for another shard and another spare, for a member that is away,
    /// where another one is sound, and no member is put in a second place.
    #[test]
    fn no_choice_is_a_bad_one(
        members in prop::collection::vec((0_u16..4, prop::bool::ANY, prop::option::of(0_u64..120)), 0..12),
        spares in prop::collection::vec(0_usize..16, 0..6),
    ) {
        let members: Vec<Member> = members.into_iter().enumerate().map(|(number, (shard, sound, away))| Member {
            id: node(&format!("n{number}")).id,
            shard: ShardId(shard),
            sound,
            away_for: away.map(Duration::from_secs),
        }).collect();
        // Some of them are members.
        let spares: Vec<NodeRef> = spares.iter().map(|number| node(&format!("n{number}"))).collect();
        let choices = choose(&members, &spares, &[], AFTER);
        for (place, one) in choices.iter().enumerate() {
            let out = members.iter().find(|member| member.id == one.out).unwrap();
            prop_assert!(out.shard == one.shard && out.away_for >= Some(AFTER) && !out.sound);
            prop_assert!(members.iter().any(|other| other.shard == one.shard && other.sound));
            prop_assert!(spares.contains(&one.spare));
            prop_assert!(members.iter().all(|member| member.id != one.spare.id));
            for other in &choices[..place] {
                prop_assert!(other.shard != one.shard && other.spare != one.spare);
            }
        }
    }
}

async fn open(store: &Arc<MemoryStore>) -> Replacements {
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    Replacements::open(store).await.unwrap()
}

#[tokio::test]
async fn what_was_decided_is_the_same_after_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let spares = open(&store).await;
    assert!(spares.take(&choice(0, "a1", "s")).await.unwrap());
    assert!(
        !spares.take(&choice(1, "b1", "s")).await.unwrap(),
        "the spare is taken"
    );
    assert!(
        !spares.take(&choice(0, "a2", "t")).await.unwrap(),
        "one at a time"
    );
    assert!(spares.take(&choice(1, "b1", "t")).await.unwrap());
    spares.settle(1).await.unwrap();
    let again = open(&store).await;
    assert_eq!(again.all(), spares.all());
    let states: Vec<_> = again
        .all()
        .iter()
        .map(|one| (one.number, one.taking))
        .collect();
    assert_eq!(states, [(1, false), (2, true)]);
}

#[tokio::test]
async fn a_place_has_one_record_that_knows_all_who_had_it() {
    let store = Arc::new(MemoryStore::default());
    let spares = open(&store).await;
    for (number, (out, spare)) in [("a1", "s"), ("s", "t"), ("t", "a1")]
        .into_iter()
        .enumerate()
    {
        assert!(spares.take(&choice(0, out, spare)).await.unwrap());
        spares
            .settle(u64::try_from(number).unwrap() + 1)
            .await
            .unwrap();
    }
    let all = spares.all();
    assert_eq!(all.len(), 1);
    let names: Vec<&str> = all[0].names.iter().map(NodeId::as_str).collect();
    assert_eq!(
        (names, all[0].spare.as_str(), all[0].number),
        (vec!["s", "t"], "a1", 3)
    );
    // An operator gave its first place back, and it is spare again.
    assert!(spares.take(&choice(1, "b1", "a1")).await.unwrap());
    let all = spares.all();
    assert_eq!(all.len(), 1, "a node has one place: {all:?}");
    assert_eq!(open(&store).await.all(), all);
}

#[tokio::test]
async fn a_follower_applies_what_the_leader_stores() {
    let (leader, follower) = (
        Arc::new(MemoryStore::default()),
        Arc::new(MemoryStore::default()),
    );
    let (leads, follows) = (open(&leader).await, open(&follower).await);
    leads.take(&choice(0, "a1", "s")).await.unwrap();
    let stored = leader.range(PREFIX).await.unwrap();
    let news: Vec<Changed> = stored
        .iter()
        .map(|(key, stored)| (key.clone(), Some(stored.value.clone())))
        .collect();
    follows.apply(&news).unwrap();
    assert_eq!(follows.all(), leads.all());
    assert_eq!(follows.keys(), [news[0].0.clone()]);
    let broken = vec![(news[0].0.clone(), Some(b"?".to_vec()))];
    assert_eq!(follows.apply(&broken), Err(news[0].0.clone()));
    follows.apply(&[(news[0].0.clone(), None)]).unwrap();
    assert!(follows.all().is_empty());
}
