//! The file's listeners: where clients arrive, the merger's way to the nodes, and where their routes lead.

use weft_routing::headers::{CLUSTER, DEGRADED, NODE_CLUSTER, OPERATION, TERM};

use super::clusters::{come_from_elsewhere, listed, one_node, the_merger};
use super::yaml::Node;
use super::{Merger, Report, meant, named, port_of, ways};

/// A connection manager, and the listener that it is in.
struct Manager<'a> {
    listener: &'a Node,
    node: &'a Node,
    routes: Vec<&'a Node>,
}

impl<'a> Manager<'a> {
    /// Whether a route sends requests to one node that the merger names.
    fn to_one_node(&self) -> Option<&'a Node> {
        let mut routes = self.routes.iter().copied();
        routes.find(|route| {
            let mut matches = by_cluster(route);
            matches.any(|one| one.text(&["string_match", "exact"]) == Some(NODE_CLUSTER))
        })
    }

    /// Whether whatever comes is sent on to a cluster, as where clients arrive.
    fn takes_all(&self) -> bool {
        let mut routes = self.routes.iter();
        routes.any(|route| {
            let all = route.text(&["match", "prefix"]) == Some("/");
            all && route.text(&["route", "cluster"]).is_some() && by_cluster(route).next().is_none()
        })
    }

    /// The routes that go where the header says.
    fn by_header(&self) -> impl Iterator<Item = &'a Node> {
        let routes = self.routes.iter().copied();
        routes.filter(|route| route.text(&["route", "cluster_header"]) == Some(CLUSTER))
    }
}

/// A route's conditions on the header that names the cluster.
fn by_cluster(route: &Node) -> impl Iterator<Item = &Node> {
    let headers = route.list(&["match", "headers"]).iter();
    headers.filter(|one| one.text(&["name"]) == Some(CLUSTER))
}

/// All connection managers of all listeners.
fn managers(root: &Node) -> Vec<Manager<'_>> {
    let mut found = Vec::new();
    for listener in root.list(&["static_resources", "listeners"]) {
        listener.walk(&mut |node| {
            if node.get("http_filters").is_none() {
                return;
            }
            let hosts = node.list(&["route_config", "virtual_hosts"]).iter();
            let routes = hosts.flat_map(|host| host.list(&["routes"]));
            found.push(Manager {
                listener,
                node,
                routes: routes.collect(),
            });
        });
    }
    found
}

/// Looks at all listeners, and at the clusters to which their routes lead.
pub(super) fn check(root: &Node, merger: &Merger, filtered: bool, report: &mut Report) {
    if !merger.admin_encrypted {
        admin(root, merger, report);
    }
    let managers = managers(root);
    let (egress, edges): (Vec<&Manager<'_>>, Vec<&Manager<'_>>) = managers
        .iter()
        .partition(|manager| manager.to_one_node().is_some());
    for manager in &managers {
        targets(manager, root, merger, report);
    }
    match egress.is_empty() {
        true => report.mistake(
            listeners_line(root),
            format!("no listener has a route for `{CLUSTER}: {NODE_CLUSTER}`: the merger can't reach the nodes (the egress listener)"),
        ),
        false => {
            for manager in egress {
                check_egress(manager, root, merger, report);
            }
        }
    }
    let edges: Vec<&Manager<'_>> = edges.into_iter().filter(|one| one.takes_all()).collect();
    if edges.is_empty() {
        report.hint(
            listeners_line(root),
            "no listener has a route to the merger: where do clients arrive?",
        );
    }
    for manager in edges {
        check_edge(manager, root, merger, filtered, report);
    }
}

fn listeners_line(root: &Node) -> usize {
    let listeners = root.at(&["static_resources", "listeners"]);
    listeners.map_or(1, |listeners| listeners.line)
}

fn admin(root: &Node, merger: &Merger, report: &mut Report) {
    match port_of(root.at(&["admin", "address"])) {
        None => report.mistake(
            root.get("admin").map_or(1, |admin| admin.line),
            "the merger learns shards and nodes from Envoy's admin interface: admin needs an address",
        ),
        Some((port, line)) if port != merger.admin => {
            report.mistake(line, format!("Envoy's admin interface is at {}, but the merger's --envoy-admin says {}", named(&port), merger.admin));
        }
        Some(_) => {}
    }
}

