//! TLS at the edge and mTLS to the nodes: who is let in, who isn't, and that certificates are changed without a restart.
//!
//! Nodes here speak plain HTTP; an Envoy of the test's own stands in front of them and speaks TLS in their place, as a node with
//! `--ssl-cert-path`, `--ssl-auth-path` and `--ssl-require-auth` would.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use weft_cluster::{Api, Binaries, Cluster, Layout, Lifetime, PortBlock, Process, Program, until};

use super::{Authority, Certificates, ask, put, soon};
use crate::support::documents;

/// The distance from a node's port to the one at which TLS is spoken for it.
pub(super) const ENCRYPTED: u16 = 40;

impl Certificates {
    /// The arguments of `weft config envoy`.
    fn arguments(&self) -> Vec<String> {
        let options = [
            ("--tls-cert", self.file("edge", "tls.crt")),
            ("--tls-key", self.file("edge", "tls.key")),
            ("--tls-clients-ca", self.file("edge", "ca.pem")),
            ("--tls-nodes-ca", self.file("to-nodes", "ca.pem")),
            ("--tls-nodes-cert", self.file("to-nodes", "tls.crt")),
            ("--tls-nodes-key", self.file("to-nodes", "tls.key")),
            ("--sds-dir", self.file("sds", "")),
        ];
        let pairs = options.into_iter();
        pairs
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
    }
}

/// The program that speaks TLS in the nodes' place.
pub(super) fn in_front_of(layout: Layout, certificates: &Certificates, folder: &Path) -> Program {
    let source = |name: &str| {
        json!({"name": name, "sds_config": {"resource_api_version": "V3",
        "path_config_source": {"path": certificates.file("node-sds", &format!("{name}.json"))}}})
    };
    let secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let watched = json!({"path": certificates.folder("node")});
    let own = json!({
        "certificate_chain": {"filename": certificates.file("node", "tls.crt")},
        "private_key": {"filename": certificates.file("node", "tls.key")},
        "watched_directory": watched,
    });
    let trusted = json!({
        "trusted_ca": {"filename": certificates.file("node", "ca.pem")},
        "watched_directory": watched,
    });
    for (name, kind, value) in [
        ("own", "tls_certificate", own),
        ("ca", "validation_context", trusted),
    ] {
        let file = certificates.folder("node-sds").join(format!("{name}.json"));
        put(
            &file,
            &json!({"resources": [{"@type": secret, "name": name, kind: value}]}).to_string(),
        );
    }
    let address =
        |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let ports = || {
        layout
            .nodes()
            .map(|(shard, replica)| layout.node(shard, replica))
    };
    let listeners = ports().map(|port| json!({
        "name": format!("tls-{port}"),
        "address": address(port + ENCRYPTED),
        "filter_chains": [{
            "filters": [{"name": "tcp", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "node", "cluster": format!("node-{port}"),
            }}],
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": {
                    "tls_certificate_sds_secret_configs": [source("own")],
                    "validation_context_sds_secret_config": source("ca"),
                },
            }},
        }],
    }));
    let clusters = ports().map(|port| {
        json!({
            "name": format!("node-{port}"), "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": format!("node-{port}"),
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]},
        })
    });
    let configuration = json!({
        // Without it, Envoy reads no certificates from other files.
        "node": {"id": "nodes", "cluster": "nodes"},
        "static_resources": {
            "listeners": listeners.collect::<Vec<_>>(), "clusters": clusters.collect::<Vec<_>>(),
        },
    });
    let file = folder.join("nodes.json");
    put(&file, &configuration.to_string());
    let arguments = [
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "--log-level",
        "warning",
        "--config-path",
    ];
    Program {
        name: "tls-nodes".to_owned(),
        executable: Binaries::find().unwrap().envoy,
        arguments: arguments
            .into_iter()
            .map(Into::into)
            .chain([file.into()])
            .collect(),
        environment: Vec::new(),
        folder: folder.to_owned(),
        log: folder.join("tls-nodes.log"),
    }
}

/// Everything that runs, and the ways to it.
struct Encrypted {
    certificates: Certificates,
    cluster: Cluster,
    in_front: Process,
    _folder: TempDir,
    _ports: PortBlock,
}

impl Encrypted {
    async fn start(authority: &Authority, foreign: &Authority) -> Self {
        let certificates = Certificates::new();
        for (of, name, serial) in [
            ("edge", "search.example", 1),
            ("client", "shop.example", 2),
            ("to-nodes", "weft.example", 3),
            ("node", "127.0.0.1", 4),
        ] {
            certificates.give(authority, of, name, serial);
        }
        foreign.issue(&certificates.folder("foreign"), "shop.example", 9);
        let ports = PortBlock::claim(100).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(ports.base(), 2, 1).unwrap();
        let program = in_front_of(layout, &certificates, folder.path());
        let in_front = Process::start(program, Lifetime::WithUs).unwrap();
        let cluster = Cluster::builder()
            .shards(2)
            .at(ports.base(), folder.path().join("cluster"))
            .envoy_args(certificates.arguments())
            .edit_envoy(move |printed| {
                layout
                    .nodes()
                    .fold(printed.to_owned(), |text, (shard, replica)| {
                        let port = layout.node(shard, replica);
                        let of = |port: u16| format!("port_value: {port} }}");
                        text.replace(&of(port), &of(port + ENCRYPTED))
                    })
            })
            .launch()
            .unwrap();
        let started = Self {
            certificates,
            cluster,
            in_front,
            _folder: folder,
            _ports: ports,
        };
        started.wait_for_edge(1).await;
        started
    }

