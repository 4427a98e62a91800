//! What Envoy does for the cluster: where requests may go, which nodes get reads, and what happens when a process dies.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_cluster::{Api, Cluster, Deadline, until};

/// A read through the egress listener, as the merger sends them.
const READ: [(&str, &str); 1] = [("x-weft-cluster", "shard-0")];

/// Sends a read through the egress listener. Returns the status, and Envoy's mark if the answer is Envoy's own.
async fn read(egress: &Api) -> String {
    let sent = egress.send(reqwest::Method::GET, "/health", &READ, Vec::new());
    match sent.await {
        Ok(reply) => match reply.headers.get("x-weft-envoy") {
            Some(mark) => format!("{} {mark:?}", reply.status),
            None => reply.status.to_string(),
        },
        Err(error) => error.line(),
    }
}

/// The value of one of Envoy's counters.
async fn counter(cluster: &Cluster, name: &str) -> u64 {
    let admin = Api::new(cluster.admin_url(), None);
    let stats = admin
        .get(&format!("/stats?format=json&filter=^{name}$"))
        .await
        .unwrap()
        .body;
    stats["stats"][0]["value"].as_u64().unwrap_or_default()
}

/// The cluster to which the edge sent the request for this path, according to its access log.
async fn went_to(cluster: &Cluster, path: &str) -> String {
    until(
        "the access log",
        Deadline::after(Duration::from_secs(15)),
        || async {
            let log = std::fs::read_to_string(cluster.envoy().log()).unwrap_or_default();
            log.lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["path"] == path && line["listener"] == "edge")
                .map(|line| line["cluster"].as_str().unwrap_or_default().to_owned())
                .ok_or_else(|| format!("no line for {path}"))
        },
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn a_client_cannot_choose_its_cluster() {
    for filter in [true, false] {
        let cluster = Cluster::builder()
            .filter(filter)
            .access_log("all")
            .start()
            .await
            .unwrap();
        let edge = Api::new(cluster.url(), None);
        let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        elsewhere.set_nonblocking(true).unwrap();
        let address = elsewhere.local_addr().unwrap().to_string();
        for (number, chosen) in ["shard-0", "node", "merger", ""].into_iter().enumerate() {
            let path = format!("/nowhere-{number}");
            let headers = [
                ("x-weft-cluster", chosen),
                ("x-weft-shards", "0"),
                ("x-envoy-original-dst-host", address.as_str()),
                ("x-envoy-upstream-rq-timeout-ms", "1"),
            ];
            edge.send(reqwest::Method::GET, &path, &headers, Vec::new())
                .await
                .unwrap();
            assert_eq!(
                went_to(&cluster, &path).await,
                "merger",
                "filter: {filter}, header: {chosen}"
            );
        }
        assert!(
            elsewhere.accept().is_err(),
            "a request went to the address that the client named"
        );
    }
}

/// Sends a path exactly as it is written, which HTTP clients don't.
fn status_of_raw_path(port: u16, path: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn clients_cannot_reach_the_internal_paths() {
    for filter in [true, false] {
        let cluster = Cluster::builder().filter(filter).start().await.unwrap();
        let merger = Api::new(cluster.merger_url(), None);
        assert_eq!(
            merger.get("/_weft/table").await.unwrap().status,
            200,
            "the merger doesn't answer it"
        );
        for path in [
            "/_weft",
            "/_weft/table",
            "/_weft/ready",
            "//_weft/table",
            "/_weft//table",
            "/%5fweft/table",
            "/%5F%77%65%66%74/table",
            "/_weft/table?epoch=0",
            "/./_weft/table",
            "/x/../_weft/table",
            "/%2f_weft/table",
            "/%2e/_weft/table",
        ] {
            assert_eq!(
                status_of_raw_path(cluster.layout().edge(), path),
                404,
                "{path}, filter: {filter}"
            );
        }
    }
}

#[tokio::test]
async fn all_nodes_still_get_reads_while_the_merger_is_down_or_hangs() {
    let cluster = Cluster::builder()
        .sockets(None)
        .replicas(2)
        .start()
        .await
        .unwrap();
    let egress = Api::new(cluster.egress_url(), None);
    for hang in [true, false] {
        if hang {
            cluster.merger().pause()
        } else {
            cluster.merger().kill()
        }
        .unwrap();
        let failures = "cluster.shard-0.health_check.network_failure";
        let before = counter(&cluster, failures).await;
        until(
            "five failed health checks",
            Deadline::after(Duration::from_secs(30)),
            || async {
                let now = counter(&cluster, failures).await;
                if now >= before + 5 {
                    Ok(())
                } else {
                    Err(format!("{before}, {now}"))
                }
            },
        )
        .await
        .unwrap();
        assert_eq!(read(&egress).await, "200");
        assert_eq!(
            counter(&cluster, "cluster.shard-0.membership_healthy").await,
            2
        );
        if hang {
            cluster.merger().resume().unwrap();
        }
    }
}

#[tokio::test]
async fn no_read_fails_while_a_replica_dies() {
    let cluster = Cluster::builder()
        .sockets(None)
        .replicas(2)
        .start()
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (egress, stop) = (Api::new(cluster.egress_url(), None), stop.clone());
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    statuses.push(read(&egress).await);
                }
                statuses
            })
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.node(0, 1).kill().unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.node(0, 1).restart().unwrap();
        cluster.wait_ready().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let answers = reader.await.unwrap();
        let failed: Vec<_> = answers.iter().filter(|answer| *answer != "200").collect();
        assert!(
            answers.len() > 10 && failed.is_empty(),
            "of {} reads: {failed:?}",
            answers.len()
        );
    }
}

