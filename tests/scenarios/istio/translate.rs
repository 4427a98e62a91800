//! What istiod makes of the chart's manifests: the Envoy configuration of one pod.
//!
//! Everything here runs on one machine, so each pod has a loopback address of its own in the place of its network, and the ports
//! are the harness's. Nothing else of a manifest is changed; what isn't known here is refused.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weft_cluster::Layout;

use super::identity::{Identities, principal};
use super::manifests::{Manifests, NAMESPACE, RELEASE};
use super::patches::Patches;

/// Where what runs on this machine is found.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) manifests: &'a Manifests,
    pub(super) identities: &'a Identities,
    pub(super) layout: Layout,
    pub(super) wasm: &'a Path,
    pub(super) access_log: bool,
    pub(super) mounted: &'a Mounted,
}

/// Where the folders of a pod's volumes are.
#[derive(Debug, Default, Clone)]
pub(super) struct Mounted {
    /// The sockets between Envoy and merger.
    pub(super) sockets: Option<PathBuf>,
    /// The secrets that Envoy reads.
    pub(super) secrets: Option<PathBuf>,
}

/// A file of a volume, on this machine.
fn on_this_machine(file: &mut Value, volume: &str, folder: Option<&PathBuf>) {
    let path = file.as_str().unwrap();
    if let Some(name) = path.strip_prefix(volume) {
        let folder = folder.unwrap_or_else(|| panic!("nothing is mounted for {path}"));
        *file = folder.join(name).display().to_string().into();
    }
}

/// A pod with a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pod {
    /// The gateway, with the merger beside it.
    GatewayWithMerger,
    /// The gateway alone.
    Gateway,
    /// The merger with its Istio sidecar.
    Merger,
}

/// The loopback interface of the pod that has the merger, where the harness starts it.
const HERE: &str = "127.0.0.1";
/// The addresses at which pods are reached from others: what comes there meets the pod's sidecar.
const PODS: &str = "127.0.0.2";
/// The loopback interface of a gateway that is alone in its pod.
const THERE: &str = "127.0.0.3";

impl Pod {
    fn component(self) -> &'static str {
        match self {
            Self::GatewayWithMerger | Self::Gateway => "gateway",
            Self::Merger => "merger",
        }
    }

    fn context(self) -> &'static str {
        match self {
            Self::GatewayWithMerger | Self::Gateway => "GATEWAY",
            Self::Merger => "SIDECAR_OUTBOUND",
        }
    }

    fn account(self) -> String {
        format!("{RELEASE}-{}", self.component())
    }

    fn loopback(self) -> &'static str {
        match self {
            Self::GatewayWithMerger | Self::Merger => HERE,
            Self::Gateway => THERE,
        }
    }
}

