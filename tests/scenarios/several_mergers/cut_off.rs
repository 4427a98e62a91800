//! A merger is cut off: from etcd, from the nodes, but not from both.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Line};

use super::load::{INDEX, Load};
use super::{PAUSE, SLACK, assert_nothing_lost, three, under_load, under_load_at_once};

/// Longer than a lease and all that follows from its end.
const HELD: Duration = Duration::from_secs(7);

fn others(pair: usize) -> Vec<usize> {
    (0..3).filter(|other| *other != pair).collect()
}

/// A merger that can't hear etcd calls no node ready and gives filters no table. What it is asked, the leader answers, if it can be
/// reached.
async fn assert_tells_nothing_itself(cluster: &Cluster, pair: usize) {
    let merger = Api::new(cluster.pair(pair).merger_url(), cluster.master_key());
    for path in ["/_weft/ready", "/_weft/table"] {
        assert_eq!(merger.get(path).await.unwrap().status, 503, "{path}");
    }
    let status = status(&cluster.edges()[pair]).await;
    assert!([200, 503].contains(&status), "{status}");
}

/// Reads a document through an edge: the status, or 0 if there is no answer in time.
async fn status(edge: &Api) -> u16 {
    let path = format!("/indexes/{INDEX}/search?q=amber");
    let answer = tokio::time::timeout(Duration::from_secs(3), edge.get(&path)).await;
    answer.map_or(0, |answer| answer.map_or(0, |reply| reply.status))
}

#[tokio::test]
async fn a_leader_cut_off_from_etcd_leads_no_more_and_its_envoy_tells_nothing_stale() {
    for line in [Line::Silent, Line::Refused] {
        let (cluster, load) = under_load(three().links(true)).await;
        let leader = cluster.leader().await.unwrap().unwrap();
        let cut = Instant::now();
        cluster.pair(leader).set_etcd(line).unwrap();
        let next = cluster.wait_leader(Some(leader)).await.unwrap();
        assert_ne!(next, leader);
        for edge in others(leader) {
            load.wait_for_progress_of(edge).await;
        }
        // It can't know what the others have changed since.
        tokio::time::sleep(HELD.saturating_sub(cut.elapsed())).await;
        assert_tells_nothing_itself(&cluster, leader).await;
        cluster.pair(leader).set_etcd(Line::Open).unwrap();
        let noted = assert_nothing_lost(&cluster, load).await;
        let pause = noted.longest_pause(&others(leader), cut);
        assert!(
            pause <= PAUSE + SLACK,
            "{line:?}: writes paused for {pause:?}"
        );
        noted.assert_reads_went_on(&others(leader), cut);
    }
}

#[tokio::test]
async fn a_follower_cut_off_from_etcd_tells_nothing_stale_and_holds_nobody_up_for_long() {
    let (cluster, load) = under_load(three().links(true)).await;
    let leader = cluster.leader().await.unwrap().unwrap();
    let follower = (leader + 1) % 3;
    let cut = Instant::now();
    cluster.pair(follower).set_etcd(Line::Silent).unwrap();
    tokio::time::sleep(HELD).await;
    assert_tells_nothing_itself(&cluster, follower).await;
    cluster.pair(follower).set_etcd(Line::Open).unwrap();
    let noted = assert_nothing_lost(&cluster, load).await;
    assert_eq!(cluster.leader().await.unwrap(), Some(leader));
    let pause = noted.longest_pause(&others(follower), cut);
    assert!(pause <= PAUSE + SLACK, "writes paused for {pause:?}");
    noted.assert_reads_went_on(&others(follower), cut);
}

/// Cuts the leader off from the nodes, and lets another merger lead.
async fn cut_the_leader_off(cluster: &Cluster, load: Load, line: Line) {
    let leader = cluster.leader().await.unwrap().unwrap();
    let cut = Instant::now();
    cluster.pair(leader).set_nodes(line).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Its lease is as good as ever, so an operator has to ask, unless it has stepped down by itself.
    if cluster.leader().await.unwrap() == Some(leader) {
        let api = Api::new(cluster.pair(leader).merger_url(), cluster.master_key());
        let asked = api.post("/_cluster/leader/step-down", &Value::Null).await;
        assert_eq!(asked.unwrap().status, 202, "{line:?}");
    }
    cluster.wait_leader(Some(leader)).await.unwrap();
    for edge in others(leader) {
        load.wait_for_progress_of(edge).await;
    }
    cluster.pair(leader).set_nodes(Line::Open).unwrap();
    let noted = assert_nothing_lost(cluster, load).await;
    noted.assert_reads_went_on(&others(leader), cut);
}

#[tokio::test]
async fn a_leader_cut_off_from_the_nodes_loses_nothing_and_another_can_be_asked_to_lead() {
    for line in [Line::Silent, Line::Refused] {
        let (cluster, load) = under_load(three().links(true)).await;
        cut_the_leader_off(&cluster, load, line).await;
    }
}

#[tokio::test]
async fn a_leader_cut_off_from_the_nodes_when_it_has_just_begun_takes_no_reads_of_others_with_it() {
    for line in [Line::Silent, Line::Refused] {
        let (cluster, load) = under_load_at_once(three().links(true)).await;
        cut_the_leader_off(&cluster, load, line).await;
    }
}

#[tokio::test]
async fn a_follower_cut_off_from_the_nodes_changes_nothing_for_the_others() {
    let (cluster, load) = under_load(three().links(true)).await;
    let leader = cluster.leader().await.unwrap().unwrap();
    let follower = (leader + 1) % 3;
    let cut = Instant::now();
    cluster.pair(follower).set_nodes(Line::Refused).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    // It passes writes on: that needs no node.
    let path = format!("/indexes/{INDEX}/documents");
    let document = json!([{"id": 900_000_001_u64, "name": "amber"}]);
    let edge = &cluster.edges()[follower];
    let added = edge.post(&path, &document).await.unwrap();
    edge.succeed(&added).await.unwrap();
    cluster.pair(follower).set_nodes(Line::Open).unwrap();
    let noted = assert_nothing_lost(&cluster, load).await;
    assert_eq!(cluster.leader().await.unwrap(), Some(leader));
    noted.assert_reads_went_on(&others(follower), cut);
    let pause = noted.longest_pause(&others(follower), cut);
    assert!(
        pause <= Duration::from_secs(2),
        "writes paused for {pause:?}"
    );
}
