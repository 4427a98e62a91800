//! TLS on every way at once: three mergers that share an etcd by mTLS, reach nodes by mTLS through their Envoys, and each other by
//! TLS. All certificates are changed while it runs.

use serde_json::Value;
use tempfile::TempDir;
use weft_cluster::{Api, Cluster, Layout, Lifetime, PortBlock, Process, until};

use super::nodes::{ENCRYPTED, in_front_of};
use super::{Authority, Certificates, ask, soon};
use crate::support::documents;

/// Everybody's certificate is for this address.
const HERE: &str = "127.0.0.1";
/// Who has a certificate. Clients of mergers, nodes and etcd have one, too.
const EVERYBODY: [&str; 6] = ["envoy", "merger", "to-nodes", "node", "etcd", "client"];

struct Everywhere {
    certificates: Certificates,
    cluster: Cluster,
    _in_front: Process,
    _folder: TempDir,
    _ports: PortBlock,
}

impl Everywhere {
    fn start(authority: &Authority) -> Self {
        let certificates = Certificates::new();
        for (of, serial) in EVERYBODY.into_iter().zip(1..) {
            certificates.give(authority, of, HERE, serial);
        }
        let ports = PortBlock::claim(300).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(ports.base(), 2, 1).unwrap();
        let program = in_front_of(layout, &certificates, folder.path());
        let in_front = Process::start(program, Lifetime::WithUs).unwrap();
        let file = |of: &str, name: &str| certificates.file(of, name);
        let envoy = [
            ("--tls-nodes-ca", file("to-nodes", "ca.pem")),
            ("--tls-nodes-cert", file("to-nodes", "tls.crt")),
            ("--tls-nodes-key", file("to-nodes", "tls.key")),
            ("--tls-mergers-ca", file("envoy", "ca.pem")),
            ("--tls-mergers-cert", file("envoy", "tls.crt")),
            ("--tls-mergers-key", file("envoy", "tls.key")),
            ("--sds-dir", file("sds", "")),
        ];
        let envoy = envoy.into_iter();
        let mut builder = Cluster::builder()
            .shards(2)
            .mergers(3)
            .etcd(3)
            .etcd_tls(["tls.crt", "tls.key", "ca.pem"].map(|name| file("etcd", name).into()))
            .at(ports.base(), folder.path().join("cluster"))
            .envoy_args(envoy.flat_map(|(name, value)| [name.to_owned(), value]))
            .edit_envoy(move |printed| {
                layout
                    .nodes()
                    .fold(printed.to_owned(), |text, (shard, replica)| {
                        let port = layout.node(shard, replica);
                        let of = |port: u16| format!("port_value: {port} }}");
                        text.replace(&of(port), &of(port + ENCRYPTED))
                    })
            });
        for (variable, name) in [("CERT", "tls.crt"), ("KEY", "tls.key"), ("CA", "ca.pem")] {
            for prefix in ["WEFT_TLS", "WEFT_ETCD"] {
                let variable = format!("{prefix}_{variable}");
                builder = builder.merger_env(variable, file("merger", name));
            }
        }
        Self {
            cluster: builder.launch().unwrap(),
            certificates,
            _in_front: in_front,
            _folder: folder,
            _ports: ports,
        }
    }

