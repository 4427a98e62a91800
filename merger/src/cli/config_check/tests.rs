use super::*;
use crate::cli::config_envoy;

mod tls;

const FILE: &str = include_str!("../../../../envoy/envoy.yaml");

fn merger() -> Merger {
    Merger {
        names: ShardNames::default(),
        listen: vec!["7703".to_owned()],
        egress: "7702".to_owned(),
        admin: "7701".to_owned(),
        encrypted: false,
        egress_encrypted: false,
        admin_encrypted: false,
    }
}

/// The findings on the committed file after one change in it; each with the text of its line.
fn after(from: &str, to: &str) -> Vec<(String, String)> {
    assert!(FILE.contains(from), "{from} isn't in the file");
    let text = FILE.replacen(from, to, 1);
    let report = check(&text, &merger());
    let line = |number: usize| text.lines().nth(number - 1).unwrap_or("").trim().to_owned();
    let findings = report.findings.iter();
    findings
        .map(|finding| (line(finding.line), finding.text.clone()))
        .collect()
}

#[test]
fn the_committed_files_are_sound() {
    for text in [
        FILE,
        include_str!("../../../../envoy/envoy-several-mergers.yaml"),
    ] {
        let report = check(text, &merger());
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert_eq!(report.shards.len(), 3);
        let first = &report.shards[0].nodes[0];
        assert_eq!(
            (first.id.as_str(), first.address.as_str()),
            ("shard-0-node-0", "shard-0-node-0:7700")
        );
    }
}

#[test]
fn what_weft_prints_is_sound_to_it() {
    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        envoy: config_envoy::EnvoyArgs,
    }
    for options in [
        "--shards 1",
        "--shards 12 --replicas 3",
        "--no-filter",
        "--body-routing false --access-log off",
        "--several-mergers --replicas 2 --other-merger 10.0.0.2:7703",
        "--merger merger.weft.svc.cluster.local:7703",
        "--node 0=10.0.0.1:7700 --node 1=[fd00::3]:7700 --edge [::]:7700",
    ] {
        let words = std::iter::once("weft").chain(options.split(' '));
        let arguments = <Command as clap::Parser>::try_parse_from(words)
            .unwrap()
            .envoy;
        let report = check(&config_envoy::run(&arguments).unwrap(), &merger());
        assert!(
            report.findings.is_empty(),
            "{options}: {:?}",
            report.findings
        );
        assert!(!report.shards.is_empty(), "{options}");
    }
}

#[test]
fn each_mistake_is_named_with_its_line() {
    for (from, to, line, says) in [
        (
            "- name: shard-1",
            "- name: shrad-1",
            "- name: shrad-1",
            "isn't taken for a shard",
        ),
        (
            "- name: shard-1",
            "- name: shard-01",
            "- name: shard-01",
            "isn't taken for a shard",
        ),
        (
            "- name: shard-1",
            "- name: shard-0",
            "- name: shard-0",
            "is there twice",
        ),
        (
            "- name: merger\n",
            "- name: merge\n",
            "cluster: merger",
            "did you mean `merge`?",
        ),
        (
            "- name: node\n",
            "- name: nodes\n",
            "cluster: node",
            "did you mean `nodes`?",
        ),
        (
            "type: ORIGINAL_DST",
            "type: STATIC",
            "- name: node",
            "must be of the type ORIGINAL_DST",
        ),
        (
            "use_http_header: true",
            "use_http_header: false",
            "- name: node",
            "use_http_header: true",
        ),
        (
            "path: /_weft/ready",
            "path: /health",
            "path: /health",
            "at /_weft/ready",
        ),
        (
            "healthy_panic_threshold: { value: 0 }",
            "healthy_panic_threshold: { value: 50 }",
            "healthy_panic_threshold: { value: 50 }",
            "of 0",
        ),
        (
            "health_check_config: { hostname: shard-1-node-0",
            "health_check_config: { hostname: shard-0-node-0",
            "health_check_config: { hostname: shard-0-node-0, address: { socket_address: { address: \"127.0.0.1\", port_value: 7703 } } }",
            "but this node is `shard-1-node-0`",
        ),
        (
            "{\\\"body_routing\\\":true,\\\"headers_removed\\\":true}",
            "{\\\"bodyrouting\\\":true}",
            "value: \"{\\\"bodyrouting\\\":true}\"",
            "did you mean `body_routing`?",
        ),
        (
            "{\\\"body_routing\\\":true,\\\"headers_removed\\\":true}",
            "{\\\"body_routing\\\":1}",
            "value: \"{\\\"body_routing\\\":1}\"",
            "true or false",
        ),
        (
            "{\\\"body_routing\\\":true,\\\"headers_removed\\\":true}",
            "{\\\"log_operation\\\":\\\"some\\\"}",
            "value: \"{\\\"log_operation\\\":\\\"some\\\"}\"",
            "must be none, merged or all",
        ),
        (
            "{\\\"body_routing\\\":true,\\\"headers_removed\\\":true}",
            "nonsense",
            "value: \"nonsense\"",
            "isn't a JSON object",
        ),
        (
            "{\\\"body_routing\\\":true,\\\"headers_removed\\\":true}",
            "{\\\"shard_prefix\\\":\\\"s-\\\"}",
            "value: \"{\\\"shard_prefix\\\":\\\"s-\\\"}\"",
            "the merger's --shard-prefix is `shard-`",
        ),
        (
            "allow_on_headers_stop_iteration: true",
            "",
            "name: weft",
            "writes hang",
        ),
        (
            "- remove: x-weft-term",
            "- remove: x-weft-tern",
            "\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "clients could send `x-weft-term`",
        ),
        (
            "string_match: { prefix: shard- }",
            "string_match: { prefix: shards- }",
            "- { name: x-weft-cluster, string_match: { prefix: shards- } }",
            "shards' names begin with `shard-`",
        ),
        (
            "port_value: 7701",
            "port_value: 9901",
            "address: { socket_address: { address: \"127.0.0.1\", port_value: 9901 } }",
            "--envoy-admin says 7701",
        ),
        (
            "port_value: 7702",
            "port_value: 7712",
            "address: { socket_address: { address: \"127.0.0.1\", port_value: 7712 } }",
            "--egress says 7702",
        ),
        (
            "string_match: { exact: node }",
            "string_match: { exact: nodo }",
            "- name: edge",
            "the merger can't reach the nodes",
        ),
        (
            "clusters:\n",
            "clusters:\n   - x\n",
            "- name: merger",
            "can't be read",
        ),
    ] {
        let found = after(from, to);
        let is_it = |(at, text): &(String, String)| at == line && text.contains(says);
        assert!(found.iter().any(is_it), "{from} → {to}: {found:#?}");
    }
}

