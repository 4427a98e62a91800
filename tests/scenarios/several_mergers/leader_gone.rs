//! The leader is killed or frozen: another merger leads, and nothing that was acknowledged is lost or given twice.

use std::time::{Duration, Instant};

use serde_json::json;
use weft_cluster::Cluster;

use super::load::{INDEX, Load};
use super::{PAUSE, SLACK, assert_nothing_lost, three, under_load};

fn others(pair: usize) -> Vec<usize> {
    (0..3).filter(|other| *other != pair).collect()
}

#[tokio::test]
async fn when_the_leader_is_killed_writes_go_on_soon_and_reads_at_once() {
    let (cluster, load) = under_load(three()).await;
    let leader = cluster.leader().await.unwrap().unwrap();
    let killed = Instant::now();
    cluster.pair(leader).merger().kill().unwrap();
    let next = cluster.wait_leader(Some(leader)).await.unwrap();
    for edge in others(leader) {
        load.wait_for_progress_of(edge).await;
    }
    cluster.pair(leader).merger().restart().unwrap();
    let noted = assert_nothing_lost(&cluster, load).await;
    assert_ne!(next, leader);
    let pause = noted.longest_pause(&others(leader), killed);
    assert!(pause <= PAUSE + SLACK, "writes paused for {pause:?}");
    noted.assert_reads_went_on(&others(leader), killed);
}

#[tokio::test]
async fn a_follower_that_is_killed_is_missed_by_its_own_envoy_only() {
    let (cluster, load) = under_load(three()).await;
    let leader = cluster.leader().await.unwrap().unwrap();
    let follower = (leader + 1) % 3;
    let killed = Instant::now();
    cluster.pair(follower).merger().kill().unwrap();
    for edge in others(follower) {
        load.wait_for_progress_of(edge).await;
    }
    cluster.pair(follower).merger().restart().unwrap();
    let noted = assert_nothing_lost(&cluster, load).await;
    assert_eq!(cluster.leader().await.unwrap(), Some(leader));
    noted.assert_reads_went_on(&others(follower), killed);
    // The next write may wait for the lease of the dead merger.
    let pause = noted.longest_pause(&others(follower), killed);
    assert!(pause <= PAUSE + SLACK, "writes paused for {pause:?}");
}

/// A larger write through this pair's Envoy, of which nobody waits for the end.
fn import(cluster: &Cluster, pair: usize, first: u64) -> tokio::task::JoinHandle<Option<u64>> {
    let edge = cluster.edges()[pair].clone();
    let documents: serde_json::Value = (first..first + 3_000)
        .map(|id| json!({"id": id, "name": format!("imported number {id}")}))
        .collect();
    tokio::spawn(async move {
        let path = format!("/indexes/{INDEX}/documents");
        let sent = edge.post(&path, &documents);
        let answer = tokio::time::timeout(Duration::from_secs(20), sent).await;
        answer.ok()?.ok()?.at("/taskUid").as_u64()
    })
}

#[tokio::test]
async fn a_leader_that_was_frozen_in_the_middle_of_a_write_does_no_harm_when_it_wakes() {
    let (cluster, load) = under_load(three()).await;
    let leader = cluster.leader().await.unwrap().unwrap();
    let imports: Vec<_> = others(leader)
        .into_iter()
        .map(|edge| import(&cluster, edge, 100_000_000 * (edge as u64 + 1)))
        .collect();
    // Long enough that something of them is under way, whatever it is.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let frozen = Instant::now();
    cluster.pair(leader).merger().pause().unwrap();
    let next = cluster.wait_leader(Some(leader)).await.unwrap();
    assert_ne!(next, leader);
    // The successor has written before the old leader wakes.
    for edge in others(leader) {
        load.wait_for_progress_of(edge).await;
    }
    cluster.pair(leader).merger().resume().unwrap();
    let accepted = futures_util::future::join_all(imports).await;
    let edge = &cluster.edges()[next];
    for task in accepted.into_iter().filter_map(Result::unwrap) {
        let reply = edge.get(&format!("/tasks/{task}")).await.unwrap();
        assert_eq!(
            reply.status, 200,
            "an import's task is gone: {}",
            reply.text
        );
    }
    let noted = assert_nothing_lost(&cluster, load).await;
    noted.assert_reads_went_on(&others(leader), frozen);
    let pause = noted.longest_pause(&others(leader), frozen);
    assert!(pause <= PAUSE + SLACK, "writes paused for {pause:?}");
}

#[tokio::test]
async fn when_the_leaders_envoy_is_killed_the_other_envoys_go_on_once_it_is_back() {
    let (cluster, load): (Cluster, Load) = under_load(three()).await;
    let leader = cluster.leader().await.unwrap().unwrap();
    let killed = Instant::now();
    cluster.pair(leader).envoy().kill().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.pair(leader).envoy().restart().unwrap();
    let noted = assert_nothing_lost(&cluster, load).await;
    noted.assert_reads_went_on(&others(leader), killed);
}