    /// The merger, which speaks plain HTTP beside Envoy: what it asks of nodes goes through Envoy by TLS.
    fn merger(&self) -> Api {
        Api::new(self.cluster.merger_url(), None)
    }

    /// A client of the edge, with the certificate of this owner.
    fn client(&self, of: &str) -> Result<(u64, u64), String> {
        let port = self.cluster.layout().edge();
        self.certificates.ask_as(of, port, "search.example")
    }

    /// A client of a node, with the certificate of this owner.
    fn client_of_node(&self, of: &str) -> Result<(u64, u64), String> {
        let port = self.cluster.layout().node(0, 0) + ENCRYPTED;
        self.certificates.ask_as(of, port, "127.0.0.1")
    }

    /// Waits until the edge shows the certificate with this number.
    async fn wait_for_edge(&self, serial: u64) {
        let look = || async {
            match self.client("client") {
                Ok((200, shown)) if shown == serial => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        until("the edge's certificate", soon(), look).await.unwrap();
    }

    /// Waits until a search of all shards finds all documents, or (`false`) fails because Envoy reaches no node that it may trust.
    async fn wait_for_search(&self, answers: bool) {
        let look = || async {
            let found = self
                .merger()
                .post("/indexes/x/search", &json!({"q": ""}))
                .await;
            let found = found.map_err(|error| error.line())?;
            let as_expected = match answers {
                true => found.at("/estimatedTotalHits") == 50,
                // Once the merger has found it out too, Envoy has no node left to try.
                false => ["TLS_error", "no healthy upstream"]
                    .iter()
                    .any(|why| found.text.contains(why)),
            };
            if as_expected { Ok(()) } else { Err(found.text) }
        };
        until("a search", soon(), look).await.unwrap();
    }
}

#[tokio::test]
async fn only_clients_and_nodes_with_the_right_certificates_take_part_and_these_change_without_a_restart()
 {
    let [first, second, foreign] = ["first", "second", "foreign"].map(Authority::new);
    let all = Encrypted::start(&first, &foreign).await;
    let edge = all.cluster.layout().edge();
    let ready = || async {
        let version = all
            .merger()
            .get("/version")
            .await
            .map_err(|error| error.line())?;
        if version.status == 200 {
            Ok(())
        } else {
            Err(version.text)
        }
    };
    until("the nodes", soon(), ready).await.unwrap();
    let merger = all.merger();
    let accepted = merger
        .post("/indexes/x/documents?primaryKey=id", &documents(0..50))
        .await;
    merger.succeed(&accepted.unwrap()).await.unwrap();
    all.wait_for_search(true).await;

    // Plain, without a certificate, with one of another authority: refused, at the edge and at the nodes.
    let plain = Api::new(format!("http://127.0.0.1:{edge}"), None);
    assert!(plain.get("/health").await.is_err());
    let node = all.cluster.layout().node(0, 0) + ENCRYPTED;
    let plain = Api::new(format!("http://127.0.0.1:{node}"), None);
    assert!(plain.get("/health").await.is_err());
    let ca = all.certificates.file("client", "ca.pem");
    for (port, name) in [(edge, "search.example"), (node, "127.0.0.1")] {
        assert!(ask(port, name, &ca, None).is_err(), "{name}");
    }
    assert!(all.client("foreign").is_err());
    assert!(all.client_of_node("foreign").is_err());
    assert_eq!(all.client_of_node("to-nodes"), Ok((200, 4)));

    // Another certificate at the edge.
    let id = all.cluster.envoy().id();
    first.issue(&all.certificates.folder("edge"), "search.example", 11);
    all.wait_for_edge(11).await;

    // Another authority for the way to the nodes: first both are trusted, then all get new certificates, then only the new one is.
    let both = format!("{}{}", first.pem, second.pem);
    for of in ["to-nodes", "node", "client"] {
        put(&all.certificates.folder(of).join("ca.pem"), &both);
    }
    second.issue(&all.certificates.folder("to-nodes"), "weft.example", 13);
    second.issue(&all.certificates.folder("node"), "127.0.0.1", 14);
    let shown = || async {
        match all.client_of_node("to-nodes") {
            Ok((200, 14)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    until("the nodes' new certificate", soon(), shown)
        .await
        .unwrap();
    for of in ["to-nodes", "node"] {
        put(&all.certificates.folder(of).join("ca.pem"), &second.pem);
    }
    let shut_out = || async {
        match all.client_of_node("client") {
            Err(_) => Ok(()),
            Ok(_) => Err("the old authority's certificate is still taken".to_owned()),
        }
    };
    until("the end of the old authority", soon(), shut_out)
        .await
        .unwrap();
    // Only new connections from here on.
    all.in_front.restart().unwrap();
    all.wait_for_search(true).await;

    // A node that has a certificate of the right authority for another name is no node.
    second.issue(&all.certificates.folder("node"), "127.0.0.9", 24);
    all.in_front.restart().unwrap();
    all.wait_for_search(false).await;
    second.issue(&all.certificates.folder("node"), "127.0.0.1", 34);
    all.wait_for_search(true).await;
    assert_eq!(all.cluster.envoy().id(), id, "Envoy was restarted");
    all.cluster.envoy().check_alive().unwrap();
    all.in_front.kill().unwrap();
}
