//! Clusters in a mesh, in the oldest Envoy and the newest: a search, a write, a failover, and who is let in.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use weft_cluster::{Api, Binaries, Deadline, Layout, until};

use super::identity::Identities;
use super::manifests::Manifests;
use super::mesh::{Mesh, Own, Plan, envoys, intruders};
use super::translate::{Mounted, Place, Pod};
use crate::support::MASTER_KEY;
use crate::tls::{Authority, ask};

/// Sends a request to a pod past the gateway, and returns what comes back: nothing, if the pod hangs up.
fn ask_directly(host: &str, port: u16) -> String {
    let mut stream = TcpStream::connect((host, port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let request = "GET /health HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n";
    drop(stream.write_all(request.as_bytes()));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// The whole course: documents on two shards of two nodes, found through the filter and through the merger, while a node dies,
/// and after it has come back.
async fn course(plan: Plan) {
    let version = plan.envoy.display().to_string();
    let mesh = plan.start().await;
    let layout = mesh.cluster.layout();

    // The nodes have the names of their pods, though Istio lists their addresses in clusters of its own, too.
    let nodes = mesh.api.get("/_cluster/nodes").await.unwrap();
    let mut names: Vec<&str> = nodes.body["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "weft-shard-0-0",
            "weft-shard-0-1",
            "weft-shard-1-0",
            "weft-shard-1-1"
        ]
    );

    mesh.write("wide", 0..200).await;
    assert_eq!(mesh.found().await, Ok(40), "{version}");
    // A document by its id goes straight to its shard, as soon as the filter has a table.
    let deadline = Deadline::after(Duration::from_secs(20));
    until("a direct read", deadline, || async {
        let one = mesh.api.get("/indexes/wide/documents/7").await.unwrap();
        assert_eq!(one.status, 200, "{}", one.text);
        match mesh.counter("weft_filter_requests_direct_read").await {
            0 => Err("everything goes through the merger".to_owned()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    clients_choose_nothing(&mesh).await;
    pods_let_in_only_who_may(&mesh, layout);
    if let Some(own) = &mesh.own {
        the_merger_lets_in_only_who_has_its_certificate(&mesh, own).await;
    }

    // A node dies: no search fails, and writes go on.
    mesh.cluster.node(0, 0).kill().unwrap();
    let until_then = Instant::now() + Duration::from_secs(3);
    let mut searches = 0;
    while Instant::now() < until_then {
        assert_eq!(mesh.found().await, Ok(40), "{version}, search {searches}");
        let one = mesh
            .api
            .get(&format!("/indexes/wide/documents/{}", searches % 200))
            .await
            .unwrap();
        assert_eq!(one.status, 200, "{version}: {}", one.text);
        searches += 1;
    }
    assert!(searches > 5, "{searches}");
    mesh.write("wide", 200..300).await;
    assert_eq!(mesh.found().await, Ok(60), "{version}");

    // It comes back, with what it missed.
    mesh.cluster.node(0, 0).restart().unwrap();
    mesh.wait_green().await;
    let count = async |replica| {
        let node = Api::new(mesh.cluster.node_url(0, replica), Some(MASTER_KEY));
        node.get("/indexes/wide/stats")
            .await
            .unwrap()
            .at("/numberOfDocuments")
            .as_u64()
    };
    let counts = [count(0).await, count(1).await];
    assert!(
        counts[0] > Some(100) && counts[0] == counts[1],
        "{version}: {counts:?}"
    );
}

/// What a client says about clusters, and the paths between filter, merger and Envoy.
async fn clients_choose_nothing(mesh: &Mesh) {
    let component = if mesh.gateway.is_some() {
        "merger"
    } else {
        "gateway"
    };
    let pattern = mesh
        .manifests
        .merger_variable(component, "WEFT_SHARD_PREFIX");
    let shard = pattern.unwrap().replace("{}", "0");
    for cluster in [shard.as_str(), "weft-node", "node", ""] {
        let headers = [
            ("x-weft-cluster", cluster),
            ("x-envoy-original-dst-host", "127.0.0.1:1"),
        ];
        let path = "/indexes/wide/documents?limit=1000&fields=id";
        let answer = mesh
            .api
            .send(reqwest::Method::GET, path, &headers, Vec::new())
            .await
            .unwrap();
        assert_eq!(
            answer.at("/results").as_array().map(Vec::len),
            Some(200),
            "{cluster}: {}",
            answer.text
        );
    }
    for path in ["/_weft/table", "//_weft/table", "/%5fweft/table"] {
        assert_eq!(mesh.api.get(path).await.unwrap().status, 404, "{path}");
    }
}

/// A node's sidecar takes the gateway's certificate (and the merger's), no other one, and nobody without.
fn pods_let_in_only_who_may(mesh: &Mesh, layout: Layout) {
    let plain = ask_directly("127.0.0.2", layout.node(0, 0));
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
    let [(_, foreign), (_, gateway)] = intruders(layout);
    let answer = ask_directly("127.0.0.1", foreign);
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    // The way is right: with the right certificate, the node answers.
    let answer = ask_directly("127.0.0.1", gateway);
    assert!(answer.contains("available"), "{answer}");
    if mesh.gateway.is_some() {
        let plain = ask_directly("127.0.0.2", layout.merger());
        assert!(!plain.contains("HTTP/1.1"), "{plain}");
    } else {
        let metrics = layout.edge() + 6;
        let answer = ask_directly("127.0.0.1", metrics);
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
}

#[tokio::test]
async fn a_cluster_with_the_merger_in_the_gateways_pod_searches_writes_and_fails_over() {
    for envoy in envoys() {
        course(Plan {
            values: Vec::new(),
            shards: 2,
            replicas: 2,
            apart: false,
            envoy,
        })
        .await;
    }
}

#[tokio::test]
async fn a_cluster_with_the_merger_in_a_pod_of_its_own_searches_writes_and_fails_over() {
    for envoy in envoys() {
        course(Plan {
            values: Vec::new(),
            shards: 2,
            replicas: 2,
            apart: true,
            envoy,
        })
        .await;
    }
}

/// The merger itself, past all proxies: nobody plain, nobody without a certificate, nobody with a foreign one. Its certificate is
/// changed without a restart, at both ends.
async fn the_merger_lets_in_only_who_has_its_certificate(mesh: &Mesh, own: &Own) {
    let port = mesh.cluster.layout().merger();
    let plain = ask_directly("127.0.0.1", port);
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
    let file = |name: &str| own.path().join(name).display().to_string();
    let (authority, certificate, key) = (file("ca.crt"), file("tls.crt"), file("tls.key"));
    assert!(ask(port, Own::NAME, &authority, None).is_err());
    let folder = tempfile::tempdir().unwrap();
    Authority::new("foreign").issue(folder.path(), Own::NAME, 9);
    let foreign = ["tls.crt", "tls.key"].map(|name| folder.path().join(name).display().to_string());
    let [foreign, foreign_key] = &foreign;
    assert!(ask(port, Own::NAME, &authority, Some((foreign, foreign_key))).is_err());
    let asked = || ask(port, Own::NAME, &authority, Some((&certificate, &key)));
    assert_eq!(asked(), Ok((200, 1)));
    own.issue(2);
    let deadline = Deadline::after(Duration::from_secs(30));
    until("the new certificate", deadline, || async {
        match asked() {
            Ok((200, 2)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    assert_eq!(mesh.found().await, Ok(40));
}

#[tokio::test]
async fn with_its_own_tls_the_merger_lets_in_nobody_but_its_envoys_in_either_place() {
    let [oldest, newest] = envoys();
    for (apart, envoy) in [
        (false, oldest.clone()),
        (true, newest.clone()),
        (false, newest),
    ] {
        course(Plan {
            values: vec!["merger.tls.secret=weft-merger-tls".to_owned()],
            shards: 2,
            replicas: 2,
            apart,
            envoy,
        })
        .await;
    }
}

#[tokio::test]
async fn with_sockets_envoy_and_merger_reach_each_other_by_files() {
    for envoy in envoys() {
        course(Plan {
            values: vec!["merger.link=sockets".to_owned()],
            shards: 2,
            replicas: 2,
            apart: false,
            envoy,
        })
        .await;
    }
}

#[test]
fn a_collector_is_told_to_the_merger() {
    let manifests = Manifests::render(&[
        "otlp.endpoint=https://collector:4317",
        "otlp.caSecret=collector",
        "otlp.metrics=true",
        "otlp.sampleRatio=0.25",
    ]);
    let variable = |name| manifests.merger_variable("gateway", name).unwrap();
    for (name, value) in [
        ("WEFT_OTLP_ENDPOINT", "https://collector:4317"),
        ("WEFT_OTLP_METRICS", "true"),
        ("WEFT_OTLP_METRICS_INTERVAL_MS", "15000"),
        ("WEFT_OTLP_SAMPLE_RATIO", "0.25"),
        ("WEFT_OTLP_CA", "/etc/weft/otlp/ca.crt"),
    ] {
        assert_eq!(variable(name), value, "{name}");
    }
    let mounted = manifests.mounts("gateway", "merger", "otlp");
    assert_eq!(mounted.as_deref(), Some("/etc/weft/otlp"));
    let without = Manifests::render(&[]);
    assert_eq!(
        without.merger_variable("gateway", "WEFT_OTLP_ENDPOINT"),
        None
    );
}

#[tokio::test]
async fn with_body_routing_small_writes_go_straight_to_a_shard() {
    let wasm = Binaries::find().unwrap().filter;
    for envoy in envoys() {
        let values = vec![
            "filter.api=none".to_owned(),
            "filter.bodyRouting=true".to_owned(),
            format!("filter.url=file://{}", wasm.display()),
        ];
        let mesh = Plan {
            values,
            shards: 2,
            replicas: 1,
            apart: false,
            envoy,
        }
        .start()
        .await;
        let made = mesh
            .api
            .post("/indexes", &json!({"uid": "wide", "primaryKey": "id"}))
            .await
            .unwrap();
        mesh.api.succeed(&made).await.unwrap();
        let deadline = Deadline::after(Duration::from_secs(30));
        let mut next = 0;
        while mesh.counter("weft_filter_requests_direct_write").await == 0 {
            assert!(!deadline.passed(), "every write goes through the merger");
            mesh.write("wide", next..next + 1).await;
            next += 1;
        }
        let all = mesh
            .api
            .get("/indexes/wide/documents?limit=1000")
            .await
            .unwrap();
        assert_eq!(all.at("/total").as_u64(), Some(next), "{}", all.text);
    }
}

#[test]
fn envoys_take_the_configuration_for_several_mergers() {
    let values = [
        "etcd.endpoints={https://etcd-0:2379,https://etcd-1:2379}",
        "gateway.replicas=3",
        "filter.api=TrafficExtension",
    ];
    let manifests = Manifests::render(&values);
    let identities = Identities::of(&["weft-gateway", "weft-node"]);
    let layout = Layout::new(7700, 3, 2).unwrap();
    let wasm = Binaries::find().unwrap().filter;
    let place = Place {
        manifests: &manifests,
        identities: &identities,
        layout,
        wasm: &wasm,
        access_log: false,
        mounted: &Mounted::default(),
    };
    let whole = place.bootstrap(Pod::GatewayWithMerger);
    let advertised = manifests
        .merger_variable("gateway", "WEFT_ADVERTISE")
        .unwrap();
    assert_eq!(advertised, "$(POD_IP):7704");
    let listeners = whole["static_resources"]["listeners"].as_array().unwrap();
    assert!(
        listeners
            .iter()
            .any(|listener| listener["address"]["socket_address"]["port_value"] == place.peers())
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("envoy.json");
    std::fs::write(&file, whole.to_string()).unwrap();
    for envoy in envoys() {
        let mut command = Command::new(&envoy);
        command.args([
            "--mode",
            "validate",
            "--disable-hot-restart",
            "--log-level",
            "warning",
            "--config-path",
        ]);
        let output = command.arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {text}", envoy.display());
        assert!(
            !text.to_lowercase().contains("deprecated"),
            "{}: {text}",
            envoy.display()
        );
    }
}

#[tokio::test]
async fn mergers_reach_each_other_with_the_gateways_certificate_only() {
    let values = ["etcd.endpoints={http://etcd:2379}", "gateway.replicas=2"];
    let values = values.map(str::to_owned).to_vec();
    let [_, envoy] = envoys();
    let mesh = Plan {
        values,
        shards: 1,
        replicas: 1,
        apart: false,
        envoy,
    }
    .start()
    .await;
    let peers = mesh.cluster.layout().edge() + 5;
    let plain = ask_directly("127.0.0.1", peers);
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
    // As a merger that stands by passes a request on: through its own Envoy, to the address that the leader advertises.
    let egress = Api::new(mesh.cluster.egress_url(), None);
    let leader = format!("127.0.0.1:{peers}");
    let headers = [
        ("x-weft-cluster", "node"),
        ("x-envoy-original-dst-host", leader.as_str()),
    ];
    let sent = egress.send(reqwest::Method::GET, "/health", &headers, Vec::new());
    let answer = sent.await.unwrap();
    assert_eq!(answer.at("/status"), "available", "{}", answer.text);
}
