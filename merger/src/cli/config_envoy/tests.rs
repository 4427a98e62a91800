use clap::Parser;

use super::{AccessLog, EnvoyArgs, Topology, TopologyError, run};

/// The options that made `envoy/envoy.yaml`: three shards of two replicas, named as in docker-compose.yml.
const COMMITTED: &str = "--shards 3 --replicas 2 --node-host shard-{shard}-node-{replica}:7700 --edge 0.0.0.0:7700 \
                         --wasm /etc/weft/weft_filter.wasm";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    envoy: EnvoyArgs,
}

fn arguments(line: &str) -> EnvoyArgs {
    Line::try_parse_from(std::iter::once("weft").chain(line.split_whitespace()))
        .unwrap()
        .envoy
}

fn topology(line: &str) -> Result<Topology, TopologyError> {
    Topology::try_from(&arguments(line))
}

fn text(line: &str) -> String {
    run(&arguments(line)).unwrap()
}

fn nodes(topology: &Topology) -> Vec<String> {
    let nodes = topology.shards.iter().flat_map(|shard| &shard.nodes);
    nodes
        .map(|node| format!("{} {}", node.name, node.address))
        .collect()
}

#[test]
fn the_committed_files_are_this_programs_output() {
    for (file, more) in [
        ("envoy.yaml", ""),
        (
            "envoy-several-mergers.yaml",
            " --several-mergers --other-merger 172.31.77.10:7703 --other-merger 172.31.77.11:7703 \
             --other-merger 172.31.77.12:7703",
        ),
    ] {
        let path = format!("{}/../envoy/{file}", env!("CARGO_MANIFEST_DIR"));
        let committed = std::fs::read_to_string(path).unwrap();
        let options = format!("{COMMITTED}{more}");
        assert!(
            committed == text(&options),
            "envoy/{file} is not what `weft config envoy` prints; make it anew:\n\
             cargo run --release -p weft-merger -- config envoy {options} > envoy/{file}"
        );
    }
}

/// The lines of one file that the other one lacks.
fn only_in<'a>(one: &'a str, other: &str) -> Vec<&'a str> {
    let lacks = |line: &&str| !other.lines().any(|its| its == *line);
    let lines = one.lines().filter(lacks).map(str::trim);
    lines.filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn an_envoy_stops_reading_without_its_merger_only_where_others_may_write() {
    let (one, several) = (text(""), text("--several-mergers"));
    assert_eq!(
        only_in(&one, &several),
        ["timeout: 1s", "unhealthy_threshold: 4294967295"]
    );
    assert_eq!(
        only_in(&several, &one),
        ["timeout: 0.5s", "unhealthy_threshold: 3"]
    );
}