impl Place<'_> {
    /// The whole configuration of a pod's proxy; for the pod with the merger also that of the nodes' sidecars.
    pub(super) fn bootstrap(&self, pod: Pod) -> Value {
        let mut patches = Patches::of(self.manifests, pod.component(), pod.context());
        let mut listeners = match pod.context() {
            "GATEWAY" => vec![self.edge(&mut patches)],
            _ => Vec::new(),
        };
        listeners.extend(patches.added("LISTENER"));
        let mut clusters = self.clusters_of_services(pod);
        clusters.extend(patches.added("CLUSTER"));
        patches.assert_all_applied();
        let mut whole = json!({
            "node": {"id": format!("router~127.0.0.1~{}.{NAMESPACE}~{NAMESPACE}.svc.cluster.local", pod.account()), "cluster": pod.account()},
            "admin": {"address": socket(pod.loopback(), self.layout.admin())},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        });
        let filled_in = self.identities.fill_in(&pod.account(), &mut whole);
        assert!(filled_in > 0, "nothing in this proxy has a certificate");
        self.place(pod, &mut whole);
        if pod != Pod::Gateway {
            self.add_sidecars(pod, &mut whole);
        }
        whole
    }

    /// The port that this one is here.
    fn port(&self, port: u64) -> u16 {
        match port {
            7700 => self.layout.edge(),
            7702 => self.layout.egress(),
            7703 => self.layout.merger(),
            7704 => self.peers(),
            7705 => self.layout.edge() + 6,
            other => panic!("no listener was expected at port {other}"),
        }
    }

    /// Where other gateways reach the merger.
    pub(super) fn peers(&self) -> u16 {
        self.layout.edge() + 5
    }

    /// Puts addresses of this machine in the place of all others.
    fn place(&self, pod: Pod, value: &mut Value) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(|one| self.place(pod, one)),
            Value::Object(members) => {
                if let Some(address) = members.get_mut("socket_address") {
                    self.place_address(pod, address);
                } else if let Some(pipe) = members.get_mut("pipe") {
                    let folder = self.mounted.sockets.as_ref();
                    on_this_machine(&mut pipe["path"], "/run/weft/", folder);
                } else if let Some(source) = members.get_mut("path_config_source") {
                    let folder = self.mounted.secrets.as_ref();
                    on_this_machine(&mut source["path"], "/etc/weft/sds/", folder);
                } else {
                    members.values_mut().for_each(|one| self.place(pod, one));
                }
            }
            _ => {}
        }
    }

    fn place_address(&self, pod: Pod, socket: &mut Value) {
        let port = socket["port_value"].as_u64().unwrap();
        let host = socket["address"].as_str().unwrap().to_owned();
        if host.starts_with("127.0.0.") && port == u64::from(self.layout.admin()) || host == PODS {
            return;
        }
        let (host, port) = match host.as_str() {
            "127.0.0.1" => (pod.loopback(), self.port(port)),
            "0.0.0.0" => (HERE, self.port(port)),
            name => {
                assert_eq!(port, 7700, "{name}");
                (PODS, self.node_by_name(name))
            }
        };
        *socket = json!({"address": host, "port_value": port});
    }

    /// The port of the node with this DNS name, which a StatefulSet and its Service give it.
    fn node_by_name(&self, name: &str) -> u16 {
        let nodes = self.layout.nodes();
        let found = nodes.into_iter().find(|(shard, replica)| {
            let set = format!("{RELEASE}-shard-{shard}");
            let service = &self.manifests.named("StatefulSet", &set)["spec"]["serviceName"];
            let service = service.as_str().unwrap();
            name == format!("{set}-{replica}.{service}.{NAMESPACE}.svc.cluster.local")
        });
        let (shard, replica) = found.unwrap_or_else(|| panic!("no pod is called {name}"));
        self.layout.node(shard, replica)
    }

    /// The clusters that Istio makes for each Service, whether or not anybody uses them.
    fn clusters_of_services(&self, pod: Pod) -> Vec<Value> {
        let services = self.manifests.of_kind("Service");
        let ours =
            services.filter(|service| service["metadata"]["name"] != format!("{RELEASE}-gateway"));
        ours.map(|service| {
            let name = service["metadata"]["name"].as_str().unwrap();
            let host = format!("{name}.{NAMESPACE}.svc.cluster.local");
            let port = service["spec"]["ports"][0]["port"].as_u64().unwrap();
            let rules = self.manifests.of_kind("DestinationRule");
            let rules: Vec<_> = rules.filter(|rule| rule["spec"]["host"] == host).collect();
            assert_eq!(rules.len(), 1, "{host}");
            assert_eq!(rules[0]["spec"]["trafficPolicy"]["tls"]["mode"], "ISTIO_MUTUAL");
            let endpoints = match name.strip_prefix("weft-shard-") {
                Some(shard) => {
                    let shard = shard.parse().unwrap();
                    let nodes = 0..self.layout.replicas();
                    nodes.map(|replica| self.layout.node(shard, replica)).collect()
                }
                None => vec![self.layout.merger()],
            };
            let endpoints: Vec<Value> = endpoints
                .into_iter()
                .map(|port| json!({"endpoint": {"address": socket(PODS, port)}}))
                .collect();
            let cluster = format!("outbound|{port}||{host}");
            json!({
                "name": cluster,
                "type": "STATIC",
                "connect_timeout": "1s",
                "transport_socket": self.identities.upstream(&pod.account(), None),
                "load_assignment": {"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}]},
            })
        })
        .collect()
    }

    /// The listener of the Gateway, with the filter and the routes of the VirtualService.
    fn edge(&self, patches: &mut Patches<'_>) -> Value {
        let gateway = self.manifests.named("Gateway", RELEASE);
        let pod = &self.manifests.template("gateway")["metadata"]["labels"];
        for (name, value) in gateway["spec"]["selector"].as_object().unwrap() {
            assert_eq!(pod[name], *value, "the Gateway doesn't select its pods");
        }
        let server = &gateway["spec"]["servers"][0];
        assert_eq!(server["port"]["protocol"], "HTTP");
        let port = server["port"]["number"].as_u64().unwrap();
        let mut filters: Vec<Value> = self.filter().into_iter().collect();
        filters.push(json!({
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }));
        // As istiod makes it for a gateway.
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": format!("outbound_0.0.0.0_{port}"),
            "server_name": "istio-envoy",
            "use_remote_address": true,
            "normalize_path": true,
            "proxy_100_continue": true,
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"subject": true, "cert": true, "dns": true, "uri": true},
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "http_filters": filters,
            "route_config": {"name": format!("http.{port}"), "virtual_hosts": self.virtual_hosts(port)},
        });
        if self.access_log {
            manager["access_log"] = json!([{
                "name": "envoy.access_loggers.stdout",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
                    "log_format": {"json_format": {"path": "%REQ(:PATH)%", "status": "%RESPONSE_CODE%", "cluster": "%UPSTREAM_CLUSTER%", "flags": "%RESPONSE_FLAGS%"}},
                },
            }]);
        }
        let mut listener = json!({
            "name": format!("0.0.0.0_{port}"),
            "address": socket("0.0.0.0", u16::try_from(port).unwrap()),
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
        });
        patches.apply_to_listener(&mut listener, port);
        listener
    }

    fn virtual_hosts(&self, port: u64) -> Vec<Value> {
        let service = self.manifests.named("VirtualService", RELEASE);
        assert_eq!(service["spec"]["gateways"], json!([RELEASE]));
        let routes: Vec<Value> = service["spec"]["http"]
            .as_array()
            .unwrap()
            .iter()
            .map(|route| {
                let regex = &route["match"][0]["uri"]["regex"];
                let status = &route["directResponse"]["status"];
                assert!(regex.is_string() && status.is_u64(), "{route}");
                json!({"match": {"safe_regex": {"regex": regex}}, "direct_response": {"status": status}})
            })
            .collect();
        let hosts = service["spec"]["hosts"].as_array().unwrap().iter();
        hosts
            .map(|host| {
                let host = host.as_str().unwrap();
                json!({"name": format!("{host}:{port}"), "domains": [host], "routes": routes})
            })
            .collect()
    }

    /// The filter of a WasmPlugin or TrafficExtension. Istio's agent fetches the module and names the file that it made of it.
    fn filter(&self) -> Option<Value> {
        let kinds = ["WasmPlugin", "TrafficExtension"].into_iter();
        let found = kinds.flat_map(|kind| {
            let all = self
                .manifests
                .selecting(kind, "/spec/selector/matchLabels", "gateway");
            all.map(move |manifest| match kind {
                "WasmPlugin" => &manifest["spec"],
                _ => &manifest["spec"]["wasm"],
            })
        });
        let found: Vec<&Value> = found.collect();
        assert!(found.len() < 2);
        let plugin = found.first()?;
        assert!(plugin.get("phase").is_none());
        Some(json!({
            "name": "extensions.istio.io/wasmplugin/search.weft",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": {
                    "name": format!("{NAMESPACE}.{RELEASE}"),
                    "root_id": plugin["pluginName"],
                    "failure_policy": plugin["failStrategy"],
                    "vm_config": {
                        "runtime": "envoy.wasm.runtime.v8",
                        "code": {"local": {"filename": self.wasm.display().to_string()}},
                        "environment_variables": {"key_values": {"ISTIO_META_WASM_IMAGE_PULL_POLICY": plugin["imagePullPolicy"]}},
                    },
                    "configuration": {
                        "@type": "type.googleapis.com/google.protobuf.StringValue",
                        "value": plugin["pluginConfig"].to_string(),
                    },
                },
            },
        }))
    }

    /// What comes to a pod from outside: mTLS, and who may. The nodes', and the merger's if it is a pod of its own.
    fn add_sidecars(&self, pod: Pod, whole: &mut Value) {
        let nodes = self
            .layout
            .nodes()
            .map(|(shard, replica)| ("node", self.layout.node(shard, replica)));
        let merger = (pod == Pod::Merger).then(|| ("merger", self.layout.merger()));
        for (component, port) in nodes.chain(merger) {
            let name = format!("inbound|{port}||");
            let listener = self.inbound(component, &name, port);
            let cluster = json!({
                "name": name,
                "type": "STATIC",
                "connect_timeout": "1s",
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(HERE, port)}}]}]},
            });
            let resources = &mut whole["static_resources"];
            resources["listeners"]
                .as_array_mut()
                .unwrap()
                .push(listener);
            resources["clusters"].as_array_mut().unwrap().push(cluster);
        }
    }

    fn inbound(&self, component: &str, name: &str, port: u16) -> Value {
        let selecting = |kind| {
            let all = self
                .manifests
                .selecting(kind, "/spec/selector/matchLabels", component);
            let all: Vec<&Value> = all.collect();
            assert_eq!(all.len(), 1, "{kind} for {component}");
            all[0]
        };
        assert_eq!(
            selecting("PeerAuthentication")["spec"]["mtls"]["mode"],
            "STRICT"
        );
        let policy = selecting("AuthorizationPolicy");
        assert_eq!(policy["spec"]["action"], "ALLOW");
        let rule = &policy["spec"]["rules"][0];
        let own_port = if component == "node" { "7700" } else { "7703" };
        assert_eq!(rule["to"], json!([{"operation": {"ports": [own_port]}}]));
        let names = rule["from"][0]["source"]["principals"]
            .as_array()
            .unwrap()
            .iter();
        let names = names.map(|name| {
            json!({"authenticated": {"principal_name": {"exact": format!("spiffe://{}", name.as_str().unwrap())}}})
        });
        let principals: Vec<Value> = names.collect();
        json!({
            "name": name,
            "address": socket(PODS, port),
            "filter_chains": [{
                "transport_socket": self.identities.downstream(&format!("{RELEASE}-{component}")),
                "filters": [
                    {"name": "envoy.filters.network.rbac", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
                        "stat_prefix": "tcp.",
                        "rules": {"action": "ALLOW", "policies": {"ns": {"principals": principals, "permissions": [{"any": true}]}}},
                    }},
                    {"name": "envoy.filters.network.tcp_proxy", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                        "stat_prefix": name,
                        "cluster": name,
                    }},
                ],
            }],
        })
    }

    /// A way to a pod with somebody else's certificate: a listener at `port`, and its cluster.
    pub(super) fn add_intruder(&self, whole: &mut Value, account: &str, port: u16, target: u16) {
        let name = format!("intruder-{account}");
        let resources = &mut whole["static_resources"];
        resources["listeners"].as_array_mut().unwrap().push(json!({
            "name": name,
            "address": socket(HERE, port),
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": name,
                "cluster": name,
            }}]}],
        }));
        resources["clusters"].as_array_mut().unwrap().push(json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "transport_socket": self.identities.upstream(account, None),
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(PODS, target)}}]}]},
        }));
        assert!(!principal(account).is_empty());
    }
}

fn socket(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}