#[test]
fn a_file_without_shards_or_with_foreign_ports_is_not_sound() {
    let mut other = merger();
    other.names = "s-{}-x".parse().unwrap();
    let report = check(FILE, &other);
    assert!(!report.is_sound());
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.text.contains("`s-<number>-x`"))
    );
    let mut other = merger();
    other.listen = vec!["7777".to_owned()];
    let report = check(FILE, &other);
    let text = "the merger is expected at port 7703, but its --listen says 7777";
    assert!(
        report.findings.iter().any(|finding| finding.text == text),
        "{:?}",
        report.findings
    );
    assert!(!check("", &merger()).is_sound());
}

#[test]
fn sockets_are_compared_by_their_paths() {
    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        envoy: config_envoy::EnvoyArgs,
    }
    let words = ["weft", "--sockets", "/run/weft"];
    let arguments = <Command as clap::Parser>::try_parse_from(words).unwrap();
    let text = config_envoy::run(&arguments.envoy).unwrap();
    let mut on_sockets = merger();
    on_sockets
        .listen
        .push("unix:/run/weft/merger.sock".to_owned());
    on_sockets.egress = "unix:/run/weft/egress.sock".to_owned();
    let findings = |merger: &Merger| {
        let report = check(&text, merger);
        let findings = report.findings.into_iter().map(|finding| finding.text);
        findings.collect::<Vec<_>>()
    };
    assert_eq!(findings(&on_sockets), Vec::<String>::new());
    assert_eq!(
        findings(&merger()),
        [
            "the egress listener is at unix:/run/weft/egress.sock, but the merger's --egress says 7702",
            "the merger is expected at unix:/run/weft/merger.sock, but its --listen says 7703",
            "readiness is asked at unix:/run/weft/merger.sock, where no listener of this file is, and the merger's --listen says 7703",
        ]
    );
}

#[test]
fn findings_are_shown_below_the_shards() {
    let mut report = check(FILE, &merger());
    report.shards.truncate(1);
    report.hint(7, "odd");
    report.mistake(9, "wrong");
    let shown = show(&report, "envoy.yaml", Look::PLAIN);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "SHARD  CLUSTER  LINE  NODES");
    let nodes = "shard-0-node-0 (shard-0-node-0:7700), shard-0-node-1 (shard-0-node-1:7700)";
    assert!(lines[1].ends_with(nodes), "{shown}");
    assert_eq!(
        lines[3..],
        [
            "envoy.yaml:7: hint: odd",
            "envoy.yaml:9: mistake: wrong",
            "1 mistake"
        ]
    );
}

#[test]
fn the_filter_has_these_keys() {
    let source = include_str!("../../../../filter/src/config.rs");
    let list = source.split("pub const KEYS").nth(1).unwrap();
    let list = list.split("];").next().unwrap();
    let keys: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let known: Vec<&str> = filter::KEYS.iter().map(|(name, _)| *name).collect();
    assert_eq!(keys, known);
}