/// Routes must lead to clusters that are there, and match the names that shards have.
fn targets(manager: &Manager<'_>, root: &Node, merger: &Merger, report: &mut Report) {
    let clusters = listed(root);
    for route in &manager.routes {
        if let Some(target) = route.at(&["route", "cluster"]) {
            let name = target.scalar().unwrap_or("");
            let known = || clusters.iter().map(|cluster| cluster.name);
            if known().all(|known| known != name) && !come_from_elsewhere(root) {
                let text = format!(
                    "this route leads to `{name}`, and there is no such cluster{}",
                    meant(name, known())
                );
                report.mistake(target.line, text);
            }
        }
        for one in by_cluster(route) {
            let Some(prefix) = one.at(&["string_match", "prefix"]) else {
                continue;
            };
            let written = prefix.scalar().unwrap_or("");
            if !merger.names.prefix().starts_with(written) {
                let text = format!(
                    "this route is for clusters that begin with `{written}`, but shards' names begin with `{}`",
                    merger.names.prefix()
                );
                report.mistake(prefix.line, text);
            }
        }
    }
}

fn check_egress(manager: &Manager<'_>, root: &Node, merger: &Merger, report: &mut Report) {
    let address = manager.listener.get("address");
    if let Some((port, line)) = port_of(address)
        && port != merger.egress
    {
        report.mistake(
            line,
            format!(
                "the egress listener is at {}, but the merger's --egress says {}",
                named(&port),
                merger.egress
            ),
        );
    }
    ways::to_egress(manager.listener, merger, report);
    let host = address.and_then(|address| address.at(&["socket_address", "address"]));
    let is_open = |host: &&Node| matches!(host.scalar(), Some("0.0.0.0" | "::"));
    if let Some(host) = host.filter(is_open)
        && !ways::asks_for_certificates(manager.listener)
    {
        let text = "whoever reaches the egress listener reaches every node: is this address reachable by the merger only?";
        report.hint(host.line, text);
    }
    if manager.by_header().next().is_none() {
        let text = format!(
            "the egress listener has no route with cluster_header: {CLUSTER}: no shard can be read from"
        );
        report.mistake(manager.listener.line, text);
    }
    let name = manager
        .to_one_node()
        .and_then(|route| route.text(&["route", "cluster"]));
    let clusters = listed(root);
    if let Some(cluster) = clusters.iter().find(|cluster| Some(cluster.name) == name) {
        one_node(cluster, report);
    }
}

fn check_edge(
    manager: &Manager<'_>,
    root: &Node,
    merger: &Merger,
    filtered: bool,
    report: &mut Report,
) {
    let removed = removed(manager.node);
    for header in [CLUSTER, OPERATION, TERM] {
        if !removed.contains(&header) {
            let text = format!(
                "clients could send `{header}`, which only Weft may: remove it in early_header_mutation_extensions"
            );
            report.mistake(manager.node.line, text);
        }
    }
    if !removed.contains(&DEGRADED) {
        report.hint(
            manager.node.line,
            format!("`{DEGRADED}` of clients isn't removed"),
        );
    }
    if filtered && manager.by_header().next().is_none() {
        let text = format!("the filter names a shard, but no route has cluster_header: {CLUSTER}");
        report.mistake(manager.node.line, text);
    }
    let hides = manager.routes.iter().any(|route| {
        let mut hides = false;
        let is_about = |text: &str| text.contains("_weft") || text.contains("%77");
        route.walk(&mut |node| hides |= node.scalar().is_some_and(is_about));
        hides
    });
    if !hides {
        let text = "clients can reach /_weft/… of the merger, which is for Envoy and filters: answer it with a direct_response";
        report.mistake(manager.node.line, text);
    }
    let clusters = listed(root);
    for route in &manager.routes {
        let Some(name) = route.text(&["route", "cluster"]) else {
            continue;
        };
        // Envoy's default is 15 s.
        let timeout = route.text(&["route", "timeout"]).unwrap_or("15s");
        if timeout.trim_end_matches('s').parse::<f64>() != Ok(0.0) {
            let text = format!(
                "requests to `{name}` are cut off after {timeout}: the merger has its own deadlines, so timeout: 0s"
            );
            report.hint(route.line, text);
        }
        if let Some(cluster) = clusters.iter().find(|cluster| cluster.name == name) {
            the_merger(cluster, merger, report);
        }
    }
}

/// The headers that clients' requests lose before anything else sees them.
fn removed(manager: &Node) -> Vec<&str> {
    let mut found = Vec::new();
    for extension in manager.list(&["early_header_mutation_extensions"]) {
        extension.walk(&mut |node| found.extend(node.text(&["remove"])));
    }
    found
}
