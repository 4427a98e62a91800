//! etcd loses a member, or its majority.

use std::time::{Duration, Instant};

use super::{PAUSE, SLACK, assert_nothing_lost, three, under_load};

#[tokio::test]
async fn a_member_of_etcd_that_dies_is_hardly_noticed() {
    for member in 0..3 {
        let (cluster, load) = under_load(three().etcd(3)).await;
        let killed = Instant::now();
        cluster.etcd()[member].kill().unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        cluster.etcd()[member].restart().unwrap();
        let noted = assert_nothing_lost(&cluster, load).await;
        let pause = noted.longest_pause(&[0, 1, 2], killed);
        assert!(pause <= PAUSE + SLACK, "member {member}: {pause:?}");
    }
}

#[tokio::test]
async fn without_a_majority_of_etcd_nothing_is_acknowledged_and_with_it_all_goes_on() {
    let (cluster, load) = under_load(three().etcd(3)).await;
    for member in &cluster.etcd()[..2] {
        member.kill().unwrap();
    }
    // The leader's lease is over by then, and what it had accepted is settled or waits.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let accepted = load.noted().accepted_writes();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(load.noted().accepted_writes(), accepted);
    for member in &cluster.etcd()[..2] {
        member.restart().unwrap();
    }
    let back = Instant::now();
    load.wait_for_a_write().await;
    let pause = back.elapsed();
    // etcd's own election comes before the mergers'.
    assert!(pause <= PAUSE * 2, "writes went on only after {pause:?}");
    assert_nothing_lost(&cluster, load).await;
}
