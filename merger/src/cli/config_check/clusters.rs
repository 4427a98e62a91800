//! The file's clusters: which are shards, which nodes they have, and whether the others are there that the merger needs.

use std::collections::BTreeMap;

use weft_routing::ShardNames;

use super::yaml::Node;
use super::{Member, Merger, Report, Shard, named, nearest, port_of, ways};

/// A cluster of the file.
pub(super) struct Cluster<'a> {
    pub name: &'a str,
    pub line: usize,
    pub node: &'a Node,
}

/// The clusters that the file lists.
pub(super) fn listed(root: &Node) -> Vec<Cluster<'_>> {
    let clusters = root.list(&["static_resources", "clusters"]).iter();
    let named = clusters.filter_map(|node| {
        let name = node.get("name")?;
        Some(Cluster {
            name: name.scalar()?,
            line: name.line,
            node,
        })
    });
    named.collect()
}

/// Whether there are clusters that the file doesn't list.
pub(super) fn come_from_elsewhere(root: &Node) -> bool {
    root.at(&["dynamic_resources", "cds_config"]).is_some()
}

/// Looks at all clusters.
pub(super) fn check(root: &Node, merger: &Merger, report: &mut Report) {
    let clusters = listed(root);
    let mut lines = BTreeMap::new();
    for cluster in &clusters {
        if let Some(before) = lines.insert(cluster.name, cluster.line) {
            report.mistake(
                cluster.line,
                format!(
                    "the cluster `{}` is there twice: see line {before}",
                    cluster.name
                ),
            );
        }
    }
    for cluster in &clusters {
        match merger.names.shard(cluster.name) {
            Some(shard) => {
                let nodes = nodes(cluster, report);
                readiness(cluster, report);
                ways::to_ask_readiness(cluster, root, merger, report);
                report.shards.push(Shard {
                    shard: shard.0,
                    cluster: cluster.name.to_owned(),
                    line: cluster.line,
                    nodes,
                });
            }
            None => lookalike(cluster, &merger.names, report),
        }
    }
    report.shards.sort_by_key(|shard| shard.shard);
    if report.shards.is_empty() {
        let line = root
            .at(&["static_resources", "clusters"])
            .map_or(1, |clusters| clusters.line);
        match come_from_elsewhere(root) {
            true => report.hint(line, "no shard is listed here: those that come by CDS can't be checked"),
            false => report.mistake(
                line,
                format!("no cluster is a shard: they are called `{}`, as the merger's --shard-prefix says", merger.names.with("<number>")),
            ),
        }
    }
    same_nodes(report);
}

/// A cluster that was perhaps meant to be a shard.
fn lookalike(cluster: &Cluster<'_>, names: &ShardNames, report: &mut Report) {
    let name = cluster.name;
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let has_number = stem.len() < name.len();
    let begins_so = name.starts_with(names.prefix());
    let is_near = has_number && nearest(stem, [names.prefix()]).is_some();
    if begins_so || is_near {
        let called = names.with("<number>");
        report.mistake(
            cluster.line,
            format!("`{name}` isn't taken for a shard: shards are called `{called}`"),
        );
    }
}

/// The nodes of a shard's cluster.
fn nodes(cluster: &Cluster<'_>, report: &mut Report) -> Vec<Member> {
    let mut nodes = Vec::new();
    for endpoint in endpoints(cluster.node) {
        let socket = endpoint.at(&["address", "socket_address"]);
        let host = socket.and_then(|socket| socket.text(&["address"]));
        let port = socket.and_then(|socket| socket.text(&["port_value"]));
        let (Some(host), Some(port)) = (host, port) else {
            report.mistake(
                endpoint.line,
                "a node needs an address with address and port_value",
            );
            continue;
        };
        let address = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let id = endpoint.text(&["hostname"]).unwrap_or(&address).to_owned();
        checked_under(endpoint, &id, report);
        nodes.push(Member {
            id,
            address,
            line: endpoint.line,
        });
    }
    let by_eds = cluster.node.text(&["type"]) == Some("EDS");
    match (nodes.is_empty(), by_eds) {
        (true, false) => report.mistake(
            cluster.line,
            format!("the shard `{}` has no node", cluster.name),
        ),
        (true, true) => report.hint(
            cluster.line,
            format!(
                "the nodes of `{}` come by EDS, and can't be checked",
                cluster.name
            ),
        ),
        _ => {}
    }
    nodes
}

/// A cluster's endpoints.
pub(super) fn endpoints(cluster: &Node) -> Vec<&Node> {
    let localities = cluster.list(&["load_assignment", "endpoints"]).iter();
    let endpoints = localities.flat_map(|locality| locality.list(&["lb_endpoints"]));
    endpoints.filter_map(|one| one.get("endpoint")).collect()
}