#[tokio::test]
async fn reads_of_a_hanging_replica_are_also_sent_to_the_other() {
    let cluster = Cluster::builder()
        .sockets(None)
        .replicas(2)
        .start()
        .await
        .unwrap();
    let egress = Api::new(cluster.egress_url(), None);
    cluster.node(0, 0).pause().unwrap();
    let mut raced = 0;
    for _ in 0..12 {
        let began = Instant::now();
        assert_eq!(read(&egress).await, "200");
        // Envoy asks the other replica after half a second; the rest is for a busy machine.
        assert!(began.elapsed() < Duration::from_secs(4));
        raced += usize::from(began.elapsed() > Duration::from_millis(400));
    }
    cluster.node(0, 0).resume().unwrap();
    println!("{raced} of 12 reads met the hanging replica first");
}

#[tokio::test]
async fn a_write_to_one_node_is_never_sent_twice_or_to_another_node() {
    let cluster = Cluster::builder()
        .sockets(None)
        .replicas(2)
        .start()
        .await
        .unwrap();
    let egress = Api::new(cluster.egress_url(), None);
    let dead = format!("127.0.0.1:{}", cluster.layout().node(0, 1));
    cluster.node(0, 1).kill().unwrap();
    let headers = [
        ("x-weft-cluster", "node"),
        ("x-envoy-original-dst-host", dead.as_str()),
    ];
    let reply = egress
        .send(reqwest::Method::POST, "/indexes", &headers, "{}")
        .await
        .unwrap();
    assert_eq!(reply.status, 503);
    assert!(
        reply.headers.contains_key("x-weft-envoy"),
        "the answer isn't marked as Envoy's own: {reply:?}"
    );
    assert_eq!(counter(&cluster, "cluster.node.upstream_rq_retry").await, 0);
}

/// Sends chunks of empty lines, which NDJSON ignores, and one document at the end. Returns the answer's status.
fn upload_lines(port: u16, path: &str, megabytes: usize) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = "host: weft\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\nconnection: close";
    write!(stream, "POST {path} HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
    let lines = vec![b'\n'; 1 << 20];
    for _ in 0..megabytes {
        write!(stream, "{:x}\r\n", lines.len()).unwrap();
        stream.write_all(&lines).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"8\r\n{\"id\":1}\r\n0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_large_body_is_not_buffered_in_envoy() {
    const MEGABYTES: usize = 512;
    for filter in [true, false] {
        let cluster = Cluster::builder().filter(filter).start().await.unwrap();
        let port = cluster.layout().edge();
        // A small upload first, so that Envoy has allocated what it allocates only once.
        upload_lines(port, "/indexes/lines/documents?primaryKey=id", 1);
        let before = cluster.envoy().resident_bytes().unwrap();
        let upload = tokio::task::spawn_blocking(move || {
            upload_lines(port, "/indexes/lines/documents?primaryKey=id", MEGABYTES)
        });
        let mut most = before;
        while !upload.is_finished() {
            most = most.max(cluster.envoy().resident_bytes().unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(upload.await.unwrap(), 202, "filter: {filter}");
        let grown = (most - before) >> 20;
        assert!(
            grown < 32,
            "Envoy grew by {grown} MiB during {MEGABYTES} MiB; filter: {filter}"
        );
    }
}