#[test]
fn other_mergers_answer_clients_and_nothing_that_is_about_this_envoy() {
    let others = "--several-mergers --other-merger 10.0.0.2:7703 --other-merger 10.0.0.3:7703";
    let printed = text(others);
    let cluster = |name: &str| {
        let of_it = printed.split("    - name: ").find(|part| {
            let first = part.lines().next();
            first.is_some_and(|first| first == name)
        });
        let lines = of_it.unwrap().lines().map(str::trim);
        let kept = lines.filter(|line| line.contains("priority:") || line.contains("endpoint:"));
        let kept = kept.map(|line| match line.split_once("address: \"") {
            Some((_, address)) => address.split('"').next().unwrap_or_default(),
            None => line,
        });
        kept.collect::<Vec<_>>()
    };
    assert_eq!(cluster("merger"), ["127.0.0.1"]);
    let each = [
        "- priority: 0",
        "127.0.0.1",
        "- priority: 1",
        "10.0.0.2",
        "10.0.0.3",
    ];
    assert_eq!(cluster("mergers"), each);
    // One way for what only reads, and one for the rest.
    assert_eq!(printed.matches("cluster: mergers\n").count(), 2);
    assert_eq!(printed.matches("cluster: merger\n").count(), 0);
    assert!(printed.contains(r#"\"max_lease_ms\":600"#));
    // They have no meaning where a merger is alone, and the same address twice is a mistake.
    let alone = Line::try_parse_from(["weft", "--other-merger", "10.0.0.2:7703"]);
    assert!(alone.is_err());
    let twice = "--several-mergers --other-merger 127.0.0.1:7703";
    assert!(matches!(topology(twice), Err(TopologyError::Twice { .. })));
}

#[test]
fn ports_are_counted_up_from_the_base_port() {
    let topology = topology("--shards 2 --replicas 2 --port 8000").unwrap();
    assert_eq!(
        [
            &topology.edge,
            &topology.admin,
            &topology.egress,
            &topology.merger
        ]
        .map(ToString::to_string),
        [
            "127.0.0.1:8000",
            "127.0.0.1:8001",
            "127.0.0.1:8002",
            "127.0.0.1:8003"
        ]
    );
    assert_eq!(topology.readiness, None);
    assert_eq!(
        nodes(&topology),
        [
            "shard-0-node-0 127.0.0.1:8010",
            "shard-0-node-1 127.0.0.1:8011",
            "shard-1-node-0 127.0.0.1:8012",
            "shard-1-node-1 127.0.0.1:8013",
        ]
    );
}

#[test]
fn nodes_can_be_named_one_by_one() {
    let topology =
        topology("--node 1=10.0.0.3:7700 --node 0=10.0.0.1:7700 --node 0=[::1]:7701").unwrap();
    assert_eq!(
        nodes(&topology),
        [
            "shard-0-node-0 10.0.0.1:7700",
            "shard-0-node-1 [::1]:7701",
            "shard-1-node-0 10.0.0.3:7700",
        ]
    );
}

#[test]
fn with_sockets_envoy_and_merger_reach_each_other_by_files_alone() {
    let sockets = "--sockets /run/weft --socket-mode 660 --replicas 2";
    let (one, other) = (text(sockets), text("--replicas 2"));
    // 0660 as a decimal number.
    assert!(one.contains("address: { pipe: { path: \"/run/weft/egress.sock\", mode: 432 } }"));
    assert!(one.contains("endpoint: { address: { pipe: { path: \"/run/weft/merger.sock\" } } }"));
    let by_socket = ", address: { pipe: { path: \"/run/weft/merger.sock\" } } }";
    assert_eq!(one.matches(by_socket).count(), 6, "one check for each node");
    for port in ["7702", "7703"] {
        assert!(!one.contains(port) && other.contains(port), "{port}");
    }
    assert!(!other.contains("pipe"));
    let others = "--several-mergers --other-merger 10.0.0.2:7703";
    assert!(text(&format!("{sockets} {others}")).contains("cluster: mergers"));
}

#[test]
fn a_folder_that_has_no_place_for_sockets_is_refused() {
    // With `/merger.sock`, 95 bytes are the most.
    let folder = |length: usize| format!("--sockets /{}", "x".repeat(length - 1));
    assert!(topology(&folder(95)).is_ok());
    let refused = topology(&folder(96)).unwrap_err().to_string();
    assert!(refused.contains("108 bytes"), "{refused}");
    assert!(topology("--sockets run").is_err());
    let names = "--sockets /run/weft --several-mergers --other-merger merger-1:7703";
    assert!(matches!(
        topology(names),
        Err(TopologyError::MergerByName(_))
    ));
    for refused in ["--merger 127.0.0.1:1", "--egress 127.0.0.1:1"] {
        let line = format!("weft --sockets /run/weft {refused}");
        assert!(Line::try_parse_from(line.split(' ')).is_err(), "{refused}");
    }
    assert!(Line::try_parse_from(["weft", "--socket-mode", "660"]).is_err());
}

#[test]
fn health_checks_of_a_merger_with_a_name_come_by_a_listener_of_their_own() {
    let topology = topology("--merger merger.weft.svc:7703").unwrap();
    assert_eq!(topology.readiness.unwrap().to_string(), "127.0.0.1:7704");
    let file = text("--merger merger.weft.svc:7703");
    assert!(file.contains("- name: readiness"));
    assert!(file.contains(
        r#"health_check_config: { hostname: shard-0-node-0, address: { socket_address: { address: "127.0.0.1", port_value: 7704 } } }"#
    ));
    assert!(!text("").contains("- name: readiness"));
}

#[test]
fn without_the_filter_no_route_asks_a_header_for_its_cluster() {
    let file = text("--no-filter");
    let edge = file.split("- name: egress").next().unwrap();
    assert!(!edge.contains("cluster_header"));
    assert!(!edge.contains("wasm"));
    assert!(edge.contains("- remove: x-weft-cluster"));
    assert!(
        text("")
            .split("- name: egress")
            .next()
            .unwrap()
            .contains("cluster_header")
    );
}

#[test]
fn the_filter_is_told_whether_to_look_into_bodies() {
    for (options, configuration) in [
        (
            "--body-routing true",
            r#"{\"body_routing\":true,\"headers_removed\":true}"#,
        ),
        (
            "--body-routing false",
            r#"{\"body_routing\":false,\"headers_removed\":true}"#,
        ),
        (
            "--access-log off",
            r#"{\"body_routing\":true,\"headers_removed\":true,\"log_operation\":\"none\"}"#,
        ),
        (
            "--access-log detailed",
            r#"{\"body_routing\":true,\"headers_removed\":true,\"log_operation\":\"all\"}"#,
        ),
    ] {
        let value = format!("value: \"{configuration}\"");
        assert!(text(options).contains(&value), "{options}");
    }
}

#[test]
fn only_shards_with_replicas_race_slow_reads_and_eject() {
    assert!(!text("--replicas 1").contains("per_try_timeout:"));
    assert!(text("--replicas 1").contains("max_ejection_percent: 0"));
    assert!(text("--replicas 2").contains("per_try_timeout: 0.5s"));
    assert!(text("--replicas 2").contains("max_ejection_percent: 50"));
    assert!(text("--replicas 3").contains("max_ejection_percent: 66"));
    let uneven = text("--node 0=10.0.0.1:7700 --node 0=10.0.0.2:7700 --node 1=10.0.0.3:7700");
    assert!(
        uneven.contains("max_ejection_percent: 50") && uneven.contains("max_ejection_percent: 0")
    );
}

#[test]
fn the_access_log_can_be_turned_down() {
    assert_eq!(arguments("").access_log, AccessLog::All);
    assert!(text("").contains("access_log:"));
    assert!(text("--access-log failed").contains("duration_filter"));
    assert!(!text("--access-log off").contains("access_log"));
}

#[test]
fn envoy_sends_spans_where_a_collector_is_named_only() {
    assert!(!text("").contains("otlp"));
    let traced = text("--otlp-tracing collector:4317 --otlp-sampling 2.5");
    assert_eq!(
        traced.matches("envoy_grpc: { cluster_name: otlp }").count(),
        2
    );
    assert!(traced.contains("numerator: 25000, denominator: MILLION"));
    // What the merger asks of its own accord begins no trace.
    let egress = traced.split("- name: egress").nth(1).unwrap();
    assert!(egress.contains("numerator: 0, denominator: MILLION"));
    let collector = r#"{ socket_address: { address: "collector", port_value: 4317 } }"#;
    assert_eq!(traced.matches(collector).count(), 1);
    let twice = topology("--otlp-tracing 127.0.0.1:7703").unwrap_err();
    assert!(matches!(twice, TopologyError::Twice { .. }), "{twice}");
}

/// The options for TLS everywhere, with the secrets' files in this folder.
fn tls(folder: &std::path::Path) -> String {
    format!(
        "--tls-cert /tls/edge/tls.crt --tls-key /tls/edge/tls.key --tls-clients-ca ca.pem --tls-nodes-ca /tls/ca.pem \
         --tls-nodes-cert /tls/envoy/tls.crt --tls-nodes-key /tls/envoy/tls.key --sds-dir {}",
        folder.display()
    )
}

#[test]
fn certificates_are_read_from_files_that_are_watched() {
    let folder = tempfile::tempdir().unwrap();
    let printed = text(&tls(folder.path()));
    let secret = |name: &str| -> serde_json::Value {
        let path = folder.path().join(format!("{name}.json"));
        assert!(printed.contains(&path.display().to_string()), "{name}");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let edge = secret("edge");
    let certificate = &edge["resources"][0]["tls_certificate"];
    assert_eq!(
        certificate["certificate_chain"]["filename"],
        "/tls/edge/tls.crt"
    );
    assert_eq!(certificate["watched_directory"]["path"], "/tls/edge");
    let clients = secret("clients-ca");
    let watched = &clients["resources"][0]["validation_context"]["watched_directory"]["path"];
    assert_eq!(watched, ".");
    secret("nodes");
    secret("nodes-ca");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
    assert!(printed.contains("require_client_certificate: true"));
}

#[test]
fn a_node_must_have_its_own_name_or_the_one_that_all_have() {
    let folder = tempfile::tempdir().unwrap();
    let names = |more: &str| {
        let printed = text(&format!("{} {more}", tls(folder.path())));
        let named = |cluster: &str| {
            let start = format!("\n    - name: {cluster}\n");
            let part = printed.split(&start).nth(1).unwrap();
            let part = part.split("\n    - name: ").next().unwrap();
            part.matches("san_type").count()
        };
        let both = (named("node"), named("shard-0"), named("shard-1"));
        (both, printed)
    };
    let nodes = "--node 0=a:7700 --node 0=10.0.0.2:7700 --node 1=b:7700";
    let (counts, printed) = names(nodes);
    assert_eq!(counts, (3, 2, 1));
    for name in [
        r#"{"san_type":"IP_ADDRESS","matcher":{"exact":"10.0.0.2"}}"#,
        r#"{"san_type":"DNS","matcher":{"exact":"b"}}"#,
    ] {
        assert_eq!(printed.matches(name).count(), 2, "{name}");
    }
    assert!(!printed.contains("sni:"));
    let (counts, printed) = names(&format!("{nodes} --tls-nodes-name node.weft"));
    assert_eq!(counts, (1, 1, 1));
    assert_eq!(printed.matches(r#"sni: "node.weft""#).count(), 3);
}

#[test]
fn tls_is_there_for_what_was_asked_only() {
    let folder = tempfile::tempdir().unwrap();
    let sds = format!("--sds-dir {}", folder.path().display());
    assert!(!text(&sds).contains("transport_socket"));
    let edge = text(&format!("--tls-cert a --tls-key b {sds}"));
    assert_eq!(edge.matches("TlsContext").count(), 1);
    assert!(!edge.contains("require_client_certificate"));
    let nodes = text(&format!("--tls-nodes-ca a {sds}"));
    assert_eq!(nodes.matches("UpstreamTlsContext").count(), 4);
    assert!(!nodes.contains("DownstreamTlsContext") && !nodes.contains("tls_certificate_sds"));
    // Readiness checks go to the merger, which speaks no TLS.
    assert_eq!(nodes.matches("transport_socket_match_criteria").count(), 1);
    assert_eq!(nodes.matches("transport_socket_matches:").count(), 3);
}

#[test]
fn what_makes_no_cluster_is_refused_in_one_line() {
    for (line, expected) in [
        (
            "--shards 0",
            "a cluster needs at least one shard, and a shard one node",
        ),
        (
            "--replicas 0",
            "a cluster needs at least one shard, and a shard one node",
        ),
        (
            "--port 65530",
            "--port 65530 leaves no room for 11 ports below 65536",
        ),
        (
            "--node-host n:7700",
            "n:7700 is used twice: by shard-0-node-0 and by shard-1-node-0",
        ),
        (
            "--node-host n{shard}",
            "--node-host: `n0` needs a port from 1 to 65535: host:port",
        ),
        (
            "--edge localhost:80",
            "--edge localhost:80: Envoy listens on IP addresses only",
        ),
        (
            "--edge 127.0.0.1:7701",
            "127.0.0.1:7701 is used twice: by edge and by admin",
        ),
        (
            "--node 0=10.0.0.1:7700 --node 2=10.0.0.2:7700",
            "shards are numbered from 0 without gaps: shard 1 has no --node",
        ),
    ] {
        assert_eq!(topology(line).unwrap_err().to_string(), expected, "{line}");
    }
}

#[test]
fn what_clap_can_judge_it_judges() {
    for line in [
        "--node 0=a:b",
        "--node a:1",
        "--edge 1",
        "--shards x",
        "--node 0=a:1 --shards 2",
        "--what",
        "--otlp-sampling 1",
        "--otlp-tracing a:1 --otlp-sampling 101",
        "--tls-cert a --tls-key b",
        "--tls-cert a --sds-dir c",
        "--tls-clients-ca a --sds-dir c",
        "--tls-nodes-ca a",
        "--tls-nodes-cert a --tls-nodes-key b --sds-dir c",
        "--tls-nodes-name a --sds-dir c",
    ] {
        assert!(
            Line::try_parse_from(std::iter::once("weft").chain(line.split_whitespace())).is_err(),
            "{line}"
        );
    }
}

#[test]
fn a_dynamic_configuration_is_the_static_one_with_the_shards_in_a_file_beside_it() {
    let (fixed, dynamic) = (text(""), text("--dynamic /etc/weft"));
    assert!(
        !dynamic.contains("- name: shard-0")
            && !dynamic.contains("load_assignment:\n        cluster_name: shard")
    );
    assert!(dynamic.contains("path: \"/etc/weft/clusters.yaml\""));
    // All that both have is the same.
    let of_clusters = fixed
        .find("    # ------------------------------------------------------------------ shard 0");
    let (before, clusters) = fixed.split_at(of_clusters.unwrap());
    let gone = only_in(before, &dynamic);
    assert_eq!(gone, [""; 0], "{gone:?}");
    let topology = topology("--dynamic /etc/weft").unwrap();
    let file = super::render::render_shards(&topology).unwrap();
    // A file has no anchors of another one.
    for anchor in [
        "lb",
        "readiness",
        "outliers",
        "breakers",
        "keepalive",
        "http1",
    ] {
        assert_eq!(file.matches(&format!("&{anchor}")).count(), 1, "{anchor}");
    }
    let lacks = only_in(clusters, &file);
    let own = [
        "- name: shard-",
        "upstream_connection_options: *keepalive",
        "typed_extension_protocol_options: *http1",
    ];
    let lacks = lacks
        .iter()
        .filter(|line| !own.iter().any(|own| line.starts_with(own)));
    assert_eq!(lacks.count(), 0);
}

#[test]
fn spare_nodes_stand_in_a_file_of_their_own() {
    let options = "--shards 1 --dynamic /etc/weft --eds --spare 10.0.0.8:1 --spare [fd00::9]:1";
    let topology = topology(options).unwrap();
    let files = super::render::render_endpoints(&topology);
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["shard-0.json", "spare.json"]);
    assert!(files[1].1.contains("fd00::9") && files[1].1.contains("spare-node-1"));
    assert!(
        !files[1].1.contains("health_check_config") && files[0].1.contains("health_check_config")
    );
    let clusters = super::render::render_shards(&topology).unwrap();
    assert!(clusters.contains("name: spare") && clusters.contains("/etc/weft/spare.json"));
    let twice = "--dynamic d --eds --spare 127.0.0.1:7710";
    assert!(matches!(
        self::topology(twice),
        Err(TopologyError::Twice { .. })
    ));
}
