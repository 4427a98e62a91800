//! docker-compose.yml: valid by the Compose specification, and the same cluster as envoy/envoy.yaml.
//!
//! These tests need no images, so they check only what can be checked without starting the services.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use compose_spec::Compose;
use serde_yaml::Value;

mod ha;
mod tracing;

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).expect(path)
}

/// The file with its anchors and merge keys resolved.
fn compose() -> Value {
    let mut value: Value = serde_yaml::from_str(&read("docker-compose.yml")).unwrap();
    value.apply_merge().unwrap();
    value
}

fn envoy() -> Value {
    serde_yaml::from_str(&read("envoy/envoy.yaml")).unwrap()
}

fn services() -> BTreeMap<String, Value> {
    serde_yaml::from_value(compose()["services"].clone()).unwrap()
}

fn socket(address: &Value) -> (String, u16) {
    let socket = &address["socket_address"];
    let port = socket["port_value"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .unwrap();
    (socket["address"].as_str().unwrap().to_owned(), port)
}

/// Name and address of every node in envoy.yaml.
fn endpoints() -> BTreeMap<String, (String, u16)> {
    let envoy = envoy();
    let clusters = envoy["static_resources"]["clusters"].as_sequence().unwrap();
    let shards = clusters
        .iter()
        .filter(|cluster| cluster["name"].as_str().unwrap().starts_with("shard-"));
    shards
        .flat_map(|shard| {
            shard["load_assignment"]["endpoints"][0]["lb_endpoints"]
                .as_sequence()
                .unwrap()
                .clone()
        })
        .map(|endpoint| {
            let endpoint = &endpoint["endpoint"];
            (
                endpoint["hostname"].as_str().unwrap().to_owned(),
                socket(&endpoint["address"]),
            )
        })
        .collect()
}

fn listener(name: &str) -> (String, u16) {
    let envoy = envoy();
    let listeners = envoy["static_resources"]["listeners"]
        .as_sequence()
        .unwrap();
    socket(
        &listeners
            .iter()
            .find(|listener| listener["name"] == name)
            .unwrap()["address"],
    )
}

fn environment(service: &str, variable: &str) -> String {
    services()[service]["environment"][variable]
        .as_str()
        .expect(variable)
        .to_owned()
}

#[test]
fn the_file_follows_the_compose_specification() {
    let compose: Compose = serde_yaml::from_value(compose()).unwrap();
    compose.validate_all().unwrap();
    // The check finds mistakes.
    for (right, wrong) in [
        ("restart: unless-stopped", "restarts: never"),
        ("service_started", "service_begun"),
    ] {
        let broken: Value =
            serde_yaml::from_str(&read("docker-compose.yml").replace(right, wrong)).unwrap();
        assert!(
            serde_yaml::from_value::<Compose>(broken).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn every_endpoint_of_envoy_is_a_service_and_every_node_an_endpoint() {
    let endpoints = endpoints();
    let nodes: BTreeSet<_> = services()
        .into_iter()
        .filter(|(_, service)| is_node(service))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(endpoints.keys().cloned().collect::<BTreeSet<_>>(), nodes);
    assert_eq!(nodes.len(), 6);
    for (name, (host, port)) in endpoints {
        assert_eq!(host, name, "an endpoint's DNS name is its service's");
        assert_eq!(
            environment(&name, "MEILI_HTTP_ADDR"),
            format!("0.0.0.0:{port}")
        );
    }
}

#[test]
fn merger_and_envoy_use_the_same_addresses() {
    let at = |(host, port): (String, u16)| format!("{host}:{port}");
    let envoy = envoy();
    assert_eq!(
        services()["merger"]["network_mode"],
        "service:envoy",
        "merger and Envoy share the loopback interface"
    );
    assert_eq!(
        environment("merger", "WEFT_ENVOY_ADMIN"),
        at(socket(&envoy["admin"]["address"]))
    );
    assert_eq!(environment("merger", "WEFT_EGRESS"), at(listener("egress")));
    let merger = envoy["static_resources"]["clusters"]
        .as_sequence()
        .unwrap()
        .iter()
        .find(|cluster| cluster["name"] == "merger")
        .map(|cluster| socket(&cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]));
    assert_eq!(environment("merger", "WEFT_LISTEN"), at(merger.unwrap()));
}

#[test]
fn only_the_edge_is_published() {
    let (host, port) = listener("edge");
    assert_eq!(host, "0.0.0.0");
    for (name, service) in services() {
        let ports = service.get("ports").cloned();
        if service["profiles"][0] == "observability" {
            // What people look at: on this machine only.
            let ports = ports.and_then(|ports| ports.as_sequence().cloned());
            let local = |port: &Value| port.as_str().unwrap().starts_with("127.0.0.1:");
            assert!(ports.unwrap_or_default().iter().all(local), "{name}");
            continue;
        }
        let expected =
            (name == "envoy").then(|| Value::Sequence(vec![format!("{port}:{port}").into()]));
        assert_eq!(ports, expected, "{name}");
    }
    let (egress, _) = listener("egress");
    assert_eq!(egress, "127.0.0.1");
}

#[test]
fn everything_that_is_mounted_or_built_exists() {
    let text = read("docker-compose.yml") + &read("merger/Dockerfile") + &read("envoy/envoy.yaml");
    // The way of the filter: it is built, put into the image, copied into the volume, and named in envoy.yaml.
    for step in [
        "cp target/release/weft target/wasm32-wasip1/release/weft_filter.wasm /out/",
        "COPY --from=build /out/weft_filter.wasm /usr/share/weft/weft_filter.wasm",
        r#"["cp", "/usr/share/weft/weft_filter.wasm", "/etc/weft/weft_filter.wasm"]"#,
        r#"filename: "/etc/weft/weft_filter.wasm""#,
        "./envoy/envoy.yaml:/etc/envoy/envoy.yaml:ro",
    ] {
        assert!(text.contains(step), "{step}");
    }
    for package in [
        "-p weft-filter --target wasm32-wasip1",
        "-p weft-merger --bin weft",
    ] {
        assert!(
            text.contains(&format!("cargo build --release --locked {package}")),
            "{package}"
        );
    }
}

#[test]
fn every_long_running_service_has_a_health_check_and_keeps_its_data() {
    let declared = compose()["volumes"].as_mapping().unwrap().clone();
    for (name, service) in services() {
        if name == "filter" {
            continue;
        }
        assert!(
            service.get("healthcheck").is_some(),
            "{name} has no health check"
        );
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        if is_node(&service) || name == "merger" {
            let volume = service["volumes"][0]
                .as_str()
                .unwrap()
                .split(':')
                .next()
                .unwrap();
            assert_eq!(volume, name, "each service has its own volume");
            assert!(declared.contains_key(volume), "{name}");
        }
        if is_node(&service) {
            assert!(environment(&name, "MEILI_MASTER_KEY").starts_with("${MEILI_MASTER_KEY:?"));
        }
    }
}

fn is_node(service: &Value) -> bool {
    service["image"]
        .as_str()
        .is_some_and(|image| image.starts_with("getmeili/meilisearch:"))
}