/// The readiness check must ask for the node by the name that the merger knows.
fn checked_under(endpoint: &Node, id: &str, report: &mut Report) {
    let Some(check) = endpoint.get("health_check_config") else {
        let text = format!(
            "`{id}` has no health_check_config: its readiness would be asked of the node, and only the merger knows it"
        );
        report.mistake(endpoint.line, text);
        return;
    };
    match check.get("hostname") {
        Some(name) if name.scalar() == Some(id) => {}
        Some(name) => {
            let asked = name.scalar().unwrap_or("");
            report.mistake(
                name.line,
                format!("readiness is asked for `{asked}`, but this node is `{id}`"),
            );
        }
        None => report.mistake(
            check.line,
            format!("readiness must be asked for this node: hostname: {id}"),
        ),
    }
    if check.get("address").is_none() {
        report.mistake(
            check.line,
            "readiness must be asked of the merger: health_check_config needs its address",
        );
    }
}

/// What a shard's cluster must do so that nothing is read from a replica that is behind.
fn readiness(cluster: &Cluster<'_>, report: &mut Report) {
    let name = cluster.name;
    let checks = cluster.node.list(&["health_checks"]);
    if checks.is_empty() {
        let text = format!(
            "`{name}` has no health_checks: replicas that missed writes would be read from"
        );
        report.mistake(cluster.line, text);
    }
    for check in checks {
        let path = check.at(&["http_health_check", "path"]);
        if path.and_then(Node::scalar) != Some("/_weft/ready") {
            let line = path.map_or(check.line, |path| path.line);
            report.mistake(
                line,
                format!("`{name}` must be checked by HTTP at /_weft/ready"),
            );
        }
    }
    let panic = cluster
        .node
        .at(&["common_lb_config", "healthy_panic_threshold"]);
    let threshold = panic.and_then(|panic| panic.text(&["value"]));
    // Zero is what a number is that isn't written.
    if panic.is_none() || threshold.is_some_and(|value| value.parse::<f64>() != Ok(0.0)) {
        let line = panic.map_or(cluster.line, |panic| panic.line);
        let text = format!(
            "`{name}` needs common_lb_config.healthy_panic_threshold of 0: else Envoy reads from replicas that aren't ready when many aren't"
        );
        report.mistake(line, text);
    }
}

/// Nodes whose name or address is there twice.
fn same_nodes(report: &mut Report) {
    let (mut ids, mut addresses) = (BTreeMap::new(), BTreeMap::new());
    let mut found = Vec::new();
    for node in report.shards.iter().flat_map(|shard| &shard.nodes) {
        if let Some(before) = ids.insert(&node.id, node.line) {
            found.push((
                node.line,
                format!("a node `{}` is there already: see line {before}", node.id),
            ));
        } else if let Some(before) = addresses.insert(&node.address, node.line) {
            found.push((
                node.line,
                format!("{} is a node already: see line {before}", node.address),
            ));
        }
    }
    for (line, text) in found {
        report.mistake(line, text);
    }
}

/// Looks at the cluster through which the merger reaches one given node.
pub(super) fn one_node(cluster: &Cluster<'_>, report: &mut Report) {
    let name = cluster.name;
    if cluster.node.text(&["type"]) != Some("ORIGINAL_DST") {
        report.mistake(
            cluster.line,
            format!("`{name}` must be of the type ORIGINAL_DST: the merger says which node"),
        );
    }
    if cluster
        .node
        .text(&["original_dst_lb_config", "use_http_header"])
        != Some("true")
    {
        report.mistake(
            cluster.line,
            format!("`{name}` needs original_dst_lb_config: {{ use_http_header: true }}: the merger names the node in a header"),
        );
    }
}

/// Looks at the merger's cluster.
pub(super) fn the_merger(cluster: &Cluster<'_>, merger: &Merger, report: &mut Report) {
    let endpoints = endpoints(cluster.node);
    let ports: Vec<(String, usize)> = endpoints
        .iter()
        .filter_map(|one| port_of(one.get("address")))
        .collect();
    let Some((first, line)) = ports.first() else {
        return;
    };
    ways::to_the_merger(cluster, &ports, merger, report);
    // With several mergers, the others' ports may differ.
    if ports.iter().all(|(port, _)| !merger.listen.contains(port)) {
        report.mistake(
            *line,
            format!(
                "the merger is expected at {}, but its --listen says {}",
                named(first),
                merger.listen.join(",")
            ),
        );
    }
}