    /// Who leads and who follows, once that is settled: the pairs' numbers, the leader's first.
    async fn roles(&self) -> Vec<usize> {
        let look = || async {
            let listed = self.edge(0).get("/_cluster/mergers").await;
            let listed = listed.map_err(|error| error.line())?;
            let mergers = listed.at("/mergers").as_array();
            let mergers = mergers.ok_or_else(|| listed.text.clone())?;
            let in_role = |role: &'static str| {
                let those = mergers.iter().filter(move |one| one["role"] == role);
                those.filter_map(|one| self.pair_of(one["address"].as_str()?))
            };
            let all: Vec<usize> = in_role("leader").chain(in_role("follower")).collect();
            match (in_role("leader").count(), all.len()) {
                (1, 3) => Ok(all),
                _ => Err(listed.text.clone()),
            }
        };
        until("a leader and two followers", soon(), look)
            .await
            .unwrap()
    }

    fn pair_of(&self, address: &str) -> Option<usize> {
        let mut pairs = self.cluster.pairs().iter();
        pairs.position(|pair| address == format!("{HERE}:{}", pair.layout().merger()))
    }

    fn edge(&self, pair: usize) -> Api {
        Api::new(self.cluster.pair(pair).url(), None)
    }

    /// Writes through one pair's Envoy, as soon as that is possible, and waits until searches through it find all of `total`.
    async fn write_and_search(&self, pair: usize, ids: std::ops::Range<u64>, total: u64) {
        let edge = self.edge(pair);
        let written = || async {
            let path = "/indexes/x/documents?primaryKey=id";
            let accepted = edge.post(path, &documents(ids.clone())).await;
            let accepted = accepted.map_err(|error| error.line())?;
            match accepted.status {
                202 => Ok(accepted),
                _ => Err(accepted.text),
            }
        };
        let accepted = until("a write", soon(), written).await.unwrap();
        edge.succeed(&accepted).await.unwrap();
        let found = || async {
            let found = edge.get("/indexes/x/search?q=&hitsPerPage=1").await;
            let found = found.map_err(|error| error.line())?;
            match found.at("/totalHits") == total {
                true => Ok(()),
                false => Err(found.text),
            }
        };
        until("a search", soon(), found).await.unwrap();
    }

    /// Every port that wants a certificate, and who shows one there.
    fn guarded(&self) -> Vec<(u16, &'static str)> {
        let layout = self.cluster.layout();
        let mergers = (0..3).map(|pair| (layout.pair(pair).merger(), "merger"));
        let nodes = (0..2).map(|shard| (layout.node(shard, 0) + ENCRYPTED, "node"));
        let etcd = (0..3).flat_map(|member| {
            let (clients, members) = layout.etcd(member);
            [(clients, "etcd"), (members, "etcd")]
        });
        mergers.chain(nodes).chain(etcd).collect()
    }

    /// Waits until everybody shows a certificate of this generation.
    async fn wait_for_certificates(&self, generation: u64) {
        for (port, owner) in self.guarded() {
            let place = EVERYBODY.iter().position(|one| *one == owner).unwrap();
            let serial = generation + place as u64 + 1;
            let look = || async {
                match self.certificates.ask_as("client", port, HERE) {
                    // What etcd's members say to each other is no answer to a client's question.
                    Ok((200 | 404, shown)) if shown == serial => Ok(()),
                    other => Err(format!("{owner} at {port}: {other:?}")),
                }
            };
            until("a certificate", soon(), look).await.unwrap();
        }
    }
}

/// How many requests this pair's Envoy has brought to the merger that leads.
async fn passed_on(cluster: &Cluster, pair: usize) -> u64 {
    let admin = Api::new(cluster.pair(pair).admin_url(), None);
    let stats = admin
        .get("/stats?filter=cluster.peer.upstream_rq_2xx")
        .await;
    let text = stats.unwrap().text;
    let count = text.trim().rsplit(": ").next();
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn three_mergers_etcd_and_nodes_know_each_other_by_certificates_that_change_meanwhile() {
    let [authority, foreign] = ["ours", "foreign"].map(Authority::new);
    let all = Everywhere::start(&authority);
    let roles = all.roles().await;
    let (leader, follower) = (roles[0], roles[1]);
    // Until its Envoy calls the follower healthy, another merger answers there.
    let through_follower = || async {
        all.write_and_search(follower, 0..50, 50).await;
        match passed_on(&all.cluster, follower).await {
            0 => Err("nothing was passed on".to_owned()),
            _ => Ok(()),
        }
    };
    until(
        "a write that a follower passes on",
        soon(),
        through_follower,
    )
    .await
    .unwrap();
    all.wait_for_certificates(0).await;

    // Plain, without a certificate, with a foreign one: nobody lets that in.
    all.certificates.give(&foreign, "foreign", HERE, 9);
    let ca = all.certificates.file("client", "ca.pem");
    for (port, owner) in all.guarded() {
        let plain = Api::new(format!("http://{HERE}:{port}"), None);
        let refused = match plain.get("/health").await {
            Err(_) => true,
            // Go's servers say in plain HTTP that they speak TLS.
            Ok(answer) => answer.status == 400 && owner == "etcd",
        };
        assert!(refused, "{owner} at {port}");
        assert!(ask(port, HERE, &ca, None).is_err(), "{owner} at {port}");
        let as_stranger = all.certificates.ask_as("foreign", port, HERE);
        assert!(as_stranger.is_err(), "{owner} at {port}");
    }

    // Everybody gets another certificate, and nobody is restarted.
    let ids: Vec<Option<u32>> = all.cluster.processes().map(|one| one.id()).collect();
    for (of, serial) in EVERYBODY.into_iter().zip(21..) {
        authority.issue(&all.certificates.folder(of), HERE, serial);
    }
    all.wait_for_certificates(20).await;
    all.write_and_search(follower, 50..80, 80).await;
    // Another one leads: what it needs of others goes over connections of its own.
    let edge = all.edge(leader);
    let stepped = edge.post("/_cluster/leader/step-down", &Value::Null);
    assert_eq!(stepped.await.unwrap().status, 202);
    let other = || async {
        match all.roles().await {
            roles if roles[0] != leader => Ok(roles),
            roles => Err(format!("{roles:?}")),
        }
    };
    let roles = until("another leader", soon(), other).await.unwrap();
    for (pair, from) in roles.into_iter().zip([80, 90, 100]) {
        all.write_and_search(pair, from..from + 10, from + 10).await;
    }
    let now: Vec<Option<u32>> = all.cluster.processes().map(|one| one.id()).collect();
    assert_eq!(now, ids, "a process has ended");
}
