//! Mergers are restarted: one after the other, or all at once.

use std::time::Instant;

use super::{PAUSE, SLACK, assert_nothing_lost, three, under_load};

#[tokio::test]
async fn a_rolling_restart_of_all_mergers_is_a_short_pause_of_writes_and_no_failed_read() {
    let (cluster, load) = under_load(three()).await;
    let begun = Instant::now();
    for pair in cluster.pairs() {
        pair.merger().terminate().unwrap();
        pair.merger().restart().unwrap();
        cluster.wait_ready().await.unwrap();
    }
    let noted = assert_nothing_lost(&cluster, load).await;
    let all = [0, 1, 2];
    let pause = noted.longest_pause(&all, begun);
    assert!(pause <= PAUSE + SLACK, "writes paused for {pause:?}");
    // Through the Envoy of the merger that restarts, too: Envoy tries again until it is back.
    noted.assert_reads_went_on(&all, begun);
}

#[tokio::test]
async fn all_mergers_may_be_killed_at_once() {
    let (cluster, load) = under_load(three()).await;
    for pair in cluster.pairs() {
        pair.merger().kill().unwrap();
    }
    for pair in cluster.pairs() {
        pair.merger().restart().unwrap();
    }
    assert_nothing_lost(&cluster, load).await;
}

#[tokio::test]
async fn everything_but_the_nodes_may_be_killed_at_once() {
    let (cluster, load) = under_load(three().etcd(3)).await;
    let gateway = || cluster.pairs().iter();
    let processes = gateway().flat_map(|pair| [pair.merger(), pair.envoy()]);
    let processes: Vec<_> = processes.chain(cluster.etcd()).collect();
    for process in &processes {
        process.kill().unwrap();
    }
    for process in processes.iter().rev() {
        process.restart().unwrap();
    }
    assert_nothing_lost(&cluster, load).await;
}
