//! envoy/docker-compose.ha.yml: three pairs of Envoy and merger, and an etcd of three members, on top of docker-compose.yml.

use std::collections::BTreeSet;

use compose_spec::Compose;
use serde_yaml::{Mapping, Value};

use super::{read, socket};

const PAIRS: [(&str, &str); 3] = [
    ("envoy", "merger"),
    ("envoy-1", "merger-1"),
    ("envoy-2", "merger-2"),
];
const MEMBERS: [&str; 3] = ["etcd-0", "etcd-1", "etcd-2"];

pub(super) fn file(name: &str) -> Value {
    let mut value: Value = serde_yaml::from_str(&read(name)).unwrap();
    value.apply_merge().unwrap();
    value
}

/// What Compose makes of both files: maps are merged, a volume replaces the one at the same place, other lists are joined.
fn both() -> Value {
    let mut base = file("docker-compose.yml");
    merge(&mut base, &file("envoy/docker-compose.ha.yml"));
    base
}

pub(super) fn merge(base: &mut Value, more: &Value) {
    match (base, more) {
        (Value::Mapping(base), Value::Mapping(more)) => {
            for (name, value) in more {
                match base.get_mut(name) {
                    Some(known) => merge(known, value),
                    None => drop(base.insert(name.clone(), value.clone())),
                }
            }
        }
        (Value::Sequence(base), Value::Sequence(more)) => {
            let target = |volume: &Value| {
                let text = volume.as_str().unwrap_or_default();
                text.split(':').nth(1).map(str::to_owned)
            };
            base.retain(|known| !more.iter().any(|value| target(value) == target(known)));
            base.extend(more.iter().cloned());
        }
        (base, more) => *base = more.clone(),
    }
}

fn services() -> Mapping {
    both()["services"].as_mapping().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn both_files_together_follow_the_compose_specification() {
    let compose: Compose = serde_yaml::from_value(both()).unwrap();
    compose.validate_all().unwrap();
    // The check finds mistakes.
    let broken = read("envoy/docker-compose.ha.yml").replace("service_started", "service_begun");
    let broken: Value = serde_yaml::from_str(&broken).unwrap();
    assert!(serde_yaml::from_value::<Compose>(broken).is_err());
}

#[test]
fn each_merger_stands_beside_its_envoy_and_can_be_reached_by_the_others() {
    let (all, services) = (both(), services());
    let subnet = text(&all["networks"]["default"]["ipam"]["config"][0]["subnet"]);
    let network = subnet.strip_suffix("0/24").unwrap();
    let envoy: Value = serde_yaml::from_str(&read("envoy/envoy-several-mergers.yaml")).unwrap();
    let clusters = envoy["static_resources"]["clusters"].as_sequence().unwrap();
    let of_envoy = clusters.iter().find(|it| it["name"] == "merger").unwrap();
    let of_envoy = &of_envoy["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
    let (_, port) = socket(&of_envoy["endpoint"]["address"]);
    let mut published = BTreeSet::new();
    for (envoy, merger) in PAIRS {
        let (envoy_service, merger_service) = (&services[envoy], &services[merger]);
        assert_eq!(
            merger_service["network_mode"],
            format!("service:{envoy}").as_str()
        );
        let address = text(&envoy_service["networks"]["default"]["ipv4_address"]);
        assert!(address.starts_with(network), "{address}");
        let environment = &merger_service["environment"];
        assert_eq!(
            environment["WEFT_ADVERTISE"],
            format!("{address}:{port}").as_str()
        );
        assert_eq!(
            environment["WEFT_LISTEN"],
            format!("0.0.0.0:{port}").as_str()
        );
        assert!(text(&environment["WEFT_MASTER_KEY"]).starts_with("${MEILI_MASTER_KEY:?"));
        let volumes = envoy_service["volumes"].as_sequence().unwrap();
        let configurations: Vec<&str> = volumes
            .iter()
            .map(text)
            .filter(|volume| volume.contains("/etc/envoy/envoy.yaml"))
            .collect();
        assert_eq!(
            configurations,
            ["./envoy/envoy-several-mergers.yaml:/etc/envoy/envoy.yaml:ro"],
            "{envoy}"
        );
        let ports = envoy_service["ports"].as_sequence().unwrap();
        assert_eq!(ports.len(), 1, "{envoy}");
        published.insert(text(&ports[0]).to_owned());
        assert!(
            merger_service["depends_on"].get(envoy).is_some(),
            "{merger}"
        );
    }
    let expected = ["7700:7700", "7800:7700", "7900:7700"].map(str::to_owned);
    assert_eq!(published, BTreeSet::from(expected));
}

#[test]
fn all_mergers_use_all_members_of_one_etcd() {
    let services = services();
    let endpoints: Vec<String> = MEMBERS
        .iter()
        .map(|name| format!("http://{name}:2379"))
        .collect();
    for (_, merger) in PAIRS {
        let environment = &services[merger]["environment"];
        assert_eq!(environment["WEFT_ETCD"], endpoints.join(",").as_str());
    }
    let members: Vec<String> = MEMBERS
        .iter()
        .map(|name| format!("{name}=http://{name}:2380"))
        .collect();
    for member in MEMBERS {
        let environment = &services[member]["environment"];
        for (name, value) in [
            ("ETCD_NAME", member.to_owned()),
            ("ETCD_INITIAL_CLUSTER", members.join(",")),
            (
                "ETCD_ADVERTISE_CLIENT_URLS",
                format!("http://{member}:2379"),
            ),
            (
                "ETCD_INITIAL_ADVERTISE_PEER_URLS",
                format!("http://{member}:2380"),
            ),
        ] {
            assert_eq!(environment[name], value.as_str(), "{member} {name}");
        }
        assert!(services[member].get("ports").is_none(), "{member}");
    }
}

#[test]
fn every_service_is_pinned_checked_and_keeps_its_data() {
    let (all, services) = (both(), services());
    for (name, service) in &services {
        let name = text(name);
        let image = text(&service["image"]);
        // Weft's own image is built here.
        let pinned = image == "weft"
            || image
                .rsplit_once(':')
                .is_some_and(|(_, tag)| tag.contains('.'));
        assert!(pinned, "{name}: {image}");
        if name == "filter" {
            continue;
        }
        assert!(service.get("healthcheck").is_some(), "{name}");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        if name.starts_with("merger") || name.starts_with("etcd") {
            let volumes = service["volumes"].as_sequence().unwrap();
            let volume = text(&volumes[0]).split(':').next().unwrap();
            assert_eq!(volume, name, "each service has its own volume");
            assert!(all["volumes"].get(volume).is_some(), "{name}");
        }
    }
}
