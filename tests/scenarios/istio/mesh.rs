//! A cluster behind the Envoy configuration that Istio makes of the chart, with mTLS to every node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use weft_cluster::{
    Api, Binaries, Cluster, Deadline, Layout, Lifetime, Process, Program, Sockets, until,
};

use super::identity::Identities;
use super::manifests::Manifests;
use super::translate::{Mounted, Place, Pod};
use crate::support::{MASTER_KEY, documents};
use crate::tls::{Authority, put};

/// What to start.
pub(super) struct Plan {
    pub(super) values: Vec<String>,
    pub(super) shards: u16,
    pub(super) replicas: u16,
    /// The merger in a pod of its own.
    pub(super) apart: bool,
    pub(super) envoy: PathBuf,
}

/// A running cluster with its mesh.
pub(super) struct Mesh {
    pub(super) cluster: Cluster,
    pub(super) api: Api,
    /// The gateway's Envoy, if the merger is elsewhere. The harness's Envoy is then the merger's sidecar.
    pub(super) gateway: Option<Process>,
    pub(super) manifests: Arc<Manifests>,
    /// The secret of the merger's own TLS, if it has one.
    pub(super) own: Option<Own>,
    _identities: Arc<Identities>,
}

pub(super) fn envoys() -> [PathBuf; 2] {
    [
        Binaries::oldest_envoy().unwrap(),
        Binaries::find().unwrap().envoy,
    ]
}

/// The secret with the certificate that Envoy and merger show each other, as it is mounted: `tls.crt`, `tls.key`, `ca.crt`.
pub(super) struct Own {
    pub(super) authority: Authority,
    folder: TempDir,
}

impl Own {
    /// The name in the certificate, which is the chart's default.
    pub(super) const NAME: &str = "weft-merger";

