//! Nodes behind Envoys of their own whose filter is a guard: what a leader has sent arrives after its successor has written.

use std::time::Duration;

use serde_json::json;
use weft_cluster::{Api, Cluster, Deadline, Line, until};

use super::{assert_replicas_equal, held, load::INDEX, wait_green};
use crate::support::MASTER_KEY;

/// Larger than everything else that an Envoy sends to nodes in the meantime.
const LARGE: usize = 100_000;

/// The sum of the figures in an Envoy's admin interface whose names end so.
async fn figure(admin: &str, name: &str) -> u64 {
    let stats = Api::new(admin.to_owned(), None).get("/stats").await;
    let value = |line: &str| {
        let (known, value) = line.split_once(": ")?;
        known.ends_with(name).then(|| value.parse::<u64>().ok())?
    };
    stats.unwrap().text.lines().filter_map(value).sum()
}

/// The sum of a figure of all guards.
async fn of_guards(cluster: &Cluster, name: &str) -> u64 {
    let mut sum = 0;
    for replica in 0..2 {
        let admin = cluster.guard_admin_url(0, replica).unwrap();
        sum += figure(&admin, name).await;
    }
    sum
}

async fn write(edge: &Api, what: &str) -> Result<(), String> {
    let document = json!([{"id": 1, "what": what}]);
    let path = format!("/indexes/{INDEX}/documents?primaryKey=id");
    let accepted = edge.post(&path, &document).await;
    let accepted = accepted.map_err(|error| error.line())?;
    match accepted.status {
        202 => edge
            .succeed(&accepted)
            .await
            .map(drop)
            .map_err(|error| error.line()),
        _ => Err(accepted.text),
    }
}

#[tokio::test]
async fn what_a_frozen_leader_had_sent_is_refused_when_it_arrives_after_its_successors_writes() {
    let builder = Cluster::builder().replicas(2).mergers(3).guards();
    let cluster = builder.master_key(MASTER_KEY).start().await.unwrap();
    let leader = cluster.wait_leader(None).await.unwrap();
    let edges = cluster.edges();
    write(&edges[leader], "before").await.unwrap();
    let first_term = of_guards(&cluster, "weft_filter_guard_term").await;
    assert!(first_term > 0, "writes carry no term");

    // From here on, what the leader sends to nodes is on its way, and doesn't arrive.
    let pair = cluster.pair(leader);
    let admin = pair.admin_url();
    let sent = || figure(&admin, "upstream_cx_tx_bytes_total");
    pair.set_nodes(Line::Silent).unwrap();
    let before = sent().await;
    let late = tokio::spawn({
        let edge = edges[leader].clone();
        async move { write(&edge, &"late ".repeat(LARGE / 5)).await }
    });
    let deadline = Deadline::after(Duration::from_secs(20));
    until("the write to be on its way", deadline, || async {
        // The edge sends it to the merger, and the merger to two nodes.
        match sent().await - before {
            bytes if bytes > 5 * LARGE as u64 / 2 => Ok(()),
            bytes => Err(format!("{bytes} bytes")),
        }
    })
    .await
    .unwrap();
    pair.merger().pause().unwrap();

    let next = cluster.wait_leader(Some(leader)).await.unwrap();
    let deadline = Deadline::after(Duration::from_secs(30));
    until("a write by the next leader", deadline, || {
        write(&edges[next], "after")
    })
    .await
    .unwrap();
    assert_eq!(of_guards(&cluster, "weft_filter_guard_refused").await, 0);

    pair.set_nodes(Line::Open).unwrap();
    let deadline = Deadline::after(Duration::from_secs(30));
    until("a refused write", deadline, || async {
        match of_guards(&cluster, "weft_filter_guard_refused").await {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    assert!(of_guards(&cluster, "weft_filter_guard_term").await > first_term);

    pair.merger().resume().unwrap();
    assert!(late.await.unwrap().is_err(), "it was acknowledged");
    cluster.wait_ready().await.unwrap();
    wait_green(&edges[next]).await;
    for edge in &edges {
        assert_eq!(held(edge).await, [json!({"id": 1, "what": "after"})]);
    }
    assert_replicas_equal(&cluster).await;
}
