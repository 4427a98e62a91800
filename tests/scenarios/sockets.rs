//! Envoy and the merger reach each other over Unix sockets: everything is as over TCP, and no port is open between them.

use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;
use weft_cluster::{Api, Cluster, Deadline, EGRESS_SOCKET, MERGER_SOCKET, Sockets, until};

use crate::support::{MASTER_KEY, documents, start};

async fn write(api: &Api, ids: std::ops::Range<u64>) {
    let path = "/indexes/x/documents?primaryKey=id";
    let accepted = api.post(path, &documents(ids)).await.unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    api.succeed(&accepted).await.unwrap();
}

async fn total(api: &Api) -> u64 {
    let page = json!({"q": "", "page": 1, "hitsPerPage": 1});
    let found = api.post("/indexes/x/search", &page).await.unwrap();
    assert_eq!(found.status, 200, "{}", found.text);
    found.at("/totalHits").as_u64().unwrap()
}

async fn wait_green(api: &Api) {
    let deadline = Deadline::after(Duration::from_secs(60));
    until("a green cluster", deadline, || async {
        let health = api.get("/_cluster/health").await;
        let health = health.map_err(|error| error.line())?;
        match health.at("/status") == "green" {
            true => Ok(()),
            false => Err(health.text),
        }
    })
    .await
    .unwrap();
}

fn is_open(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[tokio::test]
async fn a_cluster_whose_merger_has_no_port_searches_writes_and_survives_restarts() {
    let builder = Cluster::builder().shards(2).replicas(2);
    let (cluster, api) = start(builder.sockets(Some(Sockets::Alone))).await;
    let layout = cluster.layout();
    assert!(!is_open(layout.merger()) && !is_open(layout.egress()));
    for name in [MERGER_SOCKET, EGRESS_SOCKET] {
        let file = std::fs::metadata(cluster.socket(0, name)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}");
    }
    write(&api, 0..200).await;
    assert_eq!(total(&api).await, 200);
    // By its death the merger leaves its socket behind, and so does Envoy.
    cluster.merger().kill().unwrap();
    cluster.merger().restart().unwrap();
    cluster.wait_ready().await.unwrap();
    write(&api, 200..300).await;
    assert_eq!(total(&api).await, 300);
    cluster.envoy().kill().unwrap();
    cluster.envoy().restart().unwrap();
    cluster.wait_ready().await.unwrap();
    assert_eq!(total(&api).await, 300);
    // A write that a dead replica missed: readiness takes it out, and lets it in again when it has caught up.
    cluster.node(0, 1).kill().unwrap();
    write(&api, 300..400).await;
    cluster.wait_node_readable(0, 1, false).await.unwrap();
    assert_eq!(total(&api).await, 400);
    cluster.node(0, 1).restart().unwrap();
    cluster.wait_node_readable(0, 1, true).await.unwrap();
    wait_green(&api).await;
    assert_eq!(total(&api).await, 400);
}

#[tokio::test]
async fn a_hanging_replica_is_raced_by_the_other_over_sockets_too() {
    let builder = Cluster::builder().shards(1).replicas(2);
    let (cluster, api) = start(builder.sockets(Some(Sockets::Alone))).await;
    write(&api, 0..50).await;
    wait_green(&api).await;
    // Envoy keeps to the merger's per-try timeouts only where it takes its requests for internal ones.
    cluster.node(0, 0).pause().unwrap();
    for _ in 0..6 {
        let began = std::time::Instant::now();
        assert_eq!(total(&api).await, 50);
        assert!(began.elapsed() < Duration::from_secs(4));
    }
    cluster.node(0, 0).resume().unwrap();
}

#[tokio::test]
async fn a_merger_that_follows_on_sockets_passes_writes_on_to_another_one() {
    let builder = Cluster::builder().shards(2).mergers(2);
    let builder = builder.sockets(Some(Sockets::BesideTcp));
    let cluster = builder.master_key(MASTER_KEY).start().await.unwrap();
    let leader = cluster.wait_leader(None).await.unwrap();
    let edges = cluster.edges();
    let follower = &edges[1 - leader];
    write(follower, 0..100).await;
    assert_eq!(total(follower).await, 100);
    cluster.pair(leader).merger().kill().unwrap();
    cluster.wait_leader(Some(leader)).await.unwrap();
    write(follower, 100..200).await;
    assert_eq!(total(follower).await, 200);
}
