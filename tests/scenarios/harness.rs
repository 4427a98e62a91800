//! The harness itself works as documented; all other scenarios rely on that.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use weft_cluster::{Cluster, Deadline, PortBlock, Process, Single, until};

/// True if the process exists and isn't a zombie.
fn is_running(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn ids(cluster: &Cluster) -> Vec<u32> {
    cluster.processes().filter_map(Process::id).collect()
}

#[tokio::test]
async fn nothing_is_left_of_a_cluster_that_is_dropped() {
    let cluster = Cluster::builder().shards(2).start().await.unwrap();
    let (ids, folder) = (ids(&cluster), cluster.folder().to_owned());
    assert_eq!(ids.len(), 4);
    assert!(ids.iter().all(|id| is_running(*id)) && folder.is_dir());
    drop(cluster);
    assert!(!ids.iter().any(|id| is_running(*id)) && !folder.exists());
}

#[tokio::test]
async fn nothing_is_left_of_a_cluster_whose_test_panics() {
    let cluster = Cluster::builder().start().await.unwrap();
    let ids = ids(&cluster);
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _cluster = cluster;
        std::panic::resume_unwind(Box::new("as a failed assertion does"));
    }));
    assert!(panicked.is_err());
    assert!(!ids.iter().any(|id| is_running(*id)));
}

#[tokio::test]
async fn a_node_can_be_killed_wiped_and_restarted() {
    let cluster = Cluster::builder().replicas(2).start().await.unwrap();
    let node = cluster.node(0, 1);
    let first = node.id().unwrap();
    node.kill().unwrap();
    assert_eq!(node.id(), None);
    assert!(!is_running(first));
    node.wipe().unwrap();
    node.restart().unwrap();
    assert_ne!(node.id(), Some(first));
    cluster.wait_ready().await.unwrap();
}

#[tokio::test]
async fn a_program_that_ends_by_itself_fails_the_start_with_its_log() {
    let cluster = Cluster::builder()
        .merger_env("WEFT_LISTEN", "nonsense")
        .launch()
        .unwrap();
    let error = cluster.wait_ready().await.unwrap_err().to_string();
    assert!(error.starts_with("merger ended by itself"), "{error}");
}

#[tokio::test]
async fn a_node_that_hangs_answers_again_when_it_is_resumed() {
    let single = Single::start(None).await.unwrap();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let health = format!("{}/health", single.url());
    single.process().pause().unwrap();
    assert!(client.get(&health).send().await.is_err());
    single.process().resume().unwrap();
    until(
        "an answer",
        Deadline::after(Duration::from_secs(10)),
        || async {
            client
                .get(&health)
                .send()
                .await
                .map_err(|error| error.to_string())
        },
    )
    .await
    .unwrap();
}

#[test]
fn blocks_of_ports_never_overlap() {
    // Several threads claim blocks of different widths at the same time, as tests do.
    let claim = |width: u32| (width, PortBlock::claim(width).unwrap());
    let claimed: Vec<_> = std::thread::scope(|scope| {
        let threads =
            [1, 11, 35].map(|first| scope.spawn(move || (first..first + 12).map(claim).collect()));
        let joined: [Vec<_>; 3] = threads.map(|thread| thread.join().unwrap());
        joined.into_iter().flatten().collect()
    });
    let mut spans: Vec<_> = claimed
        .iter()
        .map(|(width, block)| (u32::from(block.base()), *width))
        .collect();
    spans.sort_unstable();
    assert!(
        spans.is_sorted_by(|(one, width), (next, _)| one + width <= *next),
        "{spans:?}"
    );
}
