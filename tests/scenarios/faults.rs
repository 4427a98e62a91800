//! The short form of `make faults`, and the lines that it cuts.

use std::process::Stdio;
use std::time::Duration;

use weft_cluster::{Api, Cluster, Deadline, Line, until};

use crate::support::MASTER_KEY;

/// Rounds, faults and clusters are fewer than in `make faults`; what is promised is the same.
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

#[tokio::test]
async fn no_acknowledged_write_is_lost_and_no_deleted_one_comes_back_whatever_dies() {
    play(&SHORT).await;
}

#[tokio::test]
async fn what_one_fault_leaves_does_not_make_the_next_one_worse() {
    play(&SEQUENCE).await;
}

async fn play(arguments: &[&str]) {
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
async fn a_line_is_silent_refuses_comes_late_and_is_full_of_nonsense_as_it_is_told() {
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
    // The door is shut and opened by the link's own task, a moment later.
    for (line, answer) in [(Line::Refused, "no answer"), (Line::Open, "200")] {
        link.set(line);
        until(
            "the door",
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
    // The node itself has seen none of this.
    let node = Api::new(cluster.node_url(0, 0), None);
    assert_eq!(node.get("/health").await.unwrap().status, 200);
}