    fn new() -> Self {
        let own = Self {
            authority: Authority::new("own"),
            folder: tempfile::tempdir().unwrap(),
        };
        own.issue(1);
        put(&own.path().join("ca.crt"), &own.authority.pem);
        own
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Another certificate, with this number.
    pub(super) fn issue(&self, serial: u64) {
        self.authority.issue(self.path(), Self::NAME, serial);
    }

    /// Writes what is mounted for Envoy beside the secret, and says where.
    fn write_secrets(&self, manifests: &Manifests, component: &str) -> PathBuf {
        let proxy = "istio-proxy";
        for (volume, path) in [("tls", "/etc/weft/tls"), ("sds", "/etc/weft/sds")] {
            let mounted = manifests.mounts(component, proxy, volume);
            assert_eq!(mounted.as_deref(), Some(path), "{component}");
        }
        let folder = self.path().join("sds");
        let here = self.path().display().to_string();
        let secrets = &manifests.named("ConfigMap", "weft-sds")["data"];
        for (name, text) in secrets.as_object().unwrap() {
            let text = text.as_str().unwrap().replace("/etc/weft/tls", &here);
            put(&folder.join(name), &text);
        }
        folder
    }
}

/// Two free ports of a layout: an intruder's ways to a node, with the certificate of nobody that may, and with the gateway's.
pub(super) fn intruders(layout: Layout) -> [(&'static str, u16); 2] {
    [
        ("other", layout.edge() + 7),
        ("weft-gateway", layout.edge() + 8),
    ]
}

impl Plan {
    pub(super) async fn start(self) -> Mesh {
        let mut values = self.values.clone();
        values.extend([
            format!("shards={}", self.shards),
            format!("replicas={}", self.replicas),
        ]);
        if self.apart {
            values.push("merger.mode=deployment".to_owned());
        }
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let manifests = Arc::new(Manifests::render(&values));
        let accounts = ["weft-gateway", "weft-merger", "weft-node", "other"];
        let identities = Arc::new(Identities::of(&accounts));
        let component = if self.apart { "merger" } else { "gateway" };
        let variable = |name| manifests.merger_variable(component, name).unwrap();
        let has = |value: &str| values.iter().any(|one| one.starts_with(value));
        let own = has("merger.tls.secret=").then(Own::new);
        let secrets = own.as_ref();
        let secrets = secrets.map(|own| own.write_secrets(&manifests, component));
        let by_socket = has("merger.link=sockets");
        let mut builder = Cluster::builder().sockets(None);
        if by_socket {
            assert_eq!(
                (
                    variable("WEFT_LISTEN").as_str(),
                    variable("WEFT_EGRESS").as_str()
                ),
                (
                    "127.0.0.1:7703,unix:/run/weft/merger.sock",
                    "unix:/run/weft/egress.sock"
                )
            );
            for container in ["istio-proxy", "merger"] {
                let mounted = manifests.mounts(component, container, "sockets");
                assert_eq!(mounted.as_deref(), Some("/run/weft"), "{container}");
            }
            builder = builder.sockets(Some(Sockets::BesideTcp));
        }
        if let Some(own) = &own {
            assert_eq!(
                manifests.mounts(component, "merger", "tls").as_deref(),
                Some("/etc/weft/tls")
            );
            let here = own.path().display().to_string();
            for name in ["WEFT_TLS_CERT", "WEFT_TLS_KEY", "WEFT_TLS_CA"] {
                let file = variable(name).replace("/etc/weft/tls", &here);
                builder = builder.merger_env(name, file);
            }
        }
        let direct_writes = has("filter.bodyRouting=true");
        // The ports are known when the harness's own configuration is.
        let here = (self.shards, self.replicas, self.apart);
        let (theirs, certificates) = (Arc::clone(&manifests), Arc::clone(&identities));
        let mounted = Mounted {
            sockets: None,
            secrets: secrets.clone(),
        };
        let cluster = builder
            .shards(self.shards)
            .replicas(self.replicas)
            .master_key(MASTER_KEY)
            .envoy(&self.envoy)
            .merger_env("WEFT_SHARD_PREFIX", variable("WEFT_SHARD_PREFIX"))
            .merger_env("WEFT_DIRECT_WRITES", direct_writes.to_string())
            .edit_envoy(move |printed| {
                let (shards, replicas, apart) = here;
                let layout = Layout::new(base_port(printed), shards, replicas).unwrap();
                let pod = if apart {
                    Pod::Merger
                } else {
                    Pod::GatewayWithMerger
                };
                let mounted = Mounted {
                    sockets: by_socket.then(|| socket_folder(printed)),
                    ..mounted.clone()
                };
                configuration(&theirs, &certificates, layout, (pod, &mounted)).to_string()
            })
            .launch()
            .unwrap();
        let gateway = self.apart.then(|| {
            let layout = cluster.layout();
            let mounted = Mounted {
                sockets: None,
                secrets: own
                    .as_ref()
                    .map(|own| own.write_secrets(&manifests, "gateway")),
            };
            let pod = (Pod::Gateway, &mounted);
            let whole = configuration(&manifests, &identities, layout, pod);
            start_envoy(&self.envoy, cluster.folder(), &whole)
        });
        cluster.wait_ready().await.unwrap();
        let mesh = Mesh {
            api: Api::new(cluster.url(), Some(MASTER_KEY)),
            cluster,
            gateway,
            manifests,
            own,
            _identities: identities,
        };
        mesh.wait_green().await;
        let nodes = u64::from(self.shards * self.replicas);
        let deadline = Deadline::after(Duration::from_secs(30));
        until("the gateway's readiness", deadline, || async {
            match mesh
                .counter("envoy_cluster_membership_healthy{envoy_cluster_name=\"weft-shard-")
                .await
            {
                ready if ready == nodes => Ok(()),
                ready => Err(format!("{ready} nodes get reads from the gateway")),
            }
        })
        .await
        .unwrap();
        mesh
    }
}

fn base_port(printed: &str) -> u16 {
    let printed: Value = serde_yaml::from_str(printed).unwrap();
    let admin = &printed["admin"]["address"]["socket_address"]["port_value"];
    u16::try_from(admin.as_u64().unwrap()).unwrap() - 1
}

/// Where the harness has the sockets between Envoy and merger.
fn socket_folder(printed: &str) -> PathBuf {
    let end = printed.find("/egress.sock").unwrap();
    let begin = printed[..end].rfind('"').unwrap() + 1;
    printed[begin..end].into()
}

fn configuration(
    manifests: &Manifests,
    identities: &Identities,
    layout: Layout,
    (pod, mounted): (Pod, &Mounted),
) -> Value {
    let place = Place {
        manifests,
        identities,
        layout,
        wasm: &Binaries::find().unwrap().filter,
        access_log: true,
        mounted,
    };
    let mut whole = place.bootstrap(pod);
    if pod != Pod::Gateway {
        for (account, port) in intruders(layout) {
            place.add_intruder(&mut whole, account, port, layout.node(0, 0));
        }
    }
    whole
}

fn start_envoy(envoy: &Path, folder: &Path, configuration: &Value) -> Process {
    let file = folder.join("gateway.yaml");
    std::fs::write(&file, configuration.to_string()).unwrap();
    let program = Program {
        name: "gateway".to_owned(),
        executable: envoy.to_owned(),
        arguments: vec![
            "--config-path".into(),
            file.into(),
            "--log-level".into(),
            "warning".into(),
            "--concurrency".into(),
            "2".into(),
            "--disable-hot-restart".into(),
        ],
        environment: Vec::new(),
        folder: folder.join("data/gateway"),
        log: folder.join("logs/gateway.log"),
    };
    Process::start(program, Lifetime::WithUs).unwrap()
}

impl Mesh {
    /// Waits until all replicas are in sync, answer and get reads.
    pub(super) async fn wait_green(&self) {
        let deadline = Deadline::after(Duration::from_secs(90));
        until("a green cluster", deadline, || async {
            let health = self
                .api
                .get("/_cluster/health")
                .await
                .map_err(|error| error.line())?;
            if health.at("/status") == "green" {
                return Ok(());
            }
            let nodes = self
                .api
                .get("/_cluster/nodes")
                .await
                .map_err(|error| error.line())?;
            Err(format!("{}\n{}", health.text, nodes.text))
        })
        .await
        .unwrap();
    }

    /// A counter of the gateway's Envoy, by the end of its name.
    pub(super) async fn counter(&self, name: &str) -> u64 {
        let port = self.cluster.layout().admin();
        let host = if self.gateway.is_some() {
            "127.0.0.3"
        } else {
            "127.0.0.1"
        };
        let admin = Api::new(format!("http://{host}:{port}"), None);
        let stats = admin.get("/stats/prometheus").await.unwrap().text;
        let lines = stats
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains(name));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    pub(super) async fn write(&self, index: &str, ids: std::ops::Range<u64>) {
        let path = format!("/indexes/{index}/documents");
        let answer = self.api.post(&path, &documents(ids)).await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text);
        self.api.succeed(&answer).await.unwrap();
    }

    /// Searches, and says how many documents are found; `Err` for what isn't a whole answer.
    pub(super) async fn found(&self) -> Result<u64, String> {
        let search = json!({"q": "amber", "hitsPerPage": 5});
        let answer = self.api.post("/indexes/wide/search", &search).await;
        let answer = answer.map_err(|error| error.line())?;
        match answer.at("/totalHits").as_u64() {
            Some(total) if answer.status == 200 => Ok(total),
            _ => Err(answer.text),
        }
    }
}
