//! envoy/gateway: the Envoy configuration that Envoy Gateway makes of the example, driven in the oldest Envoy and the newest.

use std::fs;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use weft_cluster::{Binaries, Cluster, Deadline, Layout, until};

use crate::support::{counter, documents, start};

fn manifests() -> Vec<Value> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../envoy/gateway/weft.yaml");
    let text = fs::read_to_string(file).unwrap();
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn of_kind(kind: &str) -> Value {
    let all = manifests();
    let mut found = all.into_iter().filter(|manifest| manifest["kind"] == kind);
    found.next().unwrap_or_else(|| panic!("there is no {kind}"))
}

/// The listener that Envoy Gateway makes of Gateway, HTTPRoute, policies and patches.
fn edge(layout: Layout) -> Value {
    let policy = &of_kind("ClientTrafficPolicy")["spec"];
    let removed = policy["headers"]["earlyRequestHeaders"]["remove"]
        .as_array()
        .unwrap();
    let mutations: Vec<Value> = removed.iter().map(|name| json!({"remove": name})).collect();
    let regex = &of_kind("HTTPRoute")["spec"]["rules"][0]["matches"][0]["path"]["value"];
    let status = &of_kind("HTTPRouteFilter")["spec"]["directResponse"]["statusCode"];
    let mut routes = vec![
        json!({"match": {"safe_regex": {"regex": regex}}, "direct_response": {"status": status}}),
    ];
    for patch in of_kind("EnvoyPatchPolicy")["spec"]["jsonPatches"]
        .as_array()
        .unwrap()
    {
        assert_eq!(patch["name"], "search/weft/http");
        assert_eq!(patch["operation"]["op"], "add");
        assert_eq!(patch["operation"]["path"], "/virtual_hosts/0/routes/-");
        routes.push(patch["operation"]["value"].clone());
    }
    let wasm = &of_kind("EnvoyExtensionPolicy")["spec"]["wasm"][0];
    let module = Binaries::find().unwrap().filter;
    json!({
        "name": "search/weft/http",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": layout.edge()}},
        "per_connection_buffer_limit_bytes": 1048576,
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http-7700",
            "use_remote_address": true,
            "normalize_path": true,
            "merge_slashes": !policy["path"]["disableMergeSlashes"].as_bool().unwrap(),
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "early_header_mutation_extensions": [{"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                "mutations": mutations,
            }}],
            "http_filters": [
                {"name": "envoy.filters.http.wasm/weft", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                    "config": {
                        "name": wasm["name"],
                        "root_id": wasm["rootID"],
                        "failure_policy": if wasm["failOpen"] == true { "FAIL_OPEN" } else { "FAIL_CLOSED" },
                        "vm_config": {"vm_id": "weft", "runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": module.display().to_string()}}},
                        "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": wasm["config"].to_string()},
                    },
                }},
                {"name": "envoy.filters.http.router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": true,
                }},
            ],
            "route_config": {"name": "search/weft/http", "virtual_hosts": [{"name": "search/weft/http/*", "domains": ["*"], "routes": routes}]},
        }}]}],
    })
}

/// The whole configuration, at this machine's addresses.
fn configuration(layout: Layout) -> Value {
    let proxy = of_kind("EnvoyProxy");
    let bootstrap = &proxy["spec"]["bootstrap"];
    assert_eq!(bootstrap["type"], "Merge");
    let mut whole: Value = serde_yaml::from_str(bootstrap["value"].as_str().unwrap()).unwrap();
    place(layout, &mut whole);
    let listeners = whole["static_resources"]["listeners"]
        .as_array_mut()
        .unwrap();
    listeners.push(edge(layout));
    whole["admin"] = json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": layout.admin()}}});
    whole
}

fn place(layout: Layout, value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|one| place(layout, one)),
        Value::Object(members) => match members.get_mut("socket_address") {
            Some(socket) => {
                let port = match socket["address"].as_str().unwrap() {
                    "127.0.0.1" if socket["port_value"] == 7702 => layout.egress(),
                    "127.0.0.1" if socket["port_value"] == 7703 => layout.merger(),
                    name => node(layout, name),
                };
                *socket = json!({"address": "127.0.0.1", "port_value": port});
            }
            None => members.values_mut().for_each(|one| place(layout, one)),
        },
        _ => {}
    }
}

/// The port of a node by its DNS name, which its StatefulSet and Service give it.
fn node(layout: Layout, name: &str) -> u16 {
    let sets: Vec<Value> = manifests()
        .into_iter()
        .filter(|one| one["kind"] == "StatefulSet")
        .collect();
    let found = layout.nodes().find(|(shard, replica)| {
        let set = sets
            .iter()
            .find(|set| set["metadata"]["name"] == format!("weft-shard-{shard}"));
        let spec = &set.unwrap()["spec"];
        assert!(spec["replicas"].as_u64() > Some(u64::from(*replica)));
        let service = spec["serviceName"].as_str().unwrap();
        name == format!("weft-shard-{shard}-{replica}.{service}.search.svc.cluster.local")
    });
    let (shard, replica) = found.unwrap_or_else(|| panic!("no pod is called {name}"));
    layout.node(shard, replica)
}

#[tokio::test]
async fn a_cluster_behind_envoy_gateways_configuration_searches_writes_and_fails_over() {
    for envoy in [
        Binaries::oldest_envoy().unwrap(),
        Binaries::find().unwrap().envoy,
    ] {
        let version = envoy.display().to_string();
        let builder = Cluster::builder()
            .shards(2)
            .replicas(2)
            .envoy(envoy)
            .edit_envoy(|printed| {
                let printed: Value = serde_yaml::from_str(printed).unwrap();
                let admin = &printed["admin"]["address"]["socket_address"]["port_value"];
                let base = u16::try_from(admin.as_u64().unwrap()).unwrap() - 1;
                configuration(Layout::new(base, 2, 2).unwrap()).to_string()
            });
        let (cluster, api) = start(builder).await;
        let deadline = Deadline::after(Duration::from_secs(60));
        until("a green cluster", deadline, || async {
            let health = api.get("/_cluster/health").await.unwrap();
            match health.at("/status") == "green" {
                true => Ok(()),
                false => Err(health.text),
            }
        })
        .await
        .unwrap();
        let write = async |ids| {
            let answer = api
                .post("/indexes/wide/documents", &documents(ids))
                .await
                .unwrap();
            api.succeed(&answer).await.unwrap();
        };
        let found = async || {
            let answer = api
                .get("/indexes/wide/search?q=amber&hitsPerPage=5")
                .await
                .unwrap();
            match answer.at("/totalHits").as_u64() {
                Some(total) if answer.status == 200 => Ok(total),
                _ => Err(answer.text),
            }
        };
        write(0..100).await;
        assert_eq!(found().await, Ok(20), "{version}");
        let deadline = Deadline::after(Duration::from_secs(20));
        until("a direct read", deadline, || async {
            let one = api.get("/indexes/wide/documents/7").await.unwrap();
            assert_eq!(one.status, 200, "{}", one.text);
            match counter(&cluster, &["weft_filter_requests_direct_read"]).await {
                0 => Err("everything goes through the merger".to_owned()),
                _ => Ok(()),
            }
        })
        .await
        .unwrap();
        assert_eq!(api.get("/_weft/table").await.unwrap().status, 404);
        cluster.node(1, 0).kill().unwrap();
        for _ in 0..20 {
            assert_eq!(found().await, Ok(20), "{version}");
        }
        write(100..200).await;
        assert_eq!(found().await, Ok(40), "{version}");
    }
}
