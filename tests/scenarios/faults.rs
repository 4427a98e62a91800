//! A short form of `make faults`, and the relays with which it cuts connections.

use std::process::Stdio;
use std::time::Duration;

use weft_cluster::{Api, Cluster, Deadline, Line, until};

use crate::support::MASTER_KEY;

/// Fewer rounds, faults and nodes than in `make faults`, with the same promises.
const SHORT: [&str; 7] = [
    "faults",
    "--quick",
    "--rounds=1",
    "--shards=2",
    "--replicas=2",
    "--seed=5",
    "--faults=kill-replica,kill-primary,empty-disk,kill-merger",
];

/// Faults in a row on one cluster, with tasks deleted, mergers restarted and disks replaced between them.
const SEQUENCE: [&str; 7] = [
    "faults",
    "--quick",
    "--sequence=6",
    "--shards=1",
    "--replicas=2",
    "--seed=3",
    "--faults=kill-replica,kill-primary,empty-disk,kill-merger,garbage,cut-off",
];

/// The faults that end a leadership, and one of etcd.
const SEVERAL_MERGERS: [&str; 8] = [
    "faults",
    "--quick",
    "--rounds=1",
    "--shards=1",
    "--replicas=2",
    "--mergers=3",
    "--seed=11",
    "--faults=kill-leader,freeze-leader,cut-leader-from-etcd,kill-all-mergers,etcd-without-quorum",
];

/// Faults in the middle of moves: a shard is emptied, and then filled again.
const MOVE: [&str; 7] = [
    "faults",
    "--quick",
    "--sequence=2",
    "--shards=2",
    "--replicas=2",
    "--seed=2",
    "--faults=move,kill-replica,kill-primary,kill-merger",
];

#[tokio::test]
async fn the_promises_hold_while_slots_move() {
    run_lab(&MOVE).await;
}

#[tokio::test]
async fn the_promises_hold_with_several_mergers_whatever_becomes_of_the_leader() {
    run_lab(&SEVERAL_MERGERS).await;
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_and_no_deleted_document_comes_back_after_any_fault() {
    run_lab(&SHORT).await;
}

#[tokio::test]
async fn the_promises_hold_after_several_faults_in_a_row() {
    run_lab(&SEQUENCE).await;
}

async fn run_lab(arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_weft-lab"))
        .args(arguments)
        .arg("--folder")
        .arg(folder.path().join("faults"))
        .arg("--out")
        .arg(folder.path().join("bench"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let run = tokio::time::timeout(Duration::from_secs(240), run)
        .await
        .expect("the faults take too long")
        .unwrap();
    if !run.status.success() {
        // The logs stay where the output says they are.
        let folder = folder.keep();
        panic!(
            "in {}:\n{}{}",
            folder.display(),
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        );
    }
}

#[tokio::test]
async fn a_relay_can_be_silent_refuse_delay_and_answer_with_garbage() {
    let cluster = Cluster::builder()
        .links(true)
        .master_key(MASTER_KEY)
        .start()
        .await
        .unwrap();
    let link = cluster.link(0, 0).unwrap();
    let front = format!("http://127.0.0.1:{}", cluster.layout().node(0, 0));
    let ask = async || {
        // A new connection each time, as after a fault.
        let health = Api::new(&front, None);
        let patience = Duration::from_secs(1);
        match tokio::time::timeout(patience, health.get("/health")).await {
            Ok(Ok(reply)) => reply.status.to_string(),
            Ok(Err(_)) => "no answer".to_owned(),
            Err(_) => "silence".to_owned(),
        }
    };
    assert_ne!(front, cluster.node_url(0, 0));
    assert_eq!(ask().await, "200");
    for (line, answer) in [
        (Line::Silent, "silence"),
        (Line::ServerErrors, "500"),
        (Line::Garbage, "no answer"),
        (Line::AnswersLost, "no answer"),
    ] {
        link.set(line);
        assert_eq!(ask().await, answer, "{line:?}");
    }
    // The relay's own task closes and opens its port, a moment later.
    for (line, answer) in [(Line::Refused, "no answer"), (Line::Open, "200")] {
        link.set(line);
        until(
            "the changed port",
            Deadline::after(Duration::from_secs(10)),
            || async {
                let said = ask().await;
                if said == answer { Ok(()) } else { Err(said) }
            },
        )
        .await
        .unwrap();
    }
    link.set(Line::Late(Duration::from_millis(300)));
    let asked = std::time::Instant::now();
    assert_eq!(ask().await, "200");
    assert!(asked.elapsed() >= Duration::from_millis(300));
    // The node itself was not affected.
    let node = Api::new(cluster.node_url(0, 0), None);
    assert_eq!(node.get("/health").await.unwrap().status, 200);
}
